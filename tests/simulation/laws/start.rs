//! Laws of Litestream's starts and stops, while the daemon goes on.

use std::time::Duration;

use edgerepl::agent::{Action, Activity, Event};
use edgerepl::litestream::answer::SyncFailure;

use super::{Law, Past, Step, Time, Verdict, follows};

/// A Litestream that does not follow is restarted after 6 min, or 90 s where it hangs, and again after an
/// hour, less what the row and the sync before a stop may take.
const RESCUE_LIMIT: Duration = Duration::from_secs(360);
/// A look may show an idle database while a question about it has no answer yet.
const QUESTION: Duration = Duration::from_secs(20);
const HUNG_RESCUE_LIMIT: Duration = Duration::from_secs(90);
const RESCUE_PACE: Duration = Duration::from_secs(3600 - 4);

/// It hangs if it does not answer within this.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// No two Litestreams of ours write to one replica.
#[derive(Debug, Default)]
pub(super) struct OneLitestream;

impl Law for OneLitestream {
    const NAME: &'static str = "one Litestream at a time";

    fn applies(&self, past: &Past) -> bool {
        past.sight.litestream_is_child
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Action(Action::Start(_)) if self.applies(past) => Verdict::is_kept(
                !past.sight.litestream_is_up,
                "two Litestreams on one database",
            ),
            _ => Verdict::Silent,
        }
    }
}

/// Litestream is started with credentials that are in force.
#[derive(Debug, Default)]
pub(super) struct LiveCredentials;

impl Law for LiveCredentials {
    const NAME: &'static str = "no start with credentials that have ended";

    fn applies(&self, _: &Past) -> bool {
        true
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Action(Action::Start(_)) => {
                Verdict::of(past.time < past.sight.granted_until, || {
                    format!("they ended at {:?}", past.sight.granted_until)
                })
            }
            _ => Verdict::Silent,
        }
    }
}

/// One restart a rotation, and none where Litestream asks by itself; but one that does not follow is
/// restarted after a while, and seldom again, and one for which there is another database at once, and one
/// beside which no snapshot can be made.
/// What does not follow and what hangs have an hour each: which of them a restart was for, the agent alone
/// knows, and two in an hour are one of each at the most.
#[derive(Debug, Default)]
pub(super) struct ReasonToStop {
    /// The grant that Litestream was last stopped for.
    stopped_for: u64,
    /// What runs before was started by an earlier run of edgerepl, and gets a start of this one.
    started: Option<Time>,
    /// When it was last asked for an answer that it owes still.
    owes: Option<Time>,
    /// Up to when all were shown to be followed, as of before the last row and sync.
    followed: Time,
    /// When it was restarted the last but one time, and the last, because it did not follow.
    rescued: [Option<Time>; 2],
}

impl Law for ReasonToStop {
    const NAME: &'static str = "one restart a rotation, none where it asks";

    fn applies(&self, past: &Past) -> bool {
        past.end_asked.is_none() && !past.sight.any_is_hurt
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Event(Event::Started(Ok(()))) => {
                self.started = Some(past.time);
                self.owes = None;
            }
            Step::Action(Action::Greet)
            | Step::Event(Event::Synced(_, Err(SyncFailure::NoSocket))) => {
                self.owes = self.owes.or(Some(past.time));
            }
            Step::Event(Event::Greeted) => self.owes = None,
            Step::Look(glance) => {
                if follows(glance) {
                    self.rescued = [None; 2];
                }
                if glance.replication != Activity::Stopping {
                    self.followed = past.sight.least_followed;
                }
            }
            Step::Action(action) if self.applies(past) && stops(action, past) => {
                return self.stopped(past);
            }
            _ => {}
        }
        Verdict::Silent
    }
}

impl ReasonToStop {
    fn stopped(&mut self, past: &Past) -> Verdict {
        let Some(started) = self.started else {
            self.stopped_for = past.grants;
            return Verdict::Kept;
        };
        let [last_but_one, last] = self.rescued;
        let rescued = last_but_one.map_or(Duration::ZERO, |at| at + RESCUE_PACE);
        let limit = match self
            .owes
            .is_some_and(|asked| past.time - asked >= GREETING_LIMIT)
        {
            true => HUNG_RESCUE_LIMIT,
            false => RESCUE_LIMIT,
        };
        let seen = started.max(self.followed.saturating_sub(QUESTION)) + limit;
        let is_rescue = past.time >= rescued.max(seen);
        // It reads its configuration at a start alone.
        let serves_another = past.sight.set_changed >= started;
        let asks = past.sight.litestream_asks;
        let is_again = past.grants == self.stopped_for;
        let mends = past.sight.any_awaits_snapshot;
        if is_rescue && !mends && (asks || is_again) {
            // It was decided before a sleep, perhaps, from which the hour counts.
            let awake = past.slept_until + Duration::from_secs(60);
            self.rescued = match past.time > awake {
                true => [last, Some(past.time)],
                false => [None; 2],
            };
        }
        self.stopped_for = past.grants;
        Verdict::of(
            is_rescue || serves_another || mends || !asks && !is_again,
            || match asks {
                true => "it asks for new credentials by itself, and was stopped".to_owned(),
                false => "it was stopped a second time for the same credentials".to_owned(),
            },
        )
    }
}

/// Litestream is not stopped where there is nothing to start it with: what runs is better than nothing.
#[derive(Debug, Default)]
pub(super) struct CanStartAgain;

impl Law for CanStartAgain {
    const NAME: &'static str = "no stop with nothing to start again with";

    fn applies(&self, past: &Past) -> bool {
        past.end_asked.is_none() && !past.sight.any_is_hurt
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Action(action) if self.applies(past) && stops(action, past) => Verdict::of(
                past.time < past.sight.granted_until || past.time == past.slept_until,
                || format!("they ended at {:?}", past.sight.granted_until),
            ),
            _ => Verdict::Silent,
        }
    }
}

/// Litestream is not started on a WAL that was begun anew while it was down, which it takes for the one
/// that it knows: what was in the old one would be on no replica.
/// Where other databases would wait for ever, or the replica is known to be wrong anyway, it is; and what
/// comes of that is known to be wrong.
#[derive(Debug, Default)]
pub(super) struct KnownWal {
    is_given_up: bool,
}

impl Law for KnownWal {
    const NAME: &'static str = "no start on a WAL that it passes over";

    fn applies(&self, past: &Past) -> bool {
        !past.sight.litestream_is_up
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Action(Action::Start(_)) => {
                self.is_given_up = past.sight.wal_is_passed_over;
                let is_wrong = past.glance.is_some_and(|glance| glance.is_broken);
                match self.is_given_up && (past.sight.has_siblings || is_wrong) {
                    true => Verdict::Silent,
                    false => Verdict::is_kept(!self.is_given_up, PASSES_OVER),
                }
            }
            Step::Look(glance) if std::mem::take(&mut self.is_given_up) => {
                Verdict::is_kept(glance.is_broken, PASSES_OVER)
            }
            _ => Verdict::Silent,
        }
    }
}

const PASSES_OVER: &str = "Litestream takes the WAL for the one that it knows";

/// Litestream is about to be stopped by us: systemd stops it with the start that comes after a look.
pub(super) fn stops(action: &Action, past: &Past) -> bool {
    match action {
        Action::Survey(_) => past.sight.litestream_is_up && !past.is_about_to_stop,
        Action::Terminate => past.end_asked.is_none() && !past.sight.stop_was_asked,
        _ => false,
    }
}
