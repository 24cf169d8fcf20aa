//! `edgerepl restore`: restores missing databases from their replicas, at the first boot of a
//! replacement device or after the loss of a data partition.
//!
//! Owns the order of steps: one database after the other, in the order of the configuration. After a
//! power cut at any moment each database is missing or complete: restore to a temporary copy, check
//! it, sync it, remove what an earlier database left, and only then give it the database's name.
//! Never replaces an existing database.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use super::access::{Accesses, litestream_config};
use super::databases::{Subject, Subjects};
use crate::config::{RuntimeDirectory, Settings};
use crate::litestream::command::{NOTHING_TO_RESTORE, Upto};
use crate::litestream::config_file::Configuration;
use crate::litestream::lineage;
use crate::litestream::moment::Moment;
use crate::litestream::restore::{Aside, Turn, has_room};
use crate::store;
use crate::store::compare::Snapshot;
use crate::store::structure::Structure;

/// With `--wait`: the first and the longest pause before a retry.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The same for a replica that was restored and is damaged: each try takes all of it over the line.
const FIRST_WAIT_FOR_DAMAGED: Duration = Duration::from_secs(3600);
const LONGEST_WAIT_FOR_DAMAGED: Duration = Duration::from_secs(43_200);

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    /// These databases; all where there are none.
    pub(crate) names: &'a [PathBuf],
    /// Their state of then, not the newest one.
    pub(crate) moment: Option<&'a Moment>,
    /// Retries what may succeed later.
    pub(crate) wait: bool,
}

/// Why a database was not restored.
enum Failure {
    /// A retry may help.
    Passing(String),
    /// The same, once somebody has mended the replica.
    Damaged(String),
    /// S3 has answered, and will not answer otherwise.
    Lasting(String),
}

impl From<String> for Failure {
    fn from(cause: String) -> Self {
        Self::Passing(cause)
    }
}

/// The command: 0 if each database is restored or there is nothing to do, 1 otherwise. With `wait`
/// it retries those that failed until it can exit with 0.
pub(crate) fn restore(
    settings: &Settings,
    runtime: &RuntimeDirectory,
    order: &Order<'_>,
) -> ExitCode {
    let mut pause = FIRST_WAIT;
    // Those that are restored, or for which there is nothing to do.
    let mut done: BTreeSet<PathBuf> = BTreeSet::new();
    let mut lasting: BTreeSet<PathBuf> = BTreeSet::new();
    // Those that are not tried before then, and how long that was.
    let mut later: BTreeMap<PathBuf, (Instant, Duration)> = BTreeMap::new();
    loop {
        let configuration = litestream_config(settings);
        let known = configuration.as_ref().ok();
        let subjects = match Subjects::of(settings, known).chosen(order.names, known) {
            Ok(subjects) => subjects,
            Err(cause) => {
                log::error!("no database is restored: {cause}");
                return ExitCode::FAILURE;
            }
        };
        if pause == FIRST_WAIT {
            tell_what_is_left_out(&configuration, &subjects);
        }
        let mut accesses = Accesses::new(settings, runtime);
        let mut is_to_retry = false;
        for subject in &subjects.all {
            let path = subject.path();
            if done.contains(path) || lasting.contains(path) {
                continue;
            }
            if later.get(path).is_some_and(|(at, _)| Instant::now() < *at) {
                is_to_retry = true;
                continue;
            }
            let name = path.display();
            match attempt(settings, known, subject, order.moment, &mut accesses) {
                Ok(said) => {
                    log::info!("{said}");
                    done.insert(path.to_owned());
                }
                Err(Failure::Passing(cause)) if order.wait => {
                    let pause = pause.as_secs();
                    log::warn!("the database is not restored; retry in {pause} s: {name}: {cause}");
                    is_to_retry = true;
                }
                Err(Failure::Damaged(cause)) if order.wait => {
                    let before = later.get(path).map(|(_, wait)| *wait * 2);
                    let wait = before.unwrap_or(FIRST_WAIT_FOR_DAMAGED);
                    let wait = wait.min(LONGEST_WAIT_FOR_DAMAGED);
                    let minutes = wait.as_secs() / 60;
                    log::error!(
                        "the database is not restored; retry in {minutes} min: {name}: {cause}"
                    );
                    later.insert(path.to_owned(), (Instant::now() + wait, wait));
                    is_to_retry = true;
                }
                Err(
                    Failure::Passing(cause) | Failure::Damaged(cause) | Failure::Lasting(cause),
                ) => {
                    log::error!("the database is not restored: {name}: {cause}");
                    lasting.insert(path.to_owned());
                }
            }
        }
        if !is_to_retry {
            return match lasting.is_empty() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            };
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_WAIT);
    }
}

fn tell_what_is_left_out(configuration: &Result<Configuration, String>, subjects: &Subjects) {
    if let Err(cause) = configuration {
        log::warn!("what else Litestream replicates is not known, nor restored: {cause}");
    }
    for unknown in &subjects.unknown {
        log::warn!("Litestream may replicate more, which is not restored: {unknown}");
    }
}

/// What was done, in one sentence.
fn attempt(
    settings: &Settings,
    configuration: Option<&Configuration>,
    subject: &Subject,
    moment: Option<&Moment>,
    accesses: &mut Accesses<'_>,
) -> Result<String, Failure> {
    let database = subject.path();
    let name = database.display();
    let there = || match moment {
        None => format!("{name} exists: nothing to restore"),
        Some(moment) => format!(
            "{name} exists, and stays as it is: move it away to restore its state of {moment}"
        ),
    };
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
    let own = match configuration {
        Some(known) => known.alone(&subject.in_litestream)?,
        None => None,
    };
    let upto = moment.map_or(Upto::End, |moment| Upto::Moment(moment.clone()));
    let restoring = aside.restore(
        &settings.replication.command,
        own.as_deref(),
        &subject.in_litestream,
        &upto,
        accesses.environment()?,
    )?;
    let copy = match (restoring.end(), moment) {
        (Ok(Some(copy)), _) => copy,
        (Ok(None), _) => return Ok(format!("S3 holds no replica of {name}: nothing to restore")),
        (Err(cause), Some(moment)) if cause.contains(NOTHING_TO_RESTORE) => {
            return Err(Failure::Lasting(format!(
                "S3 holds no state of it at {moment}; name a later time, or restore the newest \
                 state without --timestamp"
            )));
        }
        (Err(cause), _) => return Err(cause.into()),
    };
    let sound = Snapshot::of_copy(copy)?.judge(&Structure::of(copy)?);
    if let Some(damage) = sound.damage {
        return Err(Failure::Damaged(format!(
            "the replica is damaged: {damage}; restore an earlier state with --timestamp, or make the bucket \
             whole"
        )));
    }
    for unchecked in &sound.unchecked {
        log::warn!(
            "{name}: its pages are sound; not checked without the application's code: {unchecked}"
        );
    }
    let elsewhere = configuration.and_then(|known| known.meta_path(&subject.in_litestream));
    for left in remains(database, elsewhere.as_deref()) {
        remove(&left).map_err(|e| format!("{} can't be removed: {e}", left.display()))?;
    }
    let of_when = moment.map_or(String::new(), |moment| format!(" as of {moment}"));
    // Litestream waits for what takes its place.
    if store::is_empty(database) {
        remove(database).map_err(|e| format!("the empty file can't be removed: {e}"))?;
    }
    match aside.put(database) {
        Ok(true) => Ok(format!("{name} was restored from its replica{of_when}")),
        Ok(false) => Ok(there()),
        Err(e) => Err(format!("the restored copy can't be linked to {name}: {e}").into()),
    }
}

/// A dangling link counts as existing, too. An empty file holds nothing.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok() && !store::is_empty(path)
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
