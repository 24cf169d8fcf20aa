//! The rescue of a Litestream that runs and does not follow: one restart, then ever fewer.
//!
//! Owns the pace of restarts, and whether Litestream answers at all. Never stops anything itself, and
//! never judges its answers.

use std::time::Duration;

use super::upload::Upload;
use crate::agent::replica::SOCKET_LIMIT;
use crate::clock::BootTime;

/// A Litestream that has shown nothing for this long, though asked repeatedly, is restarted. This is a
/// little more than its own longest back-off, so that it can recover by itself: a start without S3
/// loses its hold on the WAL.
const LIMIT: Duration = Duration::from_secs(360);

/// The same if it does not even say who it is: then it does not recover by itself.
const HUNG_LIMIT: Duration = Duration::from_secs(90);

/// A Litestream hangs if it does not answer a cheap request within this.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// If a restart did not help, the next one comes after this, doubled each time: the cause is most often
/// S3, or a long upload that can't be seen, which begins again with each restart.
const PACE: Duration = Duration::from_secs(3600);

/// The upper bound: the longest lifetime of a session.
const LONGEST_PACE: Duration = Duration::from_secs(43_200);

#[derive(Debug)]
pub(super) struct Rescue {
    hearing: Hearing,
    /// Of one that does not follow, and of one that hangs: a database that never follows does not put off
    /// the end of a hang.
    behind: Pace,
    hung: Pace,
}

/// When the next restart for one reason is allowed.
#[derive(Debug)]
struct Pace {
    allowed: BootTime,
    tries: u32,
}

impl Pace {
    fn free(now: BootTime) -> Self {
        Self {
            allowed: now,
            tries: 0,
        }
    }

    fn take(&mut self, now: BootTime) {
        let pace = PACE.saturating_mul(2_u32.saturating_pow(self.tries));
        self.allowed = now + pace.min(LONGEST_PACE);
        self.tries = self.tries.saturating_add(1);
    }
}

/// Whether the running Litestream answers requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hearing {
    /// It does, as far as known.
    Hears,
    /// It was asked who it is, and has to answer by then.
    Asked { by: BootTime },
    /// Nothing has listened on its control socket since then.
    Deaf { since: BootTime },
    /// It hangs, or can't be asked any more, which is no better.
    Hangs,
}

impl Rescue {
    pub(super) fn new(now: BootTime) -> Self {
        Self {
            hearing: Hearing::Hears,
            behind: Pace::free(now),
            hung: Pace::free(now),
        }
    }

    /// It was started, or has said who it is.
    pub(super) fn hears(&mut self) {
        self.hearing = Hearing::Hears;
    }

    /// It answered a sync, or nothing listened (`is_deaf`).
    pub(super) fn answered(&mut self, is_deaf: bool, now: BootTime) {
        self.hearing = match self.hearing {
            _ if !is_deaf => Hearing::Hears,
            Hearing::Hears | Hearing::Asked { .. } => Hearing::Deaf { since: now },
            Hearing::Deaf { since } if now.since(since) >= SOCKET_LIMIT => Hearing::Hangs,
            Hearing::Deaf { .. } | Hearing::Hangs => self.hearing,
        };
    }

    /// It is asked who it is.
    pub(super) fn ask(&mut self, now: BootTime) {
        if let Hearing::Hears | Hearing::Deaf { .. } = self.hearing {
            let by = now + GREETING_LIMIT;
            self.hearing = Hearing::Asked { by };
        }
    }

    /// Whether it has not said yet who it is.
    pub(super) fn asks(&self) -> bool {
        matches!(self.hearing, Hearing::Asked { .. })
    }

    /// Whether it was found to hang just now.
    pub(super) fn expire(&mut self, now: BootTime) -> bool {
        let is_late = matches!(self.hearing, Hearing::Asked { by } if by <= now);
        if is_late {
            self.hearing = Hearing::Hangs;
        }
        is_late
    }

    pub(super) fn hangs(&self) -> bool {
        self.hearing == Hearing::Hangs
    }

    /// When its answer is due.
    pub(super) fn deadline(&self) -> BootTime {
        match self.hearing {
            Hearing::Asked { by } => by,
            Hearing::Hears | Hearing::Deaf { .. } | Hearing::Hangs => BootTime::NEVER,
        }
    }

    /// When a Litestream that has shown nothing `since` then is restarted. An upload may excuse one that does
    /// not hang.
    pub(super) fn due(&self, since: BootTime, upload: &Upload) -> BootTime {
        match self.hangs() {
            true => (since + HUNG_LIMIT).max(self.hung.allowed),
            false => {
                let excused = upload.excuses_until(LIMIT);
                (since + LIMIT).max(excused).max(self.behind.allowed)
            }
        }
    }

    /// It is restarted.
    pub(super) fn begin(&mut self, now: BootTime) {
        match self.hangs() {
            true => self.hung.take(now),
            false => self.behind.take(now),
        }
    }

    /// It can't be restarted now.
    pub(super) fn put_off(&mut self, until: BootTime) {
        self.behind.allowed = until;
        self.hung.allowed = until;
    }

    /// A database follows: it does not hang, and the next hang counts as the first.
    pub(super) fn works(&mut self, now: BootTime) {
        self.hung = Pace::free(now);
    }

    /// All follow: the next trouble counts as the first.
    pub(super) fn mended(&mut self, now: BootTime) {
        self.behind = Pace::free(now);
    }
}
