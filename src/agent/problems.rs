//! What is wrong, before it is formatted.
//!
//! Owns the sentence of each problem, and their order. Never allocates if nobody reads them, and
//! decides nothing.

use std::fmt;
use std::time::Duration;

use super::activity::Activity;
use super::database::Watched;
use super::doubt::Doubt;
use super::replica::NO_ANSWER;
use super::replicator::NO_REASON;
use super::{Agent, Now, restorable, verification};
use crate::clock::BootTime;
use crate::credentials::FailureClass;

/// Rows may fail for this long, beside three intervals: most locks are shorter.
const SHORT_TROUBLE: Duration = Duration::from_secs(10);

/// A problem, before it is formatted: a caller that only asks whether there is one pays for no
/// sentence.
pub(super) struct Problem<'a> {
    /// The database that it is about, if it is about one of several.
    of: Option<&'a Watched>,
    what: What<'a>,
}

enum What<'a> {
    /// A problem that already has its sentence.
    Told(&'a str),
    /// No heartbeat row can be written.
    NoRows(&'a str),
    /// Litestream's configuration can't be read, and Litestream has not told what it replicates.
    Unreadable(&'a str),
    /// What has been unproved for too long, and why.
    Unproved(Duration, &'static str, &'a str),
    /// It can't be restored, or that is not known.
    Unrestorable(Doubt<'a, restorable::Fault>),
    /// A restore would give something else, or that is not known.
    Unverified(Doubt<'a, verification::Fault>),
}

impl fmt::Display for Problem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(watched) = self.of.filter(|watched| watched.has_siblings) {
            write!(f, "{}: ", watched.watch.name)?;
        }
        match self.what {
            What::Told(sentence) => f.write_str(sentence),
            What::NoRows(trouble) => write!(f, "no heartbeat row can be written: {trouble}"),
            What::Unrestorable(why) => why.fmt(f),
            What::Unverified(why) => why.fmt(f),
            What::Unreadable(cause) => write!(
                f,
                "it is unknown whether Litestream replicates databases that edgerepl does not watch: {cause}"
            ),
            // The duration is reported elsewhere: this sentence stays the same, unless an upload moves.
            What::Unproved(bound, what, why) => {
                write!(f, "for more than {} s {what}: {why}", bound.as_secs())
            }
        }
    }
}

/// All problems, the first cause first.
pub(super) fn problems(agent: &Agent, now: Now) -> impl Iterator<Item = Problem<'_>> {
    let own = agent
        .databases
        .iter()
        .flat_map(move |watched| own(agent, watched, now));
    shared(agent, now).chain(own)
}

/// Those that concern one database, alone or with others.
pub(super) fn problems_of<'a>(
    agent: &'a Agent,
    watched: &'a Watched,
    now: Now,
) -> impl Iterator<Item = Problem<'a>> {
    shared(agent, now).chain(own(agent, watched, now))
}

fn shared(agent: &Agent, now: Now) -> impl Iterator<Item = Problem<'_>> {
    let is_wrong = agent.clock.is_wrong(now);
    let shared = [
        without_credentials(agent, now.boot),
        is_wrong.then_some(What::Told(
            "the clock is more than 5 min off the provider's, and S3 refuses requests that are \
             15 min off; check time synchronisation",
        )),
        unreadable(agent),
        waits_to_restart(agent),
    ];
    let shared = shared.into_iter().flatten();
    shared.map(|what| Problem { of: None, what })
}

fn own<'a>(agent: &'a Agent, watched: &'a Watched, now: Now) -> impl Iterator<Item = Problem<'a>> {
    let own = [
        watched.creation.trouble().map(What::Told),
        without_rows(agent, watched, now.boot),
        unproved(agent, watched, now.boot),
        watched.restorable.problem(now.boot).map(What::Unrestorable),
        watched.verification.problem(now.boot).map(What::Unverified),
    ];
    let own = own.into_iter().flatten();
    own.map(move |what| Problem {
        of: Some(watched),
        what,
    })
}

fn without_credentials(agent: &Agent, now: BootTime) -> Option<What<'_>> {
    // A start waits for no line.
    let bound = agent.policy.rpo.bound();
    let is_young = agent.databases.iter().all(|watched| {
        let ledger = &watched.replica.ledger;
        ledger.proof().is_none() && ledger.age(now) <= bound
    });
    let ended = agent.renewal.term().is_none_or(|term| term.ends <= now);
    match agent.renewal.failure() {
        // With valid credentials, a network failure is no problem yet.
        Some(failure) if failure.class == FailureClass::Transient && !ended => None,
        Some(failure) => Some(What::Told(&failure.message)),
        None => (ended && !is_young).then_some(What::Told("there are no valid credentials")),
    }
}

fn unreadable(agent: &Agent) -> Option<What<'_>> {
    let cause = agent.databases.unreadable.as_deref()?;
    let untold = !agent.databases.is_told && agent.replicator.process.starts > 0;
    untold.then_some(What::Unreadable(cause))
}

fn waits_to_restart(agent: &Agent) -> Option<What<'_>> {
    match agent.replicator.activity(false) {
        (Activity::WaitingToRestart, _, Some(trouble)) => Some(What::Told(trouble)),
        _ => None,
    }
}

fn without_rows<'a>(agent: &Agent, watched: &'a Watched, now: BootTime) -> Option<What<'a>> {
    let interval = agent.policy.heartbeat.filter(|_| watched.watch.rows)?;
    let (trouble, since) = watched.heartbeat.trouble()?;
    let patience = interval
        .saturating_mul(3)
        .saturating_add(SHORT_TROUBLE)
        .min(agent.bound(now));
    (now.since(since) > patience).then_some(What::NoRows(trouble))
}

fn unproved<'a>(agent: &'a Agent, watched: &'a Watched, now: BootTime) -> Option<What<'a>> {
    if waits_to_restart(agent).is_some() {
        return None;
    }
    let ledger = &watched.replica.ledger;
    let rows = agent.shows_rows(watched);
    let has_proof = ledger.proof().is_some();
    let bound = match has_proof {
        true => agent.bound(now),
        false => agent.policy.rpo.bound(),
    };
    let is_late = |age: Duration| age > bound;
    let what = if ledger.unproved_for(rows, now).is_some_and(is_late) {
        "what was written is not proved to be on the replica"
    } else if !has_proof && is_late(ledger.age(now)) {
        "nothing is proved to be on the replica"
    } else {
        return None;
    };
    Some(What::Unproved(bound, what, waits_for(agent, watched)))
}

/// What the next proof of a database waits for.
pub(super) fn waits_for<'a>(agent: &'a Agent, watched: &'a Watched) -> &'a str {
    if let Some(why) = watched.creation.awaits_others() {
        return why;
    }
    let (activity, _, trouble) = agent.replicator.activity(watched.replica.follows());
    let trouble = watched.trouble.as_deref().or(trouble);
    // Litestream says nothing, and what it does is seen.
    let is_silent = activity == Activity::CatchingUp && trouble.is_none_or(|t| t == NO_ANSWER);
    if let Some(told) = agent.replicator.upload.told().filter(|_| is_silent) {
        return told;
    }
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
