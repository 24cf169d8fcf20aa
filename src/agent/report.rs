//! What the agent knows, for people and programs: one [`Report`], from which `status` is made.
//!
//! Owns the states and their sentences; the figures are `glance`'s. Healthy means that no row is older
//! than the bound that is not proved to be on the replica, and that nothing else is known to be wrong;
//! every other state says why. Decides nothing.

use std::fmt;
use std::time::Duration;

use super::glance::Glance;
use super::proof::BOUND;
use super::replicator::NO_REASON;
use super::{Activity, Agent, Delivery, Now, Position, SupervisorKind};
use crate::clock::BootTime;
use crate::credentials::FailureClass;

/// Most locks are shorter: beside three rows that are missing, nobody is told before.
const SHORT_TROUBLE: Duration = Duration::from_secs(10);

/// All that can be said at one moment. Durations count back or forth from then.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// How the device fares, and why.
    pub state: State,
    /// The time to the end of the credentials in force; `None` where there are none that are valid.
    pub credentials_left: Option<Duration>,
    /// The time to the next renewal; `None` while one is under way or forbidden.
    pub renewal_in: Option<Duration>,
    /// For how long an AWS SDK that asks now may use the credentials before it asks again; `None`
    /// where there are none.
    pub told_term: Option<Duration>,
    /// What the last fetch that gave credentials took.
    pub fetch_time: Option<Duration>,
    /// Grants since the start.
    pub granted: u64,
    /// Failures since the start, by class.
    pub failures: Vec<(FailureClass, u64)>,
    /// The last fetch's failure, unless it succeeded.
    pub failure: Option<(FailureClass, String)>,
    /// Who runs Litestream.
    pub supervisor: SupervisorKind,
    /// How the Litestream that was last started comes by credentials; `None` before any was.
    pub delivery: Option<Delivery>,
    /// What Litestream does.
    pub replication: Activity,
    /// For how long it has.
    pub replication_for: Duration,
    /// Litestream's starts since edgerepl's start.
    pub starts: u64,
    /// Hand-overs of newer credentials since the start.
    pub rotations: u64,
    /// From Litestream's last stop until its replica was seen to follow again.
    pub last_gap: Option<Duration>,
    /// What the replica was last seen to hold.
    pub proof: Option<Proven>,
    /// How old the oldest row is that no replica is known to hold; without a heartbeat, how old a
    /// transaction may be that none holds. `None` where all are proved.
    pub unproved_for: Option<Duration>,
    /// The heartbeat row that the replica is known to hold, and what it may lack.
    pub lag: Option<Lag>,
    /// Rows written since the start.
    pub rows: u64,
    /// The last row's id and age.
    pub last_row: Option<(i64, Duration)>,
    /// For how long the WAL guard has held, where it does.
    pub guard_held: Option<Duration>,
}

/// How far the replica may be behind, by the last row that is known to be in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lag {
    /// That row's id.
    pub row: i64,
    /// How many rows were written after it.
    pub rows: u64,
    /// The time since the replica held all that there was; zero where it still does.
    pub time: Duration,
}

/// What the replica was shown to hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Proven {
    /// Its last transaction, and Litestream's.
    pub position: Position,
    /// How long ago that was shown.
    pub age: Duration,
}

/// How the device fares. There is no health without a proof, and no other state without a reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// It has just started, and nothing is proved yet.
    Starting(Sentences),
    /// All that was promised is so.
    Healthy(Proven),
    /// Something is not as it should be.
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
            Self::Unhealthy(_) => "unhealthy",
            Self::Stopping(_) => "stopping",
        }
    }

    /// The word for health.
    pub(crate) const HEALTHY: &str = "healthy";

    /// Whether all that was promised is so.
    pub const fn is_healthy(&self) -> bool {
        matches!(self, Self::Healthy(_))
    }

    /// Why it is not: for whoever has to mend it, the first cause first.
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
        let (_, since, _) = agent.replicator.activity();
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
            delivery: agent.replicator.delivery(),
            replication: glance.replication,
            replication_for: now.since(since),
            starts: agent.replicator.starts,
            rotations: agent.replicator.rotations,
            last_gap: agent.replicator.last_gap,
            proof: glance.proof,
            unproved_for: glance.unproved_for,
            lag: glance.lag,
            rows: agent.heartbeat.rows,
            last_row: agent.heartbeat.last.map(|(id, at)| (id, now.since(at))),
            guard_held: agent.guard.held_since().map(|since| now.since(since)),
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
        None => State::Starting(Sentences::one(format!(
            "edgerepl has just started, and nothing is proved yet: {}",
            waits_for(agent)
        ))),
    }
}

/// Something that is wrong, before it is put into words: whoever asks only whether there is anything
/// pays for no sentence.
pub(super) enum Problem<'a> {
    /// What was told in these words.
    Told(&'a str),
    /// No heartbeat row can be written.
    NoRows(&'a str),
    /// Litestream replicates what nobody looks at.
    Unwatched(&'a Agent),
    /// Nobody can tell whether it does.
    Unreadable(&'a str),
    /// What is not proved, and has not been for too long; and why.
    Unproved(&'static str, &'a str),
}

impl fmt::Display for Problem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told(sentence) => f.write_str(sentence),
            Self::NoRows(trouble) => write!(f, "no heartbeat row can be written: {trouble}"),
            Self::Unwatched(agent) => write!(
                f,
                "Litestream replicates {} too, which edgerepl neither guards nor proves; leave only the \
                 database of [database] path in Litestream's configuration",
                unwatched(agent).collect::<Vec<_>>().join(" and ")
            ),
            Self::Unreadable(cause) => write!(
                f,
                "nobody can tell whether Litestream replicates other databases, too: {cause}"
            ),
            // How long stands beside it: a sentence that is the same is not told twice.
            Self::Unproved(what, why) => {
                write!(f, "for more than {} s {what}: {why}", BOUND.as_secs())
            }
        }
    }
}

/// All that is wrong, the first cause first.
pub(super) fn problems(agent: &Agent, now: Now) -> impl Iterator<Item = Problem<'_>> {
    [
        without_credentials(agent, now.boot),
        agent.clock.is_wrong(now).then_some(Problem::Told(
            "the clock is more than 5 min off the provider's, and S3 refuses requests that are \
             15 min off; check time synchronisation",
        )),
        agent.creation.trouble().map(Problem::Told),
        without_rows(agent, now.boot),
        unwatched_or_unreadable(agent),
        unproved(agent, now.boot),
    ]
    .into_iter()
    .flatten()
}

fn without_credentials(agent: &Agent, now: BootTime) -> Option<Problem<'_>> {
    let ledger = &agent.replicator.ledger;
    let is_young = ledger.proof().is_none() && ledger.age(now) <= BOUND;
    let ended = agent.renewal.term().is_none_or(|term| term.ends <= now);
    match agent.renewal.failure() {
        // The network may fail for a while without anybody having to know.
        Some(failure) if failure.class == FailureClass::Transient && !ended => None,
        Some(failure) => Some(Problem::Told(&failure.message)),
        None => (ended && !is_young).then_some(Problem::Told("there are no valid credentials")),
    }
}

fn without_rows(agent: &Agent, now: BootTime) -> Option<Problem<'_>> {
    let interval = agent.policy.heartbeat?;
    let (trouble, since) = agent.heartbeat.trouble()?;
    let patience = interval
        .saturating_mul(3)
        .saturating_add(SHORT_TROUBLE)
        .min(BOUND);
    (now.since(since) > patience).then_some(Problem::NoRows(trouble))
}

fn unwatched_or_unreadable(agent: &Agent) -> Option<Problem<'_>> {
    if unwatched(agent).next().is_some() {
        return Some(Problem::Unwatched(agent));
    }
    let cause = agent.unreadable.as_deref()?;
    let untold = agent.listed.is_none() && agent.replicator.starts > 0;
    untold.then_some(Problem::Unreadable(cause))
}

/// What Litestream replicates that nobody looks at, by its configuration and by itself.
fn unwatched(agent: &Agent) -> impl Iterator<Item = &str> {
    let listed = agent.listed.as_deref().unwrap_or_default();
    let unlisted = listed.iter().filter(|name| !agent.unwatched.contains(name));
    let others = agent.unwatched.iter().chain(unlisted);
    others.map(String::as_str)
}

fn unproved(agent: &Agent, now: BootTime) -> Option<Problem<'_>> {
    if let (Activity::WaitingToRestart, _, Some(trouble)) = agent.replicator.activity() {
        return Some(Problem::Told(trouble));
    }
    let ledger = &agent.replicator.ledger;
    let rows = agent.policy.heartbeat.is_some();
    let is_late = |age: Duration| age > BOUND;
    let what = if ledger.unproved_for(rows, now).is_some_and(is_late) {
        "what was written is not proved to be on the replica"
    } else if ledger.proof().is_none() && is_late(ledger.age(now)) {
        "nothing is proved to be on the replica"
    } else {
        return None;
    };
    Some(Problem::Unproved(what, waits_for(agent)))
}

/// What stands between the device and its next proof.
fn waits_for(agent: &Agent) -> &str {
    let (activity, _, trouble) = agent.replicator.activity();
    match (activity, trouble) {
        (Activity::WaitingForCredentials, _) => "there are no credentials to start Litestream with",
        (_, Some(trouble)) => trouble,
        (Activity::Starting | Activity::Stopping | Activity::WaitingToRestart, None) => {
            "Litestream is about to start"
        }
        (Activity::Resetting, None) => "Litestream's local state is dropped",
        (Activity::CatchingUp, None) => "Litestream was asked, and has not confirmed it yet",
        (Activity::Replicating | Activity::Stopped, None) => NO_REASON,
    }
}
