//! The steps of a start: a probe for how Litestream gets credentials, a survey of its files and the
//! WALs, the WALs emptied where Litestream has to begin anew, and the launch.
//!
//! Owns the order of these steps, and their limits. Never decides what follows a step: `starting` does.

use std::time::Duration;

use crate::clock::BootTime;
use crate::config::Rotation;

/// The limit of each step: `systemctl restart` waits for the unit's own stop time-out.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// The limit for emptying the WAL of a database that is alone: 1 GiB, on flash that writes 2 MB/s.
const EMPTY_LIMIT: Duration = Duration::from_secs(600);

/// The same while other databases wait, which nobody replicates meanwhile.
const EMPTY_LIMIT_OF_MANY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Start {
    step: Step,
    /// It is known which databases Litestream's configuration names, or that this can't be known.
    is_understood: bool,
    limit: Duration,
    deadline: BootTime,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// It is found out how Litestream can get credentials.
    Probe,
    /// Its configuration is read, and its files and the WALs are examined.
    Survey(Rotation),
    /// WALs are being emptied.
    Empty(Rotation),
    /// Litestream is being started.
    Launch,
}

impl Start {
    pub(super) fn probe(now: BootTime) -> Self {
        Self::at(Step::Probe, STEP_LIMIT, now)
    }

    pub(super) fn survey(rotation: Rotation, now: BootTime) -> Self {
        Self::at(Step::Survey(rotation), STEP_LIMIT, now)
    }

    pub(super) fn empty_wals(rotation: Rotation, is_alone: bool, now: BootTime) -> Self {
        let limit = match is_alone {
            true => EMPTY_LIMIT,
            false => EMPTY_LIMIT_OF_MANY,
        };
        Self::at(Step::Empty(rotation), limit, now)
    }

    pub(super) fn launch(now: BootTime) -> Self {
        Self::at(Step::Launch, STEP_LIMIT, now)
    }

    pub(super) fn step(&self) -> Step {
        self.step
    }

    pub(super) fn understands(&mut self) {
        self.is_understood = true;
    }

    pub(super) fn is_understood(&self) -> bool {
        self.is_understood
    }

    /// Litestream or its unit was launched.
    pub(super) fn is_launched(&self) -> bool {
        self.step == Step::Launch
    }

    pub(super) fn deadline(&self) -> BootTime {
        self.deadline
    }

    /// The step that is late, and what to do about it.
    pub(super) fn trouble(&self) -> String {
        let limit = self.limit.as_secs();
        let what = match self.step {
            Step::Probe => "Litestream did not print its version",
            Step::Survey(_) => "Litestream's files could not be read",
            Step::Empty(_) => "the WAL could not be checkpointed",
            Step::Launch => {
                return format!(
                    "systemd did not restart Litestream's unit within {limit} s; check it with \
                     `systemctl status`"
                );
            }
        };
        format!("{what} within {limit} s; check the disk in the kernel's log")
    }

    fn at(step: Step, limit: Duration, now: BootTime) -> Self {
        Self {
            step,
            is_understood: false,
            limit,
            deadline: now + limit,
        }
    }
}
