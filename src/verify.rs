//! `edgerepl verify`: whether the replica holds all that it should.
//!
//! Owns the comparison's order: the live database is held for the moment of a sync, its pages are read
//! as they are at that moment, the replica is restored aside up to that very transaction, and every
//! page has to be equal. Where the linked SQLite gives no pages, the rows have to be. Where Litestream
//! can't be asked for the moment, heartbeat rows alone are the proof. Changes nothing, and leaves
//! nothing behind.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use crate::agent::{BEGINNING_MISSED, Position, SyncFailure};
use crate::cli::output;
use crate::config::{RuntimeDirectory, Settings};
use crate::replication::control::SyncRequest;
use crate::replication::restore::{Access, Aside, Turn, has_room, size_of};
use crate::store::compare::{Pages, Snapshot, Soundness};
use crate::store::structure::Structure;

/// How long writers may be held up for the sync.
const SYNC_LIMIT: Duration = Duration::from_secs(4);

/// The command: 0 where the replica holds all that it should, 1 where not, or nobody can tell.
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
            output::answer(verdict.table(io::stdout().is_terminal()), code)
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

/// What was found.
struct Verdict {
    /// The transaction up to which everything was compared; `None` where Litestream can't tell.
    transaction: Option<u64>,
    /// How many pages were compared; `None` where rows were.
    pages: Option<u64>,
    pages_different: u64,
    /// What differs, each in words.
    differences: Vec<String>,
    soundness: Soundness,
    tables: Vec<Table>,
    /// Heartbeat rows that the replica did not hold yet.
    behind: u64,
    /// What Litestream replicates beside it: nobody has compared that.
    not_compared: Vec<String>,
    took: Duration,
}

struct Table {
    name: String,
    /// How many rows, where they could be counted.
    live: Option<u64>,
    replica: Option<u64>,
    equal: bool,
    /// Both were read at the same transaction, or are rows that never change.
    binding: bool,
}

/// What is kept of the live database until the replica is there.
enum Live {
    /// Its pages at one moment, and how many rows each table has.
    Pages(Pages, Vec<(String, Option<u64>)>),
    Rows(Snapshot),
}

fn compared(settings: &Settings, runtime: &RuntimeDirectory) -> Result<Verdict, String> {
    let begun = Instant::now();
    let database = &settings.database.path;
    if !database.is_file() {
        return Err(format!("there is no database {}", database.display()));
    }
    let folder = database.parent().unwrap_or(Path::new("/"));
    has_room(folder, size_of(database))?;
    let access = Access::obtain(settings, runtime)?;
    let not_compared = access.litestream_config(settings)?.unwatched(database);
    let aside = Aside::make(database, "verify", Turn::OrNever)?;

    let (live, synced) = Snapshot::of_live(database, || sync(settings))?;
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
                "{BEGINNING_MISSED}; edgerepl has it begin anew; try again in a minute"
            ));
        }
        Err(SyncFailure::StateCorrupt(why) | SyncFailure::Failed(why)) => return Err(why),
    };
    let pages = match transaction {
        Some(_) => live.pages()?,
        None => None,
    };
    let live = match pages {
        Some(pages) => {
            let counted = live.tables()?.into_iter();
            let counted = counted.map(|name| (live.count(&name), name));
            let counted = counted.map(|(rows, name)| (name, rows)).collect();
            // The WAL is not held back while the replica is restored.
            drop(live);
            Live::Pages(pages, counted)
        }
        None => Live::Rows(live),
    };
    let restored = aside.restore(
        &settings.replication.command,
        database,
        transaction,
        &access,
    )?;
    let copy = restored.ok_or("S3 holds no replica of it")?;
    let structure = Structure::of(copy)?;
    let replica = Snapshot::of_copy(copy)?;
    let mut verdict = Verdict {
        transaction,
        pages: None,
        pages_different: 0,
        differences: Vec::new(),
        soundness: replica.judge(&structure),
        tables: Vec::new(),
        behind: 0,
        not_compared,
        took: Duration::ZERO,
    };
    match &live {
        Live::Pages(pages, counted) => {
            let found = pages.compare(copy, &structure)?;
            verdict.pages = Some(pages.count());
            verdict.pages_different = found.pages;
            verdict.differences = found.named;
            verdict.tables = counted_tables(counted, &replica, &found.tables);
        }
        Live::Rows(live) if transaction.is_some() => {
            verdict.differences = live.differences(&replica)?;
            verdict.tables = all_tables(live, &replica, &mut verdict.differences)?;
        }
        Live::Rows(live) => {
            (verdict.tables, verdict.behind) = heartbeats(settings, live, &replica)?;
        }
    }
    verdict.took = begun.elapsed();
    Ok(verdict)
}

/// Every table of either, by its pages.
fn counted_tables(
    live: &[(String, Option<u64>)],
    replica: &Snapshot,
    different: &[String],
) -> Vec<Table> {
    let mut tables: Vec<Table> = live
        .iter()
        .map(|(name, rows)| Table {
            live: *rows,
            replica: replica.count(name),
            equal: !different.contains(name),
            binding: true,
            name: name.clone(),
        })
        .collect();
    // A damaged copy may not tell its tables; its pages differ then.
    for name in replica.tables().unwrap_or_default() {
        if !live.iter().any(|(known, _)| *known == name) {
            tables.push(Table {
                live: None,
                replica: replica.count(&name),
                equal: false,
                binding: true,
                name,
            });
        }
    }
    tables
}

/// Every table of either, by its rows. What can't be read is a difference.
fn all_tables(
    live: &Snapshot,
    replica: &Snapshot,
    differences: &mut Vec<String>,
) -> Result<Vec<Table>, String> {
    let mut names = live.tables()?;
    names.extend(replica.tables()?);
    names.sort_unstable();
    names.dedup();
    let mut tables = Vec::new();
    for name in names {
        let (here, there) = (live.content(&name), replica.content(&name));
        for (side, content) in [("live", &here), ("replica", &there)] {
            if let Err(cause) = content {
                differences.push(format!("table {name} ({side}) can't be read: {cause}"));
            }
        }
        tables.push(Table {
            equal: here.is_ok() && here == there,
            live: here.ok().map(|content| content.rows),
            replica: there.ok().map(|content| content.rows),
            binding: true,
            name,
        });
    }
    Ok(tables)
}

/// The rows that are in the replica and were not pruned; and, for whoever reads, all other tables as
/// they are at two different moments. The second value: rows that the replica lacks.
fn heartbeats(
    settings: &Settings,
    live: &Snapshot,
    replica: &Snapshot,
) -> Result<(Vec<Table>, u64), String> {
    let heartbeat = settings.heartbeat.as_ref().ok_or(
        "Litestream can't say how far the replica is, and there are no heartbeat rows to tell; \
         enable its control socket, or [heartbeat]",
    )?;
    let name = &heartbeat.table;
    let (Some(here), Some(there)) = (live.ids(name), replica.ids(name)) else {
        return Err("the replica holds no heartbeat row".to_owned());
    };
    let both = (here.0.max(there.0), there.1);
    let mut tables = all_tables(live, replica, &mut Vec::new())?;
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
    let newer = (there.1.saturating_add(1), i64::MAX);
    let behind = live.heartbeat(name, newer).map_err(unread)?.rows;
    Ok((tables, behind))
}

/// Has Litestream replicate now, and waits.
fn sync(settings: &Settings) -> Result<Position, SyncFailure> {
    let socket = &settings.replication.control_socket;
    let begun = Instant::now();
    let mut request = SyncRequest::send(socket, &settings.database.path, |_| true)?;
    loop {
        if let Some(answer) = request.poll() {
            return answer;
        }
        let left = SYNC_LIMIT.saturating_sub(begun.elapsed());
        if left.is_zero() {
            let why = "Litestream did not replicate within 4 s; see `edgerepl status`";
            return Err(SyncFailure::Failed(why.to_owned()));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut polled = [PollFd::new(
            std::os::fd::AsFd::as_fd(&request),
            PollFlags::POLLIN,
        )];
        // Whatever it says, the next turn looks.
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
            "took_s": self.took.as_millis() as f64 / 1000.0,
        })
    }

    fn table(&self, colour: bool) -> String {
        let (word, paint) = match self.holds() {
            true => ("the replica holds all that it should", 32),
            false => ("the replica does not hold what it should", 31),
        };
        let mut text = match colour {
            true => format!("\x1b[1;{paint}m{word}\x1b[0m\n"),
            false => format!("{word}\n"),
        };
        text += &match (self.transaction, self.pages) {
            (Some(transaction), Some(pages)) if self.pages_different == 0 => {
                format!(
                    "{pages} pages, byte for byte what the device held at transaction {transaction}"
                )
            }
            (Some(transaction), Some(pages)) => format!(
                "{} of {pages} pages are not what the device held at transaction {transaction}",
                self.pages_different
            ),
            (Some(transaction), None) => format!("rows compared at transaction {transaction}"),
            (None, _) => format!(
                "compared by heartbeat rows, of which {} are not on the replica yet",
                self.behind
            ),
        };
        text += &format!(
            ", in {:.1} s; integrity: {}\n",
            self.took.as_secs_f32(),
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
