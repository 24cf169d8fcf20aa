//! The tools that read Yocto layers and Buildroot trees.

use std::path::PathBuf;

use super::python::Environment;
use super::{SetupError, brings, packages};

/// Bitbake's parser and the linters.
const TOOLS: Environment = Environment {
    name: "layers",
    what: "bitbake's parser and the linters of layers",
    requirements: include_str!("../layers/requirements.txt"),
};

/// Makes sure of the tools, and answers with the Python that knows them.
pub(super) fn install() -> Result<PathBuf, SetupError> {
    packages::install(&[
        brings("busybox", "busybox"),
        brings("git", "git"),
        brings("make", "make"),
        brings("shellcheck", "shellcheck"),
    ])?;
    TOOLS.install()
}
