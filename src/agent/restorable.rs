//! Whether a database can be restored: the plan of a restore, at a pace, and what follows from it.
//!
//! Owns when a restore is planned, what is known of the chain, and when a new snapshot mends it: at most
//! once per pace, so that a rule that deletes objects does not make a device upload without end. Never
//! mends a prefix that another device writes to: that would make the other's replica worse. Never stops
//! or starts Litestream: that concerns all databases.
//!
//! ```text
//!             proof               whole
//!   Unknown ────────► planned ────────────► Restorable ──► planned at each pace
//!                      │    │ broken, twice
//!                      │    ▼                once per pace
//!                      │  Broken ───────────────────────────► a new snapshot, planned after its proof
//!                      │ foreign transactions
//!                      ▼            ever more, and the own files are sound
//!                    Foreign ───────────────────────────────► Shared, for the rest of the run
//!                      └────────────────────────────────────► Broken
//!                             no more for long enough
//! ```

use std::fmt;
use std::time::Duration;

use super::Action;
use super::backoff::{Backoff, Jitter};
use super::claim::PATIENCE;
use super::doubt::{Doubt, is_overdue};
use super::mending::Mending;
use super::watch::Outbox;
use crate::clock::BootTime;
use crate::litestream::chain::{Chain, Holdings, Listing, PlanFailure, Stranger};

/// How long a plan may take: ten lists and more, on a slow line.
const PLAN_LIMIT: Duration = Duration::from_secs(120);

/// The first plan comes so long after a proof, at the most: a fleet that was switched on together does not
/// list its buckets together.
const SPREAD: Duration = Duration::from_secs(30);

/// What looks broken is looked at again after this time: a compaction moves objects while they are listed.
const CONFIRMATION: Duration = Duration::from_secs(10);

/// So many looks confirm it, and so many that an object is altered: it may be the first sign of another
/// device.
const LOOKS: u32 = 2;
const LOOKS_AT_ALTERED: u32 = 6;

/// The retry of a plan that failed.
const RETRY: Backoff = Backoff {
    first: Duration::from_secs(30),
    longest: Duration::from_secs(3600),
    least: Duration::from_secs(10),
};

/// Litestream's complaints bring a plan forward so often; then at twice the time, up to the pace: after a hole
/// it complains for ever.
const SUSPICION_PACE: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Restorable {
    /// How often a restore is planned; `None`: never.
    pace: Option<Duration>,
    /// When the next plan is due; `NEVER` before the first proof.
    due: BootTime,
    asked: Option<Asked>,
    /// Since when a plan can be made.
    began: Option<BootTime>,
    /// When the bucket was last looked at.
    looked: Option<BootTime>,
    /// What could be restored at the last plan that was whole, and when that was.
    known: Option<(Holdings, BootTime)>,
    /// What is wrong with the chain.
    seen: Option<Seen>,
    /// This Litestream plans no restore.
    is_unsupported: bool,
    failures: u32,
    /// Why the last plan, or the last new snapshot, failed.
    trouble: Option<String>,
    /// When the next complaint counts, and how many have.
    heeds_from: BootTime,
    heeded: u32,
    mend: Mend,
    mending: Mending,
}

/// What a plan is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grounds {
    /// The last transaction that was proved.
    pub(super) proved: u64,
    /// When Litestream was last asked, and its answer showed that its files are what they were.
    pub(super) sound: Option<BootTime>,
    /// Another device that is configured as this one has uploaded more after so long.
    pub(super) upload_pace: Duration,
}

/// A plan that was asked for, and on which grounds.
#[derive(Clone, Copy, Debug)]
struct Asked {
    limit: BootTime,
    grounds: Grounds,
}

/// A fault, since when one is known, since when this kind, or as many foreign transactions; how many looks
/// showed it, and whether a snapshot was made since.
#[derive(Clone, Copy, Debug)]
struct Seen {
    fault: Fault,
    since: BootTime,
    kind_since: BootTime,
    looks: u32,
    is_mended: bool,
}

/// A new snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mend {
    No,
    /// It has to be made, once Litestream is stopped.
    Wanted,
    /// It is being made.
    UnderWay,
}

/// Why a database can't be restored, or not for long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// An earlier run of edgerepl found one.
    Earlier,
    Nothing,
    Hole {
        after: u64,
    },
    Altered {
        at: u64,
    },
    /// The chain ends before what was proved.
    Short {
        last: u64,
        proved: u64,
    },
    /// A transaction that is not of Litestream's files here, as they are now.
    Foreign {
        at: u64,
    },
    /// The same, and they have not become more for long enough: nobody writes them now.
    Mixture {
        at: u64,
    },
    /// The same; these files are what they were, and there are ever more such transactions.
    Stranger {
        at: u64,
    },
}

/// What is known about the restore of a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Restorability {
    /// Nobody wants plans.
    Off,
    /// None was made yet, or this Litestream makes none.
    Unknown,
    /// It can be restored.
    Restorable(Holdings),
    /// It can't.
    Broken,
    /// Another device writes to the same prefix.
    Shared,
}

impl Restorability {
    /// The word for it in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Unknown => "unknown",
            Self::Restorable(_) => "restorable",
            Self::Broken => "broken",
            Self::Shared => "shared",
        }
    }
}

impl Restorable {
    pub(super) fn new() -> Self {
        Self {
            pace: None,
            due: BootTime::NEVER,
            asked: None,
            began: None,
            looked: None,
            known: None,
            seen: None,
            is_unsupported: false,
            failures: 0,
            trouble: None,
            heeds_from: BootTime::default(),
            heeded: 0,
            mend: Mend::No,
            mending: Mending::default(),
        }
    }

    /// An earlier run knew that it can't be restored.
    pub(super) fn recalls(&mut self, now: BootTime) {
        self.seen = Some(Seen {
            fault: Fault::Earlier,
            since: now,
            kind_since: now,
            looks: 0,
            is_mended: false,
        });
    }

    /// Plans a restore if that is due. `grounds`: what is known of the replica, if Litestream follows now.
    pub(super) fn advance(
        &mut self,
        pace: Option<Duration>,
        grounds: Option<Grounds>,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Outbox<'_>,
    ) {
        let Some(pace) = pace else {
            self.goes(out);
            // What is under way goes on.
            let mend = self.mend;
            *self = Self {
                mend,
                ..Self::new()
            };
            return;
        };
        if self.pace.replace(pace).is_some_and(|before| before != pace) {
            self.due = self.due.min(now);
        }
        if self.asked.is_some_and(|asked| asked.limit <= now) {
            out.push(Action::AbandonPlan(out.database));
            self.failed("it took too long".to_owned(), jitter, now, out);
        }
        let Some(grounds) = grounds else {
            return;
        };
        if self.began.is_none() {
            self.began = Some(now);
            self.due = now + jitter.between(Duration::ZERO, SPREAD.min(pace / 4));
        }
        if self.due <= now && self.asked.is_none() {
            let limit = now + PLAN_LIMIT;
            self.asked = Some(Asked { limit, grounds });
            out.push(Action::PlanRestore(out.database));
        }
    }

    pub(super) fn deadline(&self, can_plan: bool) -> BootTime {
        match self.asked {
            Some(asked) => asked.limit,
            None if can_plan && self.pace.is_some() => self.due,
            None => BootTime::NEVER,
        }
    }

    /// What a restore would take is known, or could not be planned.
    pub(super) fn planned(
        &mut self,
        result: Result<Listing, PlanFailure>,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Outbox<'_>,
    ) {
        let (Some(asked), Some(pace)) = (self.asked, self.pace) else {
            return;
        };
        let listing = match result {
            Ok(listing) => listing,
            Err(PlanFailure::Failed(cause)) => return self.failed(cause, jitter, now, out),
            Err(PlanFailure::Unsupported) => {
                self.asked = None;
                self.is_unsupported = true;
                self.due = now + pace;
                return;
            }
        };
        self.asked = None;
        self.is_unsupported = false;
        self.failures = 0;
        self.trouble = None;
        self.looked = Some(now);
        self.due = now + pace;
        let grounds = asked.grounds;
        match (judge(listing, grounds.proved), self.seen) {
            (Err(fault), _) => self.sees(fault, grounds, now, out),
            // What two devices wrote stays a mixture, and so does what a compaction made of an altered
            // object.
            (Ok(_), Some(seen)) if seen.outlasts_compaction() && !seen.is_mended => {
                self.sees(seen.fault, grounds, now, out);
            }
            (Ok(holdings), _) => {
                self.known = Some((holdings, now));
                self.mending.works();
                if self.seen.take().is_some() {
                    out.info("the database can be restored again".to_owned());
                }
            }
        }
    }

    /// Another device writes to the prefix, as was seen before Litestream was started.
    pub(super) fn finds_stranger(&mut self, at: u64, now: BootTime, out: &mut Outbox<'_>) {
        let fault = Fault::Stranger { at };
        let since = self.seen.map_or(now, |seen| seen.since);
        self.seen = Some(Seen {
            fault,
            since,
            kind_since: now,
            looks: 1,
            is_mended: false,
        });
        out.warn(fault.to_string());
    }

    /// The database is not watched any more.
    pub(super) fn goes(&mut self, out: &mut Outbox<'_>) {
        if self.asked.take().is_some() {
            out.push(Action::AbandonPlan(out.database));
        }
    }

    /// Other bytes were seen at that time, and a new snapshot may mend them: none is under way, and no plan
    /// since shows what may be another device's, whose replica that would harm.
    pub(super) fn may_mend_bytes(&self, seen: BootTime) -> bool {
        let plans = self.pace.is_some() && !self.is_unsupported;
        let is_settled = |fault: Seen| fault.is_confirmed() && !fault.fault.is_strangers();
        let is_alone = match plans {
            true => self.looked >= Some(seen) && self.seen.is_none_or(is_settled),
            false => !self.is_shared(),
        };
        self.mend == Mend::No && is_alone
    }

    /// The chain is known to be broken, and a new snapshot may mend it.
    pub(super) fn mends_at(&self) -> BootTime {
        let is_due =
            |seen: &Seen| seen.is_confirmed() && !seen.is_mended && !seen.fault.is_strangers();
        match self.seen.filter(is_due) {
            Some(_) if self.mend == Mend::No => self.mending.allowed(),
            _ => BootTime::NEVER,
        }
    }

    /// There are no credentials for it.
    pub(super) fn puts_mending_off(&mut self, until: BootTime) {
        self.mending.puts_off(until);
    }

    /// A new snapshot is to be made once Litestream is stopped.
    pub(super) fn begin_mending(&mut self, now: BootTime) {
        self.mend = Mend::Wanted;
        self.mending.begins(self.pace.unwrap_or_default(), now);
    }

    /// Litestream ended before it was stopped for that, or another device may write to the prefix.
    pub(super) fn puts_snapshot_off(&mut self, now: BootTime) {
        if self.mend == Mend::Wanted {
            self.mend = Mend::No;
            self.mending.is_still_due(now);
        }
    }

    pub(super) fn wants_snapshot(&self) -> bool {
        self.mend == Mend::Wanted
    }

    /// It is made now, or not at this stop.
    pub(super) fn makes_snapshot(&mut self, now: bool) {
        self.mend = match now {
            true => Mend::UnderWay,
            false => Mend::No,
        };
    }

    pub(super) fn is_making_snapshot(&self) -> bool {
        self.mend == Mend::UnderWay
    }

    /// It was made, or could not be.
    pub(super) fn snapshotted(&mut self, result: Result<(), String>, now: BootTime) {
        self.mend = Mend::No;
        self.due = now;
        self.trouble = result.err();
        if self.trouble.is_none() {
            // Only a plan shows whether it has to be made again.
            if let Some(seen) = &mut self.seen {
                seen.is_mended = true;
            }
            return;
        }
        self.mending.fails(self.pace.unwrap_or_default(), now);
    }

    /// Litestream complained: a plan shows what is wrong.
    pub(super) fn suspects(&mut self, now: BootTime) {
        let (Some(pace), Some(_)) = (self.pace, self.began) else {
            return;
        };
        if self.heeds_from <= now {
            let wait = SUSPICION_PACE.saturating_mul(2_u32.saturating_pow(self.heeded));
            self.heeds_from = now + wait.min(pace);
            self.heeded = self.heeded.saturating_add(1);
            self.due = self.due.min(now);
        }
    }

    /// Litestream has to begin anew for another reason, or somebody asks: a plan is due once it follows.
    pub(super) fn hasten(&mut self, now: BootTime) {
        self.due = self.due.min(now);
    }

    /// What looks like another device may be this device's own files that are not what they were: that is to
    /// be asked.
    pub(super) fn suspects_stranger(&self) -> bool {
        self.seen
            .is_some_and(|seen| matches!(seen.fault, Fault::Foreign { .. }))
    }

    /// Another device is known to write to the prefix.
    pub(super) fn is_shared(&self) -> bool {
        self.seen
            .is_some_and(|seen| matches!(seen.fault, Fault::Stranger { .. }))
    }

    /// It is known that it can't be restored.
    pub(super) fn is_broken(&self) -> bool {
        self.seen.is_some()
    }

    pub(super) fn state(&self) -> Restorability {
        match (self.pace, self.seen, self.known) {
            (_, Some(_), _) if self.is_shared() => Restorability::Shared,
            (_, Some(_), _) => Restorability::Broken,
            (None, None, _) => Restorability::Off,
            (_, None, Some((holdings, _))) => Restorability::Restorable(holdings),
            (_, None, None) => Restorability::Unknown,
        }
    }

    /// Since when the chain is known to be broken.
    pub(super) fn broken_since(&self) -> Option<BootTime> {
        self.seen.map(|seen| seen.since)
    }

    /// When the bucket was last looked at.
    pub(super) fn looked_at(&self) -> Option<BootTime> {
        self.looked
    }

    /// When a plan last showed that it can be restored.
    pub(super) fn planned_at(&self) -> Option<BootTime> {
        self.known.map(|(_, at)| at)
    }

    /// Why it is not known, or known not, to be restorable.
    pub(super) fn problem(&self, now: BootTime) -> Option<Doubt<'_, Fault>> {
        let trouble = self.trouble.as_deref();
        if let Some(seen) = self.seen {
            return Some(Doubt::of(seen.fault, trouble));
        }
        let since = self.planned_at().or(self.began);
        let is_overdue = is_overdue(self.pace, since, self.failures, now);
        (is_overdue && !self.is_unsupported).then(|| Doubt::overdue(OVERDUE, trouble))
    }

    fn sees(&mut self, fault: Fault, grounds: Grounds, now: BootTime, out: &mut Outbox<'_>) {
        let before = self.seen.filter(|seen| seen.fault != Fault::Earlier);
        let is_sound = |since: BootTime| grounds.sound > Some(since);
        let has_waited = |since: BootTime| now.since(since) >= PATIENCE.max(grounds.upload_pace);
        let fault = match (before.map(|seen| (seen.fault, seen.kind_since)), fault) {
            // Whatever it does to the chain.
            (Some((fault @ Fault::Stranger { .. }, _)), _) => fault,
            (Some((suspicion @ Fault::Foreign { at: first }, since)), Fault::Foreign { at }) => {
                match at > first {
                    true if is_sound(since) => Fault::Stranger { at },
                    false if has_waited(since) => Fault::Mixture { at },
                    _ => suspicion,
                }
            }
            // That is a sign of one of them, too.
            (Some((suspicion @ Fault::Foreign { at }, since)), Fault::Altered { .. }) => {
                match has_waited(since) {
                    true => Fault::Mixture { at },
                    false => suspicion,
                }
            }
            // Whatever it may have removed: it has its time to show itself.
            (Some((suspicion @ Fault::Foreign { .. }, since)), _) if !has_waited(since) => {
                suspicion
            }
            (Some((mixture @ Fault::Mixture { .. }, _)), Fault::Altered { .. }) => mixture,
            // Somebody adds to it after all: only an answer from now on shows that it is not this device.
            (Some((Fault::Mixture { at: first }, _)), Fault::Foreign { at }) => match at > first {
                true => Fault::Foreign { at: first },
                false => Fault::Mixture { at },
            },
            _ => fault,
        };
        let same = before.filter(|seen| seen.fault.kind() == fault.kind());
        // A sign of another device confirms nothing else.
        let counts = |seen: &Seen| fault.is_strangers() == seen.fault.is_strangers();
        let looks = before.filter(counts).map_or(0, |seen| seen.looks);
        let seen = Seen {
            fault,
            since: self.seen.map_or(now, |seen| seen.since),
            kind_since: same.map_or(now, |seen| seen.kind_since),
            looks: looks.saturating_add(1),
            is_mended: false,
        };
        if fault.is_strangers() {
            self.puts_snapshot_off(now);
        }
        let ever_later = |since: BootTime| {
            let wait = (now.since(since) / 4).clamp(CONFIRMATION, RETRY.longest);
            now + wait.min(self.pace.unwrap_or(wait))
        };
        self.due = match (seen.is_confirmed(), fault) {
            // However often it is planned: another device has to have the time to show itself.
            (false, Fault::Altered { .. }) => now + CONFIRMATION,
            // Which may upload once in an hour.
            (false, Fault::Foreign { .. }) if now.since(seen.kind_since) >= PATIENCE => {
                ever_later(seen.kind_since)
            }
            (false, _) => now + CONFIRMATION.min(self.pace.unwrap_or(CONFIRMATION)),
            // It may be over at any time: a bucket that was answered for by somebody else, for instance.
            (true, _) => ever_later(seen.since),
        };
        self.seen = Some(seen);
        if same.is_none() {
            out.warn(fault.to_string());
        }
    }

    fn failed(&mut self, cause: String, jitter: &mut Jitter, now: BootTime, out: &mut Outbox<'_>) {
        self.asked = None;
        self.failures = self.failures.saturating_add(1);
        let wait = RETRY.wait(self.failures, jitter);
        self.due = now + wait.min(self.pace.unwrap_or(wait));
        if self.trouble.as_ref() != Some(&cause) {
            out.info(format!("a restore could not be planned: {cause}"));
        }
        self.trouble = Some(cause);
    }
}

impl Seen {
    /// A later plan may be whole, and what it restores is not right.
    fn outlasts_compaction(&self) -> bool {
        matches!(self.fault, Fault::Altered { .. } | Fault::Stranger { .. })
    }

    fn is_confirmed(&self) -> bool {
        match self.fault {
            Fault::Foreign { .. } => false,
            Fault::Stranger { .. } | Fault::Mixture { .. } => true,
            Fault::Altered { .. } => self.looks >= LOOKS_AT_ALTERED,
            _ => self.looks >= LOOKS,
        }
    }
}

/// What can be restored of a chain that has to reach the transaction `proved`, or what is wrong with it.
fn judge(listing: Listing, proved: u64) -> Result<Holdings, Fault> {
    if let Some(at) = listing.stranger.map(Stranger::at) {
        return Err(Fault::Foreign { at });
    }
    match listing.chain {
        Chain::Nothing => Err(Fault::Nothing),
        Chain::Hole { after } => Err(Fault::Hole { after }),
        Chain::Altered { at } => Err(Fault::Altered { at }),
        Chain::Whole(Holdings { last, .. }) if last < proved => Err(Fault::Short { last, proved }),
        Chain::Whole(holdings) => Ok(holdings),
    }
}

impl Fault {
    fn is_strangers(self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Stranger { .. })
    }

    fn kind(self) -> std::mem::Discriminant<Self> {
        std::mem::discriminant(&self)
    }
}

/// What is said where no plan has succeeded for two paces.
const OVERDUE: &str = "it is not known whether the database can be restored, because a restore could not be planned \
                       for more than two paces of [proof] restorable";

/// What is lost, and what comes of it.
const MENDED: &str = "a new snapshot mends that, but not the states before it; look who deletes or \
                      changes objects in the bucket, such as a lifecycle rule";

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earlier => f.write_str(
                "an earlier run of edgerepl found that the database can't be restored; a restore is planned \
                 once Litestream follows",
            ),
            Self::Nothing => write!(
                f,
                "the database can't be restored, because the bucket holds no snapshot of it: {MENDED}"
            ),
            Self::Hole { after } => write!(
                f,
                "the database can be restored to transaction {after} only, because the next one is missing in \
                 the bucket: {MENDED}"
            ),
            Self::Altered { at } => write!(
                f,
                "the database can't be restored, because the object in the bucket that ends with transaction \
                 {at} has another size than was uploaded: {MENDED}"
            ),
            Self::Short { last, proved } => write!(
                f,
                "the database can be restored to transaction {last} only, but transaction {proved} was proved \
                 to be there, so the bucket was rolled back: {MENDED}"
            ),
            Self::Foreign { at } => write!(
                f,
                "the bucket holds a transaction that is not of Litestream's files here ({at}): another device \
                 writes to the same prefix, or these files are an older copy; that is looked at"
            ),
            Self::Mixture { at } => write!(
                f,
                "the bucket holds a transaction that is not of Litestream's files here ({at}), and nobody adds \
                 to it now, so that a restore may be a mixture: {MENDED}"
            ),
            Self::Stranger { at } => write!(
                f,
                "another device writes to the same prefix of the bucket (transaction {at} is not this \
                 device's), so that no restore is right: give each device a prefix of its own, and restart \
                 edgerepl"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
