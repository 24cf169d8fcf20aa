//! Whether the device's clock is right, compared with the provider's.
//!
//! Owns the comparison at the last grant. Never sets a clock or delays anything.

use super::Now;
use crate::clock::WallTime;

/// Whether the wall clock agrees with the only clock that can be trusted: the provider's.
#[derive(Debug, Default)]
pub(super) struct ClockBelief {
    /// The provider's clock minus the boot clock at the last grant, in seconds.
    provider: Option<i64>,
}

impl ClockBelief {
    /// S3 refuses requests that are 15 min off; 5 min is early enough to tell the operator.
    const TOLERATED: u64 = 5 * 60;

    pub(super) fn compare(&mut self, now: Now, server: Option<WallTime>) {
        let shown = |wall| Now { wall, ..now }.offset();
        self.provider = server.map(shown).or(self.provider);
    }

    /// By how many seconds the wall clock is off, if known.
    fn skew(&self, now: Now) -> Option<u64> {
        let provider = self.provider?;
        Some(provider.abs_diff(now.offset()))
    }

    /// Rows expire by their date only if the clock was seen to be right.
    pub(super) fn is_believed(&self, now: Now) -> bool {
        self.skew(now).is_some_and(|skew| skew <= Self::TOLERATED)
    }

    pub(super) fn is_wrong(&self, now: Now) -> bool {
        self.skew(now).is_some_and(|skew| skew > Self::TOLERATED)
    }
}
