//! The agent: the state machine that decides, from an event and the time, what to do.
//!
//! Owns every policy: when to renew, how to back off, how to hand credentials over, when the WAL guard
//! holds, what healthy means. Never does I/O, reads a clock, draws a random number (its jitter comes
//! from a seed) or holds a secret. It returns [`Action`]s and learns their results as [`Event`]s, so a
//! simulation can run it through a thousand years.
//!
//! Its parts: `renewal` (when to fetch), `replicator` (the hand-over, Litestream's life, one replica
//! for each database), `proof` (what answers prove), `heartbeat` (the rows), `creation` (a missing
//! database), `guard` (the WAL guard's bounds), `clock_belief` (whether the clock is right), `glance`,
//! `problems` and `report` (what it means for the operator).

use std::path::PathBuf;
use std::time::Duration;

use log::Level;

use crate::clock::{BootTime, WallTime};
use crate::config::Rotation;
use crate::credentials::FetchFailure;
use crate::litestream::answer::{Answer, Survey, SyncFailure};

mod activity;
mod backoff;
mod clock_belief;
mod creation;
mod glance;
mod guard;
mod heartbeat;
mod problems;
mod proof;
mod renewal;
mod replicator;
mod report;
#[cfg(test)]
mod tests;

pub use activity::Activity;
use backoff::Jitter;
use clock_belief::ClockBelief;
use creation::Creation;
pub use glance::{Glance, Lag, Proven};
use guard::Guard;
use heartbeat::Heartbeat;
pub use proof::BOUND;
use renewal::Renewal;
pub(crate) use renewal::phase;
pub use renewal::told_term;
use replicator::Replicator;
pub use report::{Report, Sentences, State};

/// The time of an event, on both clocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// For every deadline.
    pub boot: BootTime,
    /// For people only: no deadline depends on it.
    pub wall: WallTime,
}

impl Now {
    fn offset(&self) -> i64 {
        let boot = i64::try_from(self.boot.since_boot().as_secs()).unwrap_or(i64::MAX);
        self.wall.unix().saturating_sub(boot)
    }
}

/// If a clock is set back by more seconds than this, an SDK may ask for credentials too late.
const STEP_BACK: i64 = 2;

/// If an event is handled this long after its deadline, the device slept.
const SLEEP: Duration = Duration::from_secs(30);

/// The part of the configuration that decisions depend on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// How long before their expiry credentials are renewed.
    pub renew_before: Duration,
    /// The time between two heartbeat rows; `None` writes none.
    pub heartbeat: Option<Duration>,
    /// Old rows are pruned.
    pub prune: bool,
    /// The supervisor of Litestream.
    pub supervisor: SupervisorKind,
    /// How Litestream gets new credentials; `None` if a probe decides.
    pub rotation: Option<Rotation>,
    /// The WAL guard is used while Litestream is down.
    pub wal_guard: bool,
    /// The database that is watched: a proof holds for one database only.
    pub database: PathBuf,
}

/// The supervisor of Litestream: it determines the steps of a hand-over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SupervisorKind {
    /// edgerepl: stop, wait for the exit, start.
    Child,
    /// systemd: one restart, which ends when systemd reports it.
    Systemd,
}

/// A granted set of credentials, without the secrets: those stay with the reactor.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// How long they are valid, counted from the request.
    pub lifetime: Duration,
    /// The provider's clock, if the provider sent it.
    pub server_time: Option<WallTime>,
    /// The thing's place in its fleet, 0 to 65,535, which spreads renewals.
    pub phase: u16,
}

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Only time has passed.
    Tick,
    /// The fetch ended.
    Fetched(Result<Lease, FetchFailure>),
    /// How Litestream can get credentials, or why that is unknown.
    Probed(Result<Rotation, String>),
    /// The state of Litestream's files and of the WAL before a start, or why it is unknown.
    Surveyed(Result<Survey, String>),
    /// Litestream runs (or systemd reports the restart of its unit), or could not be started.
    Started(Result<(), String>),
    /// Litestream ended; how, in words.
    Exited(String),
    /// Litestream answered a sync, or did not.
    Synced(Result<Answer, SyncFailure>),
    /// Litestream answered who it is: it does not hang.
    Greeted,
    /// Litestream listed what it replicates beside the watched database.
    Listed(Vec<String>),
    /// Litestream's local state was dropped, or could not be. `true` if the WAL is still the one that
    /// all of it was made from, so that Litestream may continue from its replica.
    StateReset(Result<bool, String>),
    /// The WAL was emptied, or could not be.
    WalEmptied(Result<(), String>),
    /// A heartbeat row was committed (its id), or could not be.
    Row(Result<i64, String>),
    /// A heartbeat row was due, and there is no database.
    DatabaseMissing,
    /// Whether a replica of the missing database can be restored, or why that is unknown.
    Looked(Result<bool, String>),
    /// The guard holds the WAL, or could not take it.
    GuardTaken(Result<(), String>),
    /// The WAL has grown past the guard's limit.
    WalTooLarge,
    /// An address or a link of this machine changed.
    NetworkChanged,
    /// The wall clock was set.
    ClockStepped,
    /// Litestream's configuration was read, or could not be: what the next Litestream replicates beside
    /// the watched database.
    Understood(Result<Vec<String>, String>),
    /// The configuration was reloaded.
    Reloaded(Policy),
    /// What an earlier run recorded of the watched database; sent at the start, and after a reload that
    /// names another database.
    Recalled(Earlier),
    /// An earlier run's row of this age is not known to be proved.
    Inherited(Duration),
    /// The daemon was asked to end.
    Terminate,
}

/// What an earlier run of edgerepl recorded of a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Earlier {
    /// Whether it left an unproved row.
    pub debt: Debt,
    /// It found that Litestream has to upload the whole database, and did not see that done.
    pub begins_anew: bool,
}

/// Whether an earlier run left an unproved row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Debt {
    /// There is no record.
    Unknown,
    /// All its rows were proved.
    Nothing,
    /// An unproved row, now of this age.
    Row(Duration),
}

/// What the next run of edgerepl has to know of a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Legacy {
    /// Since when a row is unproved.
    pub unproved_since: Option<BootTime>,
    /// Litestream has to upload the whole database before any answer proves anything.
    pub begins_anew: bool,
}

/// What to do, in this order, before the next event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Start the fetch child; ends in [`Event::Fetched`].
    Fetch,
    /// Kill the fetch child; still ends in [`Event::Fetched`].
    KillFetch,
    /// Forget a fetch child that a kill did not end: it sends no event any more.
    AbandonFetch,
    /// Find out how Litestream can get credentials; ends in [`Event::Probed`].
    Probe,
    /// Examine Litestream's files and the WAL before a start; ends in [`Event::Surveyed`].
    Survey,
    /// Start Litestream, or have its unit restarted, with the newest credentials; ends in
    /// [`Event::Started`].
    Start(Rotation),
    /// Give up the steps of a start that are under way: they send no event any more.
    AbandonStart,
    /// Ask Litestream to end (SIGTERM); a second one aborts its last sync.
    Terminate,
    /// End Litestream at once (SIGKILL).
    Kill,
    /// Ask Litestream to replicate now; ends in [`Event::Synced`], unless asked again before.
    Sync,
    /// Ask Litestream who it is; ends in [`Event::Greeted`], unless it hangs.
    Greet,
    /// Ask Litestream what it replicates; ends in [`Event::Listed`], if it answers.
    List,
    /// Drop Litestream's useless local state; ends in [`Event::StateReset`].
    ResetState,
    /// Empty the WAL, so that Litestream does not recognize it and uploads the whole database; ends in
    /// [`Event::WalEmptied`].
    EmptyWal,
    /// Record, for the next run, what it has to know of this database.
    Remember(PathBuf, Legacy),
    /// Write a heartbeat row; ends in [`Event::Row`] or [`Event::DatabaseMissing`].
    WriteRow,
    /// Find the age of the row before this one; ends in [`Event::Inherited`], if there is one.
    AskRowBefore(i64),
    /// Find out whether a replica of the missing database can be restored; ends in [`Event::Looked`].
    LookForReplica,
    /// Give up that look: it sends no event any more.
    AbandonLook,
    /// Create the database, and write a heartbeat row; ends in [`Event::Row`].
    WriteFirstRow,
    /// Delete some of the expired rows.
    Prune,
    /// Hold the WAL; ends in [`Event::GuardTaken`].
    TakeGuard,
    /// Release the WAL: Litestream holds it.
    ReleaseGuard,
    /// Release the WAL before Litestream has read it, and empty it; ends in [`Event::WalEmptied`].
    AbandonGuard,
    /// Write to the log.
    Log(Level, String),
    /// End the daemon: everything that had to stop has stopped.
    Exit,
}

/// The state machine.
#[derive(Debug)]
pub struct Agent {
    policy: Policy,
    jitter: Jitter,
    renewal: Renewal,
    replicator: Replicator,
    heartbeat: Heartbeat,
    creation: Creation,
    guard: Guard,
    clock: ClockBelief,
    /// The wall clock minus the boot clock, in seconds, when last seen.
    offset: i64,
    /// Unwatched databases that Litestream replicates, from its configuration, and from its own list.
    unwatched: Vec<String>,
    listed: Option<Vec<String>>,
    /// Why Litestream's configuration can't be read.
    unreadable: Option<String>,
    /// An earlier run left no record: the age of the row before this run's first one is asked for.
    asks_row_before: bool,
    /// What was last recorded for the next run; `None` until the earlier record was read.
    remembered: Option<Legacy>,
    recalled: bool,
    stopping: bool,
    exited: bool,
}

impl Agent {
    /// A new agent: its first event makes it fetch.
    pub fn new(policy: Policy, seed: u64, now: Now) -> Self {
        Self {
            jitter: Jitter::new(seed),
            renewal: Renewal::new(now.boot),
            replicator: Replicator::new(&policy, now.boot),
            heartbeat: Heartbeat::new(now.boot),
            creation: Creation::new(),
            guard: Guard::default(),
            clock: ClockBelief::default(),
            offset: now.offset(),
            unwatched: Vec::new(),
            listed: None,
            unreadable: None,
            asks_row_before: false,
            remembered: None,
            recalled: false,
            stopping: false,
            exited: false,
            policy,
        }
    }

    /// Handles one event.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        let mut actions = Actions::default();
        let out = &mut actions;
        if self.deadline() + SLEEP < now.boot {
            self.replicator.replica.ledger.excuse(now.boot);
        }
        let offset = std::mem::replace(&mut self.offset, now.offset());
        if offset.saturating_sub(self.offset) > STEP_BACK {
            self.replicator.process.clock_went_back();
        }
        match event {
            Event::Tick => {}
            Event::Fetched(Ok(lease)) => {
                self.clock.compare(now, lease.server_time);
                if let Some(ends) = self.renewal.granted(&lease, &self.policy, now, out)
                    && !self.stopping
                {
                    self.replicator.renewed(ends, now.boot, out);
                }
            }
            Event::Fetched(Err(failure)) => {
                self.renewal
                    .failed(failure, &mut self.jitter, now.boot, out);
            }
            Event::Probed(result) => {
                self.replicator.probed(result, now.boot, out);
            }
            Event::Surveyed(result) => {
                self.replicator
                    .surveyed(result, &mut self.jitter, now.boot, out);
            }
            Event::Started(result) => {
                self.replicator
                    .started(result, &mut self.jitter, now.boot, out);
            }
            Event::Exited(how) => {
                self.replicator
                    .exited(&how, &mut self.jitter, now.boot, out);
                // A commit just before the guard is taken lets its read lock pin the newest WAL.
                if self.policy.heartbeat.is_some() && !self.stopping {
                    self.heartbeat.write(out);
                }
            }
            Event::Synced(result) => {
                if matches!(result, Err(SyncFailure::SessionEnded(_))) {
                    self.renewal.ended_early(now.boot, out);
                }
                let heartbeat = self.policy.heartbeat.is_some();
                self.replicator
                    .synced(result, heartbeat, &mut self.jitter, now.boot, out);
            }
            Event::Greeted => self.replicator.greeted(),
            Event::Listed(replicates) => {
                self.replicator.listed();
                self.listed = Some(replicates);
            }
            Event::StateReset(result) => self.replicator.reset(result, now.boot, out),
            Event::WalEmptied(result) => {
                self.replicator
                    .emptied(result, &mut self.jitter, now.boot, out);
            }
            Event::Recalled(earlier) => {
                self.recalled = true;
                self.asks_row_before = earlier.debt == Debt::Unknown;
                self.replicator.replica.recalls(earlier);
            }
            Event::Inherited(age) => self.replicator.replica.ledger.inherit(age),
            Event::DatabaseMissing => {
                self.replicator.replica.row(None, now.boot);
                let cause = "the database does not exist yet".to_owned();
                self.heartbeat
                    .row(Err(cause), self.policy.heartbeat, now.boot, out);
                self.creation.missing(now.boot);
            }
            Event::Looked(result) => {
                self.creation
                    .looked(result, &mut self.jitter, now.boot, out);
            }
            Event::Row(result) => {
                if let Ok(id) = result {
                    self.creation.there();
                    if std::mem::take(&mut self.asks_row_before) {
                        out.push(Action::AskRowBefore(id));
                    }
                }
                self.replicator.replica.row(result.as_ref().ok(), now.boot);
                self.heartbeat
                    .row(result, self.policy.heartbeat, now.boot, out);
            }
            Event::GuardTaken(result) => self.guard.taken(result, now.boot, out),
            Event::WalTooLarge => {
                if self.guard.too_large(out) {
                    self.replicator.replica.lets_go_of_wal();
                }
            }
            Event::NetworkChanged => self.renewal.network_changed(&mut self.jitter, now.boot),
            Event::ClockStepped => {
                out.info(format!("the clock was set: it is {} now", now.wall));
                self.renewal.clock_stepped(now.boot);
                self.replicator.replica.hasten(now.boot);
            }
            Event::Understood(result) => {
                // A running Litestream keeps the configuration that it read at its start.
                if !self.replicator.process.runs() {
                    self.unwatched.clear();
                }
                self.unreadable = result.as_ref().err().cloned();
                self.unwatched.extend(result.unwrap_or_default());
                self.unwatched.sort_unstable();
                self.unwatched.dedup();
            }
            Event::Reloaded(policy) => {
                let is_another = policy.database != self.policy.database;
                if is_another {
                    self.recalled = false;
                    self.guard.moves(out);
                    self.creation.moves(out);
                }
                self.replicator.reloaded(&policy, is_another, now.boot, out);
                self.policy = policy;
                self.renewal.hasten(now.boot);
            }
            Event::Terminate => {
                self.stopping = true;
                self.renewal.stop(out);
                self.replicator.stop(now.boot, out);
            }
        }
        self.advance(now, out);
        if self.recalled {
            let ledger = &self.replicator.replica.ledger;
            let legacy = ledger.legacy(self.policy.heartbeat.is_some());
            if self.remembered.replace(legacy) != Some(legacy) {
                out.push(Action::Remember(self.policy.database.clone(), legacy));
            }
        }
        actions.0
    }

    /// When time alone changes something: [`Event::Tick`] is due then.
    pub fn deadline(&self) -> BootTime {
        if self.exited {
            return BootTime::NEVER;
        }
        let rows = if self.stopping {
            BootTime::NEVER
        } else {
            self.heartbeat.deadline().min(self.creation.deadline())
        };
        self.renewal
            .deadline()
            .min(self.replicator.deadline())
            .min(self.guard.deadline())
            .min(rows)
    }

    /// The last transaction in Litestream's answers.
    pub fn last_seen(&self) -> Option<u64> {
        self.replicator.replica.ledger.last_seen()
    }

    /// The number of failed fetches since the last success.
    pub(crate) fn failures_in_a_row(&self) -> usize {
        self.renewal.failures_in_a_row()
    }

    /// The figures of this moment, at almost no cost.
    pub fn glance(&self, now: Now) -> Glance {
        Glance::of(self, now)
    }

    /// The state for `status` and the metrics.
    pub fn report(&self, now: Now) -> Report {
        Report::of(self, now)
    }

    /// Only the guard can keep the WAL from a reset, and it is wanted.
    fn leaves_wal_open(&self) -> bool {
        let goes_on = !self.stopping || self.replicator.is_leaving();
        self.policy.wal_guard && goes_on && self.replicator.leaves_wal_open()
    }

    fn advance_guard(&mut self, now: BootTime, out: &mut Actions) {
        let wanted = self.leaves_wal_open();
        if self.guard.advance(wanted, now, out) {
            self.replicator.replica.lets_go_of_wal();
        }
    }

    /// Does everything that is due by now, so that no work is left for the next turn.
    fn advance(&mut self, now: Now, out: &mut Actions) {
        let (is_believed, now) = (self.clock.is_believed(now), now.boot);
        loop {
            self.advance_guard(now, out);
            self.renewal.advance(now, out);
            let (heartbeat, is_guarded) = (self.policy.heartbeat.is_some(), self.guard.may_hold());
            self.replicator.advance(heartbeat, is_guarded, now, out);
            if !self.stopping {
                let has_credentials = self.renewal.term().is_some_and(|term| now < term.ends);
                self.creation
                    .advance(has_credentials, &mut self.jitter, now, out);
                let prune = self.policy.prune && is_believed;
                self.heartbeat
                    .advance(self.policy.heartbeat, prune, now, out);
            }
            // A step above may have left the WAL open.
            self.advance_guard(now, out);
            if self.deadline() > now {
                break;
            }
        }
        if self.stopping && self.replicator.is_down() && !self.exited {
            self.exited = true;
            out.push(Action::Exit);
        }
    }
}

/// The actions of one event, in order.
#[derive(Debug, Default)]
struct Actions(Vec<Action>);

impl Actions {
    fn push(&mut self, action: Action) {
        self.0.push(action);
    }

    fn extend(&mut self, action: Option<Action>) {
        self.0.extend(action);
    }

    fn info(&mut self, text: String) {
        self.push(Action::Log(Level::Info, text));
    }

    fn warn(&mut self, text: String) {
        self.push(Action::Log(Level::Warn, text));
    }
}
