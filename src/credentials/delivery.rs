//! Handing credentials to Litestream: an environment that holds them, or one that says whom to ask; a
//! child's own, or a file for systemd.
//!
//! Owns the names of the variables and the rule that secrets never touch flash: the file is written
//! on a file system in memory or not at all. The one other place that ever holds the values is the
//! memory of this process.

use std::io;
use std::path::Path;

use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};

use super::Credentials;
use crate::system::file;

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

/// Where Litestream's SDK finds credentials.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// In the environment itself.
    Values(&'a Credentials),
    /// By this file, which tells it whom to ask.
    Config(&'a Path),
}

/// What Litestream's environment holds beside its own.
pub fn environment(
    thing_name: &str,
    region: &str,
    source: Source<'_>,
) -> Vec<(&'static str, String)> {
    let mut variables = match source {
        Source::Values(credentials) => vec![
            ("AWS_ACCESS_KEY_ID", credentials.access_key_id.clone()),
            (
                "AWS_SECRET_ACCESS_KEY",
                credentials.secret_access_key.clone(),
            ),
            ("AWS_SESSION_TOKEN", credentials.session_token.clone()),
        ],
        Source::Config(file) => vec![
            ("AWS_CONFIG_FILE", file.display().to_string()),
            // A file of that kind in somebody's home would win.
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ],
    };
    variables.extend([
        ("AWS_REGION", region.to_owned()),
        ("AWS_DEFAULT_REGION", region.to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("EDGEREPL_THING_NAME", thing_name.to_owned()),
    ]);
    variables
}

/// Writes the environment file with these variables, whole or not at all: beside, mode 0600 before the
/// first byte, renamed.
///
/// # Errors
/// One sentence for the operator; the old file is as it was then.
pub fn write_environment_file(
    path: &Path,
    variables: &[(&'static str, String)],
) -> Result<(), String> {
    let failed = |e: io::Error| format!("{} can't be written: {e}", path.display());
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !is_in_memory(folder).map_err(failed)? {
        return Err(format!(
            "{} is not on tmpfs, and secrets are not written to flash; set [replication] \
             environment_file to a path under /run",
            path.display()
        ));
    }
    // The values hold nothing that systemd's format gives a meaning to: they were checked on the way
    // in, when they were read from the fetch child.
    let text: String = variables
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    file::replace(path, 0o600, &text).map_err(failed)
}

/// Whether what is written in `folder` stays in memory.
///
/// # Errors
/// Where the folder can't be looked at.
pub fn is_in_memory(folder: &Path) -> io::Result<bool> {
    let kind = statfs(folder)?.filesystem_type();
    Ok(kind == TMPFS_MAGIC || kind == RAMFS_MAGIC)
}
