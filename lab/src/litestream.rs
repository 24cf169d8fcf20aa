//! Litestream's configuration for the lab's S3, and reading the replica back with the real
//! Litestream. It never starts a replication: that is what edgerepl is for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    error::{Error, Result},
    s3::{BUCKET, S3},
    sessions::REGION,
    tools,
};

/// The version that the lab restores with; it also reads what 0.3 wrote.
const RESTORE_VERSION: &str = "0.5.17";

/// The key prefix of a thing's replica of `app.db`. Litestream expands the variable itself.
const REPLICA_PATH: &str = "${EDGEREPL_THING_NAME}/app.db";

/// Writes `litestream.yml` beside `database`, for Litestream 0.5. S3 is at `endpoint`.
pub(crate) fn write_config(endpoint: &str, database: &Path, socket: &Path) -> Result<PathBuf> {
    write(
        database,
        "litestream.yml",
        &config(endpoint, &[database], socket),
    )
}

/// What `litestream.yml` says, for Litestream 0.5. What follows the first database is replicated beside
/// it, each under its own file name.
pub(crate) fn config(endpoint: &str, databases: &[&Path], socket: &Path) -> String {
    let mut text = format!(
        "\
socket:
  enabled: true
  path: {socket}
  permissions: 0600
dbs:
",
        socket = socket.display(),
    );
    for (n, database) in databases.iter().enumerate() {
        let prefix = match (n, database.file_name()) {
            (1.., Some(name)) => REPLICA_PATH.replace("app.db", &name.to_string_lossy()),
            _ => REPLICA_PATH.to_owned(),
        };
        let entry = [
            format!("  - path: {}", database.display()),
            "    replica:".to_owned(),
            "      type: s3".to_owned(),
            format!("      bucket: {BUCKET}"),
            format!("      path: {prefix}"),
            format!("      region: {REGION}"),
            format!("      endpoint: {endpoint}"),
        ];
        text += &(entry.join("\n") + "\n");
    }
    text
}

/// Writes `litestream-0.3.yml` beside `database`: no control socket, a list of replicas.
pub(crate) fn write_config_0_3(s3: &S3, database: &Path) -> Result<PathBuf> {
    let text = format!(
        "\
dbs:
  - path: {database}
    replicas:
      - type: s3
        bucket: {bucket}
        path: {REPLICA_PATH}
        region: {REGION}
        endpoint: {endpoint}
        force-path-style: true
",
        database = database.display(),
        bucket = s3.bucket(),
        endpoint = s3.endpoint(),
    );
    write(database, "litestream-0.3.yml", &text)
}

/// Restores the replica under `prefix` to `output`, which must not exist.
pub(crate) fn restore(s3: &S3, prefix: &str, output: &Path) -> Result<()> {
    let url = format!(
        "s3://{}/{prefix}?endpoint={}&region={REGION}&forcePathStyle=true",
        s3.bucket(),
        s3.endpoint(),
    );
    let restored = Command::new(tools::litestream(RESTORE_VERSION)?)
        .arg("restore")
        .arg("-o")
        .arg(output)
        .arg(url)
        .env_clear()
        .envs(s3.root_credentials().env())
        .output()
        .map_err(Error::doing("Litestream can't be run"))?;
    if restored.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&restored.stderr);
    let said = String::from_utf8_lossy(&restored.stdout);
    Err(Error::new(format!(
        "the replica {prefix} was not restored: {} {}",
        reason.trim(),
        said.trim()
    )))
}

fn write(database: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = database.with_file_name(name);
    fs::write(&path, text).map_err(Error::doing(path.display()))?;
    Ok(path)
}
