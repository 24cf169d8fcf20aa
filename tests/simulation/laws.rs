//! The laws that the agent obeys whatever happens, checked at every step from the outside.
//!
//! Owns only memory of what was seen. A broken law panics with its own sentence.

use std::collections::VecDeque;
use std::time::Duration;

use edgerepl::agent::{Action, Activity, BOUND, Event, Policy, Report, SupervisorKind};
use edgerepl::credentials::FailureClass;

use crate::world::{Sight, Time};

/// After so much fair weather all must be well again. The slowest retry is 15 min.
const RECOVERY: Duration = Duration::from_secs(40 * 60);

/// Broken local state may need several resets, which are an hour apart.
const RESET_RECOVERY: Duration = Duration::from_secs(24 * 3600);

/// A Litestream that does not follow is restarted after 6 min, or 90 s where it hangs, and again after an
/// hour, less what the row and the sync before a stop may take.
const RESCUE_LIMIT: Duration = Duration::from_secs(360);
const HUNG_RESCUE_LIMIT: Duration = Duration::from_secs(90);
const RESCUE_PACE: Duration = Duration::from_secs(3600 - 4);

/// What hangs after it followed in fair weather is mended by it.
const STUCK_RECOVERY: Duration = Duration::from_secs(2 * 3600);

/// Where S3 was away before, and restarts mended nothing, the next one may be so late.
const LATE_STUCK_RECOVERY: Duration = Duration::from_secs(13 * 3600);

/// No hour sees more fetches, each of which costs the token a signature.
const FETCHES_PER_HOUR: usize = 120;

/// With no wait asked for, a fetch that the network failed is tried again so soon: 5 min, and what the
/// allowance of fetches adds.
const TRANSIENT_PACE: Duration = Duration::from_secs(6 * 60);

/// AWS grants none that is shorter: it has to be renewed as often as it ends.
const SHORTEST_LEASE: Duration = Duration::from_secs(900);

/// No lease is longer, and none is renewed later.
const LONGEST_LEASE: Duration = Duration::from_secs(13 * 3600);

/// The longest that the guard may hold.
const GUARD_LIMIT: Duration = Duration::from_secs(300);

/// A unit's `TimeoutStopSec=`: by then Litestream has ended or was killed.
const STOP_LIMIT: Duration = Duration::from_secs(45);

pub(crate) struct Laws {
    policy: Policy,
    child: bool,
    fetches: VecDeque<Time>,
    fetch_is_killed: bool,
    last_fetch_failed: bool,
    clock_was_set_now: bool,
    grants: u64,
    /// The grant that Litestream was last stopped for.
    stopped_for: u64,
    started: Time,
    /// Up to when it was shown to follow, and when it was last restarted for it did not.
    followed: Time,
    rescued: Option<Time>,
    fine_since: Option<Time>,
    booted: Time,
    slept_until: Time,
    guard_since: Option<Time>,
    guard_failed: Time,
    /// The guard reached a bound, and Litestream has not caught up since.
    guard_is_spent: bool,
    end_asked: Option<Time>,
    was_killed: bool,
    /// systemd is to restart it.
    is_about_to_stop: bool,
    /// One is allowed: of a hand-over under way that alone can bring the last rows out.
    starts_at_end: u32,
    last_row: Time,
    was_well: bool,
    last_well: Time,
    last_sound: Time,
    last_corrupt: Time,
    last_stuck: Time,
    last_unstuck: Time,
    last_wrong_clock: Time,
    disk_well_since: Option<Time>,
    /// The last row that counts as proved.
    proved: i64,
}

impl Laws {
    pub(crate) fn new(policy: &Policy) -> Self {
        Self {
            policy: policy.clone(),
            child: policy.supervisor == SupervisorKind::Child,
            fetches: VecDeque::new(),
            fetch_is_killed: false,
            last_fetch_failed: false,
            clock_was_set_now: false,
            grants: 0,
            stopped_for: 0,
            started: Duration::ZERO,
            followed: Duration::ZERO,
            rescued: None,
            fine_since: None,
            booted: Duration::ZERO,
            slept_until: Duration::ZERO,
            guard_since: None,
            guard_failed: Duration::ZERO,
            guard_is_spent: false,
            end_asked: None,
            was_killed: false,
            is_about_to_stop: false,
            starts_at_end: 0,
            last_row: Duration::ZERO,
            was_well: false,
            last_well: Duration::ZERO,
            last_sound: Duration::ZERO,
            last_corrupt: Duration::ZERO,
            last_stuck: Duration::ZERO,
            last_unstuck: Duration::ZERO,
            last_wrong_clock: Duration::ZERO,
            disk_well_since: None,
            proved: 0,
        }
    }

    pub(crate) fn booted(&mut self, fine: bool, time: Time) {
        let slept_until = self.slept_until;
        *self = Self {
            booted: time,
            slept_until,
            fine_since: fine.then_some(time),
            ..Self::new(&self.policy)
        };
    }

    pub(crate) fn weather_changed(&mut self, fine: bool, time: Time) {
        self.fine_since = if fine {
            self.fine_since.or(Some(time))
        } else {
            None
        };
    }

    pub(crate) fn asked_to_end(&mut self, time: Time) {
        self.end_asked = Some(time);
    }

    pub(crate) fn killed_fetch(&mut self) {
        self.fetch_is_killed = true;
    }

    pub(crate) fn fetch_was_killed(&mut self) -> bool {
        std::mem::take(&mut self.fetch_is_killed)
    }

    /// The device sleeps until then.
    pub(crate) fn slept(&mut self, until: Time) {
        self.slept_until = until;
    }

    pub(crate) fn before(&mut self, event: &Event, time: Time) {
        self.clock_was_set_now = matches!(event, Event::ClockStepped);
        match event {
            Event::Fetched(Ok(lease)) => {
                self.grants += 1;
                if lease.lifetime < SHORTEST_LEASE {
                    self.fetches.pop_back();
                }
                self.last_fetch_failed = false;
            }
            Event::Fetched(Err(_)) => self.last_fetch_failed = true,
            Event::Row(Ok(_)) => self.last_row = time,
            Event::Started(Ok(())) => self.started = time,
            Event::GuardTaken(Err(_)) => {
                self.guard_since = None;
                self.guard_failed = time;
            }
            _ => {}
        }
    }

    pub(crate) fn action(&mut self, action: &Action, sight: &Sight, time: Time) {
        match action {
            Action::Fetch => {
                assert!(!sight.fetch_is_in_flight, "a second fetch beside the first");
                assert!(self.end_asked.is_none(), "a fetch by a daemon that ends");
                let idle = self.grants > 0 && !self.last_fetch_failed && time > self.slept_until;
                assert!(
                    !self.clock_was_set_now || !idle,
                    "setting the clock alone caused a fetch"
                );
                self.fetches.push_back(time);
                let hour = Duration::from_secs(3600);
                while self
                    .fetches
                    .front()
                    .is_some_and(|earlier| *earlier + hour < time)
                {
                    self.fetches.pop_front();
                }
                assert!(self.fetches.len() <= FETCHES_PER_HOUR, "a storm of fetches");
            }
            Action::Start(_) => {
                assert!(
                    !self.child || !sight.litestream_is_up,
                    "two Litestreams on one database"
                );
                assert!(
                    time < sight.granted_until,
                    "a start with credentials that have ended"
                );
                assert!(
                    !sight.wal_is_passed_over,
                    "a start on a WAL that was begun anew while Litestream was down, which it takes for \
                     the one that it knows"
                );
                self.is_about_to_stop = false;
                self.starts_at_end += u32::from(self.end_asked.is_some());
                assert!(self.starts_at_end <= 1, "starts by a daemon that ends");
            }
            // systemd stops it with the start that comes next.
            Action::Survey if sight.litestream_is_up && !self.is_about_to_stop => {
                self.is_about_to_stop = true;
                self.stops(sight, time);
            }
            Action::Terminate if self.end_asked.is_none() && !sight.stop_was_asked => {
                self.stops(sight, time);
            }
            Action::Kill => {
                self.was_killed = true;
                self.ends_in_time(time);
            }
            Action::TakeGuard => {
                assert!(self.policy.wal_guard, "a guard that nobody wants");
                assert!(!sight.guard_is_held, "the guard was taken twice");
                self.guard_since = Some(time);
            }
            Action::ReleaseGuard | Action::AbandonGuard => {
                let held = self
                    .guard_since
                    .take()
                    .map_or(Duration::ZERO, |since| time - since);
                self.guard_is_spent = held >= GUARD_LIMIT;
            }
            Action::Exit => {
                assert!(self.end_asked.is_some(), "an end that nobody asked for");
                let left = self.child && sight.litestream_is_up;
                assert!(!left, "an end that leaves Litestream behind");
                self.ends_in_time(time);
            }
            _ => {}
        }
    }

    /// Litestream is about to be stopped by us, and the daemon goes on.
    fn stops(&mut self, sight: &Sight, time: Time) {
        if sight.state_is_corrupt || sight.files_are_hurt {
            return;
        }
        let rescued = self.rescued.map_or(Duration::ZERO, |at| at + RESCUE_PACE);
        let limit = match sight.litestream_is_stuck {
            true => HUNG_RESCUE_LIMIT,
            false => RESCUE_LIMIT,
        };
        let is_rescue = time >= rescued.max(self.started.max(self.followed) + limit);
        assert!(
            !sight.litestream_asks || is_rescue,
            "Litestream was stopped though it asks for new credentials by itself"
        );
        assert!(
            self.grants > self.stopped_for || is_rescue,
            "Litestream was stopped a second time for the same credentials"
        );
        if is_rescue && (sight.litestream_asks || self.grants == self.stopped_for) {
            // It was decided before a sleep, perhaps, from which the hour counts.
            let awake = self.slept_until + Duration::from_secs(60);
            self.rescued = (time > awake).then_some(time);
        }
        self.stopped_for = self.grants;
        let usable = time < sight.granted_until || time == self.slept_until;
        assert!(
            usable,
            "Litestream was stopped with nothing to start it with"
        );
        let excused =
            !self.policy.wal_guard || self.guard_is_spent || self.guard_failed_lately(time);
        assert!(
            sight.guard_is_held || excused || !sight.disk_is_well,
            "Litestream was stopped with nothing to hold the WAL"
        );
    }

    fn ends_in_time(&self, time: Time) {
        if let Some(asked) = self.end_asked {
            let limit = asked.max(self.slept_until) + STOP_LIMIT;
            assert!(
                time <= limit || self.was_killed,
                "an end that took too long"
            );
        }
    }

    /// The WAL was reset under a Litestream that has not read it all: that costs a snapshot, and
    /// happens only where the guard reached its bound, can't be taken, or is not wanted.
    pub(crate) fn wal_was_reset(&self, time: Time) {
        let excused = !self.policy.wal_guard
            || self.guard_is_spent
            || self.end_asked.is_some()
            || self.guard_failed_lately(time)
            || time <= self.slept_until;
        assert!(excused, "nothing held the WAL while Litestream was down");
    }

    /// It is tried again a second later.
    fn guard_failed_lately(&self, time: Time) -> bool {
        self.guard_failed > Duration::ZERO
            && time <= self.guard_failed.max(self.slept_until) + Duration::from_secs(1)
    }

    /// At any time: in fair weather, after a while, all is well, and nobody had to do anything.
    pub(crate) fn look_in(&mut self, report: &Report, sight: &Sight, time: Time) {
        if let Some(since) = self.guard_since.filter(|_| time > self.slept_until) {
            assert!(
                time <= since + GUARD_LIMIT,
                "the guard holds longer than it may"
            );
        }
        assert!(
            report.told_term.unwrap_or_default() <= report.credentials_left.unwrap_or_default(),
            "an SDK is told that credentials last longer than they do: {report:?}"
        );
        if let (Some((FailureClass::Transient, _)), Some(due), Some(left)) =
            (&report.failure, report.renewal_in, report.credentials_left)
        {
            assert!(
                due <= left.max(TRANSIENT_PACE),
                "a wait outlasts the credentials: {due:?} of {left:?}"
            );
        }
        if report.replication == Activity::Replicating {
            assert!(
                !sight.guard_is_held,
                "the guard holds though Litestream has caught up"
            );
            self.guard_is_spent = false;
        }
        self.proofs_hold(report, sight, time);
        if self.end_asked.is_some() {
            return self.ends_in_time(time);
        }
        let all_is_proved = report.unproved_for.unwrap_or_default() <= BOUND;
        let well = (report.state.is_healthy() || sight.clock_is_doubted && all_is_proved)
            && sight.litestream_is_up;
        // Between two looks nothing changes.
        if well || self.was_well {
            self.last_well = time;
        }
        self.was_well = well;
        if sight.state_is_corrupt || sight.wal_stays {
            self.last_corrupt = time;
        } else {
            self.last_sound = time;
        }
        if sight.litestream_is_stuck {
            self.last_stuck = time;
        } else {
            self.last_unstuck = time;
        }
        if !sight.clock_is_right {
            self.last_wrong_clock = time;
        }
        self.disk_well_since = if sight.disk_is_well {
            self.disk_well_since.or(Some(time))
        } else {
            None
        };
        self.rows_go_on(time);
        assert!(
            sight.fetch_is_in_flight || report.renewal_in.is_some_and(|wait| wait <= LONGEST_LEASE),
            "no fetch is due, or not while any credentials could live: {report:?}"
        );

        let Some(fine) = self.fine_since else {
            return;
        };
        let since = fine
            .max(self.booted)
            .max(self.slept_until)
            .max(self.last_wrong_clock);
        if time > since + RECOVERY {
            assert!(
                report.credentials_left.is_some(),
                "no credentials in fair weather: {report:?}"
            );
            let hurt = self.last_corrupt.max(self.last_stuck);
            assert!(
                time < self.last_well.max(since).max(hurt) + RECOVERY,
                "nothing is replicated in fair weather: {report:?}"
            );
        }
        let stuck_recovery = if self.followed > since {
            STUCK_RECOVERY
        } else {
            LATE_STUCK_RECOVERY
        };
        // What is corrupt, too, may take as long as a reset.
        assert!(
            time < self.last_unstuck.max(since).max(self.last_corrupt) + stuck_recovery
                || self
                    .policy
                    .heartbeat
                    .is_none_or(|interval| interval > RECOVERY),
            "a Litestream that hangs is never restarted in fair weather: {report:?}"
        );
        assert!(
            time < self.last_sound.max(since) + RESET_RECOVERY,
            "broken local state is never reset in fair weather: {report:?}"
        );
    }

    /// What is said to be proved is so.
    fn proofs_hold(&mut self, report: &Report, sight: &Sight, time: Time) {
        if report.state.is_healthy()
            && let Some(written) = sight.oldest_missing
        {
            assert!(
                time <= written + BOUND,
                "healthy, and a row that was written {:?} ago is not on the replica: {report:?}",
                time - written
            );
        }
        let row = report.lag.map_or(0, |lag| lag.row);
        if row > self.proved {
            assert!(
                sight.is_blind || row <= sight.restorable_row,
                "row {row} counts as proved, and row {} is the last on the replica",
                sight.restorable_row
            );
            self.proved = row;
        }
        let shown = match self.policy.heartbeat {
            Some(_) => report.proof.map(|proof| proof.age),
            None => report.proof.and(report.unproved_for),
        };
        if let Some(shown) = shown.map(|age| time.saturating_sub(age)) {
            self.followed = self.followed.max(shown);
        }
        if report.replication == Activity::Replicating {
            self.rescued = None;
        }
        let sentences = report.state.problems().count();
        assert_eq!(
            sentences == 0,
            report.state.is_healthy(),
            "a state without a sentence: {report:?}"
        );
        assert!(
            !report.state.is_healthy() || report.proof.is_some(),
            "healthy without a proof: {report:?}"
        );
    }

    fn rows_go_on(&self, time: Time) {
        let (Some(interval), Some(disk)) = (self.policy.heartbeat, self.disk_well_since) else {
            return;
        };
        let since = self
            .last_row
            .max(disk)
            .max(self.booted)
            .max(self.slept_until);
        let limit = interval + Duration::from_secs(2);
        assert!(
            time <= since + limit,
            "no heartbeat row though the database takes them"
        );
    }
}
