//! One database that is watched, with all that is decided about it alone.
//!
//! Owns its parts: the replica, the rows' schedule, the creation, the WAL guard, and what the next run of
//! edgerepl has to know. Never starts or stops Litestream: that concerns all databases.

use std::rc::Rc;
use std::time::Duration;

use super::backoff::Jitter;
use super::claim::Claim;
use super::creation::Creation;
use super::guard::Guard;
use super::heartbeat::Heartbeat;
use super::replica::Replica;
use super::restorable::{Grounds, Restorable};
use super::verification::{NotVerified, Verification, Verified};
use super::watch::{Database, Outbox, Watch};
use super::{Action, Actions, Debt, Earlier, Legacy};
use crate::clock::BootTime;
use crate::litestream::answer::Commit;
use crate::litestream::chain::{Listing, PlanFailure};

/// The reason for a snapshot that was begun without the guard, and did not end.
const NOT_HELD: &str = "it is not certain that the WAL was held when a new snapshot was begun, so what was \
                        uploaded before it may not continue the replica";

#[derive(Debug)]
pub(super) struct Watched {
    pub(super) watch: Watch,
    pub(super) replica: Replica,
    pub(super) heartbeat: Heartbeat,
    pub(super) creation: Creation,
    pub(super) guard: Guard,
    pub(super) claim: Claim,
    pub(super) restorable: Restorable,
    /// The snapshot under way holds all that is known to be missing.
    snapshot_covers: bool,
    /// The guard was to hold the WAL when Litestream's files were to be looked at, and did not fail since.
    is_held_for_survey: bool,
    pub(super) verification: Verification,
    /// Why the replica does not follow.
    pub(super) trouble: Option<String>,
    /// It is one of several: what is said of it names it.
    pub(super) has_siblings: bool,
    /// It is unknown what an earlier run left: the row before the first one of this run shows it.
    asks_row_before: bool,
    /// What an earlier run left is known.
    recalled: bool,
    /// What the next run will be told.
    remembered: Option<Legacy>,
}

impl Watched {
    pub(super) fn new(watch: Watch, now: BootTime) -> Self {
        Self {
            watch,
            replica: Replica::new(now),
            heartbeat: Heartbeat::new(now),
            creation: Creation::new(),
            guard: Guard::default(),
            claim: Claim::default(),
            restorable: Restorable::new(),
            snapshot_covers: false,
            is_held_for_survey: false,
            verification: Verification::new(),
            trouble: None,
            has_siblings: false,
            asks_row_before: false,
            recalled: false,
            remembered: None,
        }
    }

    pub(super) fn id(&self) -> Database {
        self.watch.database
    }

    /// The place for what is to be done about it, or said of it.
    pub(super) fn outbox<'a>(&self, actions: &'a mut Actions) -> Outbox<'a> {
        let name = self.has_siblings.then(|| Rc::clone(&self.watch.name));
        Outbox::new(self.id(), name, actions)
    }

    /// Heartbeat rows show what is replicated of it, where any are written at all.
    pub(super) fn shows_rows(&self, are_written: bool) -> bool {
        are_written && self.watch.rows
    }

    /// What an earlier run left.
    pub(super) fn recalls(&mut self, earlier: Earlier, now: BootTime) {
        self.recalled = true;
        if earlier.is_unrestorable {
            self.restorable.recalls(now);
        }
        if earlier.differs {
            self.verification.recalls();
        }
        self.asks_row_before = earlier.debt == Debt::Unknown;
        self.replica.recalls(earlier, now);
    }

    /// A heartbeat row was committed, or could not be.
    pub(super) fn row(
        &mut self,
        result: Result<i64, String>,
        interval: Option<Duration>,
        now: BootTime,
        out: &mut Actions,
    ) {
        let mut out = self.outbox(out);
        if let Ok(id) = result {
            self.creation.over(&mut out);
            if std::mem::take(&mut self.asks_row_before) {
                out.push(Action::AskRowBefore(out.database, id));
            }
        }
        self.replica.row(result.as_ref().ok(), now);
        self.heartbeat.row(result, interval, now, &mut out);
    }

    /// There is no database: none for a row that is due, or none at all.
    pub(super) fn is_missing(
        &mut self,
        interval: Option<Duration>,
        now: BootTime,
        out: &mut Actions,
    ) {
        let shows_rows = self.shows_rows(interval.is_some());
        if shows_rows {
            let mut out = self.outbox(out);
            self.replica.row(None, now);
            let cause = "the database does not exist yet".to_owned();
            self.heartbeat.row(Err(cause), interval, now, &mut out);
        }
        self.creation.missing(!shows_rows, now);
    }

    /// Rows are written to it from now on, or are not: who creates one that is missing?
    pub(super) fn reloaded(&mut self, has_rows: bool, now: BootTime) {
        if self.creation.is_missing() {
            self.creation.missing(!self.shows_rows(has_rows), now);
        }
    }

    /// Others have to create it: Litestream has nothing to follow, and nothing has to be held.
    pub(super) fn is_away(&self) -> bool {
        self.creation.awaits_others().is_some()
    }

    /// It was looked at, and is there; its last commit, if it can be read.
    pub(super) fn looked(&mut self, commit: Option<Commit>, now: BootTime, out: &mut Actions) {
        if self.is_away() {
            let mut out = self.outbox(out);
            out.info("the database is there".to_owned());
            self.creation.over(&mut out);
            self.replica.appears(now);
        }
        self.replica.look(commit, self.watch.wal_limit(), now);
    }

    /// Its WAL is to be emptied, and nobody of ours holds it any more.
    pub(super) fn can_be_emptied(&self) -> bool {
        self.replica.waits_for_guard() && !self.guard.may_hold()
    }

    /// The replica is known to follow, so that it can be looked at what a restore would give.
    pub(super) fn has_grounds(&self) -> bool {
        let ledger = &self.replica.ledger;
        let can = !self.is_away() && self.replica.follows() && !ledger.is_broken();
        can && ledger.proof().is_some()
    }

    /// What is known of it then. Other devices upload at this pace.
    pub(super) fn grounds(&self, upload_pace: Duration) -> Option<Grounds> {
        let ledger = &self.replica.ledger;
        let proof = ledger.proof().filter(|_| self.has_grounds())?;
        Some(Grounds {
            proved: proof.position.replicated,
            sound: ledger.sound(),
            upload_pace,
        })
    }

    /// What a restore would take is known, or could not be planned.
    pub(super) fn planned(
        &mut self,
        result: Result<Listing, PlanFailure>,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Outbox<'_>,
    ) {
        let was_wanted = self.restorable.wants_snapshot();
        self.restorable.planned(result, jitter, now, out);
        if was_wanted && !self.restorable.wants_snapshot() {
            self.verification.puts_snapshot_off(now);
        }
        if self.restorable.suspects_stranger() {
            self.replica.confirm(now);
        }
    }

    /// A verify ended. A plan shows who may have written what differs, before that is mended.
    pub(super) fn verified(
        &mut self,
        result: Result<Verified, NotVerified>,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Outbox<'_>,
    ) {
        self.verification.verified(result, jitter, now, out);
        if self.verification.seen_at() == Some(now) {
            self.restorable.hasten(now);
        }
    }

    /// Its local state is useless. Returns whether it is to be dropped now: not again and again, and not
    /// where that would make another device's replica worse.
    pub(super) fn want_reset(&mut self, now: BootTime) -> bool {
        !self.restorable.is_shared() && self.replica.want_reset(now)
    }

    /// A snapshot is about to be made. Where it is not certain that the WAL is held, it may have been reset, and
    /// nobody examines it: the transactions that are uploaded before the snapshot may not continue the replica.
    pub(super) fn begin_snapshot(&mut self) {
        let is_held = self.guard.held_since().is_some() && self.replica.has_last_row();
        let ledger = &mut self.replica.ledger;
        self.snapshot_covers = !ledger.is_broken();
        if self.snapshot_covers && !is_held {
            ledger.breaks(NOT_HELD);
        }
    }

    /// It holds the whole database: what was found to be missing since it began is in it.
    fn snapshot_is_made(&mut self) {
        let covers = std::mem::take(&mut self.snapshot_covers);
        if covers && self.replica.ledger.is_broken() {
            self.replica.ledger.begins_anew();
        }
    }

    /// When a new snapshot is to be made, because the chain is broken or the bytes differ.
    pub(super) fn mends_at(&self) -> BootTime {
        let seen = self.verification.seen_at();
        let bytes = match seen.is_some_and(|seen| self.restorable.may_mend_bytes(seen)) {
            true => self.verification.mends_at(),
            false => BootTime::NEVER,
        };
        self.restorable.mends_at().min(bytes)
    }

    /// There are no credentials for it.
    pub(super) fn puts_mending_off(&mut self, until: BootTime) {
        self.restorable.puts_mending_off(until);
        self.verification.puts_mending_off(until);
    }

    /// It is to be made once Litestream is stopped.
    pub(super) fn begin_mending(&mut self, now: BootTime) {
        self.restorable.begin_mending(now);
        self.verification.begin_mending(now);
    }

    /// Litestream ended before it was stopped for that.
    pub(super) fn puts_snapshot_off(&mut self, now: BootTime) {
        if self.restorable.wants_snapshot() {
            self.restorable.puts_snapshot_off(now);
            self.verification.puts_snapshot_off(now);
        }
    }

    /// It was made, or could not be.
    pub(super) fn snapshotted(&mut self, result: Result<(), String>, now: BootTime) {
        if result.is_ok() {
            self.snapshot_is_made();
        }
        self.verification.snapshotted(&result, now);
        self.restorable.snapshotted(result, now);
    }

    /// It needs nothing, or Litestream followed at its last answer.
    pub(super) fn follows(&self) -> bool {
        self.is_away() || self.replica.follows()
    }

    /// Litestream is about to be stopped.
    pub(super) fn prepare(&mut self, now: BootTime) {
        match self.is_away() {
            true => self.replica.is_ready_for_stop(),
            false => self.replica.prepare(now),
        }
    }

    /// The guard is wanted, or is not.
    pub(super) fn advance_guard(
        &mut self,
        wanted: bool,
        moved: Option<BootTime>,
        now: BootTime,
        out: &mut Actions,
    ) {
        let wanted = wanted && !self.is_away();
        let mut out = self.outbox(out);
        if self.guard.advance(wanted, moved, now, &mut out) {
            self.replica.lets_go_of_wal();
        }
    }

    /// Litestream's files and the WAL are about to be looked at.
    pub(super) fn take_guard(&mut self, now: BootTime, out: &mut Actions) {
        let wanted = self.watch.wal_guard.is_some();
        self.advance_guard(wanted, None, now, out);
        self.is_held_for_survey = self.guard.may_hold();
    }

    /// The guard was taken, or could not be.
    pub(super) fn guard_taken(
        &mut self,
        result: Result<(), String>,
        now: BootTime,
        out: &mut Actions,
    ) {
        self.is_held_for_survey &= result.is_ok();
        let mut out = self.outbox(out);
        self.guard.taken(result, now, &mut out);
    }

    /// The guard holds the WAL since before that look.
    pub(super) fn is_held_for_survey(&self) -> bool {
        self.is_held_for_survey && self.guard.held_since().is_some()
    }

    /// The WAL has grown past what the guard may cost.
    pub(super) fn wal_is_too_large(&mut self, out: &mut Actions) {
        let mut out = self.outbox(out);
        if self.guard.too_large(&mut out) {
            self.replica.lets_go_of_wal();
        }
    }

    /// It is not watched any more.
    pub(super) fn goes(&mut self, out: &mut Actions) {
        let mut out = self.outbox(out);
        self.guard.goes(&mut out);
        self.restorable.goes(&mut out);
        self.verification.goes(&mut out);
        self.creation.over(&mut out);
    }

    /// Tells what the next run has to know, if that is news.
    pub(super) fn remember(&mut self, rows: bool, out: &mut Actions) {
        if !self.recalled {
            return;
        }
        let legacy = Legacy {
            is_unrestorable: self.restorable.is_broken(),
            differs: self.verification.differs(),
            ..self.replica.ledger.legacy(rows)
        };
        if self.remembered.replace(legacy) != Some(legacy) {
            out.push(Action::Remember(self.id(), legacy));
        }
    }
}
