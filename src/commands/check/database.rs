//! The checks of the databases: a trial of each, as the daemon's user, of what the daemon does with
//! it.
//!
//! Owns the trial, and what is said of a file that is no database. A child does it, and becomes the daemon's user first: root may do what the
//! daemon may not. It does what the daemon does, in a transaction that it rolls back. Never leaves
//! anything behind: no database, no WAL, no other journal mode.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{
    AccessFlags, Gid, Uid, User, access, geteuid, initgroups, setgroups, setresgid, setresuid,
};
use serde_json::{Value, json};

use super::{Check, Outcome, fail, output_of, warn};
use crate::commands::databases::{Subject, Subjects};
use crate::config::{RuntimeDirectory, Settings, Supervisor, TableName};
use crate::litestream::config_file::{Configuration, Found};
use crate::litestream::lineage;
use crate::store::{self, Tried};
use crate::system::this_program;

/// The child's command; not for people.
pub(crate) const COMMAND: &str = "try-database";

/// The user of edgerepl's own unit.
const USER: &str = "edgerepl";

/// How much of a file is read: its header, and enough to see whether it is encrypted.
const BEGINNING: u64 = 1024;

/// How many different bytes of [`BEGINNING`] no text and no table has: random ones have 250.
const RANDOM: usize = 200;

/// The newest file format that this SQLite knows: that of WAL mode.
const NEWEST_FORMAT: u8 = 2;

/// A check of each database, and a warning for each file that Litestream passes over. Where there is
/// one database alone it has no other name.
pub(super) fn checks(
    settings: &Settings,
    runtime: &RuntimeDirectory,
    configuration: Option<&Configuration>,
    found: Found,
) -> Vec<Check> {
    let user = daemon_user(runtime);
    let passed_over = found.passed_over.clone();
    let subjects = Subjects::among(settings, found);
    let try_one = |subject: &Subject| {
        let is_ours = settings.databases.iter().any(|d| d.path == subject.path());
        let trial = Trial {
            settings,
            configuration,
            is_ours,
            user,
        };
        trial.run(subject)
    };
    if let ([one], []) = (&subjects.all[..], &passed_over[..]) {
        return vec![Check::new("database", try_one(one))];
    }
    let name = |label: &str| format!("database {label}");
    let labelled = subjects.labels().into_iter().zip(&subjects.all);
    let mut checks: Vec<Check> = labelled
        .map(|(label, subject)| Check::new(name(&label), try_one(subject)))
        .collect();
    checks.extend(passed_over.iter().map(|path| {
        let (cause, next) = match what_it_is(path, "litestream.yml") {
            Err(sentence) => told(&sentence),
            Ok(_) => (
                format!("{} is empty", path.display()),
                "let its application create its tables".to_owned(),
            ),
        };
        let cause = format!("{cause}: Litestream passes it over");
        Check::new(name(&path.display().to_string()), warn(cause, next))
    }));
    checks
}

/// What one trial needs to know.
struct Trial<'a> {
    settings: &'a Settings,
    configuration: Option<&'a Configuration>,
    /// edgerepl's own configuration has the database.
    is_ours: bool,
    user: Option<(u32, u32)>,
}

impl Trial<'_> {
    /// Starts the child, and reads its verdict.
    fn run(&self, subject: &Subject) -> Outcome {
        let mut child = this_program();
        child.arg(COMMAND).arg(self.order(subject).to_string());
        let printed = output_of(&child).unwrap_or_default();
        let verdict: Value = serde_json::from_str(&printed).unwrap_or_default();
        let word = |name: &str| verdict[name].as_str();
        match (word("works"), word("warns"), word("fails"), word("next")) {
            (Some(text), ..) => Outcome::Pass(text.to_owned()),
            (_, Some(cause), _, Some(next)) => warn(cause, next),
            (_, _, Some(cause), Some(next)) => {
                let by = self.user;
                let by = by.map(|(uid, _)| format!(" (tried as {})", name_of(uid)));
                fail(format!("{cause}{}", by.unwrap_or_default()), next)
            }
            _ => fail(
                format!("the trial of {} gave no answer", subject.path().display()),
                "look for errors of its disk in the kernel's log",
            ),
        }
    }

    fn order(&self, subject: &Subject) -> Value {
        // Litestream may have another user if a unit runs it.
        let state = match self.settings.replication.supervisor {
            Supervisor::Systemd { .. } => None,
            Supervisor::Child => Some(lineage::state_of(
                &subject.in_litestream,
                self.configuration,
            )),
        };
        let has_rows = subject.database.heartbeat;
        let heartbeat = self.settings.heartbeat.as_ref().filter(|_| has_rows);
        json!({
            "database": subject.path(),
            "state": state,
            "table": heartbeat.map(|heartbeat| heartbeat.table.to_string()),
            "made_by_edgerepl": has_rows,
            "key": match self.is_ours {
                true => "[database] path",
                false => "litestream.yml",
            },
            "uid": self.user.map(|(uid, _)| uid),
            "gid": self.user.map(|(_, gid)| gid),
        })
    }
}

/// The child: becomes the user, tries, prints its verdict.
pub(crate) fn child(order: &str) -> Option<String> {
    let order: Value = serde_json::from_str(order).ok()?;
    let path = |name: &str| order[name].as_str().map(PathBuf::from);
    let number = |name: &str| order[name].as_u64().and_then(|n| u32::try_from(n).ok());
    let database = path("database")?;
    let subject = Tested {
        database: &database,
        table: order["table"].as_str().and_then(|name| name.parse().ok()),
        is_made_by_edgerepl: order["made_by_edgerepl"] == true,
        key: order["key"].as_str()?,
    };
    if let (Some(uid), Some(gid)) = (number("uid"), number("gid"))
        && let Err(e) = become_user(Uid::from_raw(uid), Gid::from_raw(gid))
    {
        let cause = format!("the check can't become {}: {e}", name_of(uid));
        return Some(json!({"fails": cause, "next": "run the check as root"}).to_string());
    }
    let verdict = match try_all(&subject, path("state").as_deref()) {
        Ok(Verdict::Works(text)) => json!({"works": text}),
        Ok(Verdict::Warns(cause, next)) => json!({"warns": cause, "next": next}),
        Err(sentence) => {
            let (cause, next) = told(&sentence);
            json!({"fails": cause, "next": next})
        }
    };
    Some(verdict.to_string())
}

/// A sentence as its cause and the next step.
fn told(sentence: &str) -> (String, String) {
    let parts = sentence.rsplit_once("; ");
    let (cause, next) = parts.unwrap_or((sentence, "repair the database, or restore it"));
    (cause.to_owned(), next.to_owned())
}

enum Verdict {
    Works(String),
    Warns(String, String),
}

/// What the child is told of a database.
struct Tested<'a> {
    database: &'a Path,
    /// Where heartbeat rows go, if any do.
    table: Option<TableName>,
    is_made_by_edgerepl: bool,
    /// Where its path is configured.
    key: &'a str,
}

/// The daemon's user and group, if this process is root and the daemon is not: the owner of its
/// socket, or of its directory, or the user of edgerepl's unit.
fn daemon_user(runtime: &RuntimeDirectory) -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    let owner = |path: &Path| fs::metadata(path).ok().map(|file| (file.uid(), file.gid()));
    if let Some(owner) = owner(&runtime.file("status.sock")) {
        return Some(owner).filter(|(uid, _)| *uid != 0);
    }
    let of_directory = owner(runtime.path()).filter(|(uid, _)| *uid != 0);
    let of_unit = || {
        let user = User::from_name(USER).ok().flatten()?;
        Some((user.uid.as_raw(), user.gid.as_raw()))
    };
    of_directory.or_else(of_unit)
}

fn name_of(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| format!("user {uid}"), |user| user.name)
}

/// Irrevocably, and with the groups that a unit would give it.
fn become_user(uid: Uid, gid: Gid) -> nix::Result<()> {
    match User::from_uid(uid)?.and_then(|user| std::ffi::CString::new(user.name).ok()) {
        Some(name) => initgroups(&name, gid)?,
        None => setgroups(&[gid])?,
    }
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

fn try_all(subject: &Tested<'_>, state: Option<&Path>) -> Result<Verdict, String> {
    let database = subject.database;
    let name = database.display();
    store::refuse_link(database)?;
    let folder = database.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        return Err(format!(
            "the folder {} is missing; create it, or mount the data partition",
            folder.display()
        ));
    }
    // SQLite creates the WAL beside the database.
    writable(folder)?;
    if let Some(state) = state {
        // Litestream creates missing folders.
        let there = state.ancestors().find(|folder| folder.exists());
        writable(there.unwrap_or(folder))?;
    }
    let mode = match what_it_is(database, subject.key)? {
        Kind::Missing if subject.is_made_by_edgerepl => {
            return Ok(Verdict::Works(format!(
                "{name} does not exist yet; edgerepl will create it in WAL mode"
            )));
        }
        Kind::Missing => {
            return Ok(Verdict::Warns(
                format!("{name} does not exist"),
                "start its application, or bring it back by `edgerepl restore`".to_owned(),
            ));
        }
        kind => kind,
    };
    // SQLite would fall back to reading, and leave a WAL behind.
    let written = File::options().write(true).open(database);
    written.map_err(|e| format!("{name} can't be written to: {e}; check its owner and mode"))?;
    if mode == Kind::Empty {
        return Ok(match subject.is_made_by_edgerepl {
            true => Verdict::Works(format!("{name} is empty; edgerepl will set WAL mode")),
            false => Verdict::Warns(
                format!("{name} is empty: there is nothing to replicate"),
                "let its application create its tables".to_owned(),
            ),
        });
    }
    if store::try_row(database, subject.table.as_ref())? == Tried::Locked {
        let what = match subject.table {
            Some(_) => "a heartbeat row",
            None => "a write",
        };
        let cause = format!("another writer locks {name}: {what} could not be tried");
        return Ok(Verdict::Warns(
            cause,
            "make the application commit sooner".to_owned(),
        ));
    }
    let by = match subject.is_made_by_edgerepl {
        true => "edgerepl",
        false => "Litestream",
    };
    Ok(match mode {
        Kind::Wal => Verdict::Works(format!("{name} is writable and in WAL mode")),
        _ => Verdict::Warns(
            format!("{name} is not in WAL mode"),
            format!("{by} will set WAL mode; keep the application from setting another mode"),
        ),
    })
}

/// What a database's path leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Missing,
    /// To SQLite an empty file is an empty database.
    Empty,
    Rollback,
    Wal,
}

/// By the first bytes of the file.
///
/// # Errors
/// Why it is no database that SQLite can use, and the next step, in one sentence.
fn what_it_is(database: &Path, key: &str) -> Result<Kind, String> {
    let name = database.display();
    // Opening another kind of file, such as a FIFO, may block.
    if fs::metadata(database).is_ok_and(|file| !file.is_file()) {
        return Err(format!("{name} is not a regular file; check {key}"));
    }
    let mut beginning = Vec::new();
    let read = File::open(database)
        .and_then(|file| file.take(BEGINNING).read_to_end(&mut beginning).map(drop));
    match read {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Kind::Missing),
        Err(e) => {
            return Err(format!(
                "{name} can't be read: {e}; check its owner and mode"
            ));
        }
        Ok(()) if beginning.is_empty() => return Ok(Kind::Empty),
        Ok(()) => {}
    }
    if !beginning.starts_with(b"SQLite format 3\0") {
        let different: BTreeSet<_> = beginning.iter().collect();
        return Err(match different.len() > RANDOM {
            true => format!(
                "{name} looks encrypted: all of its beginning is random; take it out of {key}, or \
                 let its application encrypt values instead of the file"
            ),
            false => format!("{name} is not a SQLite database; check {key}"),
        });
    }
    // The file format's write and read version.
    match beginning.get(18..20) {
        Some([write, read]) if *write.max(read) > NEWEST_FORMAT => Err(format!(
            "{name} was written by a newer SQLite, in file format {}; update edgerepl and \
             Litestream, or let the application use an older format",
            write.max(read)
        )),
        Some([NEWEST_FORMAT, NEWEST_FORMAT]) => Ok(Kind::Wal),
        Some(_) => Ok(Kind::Rollback),
        None => Err(format!(
            "{name} ends in its header; restore it, or remove it"
        )),
    }
}

/// Tries it with a nameless file, which vanishes when it is closed: modes do not show a read-only
/// mount or a security module's rules.
fn writable(folder: &Path) -> Result<(), String> {
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let tried = match open(folder, flags, Mode::S_IRUSR) {
        // This file system or kernel has no nameless files.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOSYS) => {
            access(folder, AccessFlags::W_OK | AccessFlags::X_OK)
        }
        opened => opened.map(drop),
    };
    tried.map_err(|e| {
        format!(
            "the folder {} can't be written to: {}; check its owner, mode and mount options",
            folder.display(),
            e.desc()
        )
    })
}
