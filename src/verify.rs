//! `edgerepl verify`: whether the replica holds all that it should.
//!
//! Owns the comparison's order: the live database is held for the moment of a sync, the replica is
//! restored aside up to that very transaction, and every table has to be equal. Where Litestream can't
//! be asked for the moment, heartbeat rows alone are the proof. Changes nothing, and leaves nothing
//! behind.

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
use crate::store::compare::{Content, Snapshot};

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
    integrity: String,
    tables: Vec<Table>,
    /// Heartbeat rows that the replica did not hold yet.
    behind: u64,
    took: Duration,
}

struct Table {
    name: String,
    live: Content,
    replica: Content,
    /// Both were read at the same transaction, or are rows that never change.
    binding: bool,
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
    let restored = aside.restore(
        &settings.replication.command,
        database,
        transaction,
        &access,
    )?;
    let copy = restored.ok_or("S3 holds no replica of it")?;
    let replica = Snapshot::of_copy(copy)?;
    let (tables, behind) = match transaction {
        Some(_) => (all_tables(&live, &replica)?, 0),
        None => heartbeats(settings, &live, &replica)?,
    };
    Ok(Verdict {
        transaction,
        integrity: replica.integrity(),
        tables,
        behind,
        took: begun.elapsed(),
    })
}

/// Every table of either.
fn all_tables(live: &Snapshot, replica: &Snapshot) -> Result<Vec<Table>, String> {
    let mut names = live.tables()?;
    names.extend(replica.tables()?);
    names.sort_unstable();
    names.dedup();
    let compared = names.into_iter().map(|name| Table {
        live: live.content(&name),
        replica: replica.content(&name),
        binding: true,
        name,
    });
    Ok(compared.collect())
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
    let mut tables = all_tables(live, replica)?;
    for table in &mut tables {
        table.binding = false;
        if table.name == name.to_string().trim_matches('"') {
            table.binding = true;
            table.live = live.heartbeat(name, both);
            table.replica = replica.heartbeat(name, both);
        }
    }
    let behind = live
        .heartbeat(name, (there.1.saturating_add(1), i64::MAX))
        .rows;
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

impl Table {
    fn is_equal(&self) -> bool {
        self.live == self.replica
    }
}

impl Verdict {
    fn holds(&self) -> bool {
        let differs = |table: &Table| table.binding && !table.is_equal();
        self.integrity == "ok" && !self.tables.iter().any(differs)
    }

    fn document(&self) -> Value {
        let tables: Vec<Value> = self
            .tables
            .iter()
            .map(|table| {
                json!({
                    "name": table.name,
                    "rows": table.live.rows,
                    "rows_on_replica": table.replica.rows,
                    "equal": table.is_equal(),
                    "compared_at_one_moment": table.binding,
                })
            })
            .collect();
        json!({
            "form": 1,
            "holds": self.holds(),
            "transaction": self.transaction,
            "integrity": self.integrity,
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
        text += &match self.transaction {
            Some(transaction) => format!("compared at transaction {transaction}"),
            None => format!(
                "compared by heartbeat rows, of which {} are not on the replica yet",
                self.behind
            ),
        };
        text += &format!(
            ", in {:.1} s; integrity_check: {}\n\n{:<32} {:>10} {:>10}\n",
            self.took.as_secs_f32(),
            self.integrity,
            "table",
            "live",
            "replica"
        );
        for table in &self.tables {
            let verdict = match (table.is_equal(), table.binding) {
                (true, _) => "equal",
                (false, true) => "DIFFERS",
                (false, false) => "changed meanwhile",
            };
            text += &format!(
                "{:<32} {:>10} {:>10}  {verdict}\n",
                table.name, table.live.rows, table.replica.rows
            );
        }
        text
    }
}
