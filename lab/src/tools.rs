//! Where the programs are that the lab does not contain. It finds them and explains what to do
//! where one is missing; installing is `cargo xtask setup`'s business.

use std::{env, path::PathBuf};

use crate::error::{Error, Result};

/// The real Litestream of this version, as `cargo xtask setup` installed it.
pub fn litestream(version: &str) -> Result<PathBuf> {
    let path = litestream_path(version);
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::new(format!(
        "Litestream {version} is not at {}: install it with `cargo xtask setup`",
        path.display()
    )))
}

/// Where Litestream of this version is, or belongs.
pub fn litestream_path(version: &str) -> PathBuf {
    let folder = directory().join(format!("litestream-{version}"));
    folder.join("litestream")
}

/// Where `cargo xtask setup` installs: `EDGEREPL_TOOLS`, or `target/tools` of the workspace.
pub fn directory() -> PathBuf {
    env::var_os("EDGEREPL_TOOLS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools")),
        PathBuf::from,
    )
}

/// A program of AWS's clients, `python` (which knows boto3) or `aws`, as `cargo xtask test` installed
/// them.
pub fn aws_sdk(program: &str) -> Result<PathBuf> {
    let path = directory().join("aws-sdks/bin").join(program);
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::new(format!(
        "{} is not there: install it with `cargo xtask test sdk`",
        path.display()
    )))
}

/// Prometheus's own judge of metrics, as `cargo xtask test` unpacked it.
pub fn promtool() -> Result<PathBuf> {
    let path = directory().join("prometheus/usr/bin/promtool");
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::new(format!(
        "{} is not there: install it with `cargo xtask test metrics`",
        path.display()
    )))
}

/// The folder of Microchip's PKCS#11 module, and of the configuration files that it was built to read:
/// `cryptoauthlib.conf`, and `slots` with `0.conf`. It is there once `cargo xtask test secure-element`
/// has built it.
pub fn cryptoauthlib() -> PathBuf {
    directory().join("cryptoauthlib")
}

/// SoftHSM's PKCS#11 module, where the distributions put it; `SOFTHSM2_MODULE` comes first.
pub fn softhsm_module() -> Result<PathBuf> {
    const PLACES: [&str; 4] = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/lib64/softhsm/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
    ];
    let named = env::var_os("SOFTHSM2_MODULE").map(PathBuf::from);
    named
        .into_iter()
        .chain(PLACES.map(PathBuf::from))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::new("SoftHSM's PKCS#11 module is missing: install it with `cargo xtask setup`")
        })
}

/// The `lab` command: `EDGEREPL_LAB_BIN`, or the one that cargo built.
pub(crate) fn lab_command() -> Result<PathBuf> {
    match env::var_os("EDGEREPL_LAB_BIN") {
        Some(named) => Ok(named.into()),
        None => built("lab"),
    }
}

/// The faulty PKCS#11 module that cargo built.
pub(crate) fn faulty_module() -> Result<PathBuf> {
    built("libfaulty_module.so")
}

/// The shim that makes a process take the lab's bus for its own.
pub(crate) fn i2c_shim() -> Result<PathBuf> {
    built("libi2c_shim.so")
}

/// What cargo built beside the running program or, for a test, one directory above it.
fn built(name: &str) -> Result<PathBuf> {
    let this = env::current_exe().map_err(Error::doing("the running program's own path"))?;
    let mut folders = this.ancestors().skip(1).take(2);
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()));
    found.ok_or_else(|| {
        Error::new(format!(
            "{name} is not built: `cargo xtask test` builds it, or `cargo build --workspace`"
        ))
    })
}
