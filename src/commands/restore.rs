//! `edgerepl restore`: restores a missing database from its replica, at the first boot of a
//! replacement device or after the loss of a data partition.
//!
//! Owns the order of steps. After a power cut at any moment there is no database or a complete one:
//! restore to a temporary copy, check it, sync it, remove what an earlier database left, and only
//! then give it the database's name. Never replaces an existing database.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use super::access::Access;
use crate::config::{RuntimeDirectory, Settings};
use crate::litestream::lineage;
use crate::litestream::restore::{Aside, Turn, has_room};
use crate::store::compare::Snapshot;
use crate::store::structure::Structure;

/// With `--wait`: the first and the longest pause before a retry.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The command: 0 if the database is restored or there is nothing to do, 1 otherwise. With `wait`
/// it retries until it can exit with 0.
pub(crate) fn restore(settings: &Settings, runtime: &RuntimeDirectory, wait: bool) -> ExitCode {
    let mut pause = FIRST_WAIT;
    loop {
        match attempt(settings, runtime) {
            Ok(done) => {
                log::info!("{done}");
                return ExitCode::SUCCESS;
            }
            Err(cause) if wait => {
                log::warn!(
                    "the database is not restored; retry in {} s: {cause}",
                    pause.as_secs()
                );
                thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_WAIT);
            }
            Err(cause) => {
                log::error!("the database is not restored: {cause}");
                return ExitCode::FAILURE;
            }
        }
    }
}

/// What was done, in one sentence.
fn attempt(settings: &Settings, runtime: &RuntimeDirectory) -> Result<String, String> {
    let database = &settings.databases.first.path;
    let name = database.display();
    let there = || format!("{name} exists: nothing to restore");
    if exists(database) {
        return Ok(there());
    }
    let folder = database.parent().unwrap_or(Path::new("/"));
    has_room(folder, 0)?;
    let aside = Aside::make(database, "restore", Turn::Next)?;
    // Another `restore`, whose end was awaited, may have restored it.
    if exists(database) {
        return Ok(there());
    }
    let access = Access::obtain(settings, runtime)?;
    let restoring = aside.restore(
        &settings.replication.command,
        database,
        None,
        access.environment(),
    )?;
    let Some(copy) = restoring.end()? else {
        return Ok(format!("S3 holds no replica of {name}: nothing to restore"));
    };
    let sound = Snapshot::of_copy(copy)?.judge(&Structure::of(copy)?);
    if let Some(damage) = sound.damage {
        return Err(format!("the replica is damaged: {damage}"));
    }
    for unchecked in &sound.unchecked {
        log::warn!(
            "{name}: its pages are sound; not checked without the application's code: {unchecked}"
        );
    }
    let configuration = access.litestream_config(settings).ok();
    let elsewhere = configuration.and_then(|known| known.meta_path(database));
    for left in remains(database, elsewhere.as_deref()) {
        remove(&left).map_err(|e| format!("{} can't be removed: {e}", left.display()))?;
    }
    match aside.put(database) {
        Ok(true) => Ok(format!("{name} was restored from its replica")),
        Ok(false) => Ok(there()),
        Err(e) => Err(format!("the restored copy can't be linked to {name}: {e}")),
    }
}

/// A dangling link counts as existing, too.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// What an earlier database may have left: SQLite would use its WAL, and Litestream its position,
/// for the new database. In `elsewhere`, Litestream's `meta-path`, only Litestream's own names are
/// removed: the folder may hold other files.
fn remains(database: &Path, elsewhere: Option<&Path>) -> Vec<PathBuf> {
    let beside = |end: &str| {
        let mut name = database.file_name().unwrap_or_default().to_owned();
        name.push(end);
        database.with_file_name(name)
    };
    let mut remains = vec![
        beside("-wal"),
        beside("-shm"),
        beside("-journal"),
        lineage::state_of(database, None),
    ];
    let state = ["ltx", "generation", "generations"];
    remains.extend(
        elsewhere
            .into_iter()
            .flat_map(|folder| state.map(|name| folder.join(name))),
    );
    remains
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
