//! Whether the device's clock is right, as far as the provider's tells.
//!
//! Owns what was seen of both at the last grant. Sets no clock, and puts nothing off by it.

use super::Now;
use crate::clock::WallTime;

/// Whether the wall clock agrees with the one clock that can be trusted: the provider's.
#[derive(Debug, Default)]
pub(super) struct ClockBelief {
    /// What the provider's clock showed more than the boot clock at the last grant, in seconds.
    provider: Option<i64>,
}

impl ClockBelief {
    /// S3 refuses requests that are 15 min off; by 5 min somebody should know.
    const TOLERATED: u64 = 5 * 60;

    pub(super) fn compare(&mut self, now: Now, server: Option<WallTime>) {
        let shown = |wall| Now { wall, ..now }.offset();
        self.provider = server.map(shown).or(self.provider);
    }

    /// By how many seconds the wall clock is off, once that is known.
    fn skew(&self, now: Now) -> Option<u64> {
        let provider = self.provider?;
        Some(provider.abs_diff(now.offset()))
    }

    /// Rows may be judged by their date only by a clock that was seen to be right.
    pub(super) fn is_believed(&self, now: Now) -> bool {
        self.skew(now).is_some_and(|skew| skew <= Self::TOLERATED)
    }

    pub(super) fn is_wrong(&self, now: Now) -> bool {
        self.skew(now).is_some_and(|skew| skew > Self::TOLERATED)
    }
}
