//! The figures of one moment, cheap enough for every turn.
//!
//! Owns the figures that decide about health and credentials, and whether the device is healthy. A
//! report adds the sentences. Never allocates, and decides nothing.

use std::time::Duration;

use super::activity::Activity;
use super::database::Watched;
use super::problems::{problems, problems_of};
use super::renewal::told_term;
use super::{Agent, Now};
use crate::clock::BootTime;
use crate::credentials::FailureClass;
use crate::litestream::answer::Position;

/// The state at one moment, without sentences. Each field has its meaning of [`super::Report`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Glance {
    /// Every promise is kept.
    pub is_healthy: bool,
    /// The time until the credentials in force expire; `None` if none are valid.
    pub credentials_left: Option<Duration>,
    /// The time to the next renewal; `None` while one is under way or forbidden.
    pub renewal_in: Option<Duration>,
    /// How long an AWS SDK that asks now may use the credentials before it asks again.
    pub told_term: Option<Duration>,
    /// Why the last fetch failed, if it did.
    pub failure: Option<FailureClass>,
    /// What Litestream does.
    pub replication: Activity,
    /// What the replica was last proved to hold.
    pub proof: Option<Proven>,
    /// The age of the oldest unproved row; without a heartbeat, of a transaction.
    pub unproved_for: Option<Duration>,
    /// The time since the moment up to which everything that was committed is proved.
    pub covered_for: Option<Duration>,
    /// The last heartbeat row that is proved, and what the replica may lack.
    pub lag: Option<Lag>,
    /// The most that would have been lost in the last day, of any database.
    pub worst_held: Option<Duration>,
    /// What Litestream uploads does not continue its replica, as far as is known.
    pub is_broken: bool,
    /// A restore can't succeed, as far as is known.
    pub is_unrestorable: bool,
    /// Another device is known to write to the same prefix.
    pub is_shared: bool,
}

impl Glance {
    /// Of all databases: the first one's proof and lag, and the worst of the rest.
    pub(super) fn of(agent: &Agent, time: Now) -> Self {
        let all = || agent.databases.iter();
        let is_proved = all().all(|watched| watched.replica.ledger.proof().is_some());
        let is_healthy = !agent.stopping && is_proved && problems(agent, time).next().is_none();
        let unproved = all().filter_map(|watched| unproved_for(agent, watched, time));
        let figures = Self {
            is_healthy,
            unproved_for: unproved.max(),
            is_broken: all().any(|watched| watched.replica.ledger.is_broken()),
            is_unrestorable: all().any(|watched| watched.restorable.is_broken()),
            is_shared: all().any(|watched| watched.restorable.is_shared()),
            ..Self::shared(agent, agent.databases.are_replicated(), time)
        };
        match all().next() {
            Some(first) => figures.with_proof(first, time.boot),
            None => figures,
        }
    }

    /// As if there were one database alone.
    pub(super) fn of_one(agent: &Agent, watched: &Watched, time: Now) -> Self {
        let ledger = &watched.replica.ledger;
        let is_well = problems_of(agent, watched, time).next().is_none();
        Self {
            is_healthy: !agent.stopping && ledger.proof().is_some() && is_well,
            unproved_for: unproved_for(agent, watched, time),
            is_broken: ledger.is_broken(),
            is_unrestorable: watched.restorable.is_broken(),
            is_shared: watched.restorable.is_shared(),
            ..Self::shared(agent, watched.replica.follows(), time)
        }
        .with_proof(watched, time.boot)
    }

    fn shared(agent: &Agent, follow: bool, time: Now) -> Self {
        let now = time.boot;
        let renewal_in = agent.renewal.due().map(|due| due.since(now));
        let term = agent.renewal.term();
        let credentials_left = term
            .map(|term| term.ends.since(now))
            .filter(|left| !left.is_zero());
        let (replication, ..) = agent.replicator.activity(follow);
        Self {
            is_healthy: false,
            credentials_left,
            renewal_in,
            told_term: credentials_left.map(|left| told_term(left, renewal_in.unwrap_or_default())),
            failure: agent.renewal.failure().map(|failure| failure.class),
            replication,
            proof: None,
            unproved_for: None,
            covered_for: None,
            lag: None,
            worst_held: agent.held.worst(agent.open_for(now), now),
            is_broken: false,
            is_unrestorable: false,
            is_shared: false,
        }
    }

    fn with_proof(self, watched: &Watched, now: BootTime) -> Self {
        let ledger = &watched.replica.ledger;
        Self {
            proof: ledger.proof().map(|proof| Proven {
                position: proof.position,
                age: now.since(proof.at),
            }),
            covered_for: ledger.covered().map(|at| now.since(at)),
            lag: ledger.proof().and_then(|proof| {
                let row = proof.row?;
                let rows = ledger.rows() - row.number;
                let time = match rows {
                    0 => Duration::ZERO,
                    _ => now.since(proof.asked),
                };
                Some(Lag {
                    row: row.id,
                    rows,
                    time,
                })
            }),
            ..self
        }
    }
}

/// The age of what is unproved of a database.
fn unproved_for(agent: &Agent, watched: &Watched, time: Now) -> Option<Duration> {
    let ledger = &watched.replica.ledger;
    ledger.unproved_for(agent.shows_rows(watched), time.boot)
}

/// What the replica was proved to hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Proven {
    /// The replica's last transaction, and Litestream's.
    pub position: Position,
    /// The time since that proof.
    pub age: Duration,
}

/// How far the replica may be behind, by the last row that is known to be in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lag {
    /// That row's id.
    pub row: i64,
    /// The number of rows written after it.
    pub rows: u64,
    /// The time since the replica held everything; zero if it still does.
    pub time: Duration,
}
