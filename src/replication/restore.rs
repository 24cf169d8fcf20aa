//! Litestream's restore: the replica into a file of its own, in a folder beside the database.
//!
//! Owns that folder, and how Litestream is run: on a leash, with nothing in its environment that would
//! win over the credentials. Never touches the database itself.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;

use super::command::Replicate;
use crate::config::{RuntimeDirectory, Settings};
use crate::credential_process;
use crate::credentials::certificate::Certificate;
use crate::credentials::{Credentials, delivery, fetch};
use crate::store::wal_of;
use crate::system::leash;

/// Free space that is left to the device whatever happens, in bytes: its rows go on.
const SPARE: u64 = 16 * 1024 * 1024;

/// Where credentials are for, and the name that Litestream expands in its file.
#[derive(Debug)]
pub(crate) struct Access<'a> {
    credentials: Credentials,
    region: &'a str,
    thing_name: String,
}

impl<'a> Access<'a> {
    /// From the daemon where one runs, else by a fetch.
    ///
    /// # Errors
    /// Why there is none, in one sentence.
    pub(crate) fn obtain(
        settings: &'a Settings,
        runtime: &RuntimeDirectory,
    ) -> Result<Self, String> {
        let identity = &settings.identity;
        let certificate = Certificate::read(&identity.certificate).map_err(|f| f.message)?;
        Ok(Self {
            thing_name: fetch::thing_name(identity, &certificate).map_err(|f| f.message)?,
            credentials: credential_process::obtain(settings, runtime)?,
            region: &settings.region,
        })
    }
}

/// What happens where another one is at work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Turn {
    /// It is waited for.
    Next,
    /// This one gives up.
    OrNever,
}

/// The folder beside a database for the copy of its replica; gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Aside {
    folder: PathBuf,
    copy: PathBuf,
    _lock: Flock<File>,
}

impl Aside {
    /// Makes the folder of `database` for this purpose. What one that was killed has left is removed.
    ///
    /// # Errors
    /// Where the folder can't be used, or another one is at work.
    pub(crate) fn make(database: &Path, purpose: &str, turn: Turn) -> Result<Self, String> {
        let mut name = OsString::from(".");
        name.push(database.file_name().unwrap_or_default());
        name.push(format!("-{purpose}"));
        let folder = database.with_file_name(name);
        let failed = |e: io::Error| format!("{} can't be used: {e}", folder.display());
        let (wait, lock_file) = (turn == Turn::Next, folder.join("lock"));
        let lock = loop {
            fs::create_dir_all(&folder).map_err(failed)?;
            let file = match File::create(&lock_file) {
                // The one that was at work has just removed it all.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                file => file.map_err(failed)?,
            };
            let lock = match wait {
                true => FlockArg::LockExclusive,
                false => FlockArg::LockExclusiveNonblock,
            };
            let lock = Flock::lock(file, lock)
                .map_err(|_| format!("another {purpose} is at work in {}", folder.display()))?;
            // Held, but maybe of a file that is no longer there.
            if lock.metadata().is_ok_and(|file| file.nlink() > 0) {
                break lock;
            }
        };
        let copy = folder.join(format!("replica-{}.db", std::process::id()));
        let aside = Self {
            folder,
            copy,
            _lock: lock,
        };
        aside.clear();
        Ok(aside)
    }

    /// Restores the replica of `database`, up to the transaction `upto` or to its end, and answers with
    /// the copy's path; none where there is no replica.
    ///
    /// # Errors
    /// What Litestream says, in one sentence.
    pub(crate) fn restore(
        &self,
        replicate: &[String],
        database: &Path,
        upto: Option<u64>,
        access: &Access<'_>,
    ) -> Result<Option<&Path>, String> {
        let mut words = Replicate::parse(replicate)?.restore(&self.copy, upto);
        words.push(database.to_string_lossy().into_owned());
        // Its lock is its own: a Litestream that outlives a killed restore is waited for.
        let mut litestream = leash::command(&self.folder.join("litestream.lock"), &words);
        delivery::keep_out(&mut litestream);
        let source = delivery::Source::Values(&access.credentials);
        litestream.envs(delivery::environment(
            &access.thing_name,
            access.region,
            source,
        ));
        let mut running = litestream
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{} can't be run: {e}", words[0]))?;
        let mut said = String::new();
        if let Some(pipe) = &mut running.stderr {
            let _ = pipe.read_to_string(&mut said);
        }
        let ended = running.wait();
        if ended.is_ok_and(|status| status.success()) {
            return Ok(self.copy.is_file().then_some(&*self.copy));
        }
        let last = said.lines().rev().find(|line| !line.trim().is_empty());
        let why: String = last
            .unwrap_or("it gives no reason")
            .chars()
            .filter(|c| !c.is_control())
            .take(500)
            .collect();
        Err(format!("Litestream can't restore the replica: {why}"))
    }

    /// Removes all but the locks.
    fn clear(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if !entry.file_name().to_string_lossy().ends_with("lock") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Sees that `folder` takes another `size` bytes and leaves the device some.
///
/// # Errors
/// One sentence with both figures.
pub(crate) fn has_room(folder: &Path, size: u64) -> Result<(), String> {
    let name = folder.display();
    let room = statvfs(folder).map_err(|e| format!("{name} can't be looked at: {e}"))?;
    // Of 32 or of 64 bits, by the machine.
    #[allow(clippy::useless_conversion)]
    let free = u64::from(room.blocks_available()).saturating_mul(u64::from(room.fragment_size()));
    let needed = size.saturating_add(size / 8).saturating_add(SPARE);
    if free >= needed {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
    Err(format!(
        "{name} has {} MiB free, and {} MiB are needed: make room there",
        mib(free),
        mib(needed)
    ))
}

/// The size of a database with its WAL, in bytes.
pub(crate) fn size_of(database: &Path) -> u64 {
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    size(database) + size(&wal_of(database))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_figures() {
        let folder = std::env::temp_dir();
        assert_eq!(has_room(&folder, 1), Ok(()));
        let refused = has_room(&folder, 1 << 60).expect_err("an exbibyte");
        assert!(refused.contains("MiB free, and 123695058"), "{refused}");
        assert!(has_room(Path::new("/nowhere"), 1).is_err());
    }
}
