//! Whether Litestream's replica still continues the database, by Litestream's files and the WAL.
//!
//! Owns the format of the files in which Litestream 0.5 records what it read. Reads a few bytes of them
//! and of the WAL, and never changes them.
//!
//! Litestream 0.5.17 uploads the whole database when it finds a WAL that is not the one it knows. In
//! two cases it misses that, while each sync reports that nothing is missing:
//!
//! - **The WAL was reset while Litestream was down.** Litestream checks whether the frame that it
//!   read last is still in its place. If the new WAL is shorter than the old one, the frame is
//!   still there, and Litestream assumes that it has read all of the old WAL. Rows that it had not
//!   read are then on no replica.
//! - **The frame that it read last was overwritten.** A writer was killed after it wrote a commit
//!   to the WAL and before it published it, and the next writer began in the same place. Litestream
//!   uploads the database file, and then the WAL from that place on; what the WAL holds before that
//!   place is missing.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use nix::fcntl::OFlag;

use super::answer::{Commit, Files, NO_COMMIT, Seam};
use super::config_file::Configuration;
use super::uploads::Uploaded;
use crate::store::wal_of;

/// The salts of a WAL: each new WAL has others.
type Salts = [u8; 8];

/// Their offset in a WAL's header, and in the header of Litestream's files.
const IN_WAL: usize = 16;
const IN_LTX: usize = 64;

/// The length of a WAL's header, in bytes.
const WAL_HEADER: u64 = 32;

/// The length of a frame's header, in bytes; it begins with the page's number.
const FRAME_HEADER: u64 = 24;

/// How many of the newest files are examined: each sync makes one, and each is kept for at least 5 min.
const NEWEST: u64 = 1000;

/// A part of the WAL with more frames is not compared with a database of fewer pages.
const COMPARED_FRAMES: u64 = 4096;

/// Whether the WAL was reset since Litestream, with its local state in `state`, read it. `false`
/// without a WAL or without local state: Litestream notices by itself that one is missing.
pub(crate) fn wal_was_reset(database: &Path, state: &Path) -> bool {
    match (salts(&wal_of(database), &[], IN_WAL), last_read(state)) {
        (Some(now), Some(before)) => now != before,
        _ => false,
    }
}

/// Where the next Litestream has to go on in the WAL, and whether something is there that no transaction has, if
/// that can be told. `None` where the newest one is not of this WAL.
pub(crate) fn seam(database: &Path, state: &Path) -> Option<(Seam, Option<bool>)> {
    let files = transactions(state);
    let newest = files.last()?;
    let last = Transaction::read(newest).ok()?;
    let now = salts(&wal_of(database), &[], IN_WAL)?;
    let seam = Seam {
        after: number_of(newest).unwrap_or_default(),
        wal: u64::from_be_bytes(now),
        read: last.begin.saturating_add(last.length),
    };
    let last_commit = last_commit(database).ok();
    let has_unread = last_commit.map(|commit| commit.bytes > seam.read);
    (last.salts == now).then_some((seam, has_unread))
}

/// Whether Litestream, whose last transaction is `last`, went on with another WAL at `seam`, and not with the whole
/// database, while the old one held more. `None` until it has gone on. What it has removed meanwhile, which it
/// keeps for 5 min at least, says nothing any more.
pub(crate) fn is_torn(database: &Path, state: &Path, seam: Seam, last: u64) -> Option<bool> {
    if last <= seam.after {
        return None;
    }
    let next = file_of(state, seam.after + 1);
    match Transaction::read(&next) {
        Ok(next) => {
            let is_another = u64::from_be_bytes(next.salts) != seam.wal;
            Some(is_another && !next.holds_all_pages() && held_more(database, seam))
        }
        Err(_) => (!next.exists()).then_some(false),
    }
}

/// Whether the WAL is the one of the seam still.
pub(crate) fn is_of_seam(database: &Path, seam: Seam) -> bool {
    let now = salts(&wal_of(database), &[], IN_WAL);
    now.is_some_and(|now| u64::from_be_bytes(now) == seam.wal)
}

/// Whether the WAL of the seam held more than was read of it: by what of it the next one, which is shorter, has
/// left in its place. Where nothing is left, it may have.
fn held_more(database: &Path, seam: Seam) -> bool {
    let end = Frames::of(database).map(|wal| {
        let is_of_seam = |number: &u64| {
            let header = wal.header(*number);
            header.is_ok_and(|header| header[8..16] == seam.wal.to_be_bytes())
        };
        let last = (0..wal.number).rev().find(is_of_seam);
        last.map(|last| wal.offset(last + 1))
    });
    end.ok().flatten().is_none_or(|end| end > seam.read)
}

/// Whether the newest copy of the whole database in the transactions after `seen`, up to `last`, lacks
/// the beginning of the WAL. Files that can't be read are ignored.
pub(crate) fn lacks_beginning(database: &Path, state: &Path, seen: u64, last: u64) -> bool {
    let first = last.saturating_sub(NEWEST).max(seen);
    let mut files = (first..last)
        .rev()
        .filter_map(|before| Transaction::read(&file_of(state, before + 1)).ok());
    files
        .find(Transaction::holds_all_pages)
        .is_some_and(|copy| copy.begin > WAL_HEADER && !copy.is_of_wal(database))
}

/// Whether all of Litestream's files were made from the current WAL. If Litestream has lost its files,
/// it continues from the last one on S3: if the WAL was reset since then, and is shorter than before,
/// Litestream assumes that it has read all of the old WAL.
pub(crate) fn is_of_one_wal(database: &Path, state: &Path) -> bool {
    let Some(now) = salts(&wal_of(database), &[], IN_WAL) else {
        return false;
    };
    let files = transactions(state);
    let mut found = files
        .iter()
        .filter_map(|file| salts(file, b"LTX1", IN_LTX))
        .peekable();
    found.peek().is_some() && found.all(|salts| salts == now)
}

/// Whether Litestream, which has just rebuilt its folder from the last file of its replica, continued
/// with another WAL: then no replica has the rest of the old one, unless the next file holds the whole
/// database. `None` until there is a next file.
pub(crate) fn passed_a_wal_over(state: &Path) -> Option<bool> {
    let files = transactions(state);
    let next = Transaction::read(files.get(1)?);
    // Litestream itself made the very first transaction.
    let fetched = files.first().filter(|file| **file != file_of(state, 1));
    let fetched = fetched.and_then(|file| Transaction::read(file).ok());
    let went_on = fetched.zip(next.ok());
    Some(
        went_on
            .is_some_and(|(fetched, next)| fetched.salts != next.salts && !next.holds_all_pages()),
    )
}

/// The mark of the folder of its files, and of the database's file: a Litestream that has opened another
/// one takes the WAL of the file that is there now, and the rest of the database from the one that it has
/// open. `None` if there is no folder.
pub(crate) fn folder(database: &Path, state: &Path) -> Option<u64> {
    let folder = identity(&state.join("ltx/0"))?;
    Some(mark(&(folder, identity(database))))
}

/// What tells a file, or a folder, from another one that takes its place.
fn identity(path: &Path) -> Option<(u64, u64, Option<Duration>)> {
    let found = fs::metadata(path).ok()?;
    // The inode's number alone is soon reused; the time of its creation differs.
    let born = found.created().ok();
    let born = born.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Some((found.dev(), found.ino(), born))
}

/// The state of Litestream's files in `state`: `last` is the newest transaction, and `before` an
/// earlier one. `None` if there is no folder.
pub(crate) fn files(
    database: &Path,
    state: &Path,
    last: u64,
    before: Option<u64>,
) -> Option<Files> {
    Some(Files {
        folder: folder(database, state)?,
        last: file_mark(&file_of(state, last)),
        before: before.and_then(|before| file_mark(&file_of(state, before))),
    })
}

/// How many of the newest files of the transactions after `before`, up to `last`, are there, and their sizes
/// together.
pub(crate) fn sizes(state: &Path, before: u64, last: u64) -> Uploaded {
    let first = last.saturating_sub(NEWEST).max(before);
    let mut sum = Uploaded::default();
    for before in first..last {
        if let Ok(file) = fs::metadata(file_of(state, before + 1)) {
            sum.add(Uploaded {
                uploads: 1,
                bytes: file.len(),
            });
        }
    }
    sum
}

/// The last transaction that has a file; 0 where none has.
pub(crate) fn newest(state: &Path) -> u64 {
    let files = transactions(state);
    let number = files.last().and_then(|file| number_of(file));
    number.unwrap_or_default()
}

/// The transaction that a file is of, by its name.
fn number_of(file: &Path) -> Option<u64> {
    let digits = file.file_stem()?.to_str()?.split('-').next()?;
    u64::from_str_radix(digits, 16).ok()
}

/// The last commit in the WAL. Frames without a commit, which a large transaction leaves there, do not count,
/// nor does what is left of an earlier WAL, whose place this one takes from its beginning on.
///
/// # Errors
/// The WAL can't be read, or ends with a longer part of a transaction than is examined.
pub(crate) fn last_commit(database: &Path) -> io::Result<Commit> {
    let wal = match Frames::of(database) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Commit::NONE),
        opened => opened?,
    };
    if wal.number == 0 {
        return Ok(Commit::NONE);
    }
    // A frame of an earlier WAL has other salts.
    let (mut frames, mut end) = (0, wal.number);
    while frames < end {
        let middle = frames + (end - frames) / 2;
        match wal.header(middle)?[8..16] == wal.salts {
            true => frames = middle + 1,
            false => end = middle,
        }
    }
    let first = frames.saturating_sub(COMPARED_FRAMES);
    for number in (first..frames).rev() {
        let header = wal.header(number)?;
        // A commit frame contains the database's size.
        if header[4..8] != [0; 4] {
            return Ok(Commit {
                mark: mark(&(number, header)).max(NO_COMMIT + 1),
                wal: mark(&wal.salts),
                bytes: wal.offset(number + 1),
            });
        }
    }
    match first {
        0 => Ok(Commit::NONE),
        _ => Err(io::ErrorKind::Other.into()),
    }
}

/// The frames of a WAL, and of earlier ones in the place of which it is.
struct Frames {
    file: File,
    salts: Salts,
    /// The length of one, in bytes, and how many there are.
    length: u64,
    number: u64,
}

impl Frames {
    fn of(database: &Path) -> io::Result<Self> {
        let file = open(&wal_of(database))?;
        let all = file.metadata()?.len().saturating_sub(WAL_HEADER);
        let mut header = [0; WAL_HEADER as usize];
        if all > 0 {
            file.read_exact_at(&mut header, 0)?;
        }
        let mut salts = Salts::default();
        salts.copy_from_slice(&header[IN_WAL..IN_WAL + size_of::<Salts>()]);
        let page_size = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let length = u64::from(page_size) + FRAME_HEADER;
        Ok(Self {
            file,
            salts,
            length,
            number: all / length,
        })
    }

    fn header(&self, number: u64) -> io::Result<[u8; FRAME_HEADER as usize]> {
        let mut header = [0; FRAME_HEADER as usize];
        self.file.read_exact_at(&mut header, self.offset(number))?;
        Ok(header)
    }

    /// Where one begins in the file, in bytes.
    fn offset(&self, number: u64) -> u64 {
        WAL_HEADER + number * self.length
    }
}

fn file_of(state: &Path, transaction: u64) -> PathBuf {
    state.join(format!("ltx/0/{transaction:016x}-{transaction:016x}.ltx"))
}

/// A mark of the header, which has the file's origin and time; for a file that only another user can
/// read, of its metadata. `None` if it is missing, or not a file of Litestream's.
fn file_mark(path: &Path) -> Option<u64> {
    let mut header = [0; IN_LTX + size_of::<Salts>()];
    match open(path) {
        Ok(file) => file
            .read_exact_at(&mut header, 0)
            .ok()
            .map(|()| mark(&header)),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let file = fs::metadata(path).ok()?;
            Some(mark(&(
                file.dev(),
                file.ino(),
                file.mtime(),
                file.mtime_nsec(),
            )))
        }
        Err(_) => None,
    }
}

fn mark(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// The header of one of Litestream's files: the part of the WAL that it was made from.
struct Transaction {
    page_size: u64,
    /// The database's size, and how many of its pages are in the file.
    database_pages: u64,
    pages: u64,
    /// Where the part begins in the WAL, and its length in bytes.
    begin: u64,
    length: u64,
    salts: Salts,
}

impl Transaction {
    fn read(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let mut header = [0; IN_LTX + size_of::<Salts>()];
        file.read_exact_at(&mut header, 0)?;
        let number = |at: usize, length: usize| {
            header[at..at + length]
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let database_pages = number(12, 4);
        let mut salts = Salts::default();
        salts.copy_from_slice(&header[IN_LTX..]);
        Ok(Self {
            page_size: number(8, 4),
            database_pages,
            pages: pages(&file, database_pages)?,
            begin: number(48, 8),
            length: number(56, 8),
            salts,
        })
    }

    /// All pages but the lock page, which SQLite never uses, if the database is that large.
    fn holds_all_pages(&self) -> bool {
        const LOCK: u64 = 1 << 30;
        let size = self.database_pages.saturating_mul(self.page_size);
        let all = self.database_pages.saturating_sub(u64::from(size > LOCK));
        self.pages > 0 && self.pages >= all
    }

    fn frames(&self) -> u64 {
        self.length / (self.page_size + FRAME_HEADER)
    }

    /// Whether all of the file comes from its part of the WAL: the database was rewritten (by a VACUUM,
    /// or because it is tiny) and not copied.
    fn is_of_wal(&self, database: &Path) -> bool {
        if self.frames() < self.pages {
            return false;
        }
        let wal = wal_of(database);
        if self.frames() > COMPARED_FRAMES || salts(&wal, &[], IN_WAL) != Some(self.salts) {
            return true;
        }
        let page_of = |wal: &File, frame: u64| {
            let mut number = [0; 4];
            let offset = frame.checked_mul(self.page_size + FRAME_HEADER);
            let at = offset.and_then(|offset| self.begin.checked_add(offset));
            wal.read_exact_at(&mut number, at.ok_or(io::ErrorKind::InvalidData)?)?;
            Ok(number)
        };
        let distinct = open(&wal).and_then(|wal| {
            (0..self.frames())
                .map(|frame| page_of(&wal, frame))
                .collect::<io::Result<BTreeSet<_>>>()
        });
        distinct.map_or(true, |pages| pages.len() as u64 >= self.pages)
    }
}

/// How many pages a file of Litestream's holds, by the index at its end: three numbers for each page,
/// and a zero; then the index's length, and a trailer.
fn pages(file: &File, at_most: u64) -> io::Result<u64> {
    const LENGTH: u64 = 8;
    const TRAILER: u64 = 16;
    /// The index of a database of 20 GiB: more takes too long on flash.
    const LONGEST_INDEX: u64 = 64 << 20;
    let end = file.metadata()?.len().saturating_sub(LENGTH + TRAILER);
    let mut length = [0; LENGTH as usize];
    file.read_exact_at(&mut length, end)?;
    let length = u64::from_be_bytes(length);
    // A number takes at most ten bytes.
    if length > end || length / 30 > at_most || length > LONGEST_INDEX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut numbers = 0;
    let mut piece = [0; 16 * 1024];
    let mut left = length;
    while left > 0 {
        let piece = &mut piece[..left.min(16 * 1024) as usize];
        file.read_exact_at(piece, end - left)?;
        left -= piece.len() as u64;
        // A number ends with the byte whose highest bit is 0.
        numbers += piece.iter().filter(|byte| **byte < 0x80).count() as u64;
    }
    Ok(numbers / 3)
}

/// The folder of Litestream's local state, by its configuration if that is known.
pub(crate) fn state_of(database: &Path, configuration: Option<&Configuration>) -> PathBuf {
    configuration
        .and_then(|known| known.meta_path(database))
        .unwrap_or_else(|| default_state(database))
}

/// The default folder of Litestream's local state.
fn default_state(database: &Path) -> PathBuf {
    let mut folder = OsString::from(".");
    folder.push(database.file_name().unwrap_or_default());
    folder.push("-litestream");
    database.with_file_name(folder)
}

/// The salts of the WAL that Litestream read last, by its newest readable file: a power cut may leave
/// unreadable ones.
fn last_read(state: &Path) -> Option<Salts> {
    let files = transactions(state);
    let found = files.iter().rev().find_map(|f| salts(f, b"LTX1", IN_LTX));
    found.filter(|salts| *salts != Salts::default())
}

/// The files of the transactions, oldest first.
fn transactions(state: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(state.join("ltx/0"));
    let files = files.into_iter().flatten().flatten();
    let mut files: Vec<_> = files.map(|file| file.path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "ltx"));
    // The names are growing numbers of equal length.
    files.sort_unstable();
    files
}

/// A file to read; nothing else that somebody has put in its place, such as a pipe, on which an open would wait.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK.bits();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// The salts in a file that begins with `magic`. Closing a WAL here drops no lock: SQLite has none on
/// that file itself.
fn salts(file: &Path, magic: &[u8], at: usize) -> Option<Salts> {
    let mut header = [0; IN_LTX + size_of::<Salts>()];
    let header = &mut header[..at + size_of::<Salts>()];
    open(file).ok()?.read_exact(header).ok()?;
    let (before, salts) = header.split_at(at);
    before.starts_with(magic).then(|| salts.try_into().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wal_is_known_by_its_salts() {
        let folder = std::env::temp_dir().join(format!("edgerepl-lineage-{}", std::process::id()));
        let database = folder.join("app.db");
        let state = default_state(&database);
        assert_eq!(state, folder.join(".app.db-litestream"));
        let ltx = state.join("ltx/0");
        fs::create_dir_all(&ltx).expect("a folder");
        let reset = || wal_was_reset(&database, &state);
        let file = |magic: &[u8], at: usize, salts: &[u8]| {
            [magic, &vec![7; at - magic.len()], salts].concat()
        };
        let read = |name: &str, content: &[u8]| fs::write(ltx.join(name), content).expect("a file");

        assert!(!reset(), "there is nothing");
        fs::write(folder.join("app.db-wal"), file(b"", IN_WAL, b"new salt")).expect("a WAL");
        assert!(!reset(), "Litestream remembers nothing");
        read("1.ltx", &file(b"LTX1", IN_LTX, b"old salt"));
        assert!(reset());
        read("2.ltx", &file(b"LTX1", IN_LTX, b"new salt"));
        assert!(!reset());
        assert!(!is_of_one_wal(&database, &state), "one is of an older WAL");
        read("2.ltx", b"LTX1, cut off");
        read("3.ltx", &file(b"LTX9", IN_LTX, b"new salt"));
        read("4.tmp", &file(b"LTX1", IN_LTX, b"new salt"));
        assert!(reset(), "the newest can't be read");
        read("1.ltx", &file(b"LTX1", IN_LTX, b"new salt"));
        assert!(
            is_of_one_wal(&database, &state),
            "but for what can't be read"
        );
        fs::write(folder.join("app.db-wal"), b"").expect("an empty WAL");
        assert!(!reset());
        assert!(!is_of_one_wal(&database, &state), "there is no WAL");
        fs::remove_dir_all(folder).expect("the folder");
    }

    #[test]
    fn a_pipe_in_the_place_of_a_wal_is_not_waited_for() {
        let folder = std::env::temp_dir().join(format!("edgerepl-pipe-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let database = folder.join("app.db");
        let mode = nix::sys::stat::Mode::S_IRWXU;
        nix::unistd::mkfifo(&wal_of(&database), mode).expect("a pipe");
        assert!(last_commit(&database).is_err());
        assert!(!wal_was_reset(&database, &folder));
        fs::remove_dir_all(folder).expect("the folder");
    }

    #[test]
    fn numbers_that_no_litestream_wrote_say_nothing() {
        let folder = std::env::temp_dir().join(format!("edgerepl-odd-{}", std::process::id()));
        let (database, state) = (folder.join("app.db"), folder.join("state"));
        fs::create_dir_all(state.join("ltx/0")).expect("a folder");
        let mut wal = vec![0; 4096];
        wal[IN_WAL..IN_WAL + 8].copy_from_slice(b"the salt");
        fs::write(folder.join("app.db-wal"), &wal).expect("a WAL");
        let path = state.join("ltx/0/0000000000000001-0000000000000001.ltx");
        let most = u64::MAX;
        for (page_size, pages, begin, length) in [
            (4096, 1, most, 4120),
            (4096, 1, most - 4120, 3 * 4120),
            (0, 1, most - 1, 4096 * 24),
            (u32::MAX, 1, most >> 1, most),
            (u32::MAX, u32::MAX, most, most),
            (0, 0, 0, most),
        ] {
            let mut file = b"LTX1\0\0\0\0".to_vec();
            file.extend([page_size, pages].iter().flat_map(|n| n.to_be_bytes()));
            file.resize(48, 0);
            file.extend([begin, length].iter().flat_map(|n| n.to_be_bytes()));
            file.extend(b"the salt");
            file.extend([1, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 4]);
            file.extend([7; 16]);
            fs::write(&path, &file).expect("a file");
            assert!(
                !lacks_beginning(&database, &state, 0, 1),
                "{begin} {length}"
            );
            // An index as long as a file without blocks seems to be is not taken into memory.
            let huge = 100 << 30_u64;
            let file = File::options().write(true).open(&path).expect("the file");
            file.set_len(huge).expect("a file with a hole");
            let end = (huge - 24).to_be_bytes();
            file.write_all_at(&end, huge - 24).expect("its length");
            assert!(
                !lacks_beginning(&database, &state, 0, 1),
                "{begin} {length}"
            );
        }
        fs::remove_dir_all(folder).expect("the folder");
    }

    #[test]
    fn files_are_known_by_what_they_are_and_a_wal_by_its_last_commit() {
        let folder = std::env::temp_dir().join(format!("edgerepl-marks-{}", std::process::id()));
        let (database, state) = (folder.join("app.db"), folder.join("state"));
        let files = |last, before| files(&database, &state, last, before);
        assert_eq!(files(1, None), None, "there is nothing");
        assert_eq!(last_commit(&database).ok(), Some(Commit::NONE), "no WAL");
        fs::create_dir_all(state.join("ltx/0")).expect("a folder");
        let write = |id: u64, byte: u8| fs::write(file_of(&state, id), [byte; 100]).expect("it");
        write(1, 1);
        write(2, 2);
        let first = files(2, Some(1)).expect("a folder");
        assert!(first.last.is_some() && first.before.is_some() && first.last != first.before);
        assert_eq!(files(2, Some(1)), Some(first), "nothing happened");
        write(1, 3);
        assert_ne!(files(2, Some(1)).expect("it").before, first.before);
        fs::remove_file(file_of(&state, 2)).expect("it was there");
        assert_eq!(files(2, None).expect("a folder").last, None);
        // The same name, and another folder, though its number is used again.
        fs::remove_dir_all(&state).expect("the folder");
        fs::create_dir_all(state.join("ltx/0")).expect("a folder");
        let second = files(2, None).expect("a folder").folder;
        assert_ne!(second, first.folder);
        let other = folder.join("other.db");
        fs::write(&database, "one").expect("a database");
        fs::write(&other, "another").expect("another one");
        let third = files(2, None).expect("a folder").folder;
        assert_ne!(third, second, "a database that was missing");
        fs::rename(&other, &database).expect("its place");
        assert_ne!(files(2, None).expect("a folder").folder, third);

        let mut wal = vec![0; 32];
        wal[..4].copy_from_slice(&[0x37, 0x7f, 6, 0x82]);
        wal[8..12].copy_from_slice(&512_u32.to_be_bytes());
        wal[16..24].copy_from_slice(b"the salt");
        let frame = |wal: &mut Vec<u8>, size: u32, salts: &[u8]| {
            wal.extend([0, 0, 0, 1]);
            wal.extend(size.to_be_bytes());
            wal.extend(salts);
            wal.resize(wal.len() + 8 + 512, 7);
        };
        let mut seen = vec![Commit::NONE];
        let mut look = |wal: &[u8]| {
            fs::write(wal_of(&database), wal).expect("a WAL");
            let found = last_commit(&database).expect("a mark");
            let is_new = !seen.contains(&found);
            seen.push(found);
            is_new
        };
        assert!(!look(&wal), "a header alone");
        frame(&mut wal, 0, b"the salt");
        assert!(!look(&wal), "nothing is committed");
        frame(&mut wal, 3, b"the salt");
        assert!(look(&wal), "a commit");
        frame(&mut wal, 0, b"the salt");
        frame(&mut wal, 4, b"old salt");
        assert!(!look(&wal), "a part of a transaction, and an older WAL");
        wal.truncate(wal.len() - FRAME_HEADER as usize - 512);
        frame(&mut wal, 4, b"the salt");
        assert!(look(&wal), "another commit");
        let begun = wal.len();
        for _ in 0..=COMPARED_FRAMES {
            frame(&mut wal, 4, b"old salt");
        }
        assert!(!look(&wal), "a short WAL in the place of a long one");
        wal.truncate(begun);
        for _ in 0..=COMPARED_FRAMES {
            frame(&mut wal, 0, b"the salt");
        }
        fs::write(wal_of(&database), &wal).expect("a WAL");
        assert!(last_commit(&database).is_err(), "nobody looks that far");
        fs::remove_dir_all(folder).expect("the folder");
    }

    /// A file of so many of ten pages, from a part of the WAL of these salts with so many frames from there on.
    fn write_transaction(
        state: &Path,
        id: u64,
        (begin, frames): (u64, u64),
        pages: u32,
        salts: &[u8],
    ) {
        let mut file = b"LTX1\0\0\0\0".to_vec();
        file.extend([4096_u32, 10].iter().flat_map(|n| n.to_be_bytes()));
        file.resize(48, 0);
        file.extend([begin, frames * 4120].iter().flat_map(|n| n.to_be_bytes()));
        file.extend(salts);
        file.resize(100, 0);
        let index: Vec<u8> = (1..=pages).flat_map(|p| [p as u8, 0xe4, 1, 7]).collect();
        file.extend(&index);
        file.push(0);
        file.extend((index.len() as u64 + 1).to_be_bytes());
        file.extend([7; 16]);
        fs::write(file_of(state, id), file).expect("a file");
    }

    /// SQLite's own WAL, and the files of a Litestream that reads it, or passes it over.
    #[test]
    fn a_seam_shows_what_was_in_a_wal_that_was_begun_anew_before_it_was_read() {
        let folder = std::env::temp_dir().join(format!("edgerepl-seam-{}", std::process::id()));
        let (database, state) = (folder.join("app.db"), folder.join("state"));
        fs::create_dir_all(state.join("ltx/0")).expect("a folder");
        let application = rusqlite::Connection::open(&database).expect("a database");
        application
            .execute_batch(
                "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; CREATE TABLE row (text);",
            )
            .expect("a WAL");
        let write_rows = |rows: u32| {
            for _ in 0..rows {
                let sql = "INSERT INTO row VALUES ('a row')";
                application.execute(sql, []).expect("a row");
            }
        };
        let begin_anew = |mode: &str| {
            let sql = format!("PRAGMA wal_checkpoint({mode})");
            application
                .query_row(&sql, [], |_| Ok(()))
                .expect("a checkpoint");
            write_rows(1);
        };
        let frames = || (fs::metadata(wal_of(&database)).expect("a WAL").len() - 32) / 4120;
        let of_wal = || salts(&wal_of(&database), &[], IN_WAL).expect("salts");
        let torn = |seam: Seam| is_torn(&database, &state, seam, newest(&state));

        assert_eq!(seam(&database, &state), None, "Litestream has no files");
        write_rows(5);
        write_transaction(&state, 7, (32, frames()), 2, &of_wal());
        let (all_read, has_unread) = seam(&database, &state).expect("a seam");
        assert_eq!((has_unread, all_read.after), (Some(false), 7));
        write_rows(1);
        assert_eq!(seam(&database, &state), Some((all_read, Some(true))));
        assert_eq!(torn(all_read), None, "it has not gone on");
        assert!(is_of_seam(&database, all_read));
        write_transaction(&state, 8, (all_read.read, 1), 2, &of_wal());
        assert_eq!(torn(all_read), Some(false), "it has gone on");
        assert_eq!(seam(&database, &state).expect("a seam").1, Some(false));

        // A row is left in the place of which one commit of the next WAL is not.
        begin_anew("RESTART");
        assert_eq!(seam(&database, &state), None, "of another WAL");
        assert!(!is_of_seam(&database, all_read));
        write_transaction(&state, 8, (32, 1), 2, &of_wal());
        assert_eq!(torn(all_read), Some(true));
        let read = all_read.read + 4120;
        assert_eq!(torn(Seam { read, ..all_read }), Some(false), "all was read");
        write_transaction(&state, 8, (32, 1), 9, &of_wal());
        assert_eq!(torn(all_read), Some(true), "but for a page");
        write_transaction(&state, 8, (32, 1), 10, &of_wal());
        assert_eq!(torn(all_read), Some(false), "the whole database");
        write_transaction(&state, 8, (32, 1), 2, &of_wal());
        begin_anew("TRUNCATE");
        let unknown = Seam { read, ..all_read };
        assert_eq!(torn(unknown), Some(true), "nothing is left to tell");

        fs::write(file_of(&state, 8), b"LTX1").expect("a file");
        assert_eq!(torn(all_read), None, "it can't be read now");
        fs::rename(file_of(&state, 8), file_of(&state, 9)).expect("it");
        assert_eq!(torn(all_read), Some(false), "it was removed long after");
        drop(application);
        fs::remove_dir_all(folder).expect("the folder");
    }

    #[test]
    fn a_copy_that_lacks_the_beginning_is_told_from_what_the_wal_holds() {
        let folder = std::env::temp_dir().join(format!("edgerepl-copy-{}", std::process::id()));
        let (database, state) = (folder.join("app.db"), folder.join("state"));
        fs::create_dir_all(state.join("ltx/0")).expect("a folder");
        let write = |id: u64, begin: u64, frames: u64, pages: u32| {
            write_transaction(&state, id, (begin, frames), pages, b"the salt");
        };
        let lacks = |seen, last| lacks_beginning(&database, &state, seen, last);

        assert!(!lacks(0, u64::MAX), "there is nothing");
        write(1, 32, 2, 10);
        write(2, 32 + 2 * 4120, 3, 2);
        assert!(!lacks(0, 2), "a copy from the beginning, and rows");
        write(3, 32 + 5 * 4120, 0, 10);
        write(4, 32 + 5 * 4120, 3, 2);
        assert!(lacks(0, 4));
        assert!(!lacks(3, 4), "it was seen before");
        write(5, 32 + 8 * 4120, 12, 10);
        assert!(
            !lacks(4, 5),
            "a database that was written anew, as far as is known"
        );
        let mut wal = vec![0; 32];
        wal[IN_WAL..IN_WAL + 8].copy_from_slice(b"the salt");
        for frame in 0..20_u32 {
            wal.extend((frame % 10).to_be_bytes());
            wal.resize(wal.len() + 4116, 0);
        }
        fs::write(folder.join("app.db-wal"), &wal).expect("a WAL");
        assert!(!lacks(4, 5), "its part of the WAL has ten pages");
        for frame in 8..20 {
            wal[32 + frame * 4120 + 3] = 1;
        }
        fs::write(folder.join("app.db-wal"), &wal).expect("a WAL");
        assert!(lacks(4, 5), "its part of the WAL has one page");
        write(6, 32, 1, 10);
        assert!(!lacks(0, 6), "a newer one is whole");
        // Files that begin with one that was fetched.
        let of_wal = |id: u64, salts: &[u8]| {
            let path = file_of(&state, id);
            let file = File::options().write(true).open(path).expect("a file");
            file.write_all_at(salts, IN_LTX as u64).expect("its salts");
        };
        let keep =
            |first: u64| (1..first).for_each(|id| drop(fs::remove_file(file_of(&state, id))));
        of_wal(1, b"old salt");
        assert_eq!(passed_a_wal_over(&state), Some(false), "the first of all");
        keep(2);
        assert_eq!(passed_a_wal_over(&state), Some(false), "one WAL");
        of_wal(2, b"old salt");
        assert_eq!(passed_a_wal_over(&state), Some(false), "the next is whole");
        keep(3);
        of_wal(3, b"old salt");
        assert_eq!(passed_a_wal_over(&state), Some(true));
        of_wal(3, b"the salt");
        let alone = folder.join("alone");
        fs::create_dir_all(alone.join("ltx/0")).expect("a folder");
        fs::copy(file_of(&state, 3), file_of(&alone, 3)).expect("a file");
        assert_eq!(passed_a_wal_over(&alone), None, "it has not gone on");
        fs::write(
            state.join("ltx/0/0000000000000006-0000000000000006.ltx"),
            b"LTX1",
        )
        .expect("it");
        assert!(lacks(3, 6), "the newest can't be read");
        fs::remove_dir_all(folder).expect("the folder");
    }
}
