//! Litestream's restore: the replica into a new file, in a folder beside the database.
//!
//! Owns that folder, and how Litestream is run: on a leash, without variables that would override
//! the credentials. Never touches the database itself.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, linkat, unlinkat};

use super::command::{Replicate, Upto, last_words};
use super::leash;
use crate::credentials::delivery::Variable;
use crate::store::wal_of;

/// Free space that is always left to the device for new rows, in bytes.
const SPARE: u64 = 16 * 1024 * 1024;

/// The purpose of a restore that is only compared.
pub(crate) const VERIFY: &str = "verify";

/// What Litestream says of objects whose content it can't read. A transfer that ends early is none of them:
/// that may be the line's.
const UNREADABLE: [&str; 5] = [
    "file checksum mismatch",
    "invalid LTX file",
    "invalid page header",
    "invalid page size",
    "lz4: ",
];

/// Whether a restore failed so because the bucket holds other bytes than were uploaded.
pub(crate) fn is_unreadable(cause: &str) -> bool {
    UNREADABLE.iter().any(|words| cause.contains(words))
}

/// What to do if another one is running.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Turn {
    /// Wait for its end.
    Next,
    /// Give up.
    OrNever,
}

/// The folder beside a database for the copy of its replica; gone when this is dropped.
///
/// The database's folder may be somebody else's, who can put links there, and take the name of ours
/// away at any moment. All is done through descriptors of the folders that were looked at.
#[derive(Debug)]
pub(crate) struct Aside {
    beside: File,
    name: OsString,
    folder: File,
    /// By the descriptor, for this process alone: no other may look into one that holds
    /// credentials.
    copy: PathBuf,
    _lock: Flock<File>,
}

impl Aside {
    /// Makes the folder of `database` for this purpose. What one that was killed has left is
    /// removed.
    ///
    /// # Errors
    /// If the folder can't be used, or another one is running.
    pub(crate) fn make(database: &Path, purpose: &str, turn: Turn) -> Result<Self, String> {
        let name = name_of(database, purpose);
        let path = database.with_file_name(&name);
        let failed = |e: io::Error| format!("{} can't be used: {e}", path.display());
        let beside = File::open(database.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
        let (folder, lock) = loop {
            let folder = private_folder(&beside, &name).map_err(failed)?;
            let opened = openat(&folder, "lock", LOCK, Mode::from_bits_truncate(0o600));
            let file = match opened {
                // The one that was running has just removed the folder's contents.
                Err(Errno::ENOENT) => continue,
                file => File::from(file.map_err(|e| failed(e.into()))?),
            };
            let lock = match turn {
                Turn::Next => FlockArg::LockExclusive,
                Turn::OrNever => FlockArg::LockExclusiveNonblock,
            };
            let lock = Flock::lock(file, lock)
                .map_err(|_| format!("another {purpose} is running in {}", path.display()))?;
            // The lock may be of a file that has been removed.
            if lock.metadata().is_ok_and(|file| file.nlink() > 0) {
                break (folder, lock);
            }
        };
        // Not the name of a database: a Litestream that watches the folder would replicate it.
        let copy = by_descriptor(&folder).join(format!("replica-{}", std::process::id()));
        let aside = Self {
            beside,
            name,
            folder,
            copy,
            _lock: lock,
        };
        // A lock that is a link was put there by another user.
        aside.clear(|entry| {
            let name = entry.file_name();
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            is_file && name.to_string_lossy().ends_with("lock")
        });
        Ok(aside)
    }

    /// Whether one is at work, or was killed.
    pub(crate) fn is_left(database: &Path, purpose: &str) -> bool {
        database.with_file_name(name_of(database, purpose)).is_dir()
    }

    /// Gives the copy the database's name, unless a file has taken it meanwhile; returns whether
    /// it did. A copy that root made belongs to the folder's owner, who is to use it.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn put(&self, database: &Path) -> io::Result<bool> {
        let copy = self.copy.file_name().unwrap_or_default();
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = File::from(openat(&self.folder, copy, flags, Mode::empty())?);
        if Uid::effective().is_root() {
            let owner = self.beside.metadata()?;
            let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
            fchown(&file, Some(user), Some(group))?;
        }
        // No more than SQLite gives a new database, whatever the umask.
        let mode = Mode::from_bits_truncate(file.metadata()?.mode() & 0o644);
        fchmod(&file, mode)?;
        file.sync_all()?;
        self.beside.sync_all()?;
        let name = database.file_name().unwrap_or_default();
        // A link, not a rename: it never replaces a file that has taken the name meanwhile.
        match linkat(&self.folder, copy, &self.beside, name, AtFlags::empty()) {
            Err(Errno::EEXIST) => return Ok(false),
            linked => linked?,
        }
        self.beside.sync_all()?;
        Ok(true)
    }

    /// Begins to restore the replica of `database`, which is named so in Litestream's configuration,
    /// or in `own`, the text of another one.
    ///
    /// # Errors
    /// Why Litestream can't be run, in one sentence.
    pub(crate) fn restore(
        &self,
        replicate: &[String],
        own: Option<&str>,
        database: &Path,
        upto: &Upto,
        environment: Vec<Variable>,
    ) -> Result<Restoring<'_>, String> {
        // From within the folder, which it is started in.
        let copy = Path::new(".").join(self.copy.file_name().unwrap_or_default());
        let replicate = Replicate::parse(replicate)?;
        let own = match own {
            Some(text) => Some(self.write_configuration(text).map_err(|e| {
                let name = database.display();
                format!("Litestream's configuration for {name} can't be written beside it: {e}")
            })?),
            None => None,
        };
        let mut words = replicate.restore(&copy, upto, own);
        words.push(database.to_string_lossy().into_owned());
        // Its lock is its own: a Litestream that outlives a killed restore is waited for.
        let mut litestream = leash::command(Some(Path::new("litestream.lock")), &words);
        litestream.current_dir(by_descriptor(&self.folder));
        let running = litestream
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{} can't be run: {e}", words[0]))?;
        Ok(Restoring {
            running,
            copy: &self.copy,
        })
    }

    fn write_configuration(&self, text: &str) -> io::Result<&'static Path> {
        let name = Path::new("litestream.yml");
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let mut file = File::from(openat(&self.folder, name, flags, mode)?);
        file.write_all(text.as_bytes())?;
        Ok(name)
    }

    /// Removes everything except what `kept` accepts.
    fn clear(&self, kept: impl Fn(&DirEntry) -> bool) {
        let entries = fs::read_dir(by_descriptor(&self.folder));
        for entry in entries.into_iter().flatten().flatten() {
            if !kept(&entry) {
                let name = entry.file_name();
                let _ = unlinkat(&self.folder, &*name, UnlinkatFlags::NoRemoveDir);
            }
        }
    }
}

/// A running restore. It is killed if this is dropped.
#[derive(Debug)]
pub(crate) struct Restoring<'a> {
    running: Child,
    copy: &'a Path,
}

impl<'a> Restoring<'a> {
    /// Waits for its end, and returns the copy's path; `None` if there is no replica.
    ///
    /// # Errors
    /// Litestream's last message, in one sentence.
    pub(crate) fn end(mut self) -> Result<Option<&'a Path>, String> {
        let mut said = String::new();
        if let Some(pipe) = &mut self.running.stderr {
            let _ = pipe.read_to_string(&mut said);
        }
        if self.running.wait().is_ok_and(|status| status.success()) {
            return Ok(self.copy.is_file().then_some(self.copy));
        }
        Err(format!(
            "Litestream can't restore the replica: {}",
            last_words(&said)
        ))
    }
}

impl Drop for Restoring<'_> {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.clear(|entry| entry.file_name() == "lock");
        // Once it is away, all that is in the folder may be the next one's.
        let _ = unlinkat(&self.folder, "lock", UnlinkatFlags::NoRemoveDir);
        let _ = unlinkat(&self.beside, &*self.name, UnlinkatFlags::RemoveDir);
    }
}

const LOCK: OFlag = OFlag::O_RDWR
    .union(OFlag::O_CREAT)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_CLOEXEC);

/// `.app.db-verify`
fn name_of(database: &Path, purpose: &str) -> OsString {
    let mut name = OsString::from(".");
    name.push(database.file_name().unwrap_or_default());
    name.push(format!("-{purpose}"));
    name
}

/// A folder that only this user may read or write.
fn private_folder(beside: &File, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let folder = loop {
        match mkdirat(beside, name, Mode::S_IRWXU) {
            Err(Errno::EEXIST) | Ok(()) => {}
            made => made?,
        }
        match openat(beside, name, flags, Mode::empty()) {
            Err(Errno::ENOENT) => {}
            Err(Errno::ELOOP | Errno::ENOTDIR) => {
                return Err(io::Error::other(
                    "it is a link or no folder; remove it, and find out who created it",
                ));
            }
            opened => break File::from(opened?),
        }
    };
    let found = folder.metadata()?;
    if found.uid() != Uid::effective().as_raw() {
        return Err(io::Error::other(format!(
            "it belongs to user {}; remove it if no process uses it",
            found.uid()
        )));
    }
    // Whatever the umask took away, or one that was killed has left.
    fchmod(&folder, Mode::S_IRWXU)?;
    Ok(folder)
}

/// The path of what a descriptor of this process is open on, whatever has its name now. For this
/// process, and for what it starts before that becomes another program.
fn by_descriptor(folder: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()))
}

/// Checks that `folder` has room for `size` bytes more, with [`SPARE`] left.
///
/// # Errors
/// One sentence with both figures.
pub(crate) fn has_room(folder: &Path, size: u64) -> Result<(), String> {
    let name = folder.display();
    let room = statvfs(folder).map_err(|e| format!("{name} can't be accessed: {e}"))?;
    // Of 32 or of 64 bits, by the machine.
    #[allow(clippy::useless_conversion)]
    let free = u64::from(room.blocks_available()).saturating_mul(u64::from(room.fragment_size()));
    let needed = size.saturating_add(size / 8).saturating_add(SPARE);
    if free >= needed {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
    Err(format!(
        "{name} has {} MiB free, but {} MiB are needed: free some space there",
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
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_link_in_the_databases_folder_leads_nowhere() {
        let folder = std::env::temp_dir().join(format!("edgerepl-aside-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a folder");
        let (database, victim) = (folder.join("app.db"), folder.join("victim"));
        let aside = folder.join(".app.db-verify");
        fs::write(&victim, "precious").expect("a file");
        let elsewhere = folder.join("elsewhere");
        fs::create_dir(&elsewhere).expect("a folder");
        let intact = || assert_eq!(fs::read_to_string(&victim).expect("the file"), "precious");

        // The lock is a link,
        fs::create_dir(&aside).expect("a folder");
        symlink(&victim, aside.join("lock")).expect("a link");
        Aside::make(&database, "verify", Turn::OrNever).expect_err("a link");
        intact();
        fs::remove_dir_all(&aside).expect("the folder");
        // the folder is,
        symlink(&elsewhere, &aside).expect("a link");
        let refused = Aside::make(&database, "verify", Turn::OrNever).expect_err("a link");
        assert!(refused.contains("it is a link"), "{refused}");
        assert_eq!(fs::read_dir(&elsewhere).expect("the folder").count(), 0);
        fs::remove_file(&aside).expect("the link");
        // Litestream's lock is, or what an earlier one left.
        fs::create_dir(&aside).expect("a folder");
        fs::set_permissions(&aside, Permissions::from_mode(0o777)).expect("a mode");
        for name in ["litestream.lock", "replica-1"] {
            symlink(&victim, aside.join(name)).expect("a link");
        }
        let made = Aside::make(&database, "verify", Turn::OrNever).expect("a folder");
        let mode = aside.metadata().expect("the folder").mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(fs::read_dir(&aside).expect("the folder").count(), 1);
        // Taken away while it is at work, and another put in its place.
        fs::rename(&aside, folder.join("taken")).expect("the folder");
        fs::create_dir(&aside).expect("a folder");
        symlink(&victim, aside.join("replica.db")).expect("a link");
        fs::write(&made.copy, "a copy").expect("the copy");
        assert_eq!(made.put(&database).ok(), Some(true));
        assert_eq!(made.put(&database).ok(), Some(false));
        assert_eq!(fs::read_to_string(&database).expect("it"), "a copy");
        drop(made);
        assert!(aside.join("replica.db").is_symlink());
        intact();
        fs::remove_dir_all(&folder).expect("the folder");
    }

    /// What Litestream 0.5.17 says of an object with other bytes, by where they are; and of S3's troubles.
    #[test]
    fn other_bytes_are_told_from_a_line_that_breaks() {
        let decode = "Litestream can't restore the replica: Error: decode database: ";
        for said in [
            "decode header: decode header for input 0: unmarshal header: invalid LTX file",
            "decode header: decode header for input 0: invalid page size: 3735928559",
            "decode page 1: read page header 0: invalid page header flags: 0x1122",
            "decode page 1: read page header 0: decompress block: lz4: invalid source or destination buffer \
             too short",
            "unexpected error decoding after end of database: close reader 0: file checksum mismatch",
        ] {
            assert!(is_unreadable(&format!("{decode}{said}")), "{said}");
        }
        for said in [
            "unexpected error decoding after end of database: close reader 0: unexpected EOF",
            "decode page 3: read page header 0: read tcp 10.0.0.2:4711: connection reset by peer",
        ] {
            assert!(!is_unreadable(&format!("{decode}{said}")), "{said}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_figures() {
        let folder = std::env::temp_dir();
        assert_eq!(has_room(&folder, 1), Ok(()));
        let refused = has_room(&folder, 1 << 60).expect_err("an exbibyte");
        assert!(refused.contains("MiB free, but 123695058"), "{refused}");
        assert!(has_room(Path::new("/nowhere"), 1).is_err());
    }
}
