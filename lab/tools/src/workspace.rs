//! The repository's two workspaces, and cargo in either.

use std::{
    env,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::Command,
};

/// A workspace, with a lock file of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Workspace {
    /// edgerepl alone: what ships, and what a recipe fetches.
    Shipped,
    /// The lab, the tests that use it, and the tasks: what never ships.
    Lab,
}

impl Workspace {
    /// Its folder.
    pub fn folder(self) -> PathBuf {
        match self {
            Self::Shipped => root(),
            Self::Lab => root().join("lab"),
        }
    }

    /// `cargo VERB` for it, in the repository's root. Both build into one `target`.
    pub fn cargo(self, verb: &str) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .arg(verb)
            .arg("--manifest-path")
            .arg(self.folder().join("Cargo.toml"))
            .current_dir(root());
        as_if_by_hand(&mut cargo);
        cargo
    }
}

/// Takes from a cargo's environment what the cargo that started this program says there of it. Build
/// scripts that look at it (ring's does) would be run again, and all that depends on them built anew,
/// with each change between a cargo started by a program and one started by hand.
pub fn as_if_by_hand(cargo: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
}

/// The first time takes minutes; whoever waits sees what for. A log is spared the lines.
pub fn show_progress_to_people(cargo: &mut Command) {
    if !io::stderr().is_terminal() {
        cargo.arg("--quiet");
    }
}

/// The repository's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}
