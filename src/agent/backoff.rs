//! Retries: waits that grow, at random moments, so that a fleet does not retry in step.
//!
//! Owns the agent's only source of chance: a generator with a seed, so that a run can be repeated.

use std::time::Duration;

/// How long to wait after a number of failures in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// The bound after the first failure; each further failure doubles it.
    pub(super) first: Duration,
    /// The largest bound.
    pub(super) longest: Duration,
    /// The shortest wait.
    pub(super) least: Duration,
}

impl Backoff {
    /// The wait after `failures` (at least one) in a row: random between the least and the bound ("full
    /// jitter"), so that devices that failed together do not retry together.
    pub(super) fn wait(&self, failures: u32, jitter: &mut Jitter) -> Duration {
        let doubled = 1u32
            .checked_shl(failures.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let bound = self.first.saturating_mul(doubled.max(1)).min(self.longest);
        jitter.between(self.least, bound)
    }
}

/// A small generator with an even distribution (SplitMix64); for spreading load, not for secrets.
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A duration from `least` to `most`, to the millisecond; `least` if that is longer.
    pub(super) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from(most.saturating_sub(least).as_millis()).unwrap_or(u64::MAX);
        least + Duration::from_millis(self.next() % span.saturating_add(1).max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_never_fall_below_the_least() {
        let seconds = Duration::from_secs;
        let backoff = Backoff {
            first: seconds(1),
            longest: seconds(60),
            least: seconds(1) / 2,
        };
        let mut jitter = Jitter::new(1);
        for failures in 1..200 {
            let bound = seconds(1 << (failures - 1).min(6)).min(seconds(60));
            let waits: Vec<_> = (0..200)
                .map(|_| backoff.wait(failures, &mut jitter))
                .collect();
            assert!(
                waits.iter().all(|w| (seconds(1) / 2..=bound).contains(w)),
                "{failures}"
            );
            // Full jitter: the waits are spread over the range, not gathered at its end.
            assert!(waits.iter().any(|w| *w < bound * 2 / 3), "{failures}");
        }
    }
}
