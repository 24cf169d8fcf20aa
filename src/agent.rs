//! The agent: the one state machine that decides, from an event and the time, what to do.
//!
//! Owns every policy: when to renew, how to back off, how to hand credentials over, when the WAL
//! guard holds, what healthy means. Does no I/O, reads no clock, draws no random number (its jitter
//! comes from a seed), holds no secret. Whatever it wants done it returns as [`Action`]s, and learns
//! what came of them as [`Event`]s; so a simulation can put it through a thousand years.
//!
//! Its parts: `renewal` (when to fetch), `replicator` (the hand-over, Litestream's life, one replica for each
//! database), `proof` (what answers prove), `heartbeat` (the rows), `creation` (a database that isn't there),
//! `guard` (the WAL guard's bounds), `clock_belief` (whether the clock is right), `glance`, `problems` and
//! `report` (what all that means).

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

/// The time, on both clocks, at which an event is handled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// For every deadline.
    pub boot: BootTime,
    /// For people, and for nothing that must not go wrong.
    pub wall: WallTime,
}

impl Now {
    fn offset(&self) -> i64 {
        let boot = i64::try_from(self.boot.since_boot().as_secs()).unwrap_or(i64::MAX);
        self.wall.unix().saturating_sub(boot)
    }
}

/// A clock that is set back by more seconds than this may keep an SDK from asking in time.
const STEP_BACK: i64 = 2;

/// What is handled so much later than it was due has waited for a device that slept.
const SLEEP: Duration = Duration::from_secs(30);

/// What the configuration says about decisions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// How long before their end credentials are renewed.
    pub renew_before: Duration,
    /// The time between two heartbeat rows; `None` writes none.
    pub heartbeat: Option<Duration>,
    /// Old rows are pruned.
    pub prune: bool,
    /// Who runs Litestream.
    pub supervisor: SupervisorKind,
    /// How new credentials reach it; `None` where that is found out.
    pub rotation: Option<Rotation>,
    /// The WAL is held while Litestream is down.
    pub wal_guard: bool,
    /// Which database it is about: what is proved of one says nothing of another.
    pub database: PathBuf,
}

/// Who runs Litestream: it decides what a hand-over consists of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SupervisorKind {
    /// edgerepl: stop, wait for the exit, start.
    Child,
    /// systemd: one restart, which is over when systemd says so.
    Systemd,
}

/// What a granted set of credentials means for decisions. The secrets stay with the reactor.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// How long they are good for, counted from when they were asked for.
    pub lifetime: Duration,
    /// The provider's clock, where it told.
    pub server_time: Option<WallTime>,
    /// Where this thing stands in its fleet, 0 to 65,535: renewals are spread by it.
    pub phase: u16,
}

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Nothing but the passing of time.
    Tick,
    /// The fetch ended.
    Fetched(Result<Lease, FetchFailure>),
    /// It is known how Litestream can be given credentials, or why it is not.
    Probed(Result<Rotation, String>),
    /// It is known how Litestream's files and the WAL look before a start, or why it is not.
    Surveyed(Result<Survey, String>),
    /// Litestream runs (or systemd says that it restarted its unit), or could not be started.
    Started(Result<(), String>),
    /// Litestream ended; how, in words.
    Exited(String),
    /// Litestream answered a sync, or did not.
    Synced(Result<Answer, SyncFailure>),
    /// Litestream answered who it is: it does not hang.
    Greeted,
    /// Litestream told what it replicates beside the database that is watched.
    Listed(Vec<String>),
    /// Litestream's local state was dropped, or could not be; with it, whether the WAL is still the one
    /// that all of it was made of, so that Litestream may go on from its replica.
    StateReset(Result<bool, String>),
    /// The WAL was emptied, or could not be.
    WalEmptied(Result<(), String>),
    /// A heartbeat row was committed (its id), or could not be.
    Row(Result<i64, String>),
    /// A heartbeat row was wanted, and there is no database.
    DatabaseMissing,
    /// It is known whether a replica of the missing database can be restored, or why it is not.
    Looked(Result<bool, String>),
    /// The guard holds the WAL, or could not be taken.
    GuardTaken(Result<(), String>),
    /// The WAL has grown past what the guard may cost.
    WalTooLarge,
    /// An address or a link of this machine changed.
    NetworkChanged,
    /// The wall clock was set.
    ClockStepped,
    /// Litestream's configuration was read, or could not be: what one that is started by it replicates
    /// beside the database that is watched.
    Understood(Result<Vec<String>, String>),
    /// The configuration was read anew.
    Reloaded(Policy),
    /// What an earlier run left of the database that is watched; told at the start, and after a reload that
    /// names another one.
    Recalled(Earlier),
    /// A row of an earlier run is not known to be proved, and that is so old.
    Inherited(Duration),
    /// Somebody wants the daemon to end.
    Terminate,
}

/// What is known of a database from an earlier run of edgerepl.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Earlier {
    /// Whether it left a row that it had not seen proved.
    pub debt: Debt,
    /// It had found that Litestream has to upload the whole database, and did not see that done.
    pub begins_anew: bool,
}

/// Whether an earlier run left a row that it had not seen proved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Debt {
    /// Nobody knows.
    Unknown,
    /// All that it wrote was proved.
    Nothing,
    /// One that is so old by now.
    Row(Duration),
}

/// What the next run of edgerepl has to know of a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Legacy {
    /// Since when a row is not proved.
    pub unproved_since: Option<BootTime>,
    /// Litestream has to upload the whole database before anything is proved, whoever asks it.
    pub begins_anew: bool,
}

/// What is to be done, in this order, before the next event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Start the fetch child; ends in [`Event::Fetched`].
    Fetch,
    /// Kill the fetch child; still ends in [`Event::Fetched`].
    KillFetch,
    /// Forget a fetch child that did not die of a kill: nothing more is heard of it.
    AbandonFetch,
    /// Find out how Litestream can be given credentials; ends in [`Event::Probed`].
    Probe,
    /// Look at Litestream's files and the WAL, before a start; ends in [`Event::Surveyed`].
    Survey,
    /// Start Litestream, or have its unit restarted, with the newest credentials; ends in
    /// [`Event::Started`].
    Start(Rotation),
    /// Give up on whatever was asked for on the way to a start: nothing more is heard of it.
    AbandonStart,
    /// Ask Litestream to end (SIGTERM); a second one cuts its last sync short.
    Terminate,
    /// End Litestream at once (SIGKILL).
    Kill,
    /// Ask Litestream to replicate now; ends in [`Event::Synced`], unless it is asked again before.
    Sync,
    /// Ask Litestream who it is; ends in [`Event::Greeted`], unless it hangs.
    Greet,
    /// Ask Litestream what it replicates; ends in [`Event::Listed`], where it tells.
    List,
    /// Drop Litestream's local state, which is of no use; ends in [`Event::StateReset`].
    ResetState,
    /// Leave Litestream no WAL that it would take for the one that it knows, so that it uploads the whole
    /// database; ends in [`Event::WalEmptied`].
    EmptyWal,
    /// Remember, for the next run, what it has to know of this database.
    Remember(PathBuf, Legacy),
    /// Write a heartbeat row; ends in [`Event::Row`], or in [`Event::DatabaseMissing`].
    WriteRow,
    /// Find out how old the row before this one is; ends in [`Event::Inherited`], where there is one.
    AskRowBefore(i64),
    /// Find out whether a replica of the missing database can be restored; ends in [`Event::Looked`].
    LookForReplica,
    /// Give up on that: nothing more is heard of it.
    AbandonLook,
    /// Make the database, and write a heartbeat row; ends in [`Event::Row`].
    WriteFirstRow,
    /// Delete some of the rows that are too old.
    Prune,
    /// Hold the WAL; ends in [`Event::GuardTaken`].
    TakeGuard,
    /// Let the WAL go, for Litestream holds it.
    ReleaseGuard,
    /// Let the WAL go before Litestream has read it, and empty it; ends in [`Event::WalEmptied`].
    AbandonGuard,
    /// Tell the log.
    Log(Level, String),
    /// End the daemon: all that was to be stopped has stopped.
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
    /// What the wall clock shows more than the boot clock, in seconds, as last seen.
    offset: i64,
    /// What Litestream replicates that nobody guards or proves, by its configuration, and by itself.
    unwatched: Vec<String>,
    listed: Option<Vec<String>>,
    /// Why its configuration can't be read.
    unreadable: Option<String>,
    /// What an earlier run left is not known: the row before the first one of this run tells.
    asks_row_before: bool,
    /// What the next run would be told; nothing, before it is known what an earlier one had to tell.
    remembered: Option<Legacy>,
    recalled: bool,
    stopping: bool,
    exited: bool,
}

impl Agent {
    /// An agent that has done nothing yet: its first event makes it fetch.
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
                // The freshest WAL that a guard can get hold of is one that was just written to.
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
                // One that runs goes on by what it read when it was started.
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

    /// When time alone will change something: [`Event::Tick`] is due then.
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

    /// The last transaction that Litestream answered with.
    pub fn last_seen(&self) -> Option<u64> {
        self.replicator.replica.ledger.last_seen()
    }

    /// How many fetches failed since the last one that did not.
    pub(crate) fn failures_in_a_row(&self) -> usize {
        self.renewal.failures_in_a_row()
    }

    /// The figures of this moment, at next to no cost.
    pub fn glance(&self, now: Now) -> Glance {
        Glance::of(self, now)
    }

    /// What all this means for whoever asks.
    pub fn report(&self, now: Now) -> Report {
        Report::of(self, now)
    }

    /// Nobody holds the WAL but the guard, which is to.
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

    /// Does what time alone makes due, until nothing is: a turn of the loop leaves nothing behind.
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
            // What has just ended may have left it open.
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

/// The actions of one event, as they gather.
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
