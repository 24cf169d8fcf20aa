//! `edgerepl verify`: compares the replica with the database.
//!
//! Owns the order of the comparison: hold the live database for the moment of a sync, read its
//! pages as of that moment, restore the replica to a temporary copy up to the same transaction, and
//! compare every page. If the linked SQLite can't read pages, rows are compared; if Litestream
//! can't name the transaction, heartbeat rows alone. The live database is released as soon as it is
//! read; after the sync everything runs at idle I/O priority. Never changes anything, and leaves
//! nothing behind.
//!
//! If every page is equal, only the structure is checked: any other fault that SQLite could find is
//! in the live database, too.

use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::access::Access;
use super::output::{self, Paint};
use crate::config::{RuntimeDirectory, Settings};
use crate::litestream::answer::{BEGINNING_MISSED, Position, SyncFailure};
use crate::litestream::control::SyncRequest;
use crate::litestream::restore::{Aside, Turn, has_room, size_of};
use crate::store::compare::{BY_ROWS, Pages, Rows, Snapshot, Soundness};
use crate::store::structure::{Structure, named_tables};
use crate::system::priority;

/// How much the WAL may grow while the live database is read, if `wal_guard` is off.
const WAL_LIMIT: u64 = 64 * 1024 * 1024;

/// How long writers may have to wait for the sync.
const SYNC_LIMIT: Duration = Duration::from_secs(4);

/// The command: 0 if the replica holds all that it should, 1 if it does not or can't be compared.
pub(crate) fn verify(settings: &Settings, runtime: &RuntimeDirectory, as_json: bool) -> ExitCode {
    match compared(settings, runtime) {
        Ok(verdict) => {
            let code = match verdict.holds() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            };
            if as_json {
                return output::answer(format_args!("{}\n", verdict.document()), code);
            }
            output::answer(verdict.table(), code)
        }
        Err(cause) => {
            if as_json {
                let document = json!({"form": 1, "holds": false, "cause": cause});
                return output::answer(format_args!("{document}\n"), ExitCode::FAILURE);
            }
            log::error!("the replica is not verified: {cause}");
            ExitCode::FAILURE
        }
    }
}

/// The result.
struct Verdict {
    /// The transaction at which both sides were compared; `None` if Litestream can't name it.
    transaction: Option<u64>,
    /// How many pages were compared; `None` if rows were.
    pages: Option<u64>,
    pages_different: u64,
    /// A sentence for each difference.
    differences: Vec<String>,
    soundness: Soundness,
    tables: Vec<Table>,
    /// Heartbeat rows that the replica did not hold yet.
    behind: u64,
    /// Other databases that Litestream replicates, which are not compared.
    not_compared: Vec<String>,
    /// How long checkpoints of the live database had to wait.
    held: Duration,
    took: Duration,
}

struct Table {
    name: String,
    /// How many rows, if they could be counted.
    live: Option<u64>,
    replica: Option<u64>,
    equal: bool,
    /// Whether a difference counts: both were read at the same transaction, or their rows never
    /// change.
    binding: bool,
}

/// What is kept of the live database until the replica is restored.
enum Live {
    Pages(Pages),
    Rows(Rows),
    /// If the transaction is not known: the ids of the first and the last heartbeat row.
    Heartbeats((i64, i64)),
}

fn compared(settings: &Settings, runtime: &RuntimeDirectory) -> Result<Verdict, String> {
    let begun = Instant::now();
    let database = &settings.databases.first.path;
    if !database.is_file() {
        return Err(format!("the database {} is missing", database.display()));
    }
    let folder = database.parent().unwrap_or(Path::new("/"));
    has_room(folder, size_of(database))?;
    let access = Access::obtain(settings, runtime)?;
    let not_compared = access.litestream_config(settings)?.unwatched(database);
    let aside = Aside::make(database, "verify", Turn::OrNever)?;

    let wal_limit = settings.databases.first.wal_guard.unwrap_or(WAL_LIMIT);
    let (live, synced) = Snapshot::of_live(database, wal_limit, || sync(settings))?;
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
    let restoring = aside.restore(command, database, transaction, access.environment())?;
    let kept = kept(settings, &live, transaction)?;
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
        not_compared,
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
            (verdict.tables, verdict.behind) = heartbeats(settings, ids, &replica)?;
        }
    }
    verdict.took = begun.elapsed();
    Ok(verdict)
}

fn kept(settings: &Settings, live: &Snapshot, transaction: Option<u64>) -> Result<Live, String> {
    if transaction.is_none() {
        let heartbeat = settings.heartbeat.as_ref().ok_or(
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
    settings: &Settings,
    then: (i64, i64),
    replica: &Snapshot,
) -> Result<(Vec<Table>, u64), String> {
    let database = &settings.databases.first.path;
    let name = settings
        .heartbeat
        .as_ref()
        .map(|heartbeat| &heartbeat.table);
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
fn sync(settings: &Settings) -> Result<Position, SyncFailure> {
    let socket = &settings.replication.control_socket;
    let begun = Instant::now();
    let mut request = SyncRequest::send(socket, &settings.databases.first.path, |_| true)?;
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

impl Verdict {
    fn holds(&self) -> bool {
        let differs = |table: &Table| table.binding && !table.equal;
        self.soundness.damage.is_none()
            && self.pages_different == 0
            && self.differences.is_empty()
            && self.not_compared.is_empty()
            && !self.tables.iter().any(differs)
    }

    fn document(&self) -> Value {
        let tables: Vec<Value> = self
            .tables
            .iter()
            .map(|table| {
                json!({
                    "name": table.name,
                    "rows": table.live,
                    "rows_on_replica": table.replica,
                    "equal": table.equal,
                    "compared_at_one_moment": table.binding,
                })
            })
            .collect();
        json!({
            "form": 1,
            "holds": self.holds(),
            "transaction": self.transaction,
            "compared": if self.pages.is_some() { "pages" } else { "rows" },
            "pages": self.pages,
            "pages_different": self.pages.map(|_| self.pages_different),
            "differences": self.differences,
            "integrity": self.soundness.integrity(),
            "unchecked": self.soundness.unchecked,
            "not_compared": self.not_compared,
            "rows_behind": self.behind,
            "tables": tables,
            "held_s": self.held.as_millis() as f64 / 1000.0,
            "took_s": self.took.as_millis() as f64 / 1000.0,
        })
    }

    fn table(&self) -> String {
        let (word, paint) = match self.holds() {
            true => ("the replica holds all that it should", Paint::Green),
            false => ("the replica does not hold what it should", Paint::Red),
        };
        let mut text = format!("{}\n", paint.on_terminal(word));
        text += &match (self.transaction, self.pages) {
            (Some(transaction), Some(pages)) if self.pages_different == 0 => {
                format!(
                    "all {pages} pages equal the device's at transaction {transaction}, byte for \
                     byte"
                )
            }
            (Some(transaction), Some(pages)) => format!(
                "{} of {pages} pages differ from the device's at transaction {transaction}",
                self.pages_different
            ),
            (Some(transaction), None) => format!(
                "compared at transaction {transaction} by {BY_ROWS}, because the linked SQLite \
                 can't read pages (it lacks SQLITE_ENABLE_DBPAGE_VTAB)"
            ),
            (None, _) => format!(
                "compared by heartbeat rows; {} of them are not on the replica yet",
                self.behind
            ),
        };
        text += &format!(
            "; took {:.1} s; checkpoints waited {:.1} s; integrity: {}\n",
            self.took.as_secs_f32(),
            self.held.as_secs_f32(),
            self.soundness.integrity(),
        );
        for difference in &self.differences {
            text += &format!("DIFFERS: {difference}\n");
        }
        for other in &self.not_compared {
            text += &format!("NOT COMPARED: {other}, which Litestream replicates too\n");
        }
        for unchecked in &self.soundness.unchecked {
            text += &format!("not checked without the application's code: {unchecked}\n");
        }
        text += &format!("\n{:<32} {:>10} {:>10}\n", "table", "live", "replica");
        let shown = |rows: Option<u64>| rows.map_or("?".to_owned(), |rows| rows.to_string());
        for table in &self.tables {
            let verdict = match (table.equal, table.binding) {
                (true, _) => "equal",
                (false, true) => "DIFFERS",
                (false, false) if table.live.or(table.replica).is_none() => "can't be read",
                (false, false) => "changed meanwhile",
            };
            text += &format!(
                "{:<32} {:>10} {:>10}  {verdict}\n",
                table.name,
                shown(table.live),
                shown(table.replica)
            );
        }
        text
    }
}
