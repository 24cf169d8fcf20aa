//! The question what the running Litestream replicates.
//!
//! Owns when it is asked, and asked again: an answer may get lost, an older version has none, and where
//! Litestream watches a folder the answer changes. Never deals with the answer.

use std::time::Duration;

use crate::agent::Action;
use crate::clock::BootTime;

/// The retry, doubled each time.
const FIRST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(3600);

/// How often it is asked if databases come and go.
const PACE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) enum Introduction {
    /// Litestream was started, and has not answered any request yet.
    Unmet,
    /// It is asked at this time, and again after the wait.
    Due { at: BootTime, wait: Duration },
    /// It has told; asked again at this time.
    Done { again: BootTime },
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

    /// It listed its databases, which may come and go (`changes`), or not.
    pub(super) fn done(&mut self, changes: bool, now: BootTime) {
        let again = match changes {
            true => now + PACE,
            false => BootTime::NEVER,
        };
        *self = Self::Done { again };
    }

    pub(super) fn advance(&mut self, now: BootTime) -> Option<Action> {
        match self {
            Self::Due { at, wait } if *at <= now => {
                *at = now + *wait;
                *wait = wait.saturating_mul(2).min(LONGEST);
                Some(Action::List)
            }
            Self::Done { again } if *again <= now => {
                *again = now + PACE;
                Some(Action::List)
            }
            _ => None,
        }
    }

    pub(super) fn deadline(&self) -> BootTime {
        match self {
            Self::Due { at, .. } | Self::Done { again: at } => *at,
            Self::Unmet => BootTime::NEVER,
        }
    }
}
