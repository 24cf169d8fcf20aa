//! The release before this one, built from the repository's history.
//!
//! Owns which one that is. Never touches the working tree.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use edgerepl_tools as tools;
use xtask::process;

/// The last commit before what is on the data partition had a form. There is no release yet; from the first one on
/// this is the tag of the last.
const RELEASE: &str = "583d372";

/// Builds it, where it is not there.
pub(super) fn build() -> Result<(), Box<dyn Error>> {
    let place = tools::root().join("target/earlier");
    let source = place.join("source");
    if tools::earlier().is_ok() && source.join(RELEASE).is_file() {
        return Ok(());
    }
    println!("earlier: building edgerepl of {RELEASE}");
    let _ = fs::remove_dir_all(&source);
    fs::create_dir_all(&source)?;
    unpack(&source)?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    tools::as_if_by_hand(&mut cargo);
    cargo
        .args(["build", "--manifest-path"])
        .arg(source.join("Cargo.toml"))
        .args(["--locked", "--bin", "edgerepl", "--target-dir"])
        .arg(&place);
    process::run(&mut cargo)?;
    // Last: what was broken off is built again.
    Ok(fs::write(source.join(RELEASE), "")?)
}

fn unpack(into: &Path) -> Result<(), Box<dyn Error>> {
    let mut git = Command::new("git");
    git.arg("-C").arg(tools::root()).args(["archive", RELEASE]);
    let mut git = git.stdout(Stdio::piped()).spawn()?;
    let archive = git.stdout.take().ok_or("git has no output")?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--directory"]).arg(into);
    let unpacked = process::output(tar.stdin(archive));
    if !git.wait()?.success() {
        let next = "get the whole history with `git fetch --unshallow`";
        return Err(format!("{RELEASE} is not in the repository's history; {next}").into());
    }
    unpacked.map(drop).map_err(Into::into)
}
