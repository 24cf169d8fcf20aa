//! The stop of Litestream: SIGTERM, a second SIGTERM, SIGKILL.
//!
//! Owns the limit of each step. Never does what comes after the stop: it only carries it.

use std::time::Duration;

use crate::agent::Action;
use crate::clock::BootTime;

/// How long a stop may take before a second SIGTERM aborts Litestream's last sync: in a rotation, where
/// the next start syncs the rest,
const ROTATION_GRACE: Duration = Duration::from_secs(10);

/// at the end of the daemon, where it is the last chance (Litestream itself gives up after 30 s),
const EXIT_GRACE: Duration = Duration::from_secs(31);

/// and after its credentials have expired, so that it can't succeed.
const HOPELESS_GRACE: Duration = Duration::from_secs(1);

/// The time between a second SIGTERM and SIGKILL.
const ABORT_LIMIT: Duration = Duration::from_secs(5);

/// A stop under way, from SIGTERM to the exit.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) then: Then,
    force: Force,
    deadline: BootTime,
}

/// What comes after a stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Then {
    Start,
    Reset,
    Exit,
}

/// Whether Litestream's last sync is worth a wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LastSync {
    /// The next start syncs what it misses.
    Repeated,
    /// Nothing comes after it.
    Final,
    /// It can't succeed.
    Hopeless,
}

/// The next step if a stop takes too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Force {
    TerminateAgain,
    Kill,
    /// SIGKILL was sent; a process that survives it is stuck in the kernel.
    Wait,
}

impl Stop {
    /// The caller sends the SIGTERM.
    pub(super) fn begin(then: Then, last_sync: LastSync, now: BootTime) -> Self {
        let grace = match last_sync {
            LastSync::Repeated => ROTATION_GRACE,
            LastSync::Final => EXIT_GRACE,
            LastSync::Hopeless => HOPELESS_GRACE,
        };
        Self {
            then,
            force: Force::TerminateAgain,
            deadline: now + grace,
        }
    }

    /// The daemon is asked to end. A stop for that end is hastened; any other stop becomes the last
    /// chance to sync.
    pub(super) fn leave(&mut self, now: BootTime) {
        if self.then == Then::Exit {
            self.deadline = now;
        } else if self.force == Force::TerminateAgain {
            self.deadline = now + EXIT_GRACE;
        }
        self.then = Then::Exit;
    }

    /// The next step, if it is due.
    pub(super) fn advance(&mut self, now: BootTime) -> Option<Action> {
        if now < self.deadline {
            return None;
        }
        self.deadline = now + ABORT_LIMIT;
        match self.force {
            Force::TerminateAgain => {
                self.force = Force::Kill;
                Some(Action::Terminate)
            }
            Force::Kill => {
                self.force = Force::Wait;
                Some(Action::Kill)
            }
            Force::Wait => {
                self.deadline = BootTime::NEVER;
                None
            }
        }
    }

    pub(super) fn deadline(&self) -> BootTime {
        self.deadline
    }
}
