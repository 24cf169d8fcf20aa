//! The hand-over of credentials to Litestream: in its environment, or by a configuration that makes
//! it ask edgerepl; directly to a child, or in a file for systemd.
//!
//! Owns the names of the variables, and the rule that secrets never touch flash: the file is
//! written to a file system in memory, or not at all. The values are in no other place but this
//! process's memory.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use zeroize::Zeroizing;

use super::Credentials;
use crate::config::RuntimeDirectory;
use crate::system::file;

/// `ramfs` of `linux/magic.h`: memory that is never swapped.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6_u32 as _);

/// The beginnings of variables by which Litestream or its SDK is led: to credentials, a profile, a
/// file, an endpoint, a CA bundle. None of them reaches Litestream but those that are set here.
const KEPT_OUT: [&str; 2] = ["AWS_", "LITESTREAM_"];

/// Of those the ones that are known, for an environment that can be added to but not taken from:
/// they are set to nothing, which the SDK takes as unset.
pub const EMPTIED: [&str; 53] = [
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_ACCOUNT_ID",
    "AWS_ACCOUNT_ID_ENDPOINT_MODE",
    "AWS_AUTH_SCHEME_PREFERENCE",
    "AWS_CA_BUNDLE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CSM_CLIENT_ID",
    "AWS_CSM_ENABLED",
    "AWS_CSM_HOST",
    "AWS_CSM_PORT",
    "AWS_DEFAULTS_MODE",
    "AWS_DEFAULT_PROFILE",
    "AWS_DISABLE_REQUEST_COMPRESSION",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_EC2_METADATA_V1_DISABLED",
    "AWS_ENABLE_ENDPOINT_DISCOVERY",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_SIGNIN",
    "AWS_ENDPOINT_URL_SSO",
    "AWS_ENDPOINT_URL_SSO_OIDC",
    "AWS_ENDPOINT_URL_STS",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_MAX_ATTEMPTS",
    "AWS_PROFILE",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "AWS_RETRY_MODE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_S3_DISABLE_EXPRESS_SESSION_AUTH",
    "AWS_S3_DISABLE_MULTIREGION_ACCESS_POINTS",
    "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT",
    "AWS_S3_USE_ARN_REGION",
    "AWS_SDK_LOAD_CONFIG",
    "AWS_SDK_UA_APP_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECRET_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "LITESTREAM_ACCESS_KEY_ID",
    "LITESTREAM_CONFIG",
    "LITESTREAM_S3_ENDPOINT",
    "LITESTREAM_SECRET_ACCESS_KEY",
];

/// The variables of this process that a Litestream which it starts gets, too.
pub fn inherited() -> impl Iterator<Item = (String, String)> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !is_kept_out(name))
}

/// Keeps from `litestream` what would lead it somewhere else.
pub fn keep_out(litestream: &mut Command) {
    for (name, _) in env::vars_os().filter(|(name, _)| is_kept_out(&name.to_string_lossy())) {
        litestream.env_remove(name);
    }
}

fn is_kept_out(name: &str) -> bool {
    KEPT_OUT.iter().any(|beginning| name.starts_with(beginning))
}

/// The variables that hold credentials.
pub const CREDENTIALS: [&str; 3] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
];

/// A name and its value; the value is wiped when it is dropped.
pub type Variable = (&'static str, Zeroizing<String>);

/// The file in which nothing is to be found.
pub const NOTHING: &str = "/dev/null";

/// The name of the file that an SDK is pointed to.
const SDK_CONFIG: &str = "aws-config";

/// What the environment of a Litestream holds beside its own that finds its credentials there.
pub fn with_keys(thing_name: &str, region: &str, credentials: &Credentials) -> Vec<Variable> {
    let mut variables = vec![
        variable("AWS_ACCESS_KEY_ID", &credentials.access_key_id),
        variable("AWS_SECRET_ACCESS_KEY", &credentials.secret_access_key),
        variable("AWS_SESSION_TOKEN", &credentials.session_token),
    ];
    variables.extend(to_ask(thing_name, region, NOTHING));
    variables
}

/// The variable with the thing's name, which Litestream expands in its configuration.
pub(crate) const THING_NAME: &str = "EDGEREPL_THING_NAME";

/// The same of one that asks for credentials: `sdk_config` is the file that tells it whom.
pub fn to_ask(thing_name: &str, region: &str, sdk_config: &str) -> Vec<Variable> {
    vec![
        variable("AWS_CONFIG_FILE", sdk_config),
        // A file of that kind in a home folder would take precedence.
        variable("AWS_SHARED_CREDENTIALS_FILE", NOTHING),
        variable("AWS_REGION", region),
        variable("AWS_DEFAULT_REGION", region),
        variable("AWS_EC2_METADATA_DISABLED", "true"),
        variable(THING_NAME, thing_name),
    ]
}

fn variable(name: &'static str, value: &str) -> Variable {
    (name, Zeroizing::new(value.to_owned()))
}

/// Writes the environment file with these variables and those of [`EMPTIED`], whole or not at all,
/// for its owner alone.
///
/// # Errors
/// One sentence for the operator; the old file is as it was then.
pub fn write_environment_file(path: &Path, variables: &[Variable]) -> Result<(), String> {
    let failed = |e: io::Error| format!("{} can't be written: {e}", path.display());
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !is_in_memory(folder).map_err(failed)? {
        return Err(format!(
            "{} is not on tmpfs, and edgerepl writes no secret to flash; set [replication] \
             environment_file to a path under /run",
            path.display()
        ));
    }
    let is_set = |name: &str| variables.iter().any(|(set, _)| *set == name);
    let emptied = EMPTIED.iter().filter(|name| !is_set(name));
    let emptied = emptied.map(|name| (*name, Zeroizing::default()));
    let all: Vec<Variable> = emptied.chain(variables.iter().cloned()).collect();
    file::replace(path, 0o600, lines(&all).as_bytes()).map_err(failed)
}

/// The variables as lines of `NAME=value`. The values hold nothing that a reader of such lines,
/// systemd for one, gives a meaning to: they were checked on the way in, when they were read from
/// the fetch child.
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

/// An update has replaced the program's file while it ran: the kernel calls it deleted, and an SDK is to start what
/// has taken its place.
fn in_place_of(program: PathBuf) -> PathBuf {
    let newer = program
        .to_str()
        .and_then(|path| path.strip_suffix(" (deleted)"));
    let newer = newer.map(PathBuf::from).filter(|path| path.is_file());
    newer.unwrap_or(program)
}

/// Writes the file that `AWS_CONFIG_FILE` is to name: an SDK that reads it asks us. It holds no
/// secret.
///
/// # Errors
/// One sentence for the operator.
pub(crate) fn write_sdk_config(
    runtime: &RuntimeDirectory,
    config: &Path,
    region: &str,
) -> Result<PathBuf, String> {
    let program = std::env::current_exe()
        .map_err(|e| format!("the path of edgerepl's own program is unknown: {e}"))?;
    let program = in_place_of(program);
    // The SDK that starts it has another working directory.
    let config = &std::path::absolute(config).unwrap_or(config.to_owned());
    // SDKs for Go hand the line to a shell, others take it apart at blanks: only what both read
    // alike.
    for path in [program.as_path(), config, runtime.path()] {
        let text = path.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-:@".contains(c);
        if let Some(odd) = text.chars().find(|c| !plain(*c)) {
            return Err(format!(
                "AWS SDKs can't start edgerepl, because {text} has the character {odd:?}; move it, \
                 or set [replication] rotation to \"restart\""
            ));
        }
    }
    let file = runtime.file(SDK_CONFIG);
    let text = format!(
        "[default]\nregion = {region}\ncredential_process = {} credential-process \
         --runtime-directory {} --config {}\n",
        program.display(),
        runtime.path().display(),
        config.display()
    );
    file::replace(&file, 0o640, text.as_bytes())
        .map_err(|e| format!("{} can't be written: {e}", file.display()))?;
    Ok(file)
}

/// Whether what is written in `folder` stays in memory.
///
/// # Errors
/// Where the folder can't be looked at.
pub fn is_in_memory(folder: &Path) -> io::Result<bool> {
    let kind = statfs(folder)?.filesystem_type();
    Ok(kind == TMPFS_MAGIC || kind == RAMFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_taken_the_programs_place_is_named() {
        let program = std::env::current_exe().expect("this program");
        let replaced = PathBuf::from(format!("{} (deleted)", program.display()));
        assert_eq!(in_place_of(replaced), program);
        assert_eq!(in_place_of(program.clone()), program);
        let gone = PathBuf::from("/nowhere/edgerepl (deleted)");
        assert_eq!(in_place_of(gone.clone()), gone);
    }
}
