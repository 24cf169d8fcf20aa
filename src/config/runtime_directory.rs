//! The runtime directory: sockets and files that last until the next boot.
//!
//! Owns the choice of the directory, and the names in it that several rooms share. Never creates
//! anything there.

use std::path::{Path, PathBuf};

use super::value::LONGEST_SOCKET;
use crate::system::inherited;

/// The directory on tmpfs for files that live as long as the daemon: systemd's
/// `RUNTIME_DIRECTORY`, else `/run/edgerepl`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuntimeDirectory(PathBuf);

impl RuntimeDirectory {
    /// From the environment; the first one if a unit has several.
    pub fn from_environment() -> Self {
        let given = inherited::folder("RUNTIME_DIRECTORY");
        Self(given.unwrap_or_else(|| PathBuf::from("/run/edgerepl")))
    }

    /// This one.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether the paths of the sockets in it are short enough.
    ///
    /// # Errors
    /// One sentence, if the path is too long.
    pub fn takes_sockets(&self) -> Result<(), String> {
        let longest = self.file("credentials.sock").as_os_str().len();
        if longest <= LONGEST_SOCKET {
            return Ok(());
        }
        Err(format!(
            "{} can't be used as the runtime directory (RUNTIME_DIRECTORY): its sockets' paths \
             would have {longest} bytes, but the kernel's limit is {LONGEST_SOCKET}; choose a \
             shorter path",
            self.0.display()
        ))
    }

    /// The file that records a refused PIN until the next boot.
    pub fn refused_pin(&self) -> PathBuf {
        self.file("refused-pin")
    }

    /// A file that outlives a boot, where there is a place for it: in systemd's `STATE_DIRECTORY` if that
    /// is a directory, or else in this one.
    pub fn state_file(&self, name: &str) -> PathBuf {
        let state = inherited::folder("STATE_DIRECTORY").filter(|folder| folder.is_dir());
        state.map_or_else(|| self.file(name), |folder| folder.join(name))
    }

    /// The same, but where `STATE_DIRECTORY` is set it is in there or nowhere: of what is only to be known where it
    /// outlives a boot.
    pub fn lasting_file(&self, name: &str) -> PathBuf {
        let state = inherited::folder("STATE_DIRECTORY");
        state.map_or_else(|| self.file(name), |folder| folder.join(name))
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
