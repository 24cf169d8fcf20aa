//! A database, its WAL, and the application that writes to it.
//!
//! Owns what was committed and what of it a restore brings back; when the application writes, and when
//! the WAL is reset. Never knows who replicates it, or with what.

use std::collections::VecDeque;
use std::time::Duration;

use edgerepl::agent::{Debt, Earlier, Event};
use edgerepl::clock::BootTime;
use edgerepl::litestream::answer::Seam;

use super::bucket::Bucket;
use super::replica::{Replica, Wound};
use super::{Coming, DAY, HOUR, MINUTE, SECOND, Time, World, id};
use crate::coverage::Happening;
use crate::faults::Fault;

/// What the guard may let the WAL grow to.
const WAL_LIMIT: u64 = 64 << 20;

pub(super) struct Database {
    /// edgerepl's configuration names it, and Litestream's does.
    pub(super) is_configured: bool,
    pub(super) is_in_yaml: bool,
    /// edgerepl's configuration has heartbeat rows written to it, and the guard hold its WAL.
    pub(super) takes_rows: bool,
    pub(super) wants_guard: bool,
    /// The Litestream that runs replicates it, and has listed it.
    pub(super) is_served: bool,
    pub(super) is_listed: bool,
    /// From then on its own lock keeps the WAL from being reset.
    pub(super) holds_wal_from: Time,
    /// Litestream's files were looked at since it is down.
    pub(super) was_surveyed: bool,
    /// edgerepl's guard holds the WAL; but not one of which all is in the database file already: the next commit
    /// begins it anew.
    pub(super) guard: bool,
    pub(super) guard_pins: bool,
    /// The WAL was to be emptied, and could not be.
    pub(super) wal_stays: bool,
    /// It is being emptied, and a snapshot was made meanwhile.
    pub(super) emptying_is_needless: bool,
    pub(super) corrupt: bool,
    /// The control socket took no question about it the last time.
    pub(super) was_busy: bool,
    /// What is under way.
    pub(super) sync: Option<u64>,
    pub(super) reset: Option<u64>,
    pub(super) survey: Option<u64>,
    pub(super) emptying: Option<u64>,
    pub(super) look: Option<u64>,
    pub(super) verify: Option<u64>,
    /// It has read other bytes already.
    pub(super) verify_differs: bool,
    /// How often edgerepl began to watch it.
    pub(super) generation: u32,
    /// Up to when it was shown to be followed.
    pub(super) followed: Time,
    /// It is there.
    pub(super) there: bool,
    pub(super) replica: Replica,
    pub(super) bucket: Bucket,
    pub(super) rows: i64,
    /// When the last row was written, and the one before it.
    last_row: Option<Time>,
    pub(super) row_before: Option<Time>,
    pub(super) commits: u64,
    /// What was committed, and when, that is not on the replica: rows with their ids, and all.
    missing_rows: VecDeque<(u64, i64, Time)>,
    missing: VecDeque<(u64, Time)>,
    pub(super) restorable_row: i64,
    /// The replica was wrong before the agent began, who could not see it.
    pub(super) is_blind: bool,
    wal: u64,
    /// What edgerepl left for its next run: of this boot since when a row is not proved, and whether
    /// Litestream has to begin anew, and the bucket is known to hold no restore, or other bytes.
    pub(super) remembered: Option<Option<BootTime>>,
    pub(super) begins_anew: bool,
    pub(super) is_unrestorable: bool,
    pub(super) differs: bool,
    pub(super) seam: Option<Seam>,
}

impl Database {
    pub(super) fn new(there: bool) -> Self {
        Self {
            is_configured: false,
            is_in_yaml: false,
            takes_rows: false,
            wants_guard: true,
            is_served: false,
            is_listed: false,
            holds_wal_from: Duration::ZERO,
            was_surveyed: false,
            guard: false,
            guard_pins: true,
            wal_stays: false,
            emptying_is_needless: false,
            corrupt: false,
            was_busy: false,
            sync: None,
            reset: None,
            survey: None,
            emptying: None,
            look: None,
            verify: None,
            verify_differs: false,
            generation: 0,
            followed: Duration::ZERO,
            there,
            replica: Replica::new(),
            bucket: Bucket::new(),
            rows: 0,
            last_row: None,
            row_before: None,
            commits: 0,
            missing_rows: VecDeque::new(),
            missing: VecDeque::new(),
            restorable_row: 0,
            is_blind: false,
            wal: 0,
            remembered: None,
            begins_anew: false,
            is_unrestorable: false,
            differs: false,
            seam: None,
        }
    }

    /// An agent begins that knows no more of it than what an earlier one left. What happened to Litestream's
    /// files since that was last answered nobody can see.
    pub(super) fn begins_to_be_watched(&mut self) {
        let is_found = self.begins_anew || self.replica.is_torn_at(self.seam);
        self.is_blind = self.replica.is_doubtful() && !is_found;
    }

    /// What an earlier run left.
    pub(super) fn recall(&self, boot: BootTime) -> Earlier {
        Earlier {
            debt: match self.remembered {
                None => Debt::Unknown,
                Some(None) => Debt::Nothing,
                Some(Some(since)) => Debt::Row(boot.since(since)),
            },
            begins_anew: self.begins_anew,
            is_unrestorable: self.is_unrestorable,
            differs: self.differs,
            seam: self.seam,
        }
    }

    /// Nothing more is heard of what prepares a start.
    pub(super) fn abandons_start(&mut self) {
        self.reset = None;
        self.survey = None;
        self.emptying = None;
        self.bucket.ahead = None;
    }

    /// The WAL was emptied in vain, or Litestream's files are not what they were.
    pub(super) fn is_hurt(&self) -> bool {
        self.replica.is_hurt || self.wal_stays || self.emptying.is_some()
    }

    /// The disk is lost.
    pub(super) fn lose(&mut self) {
        self.there = false;
        self.missing_rows.clear();
        self.missing.clear();
        self.replica.hurt(Wound::Removed);
    }

    /// Litestream takes and uploads what there is; false where it can't.
    pub(super) fn replicate(&mut self) -> bool {
        let done = self.replica.sync(self.commits).is_ok();
        self.counts_missing();
        done
    }

    /// A restore does not give what was uploaded, or that is not the database.
    pub(super) fn gives_other_bytes(&self) -> bool {
        !self.replica.is_sound || self.bucket.gives_other_bytes()
    }

    /// The bucket has a snapshot of what Litestream uploaded last.
    pub(super) fn is_uploaded_whole(&mut self) {
        self.replica.is_uploaded_whole();
        self.counts_missing();
    }

    fn counts_missing(&mut self) {
        self.is_blind &= self.replica.is_doubtful();
        if self.replica.is_sound {
            let held = self.replica.commits;
            let all = self.missing.partition_point(|(commit, _)| *commit <= held);
            self.missing.drain(..all);
            let rows = self
                .missing_rows
                .partition_point(|(commit, ..)| *commit <= held);
            if let Some((_, row, _)) = self.missing_rows.drain(..rows).next_back() {
                self.restorable_row = row;
            }
        }
    }

    /// When the oldest row was written that no restore brings back; without rows, anything.
    pub(super) fn oldest_missing(&self, rows: bool) -> Option<Time> {
        let oldest = match rows {
            true => self.missing_rows.front().map(|(_, _, time)| *time),
            false => self.missing.front().map(|(_, time)| *time),
        };
        oldest.filter(|_| !self.is_blind)
    }

    pub(super) fn wal_is_too_large(&self) -> bool {
        self.wal > WAL_LIMIT
    }

    /// The WAL begins anew, read or not; Litestream notices, unless the new one is shorter.
    pub(super) fn reset_wal(&mut self, is_shorter: bool, was_surveyed: bool) {
        self.wal = 0;
        self.replica
            .reset_wal(self.commits, is_shorter, was_surveyed);
    }

    /// What was committed just now is not in the database file yet.
    pub(super) fn has_just_a_row(&self, time: Time) -> bool {
        self.last_row == Some(time)
    }

    /// All of it is in the database, and nothing is left in it.
    pub(super) fn empty_wal(&mut self) {
        self.wal = 0;
        self.replica.empty_wal();
    }

    /// Litestream has read it all, and lets it begin anew.
    pub(super) fn checkpoint_by_litestream(&mut self) {
        self.wal = 0;
    }

    fn commit(&mut self, row: Option<i64>, bytes: u64, time: Time) {
        self.commits += 1;
        self.wal += bytes;
        self.missing.push_back((self.commits, time));
        if let Some(row) = row {
            self.missing_rows.push_back((self.commits, row, time));
        }
    }
}

impl World {
    /// The application commits something; it makes its database, where nobody else does.
    pub(super) fn write(&mut self, number: usize) {
        let has_rows = self.shows_rows(number);
        let database = &mut self.databases[number];
        if !database.there && !has_rows && database.replica.is_empty() {
            database.there = true;
        }
        if database.there {
            self.commit(number, None);
            self.look_in();
        }
        let most = self.chance.pick(&[MINUTE, HOUR, DAY]);
        self.expect_sometime(Coming::Write(number), SECOND, most);
    }

    pub(super) fn write_row(&mut self, number: usize) -> i64 {
        let time = self.time;
        let database = &mut self.databases[number];
        database.rows += 1;
        database.row_before = database.last_row.replace(time);
        let row = database.rows;
        self.commit(number, Some(row));
        row
    }

    /// Something is committed, and Litestream takes it before it is asked to, perhaps.
    fn commit(&mut self, number: usize, row: Option<i64>) {
        let bytes = match row {
            None if self.faults.has(Fault::BigWrites) => 1 << (12 + self.chance.below(17)),
            _ => 8192,
        };
        let time = self.time;
        self.databases[number].commit(row, bytes, time);
        let database = &self.databases[number];
        let runs = self.litestream.up && database.is_served && database.replica.is_open();
        if runs && self.can_replicate(number) && self.chance.one_in(2) {
            self.replicate(number);
        }
    }

    /// The application checkpoints.
    pub(super) fn checkpoint(&mut self, number: usize) {
        self.checkpoint_now(number);
        self.look_in();
        self.expect_sometime(Coming::Checkpoint(number), SECOND, DAY);
    }

    /// What nobody holds is reset, and Litestream has to start over.
    pub(super) fn checkpoint_now(&mut self, number: usize) {
        let database = &mut self.databases[number];
        let is_held = database.guard && std::mem::replace(&mut database.guard_pins, true);
        let is_guarded = database.guard;
        if !database.there || is_held || self.litestream_holds_wal(number) {
            return;
        }
        self.coverage.happened(Happening::WalReset);
        // While systemd restarts it nobody can look.
        let (litestream, database) = (&self.litestream, &self.databases[number]);
        let is_seen = litestream.up || litestream.restarts;
        let was_surveyed = database.was_surveyed;
        let is_shorter = !is_seen && self.chance.one_in(2);
        if is_shorter {
            self.coverage.happened(match was_surveyed {
                true => Happening::WalPassedOverLate,
                false => Happening::WalPassedOver,
            });
        }
        let database = &mut self.databases[number];
        database.reset_wal(is_shorter, was_surveyed);
        // A Litestream that never saw this database has nothing to lose; what is emptied is let go.
        if self.runs && !is_guarded && database.is_served && database.emptying.is_none() {
            self.observe_wal_reset(number);
        }
    }

    /// The guard looks at the WAL's size.
    pub(super) fn look_at_wal(&mut self, number: usize) {
        if self.databases[number].guard {
            self.expect(Coming::GuardLook(number), SECOND);
            if self.databases[number].wal_is_too_large() {
                self.tell(Event::WalTooLarge(id(number)));
            }
        }
    }

    pub(super) fn litestream_holds_wal(&self, number: usize) -> bool {
        let database = &self.databases[number];
        let runs = self.litestream.up && database.is_served;
        runs && database.holds_wal_from <= self.time || database.bucket.holds_wal(self.time)
    }

    /// Heartbeat rows show what is replicated of it.
    pub(super) fn shows_rows(&self, number: usize) -> bool {
        let database = &self.databases[number];
        self.policy.heartbeat.is_some() && database.is_configured && database.takes_rows
    }
}
