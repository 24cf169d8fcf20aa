//! The figures of one moment, for whoever looks at every turn.
//!
//! Owns the figures that health and credentials are judged by, and whether all is well. A report adds
//! the words to it. Never allocates, and decides nothing.

use std::time::Duration;

use super::renewal::told_term;
use super::report::{Lag, Proven, problems};
use super::{Activity, Agent, Now};
use crate::credentials::FailureClass;

/// What is known at one moment, without a word. Each field means what it means in [`super::Report`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Glance {
    /// All that was promised is so.
    pub is_healthy: bool,
    /// The time to the end of the credentials in force; `None` where there are none that are valid.
    pub credentials_left: Option<Duration>,
    /// The time to the next renewal; `None` while one is under way or forbidden.
    pub renewal_in: Option<Duration>,
    /// For how long an AWS SDK that asks now may use the credentials before it asks again.
    pub told_term: Option<Duration>,
    /// Why the last fetch failed, unless it succeeded.
    pub failure: Option<FailureClass>,
    /// What Litestream does.
    pub replication: Activity,
    /// What the replica was last seen to hold.
    pub proof: Option<Proven>,
    /// How old the oldest row is that is not proved; without a heartbeat, a transaction.
    pub unproved_for: Option<Duration>,
    /// The heartbeat row that the replica is known to hold, and what it may lack.
    pub lag: Option<Lag>,
}

impl Glance {
    pub(super) fn of(agent: &Agent, time: Now) -> Self {
        let now = time.boot;
        let renewal_in = agent.renewal.due().map(|due| due.since(now));
        let term = agent.renewal.term();
        let credentials_left = term
            .map(|term| term.ends.since(now))
            .filter(|left| !left.is_zero());
        let ledger = &agent.replicator.ledger;
        let (replication, ..) = agent.replicator.activity();
        Self {
            is_healthy: !agent.stopping
                && ledger.proof().is_some()
                && problems(agent, time).next().is_none(),
            credentials_left,
            renewal_in,
            told_term: credentials_left.map(|left| told_term(left, renewal_in.unwrap_or_default())),
            failure: agent.renewal.failure().map(|failure| failure.class),
            replication,
            proof: ledger.proof().map(|proof| Proven {
                position: proof.position,
                age: now.since(proof.at),
            }),
            unproved_for: ledger.unproved_for(agent.policy.heartbeat.is_some(), now),
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
        }
    }
}
