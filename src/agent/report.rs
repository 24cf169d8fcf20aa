//! The agent's state for people and programs: one [`Report`], from which `status` is made.
//!
//! Owns the states and their sentences; `glance` owns the figures. Healthy means that every row older
//! than the bound is proved to be on the replica, and that no other problem is known; every other state
//! gives its reason. Decides nothing.

use std::rc::Rc;
use std::time::Duration;

use super::activity::Activity;
use super::database::Watched;
use super::glance::{Glance, Lag, Proven};
use super::problems::{problems, problems_of, waits_for};
use super::replicator::{HeldBack, NO_REASON, UploadReport};
use super::restorable::Restorability;
use super::verification::Verity;
use super::watch::Database;
use super::{Agent, Now, Rpo, RpoHeld, SupervisorKind};
use crate::clock::BootTime;
use crate::config::Rotation;
use crate::credentials::FailureClass;

/// The whole state at one moment. Durations are relative to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The device's state, and why.
    pub state: State,
    /// The time until the credentials in force expire; `None` if none are valid.
    pub credentials_left: Option<Duration>,
    /// The time to the next renewal; `None` while one is under way or forbidden.
    pub renewal_in: Option<Duration>,
    /// How long an AWS SDK that asks now may use the credentials before it asks again; `None` if there
    /// are none.
    pub told_term: Option<Duration>,
    /// How long the last successful fetch took.
    pub fetch_time: Option<Duration>,
    /// Grants since the start.
    pub granted: u64,
    /// Failures since the start, by class.
    pub failures: Vec<(FailureClass, u64)>,
    /// The last fetch's failure, if it failed.
    pub failure: Option<(FailureClass, String)>,
    /// The supervisor of Litestream.
    pub supervisor: SupervisorKind,
    /// How the last Litestream that was started gets credentials; `None` before the first start.
    pub rotation: Option<Rotation>,
    /// What Litestream does.
    pub replication: Activity,
    /// How long it has done that.
    pub replication_for: Duration,
    /// Litestream's starts since edgerepl's start.
    pub starts: u64,
    /// Hand-overs of newer credentials since the start.
    pub rotations: u64,
    /// From Litestream's last stop until its replica was proved to follow again.
    pub last_gap: Option<Duration>,
    /// The upload that is under way on a line that is slow, and what is said of one that was cut.
    pub upload: Option<UploadReport>,
    /// What a hand-over has cut, and what ends that.
    pub cut: Option<String>,
    /// How much may be lost now.
    pub rpo: Rpo,
    /// Why uploads wait, if they do.
    pub held_back: Option<HeldBack>,
    /// How old something unproved may be on a healthy device.
    pub bound: Duration,
    /// What would have been lost in the last day.
    pub rpo_held: RpoHeld,
    /// The age of the oldest row, of any database, that is not known to be on a replica; without rows, the
    /// possible age of such a transaction. `None` if all are proved.
    pub unproved_for: Option<Duration>,
    /// The databases, the first one of the configuration first.
    pub databases: Vec<DatabaseReport>,
}

/// What can be said of one database.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseReport {
    /// Its number.
    pub database: Database,
    /// Its path.
    pub name: Rc<str>,
    /// Its state.
    pub state: DatabaseState,
    /// What the replica was last proved to hold.
    pub proof: Option<Proven>,
    /// The age of the oldest row that is not known to be on the replica; without rows, the possible age of
    /// such a transaction. `None` if all are proved.
    pub unproved_for: Option<Duration>,
    /// Something is not proved that was committed before somebody asked for a sync.
    pub owes_sync: bool,
    /// The last heartbeat row that is proved, and what the replica may lack.
    pub lag: Option<Lag>,
    /// Rows written since the start.
    pub rows: u64,
    /// The last row's id and age.
    pub last_row: Option<(i64, Duration)>,
    /// How long the WAL guard has held, if it holds.
    pub guard_held: Option<Duration>,
    /// Whether it can be restored.
    pub restore: RestoreReport,
    /// Whether its replica holds its very bytes.
    pub verify: VerifyReport,
}

/// What is known about the restore of a database.
#[derive(Clone, Debug, PartialEq)]
pub struct RestoreReport {
    /// Whether it can be restored.
    pub state: Restorability,
    /// Why that is not so, or not known.
    pub cause: Option<String>,
    /// How long it has been known that it can't.
    pub broken_for: Option<Duration>,
    /// The time since the bucket was looked at.
    pub looked: Option<Duration>,
    /// The time since a plan showed that it can.
    pub planned: Option<Duration>,
}

/// What is known of the bytes of a replica.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifyReport {
    /// Whether it holds the database's.
    pub state: Verity,
    /// The transaction at which the two were last compared, if Litestream named it.
    pub transaction: Option<u64>,
    /// The time since then.
    pub age: Option<Duration>,
    /// Why it does not hold them, or why nothing newer is known.
    pub cause: Option<String>,
}

/// The state of one database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DatabaseState {
    /// Nothing is proved yet.
    Starting,
    /// Every old row is proved.
    Healthy,
    /// The application has written nothing since all was proved.
    Idle,
    /// There is none: its application has to create it, or somebody to restore it.
    Absent,
    /// Something is wrong with it, or with what it shares with the others.
    Unhealthy,
}

impl DatabaseState {
    /// All that was promised of it is so.
    pub const fn is_well(self) -> bool {
        matches!(self, Self::Healthy | Self::Idle)
    }

    /// The word for it in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => State::HEALTHY,
            Self::Idle => "idle",
            Self::Absent => "absent",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The device's state. Healthy needs a proof, every other state a reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// The daemon has just started, and nothing is proved yet.
    Starting(Sentences),
    /// Every promise is kept.
    Healthy(Proven),
    /// Something is wrong.
    Unhealthy(Sentences),
    /// The daemon ends.
    Stopping(Sentences),
}

impl State {
    /// The word for it in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Starting(_) => "starting",
            Self::Healthy(_) => Self::HEALTHY,
            Self::Unhealthy(_) => Self::UNHEALTHY,
            Self::Stopping(_) => "stopping",
        }
    }

    /// The word for health.
    pub(crate) const HEALTHY: &str = "healthy";

    /// The word for its contrary.
    pub(crate) const UNHEALTHY: &str = "unhealthy";

    /// Whether every promise is kept.
    pub const fn is_healthy(&self) -> bool {
        matches!(self, Self::Healthy(_))
    }

    /// Why it is not healthy, for the operator; the first cause first.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        let sentences = match self {
            Self::Healthy(_) => None,
            Self::Starting(why) | Self::Unhealthy(why) | Self::Stopping(why) => Some(why),
        };
        sentences.into_iter().flat_map(Sentences::iter)
    }
}

/// One sentence at least.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sentences {
    first: String,
    others: Vec<String>,
}

impl Sentences {
    fn of(sentences: Vec<String>) -> Option<Self> {
        let mut sentences = sentences.into_iter();
        Some(Self {
            first: sentences.next()?,
            others: sentences.collect(),
        })
    }

    fn one(sentence: impl Into<String>) -> Self {
        Self {
            first: sentence.into(),
            others: Vec::new(),
        }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.first)
            .chain(&self.others)
            .map(String::as_str)
    }
}

impl Report {
    pub(super) fn of(agent: &Agent, time: Now) -> Self {
        let now = time.boot;
        let glance = Glance::of(agent, time);
        let (_, since, _) = agent.replicator.activity(agent.databases.are_replicated());
        Self {
            state: state(agent, &glance, time),
            credentials_left: glance.credentials_left,
            renewal_in: glance.renewal_in,
            told_term: glance.told_term,
            fetch_time: agent.renewal.fetch_time,
            granted: agent.renewal.granted,
            failures: agent
                .renewal
                .failures
                .iter()
                .map(|(class, n)| (*class, *n))
                .collect(),
            failure: agent
                .renewal
                .failure()
                .map(|f| (f.class, f.message.clone())),
            supervisor: agent.policy.supervisor,
            rotation: agent.replicator.process.rotation(),
            replication: glance.replication,
            replication_for: now.since(since),
            starts: agent.replicator.process.starts,
            rotations: agent.replicator.process.rotations,
            last_gap: agent.replicator.last_gap,
            upload: agent.replicator.upload.figures(),
            cut: agent.replicator.upload.cut().map(str::to_owned),
            rpo: agent.rpo(),
            held_back: agent.held_back(),
            bound: agent.bound(now),
            rpo_held: agent.held.figures(agent.open_for(now), now),
            unproved_for: glance.unproved_for,
            databases: agent
                .databases
                .iter()
                .map(|watched| DatabaseReport::of(agent, watched, time))
                .collect(),
        }
    }

    /// The first database of the configuration.
    pub fn first(&self) -> Option<&DatabaseReport> {
        self.databases.first()
    }
}

impl DatabaseReport {
    fn of(agent: &Agent, watched: &Watched, time: Now) -> Self {
        let now = time.boot;
        let glance = Glance::of_one(agent, watched, time);
        let ledger = &watched.replica.ledger;
        let state = if watched.is_away() {
            DatabaseState::Absent
        } else if glance.is_healthy && ledger.is_idle() {
            DatabaseState::Idle
        } else if glance.is_healthy {
            DatabaseState::Healthy
        } else if problems_of(agent, watched, time).next().is_some() {
            DatabaseState::Unhealthy
        } else {
            DatabaseState::Starting
        };
        Self {
            database: watched.id(),
            name: Rc::clone(&watched.watch.name),
            state,
            proof: glance.proof,
            unproved_for: glance.unproved_for,
            owes_sync: watched.replica.owes_sync(),
            lag: glance.lag,
            rows: ledger.rows(),
            last_row: ledger.last_row().map(|(id, at)| (id, now.since(at))),
            guard_held: watched.guard.held_since().map(|since| now.since(since)),
            restore: RestoreReport::of(watched, now),
            verify: VerifyReport::of(watched, now),
        }
    }
}

impl RestoreReport {
    fn of(watched: &Watched, now: BootTime) -> Self {
        let restorable = &watched.restorable;
        let age = |since| now.since(since);
        Self {
            state: restorable.state(),
            cause: restorable.problem(now).map(|why| why.to_string()),
            broken_for: restorable.broken_since().map(age),
            looked: restorable.looked_at().map(age),
            planned: restorable.planned_at().map(age),
        }
    }
}

impl VerifyReport {
    fn of(watched: &Watched, now: BootTime) -> Self {
        let verification = &watched.verification;
        let last = verification.last();
        Self {
            state: verification.state(),
            transaction: last.and_then(|(transaction, _)| transaction),
            age: last.map(|(_, at)| now.since(at)),
            cause: verification.cause(),
        }
    }
}

fn state(agent: &Agent, glance: &Glance, now: Now) -> State {
    if agent.stopping {
        return State::Stopping(Sentences::one("edgerepl was told to end"));
    }
    if let (true, Some(proof)) = (glance.is_healthy, glance.proof) {
        return State::Healthy(proof);
    }
    let sentences = problems(agent, now).map(|problem| problem.to_string());
    match Sentences::of(sentences.collect()) {
        Some(problems) => State::Unhealthy(problems),
        None => State::Starting(Sentences::one(starting(agent))),
    }
}

/// What is not proved yet, and why.
fn starting(agent: &Agent) -> String {
    let mut all = agent.databases.iter();
    let unproved = all.find(|watched| watched.replica.ledger.proof().is_none());
    let why = unproved.map_or(NO_REASON, |watched| waits_for(agent, watched));
    match unproved.filter(|watched| watched.has_siblings) {
        Some(watched) => format!("nothing is proved yet of {}: {why}", watched.watch.name),
        None => format!("edgerepl has just started, and nothing is proved yet: {why}"),
    }
}
