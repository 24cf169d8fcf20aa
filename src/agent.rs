//! The agent: the state machine that decides, from an event and the time, what to do.
//!
//! Owns every policy: when to renew, how to back off, how to hand credentials over, when the WAL guard
//! holds, what healthy means. Never does I/O, reads a clock, draws a random number (its jitter comes
//! from a seed) or holds a secret. It returns [`Action`]s and learns their results as [`Event`]s, so a
//! simulation can run it through a thousand years.
//!
//! Its parts: `renewal` (when to fetch), `replicator` (the hand-over, Litestream's life), `databases` (which
//! are watched), `database` (one of them) and `replica` (its), `proof` (what answers prove), `heartbeat`
//! (the rows), `restorable` and `verification` (what a restore would give; `mending`: when that is mended;
//! `doubt`: how it is said), `creation` (a missing database), `guard` (the WAL guard's bounds),
//! `clock_belief` (whether the clock is right), `held` (the RPO held), `glance`, `problems` and `report`
//! (what it means for the operator).

use std::rc::Rc;
use std::time::Duration;

use log::Level;

use crate::clock::{BootTime, WallTime};
use crate::config::Rotation;
use crate::credentials::FetchFailure;
use crate::litestream::answer::{Answer, Commit, Known, Seam, Survey, SyncFailure};
use crate::litestream::chain::{Listing, PlanFailure};

mod activity;
mod backoff;
mod claim;
mod clock_belief;
mod creation;
mod database;
mod databases;
mod doubt;
mod glance;
mod guard;
mod heartbeat;
mod held;
mod mending;
mod problems;
mod proof;
mod renewal;
mod replica;
mod replicator;
mod report;
mod restorable;
mod rpo;
#[cfg(test)]
mod tests;
mod verification;
mod watch;

pub use activity::Activity;
use backoff::Jitter;
use clock_belief::ClockBelief;
use database::Watched;
use databases::Databases;
pub use glance::{Glance, Lag, Proven};
use held::Held;
pub use held::RpoHeld;
use renewal::Renewal;
pub(crate) use renewal::phase;
pub use renewal::told_term;
pub use replicator::{HeldBack, UploadReport};
use replicator::{Paces, Replicator, Turn};
pub use report::{
    DatabaseReport, DatabaseState, Report, RestoreReport, Sentences, State, VerifyReport,
};
pub use restorable::Restorability;
pub use rpo::Rpo;
pub use verification::{NotVerified, Verified, Verity};
pub use watch::{Database, Watch};

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
    /// How much may be lost.
    pub rpo: Rpo,
    /// The same while uploads wait; no less.
    pub rpo_metered: Rpo,
    /// The time between two heartbeat rows; `None` writes none.
    pub heartbeat: Option<Duration>,
    /// Old rows are pruned.
    pub prune: bool,
    /// The supervisor of Litestream.
    pub supervisor: SupervisorKind,
    /// How Litestream gets new credentials; `None` if a probe decides.
    pub rotation: Option<Rotation>,
    /// How often the restore of each database is planned; `None`: never.
    pub restorable: Option<Duration>,
    /// How often the bytes of each replica are compared with its database; `None`: never.
    pub verify: Option<Duration>,
    /// What Litestream is told, where edgerepl writes that: news needs a start.
    pub litestream: Option<Rc<str>>,
    /// The databases that edgerepl's own configuration names, in its order; one at least.
    pub databases: Vec<Watch>,
}

/// The databases that Litestream's configuration names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Named {
    /// Those that there are.
    pub watches: Vec<Watch>,
    /// Litestream watches a folder: they come and go while it runs.
    pub change: bool,
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
    /// The state of Litestream's files and of a WAL before a start, or why it is unknown.
    Surveyed(Database, Result<Survey, String>),
    /// Litestream runs (or systemd reports the restart of its unit), or could not be started.
    Started(Result<(), String>),
    /// Litestream ended; how, in words.
    Exited(String),
    /// Litestream answered a sync, or did not.
    Synced(Database, Result<Answer, SyncFailure>),
    /// Litestream answered who it is: it does not hang.
    Greeted,
    /// Litestream listed what it replicates.
    Listed(Vec<Watch>),
    /// Litestream's local state was dropped, or could not be. `true` if the WAL is still the one that
    /// all of it was made from, so that Litestream may continue from its replica.
    StateReset(Database, Result<bool, String>),
    /// The WAL was emptied, or could not be.
    WalEmptied(Database, Result<(), String>),
    /// A heartbeat row was committed (its id), or could not be.
    Row(Database, Result<i64, String>),
    /// A heartbeat row was due, or a commit looked for, and there is no database.
    DatabaseMissing(Database),
    /// The last commit in the WAL, if it can be read.
    LastCommit(Database, Option<Commit>),
    /// Whether a replica of the missing database can be restored, or why that is unknown.
    Looked(Database, Result<bool, String>),
    /// The newest transaction in the bucket, if it is ahead of Litestream's files here, or why that is
    /// unknown.
    LookedAhead(Database, Result<Option<u64>, String>),
    /// What a restore would take from the bucket, or why that is unknown.
    Planned(Database, Result<Listing, PlanFailure>),
    /// What a `verify` showed, or why it showed nothing.
    Verified(Database, Result<Verified, NotVerified>),
    /// Litestream complained about what the bucket holds of some database.
    Complained,
    /// What Litestream has sent, or why that can't be seen.
    Measured(Result<Sent, String>),
    /// A new snapshot was uploaded, or could not be.
    Snapshotted(Database, Result<(), String>),
    /// The guard holds the WAL, or could not take it.
    GuardTaken(Database, Result<(), String>),
    /// The WAL has grown past the guard's limit.
    WalTooLarge(Database),
    /// An address or a link of this machine changed.
    NetworkChanged,
    /// There is a way out of this machine again.
    NetworkBack,
    /// The line is metered, or is not any more.
    Metered(bool),
    /// The wall clock was set.
    ClockStepped,
    /// Litestream's configuration was read, or could not be: what the next Litestream replicates.
    Understood(Result<Named, String>),
    /// The configuration was reloaded.
    Reloaded(Policy),
    /// What an earlier run recorded of a database.
    Recalled(Database, Earlier),
    /// An earlier run's row of this age is not known to be proved.
    Inherited(Database, Duration),
    /// Somebody asked that everything is uploaded now.
    SyncWanted,
    /// Somebody asked that uploads wait, or that they do not any more.
    PauseWanted(bool),
    /// The daemon was asked to end.
    Terminate,
}

/// What Litestream has sent over the network, by the kernel's count.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sent {
    /// What was acknowledged, in bytes, since somebody first looked; less where another process is looked at.
    pub bytes: u64,
    /// What waits to be sent or acknowledged.
    pub queued: u64,
    /// How large the databases are.
    pub size: u64,
}

/// What an earlier run of edgerepl recorded of a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Earlier {
    /// Whether it left an unproved row.
    pub debt: Debt,
    /// It found that Litestream has to upload the whole database, and did not see that done.
    pub begins_anew: bool,
    /// It found that the database can't be restored, and did not see that mended.
    pub is_unrestorable: bool,
    /// It found that the replica holds other bytes, and did not see that mended.
    pub differs: bool,
    /// Where Litestream had to go on, and was not seen to.
    pub seam: Option<Seam>,
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
    /// The database can't be restored.
    pub is_unrestorable: bool,
    /// Its replica holds other bytes.
    pub differs: bool,
    /// Where Litestream has to go on, and was not seen to yet.
    pub seam: Option<Seam>,
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
    /// Read Litestream's configuration; ends in [`Event::Understood`].
    Understand,
    /// Examine Litestream's files and the WAL before a start; ends in [`Event::Surveyed`].
    Survey(Database),
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
    Sync(Database),
    /// Ask Litestream who it is; ends in [`Event::Greeted`], unless it hangs.
    Greet,
    /// Ask Litestream what it replicates; ends in [`Event::Listed`], if it answers.
    List,
    /// Drop Litestream's useless local state; ends in [`Event::StateReset`].
    ResetState(Database),
    /// Empty the WAL, so that Litestream does not recognize it and uploads the whole database; ends in
    /// [`Event::WalEmptied`].
    EmptyWal(Database),
    /// Find out what an earlier run recorded of this database; ends in [`Event::Recalled`].
    Recall(Database),
    /// Record, for the next run, what it has to know of this database.
    Remember(Database, Legacy),
    /// Write a heartbeat row; ends in [`Event::Row`] or [`Event::DatabaseMissing`].
    WriteRow(Database),
    /// Find the age of the row before this one; ends in [`Event::Inherited`], if there is one.
    AskRowBefore(Database, i64),
    /// Read the last commit; ends in [`Event::LastCommit`] or [`Event::DatabaseMissing`].
    LookForCommit(Database),
    /// Find out whether a replica of the missing database can be restored; ends in [`Event::Looked`].
    LookForReplica(Database),
    /// Give up that look: it sends no event any more.
    AbandonLook(Database),
    /// Create the database, and write a heartbeat row; ends in [`Event::Row`].
    WriteFirstRow(Database),
    /// Find out whether the bucket is ahead of Litestream's files, before it starts; ends in
    /// [`Event::LookedAhead`].
    LookAhead(Database),
    /// Give up that look: it sends no event any more.
    AbandonLookAhead(Database),
    /// Plan a restore, and compare what the bucket holds with what was uploaded; ends in
    /// [`Event::Planned`].
    PlanRestore(Database),
    /// Give up that plan: it sends no event any more.
    AbandonPlan(Database),
    /// Restore the replica aside, and compare it with the database; ends in [`Event::Verified`].
    Verify(Database),
    /// Give that up: it sends no event any more.
    AbandonVerify(Database),
    /// Find out what Litestream has sent; ends in [`Event::Measured`].
    MeasureUpload,
    /// Have Litestream, which is stopped, upload a new snapshot, with credentials that come so; ends in
    /// [`Event::Snapshotted`].
    MakeSnapshot(Database, Rotation),
    /// Delete some of the expired rows.
    Prune(Database),
    /// Hold the WAL; ends in [`Event::GuardTaken`].
    TakeGuard(Database),
    /// Release the WAL: Litestream holds it.
    ReleaseGuard(Database),
    /// Release the WAL before Litestream has read it, and empty it; ends in [`Event::WalEmptied`].
    AbandonGuard(Database),
    /// Write to the log.
    Log(Level, String),
    /// End the daemon: everything that had to stop has stopped.
    Exit,
}

/// A database that is not there, or of which nothing is proved, is looked for so often at least.
const SEARCH_PACE: Duration = Duration::from_secs(30);

/// Where uploads come more seldom, it is looked so often how far a WAL has grown.
const WAL_PACE: Duration = Duration::from_secs(600);

/// The state machine.
#[derive(Debug)]
pub struct Agent {
    policy: Policy,
    jitter: Jitter,
    renewal: Renewal,
    /// The thing's place in its fleet.
    phase: u16,
    replicator: Replicator,
    databases: Databases,
    clock: ClockBelief,
    held: Held,
    /// The wall clock minus the boot clock, in seconds, at the last event.
    offset: i64,
    /// When it was last looked for what applications commit.
    looked: Option<BootTime>,
    /// Litestream's configuration names other databases since it was started.
    names_others: bool,
    begun: bool,
    stopping: bool,
    exited: bool,
}

impl Agent {
    /// An agent that has done nothing yet: its first event makes it fetch.
    pub fn new(policy: Policy, seed: u64, now: Now) -> Self {
        Self {
            jitter: Jitter::new(seed),
            renewal: Renewal::new(now.boot),
            phase: 0,
            replicator: Replicator::new(&policy, now.boot),
            databases: Databases::new(&policy.databases, now.boot),
            clock: ClockBelief::default(),
            held: Held::new(now.boot),
            offset: now.offset(),
            looked: None,
            names_others: false,
            begun: false,
            stopping: false,
            exited: false,
            policy,
        }
    }

    /// Handles one event.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        let mut actions = Actions::default();
        let out = &mut actions;
        if !std::mem::replace(&mut self.begun, true) {
            for watched in self.databases.iter() {
                out.push(Action::Recall(watched.id()));
            }
        }
        if self.deadline() + SLEEP < now.boot {
            for watched in self.databases.iter_mut() {
                watched.replica.ledger.excuse(now.boot);
            }
        }
        let offset = std::mem::replace(&mut self.offset, now.offset());
        if offset.saturating_sub(self.offset) > STEP_BACK {
            self.replicator.process.clock_went_back();
        }
        self.take_in(event, now, out);
        self.advance(now, out);
        let has_rows = self.policy.heartbeat.is_some();
        for watched in self.databases.iter_mut() {
            if let Some(age) = watched.replica.ledger.take_ended() {
                self.held.proved(age, now.boot);
            }
            watched.remember(watched.shows_rows(has_rows), out);
        }
        actions.0
    }

    fn take_in(&mut self, event: Event, now: Now, out: &mut Actions) {
        let interval = self.policy.heartbeat;
        let mut turn = Turn {
            databases: &mut self.databases,
            has_rows: interval.is_some(),
            paces: Paces::of(&self.policy, &self.replicator.thrift),
            phase: self.phase,
            renewal: self.renewal.due(),
            jitter: &mut self.jitter,
            now: now.boot,
            out,
        };
        match event {
            Event::Tick => {}
            Event::Fetched(Ok(lease)) => {
                self.clock.compare(now, lease.server_time);
                self.phase = lease.phase;
                let granted = self.renewal.granted(&lease, &self.policy, now, turn.out);
                if let Some(term) = granted.filter(|_| !self.stopping) {
                    self.replicator.renewed(term, &mut turn);
                }
            }
            Event::Fetched(Err(failure)) => {
                self.renewal
                    .failed(failure, turn.jitter, turn.now, turn.out);
            }
            Event::Probed(result) => self.replicator.probed(result, &mut turn),
            Event::Surveyed(database, result) => {
                self.replicator.surveyed(database, result, &mut turn);
            }
            Event::Started(result) => self.replicator.started(result, &mut turn),
            Event::Exited(how) => {
                self.replicator.exited(&how, &mut turn);
                // A guard pins only a WAL that was just written to.
                let rowful = turn
                    .databases
                    .iter()
                    .filter(|w| w.shows_rows(turn.has_rows));
                for watched in rowful.filter(|_| !self.stopping) {
                    turn.out.push(Action::WriteRow(watched.id()));
                }
            }
            Event::Synced(database, result) => {
                if matches!(result, Err(SyncFailure::SessionEnded(_))) {
                    self.renewal.ended_early(turn.now, turn.out);
                }
                self.replicator.synced(database, result, &mut turn);
            }
            Event::Greeted => self.replicator.greeted(),
            Event::Listed(listed) => {
                if self.replicator.process.runs() {
                    turn.databases.listed(listed, turn.now, turn.out);
                    self.replicator.listed(&mut turn);
                }
            }
            Event::StateReset(database, result) => {
                self.replicator.reset(database, result, &mut turn);
            }
            Event::WalEmptied(database, result) => {
                self.replicator.emptied(database, result, &mut turn);
            }
            Event::Understood(named) => {
                let runs = self.replicator.process.runs();
                let are_others = turn.databases.named(named, runs, turn.now, turn.out);
                self.names_others |= runs && are_others;
                self.replicator.understood(&mut turn);
            }
            Event::Reloaded(policy) => {
                let named = std::mem::take(&mut self.names_others);
                let configured = &policy.databases;
                let are_others = turn.databases.configured(configured, turn.now, turn.out);
                let are_others = are_others || policy.litestream != self.policy.litestream;
                turn.has_rows = policy.heartbeat.is_some();
                for watched in turn.databases.iter_mut() {
                    watched.reloaded(turn.has_rows, turn.now);
                }
                turn.paces = Paces::of(&policy, &self.replicator.thrift);
                self.replicator
                    .reloaded(&policy, named || are_others, &mut turn);
                self.policy = policy;
                self.looked = None;
                self.renewal.hasten(now.boot);
            }
            Event::NetworkChanged => {
                self.renewal.network_changed(turn.jitter, turn.now);
                self.replicator.network_changed(&mut turn);
            }
            Event::NetworkBack => {
                if self.replicator.network_is_back(&mut turn) {
                    self.looked = None;
                }
            }
            Event::Metered(is_metered) => {
                if self.replicator.metered(is_metered, &self.policy, &mut turn) {
                    self.looked = None;
                }
            }
            Event::PauseWanted(is_wanted) => {
                if self.replicator.pause(is_wanted, &self.policy, &mut turn) {
                    self.looked = None;
                }
            }
            Event::ClockStepped => {
                turn.out
                    .info(format!("the clock was set: it is {} now", now.wall));
                self.renewal.clock_stepped(turn.now);
                for watched in turn.databases.iter_mut() {
                    watched.replica.hasten(turn.now);
                }
            }
            Event::SyncWanted => {
                for watched in turn.databases.iter_mut().filter(|w| !w.is_away()) {
                    if watched.shows_rows(turn.has_rows) && !self.stopping {
                        turn.out.push(Action::WriteRow(watched.id()));
                    }
                    watched.replica.sync_now(turn.now);
                    watched.restorable.hasten(turn.now);
                }
            }
            Event::Terminate => {
                self.stopping = true;
                self.renewal.stop(turn.out);
                self.replicator.stop(&mut turn);
            }
            Event::Recalled(database, earlier) => {
                let now = turn.now;
                turn.of(database, |watched, _| watched.recalls(earlier, now));
            }
            Event::Inherited(database, age) => {
                let now = turn.now;
                turn.of(database, |watched, _| watched.replica.inherit(age, now));
            }
            Event::Row(database, result) => {
                let now = turn.now;
                turn.of(database, |watched, out| {
                    watched.row(result, interval, now, out);
                });
            }
            Event::DatabaseMissing(database) => {
                let now = turn.now;
                turn.of(database, |watched, out| {
                    watched.is_missing(interval, now, out)
                });
            }
            Event::LastCommit(database, commit) => {
                let now = turn.now;
                turn.of(database, |watched, out| watched.looked(commit, now, out));
            }
            Event::Looked(database, result) => {
                turn.tell(database, |watched, jitter, now, out| {
                    watched.creation.looked(result, jitter, now, out);
                });
            }
            Event::LookedAhead(database, result) => {
                self.replicator.looked_ahead(database, result, &mut turn);
            }
            Event::Planned(database, result) => {
                turn.tell(database, |watched, jitter, now, out| {
                    watched.planned(result, jitter, now, out);
                });
            }
            Event::Verified(database, result) => {
                turn.tell(database, |watched, jitter, now, out| {
                    watched.verified(result, jitter, now, out);
                });
            }
            Event::Complained => {
                for watched in turn.databases.iter_mut() {
                    watched.restorable.suspects(turn.now);
                }
            }
            Event::Measured(sent) => self.replicator.measured(sent.ok(), &mut turn),
            Event::Snapshotted(database, result) => {
                self.replicator.snapshotted(database, result, &mut turn);
            }
            Event::GuardTaken(database, result) => {
                let now = turn.now;
                turn.of(database, |watched, out| {
                    watched.guard_taken(result, now, out)
                });
            }
            Event::WalTooLarge(database) => {
                turn.of(database, |watched, out| watched.wal_is_too_large(out));
            }
        }
    }

    /// Why uploads wait, if they do.
    fn held_back(&self) -> Option<HeldBack> {
        self.replicator.thrift.held_back()
    }

    /// How much may be lost now.
    fn rpo(&self) -> Rpo {
        self.replicator.thrift.rpo(&self.policy)
    }

    /// How old something unproved may be on a healthy device.
    fn bound(&self, now: BootTime) -> Duration {
        self.replicator.thrift.bound(&self.policy, now)
    }

    /// When the passing of time changes something: [`Event::Tick`] is due then.
    pub fn deadline(&self) -> BootTime {
        if self.exited {
            return BootTime::NEVER;
        }
        let guards = self.databases.iter().map(|w| w.guard.deadline());
        self.renewal
            .deadline()
            .min(self.replicator.deadline(&self.databases))
            .min(guards.min().unwrap_or(BootTime::NEVER))
            .min(self.rows_due())
    }

    /// When something is due that concerns rows, and what is committed instead of them.
    fn rows_due(&self) -> BootTime {
        if self.stopping {
            return BootTime::NEVER;
        }
        let rows = self.databases.iter().map(|watched| {
            let own = match watched.watch.rows {
                true => watched.heartbeat.deadline(),
                false => BootTime::NEVER,
            };
            own.min(watched.creation.deadline())
        });
        let looks = match self.looks_for_commits().next() {
            Some(_) => self.look_due(),
            None => BootTime::NEVER,
        };
        rows.min().unwrap_or(BootTime::NEVER).min(looks)
    }

    /// When it is looked for what applications commit. A database that nothing is known of, or that is not
    /// there, is looked for sooner.
    fn look_due(&self) -> BootTime {
        let is_unknown = |w: &Watched| w.is_away() || w.replica.ledger.proof().is_none();
        let pace = match self.databases.iter().any(is_unknown) {
            true => SEARCH_PACE,
            false => WAL_PACE,
        };
        let pace = pace.min(self.rpo().pace());
        self.looked.map_or(BootTime::default(), |at| at + pace)
    }

    /// The databases that show only by their commits that they have something to replicate, because no row
    /// comes in time, and which may not be there at all. Where an upload may wait for longer, each one's WAL
    /// grows meanwhile.
    fn looks_for_commits(&self) -> impl Iterator<Item = Database> {
        let interval = self.policy.heartbeat;
        let pace = self.rpo().pace();
        let in_time = pace <= WAL_PACE && interval.is_some_and(|interval| interval <= pace);
        let silent = move |w: &&Watched| !(in_time && self.shows_rows(w));
        let silent = self.databases.iter().filter(silent);
        let looked = silent.filter(|w| w.follows() || w.replica.ledger.proof().is_none());
        looked.map(|watched| watched.id())
    }

    /// Whether a database is watched.
    pub fn watches(&self, database: Database) -> bool {
        self.databases.get(database).is_some()
    }

    /// What an answer about a database is compared with.
    pub fn known(&self, database: Database) -> Known {
        let watched = self.databases.get(database);
        watched.map_or(Known::default(), |watched| watched.replica.ledger.known())
    }

    /// The number of failed fetches since the last success.
    pub(crate) fn failures_in_a_row(&self) -> usize {
        self.renewal.failures_in_a_row()
    }

    /// The figures of this moment, without allocation.
    pub fn glance(&self, now: Now) -> Glance {
        Glance::of(self, now)
    }

    /// The same as if this database were the only one; `None` if it is not watched.
    pub fn glance_at(&self, database: Database, now: Now) -> Option<Glance> {
        let watched = self.databases.get(database)?;
        Some(Glance::of_one(self, watched, now))
    }

    /// The state for people and programs.
    pub fn report(&self, now: Now) -> Report {
        Report::of(self, now)
    }

    /// Heartbeat rows show what is replicated of it.
    fn shows_rows(&self, watched: &Watched) -> bool {
        watched.shows_rows(self.policy.heartbeat.is_some())
    }

    /// The age of what is not proved, of any database, where that is more than may be lost: an outage is under
    /// way, for the looks and the rows have shown nothing else in all that time.
    fn open_for(&self, now: BootTime) -> Option<Duration> {
        let watched = self.databases.iter().filter(|watched| !watched.is_away());
        let open = watched.map(|watched| watched.replica.ledger.open_for(now));
        open.max().filter(|age| *age > self.rpo().most())
    }

    fn advance_guards(&mut self, now: BootTime, out: &mut Actions) {
        let goes_on = !self.stopping || self.replicator.is_leaving();
        let moved = self.replicator.upload.moved();
        for watched in self.databases.iter_mut() {
            let is_open = self.replicator.leaves_wal_open(&watched.replica);
            let wanted = watched.watch.wal_guard.is_some() && goes_on && is_open;
            watched.advance_guard(wanted, moved, now, out);
        }
    }

    fn advance_rows(&mut self, is_believed: bool, now: BootTime, out: &mut Actions) {
        if self.stopping {
            return;
        }
        let has_credentials = self.renewal.term().is_some_and(|term| now < term.ends);
        let prune = self.policy.prune && is_believed;
        for watched in self.databases.iter_mut() {
            let mut outbox = watched.outbox(out);
            watched
                .creation
                .advance(has_credentials, &mut self.jitter, now, &mut outbox);
            if watched.watch.rows {
                watched
                    .heartbeat
                    .advance(self.policy.heartbeat, prune, now, &mut outbox);
            }
        }
        if self.look_due() <= now {
            let looks: Vec<_> = self
                .looks_for_commits()
                .map(Action::LookForCommit)
                .collect();
            if !looks.is_empty() {
                self.looked = Some(now);
                looks.into_iter().for_each(|look| out.push(look));
            }
        }
    }

    /// Does everything that is due, repeatedly: a turn of the loop leaves nothing due behind.
    fn advance(&mut self, now: Now, out: &mut Actions) {
        let (is_believed, now) = (self.clock.is_believed(now), now.boot);
        loop {
            self.advance_guards(now, out);
            self.renewal.advance(now, out);
            self.replicator.advance(&mut Turn {
                databases: &mut self.databases,
                has_rows: self.policy.heartbeat.is_some(),
                paces: Paces::of(&self.policy, &self.replicator.thrift),
                phase: self.phase,
                renewal: self.renewal.due(),
                jitter: &mut self.jitter,
                now,
                out,
            });
            self.advance_rows(is_believed, now, out);
            // A step that just ended may have left a WAL open.
            self.advance_guards(now, out);
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
