//! Where the programs are that the lab, the tests and the tasks start: those that this repository does
//! not contain, and its own, which cargo builds first.
//!
//! Owns their places, and how cargo is started for each workspace. It explains what to do where a
//! program is missing; installing is `cargo xtask setup`'s business.

use std::{env, path::PathBuf};

mod built;
mod missing;
mod workspace;

pub use built::{edgerepl, edgerepl_as_shipped, faulty_module, i2c_shim, lab_command};
pub use missing::{Missing, Result};
pub use workspace::{Workspace, as_if_by_hand, root, show_progress_to_people};

/// The real Litestream of this version, as `cargo xtask setup` installed it.
pub fn litestream(version: &str) -> Result<PathBuf> {
    let path = litestream_path(version);
    if path.is_file() {
        return Ok(path);
    }
    Err(Missing::new(format!(
        "Litestream {version} is not at {}: install it with `cargo xtask setup`",
        path.display()
    )))
}

/// Where Litestream of this version is, or belongs.
pub fn litestream_path(version: &str) -> PathBuf {
    let folder = directory().join(format!("litestream-{version}"));
    folder.join("litestream")
}

/// Where `cargo xtask setup` installs: `EDGEREPL_TOOLS`, or `target/tools` of the repository.
pub fn directory() -> PathBuf {
    env::var_os("EDGEREPL_TOOLS").map_or_else(|| root().join("target/tools"), PathBuf::from)
}

/// A program of AWS's clients, `python` (which knows boto3) or `aws`, as `cargo xtask test` installed
/// them.
pub fn aws_sdk(program: &str) -> Result<PathBuf> {
    let path = directory().join("aws-sdks/bin").join(program);
    if path.is_file() {
        return Ok(path);
    }
    Err(Missing::new(format!(
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
    Err(Missing::new(format!(
        "{} is not there: install it with `cargo xtask test metrics`",
        path.display()
    )))
}

/// edgerepl of the release before this one, as `cargo xtask test earlier` built it.
pub fn earlier() -> Result<PathBuf> {
    let path = earlier_path();
    if path.is_file() {
        return Ok(path);
    }
    Err(Missing::new(format!(
        "{} is not there: build it with `cargo xtask test earlier`",
        path.display()
    )))
}

/// Where that one is, or belongs.
pub fn earlier_path() -> PathBuf {
    root().join("target/earlier/debug/edgerepl")
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
            Missing::new("SoftHSM's PKCS#11 module is missing: install it with `cargo xtask setup`")
        })
}
