//! Laws of the verifies, which compare the bytes of a replica with its database, and of what follows from
//! them.
//!
//! Owns what verifies have shown. A new snapshot is also made of a chain that is broken, of which
//! `restorable` knows.

use std::time::Duration;

use edgerepl::agent::{Action, DatabaseReport, Event, Glance, NotVerified, Verity};

use super::restorable::{MEND_RETRY, MendWay, Stopping};
use super::{Law, Past, Step, Time, Verdict, follows};

/// One may take so long.
const LIMIT: Duration = Duration::from_secs(6 * 3600);

/// After a new snapshot, and where an earlier run saw a difference, the next one is due so soon, or within a
/// pace.
const SOON: Duration = Duration::from_secs(180);

/// One that failed is tried again so soon, or within a pace; over a mobile link, too.
const RETRY: Duration = Duration::from_secs(4 * 3600);
const METERED_RETRY: Duration = Duration::from_secs(3600);

/// Twice in a row a hand-over may be near when one is due, which puts it off.
const NEAR: Duration = Duration::from_secs(2 * 180 + 60);

/// What verifies have shown of a database.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// The pace that the agent was told of.
    pace: Option<Duration>,
    /// The last verify, or what an earlier run left, showed other bytes.
    differs: bool,
    /// Since a new snapshot has to be made: a verify of this run showed other bytes.
    unmended: Option<Time>,
    /// A new snapshot was made since the verify began that is under way.
    is_overtaken: bool,
    /// When the last verify failed, if none showed anything since.
    failed: Option<Time>,
    /// When the next one is due; unknown before one could be made in this run.
    due: Option<Time>,
    /// Since when Litestream is being stopped, and what was then.
    stopping: Option<Stopping>,
    /// No snapshot for this reason begins before.
    next: Time,
}

impl Compared {
    /// Nothing is known, at this pace.
    pub(super) fn at(pace: Option<Duration>) -> Self {
        Self {
            pace,
            ..Self::default()
        }
    }

    pub(super) fn hear(&mut self, event: &Event, time: Time) {
        match event {
            Event::Recalled(_, earlier) => {
                *self = Self {
                    differs: earlier.differs && self.pace.is_some(),
                    stopping: self.stopping,
                    ..Self::at(self.pace)
                };
            }
            Event::Reloaded(policy) => self.is_told(policy.verify, time),
            Event::Verified(_, Ok(verified)) => {
                self.failed = None;
                self.differs = !verified.holds;
                // What it saw may be over: the next one shows it.
                let awaits = self.differs && !self.is_overtaken;
                self.unmended = awaits.then(|| self.unmended.unwrap_or(time));
                let soon = self.differs && self.is_overtaken;
                self.due = self.pace.map(|pace| match soon {
                    true => time + pace.min(SOON),
                    false => time + pace,
                });
            }
            Event::Verified(_, Err(NotVerified::Metered(_))) => self.retries(METERED_RETRY, time),
            Event::Verified(_, Err(NotVerified::Failed(_))) => self.fails(time),
            // The next verify shows whether that mended it.
            Event::Snapshotted(_, Ok(())) => {
                self.unmended = None;
                self.is_overtaken = true;
                if self.differs {
                    self.due = self.pace.map(|pace| time + pace.min(SOON));
                }
            }
            Event::Snapshotted(_, Err(_)) => self.snapshot_fails(time),
            _ => {}
        }
    }

    pub(super) fn look(&mut self, glance: &Glance, time: Time) {
        let awaited = self.unmended.is_some();
        self.stopping = Stopping::look(self.stopping, glance, self.pace, awaited, time);
    }

    /// One begins.
    pub(super) fn asks(&mut self) {
        self.is_overtaken = false;
    }

    /// Since a difference was seen that a new snapshot has to mend.
    pub(super) fn unmended(&self) -> Option<Time> {
        self.unmended
    }

    /// One failed, or was given up.
    pub(super) fn fails(&mut self, time: Time) {
        self.failed = Some(time);
        self.retries(RETRY, time);
    }

    /// A snapshot has to be made, or had to be when the stop under way began.
    pub(super) fn awaits_snapshot(&self) -> bool {
        self.unmended.is_some() || self.stopping.is_some_and(|stopping| stopping.awaited)
    }

    /// How much too early one would be that this is the reason for, if it is one.
    pub(super) fn early(&self, past: &Past) -> Option<Duration> {
        let (began, _) = Stopping::began(self.stopping, self.pace, past.time);
        let early = self.next.saturating_sub(began);
        self.awaits_snapshot().then_some(early)
    }

    pub(super) fn makes_snapshot(&mut self, time: Time) {
        if self.awaits_snapshot() {
            let (began, pace) = Stopping::began(self.stopping, self.pace, time);
            self.next = began + pace;
        }
    }

    pub(super) fn snapshot_fails(&mut self, time: Time) {
        if self.differs {
            self.next = time + MEND_RETRY;
        }
    }

    /// It holds other bytes, or the last verify failed.
    pub(super) fn is_unsettled(&self) -> bool {
        self.differs || self.failed.is_some()
    }

    fn is_told(&mut self, pace: Option<Duration>, time: Time) {
        match pace {
            // It is as if nothing had been known before.
            None => {
                *self = Self {
                    stopping: self.stopping,
                    ..Self::default()
                };
            }
            Some(is) if pace != self.pace => self.due = self.due.map(|due| due.min(time + is)),
            Some(_) => {}
        }
        self.pace = pace;
    }

    fn retries(&mut self, wait: Duration, time: Time) {
        self.due = self.pace.map(|pace| time + pace.min(wait));
    }
}

/// One verify at a time on the whole device, of a Litestream that runs and follows; given up for its limit
/// alone, or where nobody wants any.
#[derive(Debug, Default)]
pub(super) struct OneVerify {
    asked: Time,
}

impl Law for OneVerify {
    const NAME: &'static str = "one verify at a time, while Litestream follows";

    fn applies(&self, past: &Past) -> bool {
        past.compared.pace.is_some()
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let sight = &past.sight;
        match step {
            Step::Action(Action::Verify(_)) => {
                self.asked = past.time;
                // What is asked of it in the same turn may show that it does not any more.
                let follows = sight.is_followed || past.glance.as_ref().is_some_and(follows);
                let runs = sight.litestream_is_up && !sight.stop_was_asked && follows;
                let is_wanted = past.compared.pace.is_some() && past.end_asked.is_none();
                let is_alone = !sight.any_verify_is_under_way;
                Verdict::of(runs && is_wanted && is_alone, || format!("{sight:?}"))
            }
            Step::Action(Action::AbandonVerify(_)) => {
                let took = past.time - self.asked;
                let is_due = took >= LIMIT || past.compared.pace.is_none();
                Verdict::of(is_due && sight.verify_is_under_way, || {
                    format!("it was given up after {took:?}")
                })
            }
            _ => Verdict::Silent,
        }
    }
}

/// A verify that hangs does not keep the others waiting for ever, and one that nobody wants is not gone on
/// with.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    asked: Time,
}

impl Law for GivenUp {
    const NAME: &'static str = "a verify that hangs is given up";

    fn applies(&self, past: &Past) -> bool {
        past.sight.verify_is_under_way
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Action(Action::Verify(_)) => self.asked = past.time,
            Step::Look(_) if self.applies(past) => {
                let limit = (self.asked + LIMIT).max(past.slept_until);
                let is_wanted = past.compared.pace.is_some();
                return Verdict::of(is_wanted && past.time <= limit, || {
                    format!("it began at {:?}", self.asked)
                });
            }
            _ => {}
        }
        Verdict::Silent
    }
}

/// In fair weather a replica is verified at each pace.
#[derive(Debug, Default)]
pub(super) struct Verified {
    was_open: bool,
    /// When something was last in the way,
    last_barred: Time,
    /// and when the first one of this run is due.
    first: Option<Time>,
}

impl Law for Verified {
    const NAME: &'static str = "fair weather: a replica is verified";

    fn applies(&self, past: &Past) -> bool {
        past.compared.pace.is_some() && past.fair_since().is_some() && self.was_open
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let glance = match step {
            Step::Look(glance) => glance,
            // It is as if nothing had been known before.
            Step::Event(Event::Recalled(..)) => {
                self.first = None;
                return Verdict::Silent;
            }
            Step::Event(Event::Reloaded(policy)) => {
                let first = self.first.zip(policy.verify);
                self.first = first.map(|(first, pace)| first.min(past.time + pace));
                return Verdict::Silent;
            }
            _ => return Verdict::Silent,
        };
        let is_open = follows(glance)
            && glance.proof.is_some()
            && !glance.is_broken
            && glance.credentials_left.is_some()
            && !past.is_held()
            && !past.sight.any_verify_is_under_way;
        // Between two looks nothing changes.
        if !std::mem::replace(&mut self.was_open, is_open) || !is_open {
            self.last_barred = past.time;
        }
        let compared = &past.compared;
        let (Some(pace), Some(fair), true) = (compared.pace, past.fair_since(), is_open) else {
            return Verdict::Silent;
        };
        let first = match compared.differs {
            true => pace.min(SOON),
            false => pace,
        };
        let first = *self.first.get_or_insert(past.time + first);
        let due = compared.due.unwrap_or(first);
        let limit = due.max(self.last_barred).max(fair) + NEAR;
        Verdict::of(past.time <= limit, || {
            format!("none by {limit:?}: {compared:?}, {glance:?}")
        })
    }
}

/// A database whose replica was seen to hold other bytes is not healthy, until a verify shows that it holds
/// its own.
#[derive(Debug, Default)]
pub(super) struct NotHealthy;

impl Law for NotHealthy {
    const NAME: &'static str = "healthy: no replica that was seen to differ";

    fn applies(&self, past: &Past) -> bool {
        past.compared.differs
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(glance) if self.applies(past) => {
                Verdict::of(!glance.is_healthy, || format!("{glance:?}"))
            }
            Step::Report(report) if self.applies(past) => {
                let is_told = report.databases.first().is_some_and(is_said_to_differ);
                Verdict::of(is_told, || format!("{report:?}"))
            }
            _ => Verdict::Silent,
        }
    }
}

/// Whatever ends edgerepl, it is kept that the replica holds other bytes.
#[derive(Debug, Default)]
pub(super) struct DifferenceRemembered;

impl Law for DifferenceRemembered {
    const NAME: &'static str = "other bytes are remembered";

    fn applies(&self, past: &Past) -> bool {
        past.compared.differs
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(_) if self.applies(past) => {
                Verdict::is_kept(past.sight.difference_is_remembered, "nobody would know")
            }
            _ => Verdict::Silent,
        }
    }
}

/// No replica is said to differ that no verify showed so, in this run or an earlier one.
#[derive(Debug, Default)]
pub(super) struct NoFalseDifference;

impl Law for NoFalseDifference {
    const NAME: &'static str = "no replica differs that was seen to hold";

    fn applies(&self, past: &Past) -> bool {
        !past.compared.differs
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(_) if self.applies(past) => {
                Verdict::of(!past.sight.difference_is_remembered, || {
                    format!("it is remembered: {:?}", past.compared)
                })
            }
            Step::Report(report) if self.applies(past) => {
                let is_told = report.databases.first().is_some_and(is_said_to_differ);
                Verdict::of(!is_told, || format!("{report:?}"))
            }
            _ => Verdict::Silent,
        }
    }
}

/// In fair weather a difference is mended by a new snapshot, once per pace, after a plan that shows no other
/// device.
#[derive(Debug, Default)]
pub(super) struct Mended {
    allowed: Time,
    /// When another device could last not be ruled out.
    doubted: Time,
    way: MendWay,
}

impl Law for Mended {
    const NAME: &'static str = "fair weather: other bytes are mended";

    fn applies(&self, past: &Past) -> bool {
        // Of what another device writes, too, no snapshot is made.
        let is_due = past.compared.unmended.is_some() && !past.shown.is_shared();
        past.fair_since().is_some() && is_due
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let compared = &past.compared;
        let retry = || compared.pace.unwrap_or_default().max(MEND_RETRY);
        match step {
            // Dropped local state begins anew first.
            Step::Action(Action::MakeSnapshot(..) | Action::ResetState(_))
                if compared.awaits_snapshot() =>
            {
                let (began, pace) = Stopping::began(compared.stopping, compared.pace, past.time);
                self.allowed = self.allowed.max(began + pace);
            }
            Step::Event(Event::Snapshotted(_, Err(_))) => self.allowed = past.time + retry(),
            Step::Action(Action::AbandonStart) if past.sight.snapshot_is_under_way => {
                self.allowed = past.time + retry();
            }
            Step::Look(glance) => {
                self.way.look(glance, past.time);
                if compared
                    .unmended
                    .is_some_and(|seen| past.shown.doubts(seen, past))
                {
                    self.doubted = past.time;
                }
                if let (Some(fair), Some(seen)) = (past.fair_since(), compared.unmended)
                    && self.applies(past)
                {
                    let due = seen.max(self.allowed).max(self.doubted);
                    let limit = self.way.limit(due, fair);
                    return Verdict::of(past.time <= limit, || {
                        format!("no snapshot by {limit:?}: {glance:?}")
                    });
                }
            }
            _ => {}
        }
        Verdict::Silent
    }
}

/// No snapshot is made of other bytes that another device may have written: a plan comes first.
#[derive(Debug, Default)]
pub(super) struct MendedAlone;

impl Law for MendedAlone {
    const NAME: &'static str = "other bytes are mended where no other device is seen";

    fn applies(&self, past: &Past) -> bool {
        past.compared.awaits_snapshot() && !past.shown.awaits_snapshot()
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match (step, past.compared.unmended) {
            (Step::Action(Action::MakeSnapshot(..)), Some(seen)) if self.applies(past) => {
                Verdict::of(!past.shown.doubts(seen, past), || {
                    format!("seen at {seen:?}: {:?}", past.shown)
                })
            }
            _ => Verdict::Silent,
        }
    }
}

/// Whoever overwrites objects, a device does not upload without end.
#[derive(Debug, Default)]
pub(super) struct MendPace;

impl Law for MendPace {
    const NAME: &'static str = "no more than one snapshot per verify pace";

    fn applies(&self, past: &Past) -> bool {
        past.compared.differs
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match (step, past.compared.early(past)) {
            // A broken chain is a reason with a pace of its own.
            (Step::Action(Action::MakeSnapshot(..)), Some(early))
                if !past.shown.awaits_snapshot() =>
            {
                Verdict::of(early.is_zero(), || format!("{early:?} too early"))
            }
            _ => Verdict::Silent,
        }
    }
}

fn is_said_to_differ(report: &DatabaseReport) -> bool {
    report.verify.state == Verity::Differs
}
