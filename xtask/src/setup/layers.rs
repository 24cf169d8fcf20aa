//! The tools that read Yocto layers and Buildroot trees.
//!
//! Owns a Python environment of their own under the workspace's `target`, with the versions that
//! `layers/requirements.txt` pins. Nothing is installed into the system's Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use edgerepl_lab::tools;

use super::{AGAIN, SetupError, about, brings, packages, packages::Package, run};

/// What goes into the environment.
const REQUIREMENTS: &str = include_str!("../layers/requirements.txt");

/// Makes sure of the tools, and answers with the Python that knows them.
pub(super) fn install() -> Result<PathBuf, SetupError> {
    let mut python = Command::new("python3");
    let venv = python.args(["-c", "import ensurepip, venv"]).output();
    packages::install(&[
        brings("busybox", "busybox"),
        brings("git", "git"),
        brings("make", "make"),
        Package::new("python3-venv", venv.is_ok_and(|o| o.status.success())),
        brings("shellcheck", "shellcheck"),
    ])?;
    let place = tools::directory().join("layers");
    let pinned = place.join("requirements.txt");
    if fs::read_to_string(&pinned).ok().as_deref() != Some(REQUIREMENTS) {
        make(&place)?;
        // Last: where it is, the rest is.
        fs::write(&pinned, REQUIREMENTS).map_err(about(&pinned))?;
    }
    // Not resolved: it finds its packages by the path that it is called by.
    let folder = place.canonicalize().map_err(about(&place))?;
    Ok(folder.join("bin/python"))
}

fn make(place: &Path) -> Result<(), SetupError> {
    println!("setup: installing bitbake's parser and the linters of layers");
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(place);
    run(&mut venv, "a Python environment", AGAIN)?;
    let wanted = place.join("wanted.txt");
    fs::write(&wanted, REQUIREMENTS).map_err(about(&wanted))?;
    let mut pip = Command::new(place.join("bin/python"));
    pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
    pip.args(["install", "--requirement"]).arg(&wanted);
    let next = "see that this machine reaches a Python package index, and run it again";
    run(&mut pip, "the linters of layers", next).map(drop)
}
