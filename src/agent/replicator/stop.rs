//! The stop of a Litestream: asked, asked again, killed.
//!
//! Owns how long each step gets. What comes after the stop is written on it, and is not its affair.

use std::time::Duration;

use crate::agent::Action;
use crate::clock::BootTime;

/// How long a stop may take before a second SIGTERM cuts Litestream's last sync short: in a rotation,
/// where what is not synced now is synced a moment later,
const ROTATION_GRACE: Duration = Duration::from_secs(10);

/// at the end of the daemon, where it is the last chance (Litestream itself gives up after 30 s),
const EXIT_GRACE: Duration = Duration::from_secs(31);

/// and where its credentials have ended, so that it can't succeed.
const HOPELESS_GRACE: Duration = Duration::from_secs(1);

/// What a second SIGTERM gets before SIGKILL.
const ABORT_LIMIT: Duration = Duration::from_secs(5);

/// A stop under way. It began with a SIGTERM, and ends with the exit.
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

/// What Litestream's last sync is worth waiting for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LastSync {
    /// What it misses is synced a moment later.
    Repeated,
    /// Nothing comes after it.
    Final,
    /// It can't succeed.
    Hopeless,
}

/// What the next step of a stop is, should it take too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Force {
    TerminateAgain,
    Kill,
    /// SIGKILL was sent; a process that survives it is stuck in the kernel.
    Wait,
}

impl Stop {
    /// The SIGTERM is for the caller to send.
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

    /// The daemon is to end. A stop that has its end in view anyway is hurried along; any other one
    /// has become the last chance to sync.
    pub(super) fn leave(&mut self, now: BootTime) {
        if self.then == Then::Exit {
            self.deadline = now;
        } else if self.force == Force::TerminateAgain {
            self.deadline = now + EXIT_GRACE;
        }
        self.then = Then::Exit;
    }

    /// The next step, where it is due.
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
