//! When a new snapshot may be made of a database whose replica is not right.
//!
//! Owns the pace: a rule that deletes objects, or a bucket that takes none, does not make a device upload
//! without end. Never knows what is wrong, and makes nothing.

use std::time::Duration;

use crate::clock::BootTime;

/// The retry of one that failed; doubled each time, up to the pace.
pub(super) const RETRY: Duration = Duration::from_secs(300);

/// One is made no sooner after the last one, whatever the pace.
const LEAST_PACE: Duration = Duration::from_secs(60);

/// The pace of new snapshots, for one reason.
#[derive(Debug, Default)]
pub(super) struct Mending {
    allowed: BootTime,
    /// When the one that was begun last was allowed.
    was_allowed: BootTime,
    /// How many in a row failed.
    failures: u32,
}

impl Mending {
    /// When the next one may be made.
    pub(super) fn allowed(&self) -> BootTime {
        self.allowed
    }

    /// One is to be made.
    pub(super) fn begins(&mut self, pace: Duration, now: BootTime) {
        self.was_allowed = self.allowed;
        self.allowed = now + pace.max(LEAST_PACE);
    }

    /// It can't be made before then.
    pub(super) fn puts_off(&mut self, until: BootTime) {
        self.allowed = self.allowed.max(until);
    }

    /// It was not made: whatever was the reason, the pace of this one goes on as before.
    pub(super) fn is_still_due(&mut self, now: BootTime) {
        self.allowed = self.was_allowed.max(now);
    }

    /// It could not be made.
    pub(super) fn fails(&mut self, pace: Duration, now: BootTime) {
        let wait = RETRY.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        self.allowed = now + wait.min(pace.max(RETRY));
    }

    /// It has mended what was wrong.
    pub(super) fn works(&mut self) {
        self.failures = 0;
    }
}
