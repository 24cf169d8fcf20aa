//! Whether the replica holds the database's very bytes: the daemon's own `verify`, at a pace, and what
//! follows from it.
//!
//! Owns when a database is verified, what the last one showed, and when a difference is mended by a new
//! snapshot: at most once per pace. A difference outlasts a restart of edgerepl and any plan of a restore,
//! which sees no content: only a verify that holds ends it. Never makes the snapshot itself, and never
//! says which database's turn it is: one at a time is verified on the whole device.
//!
//! ```text
//!            proof, the thing's moment          holds
//!   Unknown ──────────────────────────► asked ────────► Holds ──► asked at each pace
//!                                       │  ▲
//!                               differs │  │ minutes later
//!                                       ▼  │    once per pace, and no other device is seen
//!                                    Differs ───────────────────────────────────────────► a new snapshot
//! ```

use std::fmt;
use std::time::Duration;

use super::Action;
use super::backoff::{Backoff, Jitter};
use super::doubt::{Doubt, is_overdue};
use super::mending::Mending;
use super::watch::{Database, Outbox};
use crate::clock::BootTime;

/// How long one may take: a large database on a slow line, at idle priority.
const LIMIT: Duration = Duration::from_secs(6 * 3600);

/// After a new snapshot, and where an earlier run saw a difference, it is looked soon.
const SOON: Duration = Duration::from_secs(180);

/// The retry of one that failed.
const RETRY: Backoff = Backoff {
    first: Duration::from_secs(120),
    longest: Duration::from_secs(4 * 3600),
    least: Duration::from_secs(30),
};

/// The retry where each byte is paid for.
const METERED_RETRY: Duration = Duration::from_secs(3600);

/// What is known of the bytes of one replica.
#[derive(Debug)]
pub(super) struct Verification {
    /// How often it is verified; `None`: never.
    pace: Option<Duration>,
    /// When the next one is due; `NEVER` before the first proof.
    due: BootTime,
    /// One is under way, until then,
    limit: Option<BootTime>,
    /// and a new snapshot was made since it began: what it shows may be over.
    is_overtaken: bool,
    /// Since when one can be made.
    began: Option<BootTime>,
    /// The last one that compared the two.
    last: Option<(Option<u64>, BootTime)>,
    /// When one last held.
    held: Option<BootTime>,
    differs: Option<Differs>,
    failures: u32,
    /// Why the last one, or the last new snapshot, failed, or there was none.
    trouble: Option<String>,
    mending: Mending,
}

/// The replica holds other bytes, when a verify last said so, and whether a snapshot was made
/// since.
#[derive(Clone, Copy, Debug)]
struct Differs {
    fault: Fault,
    seen: BootTime,
    is_mended: bool,
}

/// What is wrong with the replica.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// An earlier run of edgerepl found a difference.
    Earlier,
    /// A restore is not what the database was at this transaction, or gives nothing at all.
    OtherBytes { at: Option<u64> },
}

/// What a `verify` showed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verified {
    /// The replica holds all that it should.
    pub holds: bool,
    /// The transaction at which the two were compared; `None` where Litestream does not name it, or could
    /// not read what the bucket holds.
    pub transaction: Option<u64>,
}

/// Why a `verify` showed nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NotVerified {
    /// The way to S3 leads over a mobile link: this one.
    Metered(String),
    /// It could not be made.
    Failed(String),
}

/// What is known of the bytes of a replica.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verity {
    /// Nobody wants it verified.
    Off,
    /// Nothing yet.
    Unknown,
    /// It held all that it should.
    Holds,
    /// It did not.
    Differs,
}

impl Verity {
    /// The word for it in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Unknown => "unknown",
            Self::Holds => "holds",
            Self::Differs => "differs",
        }
    }
}

/// When in its pace a thing verifies a database: at another moment than the rest of its fleet, and than its
/// other databases.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Moment(u16);

impl Moment {
    pub(super) fn of(phase: u16, database: Database) -> Self {
        // The golden section: however many there are, no two come close.
        Self(phase.wrapping_add(database.0.wrapping_mul(40_503)))
    }

    fn within(self, pace: Duration) -> Duration {
        pace / 65_536 * u32::from(self.0)
    }
}

impl Verification {
    pub(super) fn new() -> Self {
        Self {
            pace: None,
            due: BootTime::NEVER,
            limit: None,
            is_overtaken: false,
            began: None,
            last: None,
            held: None,
            differs: None,
            failures: 0,
            trouble: None,
            mending: Mending::default(),
        }
    }

    /// An earlier run saw a difference.
    pub(super) fn recalls(&mut self) {
        self.differs = Some(Differs {
            fault: Fault::Earlier,
            seen: BootTime::default(),
            is_mended: false,
        });
    }

    /// Lets time pass, and takes the pace that is configured.
    pub(super) fn advance(
        &mut self,
        pace: Option<Duration>,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Outbox<'_>,
    ) {
        let Some(pace) = pace else {
            self.goes(out);
            *self = Self::new();
            return;
        };
        if self.pace.replace(pace).is_some_and(|before| before != pace) {
            self.due = self.due.min(now + pace);
        }
        if self.limit.is_some_and(|limit| limit <= now) {
            out.push(Action::AbandonVerify(out.database));
            self.failed("it took too long".to_owned(), jitter, now, out);
        }
    }

    /// It is this database's turn: verifies it, if that is due. `is_near`: Litestream is about to be
    /// stopped.
    pub(super) fn take_turn(
        &mut self,
        moment: Moment,
        is_near: bool,
        now: BootTime,
        out: &mut Outbox<'_>,
    ) {
        let Some(pace) = self.pace else {
            return;
        };
        if self.began.is_none() {
            self.began = Some(now);
            self.due = match self.differs {
                Some(_) => now + SOON.min(pace),
                None => now + moment.within(pace),
            };
        }
        if self.due > now || self.is_under_way() {
            return;
        }
        if is_near {
            self.due = now + SOON.min(pace);
            return;
        }
        self.limit = Some(now + LIMIT);
        self.is_overtaken = false;
        out.push(Action::Verify(out.database));
    }

    /// When something is to be done about it, where it is its turn, or not.
    pub(super) fn deadline(&self, has_turn: bool) -> BootTime {
        match self.limit {
            Some(limit) => limit,
            None if has_turn && self.pace.is_some() => match self.began {
                Some(_) => self.due,
                None => BootTime::default(),
            },
            None => BootTime::NEVER,
        }
    }

    /// It is being verified.
    pub(super) fn is_under_way(&self) -> bool {
        self.limit.is_some()
    }

    /// A verify ended.
    pub(super) fn verified(
        &mut self,
        result: Result<Verified, NotVerified>,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Outbox<'_>,
    ) {
        let (Some(_), Some(pace)) = (self.limit, self.pace) else {
            return;
        };
        let verified = match result {
            Ok(verified) => verified,
            Err(NotVerified::Failed(cause)) => return self.failed(cause, jitter, now, out),
            Err(NotVerified::Metered(link)) => {
                self.limit = None;
                self.failures = 0;
                self.due = now + METERED_RETRY.min(pace);
                self.trouble = Some(format!(
                    "no verify is made while the way to S3 leads over {link}, a mobile link"
                ));
                return;
            }
        };
        self.limit = None;
        self.failures = 0;
        self.trouble = None;
        self.due = now + pace;
        self.last = Some((verified.transaction, now));
        match verified.holds {
            true => self.holds(now, out),
            false => self.sees(verified.transaction, now, out),
        }
    }

    /// Litestream uploads the whole database for another reason.
    pub(super) fn begins_anew(&mut self, now: BootTime) {
        if let (Some(_), Some(pace)) = (self.differs, self.pace) {
            self.due = self.due.min(now + SOON.min(pace));
        }
    }

    /// The database is not watched any more.
    pub(super) fn goes(&mut self, out: &mut Outbox<'_>) {
        if self.limit.take().is_some() {
            out.push(Action::AbandonVerify(out.database));
        }
    }

    /// When a difference was seen that a new snapshot may mend.
    pub(super) fn seen_at(&self) -> Option<BootTime> {
        let is_due = |seen: &Differs| seen.fault != Fault::Earlier && !seen.is_mended;
        self.differs.filter(is_due).map(|differs| differs.seen)
    }

    /// When that snapshot may be made.
    pub(super) fn mends_at(&self) -> BootTime {
        match self.seen_at() {
            Some(_) => self.mending.allowed(),
            None => BootTime::NEVER,
        }
    }

    /// There are no credentials for it.
    pub(super) fn puts_mending_off(&mut self, until: BootTime) {
        self.mending.puts_off(until);
    }

    /// A new snapshot is to be made, of which this may be the reason.
    pub(super) fn begin_mending(&mut self, now: BootTime) {
        if self.seen_at().is_some() {
            self.mending.begins(self.pace.unwrap_or_default(), now);
        }
    }

    /// Litestream ended before it was stopped for that.
    pub(super) fn puts_snapshot_off(&mut self, now: BootTime) {
        if self.seen_at().is_some() {
            self.mending.is_still_due(now);
        }
    }

    /// It was made, or could not be.
    pub(super) fn snapshotted(&mut self, result: &Result<(), String>, now: BootTime) {
        self.is_overtaken |= result.is_ok();
        let (Some(seen), Some(pace)) = (&mut self.differs, self.pace) else {
            return;
        };
        self.trouble = result.as_ref().err().cloned();
        if self.trouble.is_none() {
            seen.is_mended = true;
            self.mending.works();
            self.due = now + SOON.min(pace);
            return;
        }
        self.mending.fails(pace, now);
    }

    /// It is known to hold something else.
    pub(super) fn differs(&self) -> bool {
        self.differs.is_some()
    }

    pub(super) fn state(&self) -> Verity {
        match (self.pace, self.differs, self.last) {
            (_, Some(_), _) => Verity::Differs,
            (None, ..) => Verity::Off,
            (_, None, Some(_)) => Verity::Holds,
            (_, None, None) => Verity::Unknown,
        }
    }

    /// The transaction at which the two were last compared, and when that was.
    pub(super) fn last(&self) -> Option<(Option<u64>, BootTime)> {
        self.last
    }

    /// Why it differs, or why nothing newer is known.
    pub(super) fn cause(&self) -> Option<String> {
        let difference = self.difference().map(|why| why.to_string());
        difference.or_else(|| self.trouble.clone())
    }

    /// What makes the database unhealthy.
    pub(super) fn problem(&self, now: BootTime) -> Option<Doubt<'_, Fault>> {
        let is_overdue = is_overdue(self.pace, self.held.or(self.began), self.failures, now);
        let overdue = || Doubt::overdue(OVERDUE, self.trouble.as_deref());
        self.difference().or_else(|| is_overdue.then(overdue))
    }

    fn difference(&self) -> Option<Doubt<'_, Fault>> {
        Some(Doubt::of(self.differs?.fault, self.trouble.as_deref()))
    }

    fn holds(&mut self, now: BootTime, out: &mut Outbox<'_>) {
        self.held = Some(now);
        self.mending.works();
        if self.differs.take().is_some() {
            out.info("the replica holds the database's very bytes again".to_owned());
        }
    }

    fn sees(&mut self, at: Option<u64>, now: BootTime, out: &mut Outbox<'_>) {
        let fault = Fault::OtherBytes { at };
        let before = self.differs.replace(Differs {
            fault,
            seen: now,
            is_mended: self.is_overtaken,
        });
        if let (true, Some(pace)) = (self.is_overtaken, self.pace) {
            self.due = now + SOON.min(pace);
        }
        if before.is_none_or(|before| before.fault == Fault::Earlier) {
            out.warn(fault.to_string());
        }
    }

    fn failed(&mut self, cause: String, jitter: &mut Jitter, now: BootTime, out: &mut Outbox<'_>) {
        self.limit = None;
        self.failures = self.failures.saturating_add(1);
        let wait = RETRY.wait(self.failures, jitter);
        self.due = now + wait.min(self.pace.unwrap_or(wait));
        let trouble = format!("the replica could not be verified: {cause}");
        if self.trouble.as_ref() != Some(&trouble) {
            out.info(trouble.clone());
        }
        self.trouble = Some(trouble);
    }
}

/// What is said where none has held for two paces.
const OVERDUE: &str = "no verify has held for more than two paces of [proof] verify";

/// What comes of it.
const MENDED: &str = "a new snapshot mends that, but not the states before it; look who changes objects in the \
                      bucket, and run `edgerepl verify` to see what differs";

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earlier => f.write_str(
                "an earlier run of edgerepl found that the replica holds other bytes than the database; it is \
                 verified once Litestream follows",
            ),
            Self::OtherBytes { at: Some(at) } => write!(
                f,
                "the replica holds other bytes than the database at transaction {at}: {MENDED}"
            ),
            Self::OtherBytes { at: None } => write!(
                f,
                "the replica holds other bytes than the database, or none that can be read: {MENDED}"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
