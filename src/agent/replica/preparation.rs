//! The preparation of a stop of Litestream: a row, the guard, a sync.
//!
//! Owns their order, so that the WAL is not reset between the row and the stop, and no step delays a
//! rotation too long. Never stops anything itself.

use super::{PREPARATION_LIMIT, ROW_PACE};
use crate::clock::BootTime;

#[derive(Debug)]
pub(super) struct Preparation {
    step: Step,
    deadline: BootTime,
}

#[derive(Debug)]
enum Step {
    /// A row is committed first, so that the guard pins the WAL; retried at `retry`. Until then
    /// Litestream's own read lock holds the WAL, if `held`.
    Row { retry: BootTime, held: bool },
    /// The guard is taken, then a sync is requested.
    Guard,
    /// A sync was requested.
    Sync,
}

/// What a replica needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::agent) enum Request {
    /// A heartbeat row.
    Row,
    /// An answer of Litestream.
    Sync,
}

/// The next thing to do.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing is due, or only a step without an action.
    Waits,
    /// Do this.
    Does(Request),
    /// Litestream may be stopped.
    Over,
}

impl Preparation {
    /// `held`: Litestream is known to hold the WAL.
    pub(super) fn begin(held: bool, now: BootTime) -> Self {
        Self {
            step: Step::Row { retry: now, held },
            deadline: now + PREPARATION_LIMIT,
        }
    }

    /// A row was committed, or could not be: a locked database delays a stop, but does not prevent it.
    pub(super) fn row(&mut self, committed: bool, now: BootTime) {
        match &mut self.step {
            Step::Row { .. } if committed => self.turn_to_guard(now),
            Step::Row { retry, .. } => *retry = now + ROW_PACE,
            Step::Guard | Step::Sync => {}
        }
    }

    pub(super) fn advance(&mut self, heartbeat: bool, now: BootTime) -> Progress {
        let late = self.deadline <= now;
        match &mut self.step {
            Step::Row { .. } if !heartbeat || late => self.turn_to_guard(now),
            Step::Row { retry, .. } if *retry <= now => {
                *retry = BootTime::NEVER;
                return Progress::Does(Request::Row);
            }
            // The guard was taken when this step began: see `holds_wal`.
            Step::Guard => {
                self.step = Step::Sync;
                self.deadline = now + PREPARATION_LIMIT;
                return Progress::Does(Request::Sync);
            }
            Step::Sync if late => return Progress::Over,
            Step::Row { .. } | Step::Sync => {}
        }
        Progress::Waits
    }

    pub(super) fn deadline(&self) -> BootTime {
        match self.step {
            Step::Row { retry, .. } => retry.min(self.deadline),
            Step::Guard | Step::Sync => self.deadline,
        }
    }

    /// Whether an answer to a sync belongs to this preparation.
    pub(super) fn awaits_sync(&self) -> bool {
        matches!(self.step, Step::Sync)
    }

    /// Litestream holds the WAL: no guard is needed yet.
    pub(super) fn holds_wal(&self) -> bool {
        matches!(self.step, Step::Row { held: true, .. })
    }

    fn turn_to_guard(&mut self, now: BootTime) {
        self.step = Step::Guard;
        self.deadline = now;
    }
}
