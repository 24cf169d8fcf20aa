//! The runtime directory: where the sockets and files are that end with a boot.
//!
//! Owns which folder it is, and the names in it that several rooms share. Makes nothing there.

use std::path::{Path, PathBuf};

use super::value::LONGEST_SOCKET;
use crate::system::inherited;

/// The directory on tmpfs for what lives as long as the daemon: systemd's `RUNTIME_DIRECTORY`,
/// `/run/edgerepl` where there is none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuntimeDirectory(PathBuf);

impl RuntimeDirectory {
    /// From the environment; of several directories that a unit asks for, the first.
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

    /// Whether the sockets in it can have their names.
    ///
    /// # Errors
    /// One sentence, where the path is too long.
    pub fn takes_sockets(&self) -> Result<(), String> {
        let longest = self.file("credentials.sock").as_os_str().len();
        if longest <= LONGEST_SOCKET {
            return Ok(());
        }
        Err(format!(
            "{} can't be used as the runtime directory (RUNTIME_DIRECTORY): its sockets' paths would \
             have {longest} bytes, and the kernel takes {LONGEST_SOCKET}; choose a shorter one",
            self.0.display()
        ))
    }

    /// Where a PIN that the token refused is remembered until the next boot.
    pub fn refused_pin(&self) -> PathBuf {
        self.file("refused-pin")
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
