//! How much may be lost with a device: the recovery point objective, and what follows from it.
//!
//! Owns the pace of the proofs and the bound of health. Never knows a database, and never asks anything.

use std::time::Duration;

/// A hand-over, or a slow upload, is no fault: so much later is still healthy.
const GRACE: Duration = Duration::from_secs(60);

/// What was committed longer ago than this is on the replica.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rpo(Duration);

impl Rpo {
    /// This much may be lost.
    pub const fn new(most: Duration) -> Self {
        Self(most)
    }

    /// How much that is.
    pub const fn most(self) -> Duration {
        self.0
    }

    /// How soon after a proof the next one is asked for, where something was committed. The rest of the time
    /// is the upload's.
    pub fn pace(self) -> Duration {
        self.0 * 5 / 6
    }

    /// A device is healthy while nothing that is older is unproved.
    pub const fn bound(self) -> Duration {
        self.0.saturating_add(GRACE)
    }
}
