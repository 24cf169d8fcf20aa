//! The databases that Litestream's configuration names: by a path, or by a folder whose files match a
//! pattern.
//!
//! Owns what an entry means, the look through a folder as Litestream has it, and what makes two
//! paths one database. Owns the bounds of that look, and tells where one is met. Never follows what
//! Litestream does not follow, and never opens what could block.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::pattern::Pattern;
use super::{Configuration, Finding, absolute, databases, fault, is_unknown};

/// How many entries of folders are looked at: far more than any device has, and less than a second's
/// work.
const MOST_ENTRIES: usize = 20_000;

/// How many databases are found in folders: Litestream itself has several open files for each.
const MOST_DATABASES: usize = 1000;

/// How deep folders are looked into.
const DEEPEST: usize = 16;

/// An entry of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Where it is in the file: `dbs[0]`.
    pub place: String,
    /// What it names.
    pub named: Named,
}

/// What an entry names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Named {
    /// A database, whether it is there or not.
    Database(PathBuf),
    /// The databases in a folder.
    Folder(Folder),
    /// A path that only the environment of Litestream tells, as people read it.
    Unknown(String),
    /// A folder or a pattern that only the environment tells.
    UnknownFolder(String),
}

/// A folder whose databases are replicated.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Folder {
    /// The folder.
    pub path: PathBuf,
    /// What the names of its databases match.
    pub pattern: String,
    /// The folders in it are meant, too.
    pub is_recursive: bool,
    /// Databases that come and go are replicated while they are there.
    pub is_watched: bool,
}

/// For people.
impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(path) => path.display().fmt(f),
            Self::Folder(folder) => write!(f, "the databases in {}", folder.path.display()),
            Self::Unknown(shown) => f.write_str(shown),
            Self::UnknownFolder(shown) => write!(f, "the databases in {shown}"),
        }
    }
}

/// All that the file names at the moment, each database once.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// In the order of the file. One with a path of its own may be missing; those of folders are
    /// there.
    pub databases: Vec<PathBuf>,
    /// What matches the pattern of a folder, and is no database to Litestream.
    pub passed_over: Vec<PathBuf>,
    /// Entries that name what only the environment tells.
    pub unknown: Vec<Named>,
    /// Why there may be more: a folder that can't be read, or that holds too much.
    pub unseen: Vec<String>,
    /// Sentences about databases that are named more than once.
    twice: Vec<String>,
}

impl Found {
    /// What keeps Litestream from starting, or edgerepl from seeing all.
    pub fn faults(&self) -> impl Iterator<Item = Finding> {
        let twice = self.twice.iter().map(|twice| {
            let next = "keep one of them: two replications of one file ruin each other";
            fault(twice, next)
        });
        let unseen = self.unseen.iter().map(|unseen| {
            let next = "correct that entry, or name the databases by path";
            fault(unseen, next)
        });
        twice.chain(unseen)
    }
}

/// What makes two paths one database: the file that they lead to, or, where there is none, its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Identity {
    File { device: u64, inode: u64 },
    Place(PathBuf),
}

impl Identity {
    /// That of `path` at the moment, without opening it.
    pub(crate) fn of(path: &Path) -> Self {
        if let Ok(file) = fs::metadata(path) {
            return Self::File {
                device: file.dev(),
                inode: file.ino(),
            };
        }
        let path = absolute(&path.to_string_lossy());
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Self::Place(path);
        };
        match fs::canonicalize(folder) {
            Ok(folder) => Self::Place(folder.join(name)),
            Err(_) => Self::Place(path),
        }
    }
}

impl Configuration {
    /// Each entry of the file.
    pub fn named(&self) -> Vec<Entry> {
        let named = databases(&self.root).filter_map(|(place, node)| {
            let named = match (node.text("path"), Folder::of(node)) {
                (Some(path), _) if is_unknown(path) => Named::Unknown(self.expanded.shown(path)),
                (Some(path), _) => Named::Database(absolute(path)),
                (None, Some(folder)) => {
                    let texts = ["dir", "pattern"].map(|key| node.text(key).unwrap_or_default());
                    match texts.iter().any(|text| is_unknown(text)) {
                        true => Named::UnknownFolder(self.expanded.shown(&texts.join("/"))),
                        false => Named::Folder(folder),
                    }
                }
                (None, None) => return None,
            };
            let place = place.trim_end_matches('.').to_owned();
            Some(Entry { place, named })
        });
        named.collect()
    }

    /// What the entries name at the moment.
    ///
    /// It reads the first bytes of files in folders. A process that has a connection to one of them
    /// loses its locks by that: such a process has to let a child do it.
    pub fn databases(&self) -> Found {
        let mut found = Found::default();
        let mut known: Vec<(Identity, String, PathBuf)> = Vec::new();
        let mut left = MOST_ENTRIES;
        for Entry { place, named } in self.named() {
            let mut seen = Seen::default();
            match named {
                Named::Database(path) => seen.databases.push(path),
                Named::Folder(folder) => seen = Seen::in_folder(&folder, &mut left),
                unknown => found.unknown.push(unknown),
            }
            found
                .unseen
                .extend(seen.unseen.iter().map(|why| format!("{place}: {why}")));
            found.passed_over.extend(seen.passed_over);
            for path in seen.databases {
                let identity = Identity::of(&path);
                let earlier = known.iter().find(|(earlier, ..)| *earlier == identity);
                if let Some((_, other, as_named)) = earlier {
                    let twice = match *as_named == path {
                        true => format!("{other} and {place} both name {}", path.display()),
                        false => format!(
                            "{other} names {} and {place} names {}, which are one file",
                            as_named.display(),
                            path.display()
                        ),
                    };
                    found.twice.push(twice);
                    continue;
                }
                known.push((identity, place.clone(), path));
            }
        }
        found.databases = known.into_iter().map(|(.., path)| path).collect();
        found
    }
}

impl Folder {
    /// That of an entry, where it names one.
    pub(super) fn of(entry: &super::Node) -> Option<Self> {
        Some(Self {
            path: absolute(entry.text("dir")?),
            pattern: entry.text("pattern").unwrap_or_default().to_owned(),
            is_recursive: entry.is_true("recursive"),
            is_watched: entry.is_true("watch"),
        })
    }

    /// The path of `database` from this folder on, where it is one that this folder would hold.
    pub(super) fn holds(&self, database: &Path) -> Option<PathBuf> {
        let inside = database.strip_prefix(&self.path).ok()?;
        let name = inside.file_name()?.to_string_lossy();
        let is_direct = inside.parent() == Some(Path::new(""));
        let pattern: Pattern = self.pattern.parse().ok()?;
        ((is_direct || self.is_recursive) && pattern.matches(&name)).then(|| inside.to_owned())
    }
}

/// What a look through one folder has shown.
#[derive(Debug, Default)]
struct Seen {
    databases: Vec<PathBuf>,
    passed_over: Vec<PathBuf>,
    unseen: Vec<String>,
}

impl Seen {
    /// `left` is how many entries may still be looked at.
    fn in_folder(folder: &Folder, left: &mut usize) -> Self {
        let mut seen = Self::default();
        let name = folder.path.display();
        let Ok(pattern) = folder.pattern.parse() else {
            let pattern = &folder.pattern;
            let why = format!("its pattern {pattern:?} is malformed, and Litestream refuses it");
            seen.unseen.push(why);
            return seen;
        };
        match folder.path.symlink_metadata() {
            // Only where it watches a folder alone, Litestream reads it by its name.
            Ok(link) if link.is_symlink() && (folder.is_recursive || !folder.is_watched) => {
                let why = format!("{name} is a link, which Litestream does not follow");
                seen.unseen.push(why);
            }
            Ok(_) => seen.look_into(&folder.path, folder, &pattern, 0, left),
            Err(e) => seen.unseen.push(format!("{name} can't be read: {e}")),
        }
        seen
    }

    fn look_into(
        &mut self,
        path: &Path,
        folder: &Folder,
        pattern: &Pattern,
        depth: usize,
        left: &mut usize,
    ) {
        let name = path.display();
        if depth > DEEPEST {
            self.unseen
                .push(format!("{name} is deeper than {DEEPEST} folders"));
            return;
        }
        let mut entries = match read(path, left) {
            Ok(entries) => entries,
            Err(e) => return self.unseen.push(format!("{name} can't be read: {e}")),
        };
        // As Litestream goes through them.
        entries.sort_unstable();
        for entry in entries {
            if self.databases.len() + self.passed_over.len() >= MOST_DATABASES {
                let why = format!("{name} holds more than {MOST_DATABASES} files that match");
                return self.unseen.push(why);
            }
            let Ok(metadata) = entry.symlink_metadata() else {
                continue;
            };
            let Some(base) = entry.file_name().map(|name| name.to_string_lossy()) else {
                continue;
            };
            if metadata.is_dir() {
                if folder.is_recursive && !is_of_edgerepl(&base) {
                    self.look_into(&entry, folder, pattern, depth + 1, left);
                }
            } else if pattern.matches(&base) {
                match is_database(&entry) {
                    Some(true) => self.databases.push(entry),
                    Some(false) if !is_beside_a_database(&entry) => self.passed_over.push(entry),
                    _ => {}
                }
            }
        }
    }
}

/// The entries of a folder.
fn read(folder: &Path, left: &mut usize) -> io::Result<Vec<PathBuf>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        *left = left.checked_sub(1).ok_or_else(|| {
            io::Error::other(format!(
                "there are more than {MOST_ENTRIES} files to look at"
            ))
        })?;
        entries.push(entry?.path());
    }
    Ok(entries)
}

/// Whether Litestream takes a file for a database: by its first bytes. None where it is no file.
fn is_database(path: &Path) -> Option<bool> {
    let is_file = |metadata: &Metadata| metadata.is_file();
    fs::metadata(path).ok().filter(is_file)?;
    // It may have become something that blocks.
    let opened = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path);
    let mut header = [0; 16];
    let read = opened.and_then(|mut file| file.read_exact(&mut header));
    Some(read.is_ok() && header == *b"SQLite format 3\0")
}

/// The folders of copies that edgerepl itself restores beside a database.
fn is_of_edgerepl(folder: &str) -> bool {
    folder.starts_with('.') && (folder.ends_with("-verify") || folder.ends_with("-restore"))
}

/// What SQLite and Litestream keep beside a database is nobody's database.
fn is_beside_a_database(file: &Path) -> bool {
    let ends = |name: &str, ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    ends(&name, &["-wal", "-shm", "-journal"])
        || file
            .ancestors()
            .skip(1)
            .filter_map(Path::file_name)
            .any(|folder| ends(&folder.to_string_lossy(), &["-litestream"]))
}
