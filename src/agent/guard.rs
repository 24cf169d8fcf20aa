//! The WAL guard's bounds: held from before Litestream stops until it has caught up, but no longer than
//! its cost allows.
//!
//! While Litestream is down, a checkpoint may reset the WAL; Litestream would then upload the whole
//! database again. An open read transaction prevents that, at the price of a growing WAL. Owns when the
//! guard is taken and released. Never holds it: `store` does.

use std::time::Duration;

use super::Action;
use super::watch::Outbox;
use crate::clock::BootTime;

/// The longest hold: after this a full upload is cheaper than a WAL that grows without end.
pub(super) const HOLD_LIMIT: Duration = Duration::from_secs(300);

/// The retry of a guard that could not be taken.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) enum Guard {
    /// Neither held nor wanted.
    #[default]
    Open,
    /// Requested; `failed` is the cause of an earlier failure.
    Asked { failed: Option<String> },
    /// Held, until then at the most.
    Held { since: BootTime, until: BootTime },
    /// Could not be taken.
    Failed { cause: String, retry: BootTime },
    /// It reached a bound, and stays released until Litestream has caught up once.
    Spent,
}

impl Guard {
    /// Takes or releases the guard as `wanted`; an upload over a slow line was last seen to have `moved` then: what
    /// is let go of meanwhile would have to be uploaded once more. Returns whether it is released at a bound.
    #[must_use]
    pub(super) fn advance(
        &mut self,
        wanted: bool,
        moved: Option<BootTime>,
        now: BootTime,
        out: &mut Outbox<'_>,
    ) -> bool {
        if let (Self::Held { until, .. }, Some(moved)) = (&mut *self, moved) {
            *until = (*until).max(moved + HOLD_LIMIT);
        }
        match (&*self, wanted) {
            (Self::Open, true) => self.ask(None, out),
            (Self::Failed { cause, retry }, true) if *retry <= now => {
                self.ask(Some(cause.clone()), out);
            }
            (Self::Held { until, .. }, true) if *until <= now => {
                self.spend("Litestream has been down too long", out);
                return true;
            }
            (Self::Held { .. }, false) => {
                out.push(Action::ReleaseGuard(out.database));
                *self = Self::Open;
            }
            (Self::Failed { .. } | Self::Spent, false) => *self = Self::Open,
            _ => {}
        }
        false
    }

    /// The database is not watched any more.
    pub(super) fn goes(&mut self, out: &mut Outbox<'_>) {
        if self.may_hold() {
            out.push(Action::ReleaseGuard(out.database));
        }
        *self = Self::Open;
    }

    pub(super) fn taken(
        &mut self,
        result: Result<(), String>,
        now: BootTime,
        out: &mut Outbox<'_>,
    ) {
        if let Self::Asked { failed } = self {
            *self = match result {
                Ok(()) => Self::Held {
                    since: now,
                    until: now + HOLD_LIMIT,
                },
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

    /// The WAL has grown past its limit. Returns whether the guard is released.
    #[must_use]
    pub(super) fn too_large(&mut self, out: &mut Outbox<'_>) -> bool {
        let is_held = matches!(self, Self::Held { .. });
        if is_held {
            self.spend("the WAL has reached [database] wal_guard", out);
        }
        is_held
    }

    pub(super) fn deadline(&self) -> BootTime {
        match self {
            Self::Held { until, .. } => *until,
            Self::Failed { retry, .. } => *retry,
            Self::Open | Self::Asked { .. } | Self::Spent => BootTime::NEVER,
        }
    }

    /// The guard holds the WAL, or is about to.
    pub(super) fn may_hold(&self) -> bool {
        matches!(self, Self::Asked { .. } | Self::Held { .. })
    }

    /// Since when the guard is held, if it is.
    pub(super) fn held_since(&self) -> Option<BootTime> {
        match self {
            Self::Held { since, .. } => Some(*since),
            _ => None,
        }
    }

    fn ask(&mut self, failed: Option<String>, out: &mut Outbox<'_>) {
        *self = Self::Asked { failed };
        out.push(Action::TakeGuard(out.database));
    }

    /// From now on the WAL may be reset without a trace, so it is emptied. Other readers, Litestream
    /// among them, prevent that, and hold the WAL meanwhile.
    fn spend(&mut self, why: &str, out: &mut Outbox<'_>) {
        *self = Self::Spent;
        out.push(Action::AbandonGuard(out.database));
        out.warn(format!(
            "the WAL is released, because {why}; Litestream may have to upload the whole database"
        ));
    }
}
