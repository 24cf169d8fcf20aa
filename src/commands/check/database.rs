//! The check of the database: a trial, as the daemon's user, of what the daemon does with it.
//!
//! Owns the trial. A child does it, and becomes the daemon's user first: root may do what the
//! daemon may not. It does what the daemon does, in a transaction that it rolls back. Never leaves
//! anything behind: no database, no WAL, no other journal mode.

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

use super::{Outcome, fail, output_of, warn};
use crate::config::{RuntimeDirectory, Settings, Supervisor, TableName};
use crate::litestream::config_file::{Configuration, Variables};
use crate::litestream::lineage;
use crate::store::{self, Tried};
use crate::system::this_program;

/// The child's command; not for people.
pub(crate) const COMMAND: &str = "try-database";

/// The user of edgerepl's own unit.
const USER: &str = "edgerepl";

/// Starts the child, and reads its verdict.
pub(super) fn check(settings: &Settings, runtime: &RuntimeDirectory, thing_name: &str) -> Outcome {
    let database = &settings.databases.first.path;
    let user = daemon_user(runtime);
    let mut child = this_program();
    child
        .arg(COMMAND)
        .arg(trial(settings, thing_name, user).to_string());
    let printed = output_of(&child).unwrap_or_default();
    let verdict: Value = serde_json::from_str(&printed).unwrap_or_default();
    let word = |name: &str| verdict[name].as_str();
    match (word("works"), word("warns"), word("fails"), word("next")) {
        (Some(text), ..) => Outcome::Pass(text.to_owned()),
        (_, Some(cause), _, Some(next)) => warn(cause, next),
        (_, _, Some(cause), Some(next)) => {
            let by = user.map(|(uid, _)| format!(" (tried as {})", name_of(uid)));
            fail(format!("{cause}{}", by.unwrap_or_default()), next)
        }
        _ => fail(
            format!("the trial of {} gave no answer", database.display()),
            "look for errors of its disk in the kernel's log",
        ),
    }
}

/// The child: becomes the user, tries, prints its verdict.
pub(crate) fn child(order: &str) -> Option<String> {
    let order: Value = serde_json::from_str(order).ok()?;
    let path = |name: &str| order[name].as_str().map(PathBuf::from);
    let number = |name: &str| order[name].as_u64().and_then(|n| u32::try_from(n).ok());
    let database = path("database")?;
    let table = order["table"].as_str().and_then(|name| name.parse().ok());
    if let (Some(uid), Some(gid)) = (number("uid"), number("gid"))
        && let Err(e) = become_user(Uid::from_raw(uid), Gid::from_raw(gid))
    {
        let cause = format!("the check can't become {}: {e}", name_of(uid));
        return Some(json!({"fails": cause, "next": "run the check as root"}).to_string());
    }
    let verdict = match try_all(&database, path("state").as_deref(), table.as_ref()) {
        Ok(Verdict::Works(text)) => json!({"works": text}),
        Ok(Verdict::Warns(cause, next)) => json!({"warns": cause, "next": next}),
        Err(sentence) => match sentence.rsplit_once("; ") {
            Some((cause, next)) => json!({"fails": cause, "next": next}),
            None => json!({"fails": sentence, "next": "repair the database, or restore it"}),
        },
    };
    Some(verdict.to_string())
}

enum Verdict {
    Works(String),
    Warns(String, &'static str),
}

fn trial(settings: &Settings, thing_name: &str, user: Option<(u32, u32)>) -> Value {
    let database = &settings.databases.first.path;
    let variables = Variables::of_litestream(thing_name, &settings.region, false);
    // Litestream may have another user if a unit runs it.
    let state = match settings.replication.supervisor {
        Supervisor::Systemd { .. } => None,
        Supervisor::Child => {
            let configuration = Configuration::of(&settings.replication.command, &variables);
            Some(lineage::state_of(database, configuration.ok().as_ref()))
        }
    };
    json!({
        "database": database,
        "state": state,
        "table": settings.heartbeat.as_ref().map(|heartbeat| heartbeat.table.to_string()),
        "uid": user.map(|(uid, _)| uid),
        "gid": user.map(|(_, gid)| gid),
    })
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

fn try_all(
    database: &Path,
    state: Option<&Path>,
    table: Option<&TableName>,
) -> Result<Verdict, String> {
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
    // Opening another kind of file, such as a FIFO, may block.
    if fs::metadata(database).is_ok_and(|file| !file.is_file()) {
        return Err(format!(
            "{name} is not a regular file; check [database] path"
        ));
    }
    let mut header = [0; 20];
    let read = File::open(database).and_then(|mut file| file.read_exact(&mut header));
    match &read {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Ok(Verdict::Works(format!(
                "{name} does not exist yet; edgerepl will create it in WAL mode"
            )));
        }
        // An empty file is an empty database to SQLite.
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => {}
        Err(e) => {
            return Err(format!(
                "{name} can't be read: {e}; check its owner and mode"
            ));
        }
        Ok(()) if !header.starts_with(b"SQLite format 3\0") => {
            return Err(format!(
                "{name} is not a SQLite database; check [database] path"
            ));
        }
        Ok(()) => {}
    }
    // SQLite would fall back to reading, and leave a WAL behind.
    let written = File::options().write(true).open(database);
    written.map_err(|e| format!("{name} can't be written to: {e}; check its owner and mode"))?;
    if read.is_err() {
        let text = format!("{name} is empty; edgerepl will set WAL mode");
        return Ok(Verdict::Works(text));
    }
    if store::try_row(database, table)? == Tried::Locked {
        let cause = format!("another writer locks {name}: a heartbeat row could not be tried");
        return Ok(Verdict::Warns(cause, "make the application commit sooner"));
    }
    // Bytes 18 and 19: the file format's write and read version, 2 for WAL.
    Ok(match header[18..] == [2, 2] {
        true => Verdict::Works(format!("{name} is writable and in WAL mode")),
        false => Verdict::Warns(
            format!("{name} is not in WAL mode"),
            "edgerepl will set WAL mode; keep the application from setting another mode",
        ),
    })
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
