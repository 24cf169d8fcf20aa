//! The catch-up of a Litestream that was just started: a new row, then a sync that shows it replicated.
//!
//! Owns when Litestream is asked to sync, the retries, and whether it has a control socket at all.
//! Never decides what an answer means for the device: the replicator does.

use std::time::Duration;

use super::preparation::Request;
use super::{PREPARATION_LIMIT, ROW_PACE};
use crate::agent::backoff::{Backoff, Jitter};
use crate::agent::proof::Finding;
use crate::clock::BootTime;
use crate::litestream::answer::{BEGINNING_MISSED, SyncFailure};

/// A Litestream without a control socket after this time has none; a slow or busy device takes long to
/// start a program of 36 MB.
pub(in crate::agent) const SOCKET_LIMIT: Duration = Duration::from_secs(45);

/// The same, if the last one had none either.
const NO_SOCKET_LIMIT: Duration = Duration::from_secs(10);

/// How often a missing socket is still looked for.
const LOOK_PACE: Duration = Duration::from_secs(30);

/// How often a new socket is looked for: each look is a failed connect, and the wait adds to the gap.
const SOCKET_PACE: Duration = Duration::from_millis(50);

/// A sync that takes longer is late. Litestream continues it, and its answer still counts.
const SYNC_LIMIT: Duration = Duration::from_secs(20);

/// A sync that is this late is requested again. Litestream tries ten times, for 2 min, before it
/// reports why S3 fails, and makes no second attempt in parallel.
const LATE_LIMIT: Duration = Duration::from_secs(180);

/// The retry of a failed sync: it also ends Litestream's own back-off, which grows to 5 min.
const SYNC_RETRY: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
    least: Duration::from_millis(500),
};

/// How far a Litestream that was just started has come, as far as known.
#[derive(Debug)]
pub(super) enum CatchUp {
    /// A row is committed first, so that a sync has something to show.
    Row {
        retry: BootTime,
        until: BootTime,
        failures: u32,
    },
    /// A sync is due at that time.
    Due { at: BootTime, failures: u32 },
    /// A sync was requested.
    Asked { deadline: BootTime, failures: u32 },
    /// Its answer is late. It may still come, with the reason, until this time.
    Late { until: BootTime, failures: u32 },
    /// It has caught up. The next sync comes `from` then on, once something was committed (`wanted`).
    Done { from: BootTime, wanted: bool },
    /// It had caught up, and is asked whether it still follows.
    Confirming { deadline: BootTime },
    /// It has no control socket, as far as known; `look` is the next look.
    Unmeasured { look: BootTime },
}

/// Whether this device's Litestream has a control socket, as far as seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::agent) enum Socket {
    Unknown,
    Seen,
    Absent,
}

/// What an answer's meaning depends on.
#[derive(Clone, Copy, Debug)]
pub(in crate::agent) struct Asker {
    /// How long the Litestream that was asked has been up.
    pub(in crate::agent) age: Duration,
    /// Heartbeat rows are written.
    pub(in crate::agent) rows: bool,
    /// How soon a replica that follows is asked again, where something was committed.
    pub(in crate::agent) pace: Duration,
}

/// What an answer to a sync says about the replica.
#[derive(Debug)]
pub(in crate::agent) enum Verdict {
    /// Not caught up; it is asked again. With the reason, if there is one to report.
    Behind(Option<String>),
    /// The replica holds everything.
    CaughtUp,
    /// Without a control socket it can't be known.
    Unmeasured,
    /// Its local state is broken or wrong, for this reason.
    StateUseless(String),
}

impl CatchUp {
    pub(super) fn begin(now: BootTime) -> Self {
        Self::row_from(now, 0)
    }

    fn row_from(at: BootTime, failures: u32) -> Self {
        Self::Row {
            retry: at,
            until: at + PREPARATION_LIMIT,
            failures,
        }
    }

    /// A sync is due at once.
    pub(super) fn due(now: BootTime) -> Self {
        Self::Due {
            at: now,
            failures: 0,
        }
    }

    pub(super) fn row(&mut self, committed: bool, now: BootTime) {
        match self {
            Self::Row { failures, .. } if committed => {
                *self = Self::Due {
                    at: now,
                    failures: *failures,
                };
            }
            Self::Row { retry, .. } => *retry = now + ROW_PACE,
            Self::Done { wanted, .. } => *wanted |= committed,
            _ => {}
        }
    }

    /// The application has committed something, perhaps.
    pub(super) fn want(&mut self) {
        if let Self::Done { wanted, .. } = self {
            *wanted = true;
        }
    }

    /// A replica that follows is checked then.
    pub(super) fn keep_pace(&mut self, next: BootTime) {
        if let Self::Done { from, .. } = self {
            *from = next;
        }
    }

    /// A replica that follows is checked then, if it is not checked before, and if there is something to check.
    pub(super) fn hurry(&mut self, at: BootTime) {
        if let Self::Done { from, .. } = self {
            *from = (*from).min(at);
        }
    }

    /// A replica that follows is checked at once.
    pub(super) fn confirm(&mut self, now: BootTime) {
        if let Self::Done { from, wanted } = self {
            (*from, *wanted) = (now, true);
        }
    }

    /// Something changed that may let a failing sync succeed.
    pub(super) fn hasten(&mut self, now: BootTime) {
        if let Self::Due { at, .. } = self {
            *at = (*at).min(now);
        }
    }

    /// Litestream answered a sync; `next`: where that is a proof, when the next one is asked for, and whether
    /// there is a newer row that this one does not cover. `None`: no news.
    pub(super) fn answered(
        &mut self,
        result: Result<Finding, SyncFailure>,
        asker: Asker,
        next: (BootTime, bool),
        socket: &mut Socket,
        jitter: &mut Jitter,
        now: BootTime,
    ) -> Option<Verdict> {
        let failures = match *self {
            Self::Asked { failures, .. }
            | Self::Late { failures, .. }
            | Self::Due { failures, .. } => failures,
            Self::Confirming { .. } => 0,
            Self::Unmeasured { .. } if result != Err(SyncFailure::NoSocket) => 0,
            _ => return None,
        };
        if result != Err(SyncFailure::NoSocket) {
            *socket = Socket::Seen;
        }
        let mut again = |failures, wait| {
            *self = Self::Due {
                at: now + wait,
                failures,
            };
        };
        let failed = failures + 1;
        Some(match result {
            Ok(Finding::Proved) => {
                let (from, wanted) = next;
                *self = Self::Done { from, wanted };
                Verdict::CaughtUp
            }
            // A new row, and then a sync of it.
            Ok(Finding::Begun) => {
                *self = Self::row_from(now, 0);
                Verdict::Behind(None)
            }
            Ok(Finding::Unread) => {
                // It may have been read before the request; a new row can't have been.
                let first = failures == 0 && asker.rows;
                let at = match first {
                    true => now,
                    false => now + SYNC_RETRY.wait(failed, jitter),
                };
                *self = Self::row_from(at, failed);
                Verdict::Behind((!first).then(|| UNREAD.to_owned()))
            }
            Ok(Finding::Behind) => {
                again(failed, SYNC_RETRY.wait(failed, jitter));
                Verdict::Behind(None)
            }
            Ok(Finding::Broken(why)) => {
                again(failed, SYNC_RETRY.wait(failed, jitter));
                Verdict::StateUseless(why.to_owned())
            }
            Err(SyncFailure::NoSocket) if has_none(*socket, asker.age) => {
                *socket = Socket::Absent;
                *self = Self::Unmeasured {
                    look: now + LOOK_PACE,
                };
                Verdict::Unmeasured
            }
            Err(SyncFailure::NoSocket) if asker.age >= SOCKET_LIMIT => {
                again(failed, SYNC_RETRY.wait(failed, jitter));
                Verdict::Behind(Some(NO_SOCKET.to_owned()))
            }
            Err(SyncFailure::NoSocket) => {
                again(failures, SOCKET_PACE);
                Verdict::Behind(None)
            }
            Err(SyncFailure::StateCorrupt(cause)) => {
                again(failed, SYNC_RETRY.wait(failed, jitter));
                Verdict::StateUseless(format!("Litestream can't read its local state ({cause})"))
            }
            Err(SyncFailure::BeginningMissed) => {
                again(failed, SYNC_RETRY.wait(failed, jitter));
                Verdict::StateUseless(BEGINNING_MISSED.to_owned())
            }
            Err(SyncFailure::SessionEnded(cause) | SyncFailure::Failed(cause)) => {
                again(failed, SYNC_RETRY.wait(failed, jitter));
                Verdict::Behind(Some(cause))
            }
        })
    }

    /// A sync past its deadline means that the replica is behind.
    pub(super) fn expire(&mut self, now: BootTime) -> Option<Verdict> {
        let failures = match *self {
            Self::Asked { deadline, failures } if deadline <= now => failures + 1,
            Self::Confirming { deadline } if deadline <= now => 1,
            _ => return None,
        };
        *self = Self::Late {
            until: now + LATE_LIMIT,
            failures,
        };
        Some(Verdict::Behind(Some(NO_ANSWER.to_owned())))
    }

    /// The next step, if it is due.
    pub(super) fn advance(&mut self, heartbeat: bool, now: BootTime) -> Option<Request> {
        match self {
            // A database that can't be written to can still be replicated.
            Self::Row {
                retry, failures, ..
            } if !heartbeat => {
                *self = Self::Due {
                    at: *retry,
                    failures: *failures,
                };
            }
            Self::Row {
                until, failures, ..
            } if *until <= now => {
                *self = Self::Due {
                    at: now,
                    failures: *failures,
                };
            }
            Self::Row { retry, .. } if *retry <= now => {
                *retry = BootTime::NEVER;
                return Some(Request::Row);
            }
            Self::Due { at, failures }
            | Self::Late {
                until: at,
                failures,
            } if *at <= now => {
                *self = Self::Asked {
                    deadline: now + SYNC_LIMIT,
                    failures: *failures,
                };
                return Some(Request::Sync);
            }
            Self::Done { from, wanted: true } if *from <= now => {
                *self = Self::Confirming {
                    deadline: now + SYNC_LIMIT,
                };
                return Some(Request::Sync);
            }
            Self::Unmeasured { look } if *look <= now => {
                *look = now + LOOK_PACE;
                return Some(Request::Sync);
            }
            _ => {}
        }
        None
    }

    pub(super) fn deadline(&self) -> BootTime {
        match self {
            Self::Row { retry, until, .. } => (*retry).min(*until),
            Self::Due { at, .. } | Self::Late { until: at, .. } => *at,
            Self::Asked { deadline, .. } | Self::Confirming { deadline } => *deadline,
            Self::Unmeasured { look } => *look,
            Self::Done { from, wanted: true } => *from,
            Self::Done { wanted: false, .. } => BootTime::NEVER,
        }
    }

    /// It has nothing more to do for now.
    pub(super) fn is_done(&self) -> bool {
        matches!(
            self,
            Self::Done { .. } | Self::Confirming { .. } | Self::Unmeasured { .. }
        )
    }
}

/// Whether a Litestream without a socket at that age will not get one. If there was one before, a
/// missing one is a fault.
fn has_none(socket: Socket, age: Duration) -> bool {
    match socket {
        Socket::Seen => false,
        Socket::Unknown => age >= SOCKET_LIMIT,
        Socket::Absent => age >= NO_SOCKET_LIMIT,
    }
}

/// The problem of a Litestream whose sync is late.
pub(in crate::agent) const NO_ANSWER: &str =
    "its sync has taken more than 20 s; S3 may be slow or unreachable";

/// The problem of a Litestream that reads nothing of what was written.
const UNREAD: &str = "it reports success, but has not read the newest rows; another file may have taken \
                      the database's place";

/// The problem of a missing socket.
const NO_SOCKET: &str = "nothing listens on its control socket any more; see Litestream's log";
