//! The WAL guard's bounds: held from before Litestream stops until it has caught up, and no longer
//! than it may cost.
//!
//! While Litestream is down, a checkpoint may reset the WAL under it; it would have to upload the
//! whole database again. An open read transaction forbids that, at the price of a WAL that grows.
//! Owns when it is taken and let go; how, is the store's.

use std::time::Duration;

use super::{Action, Actions};
use crate::clock::BootTime;

/// The longest that the guard may hold: past it a full upload is cheaper than a WAL without end.
pub(super) const HOLD_LIMIT: Duration = Duration::from_secs(300);

/// A guard that could not be taken is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) enum Guard {
    /// Not held, nor wanted.
    #[default]
    Open,
    /// Asked for; after a failure, whose cause is known.
    Asked { failed: Option<String> },
    /// Held.
    Held { since: BootTime },
    /// Could not be taken.
    Failed { cause: String, retry: BootTime },
    /// It reached a bound, and stays open until Litestream has caught up once.
    Spent,
}

impl Guard {
    /// Takes or releases it, now that it is `wanted` or not. Whether it is let go at a bound.
    #[must_use]
    pub(super) fn advance(&mut self, wanted: bool, now: BootTime, out: &mut Actions) -> bool {
        match (&*self, wanted) {
            (Self::Open, true) => self.ask(None, out),
            (Self::Failed { cause, retry }, true) if *retry <= now => {
                self.ask(Some(cause.clone()), out);
            }
            (Self::Held { since }, true) if *since + HOLD_LIMIT <= now => {
                self.spend("Litestream has been down too long", out);
                return true;
            }
            (Self::Held { .. }, false) => {
                out.push(Action::ReleaseGuard);
                *self = Self::Open;
            }
            (Self::Failed { .. } | Self::Spent, false) => *self = Self::Open,
            _ => {}
        }
        false
    }

    /// Another database has taken the place of the one whose WAL it holds.
    pub(super) fn moves(&mut self, out: &mut Actions) {
        if self.may_hold() {
            out.push(Action::ReleaseGuard);
        }
        *self = Self::Open;
    }

    pub(super) fn taken(&mut self, result: Result<(), String>, now: BootTime, out: &mut Actions) {
        if let Self::Asked { failed } = self {
            *self = match result {
                Ok(()) => Self::Held { since: now },
                Err(cause) => {
                    if failed.as_ref() != Some(&cause) {
                        out.warn(format!(
                            "the WAL can't be held while Litestream is down: {cause}"
                        ));
                    }
                    Self::Failed {
                        cause,
                        retry: now + RETRY,
                    }
                }
            };
        }
    }

    /// The WAL has grown past what it may cost. Whether it is let go.
    #[must_use]
    pub(super) fn too_large(&mut self, out: &mut Actions) -> bool {
        let is_held = matches!(self, Self::Held { .. });
        if is_held {
            self.spend("the WAL has reached [database] wal_guard", out);
        }
        is_held
    }

    pub(super) fn deadline(&self) -> BootTime {
        match self {
            Self::Held { since } => *since + HOLD_LIMIT,
            Self::Failed { retry, .. } => *retry,
            Self::Open | Self::Asked { .. } | Self::Spent => BootTime::NEVER,
        }
    }

    /// It holds the WAL, or is about to.
    pub(super) fn may_hold(&self) -> bool {
        matches!(self, Self::Asked { .. } | Self::Held { .. })
    }

    /// Since when it has been held, if it is.
    pub(super) fn held_since(&self) -> Option<BootTime> {
        match self {
            Self::Held { since } => Some(*since),
            _ => None,
        }
    }

    fn ask(&mut self, failed: Option<String>, out: &mut Actions) {
        *self = Self::Asked { failed };
        out.push(Action::TakeGuard);
    }

    /// From here on the WAL may be reset at any time, and nobody would know at which: it is emptied. Where
    /// others read, Litestream among them, it can't be, and they hold it meanwhile.
    fn spend(&mut self, why: &str, out: &mut Actions) {
        *self = Self::Spent;
        out.push(Action::AbandonGuard);
        out.warn(format!(
            "the WAL is released, because {why}; Litestream may have to upload the whole database"
        ));
    }
}
