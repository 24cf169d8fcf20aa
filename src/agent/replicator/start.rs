//! The steps of a start: a probe for how Litestream gets credentials, a survey of its files and the
//! WAL, the WAL emptied if Litestream has to begin anew, and the launch.
//!
//! Owns the order of these steps, and their limits. Never decides what follows a step: `starting` does.

use std::time::Duration;

use crate::agent::Action;
use crate::clock::BootTime;
use crate::config::Rotation;

/// The limit of each step: `systemctl restart` waits for the unit's own stop time-out.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// The limit for emptying the WAL: 1 GiB, on flash that writes 2 MB/s.
const EMPTY_LIMIT: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Start {
    step: Step,
    deadline: BootTime,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// It is found out how Litestream can get credentials.
    Probe,
    /// Its files and the WAL are examined.
    Survey(Rotation),
    /// The WAL is to be emptied, once our guard has released it.
    Hold(Rotation, Because),
    /// It is being emptied.
    Empty(Rotation, Because),
    /// Litestream is being started.
    Launch,
}

/// Why Litestream has to begin anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Because {
    /// The WAL was reset while it was down. Its replica is right until it is started.
    WalWasReset,
    /// Its replica is already wrong.
    ReplicaIsBroken,
}

impl Start {
    pub(super) fn probe(now: BootTime) -> (Self, Action) {
        (Self::at(Step::Probe, STEP_LIMIT, now), Action::Probe)
    }

    pub(super) fn survey(rotation: Rotation, now: BootTime) -> (Self, Action) {
        let step = Step::Survey(rotation);
        (Self::at(step, STEP_LIMIT, now), Action::Survey)
    }

    pub(super) fn empty_wal(rotation: Rotation, because: Because, now: BootTime) -> Self {
        Self::at(Step::Hold(rotation, because), EMPTY_LIMIT, now)
    }

    pub(super) fn launch(now: BootTime) -> Self {
        Self::at(Step::Launch, STEP_LIMIT, now)
    }

    /// The next step, if only the guard was waited for.
    pub(super) fn advance(&mut self, is_guarded: bool) -> Option<Action> {
        match self.step {
            Step::Hold(rotation, because) if !is_guarded => {
                self.step = Step::Empty(rotation, because);
                Some(Action::EmptyWal)
            }
            _ => None,
        }
    }

    pub(super) fn deadline(&self) -> BootTime {
        self.deadline
    }

    /// The step that is late, and what to do about it.
    pub(super) fn trouble(&self) -> String {
        let limit = match self.step {
            Step::Hold(..) | Step::Empty(..) => EMPTY_LIMIT,
            Step::Probe | Step::Survey(_) | Step::Launch => STEP_LIMIT,
        };
        let what = match self.step {
            Step::Probe => "Litestream did not print its version",
            Step::Survey(_) => "Litestream's files could not be read",
            Step::Hold(..) | Step::Empty(..) => "the WAL could not be checkpointed",
            Step::Launch => {
                return format!(
                    "systemd did not restart Litestream's unit within {} s; check it with `systemctl status`",
                    limit.as_secs()
                );
            }
        };
        format!(
            "{what} within {} s; check the disk in the kernel's log",
            limit.as_secs()
        )
    }

    pub(super) fn is_probe(&self) -> bool {
        self.step == Step::Probe
    }

    /// The rotation of the survey that is under way.
    pub(super) fn surveyed(&self) -> Option<Rotation> {
        match self.step {
            Step::Survey(rotation) => Some(rotation),
            _ => None,
        }
    }

    /// The rotation and the reason of the WAL's emptying that is under way.
    pub(super) fn emptied(&self) -> Option<(Rotation, Because)> {
        match self.step {
            Step::Empty(rotation, because) => Some((rotation, because)),
            _ => None,
        }
    }

    /// Litestream or its unit was launched.
    pub(super) fn is_launched(&self) -> bool {
        self.step == Step::Launch
    }

    /// The WAL is being emptied, which any read lock prevents.
    pub(super) fn empties_wal(&self) -> bool {
        matches!(self.step, Step::Hold(..) | Step::Empty(..))
    }

    fn at(step: Step, limit: Duration, now: BootTime) -> Self {
        Self {
            step,
            deadline: now + limit,
        }
    }
}
