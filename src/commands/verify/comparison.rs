//! The comparison of one database with its replica.
//!
//! Owns its order: hold the live database for the moment of a sync, read its pages as of that
//! moment, restore the replica to a temporary copy up to the same transaction, and compare every
//! page. If the linked SQLite can't read pages, rows are compared; if Litestream can't name the
//! transaction, heartbeat rows alone. The live database is released as soon as it is read; after
//! the sync everything runs at idle I/O priority. Never changes anything, and leaves nothing behind.
//!
//! If every page is equal, only the structure is checked: any other fault that SQLite could find is
//! in the live database, too.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::verdict::{Table, Verdict};
use crate::commands::access::Accesses;
use crate::commands::databases::Subject;
use crate::config::{self, Heartbeat, Settings};
use crate::litestream::answer::{BEGINNING_MISSED, Position, SyncFailure};
use crate::litestream::command::Upto;
use crate::litestream::config_file::Configuration;
use crate::litestream::control::SyncRequest;
use crate::litestream::restore::{Aside, Turn, VERIFY, has_room, size_of};
use crate::store::compare::{Pages, Rows, Snapshot, Soundness};
use crate::store::structure::{Structure, named_tables};
use crate::system::priority;

/// How long writers may have to wait for the sync.
const SYNC_LIMIT: Duration = Duration::from_secs(4);

/// What is kept of the live database until the replica is restored.
enum Live {
    Pages(Pages),
    Rows(Rows),
    /// If the transaction is not known: the ids of the first and the last heartbeat row.
    Heartbeats((i64, i64)),
}

/// Compares `subject` with its replica.
///
/// # Errors
/// Why it can't be compared, in one sentence.
pub(super) fn compare(
    settings: &Settings,
    configuration: &Configuration,
    subject: &Subject,
    accesses: &mut Accesses<'_>,
) -> Result<Verdict, String> {
    let begun = Instant::now();
    let database = subject.path();
    if !database.is_file() {
        return Err(format!("the database {} is missing", database.display()));
    }
    let folder = database.parent().unwrap_or(Path::new("/"));
    has_room(folder, size_of(database))?;
    let own = configuration.alone(&subject.in_litestream)?;
    let environment = accesses.environment()?;
    let aside = Aside::make(database, VERIFY, Turn::OrNever)?;

    // Also where `wal_guard` is off the WAL may not grow for ever while the live database is read.
    let wal_limit = subject.database.wal_guard.unwrap_or(config::WAL_LIMIT);
    let synced = || sync(settings, &subject.in_litestream);
    let (live, synced) = Snapshot::of_live(database, wal_limit, synced)?;
    let transaction = match synced {
        Ok(position) if position.replicated >= position.local => Some(position.local),
        Ok(position) => {
            return Err(format!(
                "the replica is behind: it holds transaction {} of {}",
                position.replicated, position.local
            ));
        }
        Err(SyncFailure::NoSocket) => None,
        Err(SyncFailure::BeginningMissed) => {
            return Err(format!(
                "{BEGINNING_MISSED}; edgerepl makes it upload a new snapshot; retry in a minute"
            ));
        }
        Err(
            SyncFailure::StateCorrupt(why)
            | SyncFailure::SessionEnded(why)
            | SyncFailure::Failed(why),
        ) => return Err(why),
    };
    // Not earlier: writers had to wait until here.
    priority::idle();
    let command = &settings.replication.command;
    let upto = transaction.map_or(Upto::End, Upto::Transaction);
    let own = own.as_deref();
    let restoring = aside.restore(command, own, &subject.in_litestream, &upto, environment)?;
    let heartbeat = settings.heartbeat.as_ref();
    let heartbeat = heartbeat.filter(|_| subject.database.heartbeat);
    let kept = kept(heartbeat, &live, transaction)?;
    let held = live.release();
    let copy = restoring.end()?.ok_or("S3 holds no replica of it")?;
    let replica = Snapshot::of_copy(copy)?;
    let mut verdict = Verdict {
        transaction,
        pages: None,
        pages_different: 0,
        differences: Vec::new(),
        soundness: Soundness::default(),
        tables: Vec::new(),
        behind: 0,
        held,
        took: Duration::ZERO,
    };
    match kept {
        Live::Pages(pages) => {
            let (structure, differing) = thread::scope(|scope| {
                let walk = scope.spawn(|| Structure::of(copy));
                let differing = pages.differing(copy);
                let panicked = |_| Err("the walk through the copy ended early".to_owned());
                (walk.join().unwrap_or_else(panicked), differing)
            });
            let (structure, differing) = (structure?, differing?);
            let found = pages.name(&differing, &structure);
            verdict.soundness = match differing.is_none() {
                true => Soundness::of_structure(&structure),
                false => replica.judge(&structure),
            };
            verdict.tables = tables_of(database, &pages, &structure, &found.tables);
            verdict.pages = Some(pages.count());
            verdict.pages_different = found.pages;
            verdict.differences = found.named;
        }
        Live::Rows(live) => {
            verdict.soundness = replica.judge(&Structure::of(copy)?);
            let replica = replica.rows()?;
            verdict.differences = live.differences(&replica);
            verdict.tables = all_tables(&live, &replica, &mut verdict.differences);
        }
        Live::Heartbeats(ids) => {
            verdict.soundness = replica.judge(&Structure::of(copy)?);
            (verdict.tables, verdict.behind) = heartbeats(database, heartbeat, ids, &replica)?;
        }
    }
    verdict.took = begun.elapsed();
    Ok(verdict)
}

fn kept(
    heartbeat: Option<&Heartbeat>,
    live: &Snapshot,
    transaction: Option<u64>,
) -> Result<Live, String> {
    if transaction.is_none() {
        let heartbeat = heartbeat.ok_or(
            "Litestream can't report the replica's position, and there are no heartbeat rows to \
             compare; enable its control socket, or [heartbeat]",
        )?;
        let ids = live.ids(&heartbeat.table);
        return Ok(Live::Heartbeats(
            ids.ok_or("there is no heartbeat row yet")?,
        ));
    }
    Ok(match live.pages()? {
        Some(pages) => Live::Pages(pages),
        None => Live::Rows(live.rows()?),
    })
}

/// Every table of both sides, compared by its pages. Equal tables have the same number of rows; the
/// live rows of the others are counted now.
fn tables_of(
    database: &Path,
    pages: &Pages,
    structure: &Structure,
    different: &[String],
) -> Vec<Table> {
    let mut names: Vec<&str> = pages
        .tables()
        .chain(named_tables(&structure.objects))
        .collect();
    names.sort_unstable();
    names.dedup();
    let now = match different.is_empty() {
        true => None,
        false => Snapshot::now(database).ok(),
    };
    let table = |name: &str| {
        let equal = !different.iter().any(|other| other == name);
        let replica = structure.entries("table", name);
        let live = match equal {
            true => replica,
            false => now.as_ref().and_then(|now| now.count(name)),
        };
        Table {
            name: name.to_owned(),
            live,
            replica,
            equal,
            binding: true,
        }
    };
    names.into_iter().map(table).collect()
}

/// Every table of both sides, compared by its rows. A table that can't be read is a difference.
fn all_tables(live: &Rows, replica: &Rows, differences: &mut Vec<String>) -> Vec<Table> {
    let mut names: Vec<&String> = live.tables.keys().chain(replica.tables.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let mut tables = Vec::new();
    for name in names {
        let [here, there] = [("live", live), ("replica", replica)].map(|(side, rows)| {
            let content = rows.tables.get(name)?.as_ref();
            content
                .map_err(|cause| {
                    differences.push(format!("table {name} ({side}) can't be read: {cause}"));
                })
                .ok()
        });
        tables.push(Table {
            equal: here.is_some() && here == there,
            live: here.map(|content| content.rows),
            replica: there.map(|content| content.rows),
            binding: true,
            name: name.clone(),
        });
    }
    tables
}

/// Compares the heartbeat rows that both sides hold. All other tables are listed for information:
/// the two sides were read at different moments. The second value: how many rows the replica lacks.
fn heartbeats(
    database: &Path,
    heartbeat: Option<&Heartbeat>,
    then: (i64, i64),
    replica: &Snapshot,
) -> Result<(Vec<Table>, u64), String> {
    let name = heartbeat.map(|heartbeat| &heartbeat.table);
    let name = name.ok_or("there are no heartbeat rows")?;
    // Its rows never change, and are pruned in order: they can be read at any moment.
    let live = Snapshot::now(database)?;
    let (Some(here), Some(there)) = (live.ids(name), replica.ids(name)) else {
        return Err("the replica holds no heartbeat row".to_owned());
    };
    let both = (here.0.max(there.0), there.1);
    let mut tables = all_tables(&live.rows()?, &replica.rows()?, &mut Vec::new());
    let unread = |e: String| format!("the heartbeat table {name} can't be read: {e}");
    for table in &mut tables {
        table.binding = false;
        if table.name == name.to_string().trim_matches('"') {
            table.binding = true;
            let here = live.heartbeat(name, both).map_err(unread)?;
            let there = replica.heartbeat(name, both).map_err(unread)?;
            table.equal = here == there;
            (table.live, table.replica) = (Some(here.rows), Some(there.rows));
        }
    }
    let newer = (there.1.saturating_add(1), then.1);
    let behind = live.heartbeat(name, newer).map_err(unread)?.rows;
    Ok((tables, behind))
}

/// Asks Litestream to sync now, and waits for the answer.
fn sync(settings: &Settings, database: &Path) -> Result<Position, SyncFailure> {
    let socket = &settings.replication.control_socket;
    let begun = Instant::now();
    let mut request = SyncRequest::send(socket, database, |_| true)?;
    loop {
        if let Some(answer) = request.poll() {
            return answer;
        }
        let left = SYNC_LIMIT.saturating_sub(begun.elapsed());
        if left.is_zero() {
            let why = "Litestream did not sync within 4 s; see `edgerepl status`";
            return Err(SyncFailure::Failed(why.to_owned()));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut polled = [PollFd::new(
            std::os::fd::AsFd::as_fd(&request),
            PollFlags::POLLIN,
        )];
        // The next turn looks at the answer, whatever poll returns.
        let _ = poll(&mut polled, timeout);
    }
}
