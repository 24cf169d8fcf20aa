//! Whether the daemon will be able to use the database, tried as the daemon's user.
//!
//! Owns the trial, which a child does that has become that user: root may do what the daemon may not.
//! It does what the daemon does, in a transaction that it rolls back. Leaves nothing behind: no
//! database, no WAL, no other journal mode.

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

/// The command that the child is started with; not for people.
pub(crate) const COMMAND: &str = "try-database";

/// The user that a unit of ours has.
const USER: &str = "edgerepl";

/// Has a child try what the daemon will do.
pub(super) fn check(settings: &Settings, runtime: &RuntimeDirectory, thing_name: &str) -> Outcome {
    let database = &settings.database.path;
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
            format!("{} gives no answer to who tries it", database.display()),
            "look at the disk that it is on, in the kernel's log",
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
        let cause = format!("this process can't become {}: {e}", name_of(uid));
        return Some(json!({"fails": cause, "next": "run the check as root"}).to_string());
    }
    let verdict = match try_all(&database, path("state").as_deref(), table.as_ref()) {
        Ok(Verdict::Works(text)) => json!({"works": text}),
        Ok(Verdict::Warns(cause, next)) => json!({"warns": cause, "next": next}),
        Err(sentence) => match sentence.rsplit_once("; ") {
            Some((cause, next)) => json!({"fails": cause, "next": next}),
            None => json!({"fails": sentence, "next": "mend the database, or restore it"}),
        },
    };
    Some(verdict.to_string())
}

enum Verdict {
    Works(String),
    Warns(String, &'static str),
}

fn trial(settings: &Settings, thing_name: &str, user: Option<(u32, u32)>) -> Value {
    let database = &settings.database.path;
    let variables = Variables::of_litestream(thing_name, &settings.region, false);
    // With a unit of its own Litestream may have another user.
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

/// The daemon's user and group, where they are not this process's own: of its socket, of its
/// directory, or of the unit's name.
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

/// For good, with the groups that a unit gives it.
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
            "the folder {} isn't there; create it, or mount the data partition",
            folder.display()
        ));
    }
    // The WAL is made beside the database.
    writable(folder)?;
    if let Some(state) = state {
        // Litestream makes those that are missing.
        let there = state.ancestors().find(|folder| folder.exists());
        writable(there.unwrap_or(folder))?;
    }
    // Another kind of file may keep who opens it waiting.
    if fs::metadata(database).is_ok_and(|file| !file.is_file()) {
        return Err(format!("{name} is no file; check [database] path"));
    }
    let mut header = [0; 20];
    let read = File::open(database).and_then(|mut file| file.read_exact(&mut header));
    match &read {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Ok(Verdict::Works(format!(
                "{name} isn't there yet; it will be created, in WAL mode"
            )));
        }
        // SQLite's empty database is an empty file.
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => {}
        Err(e) => return Err(format!("{name} can't be read: {e}; check who owns it")),
        Ok(()) if !header.starts_with(b"SQLite format 3\0") => {
            return Err(format!(
                "{name} is no SQLite database; check [database] path"
            ));
        }
        Ok(()) => {}
    }
    // SQLite would open it to read, and leave a WAL behind.
    let written = File::options().write(true).open(database);
    written.map_err(|e| format!("{name} can't be written to: {e}; check who owns it"))?;
    if read.is_err() {
        let text = format!("{name} is empty; it will be put into WAL mode");
        return Ok(Verdict::Works(text));
    }
    if store::try_row(database, table)? == Tried::Locked {
        let cause = format!("{name} is locked by another writer, so that it could not be tried");
        return Ok(Verdict::Warns(cause, "have the application commit sooner"));
    }
    // Bytes 18 and 19: the file format's write and read version, 2 for WAL.
    Ok(match header[18..] == [2, 2] {
        true => Verdict::Works(format!("{name} is in WAL mode, and can be written to")),
        false => Verdict::Warns(
            format!("{name} is not in WAL mode"),
            "edgerepl will set it; the application must not set another one",
        ),
    })
}

/// By a file without a name, which vanishes by itself: modes say too little of a mount or of a
/// security module.
fn writable(folder: &Path) -> Result<(), String> {
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let tried = match open(folder, flags, Mode::S_IRUSR) {
        // This file system, or this kernel, has no such files.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOSYS) => {
            access(folder, AccessFlags::W_OK | AccessFlags::X_OK)
        }
        opened => opened.map(drop),
    };
    tried.map_err(|e| {
        format!(
            "the folder {} can't be written to: {}; check who owns it and how it is mounted",
            folder.display(),
            e.desc()
        )
    })
}
