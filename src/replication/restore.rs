//! Litestream's restore: the replica into a file of its own, in a folder beside the database.
//!
//! Owns that folder, and how Litestream is run: on a leash, with nothing in its environment that would
//! win over the credentials. Never touches the database itself.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

use super::command::Replicate;
use crate::config::{RuntimeDirectory, Settings};
use crate::credential_process;
use crate::credentials::certificate::Certificate;
use crate::credentials::{Credentials, delivery, fetch};
use crate::store::wal_of;
use crate::system::leash;

/// Free space that is left to the device whatever happens, in bytes: its rows go on.
const SPARE: u64 = 16 * 1024 * 1024;

/// Who is at work in the folder holds this.
const LOCK: &str = "lock";

/// What the kernel says of a name that is no folder.
const LINK: i32 = Errno::ELOOP as i32;
const NO_FOLDER: i32 = Errno::ENOTDIR as i32;

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
///
/// The database's folder may be somebody else's, who can rename what is in there and put links in its
/// place. So this one is opened once, is this user's and nobody else's, and all that happens in it and
/// beside it goes through the two descriptors.
#[derive(Debug)]
pub(crate) struct Aside {
    /// The folder of the database.
    beside: File,
    name: OsString,
    folder: File,
    copy: PathBuf,
    _lock: Flock<File>,
}

impl Aside {
    /// Makes the folder of `database` for this purpose. What one that was killed has left is removed.
    ///
    /// # Errors
    /// Where the folder can't be used or is somebody else's, or another one is at work.
    pub(crate) fn make(database: &Path, purpose: &str, turn: Turn) -> Result<Self, String> {
        let mut name = OsString::from(".");
        name.push(database.file_name().unwrap_or_default());
        name.push(format!("-{purpose}"));
        let shown = database.with_file_name(&name).display().to_string();
        let failed = |e: io::Error| format!("{shown} can't be used: {e}");
        let beside = File::open(database.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
        loop {
            // The one that was at work may remove it at any moment.
            let folder = match private_folder(&beside, &name) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                folder => folder.map_err(failed)?,
            };
            let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
            let file = match open_in(&folder, OsStr::new(LOCK), flags) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                file => file.map_err(failed)?,
            };
            let lock = match turn {
                Turn::Next => FlockArg::LockExclusive,
                Turn::OrNever => FlockArg::LockExclusiveNonblock,
            };
            let lock = Flock::lock(file, lock)
                .map_err(|_| format!("another {purpose} is at work in {shown}"))?;
            // Held, but maybe of a file that is no longer there.
            if lock.metadata().is_ok_and(|file| file.nlink() > 0) {
                clear(&folder, |name| name.as_encoded_bytes().ends_with(b"lock"));
                let copy = format!("replica-{}.db", std::process::id());
                return Ok(Self {
                    copy: through(&folder).join(copy),
                    beside,
                    name,
                    folder,
                    _lock: lock,
                });
            }
        }
    }

    /// The folder of the database, whatever its name leads to by now.
    pub(crate) fn beside(&self) -> PathBuf {
        through(&self.beside)
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
        let mut litestream = leash::command(&through(&self.folder).join("litestream.lock"), &words);
        for name in delivery::UNWANTED {
            litestream.env_remove(name);
        }
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
            let is_there = fs::symlink_metadata(&self.copy).is_ok_and(|copy| copy.is_file());
            return Ok(is_there.then_some(&*self.copy));
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
}

impl Drop for Aside {
    fn drop(&mut self) {
        clear(&self.folder, |name| name == LOCK);
        // From here on it may be the next one's.
        let _ = unlinkat(&self.folder, LOCK, UnlinkatFlags::NoRemoveDir);
        let _ = unlinkat(&self.beside, &*self.name, UnlinkatFlags::RemoveDir);
    }
}

/// The folder of this name in `parent`, which nobody but this user has ever been able to write to.
fn private_folder(parent: &File, name: &OsStr) -> io::Result<File> {
    match mkdirat(parent, name, Mode::S_IRWXU) {
        Err(Errno::EEXIST) => {}
        made => made?,
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let folder = open_in(parent, name, flags).map_err(|e| match e.raw_os_error() {
        Some(LINK | NO_FOLDER) => io::Error::other("it is a link or a file; remove it"),
        _ => e,
    })?;
    let metadata = folder.metadata()?;
    if metadata.uid() != Uid::effective().as_raw() {
        return Err(io::Error::other(format!(
            "it belongs to the user {}; remove it",
            metadata.uid()
        )));
    }
    // A umask that took too much, or an earlier version that took too little.
    if metadata.mode() & 0o777 != 0o700 {
        fchmod(&folder, Mode::S_IRWXU)?;
    }
    if metadata.mode() & 0o022 != 0 {
        clear(&folder, |_| false);
    }
    Ok(folder)
}

fn open_in(folder: &File, name: &OsStr, flags: OFlag) -> io::Result<File> {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let opened = openat(folder, name, flags | OFlag::O_CLOEXEC, mode)?;
    Ok(File::from(opened))
}

/// A path to the folder itself, for this process and for those that it starts.
fn through(folder: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), folder.as_raw_fd()).into()
}

/// Removes all from a folder but what is to be kept.
fn clear(folder: &File, is_kept: impl Fn(&OsStr) -> bool) {
    for entry in fs::read_dir(through(folder))
        .into_iter()
        .flatten()
        .flatten()
    {
        if is_kept(&entry.file_name()) {
            continue;
        }
        let _ = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
            _ => fs::remove_file(entry.path()),
        };
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

    /// A link to a file of another's, a folder of another's, a pipe: whatever waits there under the names
    /// that a command makes, it is refused or removed, and what it leads to is as before.
    #[test]
    fn what_waits_under_our_names_is_never_followed() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let folder = std::env::temp_dir().join(format!("edgerepl-aside-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a folder");
        let (database, ours) = (folder.join("app.db"), folder.join(".app.db-verify"));
        let (other, others) = (folder.join("other"), folder.join("others"));
        fs::create_dir(&others).expect("a folder");
        for file in [&other, &others.join("lock")] {
            fs::write(file, "another's").expect("a file");
        }
        let make = || Aside::make(&database, "verify", Turn::OrNever);
        let refusal = || make().expect_err("not ours");

        symlink(&others, &ours).expect("a link");
        assert!(
            refusal().contains("a link or a file; remove it"),
            "{}",
            refusal()
        );
        fs::remove_file(&ours).expect("the link");
        fs::write(&ours, "").expect("a file");
        assert!(
            refusal().contains("a link or a file; remove it"),
            "{}",
            refusal()
        );
        fs::remove_file(&ours).expect("the file");

        // In one that others could write to, nothing is believed.
        fs::create_dir(&ours).expect("a folder");
        fs::set_permissions(&ours, fs::Permissions::from_mode(0o777)).expect("a mode");
        symlink(&other, ours.join("lock")).expect("a link");
        fs::hard_link(&other, ours.join("litestream.lock")).expect("a link");
        symlink(&others, ours.join("replica-1.db")).expect("a link");
        let aside = make().expect("a folder");
        let mode = |path: &Path| fs::symlink_metadata(path).expect("it").permissions().mode();
        assert_eq!(mode(&ours), 0o40_700);
        assert_eq!(mode(&ours.join("lock")), 0o100_600);
        assert!(!ours.join("litestream.lock").exists());
        // Another one is put in its place meanwhile.
        fs::rename(&ours, folder.join("moved")).expect("moved");
        symlink(&others, &ours).expect("a link");
        fs::write(&aside.copy, "the replica").expect("a file");
        assert!(
            !others
                .join(aside.copy.file_name().expect("a name"))
                .exists()
        );
        drop(aside);
        for file in [&other, &others.join("lock")] {
            assert_eq!(fs::read_to_string(file).expect("a file"), "another's");
        }
        assert_eq!(
            fs::read_dir(folder.join("moved")).expect("moved").count(),
            0
        );
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn another_users_folder_is_refused() {
        let folder = std::env::temp_dir().join(format!("edgerepl-whose-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join(".app.db-verify")).expect("a folder");
        // Only root can give it to somebody.
        let given = nix::unistd::chown(
            &folder.join(".app.db-verify"),
            Some(Uid::from_raw(65_534)),
            None,
        );
        if given.is_ok() {
            let made = Aside::make(&folder.join("app.db"), "verify", Turn::OrNever);
            let refused = made.expect_err("another's");
            assert!(
                refused.contains("belongs to the user 65534; remove it"),
                "{refused}"
            );
        }
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_figures() {
        let folder = std::env::temp_dir();
        assert_eq!(has_room(&folder, 1), Ok(()));
        let refused = has_room(&folder, 1 << 60).expect_err("an exbibyte");
        assert!(refused.contains("MiB free, and 123695058"), "{refused}");
        assert!(has_room(Path::new("/nowhere"), 1).is_err());
    }
}
