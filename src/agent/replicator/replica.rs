//! One database and its replica: what is proved of it, what Litestream is asked about it, and whether
//! it has to begin anew.
//!
//! Owns all knowledge of one database. Never deals with the process beyond its start: if one Litestream
//! has several databases, each of them has one of these.

use std::time::Duration;

use super::catch_up::{Asker, CatchUp, Socket, Verdict};
use super::preparation::{Preparation, Progress};
use crate::agent::backoff::Jitter;
use crate::agent::proof::Ledger;
use crate::agent::{Action, Debt, Earlier};
use crate::clock::BootTime;
use crate::litestream::answer::{Answer, BEGINNING_MISSED, SyncFailure};

/// If local state breaks again within this time, dropping it does not help; doubled each time, because
/// the whole database may have to be uploaded.
const RESET_PACE: Duration = Duration::from_secs(180);
const LONGEST_RESET_PACE: Duration = Duration::from_secs(43_200);

/// The retry of a failed reset; doubled each time if the WAL could not be emptied.
const RESET_RETRY: Duration = Duration::from_secs(300);
const LONGEST_RESET_RETRY: Duration = Duration::from_secs(1800);

/// The reason for what an earlier run found.
const FOUND_EARLIER: &str =
    "an earlier run of edgerepl found that Litestream's uploads do not continue the replica";

/// The reason while the WAL may have been reset without a trace.
const WAL_LET_GO: &str =
    "the WAL was released before Litestream had read it, and may have been reset";

#[derive(Debug)]
pub(in crate::agent) struct Replica {
    pub(in crate::agent) ledger: Ledger,
    stage: Stage,
    /// Litestream is known to have opened the database: its own read lock holds the WAL.
    holds_wal: bool,
    /// The log says that the running Litestream replicates it.
    announced: bool,
    reset_allowed: BootTime,
    resets: u32,
    /// How often in a row the WAL could not be emptied.
    unemptied: u32,
    /// Its local state is the one that an earlier run found wrong.
    has_old_state: bool,
}

#[derive(Debug)]
enum Stage {
    /// Litestream is down, or its answers do not count.
    Idle,
    /// It has to show that it follows, or has shown it.
    CatchingUp(CatchUp),
    /// It is about to be stopped.
    Preparing(Preparation),
}

impl Replica {
    pub(super) fn new(now: BootTime) -> Self {
        Self {
            ledger: Ledger::new(now),
            stage: Stage::Idle,
            holds_wal: false,
            announced: false,
            reset_allowed: now,
            resets: 0,
            unemptied: 0,
            has_old_state: false,
        }
    }

    /// The record of an earlier run; it does not say what was wrong with Litestream's local state.
    pub(in crate::agent) fn recalls(&mut self, earlier: Earlier) {
        if let Debt::Row(age) = earlier.debt {
            self.ledger.inherit(age);
        }
        if earlier.begins_anew {
            self.ledger.breaks(FOUND_EARLIER);
            self.has_old_state = true;
        }
    }

    /// A reload names another database, of which nothing is known. Steps under way continue, except for
    /// syncs of the previous one.
    pub(super) fn is_another(&mut self, now: BootTime) {
        self.ledger = Ledger::new(now);
        self.holds_wal = false;
        self.has_old_state = false;
        if let Stage::CatchingUp(_) = self.stage {
            self.catch_up(now);
        }
    }

    /// Litestream is being started.
    pub(super) fn starts(&mut self) {
        self.stage = Stage::Idle;
        self.holds_wal = false;
        self.announced = false;
        self.ledger.started();
    }

    /// Litestream runs, or has newer credentials: it has to show that it follows.
    pub(super) fn catch_up(&mut self, now: BootTime) {
        self.stage = Stage::CatchingUp(CatchUp::begin(now));
    }

    /// The same, without a row first.
    pub(super) fn ask_now(&mut self, now: BootTime) {
        self.stage = Stage::CatchingUp(CatchUp::due(now));
    }

    /// It is about to be stopped.
    pub(super) fn prepare(&mut self, now: BootTime) {
        self.stage = Stage::Preparing(Preparation::begin(self.holds_wal, now));
    }

    /// Litestream is stopped: its answers do not count any more.
    pub(super) fn stops(&mut self) {
        self.stage = Stage::Idle;
    }

    /// A heartbeat row was committed, or could not be.
    pub(in crate::agent) fn row(&mut self, committed: Option<&i64>, now: BootTime) {
        if let Some(id) = committed {
            self.ledger.row(*id, now);
        }
        match &mut self.stage {
            Stage::Idle => {}
            Stage::CatchingUp(catch_up) => catch_up.row(committed.is_some(), now),
            Stage::Preparing(preparation) => preparation.row(committed.is_some(), now),
        }
    }

    /// Something changed that may let a failing sync succeed.
    pub(in crate::agent) fn hasten(&mut self, now: BootTime) {
        if let Stage::CatchingUp(catch_up) = &mut self.stage {
            catch_up.hasten(now);
        }
    }

    /// Litestream, up for `age`, answered a sync. Returns what that means, if it is news.
    pub(super) fn answered(
        &mut self,
        result: Result<Answer, SyncFailure>,
        heartbeat: bool,
        age: Duration,
        socket: &mut Socket,
        jitter: &mut Jitter,
        now: BootTime,
    ) -> Option<Verdict> {
        // A Litestream that has read the database holds its WAL.
        self.holds_wal |= result.is_ok();
        if result == Err(SyncFailure::BeginningMissed) {
            self.ledger.breaks(BEGINNING_MISSED);
        }
        let finding = result.map(|answer| self.ledger.judge(answer, heartbeat, now));
        let asker = Asker {
            age,
            heartbeat,
            wanted: self.ledger.has_unproved_row(),
        };
        match &mut self.stage {
            Stage::CatchingUp(catch_up) => {
                let verdict = catch_up.answered(finding, asker, socket, jitter, now);
                // It can't be known whether it holds the WAL; the guard must end sometime.
                self.holds_wal |= matches!(verdict, Some(Verdict::Unmeasured));
                verdict
            }
            Stage::Idle | Stage::Preparing(_) => None,
        }
    }

    /// Whether an answer to a sync is the one that a stop waits for.
    pub(super) fn awaits_last_sync(&self) -> bool {
        matches!(&self.stage, Stage::Preparing(preparation) if preparation.awaits_sync())
    }

    /// Handles a late answer.
    pub(super) fn expire(&mut self, now: BootTime) -> Option<Verdict> {
        match &mut self.stage {
            Stage::CatchingUp(catch_up) => catch_up.expire(now),
            Stage::Idle | Stage::Preparing(_) => None,
        }
    }

    /// The next step, if it is due; [`Progress::Over`] once Litestream may be stopped.
    pub(super) fn advance(&mut self, heartbeat: bool, now: BootTime) -> Progress {
        let progress = match &mut self.stage {
            Stage::Idle => Progress::Waits,
            Stage::CatchingUp(catch_up) => catch_up
                .advance(heartbeat, now)
                .map_or(Progress::Waits, Progress::Does),
            Stage::Preparing(preparation) => preparation.advance(heartbeat, now),
        };
        if matches!(progress, Progress::Does(Action::Sync)) {
            self.ledger.ask(now);
        }
        progress
    }

    pub(super) fn deadline(&self) -> BootTime {
        match &self.stage {
            Stage::Idle => BootTime::NEVER,
            Stage::CatchingUp(catch_up) => catch_up.deadline(),
            Stage::Preparing(preparation) => preparation.deadline(),
        }
    }

    /// It followed at the last answer, as far as that can be known.
    pub(super) fn follows(&self) -> bool {
        matches!(&self.stage, Stage::CatchingUp(catch_up) if catch_up.is_done())
    }

    /// Only the guard can keep the WAL from a reset before Litestream has read it.
    pub(super) fn leaves_wal_open(&self) -> bool {
        match &self.stage {
            Stage::Idle => true,
            Stage::CatchingUp(_) => !self.holds_wal,
            Stage::Preparing(preparation) => !preparation.holds_wal(),
        }
    }

    /// Whether Litestream's local state may be dropped now.
    pub(super) fn may_be_reset(&self, now: BootTime) -> bool {
        self.reset_allowed <= now
    }

    /// Its local state is useless, and is about to be dropped.
    pub(super) fn begins_reset(&mut self, now: BootTime) {
        let pace = RESET_PACE.saturating_mul(2_u32.saturating_pow(self.resets));
        self.reset_allowed = now + pace.min(LONGEST_RESET_PACE);
        self.resets = self.resets.saturating_add(1);
    }

    /// That state has to be dropped before Litestream may start.
    pub(super) fn has_old_state(&self) -> bool {
        self.has_old_state
    }

    /// Its local state is being dropped.
    pub(super) fn drops_state(&mut self) {
        self.has_old_state = false;
        self.ledger.forget();
    }

    /// It could not be dropped.
    pub(super) fn reset_failed(&mut self, now: BootTime) {
        self.reset_allowed = now + RESET_RETRY;
    }

    /// The WAL is released before Litestream has opened the database: a reset may go unnoticed until
    /// the WAL was emptied.
    pub(in crate::agent) fn lets_go_of_wal(&mut self) {
        self.ledger.breaks(WAL_LET_GO);
    }

    /// The WAL is empty: Litestream uploads the whole database next.
    pub(super) fn begins_anew(&mut self) {
        self.unemptied = 0;
        self.ledger.begins_anew();
    }

    /// The WAL could not be emptied.
    pub(super) fn stays_broken(&mut self, now: BootTime) {
        let wait = RESET_RETRY.saturating_mul(2_u32.saturating_pow(self.unemptied));
        self.unemptied = self.unemptied.saturating_add(1);
        self.reset_allowed = now + wait.min(LONGEST_RESET_RETRY);
        self.resets = self.resets.saturating_sub(1);
    }

    /// The replica was proved to hold everything; returns whether to log that.
    pub(super) fn caught_up(&mut self, now: BootTime) -> bool {
        if self.reset_allowed <= now {
            self.resets = 0;
        }
        !std::mem::replace(&mut self.announced, true)
    }
}
