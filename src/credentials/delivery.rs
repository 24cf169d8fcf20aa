//! Handing credentials to Litestream: an environment that holds them, or one that says whom to ask; a
//! child's own, or a file for systemd.
//!
//! Owns the names of the variables and the rule that secrets never touch flash: the file is written
//! on a file system in memory or not at all. The one other place that ever holds the values is the
//! memory of this process.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use zeroize::Zeroizing;

use super::Credentials;

/// `ramfs` of `linux/magic.h`: memory that is never swapped.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6_u32 as _);

/// Variables that would win over ours, or lead Litestream's SDK somewhere else.
pub const UNWANTED: [&str; 12] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "LITESTREAM_ACCESS_KEY_ID",
    "LITESTREAM_SECRET_ACCESS_KEY",
];

/// A name and its value; the value is wiped when it is dropped.
pub type Variable = (&'static str, Zeroizing<String>);

/// Where Litestream's SDK finds credentials.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// In the environment itself.
    Values(&'a Credentials),
    /// By this file, which tells it whom to ask.
    Config(&'a Path),
}

/// What Litestream's environment holds beside its own.
pub fn environment(thing_name: &str, region: &str, source: Source<'_>) -> Vec<Variable> {
    let variable = |name, value: &str| (name, Zeroizing::new(value.to_owned()));
    let mut variables = match source {
        Source::Values(credentials) => vec![
            variable("AWS_ACCESS_KEY_ID", &credentials.access_key_id),
            variable("AWS_SECRET_ACCESS_KEY", &credentials.secret_access_key),
            variable("AWS_SESSION_TOKEN", &credentials.session_token),
        ],
        Source::Config(file) => vec![
            variable("AWS_CONFIG_FILE", &file.to_string_lossy()),
            // A file of that kind in somebody's home would win.
            variable("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ],
    };
    variables.extend([
        variable("AWS_REGION", region),
        variable("AWS_DEFAULT_REGION", region),
        variable("AWS_EC2_METADATA_DISABLED", "true"),
        variable("EDGEREPL_THING_NAME", thing_name),
    ]);
    variables
}

/// Writes the environment file with these variables, whole or not at all: beside, mode 0600 before the
/// first byte, synced, renamed.
///
/// # Errors
/// One sentence for the operator; the old file is as it was then.
pub fn write_environment_file(path: &Path, variables: &[Variable]) -> Result<(), String> {
    let failed = |e: io::Error| format!("{} can't be written: {e}", path.display());
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !is_in_memory(folder).map_err(failed)? {
        return Err(format!(
            "{} is not on tmpfs, and secrets are not written to flash; set [replication] \
             environment_file to a path under /run",
            path.display()
        ));
    }
    replace(path, folder, &lines(variables)).map_err(failed)
}

/// The variables as lines of `NAME=value`. The values hold nothing that a reader of such lines, systemd
/// for one, gives a meaning to: they were checked on the way in, when they were read from the fetch
/// child.
pub fn lines(variables: &[Variable]) -> Zeroizing<String> {
    // As long as it becomes: what grows leaves a copy behind.
    let length = variables
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2);
    let mut lines = Zeroizing::new(String::with_capacity(length.sum()));
    for (name, value) in variables {
        for part in [name, "=", value, "\n"] {
            lines.push_str(part);
        }
    }
    lines
}

/// Whether what is written in `folder` stays in memory.
///
/// # Errors
/// Where the folder can't be looked at.
pub fn is_in_memory(folder: &Path) -> io::Result<bool> {
    let kind = statfs(folder)?.filesystem_type();
    Ok(kind == TMPFS_MAGIC || kind == RAMFS_MAGIC)
}

fn replace(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let beside = beside(path);
    // Left by a daemon that was killed in the middle of this.
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    // Whatever the umask took away or the file system made of it.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}
