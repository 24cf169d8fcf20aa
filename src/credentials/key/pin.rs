//! A token's PIN: read from its file, wiped after use, and never retried after a refusal.
//!
//! Owns the file on tmpfs that records a refused PIN: tokens count wrong PINs and lock for good,
//! while processes start and end. The file holds a digest of one PIN, the last that was refused.
//! Never logs a PIN, and never offers a PIN whose refusal it could not record.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cryptoki::types::RawAuthPin;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::{Gid, Uid, fchown};
use rustls::crypto::hash::Output;

use super::sha256;
use crate::credentials::{FailureClass, FetchFailure, file};
use crate::system::file::make_folder;

/// The longest PIN that is read from a file, in bytes. Tokens take far less.
const MAX_PIN: usize = 256;

/// A PIN, in memory that is wiped.
pub(super) struct Pin {
    pub(super) secret: RawAuthPin,
    digest: Output,
}

impl Pin {
    /// The content of the file but for one newline at its end.
    pub(super) fn read(path: &Path) -> Result<Self, FetchFailure> {
        let mut outcome = Ok(());
        let mut digest = sha256(&[]);
        let secret = RawAuthPin::init_with_mut(|pin| {
            outcome = file::read_into("the PIN file", path, MAX_PIN, pin);
            if pin.last() == Some(&b'\n') {
                pin.pop();
                if pin.last() == Some(&b'\r') {
                    pin.pop();
                }
            }
            digest = sha256(pin);
            if outcome.is_ok() && pin.is_empty() {
                let message = format!("the PIN file {} holds no PIN", path.display());
                outcome = Err(FetchFailure::new(FailureClass::Refused, message));
            }
        });
        outcome.map(|()| Self { secret, digest })
    }
}

/// The refused PIN of this boot. Only the process that holds it may offer a PIN.
pub(super) struct RefusedPin {
    path: PathBuf,
    file: Flock<File>,
}

impl RefusedPin {
    /// Opens the memory, and sees to it that it can be written.
    ///
    /// # Errors
    /// `Refused` where it can't: then no PIN may be offered.
    pub(super) fn open(path: &Path) -> Result<Self, FetchFailure> {
        let unusable = |error: &dyn fmt::Display| {
            let message = format!(
                "the PIN is not tried, because a refusal could not be recorded in {}: {error}",
                path.display()
            );
            FetchFailure::new(FailureClass::Refused, message)
        };
        let file = Self::create(path).map_err(|error| unusable(&error))?;
        let file = Flock::lock(file, FlockArg::LockExclusive);
        let memory = Self {
            path: path.to_owned(),
            file: file.map_err(|(_, error)| unusable(&error))?,
        };
        if memory.read().is_none() {
            // From here on there is nothing left that a full disk could refuse.
            memory.forget().map_err(|error| unusable(&error))?;
        }
        Ok(memory)
    }

    fn create(path: &Path) -> io::Result<File> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        make_folder(folder)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(path)?;
        let found = file.metadata()?;
        if !found.is_file() || found.nlink() != 1 {
            // A second name of another's file: root would give that away.
            return Err(io::Error::other("it is no file of its own; remove it"));
        }
        if Uid::effective().is_root() {
            // The daemon must be able to use a file that a user's `check` made.
            let owner = folder.metadata()?;
            let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
            fchown(file.as_fd(), Some(user), Some(group))?;
        }
        Ok(file)
    }

    /// Whether it is this one.
    pub(super) fn is(&self, pin: &Pin) -> bool {
        self.read()
            .is_some_and(|digest| digest == pin.digest.as_ref())
    }

    /// Why the PIN is not tried, with the next step.
    pub(super) fn why(&self, pin_file: &Path) -> String {
        format!(
            "the PIN in {} was refused before; edgerepl does not retry it because the token counts \
             tries: put the right PIN into that file, or, if the token's PIN was changed to this \
             one, remove {}",
            pin_file.display(),
            self.path.display()
        )
    }

    /// Remembers that this one was refused.
    pub(super) fn keep(&self, pin: &Pin) {
        if let Err(error) = self.file.write_all_at(pin.digest.as_ref(), 0) {
            log::error!("{} can't be written: {error}", self.path.display());
        }
    }

    /// The token took its PIN.
    pub(super) fn forget(&self) -> io::Result<()> {
        self.file.write_all_at(&[0; 32], 0)
    }

    fn read(&self) -> Option<[u8; 32]> {
        let mut digest = [0; 32];
        self.file.read_exact_at(&mut digest, 0).ok()?;
        Some(digest)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn remembers_the_last_refused_pin_in_a_file_for_its_owner() {
        let folder = std::env::temp_dir().join(format!("edgerepl-pin-{}", std::process::id()));
        let (path, pin) = (folder.join("new/refused-pin"), folder.join("pin"));
        fs::create_dir_all(&folder).expect("a temporary directory");
        let mut pins = ["1234\n", "1234\r\n", "12345"].map(|text| {
            fs::write(&pin, text).expect("written");
            Pin::read(&pin).expect("a PIN")
        });
        let [one, same, other] = &mut pins;

        let memory = RefusedPin::open(&path).expect("a memory");
        assert!(!memory.is(one));
        memory.keep(one);
        drop(memory);
        let memory = RefusedPin::open(&path).expect("a memory");
        assert!(memory.is(one) && memory.is(same) && !memory.is(other));
        assert!(memory.why(&pin).contains("refused-pin"));
        memory.forget().expect("forgotten");
        assert!(!memory.is(one));

        let file = fs::read(&path).expect("the memory");
        assert_eq!(file.len(), 32);
        assert_eq!(path.metadata().expect("a file").mode() & 0o777, 0o600);
        for text in ["", "\n"] {
            fs::write(&pin, text).expect("written");
            assert!(Pin::read(&pin).is_err());
        }
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn offers_no_pin_that_it_can_not_remember() {
        let failure = RefusedPin::open(Path::new("/proc/none/refused-pin"))
            .err()
            .expect("no memory there");
        assert_eq!(failure.class, FailureClass::Refused);
        assert!(
            failure.message.contains("is not tried"),
            "{}",
            failure.message
        );
    }
}
