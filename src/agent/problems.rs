//! What is wrong, before it is put into words.
//!
//! Owns the sentences of all that may be wrong, and their order. Never allocates where nobody reads them,
//! and decides nothing.

use std::fmt;
use std::time::Duration;

use super::activity::Activity;
use super::proof::BOUND;
use super::replicator::NO_REASON;
use super::{Agent, Now};
use crate::clock::BootTime;
use crate::credentials::FailureClass;

/// Most locks are shorter: beside three rows that are missing, nobody is told before.
const SHORT_TROUBLE: Duration = Duration::from_secs(10);

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
    let ledger = &agent.replicator.replica.ledger;
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
    let untold = agent.listed.is_none() && agent.replicator.process.starts > 0;
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

/// What stands between the device and its next proof.
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
