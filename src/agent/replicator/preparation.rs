//! The last moments of a Litestream that is about to be stopped: a row, the guard, a sync.
//!
//! Owns their order, so that nothing is reset between the row and the stop, and that none of them
//! holds a rotation up. Stops nothing by itself.

use super::{PREPARATION_LIMIT, ROW_PACE};
use crate::agent::Action;
use crate::clock::BootTime;

#[derive(Debug)]
pub(super) struct Preparation {
    step: Step,
    deadline: BootTime,
}

#[derive(Debug)]
enum Step {
    /// A row is to be committed, so that the guard pins the WAL; tried again at `retry`. Until then
    /// Litestream's own lock holds the WAL, if it was seen to.
    Row { retry: BootTime, held: bool },
    /// The guard is to be taken, then a sync is to be asked for.
    Guard,
    /// A sync was asked for.
    Sync,
}

/// What a look at the clock leads to.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing is due, or only a step that needs nothing done.
    Waits,
    /// This is to be done.
    Does(Action),
    /// Litestream may be stopped.
    Over,
}

impl Preparation {
    /// `held`: Litestream was seen to hold the WAL.
    pub(super) fn begin(held: bool, now: BootTime) -> Self {
        Self {
            step: Step::Row { retry: now, held },
            deadline: now + PREPARATION_LIMIT,
        }
    }

    /// A row was committed, or could not be: a locked database delays a stop, and prevents none.
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
                return Progress::Does(Action::WriteRow);
            }
            // The guard itself was taken when this turn began: see `holds_wal`.
            Step::Guard => {
                self.step = Step::Sync;
                self.deadline = now + PREPARATION_LIMIT;
                return Progress::Does(Action::Sync);
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

    /// An answer to a sync is the answer to this one.
    pub(super) fn awaits_sync(&self) -> bool {
        matches!(self.step, Step::Sync)
    }

    /// The WAL needs no guard yet.
    pub(super) fn holds_wal(&self) -> bool {
        matches!(self.step, Step::Row { held: true, .. })
    }

    fn turn_to_guard(&mut self, now: BootTime) {
        self.step = Step::Guard;
        self.deadline = now;
    }
}
