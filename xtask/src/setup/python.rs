//! Python environments under the workspace's `target`, each with packages of pinned versions.
//!
//! Nothing is installed into the system's Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use edgerepl_tools as tools;

use super::{AGAIN, SetupError, about, packages, packages::Package, run};

/// An environment: the folder of that name among the tools, and what goes into it.
pub(super) struct Environment {
    pub(super) name: &'static str,
    /// What it holds, for people.
    pub(super) what: &'static str,
    /// As pip reads them.
    pub(super) requirements: &'static str,
}

impl Environment {
    /// Makes sure of it, and answers with the Python that knows it.
    pub(super) fn install(&self) -> Result<PathBuf, SetupError> {
        let mut python = Command::new("python3");
        let venv = python.args(["-c", "import ensurepip, venv"]).output();
        packages::install(&[Package::new(
            "python3-venv",
            venv.is_ok_and(|o| o.status.success()),
        )])?;
        let place = tools::directory().join(self.name);
        let pinned = place.join("requirements.txt");
        if fs::read_to_string(&pinned).ok().as_deref() != Some(self.requirements) {
            self.make(&place)?;
            // Last: where it is, the rest is.
            fs::write(&pinned, self.requirements).map_err(about(&pinned))?;
        }
        // Not resolved: it finds its packages by the path that it is called by.
        let folder = place.canonicalize().map_err(about(&place))?;
        Ok(folder.join("bin/python"))
    }

    fn make(&self, place: &Path) -> Result<(), SetupError> {
        println!("setup: installing {}", self.what);
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv", "--clear"]).arg(place);
        run(&mut venv, "a Python environment", AGAIN)?;
        let wanted = place.join("wanted.txt");
        fs::write(&wanted, self.requirements).map_err(about(&wanted))?;
        let mut pip = Command::new(place.join("bin/python"));
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
        pip.args(["install", "--requirement"]).arg(&wanted);
        let next = "see that this machine reaches a Python package index, and run it again";
        run(&mut pip, self.what, next).map(drop)
    }
}
