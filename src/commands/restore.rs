//! `edgerepl restore`: the database from its replica, where there is none: at the first boot of a
//! replacement, or for a data partition that was lost.
//!
//! Owns an order that leaves no database or a whole one, whenever the power goes: restored aside,
//! checked, synced; what an earlier database left is removed; and only then it gets its name. Never
//! over one that is there.

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

/// With `--wait`: how soon it is tried again, at first and at the latest.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The command: 0 where the database was restored, or there is nothing to do; 1 where it could not be.
/// With `wait` it is tried until it can be told which.
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
                    "the database is not restored; tried again in {} s: {cause}",
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

/// What was done, in a sentence.
fn attempt(settings: &Settings, runtime: &RuntimeDirectory) -> Result<String, String> {
    let database = &settings.database.path;
    let name = database.display();
    let there = || format!("{name} is there: nothing is restored");
    if exists(database) {
        return Ok(there());
    }
    let folder = database.parent().unwrap_or(Path::new("/"));
    has_room(folder, 0)?;
    let aside = Aside::make(database, "restore", Turn::Next)?;
    // By another one that was waited for.
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
        return Ok(format!("S3 holds no replica of {name}: it begins anew"));
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
        Err(e) => Err(format!("{name} can't be put in its place: {e}")),
    }
}

/// A link that leads nowhere is there, too.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// What an earlier database may have left: SQLite would take its WAL for the new one's, and Litestream
/// its position. Where Litestream was told to have it `elsewhere`, it goes by name: more may be there.
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
