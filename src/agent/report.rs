//! What the agent knows, for people and programs: one [`Report`], from which `status` is made.
//!
//! Owns the definition of healthy: nothing is in the list of problems. Decides nothing.

use std::time::Duration;

use super::renewal::{FETCH_LIMIT, told_term};
use super::replicator::{NO_REASON, PROOF_LIMIT};
use super::{Activity, Agent, Delivery, Now, Position, SupervisorKind};
use crate::clock::BootTime;
use crate::credentials::FailureClass;

/// A device that has just started is given so long before what is missing is a problem.
const START_LIMIT: Duration = Duration::from_secs(60);

/// All that can be said at one moment. Durations count back or forth from then.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The one word for it.
    pub state: State,
    /// Why the state is not healthy: sentences for whoever has to mend it.
    pub problems: Vec<String>,
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
    /// What the replica was last seen to hold, and how long ago.
    pub proof: Option<(Position, Duration)>,
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

/// How the device fares.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// It has just started and is not complete yet.
    Starting,
    /// All that was promised is so.
    Healthy,
    /// Something is not as it should be.
    Unhealthy,
    /// The daemon ends.
    Stopping,
}

impl State {
    /// The word for it in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Stopping => "stopping",
        }
    }
}

impl Report {
    pub(super) fn of(agent: &Agent, now: Now) -> Self {
        let now = now.boot;
        let left = agent
            .renewal
            .term()
            .map(|term| term.ends.since(now))
            .filter(|l| !l.is_zero());
        let (replication, since, _) = agent.replicator.activity();
        let problems = problems(agent, now);
        let young = now.since(agent.heartbeat.began) < START_LIMIT;
        let usable = left.is_some() && agent.replicator.runs_with_credentials(now);
        // A hand-over is no illness, unless what it replaces had ended before.
        let complete =
            usable && (replication == Activity::Replicating || agent.replicator.proof.is_some());
        let state = match () {
            () if agent.stopping => State::Stopping,
            () if !problems.is_empty() => State::Unhealthy,
            () if complete => State::Healthy,
            () if young => State::Starting,
            () => State::Unhealthy,
        };
        Self {
            state,
            problems,
            credentials_left: left,
            renewal_in: agent.renewal.due().map(|due| due.since(now)),
            told_term: left.map(|left| {
                let due = agent
                    .renewal
                    .due()
                    .map_or(Duration::ZERO, |at| at.since(now));
                told_term(left, due)
            }),
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
            replication,
            replication_for: now.since(since),
            starts: agent.replicator.starts,
            rotations: agent.replicator.rotations,
            last_gap: agent.replicator.last_gap,
            proof: agent
                .replicator
                .proof
                .map(|p| (p.position, now.since(p.at))),
            lag: agent.replicator.proof.and_then(|proof| {
                let row = proof.row?;
                let rows = agent.replicator.rows() - row.number;
                let time = match rows {
                    0 => Duration::ZERO,
                    _ => now.since(row.asked),
                };
                Some(Lag {
                    row: row.id,
                    rows,
                    time,
                })
            }),
            rows: agent.heartbeat.rows,
            last_row: agent.heartbeat.last.map(|(id, at)| (id, now.since(at))),
            guard_held: agent.guard.held_since().map(|since| now.since(since)),
        }
    }
}

fn problems(agent: &Agent, now: BootTime) -> Vec<String> {
    let mut problems = Vec::new();
    let young = now.since(agent.heartbeat.began) < START_LIMIT;
    let ended = agent.renewal.term().is_none_or(|term| term.ends <= now);
    match agent.renewal.failure() {
        // The network may fail for a while without anybody having to know.
        Some(failure) if failure.class == FailureClass::Transient && !ended => {}
        Some(failure) => problems.push(failure.message.clone()),
        None if ended && !young => problems.push("there are no valid credentials".to_owned()),
        None => {}
    }
    let (activity, since, trouble) = agent.replicator.activity();
    match (activity, trouble) {
        (Activity::Replicating | Activity::WaitingForCredentials | Activity::Stopped, _) => {}
        (Activity::WaitingToRestart, Some(trouble)) => problems.push(trouble.to_owned()),
        (_, trouble) if now.since(since) > PROOF_LIMIT + FETCH_LIMIT / 3 => {
            let cause = trouble.unwrap_or(NO_REASON);
            problems.push(format!(
                "the replica has not followed since the last start: {cause}"
            ));
        }
        _ => {}
    }
    problems.extend(agent.creation.trouble().map(str::to_owned));
    if let Some(interval) = agent.policy.heartbeat {
        let last = agent
            .heartbeat
            .last
            .map_or(agent.heartbeat.began, |(_, at)| at);
        if let Some(trouble) = &agent.heartbeat.trouble
            && now.since(last) > interval * 3 + Duration::from_secs(10)
        {
            problems.push(format!("no heartbeat row can be written: {trouble}"));
        }
    }
    if !agent.unwatched.is_empty() {
        problems.push(format!(
            "Litestream replicates {} too, which edgerepl neither guards nor proves; leave only the \
             database of [database] path in Litestream's configuration",
            agent.unwatched.join(" and ")
        ));
    }
    if agent.clock.is_wrong() {
        problems.push(
            "the clock is more than 5 min off the provider's, and S3 refuses requests that are \
             15 min off; check time synchronisation"
                .to_owned(),
        );
    }
    problems
}
