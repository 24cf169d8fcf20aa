//! Laws of the plans of a restore, and of what follows from them.
//!
//! Owns what plans have shown. Of what a verify shows, which is another reason for a new snapshot,
//! `verification` knows.

use std::time::Duration;

use edgerepl::agent::{Action, Activity, Event, Glance};
use edgerepl::litestream::chain::{Chain, Listing, PlanFailure, Stranger};

use super::{Law, Past, Step, Time, Verdict, follows};

/// A plan may take so long.
const PLAN_LIMIT: Duration = Duration::from_secs(120);

/// The first one of a run may come so long after Litestream follows.
const SPREAD: Duration = Duration::from_secs(30);

/// One that failed is tried again so soon, or within a pace.
const PLAN_RETRY: Duration = Duration::from_secs(3600);

/// No two snapshots are made in less, whatever the pace.
pub(super) const LEAST_PACE: Duration = Duration::from_secs(60);

/// A snapshot that failed is made again after that, or within a pace.
pub(super) const MEND_RETRY: Duration = Duration::from_secs(300);

/// A row, a sync and a stop come before a snapshot, of a Litestream that not even SIGKILL ends at once.
const MEND_LIMIT: Duration = Duration::from_secs(300);

/// Foreign transactions that do not become more in so long are a mixture that is mended.
const PATIENCE: Duration = Duration::from_secs(70);

/// Litestream may answer so late.
const ANSWER_LIMIT: Duration = Duration::from_secs(200);

/// Credentials that end sooner are not worth a stop.
const LEAST_TERM: Duration = Duration::from_secs(10);

/// What plans have shown of a database, in this run.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The last transaction that was proved when the plan was asked for that is under way.
    proved: Option<u64>,
    is_asked: bool,
    /// And how long foreign transactions may stay as many, before nobody adds to them.
    patience: Duration,
    /// The last plan, or what an earlier run left, showed that no restore brings all back.
    is_broken: bool,
    /// So many plans did, since the last one that showed all there, or since a snapshot was made.
    times: u32,
    /// Since it has to be mended.
    twice: Option<Time>,
    is_shared: bool,
    /// So many plans in a row showed a sign of another device, since then; and two did at any time.
    signs: u32,
    signs_since: Time,
    first_sign: u64,
    /// There were ever more foreign transactions.
    signs_grew: bool,
    /// They were no more for so long that a new snapshot mends them.
    is_mixture: bool,
    /// What was ahead of Litestream's files before it was started.
    ahead: Option<u64>,
    /// When the replica was last proved, as far as was seen.
    proved_at: Option<Time>,
    /// A proof that was asked for after a sign, and then another sign of more, leave no doubt.
    is_certain: bool,
    /// This Litestream plans no restore.
    is_unsupported: bool,
    /// When the last plan succeeded, and when the last one failed since.
    planned: Option<Time>,
    failed: Option<Time>,
    /// Since when Litestream is being stopped, at which pace, and whether a snapshot was to be made then.
    stopping: Option<Stopping>,
    /// No snapshot for this reason begins before.
    next: Time,
}

/// A stop of Litestream that is under way, and what was at its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopping {
    since: Time,
    pace: Option<Duration>,
    pub(super) awaited: bool,
}

impl Stopping {
    /// The same, or one that has begun, or none.
    pub(super) fn look(
        before: Option<Self>,
        glance: &Glance,
        pace: Option<Duration>,
        awaited: bool,
        time: Time,
    ) -> Option<Self> {
        let begun = Self {
            since: time,
            pace,
            awaited,
        };
        let stops = glance.replication == Activity::Stopping;
        stops.then(|| before.unwrap_or(begun))
    }

    /// When the one began that was for a snapshot, and at which pace.
    pub(super) fn began(
        stopping: Option<Self>,
        pace: Option<Duration>,
        time: Time,
    ) -> (Time, Duration) {
        let (since, pace) = match stopping {
            Some(stopping) => (stopping.since, stopping.pace),
            None => (time, pace),
        };
        (since, pace.unwrap_or_default().max(LEAST_PACE))
    }
}

impl Shown {
    /// A plan is asked for: the look that follows shows what is proved.
    pub(super) fn asks(&mut self, bound: Duration) {
        self.is_asked = true;
        self.patience = bound.max(PATIENCE);
    }

    pub(super) fn fails(&mut self, time: Time) {
        self.failed = Some(time);
    }

    pub(super) fn hear(&mut self, event: &Event, pace: Option<Duration>, time: Time) {
        match event {
            Event::Recalled(_, earlier) => {
                *self = Self {
                    is_broken: earlier.is_unrestorable && pace.is_some(),
                    stopping: self.stopping,
                    ..Self::default()
                };
            }
            Event::Reloaded(policy) if policy.restorable.is_none() => {
                *self = Self {
                    stopping: self.stopping,
                    ..Self::default()
                };
            }
            Event::Planned(_, Ok(listing)) => {
                self.planned = Some(time);
                self.is_unsupported = false;
                self.failed = None;
                // An altered object is a sign, too, once there was a clearer one; and so is whatever is wrong
                // before another device has had its time to show itself.
                let waits = time - self.signs_since < self.patience && !self.is_mixture;
                let may_be = matches!(listing.chain, Chain::Altered { .. }) || waits;
                let is_sign = self.signs > 0 && may_be && !self.is_whole(listing);
                let sign = listing.stranger.map(Stranger::at);
                let sign = sign.or(is_sign.then_some(self.first_sign));
                let was_mixture = std::mem::take(&mut self.is_mixture);
                match self.is_whole(listing) && sign.is_none() {
                    true => {
                        self.is_broken = self.is_shared;
                        self.times = 0;
                        self.signs = 0;
                    }
                    false => {
                        self.is_broken = true;
                        // Once it may be this device's own files that are not what they were.
                        let at = sign.unwrap_or_default();
                        let ends_suspicion = self.signs > 0 && sign.is_none() && !was_mixture;
                        self.signs = match sign {
                            Some(_) => self.signs + 1,
                            None => 0,
                        };
                        if self.signs == 1 {
                            (self.signs_since, self.first_sign) = (time, at);
                        }
                        let grew = self.signs > 1 && at > self.first_sign;
                        // Somebody adds to it after all: the own files may have changed since it began.
                        if grew && was_mixture {
                            self.signs_since = time;
                        }
                        let sound = self.signs_since + ANSWER_LIMIT;
                        self.signs_grew |= grew;
                        self.is_mixture = self.signs > 1
                            && at <= self.first_sign
                            && (was_mixture || time - self.signs_since >= self.patience);
                        self.is_certain |= grew && self.proved_at > Some(sound);
                        self.times = match self.signs {
                            0 if ends_suspicion => 1,
                            0 => self.times + 1,
                            signs => signs,
                        };
                    }
                }
                // An altered object may be the first sign of another device.
                let enough = match listing.chain {
                    Chain::Altered { .. } => 6,
                    _ => 2,
                };
                let is_certain = self.times >= enough && self.signs == 0;
                let is_to_be_mended = (is_certain || self.is_mixture) && !self.is_shared;
                self.twice = is_to_be_mended.then(|| self.twice.unwrap_or(time));
            }
            Event::Planned(_, Err(failure)) => {
                self.is_unsupported |= *failure == PlanFailure::Unsupported;
                self.fails(time);
            }
            Event::LookedAhead(_, Ok(Some(at))) => {
                self.signs_grew |= self.ahead.is_some_and(|before| before < *at);
                self.is_broken |= self.signs_grew;
                self.ahead = self.ahead.or(Some(*at));
            }
            // The next plan shows whether that mended it.
            Event::Snapshotted(_, Ok(())) => self.twice = None,
            Event::Snapshotted(_, Err(_)) => self.snapshot_fails(time),
            _ => {}
        }
    }

    pub(super) fn look(&mut self, glance: &Glance, pace: Option<Duration>, time: Time) {
        if std::mem::take(&mut self.is_asked) {
            self.proved = glance.proof.map(|proof| proof.position.replicated);
        }
        self.proved_at = glance.proof.map(|proof| time.saturating_sub(proof.age));
        self.is_shared |= glance.is_shared;
        self.stopping = Stopping::look(self.stopping, glance, pace, self.twice.is_some(), time);
    }

    /// A snapshot has to be made, or had to be when the stop under way began.
    pub(super) fn awaits_snapshot(&self) -> bool {
        self.twice.is_some() || self.stopping.is_some_and(|stopping| stopping.awaited)
    }

    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Another device may have written what was seen then: no plan since shows that none did.
    pub(super) fn doubts(&self, seen: Time, past: &Past) -> bool {
        let looks = past.sight.pace.is_some() && !self.is_unsupported;
        let is_unclear = self.is_broken && self.twice.is_none();
        looks && (self.planned < Some(seen) || self.signs > 0 || is_unclear)
    }

    /// It can't be restored, or the last plan failed.
    pub(super) fn is_unsettled(&self) -> bool {
        self.is_broken || self.failed.is_some()
    }

    /// When the stop began that was for a snapshot, and at which pace.
    fn began(&self, past: &Past) -> (Time, Duration) {
        Stopping::began(self.stopping, past.sight.pace, past.time)
    }

    /// How much too early one would be that this is the reason for, if it is one.
    pub(super) fn early(&self, past: &Past) -> Option<Duration> {
        let (began, _) = self.began(past);
        let early = self.next.saturating_sub(began);
        self.awaits_snapshot().then_some(early)
    }

    pub(super) fn makes_snapshot(&mut self, time: Time, pace: Option<Duration>) {
        let (began, pace) = Stopping::began(self.stopping, pace, time);
        self.next = began + pace;
    }

    pub(super) fn snapshot_fails(&mut self, time: Time) {
        self.next = time + MEND_RETRY;
    }

    fn is_whole(&self, listing: &Listing) -> bool {
        let Chain::Whole(holdings) = listing.chain else {
            return false;
        };
        self.proved.is_none_or(|proved| holdings.last >= proved)
    }
}

/// A database whose chain was seen broken is not healthy, until a plan shows it whole.
#[derive(Debug, Default)]
pub(super) struct NotHealthy;

impl Law for NotHealthy {
    const NAME: &'static str = "healthy: no chain that was seen broken";

    fn applies(&self, past: &Past) -> bool {
        past.shown.is_broken && !past.shown.is_shared
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        told_where(self.applies(past), step)
    }
}

/// Another device is named where two plans showed its signs while this device's own files were sound, and
/// nowhere else.
#[derive(Debug, Default)]
pub(super) struct StrangerNamed;

impl Law for StrangerNamed {
    const NAME: &'static str = "another device is named once it is certain";

    fn applies(&self, past: &Past) -> bool {
        past.shown.signs > 0
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(glance) if glance.is_shared => {
                let is_true = past.sight.stranger_came && past.shown.signs_grew;
                Verdict::of(is_true, || format!("it is not there: {:?}", past.shown))
            }
            Step::Look(_) if past.shown.is_certain => {
                Verdict::Broken(format!("it is not: {:?}", past.shown))
            }
            _ => Verdict::Silent,
        }
    }
}

/// Where the bucket grows before Litestream is started for the first time, another device uploads: it is not
/// started then.
#[derive(Debug, Default)]
pub(super) struct StartsAlone {
    ahead: Option<u64>,
    is_started: bool,
    is_taken: bool,
}

impl Law for StartsAlone {
    const NAME: &'static str = "no Litestream is started beside another device's";

    fn applies(&self, past: &Past) -> bool {
        self.is_taken && past.sight.pace.is_some() && !past.sight.has_siblings
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Event(Event::LookedAhead(_, Ok(Some(at)))) if !self.is_started => {
                self.is_taken |= self.ahead.is_some_and(|before| before < *at);
                self.ahead = self.ahead.or(Some(*at));
            }
            // It is as if nothing had been known before.
            Step::Event(Event::Reloaded(policy)) if policy.restorable.is_none() => {
                self.is_taken = false;
            }
            Step::Action(Action::Start(_)) => {
                // Beside databases of its own it was started, and goes on where those are taken away.
                let is_first = !std::mem::replace(&mut self.is_started, true);
                let is_barred = is_first && self.applies(past);
                return Verdict::of(!is_barred, || "one is".to_owned());
            }
            _ => {}
        }
        Verdict::Silent
    }
}

/// Where it applies, each look shows that the database can't be restored.
#[inline]
fn told_where(applies: bool, step: &Step<'_>) -> Verdict {
    match step {
        Step::Look(glance) if applies => {
            let is_told = glance.is_unrestorable && !glance.is_healthy;
            Verdict::of(is_told, || format!("{glance:?}"))
        }
        _ => Verdict::Silent,
    }
}

/// What two devices wrote is a mixture, whatever a later plan shows.
#[derive(Debug, Default)]
pub(super) struct Shared;

impl Law for Shared {
    const NAME: &'static str = "a prefix once shared is never healthy";

    fn applies(&self, past: &Past) -> bool {
        past.shown.is_shared
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        told_where(self.applies(past), step)
    }
}

/// No chain is called broken that no plan showed so, in this run or an earlier one.
#[derive(Debug, Default)]
pub(super) struct NoFalseAlarm;

impl Law for NoFalseAlarm {
    const NAME: &'static str = "no chain is called broken that was seen whole";

    fn applies(&self, past: &Past) -> bool {
        !past.shown.is_broken
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(glance) if self.applies(past) => {
                Verdict::of(!glance.is_unrestorable, || format!("{:?}", past.shown))
            }
            _ => Verdict::Silent,
        }
    }
}

/// Whatever ends edgerepl, it is kept that no restore brings all back.
#[derive(Debug, Default)]
pub(super) struct LossRemembered;

impl Law for LossRemembered {
    const NAME: &'static str = "what can't be restored is remembered";

    fn applies(&self, past: &Past) -> bool {
        past.shown.is_broken
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(_) if self.applies(past) => {
                Verdict::is_kept(past.sight.loss_is_remembered, "nobody would know")
            }
            _ => Verdict::Silent,
        }
    }
}

/// One plan at a time, of a Litestream that runs, and given up for its limit alone.
#[derive(Debug, Default)]
pub(super) struct OnePlan {
    asked: Time,
}

impl Law for OnePlan {
    const NAME: &'static str = "one plan at a time, while Litestream runs";

    fn applies(&self, past: &Past) -> bool {
        past.sight.pace.is_some()
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let sight = &past.sight;
        match step {
            Step::Action(Action::PlanRestore(_)) => {
                self.asked = past.time;
                let runs = sight.litestream_is_up && !sight.stop_was_asked;
                let is_alone = !sight.plan_is_under_way;
                Verdict::of(
                    runs && is_alone && sight.pace.is_some() && past.end_asked.is_none(),
                    || format!("{sight:?}"),
                )
            }
            Step::Action(Action::AbandonPlan(_)) => {
                let took = past.time - self.asked;
                Verdict::of(took >= PLAN_LIMIT || sight.pace.is_none(), || {
                    format!("it was given up after {took:?}")
                })
            }
            _ => Verdict::Silent,
        }
    }
}

/// Since when nothing is in the way of a plan.
#[derive(Debug, Default)]
struct Way {
    was_open: bool,
    /// When something last was.
    last_barred: Time,
    /// When the last plan failed, whatever came since.
    last_failed: Time,
}

impl Way {
    /// When a plan was made at the latest that was due at that time.
    fn limit(&self, due: Time, pace: Duration, fair: Time, past: &Past) -> Time {
        let again = self.last_failed + pace.min(PLAN_RETRY);
        let due = due.max(self.last_barred).max(fair).max(again);
        due.max(past.database_changed) + PLAN_LIMIT + SPREAD
    }

    fn look(&mut self, glance: &Glance, past: &Past) {
        let is_open = follows(glance)
            && glance.proof.is_some()
            && !glance.is_broken
            && glance.credentials_left.is_some()
            && past.sight.lists_work;
        // Between two looks nothing changes.
        if !std::mem::replace(&mut self.was_open, is_open) || !is_open {
            self.last_barred = past.time;
        }
        self.last_failed = past.shown.failed.unwrap_or_default().max(self.last_failed);
    }

    fn is_open(past: &Past) -> bool {
        let plans = past.sight.pace.is_some() && past.sight.lists_work;
        plans && past.fair_since().is_some() && past.glance.as_ref().is_some_and(follows)
    }
}

/// In fair weather a restore is planned at each pace.
#[derive(Debug, Default)]
pub(super) struct Planned {
    way: Way,
}

impl Law for Planned {
    const NAME: &'static str = "fair weather: a restore is planned";

    fn applies(&self, past: &Past) -> bool {
        Way::is_open(past)
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let Step::Look(glance) = step else {
            return Verdict::Silent;
        };
        self.way.look(glance, past);
        match (past.fair_since(), past.sight.pace) {
            (Some(fair), Some(pace)) if self.applies(past) => {
                let due = past.shown.planned.map_or(past.began, |at| at + pace);
                // Before other bytes are mended.
                let wanted = past.compared.unmended();
                let is_wanted = wanted > past.shown.planned;
                let due = due.min(wanted.filter(|_| is_wanted).unwrap_or(due));
                let limit = self.way.limit(due, pace, fair, past);
                Verdict::of(past.time <= limit, || {
                    format!("none since {:?}: {glance:?}", past.shown.planned)
                })
            }
            _ => Verdict::Silent,
        }
    }
}

/// In fair weather a chain that is broken is seen broken within a pace.
#[derive(Debug, Default)]
pub(super) struct SeenInTime {
    way: Way,
    /// Since when it is, and nobody knows.
    since: Option<Time>,
}

impl Law for SeenInTime {
    const NAME: &'static str = "fair weather: a broken chain is seen";

    fn applies(&self, past: &Past) -> bool {
        Way::is_open(past) && past.sight.chain_is_broken
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let Step::Look(glance) = step else {
            return Verdict::Silent;
        };
        self.way.look(glance, past);
        if !past.sight.chain_is_broken || glance.is_unrestorable {
            self.since = None;
            return match self.applies(past) {
                true => Verdict::Kept,
                false => Verdict::Silent,
            };
        }
        let since = *self.since.get_or_insert(past.time);
        match (past.fair_since(), past.sight.pace) {
            (Some(fair), Some(pace)) if self.applies(past) => {
                let limit = self.way.limit(since + pace, pace, fair, past);
                Verdict::of(past.time <= limit, || {
                    format!("it is broken since {since:?}: {glance:?}")
                })
            }
            _ => Verdict::Silent,
        }
    }
}

/// In fair weather a chain that was seen broken twice gets a new snapshot, once per pace.
#[derive(Debug, Default)]
pub(super) struct Mended {
    allowed: Time,
    way: MendWay,
}

/// Since when nothing is in the way of a new snapshot.
#[derive(Debug, Default)]
pub(super) struct MendWay {
    was_open: bool,
    last_barred: Time,
}

impl MendWay {
    /// When one is made at the latest that is due at that time.
    pub(super) fn limit(&self, due: Time, fair: Time) -> Time {
        due.max(self.last_barred).max(fair) + MEND_LIMIT
    }

    pub(super) fn look(&mut self, glance: &Glance, time: Time) {
        let runs = matches!(
            glance.replication,
            Activity::CatchingUp | Activity::Replicating | Activity::Stopping
        );
        let lives = glance
            .credentials_left
            .is_some_and(|left| left > LEAST_TERM);
        let is_open = runs && lives;
        if !std::mem::replace(&mut self.was_open, is_open) || !is_open {
            self.last_barred = time;
        }
    }
}

impl Law for Mended {
    const NAME: &'static str = "fair weather: a broken chain is mended";

    fn applies(&self, past: &Past) -> bool {
        past.fair_since().is_some() && past.shown.twice.is_some()
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let pace = past.sight.pace.unwrap_or_default();
        match step {
            // Dropped local state begins anew first.
            Step::Action(Action::MakeSnapshot(..) | Action::ResetState(_)) => {
                let (began, pace) = past.shown.began(past);
                // A reset brings forward no snapshot that has to wait for the pace of an earlier one.
                self.allowed = self.allowed.max(began + pace);
            }
            Step::Event(Event::Snapshotted(_, Err(_))) => {
                self.allowed = past.time + pace.max(MEND_RETRY);
            }
            Step::Action(Action::AbandonStart) if past.sight.snapshot_is_under_way => {
                self.allowed = past.time + pace.max(MEND_RETRY);
            }
            Step::Look(glance) => {
                self.way.look(glance, past.time);
                if let (Some(fair), Some(twice)) = (past.fair_since(), past.shown.twice) {
                    let limit = self.way.limit(twice.max(self.allowed), fair);
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

/// Whoever deletes in the bucket, a device does not upload without end.
#[derive(Debug, Default)]
pub(super) struct MendPace;

impl Law for MendPace {
    const NAME: &'static str = "no more than one snapshot per pace";

    fn applies(&self, past: &Past) -> bool {
        past.shown.is_broken
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match (step, past.shown.early(past)) {
            // Other bytes are a reason with a pace of its own.
            (Step::Action(Action::MakeSnapshot(..)), Some(early)) => {
                let early = past.compared.early(past).map_or(early, |of| early.min(of));
                Verdict::of(early.is_zero(), || format!("{early:?} too early"))
            }
            _ => Verdict::Silent,
        }
    }
}

/// A snapshot is made of what two looks showed to be broken, as one may be wrong, or where a verify showed
/// other bytes.
#[derive(Debug, Default)]
pub(super) struct SeenTwice;

impl Law for SeenTwice {
    const NAME: &'static str = "no snapshot of what was not seen broken";

    fn applies(&self, past: &Past) -> bool {
        past.sight.pace.is_some() || past.sight.verify_pace.is_some()
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            // Of a shared prefix another law speaks.
            Step::Action(Action::MakeSnapshot(..)) if !past.shown.is_shared => {
                let is_awaited = past.shown.awaits_snapshot() || past.compared.awaits_snapshot();
                Verdict::of(is_awaited, || {
                    format!("{:?}, {:?}", past.shown, past.compared)
                })
            }
            _ => Verdict::Silent,
        }
    }
}

/// A new snapshot in a prefix that another device writes to would make that one's replica worse.
#[derive(Debug, Default)]
pub(super) struct NotAStrangers;

impl Law for NotAStrangers {
    const NAME: &'static str = "no snapshot into a shared prefix";

    fn applies(&self, past: &Past) -> bool {
        past.shown.is_shared
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(_) if self.applies(past) => Verdict::Kept,
            Step::Action(Action::MakeSnapshot(..)) if self.applies(past) => {
                Verdict::Broken("another device writes there".to_owned())
            }
            _ => Verdict::Silent,
        }
    }
}

/// A snapshot is made while no other Litestream has the database, and none starts beside it.
#[derive(Debug, Default)]
pub(super) struct WhileStopped;

impl Law for WhileStopped {
    const NAME: &'static str = "a snapshot is made while Litestream is stopped";

    fn applies(&self, past: &Past) -> bool {
        past.sight.any_snapshot_is_under_way
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let sight = &past.sight;
        let is_right = match step {
            // A unit is stopped for it.
            Step::Action(Action::MakeSnapshot(..)) => {
                let runs = sight.litestream_is_child && sight.litestream_is_up;
                !runs && !sight.unit_restarts && !sight.snapshot_is_under_way
            }
            Step::Action(Action::Start(_)) => !sight.any_snapshot_is_under_way,
            Step::Action(Action::ResetState(_)) => !sight.snapshot_is_under_way,
            _ => return Verdict::Silent,
        };
        Verdict::of(is_right, || format!("{sight:?}"))
    }
}
