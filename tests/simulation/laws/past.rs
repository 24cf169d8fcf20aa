//! What more than one law has to know of what was before.
//!
//! Owns how things are and were, and judges nothing.

use std::time::Duration;

use edgerepl::agent::{Action, Event, Glance, Rpo};

use super::restorable::Shown;
use super::verification::Compared;
use super::{Step, follows};
use crate::world::Time;

/// The longest that the guard may hold.
pub(super) const GUARD_LIMIT: Duration = Duration::from_secs(300);

/// What the laws are told of how things are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sight {
    /// How often edgerepl began to watch the database.
    pub(crate) generation: u32,
    /// What the agent says of all of them.
    pub(crate) device_is_healthy: bool,
    /// How much may be lost, as the configuration says, and while uploads wait.
    pub(crate) rpo: Option<(Rpo, Rpo)>,
    /// What the configuration says; rows are written to this database.
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) wants_guard: bool,
    pub(crate) litestream_is_child: bool,
    pub(crate) litestream_is_up: bool,
    /// It gets newer credentials without a restart, and is to.
    pub(crate) litestream_asks: bool,
    pub(crate) litestream_is_stuck: bool,
    pub(crate) litestream_serves_it: bool,
    /// Since when an upload of Litestream's moves, over a line that is slow; or that one stands still.
    pub(crate) upload_moves_since: Option<Time>,
    pub(crate) upload_stands: bool,
    /// When the credentials end that it was started with, where it asks for no others.
    pub(crate) litestream_credentials_end: Option<Time>,
    /// Nothing but an upload stands between the device and its replica.
    pub(crate) is_fine_beside_upload: bool,
    pub(crate) stop_was_asked: bool,
    pub(crate) state_is_corrupt: bool,
    /// The WAL could not be emptied, when that was the way to begin anew.
    pub(crate) wal_stays: bool,
    pub(crate) files_are_hurt: bool,
    /// Others are watched, too.
    pub(crate) has_siblings: bool,
    /// The same of any database that is watched, or what is corrupt of it.
    pub(crate) any_is_hurt: bool,
    /// Up to when all of them were shown to be followed.
    pub(crate) least_followed: Time,
    /// When others were last named than before.
    pub(crate) set_changed: Time,
    /// A Litestream that starts now takes another WAL for the one that it knows.
    pub(crate) wal_is_passed_over: bool,
    pub(crate) guard_is_held: bool,
    pub(crate) disk_is_well: bool,
    pub(crate) clock_is_right: bool,
    /// By a provider that told another time with the last grant.
    pub(crate) clock_is_doubted: bool,
    /// Nothing stands between the device and its replica, and nobody has to restore anything.
    pub(crate) is_fine: bool,
    pub(crate) fetch_is_in_flight: bool,
    pub(crate) granted_until: Time,
    pub(crate) database_is_there: bool,
    pub(crate) replica_is_there: bool,
    /// When the oldest row was written that no restore brings back; without rows, anything.
    pub(crate) oldest_missing: Option<Time>,
    /// The same of whatever was committed.
    pub(crate) oldest_lost: Option<Time>,
    pub(crate) restorable_row: i64,
    /// The replica was wrong before this agent began, who can't see it.
    pub(crate) is_blind: bool,
    /// What the next run is to be told: since when a row is not proved.
    pub(crate) remembered: Option<Option<Time>>,
    /// And that Litestream has to upload the whole database.
    pub(crate) damage_is_remembered: bool,
    /// How often a restore is planned.
    pub(crate) pace: Option<Duration>,
    /// A restore would not bring all back, or another device writes to the prefix.
    pub(crate) chain_is_broken: bool,
    /// Another device has written to the prefix at any time.
    pub(crate) stranger_came: bool,
    /// Litestream can list the bucket, and may.
    pub(crate) lists_work: bool,
    pub(crate) plan_is_under_way: bool,
    pub(crate) snapshot_is_under_way: bool,
    pub(crate) any_snapshot_is_under_way: bool,
    /// Of any database that is watched it was shown that a snapshot has to be made.
    pub(crate) any_awaits_snapshot: bool,
    /// systemd starts Litestream.
    pub(crate) unit_restarts: bool,
    /// The next run is to be told that no restore brings all back.
    pub(crate) loss_is_remembered: bool,
    /// How often the bytes of a replica are verified.
    pub(crate) verify_pace: Option<Duration>,
    pub(crate) verify_is_under_way: bool,
    pub(crate) any_verify_is_under_way: bool,
    /// The agent says that the replica follows; known where a verify is asked for.
    pub(crate) is_followed: bool,
    /// The next run is to be told that the replica holds other bytes.
    pub(crate) difference_is_remembered: bool,
}

/// What was, up to now.
#[derive(Debug)]
pub(crate) struct Past {
    pub(super) time: Time,
    pub(super) sight: Sight,
    pub(super) glance: Option<Glance>,
    /// Since the look before; and in all.
    pub(super) since_last_look: Duration,
    pub(super) watched: Duration,
    last_look: Time,
    /// When this run of edgerepl began, its policy last changed, and its database.
    pub(super) began: Time,
    pub(super) policy_changed: Time,
    pub(super) database_changed: Time,
    /// The database changed, and Litestream has not followed since.
    pub(super) is_new_database: bool,
    pub(super) slept_until: Time,
    /// When the database came that was not there.
    came: Time,
    pub(super) fine_since: Option<Time>,
    pub(super) disk_well_since: Option<Time>,
    pub(super) last_wrong_clock: Time,
    pub(super) end_asked: Option<Time>,
    /// systemd is to restart Litestream.
    pub(super) is_about_to_stop: bool,
    pub(super) grants: u64,
    pub(super) last_fetch_failed: bool,
    pub(super) guard_since: Option<Time>,
    /// What was sent over the line, and when it was last seen to be more.
    sent: u64,
    pub(super) sent_more: Time,
    guard_failed: Option<Time>,
    /// The guard reached a bound, and Litestream has not caught up since.
    pub(super) guard_is_spent: bool,
    /// Up to when Litestream was shown to follow.
    pub(super) followed: Time,
    /// What plans have shown, and what verifies have.
    pub(super) shown: Shown,
    pub(super) compared: Compared,
    /// What the agent was told of how much may be lost.
    rpo: (Rpo, Rpo),
    is_metered: bool,
    is_paused: bool,
    /// When uploads ceased to wait.
    freed: Option<Time>,
}

impl Past {
    pub(super) fn new() -> Self {
        Self {
            time: Duration::ZERO,
            sight: Sight::default(),
            glance: None,
            since_last_look: Duration::ZERO,
            watched: Duration::ZERO,
            last_look: Duration::ZERO,
            began: Duration::ZERO,
            policy_changed: Duration::ZERO,
            database_changed: Duration::ZERO,
            is_new_database: false,
            slept_until: Duration::ZERO,
            came: Duration::ZERO,
            fine_since: None,
            disk_well_since: None,
            last_wrong_clock: Duration::ZERO,
            end_asked: None,
            is_about_to_stop: false,
            grants: 0,
            last_fetch_failed: false,
            guard_since: None,
            sent: 0,
            sent_more: Duration::ZERO,
            guard_failed: None,
            guard_is_spent: false,
            followed: Duration::ZERO,
            shown: Shown::default(),
            compared: Compared::default(),
            rpo: (Rpo::new(Duration::ZERO), Rpo::new(Duration::ZERO)),
            is_metered: false,
            is_paused: false,
            freed: None,
        }
    }

    /// What a law may know of a step that it judges.
    pub(super) fn before(&mut self, step: &Step<'_>, sight: Sight, time: Time) {
        self.time = time;
        if sight.generation != self.sight.generation {
            self.database_changed = time;
            self.is_new_database = true;
        }
        if sight.database_is_there && !self.sight.database_is_there {
            self.came = time;
        }
        self.sight = sight;
        self.fine_since = sight.is_fine.then(|| self.fine_since.unwrap_or(time));
        self.disk_well_since = sight
            .disk_is_well
            .then(|| self.disk_well_since.unwrap_or(time));
        if !sight.clock_is_right {
            self.last_wrong_clock = time;
        }
        match step {
            Step::Begins => self.begin(),
            Step::Event(event) => self.hear(event),
            Step::Look(glance) => self.look(glance),
            Step::Action(_)
            | Step::Turned { .. }
            | Step::WalReset
            | Step::Report(_)
            | Step::Ignored => {}
        }
    }

    /// And what it may know only later.
    pub(super) fn after(&mut self, step: &Step<'_>) {
        match step {
            Step::Action(Action::Start(_)) => self.is_about_to_stop = false,
            Step::Action(Action::PlanRestore(_)) => self.shown.asks(self.rpo().bound()),
            Step::Action(Action::Verify(_)) => self.compared.asks(),
            Step::Action(Action::AbandonPlan(_)) => self.shown.fails(self.time),
            Step::Action(Action::AbandonVerify(_)) => self.compared.fails(self.time),
            Step::Action(Action::MakeSnapshot(..)) => {
                self.shown.makes_snapshot(self.time, self.sight.pace);
                self.compared.makes_snapshot(self.time);
            }
            Step::Action(Action::AbandonStart) if self.sight.snapshot_is_under_way => {
                self.shown.snapshot_fails(self.time);
                self.compared.snapshot_fails(self.time);
            }
            Step::Action(Action::Survey(_)) => self.is_about_to_stop |= self.sight.litestream_is_up,
            Step::Action(Action::TakeGuard(_)) => self.guard_since = Some(self.time),
            Step::Action(Action::AbandonGuard(_)) => {
                self.guard_since = None;
                self.guard_is_spent = true;
            }
            Step::Action(Action::ReleaseGuard(_)) => {
                let held = self.guard_since.take().map(|since| self.time - since);
                self.guard_is_spent = held.is_some_and(|held| held >= GUARD_LIMIT);
            }
            Step::Look(glance) if follows(glance) => {
                self.guard_is_spent = false;
                self.is_new_database &= !self.sight.litestream_serves_it;
            }
            _ => {}
        }
    }

    /// Since when nothing is in the way of an agent that wants all to be well.
    pub(super) fn fair_since(&self) -> Option<Time> {
        let fine = self.fine_since?;
        let fair = fine
            .max(self.began)
            .max(self.slept_until)
            .max(self.last_wrong_clock)
            .max(self.policy_changed);
        self.end_asked.is_none().then_some(fair)
    }

    /// Uploads wait.
    pub(super) fn is_held(&self) -> bool {
        self.is_metered || self.is_paused
    }

    /// How much may be lost now.
    pub(super) fn rpo(&self) -> Rpo {
        match self.is_held() {
            true => self.rpo.1,
            false => self.rpo.0,
        }
    }

    /// Litestream is asked at least so often: where rows are seldom, or much may be lost, it is not.
    pub(super) fn asks_within(&self, pace: Duration) -> bool {
        self.sight
            .heartbeat
            .is_some_and(|interval| interval <= pace)
            && self.rpo().pace() <= pace
    }

    /// How old something unproved may be on a healthy device: what waited has as long as the rest once it does
    /// not wait any more.
    pub(super) fn bound(&self) -> Duration {
        let (free, held) = (self.rpo.0.bound(), self.rpo.1.bound());
        let was_held = self.freed.is_some_and(|freed| self.time < freed + free);
        match self.is_held() || was_held {
            true => held,
            false => free,
        }
    }

    fn waits(&mut self, is_metered: bool, is_paused: bool) {
        if self.is_held() && !(is_metered || is_paused) {
            self.freed = Some(self.time);
        }
        (self.is_metered, self.is_paused) = (is_metered, is_paused);
    }

    /// One without rows, which edgerepl looks for each half minute, once it has seen that it is not there.
    pub(super) fn came_lately(&self) -> bool {
        let pace = self.rpo().pace().max(Duration::from_secs(30)) + Duration::from_secs(1);
        let looked_for = self.came.max(self.slept_until) + pace;
        self.sight.heartbeat.is_none() && self.time <= looked_for
    }

    /// It is tried again a second later.
    pub(super) fn guard_failed_lately(&self) -> bool {
        let limit = |failed: Time| failed.max(self.slept_until) + Duration::from_secs(1);
        self.guard_failed
            .is_some_and(|failed| self.time <= limit(failed))
    }

    fn begin(&mut self) {
        *self = Self {
            time: self.time,
            sight: self.sight,
            watched: self.watched,
            last_look: self.time,
            began: self.time,
            slept_until: self.slept_until,
            came: self.came,
            fine_since: self.sight.is_fine.then_some(self.time),
            last_wrong_clock: self.last_wrong_clock,
            compared: Compared::at(self.sight.verify_pace),
            rpo: self.sight.rpo.unwrap_or(self.rpo),
            ..Self::new()
        };
    }

    fn hear(&mut self, event: &Event) {
        self.shown.hear(event, self.sight.pace, self.time);
        self.compared.hear(event, self.time);
        match event {
            Event::Fetched(Ok(_)) => {
                self.grants += 1;
                self.last_fetch_failed = false;
            }
            Event::Fetched(Err(_)) => self.last_fetch_failed = true,
            Event::Measured(Ok(sent)) => {
                let before = std::mem::replace(&mut self.sent, sent.bytes);
                if before < sent.bytes {
                    self.sent_more = self.time;
                }
            }
            Event::GuardTaken(_, Err(_)) => {
                self.guard_since = None;
                self.guard_failed = Some(self.time);
            }
            Event::Reloaded(policy) => {
                self.policy_changed = self.time;
                self.rpo = (policy.rpo, policy.rpo_metered);
            }
            Event::Metered(is_metered) => self.waits(*is_metered, self.is_paused),
            Event::PauseWanted(is_wanted) => self.waits(self.is_metered, *is_wanted),
            Event::Terminate => self.end_asked = self.end_asked.or(Some(self.time)),
            _ => {}
        }
    }

    fn look(&mut self, glance: &Glance) {
        self.since_last_look = self.time - self.last_look;
        self.watched += self.since_last_look;
        self.last_look = self.time;
        let shown = match self.sight.heartbeat {
            Some(_) => glance.proof.map(|proof| proof.age),
            None => glance.proof.and(glance.unproved_for),
        };
        if let Some(age) = shown {
            self.followed = self.followed.max(self.time.saturating_sub(age));
        }
        self.glance = Some(*glance);
        self.shown.look(glance, self.sight.pace, self.time);
        self.compared.look(glance, self.time);
    }
}
