//! What becomes of a Litestream that runs and does not follow: it is restarted, once, and then ever less
//! often.
//!
//! Owns the pace of that, and what is known of whether it hears at all. Stops nothing by itself, and knows
//! nothing of what its answers say.

use std::time::Duration;

use super::catch_up::SOCKET_LIMIT;
use crate::clock::BootTime;

/// Litestream that was asked for so long, again and again, and has shown nothing, is restarted: a little
/// later than its own longest back-off, so that what mends itself is left alone. A start without S3 costs
/// it its hold on the WAL.
const LIMIT: Duration = Duration::from_secs(360);

/// The same where it does not even say who it is: nothing mends that.
const HUNG_LIMIT: Duration = Duration::from_secs(90);

/// One that does not answer within this what costs it nothing hangs.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// What a restart did not mend is not tried again sooner than this, and twice as late each time: it is
/// S3, most often, or an upload that takes its time, and has to begin again with each restart.
const PACE: Duration = Duration::from_secs(3600);

/// No later than this: the longest session's life.
const LONGEST_PACE: Duration = Duration::from_secs(43_200);

#[derive(Debug)]
pub(super) struct Rescue {
    hearing: Hearing,
    allowed: BootTime,
    tries: u32,
}

/// Whether the Litestream that runs hears what it is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hearing {
    /// As far as is known.
    Hears,
    /// It was asked who it is, and is to say so by then.
    Asked { by: BootTime },
    /// Nothing listens on its control socket since then.
    Deaf { since: BootTime },
    /// It hangs, or can't be asked any more, which is no better.
    Hangs,
}

impl Rescue {
    pub(super) fn new(now: BootTime) -> Self {
        Self {
            hearing: Hearing::Hears,
            allowed: now,
            tries: 0,
        }
    }

    /// It was started, or has said who it is.
    pub(super) fn hears(&mut self) {
        self.hearing = Hearing::Hears;
    }

    /// It answered a sync, or nobody listened (`is_deaf`).
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

    /// Whether it has just been found to hang.
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

    /// When it is to say who it is.
    pub(super) fn deadline(&self) -> BootTime {
        match self.hearing {
            Hearing::Asked { by } => by,
            Hearing::Hears | Hearing::Deaf { .. } | Hearing::Hangs => BootTime::NEVER,
        }
    }

    /// When it is restarted, which has shown nothing `since`.
    pub(super) fn due(&self, since: BootTime) -> BootTime {
        let limit = match self.hangs() {
            true => HUNG_LIMIT,
            false => LIMIT,
        };
        (since + limit).max(self.allowed)
    }

    /// It is restarted.
    pub(super) fn begin(&mut self, now: BootTime) {
        let pace = PACE.saturating_mul(2_u32.saturating_pow(self.tries));
        self.allowed = now + pace.min(LONGEST_PACE);
        self.tries = self.tries.saturating_add(1);
    }

    /// It can't be restarted now.
    pub(super) fn put_off(&mut self, until: BootTime) {
        self.allowed = until;
    }

    /// It follows: what comes then is another matter.
    pub(super) fn mended(&mut self, now: BootTime) {
        self.allowed = now;
        self.tries = 0;
    }
}
