//! What is in a slot: the image's tree with a version, and with files laid over it.
//!
//! Owns how a slot's file system is made. The tree itself is never changed.

use std::{error::Error, fs, path::Path, process::Command};

use super::{File, step};
use crate::setup;

/// How large a slot is.
pub(super) const SLOT_MIB: u64 = 256;

const OS_RELEASE: &str = "usr/lib/os-release";

/// A slot's root.
#[derive(Clone, Debug)]
pub struct Root {
    /// `IMAGE_VERSION` in `/etc/os-release`.
    pub version: u32,
    /// What is laid over the tree, such as a configuration below `usr/lib/edgerepl`, a drop-in of a
    /// unit, or a program that fails.
    pub files: Vec<File>,
}

impl Root {
    /// One that works.
    pub fn version(version: u32) -> Self {
        Self {
            version,
            files: Vec::new(),
        }
    }

    /// The same, with a file laid over it.
    #[must_use]
    pub fn with(mut self, file: File) -> Self {
        self.files.push(file);
        self
    }

    /// Makes its file system.
    pub(super) fn write(&self, tree: &Path, file: &Path) -> Result<(), Box<dyn Error>> {
        let changed = file.with_extension("tree");
        let mut copy = Command::new("cp");
        // Links to the same files: what is laid over takes their place, and changes none of them.
        copy.args(["--archive", "--link"]);
        step::run(copy.arg(tree).arg(&changed))?;
        let about = fs::read_to_string(tree.join(OS_RELEASE))?;
        let about = format!("{about}IMAGE_VERSION={}\n", self.version);
        step::put(&changed, OS_RELEASE, &about)?;
        for file in &self.files {
            file.put(&changed)?;
        }
        file_system(&changed, file, "slot", SLOT_MIB)?;
        Ok(fs::remove_dir_all(changed)?)
    }
}

/// An ext4 of so many MiB with what is in a folder, all of it root's. It is read and never written, and
/// so has no journal.
pub(super) fn file_system(
    folder: &Path,
    file: &Path,
    label: &str,
    mib: u64,
) -> Result<(), Box<dyn Error>> {
    let mut mkfs = if setup::is_root() {
        Command::new("/sbin/mkfs.ext4")
    } else {
        // The files are the user's, who is root in there.
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "/sbin/mkfs.ext4"]);
        unshare
    };
    mkfs.args([
        "-q",
        "-F",
        "-L",
        label,
        "-m",
        "0",
        "-O",
        "^has_journal",
        "-d",
    ]);
    step::run(mkfs.arg(folder).arg(file).arg(format!("{mib}M"))).map(drop)
}
