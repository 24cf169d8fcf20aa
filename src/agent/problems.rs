//! What is wrong, before it is formatted.
//!
//! Owns the sentence of each problem, and their order. Never allocates if nobody reads them, and
//! decides nothing.

use std::fmt;
use std::time::Duration;

use super::activity::Activity;
use super::proof::BOUND;
use super::replicator::NO_REASON;
use super::{Agent, Now};
use crate::clock::BootTime;
use crate::credentials::FailureClass;

/// Rows may fail for this long, beside three intervals: most locks are shorter.
const SHORT_TROUBLE: Duration = Duration::from_secs(10);

/// A problem, before it is formatted: a caller that only asks whether there is one pays for no
/// sentence.
pub(super) enum Problem<'a> {
    /// A problem that already has its sentence.
    Told(&'a str),
    /// No heartbeat row can be written.
    NoRows(&'a str),
    /// Litestream replicates databases that edgerepl does not watch.
    Unwatched(&'a Agent),
    /// Litestream's configuration can't be read, so unwatched databases are unknown.
    Unreadable(&'a str),
    /// What has been unproved for too long, and why.
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
            // The duration is reported elsewhere: this sentence stays the same, so it is logged once.
            Self::Unproved(what, why) => {
                write!(f, "for more than {} s {what}: {why}", BOUND.as_secs())
            }
        }
    }
}

/// All problems, the first cause first.
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
    let ledger = &agent.replicator.replica.ledger;
    let is_young = ledger.proof().is_none() && ledger.age(now) <= BOUND;
    let ended = agent.renewal.term().is_none_or(|term| term.ends <= now);
    match agent.renewal.failure() {
        // With valid credentials, a network failure is no problem yet.
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
    let untold = agent.listed.is_none() && agent.replicator.process.starts > 0;
    untold.then_some(Problem::Unreadable(cause))
}

/// Databases that Litestream replicates and edgerepl does not watch, by configuration and by its list.
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
    let ledger = &agent.replicator.replica.ledger;
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

/// What the next proof waits for.
pub(super) fn waits_for(agent: &Agent) -> &str {
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
