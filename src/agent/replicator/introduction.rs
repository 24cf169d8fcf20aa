//! What the running Litestream replicates, as far as it has answered.
//!
//! Owns when it is asked, and the retries: an answer may get lost, and an older version gives none.
//! Never judges the answer.

use std::time::Duration;

use crate::agent::Action;
use crate::clock::BootTime;

/// It is asked again after this, doubled each time.
const FIRST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) enum Introduction {
    /// It was started, and has not answered anything yet.
    Unmet,
    /// It is asked at this time, and again after `wait`.
    Due { at: BootTime, wait: Duration },
    /// It has answered.
    Done,
}

impl Introduction {
    /// It answered a request.
    pub(super) fn meets(&mut self, now: BootTime) {
        if matches!(self, Self::Unmet) {
            *self = Self::Due {
                at: now,
                wait: FIRST,
            };
        }
    }

    pub(super) fn advance(&mut self, now: BootTime) -> Option<Action> {
        match self {
            Self::Due { at, wait } if *at <= now => {
                *at = now + *wait;
                *wait = wait.saturating_mul(2).min(LONGEST);
                Some(Action::List)
            }
            _ => None,
        }
    }

    pub(super) fn deadline(&self) -> BootTime {
        match self {
            Self::Due { at, .. } => *at,
            Self::Unmet | Self::Done => BootTime::NEVER,
        }
    }
}
