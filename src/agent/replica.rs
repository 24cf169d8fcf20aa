//! The replica of one database: what is proved of it, what Litestream is asked about it, and whether it
//! has to begin anew.
//!
//! Owns where the database is in Litestream's life: in a start, in its catch-up, in the preparation of a
//! stop. Never deals with the process itself, which several databases share.

use std::time::Duration;

use super::backoff::Jitter;
use super::proof::{self, Ledger};
use super::{Debt, Earlier};
use crate::clock::BootTime;
use crate::litestream::answer::{Answer, BEGINNING_MISSED, Commit, Survey, SyncFailure};

mod catch_up;
mod preparation;

use catch_up::CatchUp;
pub(super) use catch_up::{Asker, NO_ANSWER, SOCKET_LIMIT, Socket, Verdict};
pub(super) use preparation::Request;
use preparation::{Preparation, Progress};

/// The limit of the row and of the last sync before a stop, each; and of the row after a start.
const PREPARATION_LIMIT: Duration = Duration::from_secs(2);

/// The retry of a row during a hand-over, after a locked database refused it.
const ROW_PACE: Duration = Duration::from_millis(100);

/// If local state breaks again within this time, dropping it does not help; doubled each time, because
/// the whole database may have to be uploaded.
const RESET_PACE: Duration = Duration::from_secs(180);
const LONGEST_RESET_PACE: Duration = Duration::from_secs(43_200);

/// The retry of a failed reset; doubled each time if the WAL could not be emptied.
const RESET_RETRY: Duration = Duration::from_secs(300);
const LONGEST_RESET_RETRY: Duration = Duration::from_secs(1800);

/// How many starts a database may hold up that has siblings.
const PATIENCE: u32 = 3;

/// The reasons for what an earlier run found, for a WAL that may have been reset without a trace, and for
/// a start without a survey.
const FOUND_EARLIER: &str =
    "an earlier run of edgerepl found that Litestream's uploads do not continue the replica";
const WAL_LET_GO: &str =
    "the WAL was released before Litestream had read it, and may have been reset";
const NOT_SURVEYED: &str = "Litestream's files could not be read before a start, so its uploads may not continue the replica";

#[derive(Debug)]
pub(super) struct Replica {
    pub(super) ledger: Ledger,
    stage: Stage,
    /// Litestream is known to have opened the database: its own read lock holds the WAL.
    holds_wal: bool,
    /// A row was committed for the stop under way, so that the guard holds a WAL that is not all in the database
    /// file.
    has_last_row: bool,
    /// The log says that the running Litestream replicates it.
    announced: bool,
    reset: Reset,
    reset_allowed: BootTime,
    resets: u32,
    /// How often in a row the WAL could not be emptied.
    unemptied: u32,
    /// How many starts in a row it has held up.
    held_up: u32,
    /// Somebody asked that what was committed before is proved.
    wanted: Option<BootTime>,
}

#[derive(Debug)]
enum Stage {
    /// Litestream is down, or its answers do not count.
    Idle,
    /// Before a start: Litestream's files and the WAL are examined.
    Surveying,
    /// They are: whether Litestream has to begin anew, once the other databases are examined, too.
    Surveyed(Option<Because>),
    /// The WAL is to be emptied, once our guard has released it.
    Holding(Because),
    /// It is being emptied.
    Emptying(Because),
    /// Litestream may start.
    Ready,
    /// Litestream has to show that it follows, or has shown it.
    CatchingUp(CatchUp),
    /// Litestream is about to be stopped.
    Preparing(Preparation),
    /// Litestream may be stopped.
    Prepared,
}

/// Why Litestream has to begin anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Because {
    /// The WAL was reset while it was down. Its replica is right until it is started.
    WalWasReset,
    /// Its replica is already wrong.
    ReplicaIsBroken,
}

/// Whether Litestream's local state is dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reset {
    No,
    /// It has to be, before the next start.
    Wanted,
    /// It is being dropped.
    UnderWay,
}

/// What came of an attempt to empty the WAL.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Emptied {
    /// Litestream uploads the whole database, for this reason.
    Begins(Because),
    /// It begins anew at a later start: its replica is wrong already.
    Later,
    /// Litestream may not start: that would make a good replica wrong.
    Blocked,
    /// It was emptied beside a start, or could not be.
    Aside,
}

impl Replica {
    pub(super) fn new(now: BootTime) -> Self {
        Self {
            ledger: Ledger::new(now),
            stage: Stage::Idle,
            holds_wal: false,
            has_last_row: false,
            announced: false,
            reset: Reset::No,
            reset_allowed: now,
            resets: 0,
            unemptied: 0,
            held_up: 0,
            wanted: None,
        }
    }

    /// An earlier run left a row of this age: a proof that is asked for from now on shows where it is.
    pub(super) fn inherit(&mut self, age: Duration, now: BootTime) {
        self.ledger.inherit(age);
        self.confirm(now);
    }

    /// The record of an earlier run; it does not say what was wrong with Litestream's local state.
    pub(super) fn recalls(&mut self, earlier: Earlier, now: BootTime) {
        self.ledger.recalls_seam(earlier.seam);
        if let Debt::Row(age) = earlier.debt {
            self.inherit(age, now);
        }
        if earlier.begins_anew {
            self.ledger.breaks(FOUND_EARLIER);
            self.reset = Reset::Wanted;
        }
    }

    /// Litestream is about to be started: its files are examined first. Returns whether they are to be.
    pub(super) fn begin_survey(&mut self) -> bool {
        let begins = matches!(self.stage, Stage::Idle);
        if begins {
            self.stage = Stage::Surveying;
        }
        begins
    }

    pub(super) fn is_surveyed(&self) -> bool {
        !matches!(self.stage, Stage::Surveying)
    }

    /// What its files and the WAL look like; `is_held`: the guard holds the WAL.
    pub(super) fn surveyed(&mut self, survey: Survey, is_held: bool, now: BootTime) {
        if !self.ledger.surveyed(survey, is_held) {
            self.want_reset(now);
        }
        let because = match survey.wal_was_reset {
            true => Some(Because::WalWasReset),
            false => self.ledger.is_broken().then_some(Because::ReplicaIsBroken),
        };
        self.stage = Stage::Surveyed(because);
    }

    /// All databases are examined.
    pub(super) fn goes_on(&mut self) {
        if let Stage::Surveyed(because) = self.stage {
            self.stage = because.map_or(Stage::Ready, Stage::Holding);
        }
    }

    /// They can't be examined. Returns whether Litestream may start all the same, for the sake of the
    /// other databases.
    pub(super) fn not_surveyed(&mut self, has_siblings: bool) -> bool {
        let goes_on = self.holds_up_too_long(has_siblings);
        if goes_on {
            self.ledger.breaks(NOT_SURVEYED);
        }
        self.stage = Stage::Ready;
        goes_on
    }

    /// The WAL is to be emptied, or is being emptied, which any read lock prevents.
    pub(super) fn empties_wal(&self) -> bool {
        matches!(self.stage, Stage::Holding(_) | Stage::Emptying(_))
    }

    /// The WAL is to be emptied, once our guard has released it.
    pub(super) fn waits_for_guard(&self) -> bool {
        matches!(self.stage, Stage::Holding(_))
    }

    /// Nobody of ours holds the WAL any more. Returns whether it is to be emptied now.
    pub(super) fn begin_emptying(&mut self) -> bool {
        match self.stage {
            Stage::Holding(because) => {
                self.stage = Stage::Emptying(because);
                true
            }
            _ => false,
        }
    }

    /// The WAL was emptied, or could not be. If not, a start that would make a good replica wrong waits,
    /// but not for ever where other databases wait, too. A replica that already misses rows is better than
    /// none: Litestream starts, and the next start tries again.
    pub(super) fn emptied(&mut self, is_empty: bool, has_siblings: bool, now: BootTime) -> Emptied {
        let Stage::Emptying(because) = self.stage else {
            // No Litestream had the database open then.
            if is_empty {
                self.begins_anew();
            }
            return Emptied::Aside;
        };
        self.stage = Stage::Ready;
        if is_empty {
            self.begins_anew();
            return Emptied::Begins(because);
        }
        if because == Because::WalWasReset && !self.holds_up_too_long(has_siblings) {
            return Emptied::Blocked;
        }
        self.stays_broken(because, now);
        Emptied::Later
    }

    /// A step of a start took too long, which other databases wait for. Returns whether Litestream may
    /// start without that step.
    pub(super) fn gives_up(&mut self, now: BootTime) -> bool {
        if !self.holds_up_too_long(true) {
            return false;
        }
        match self.stage {
            Stage::Holding(because) | Stage::Emptying(because) => self.stays_broken(because, now),
            _ => self.ledger.breaks(NOT_SURVEYED),
        }
        self.stage = Stage::Ready;
        true
    }

    /// Litestream is being started.
    pub(super) fn starts(&mut self) {
        self.stage = Stage::Idle;
        self.holds_wal = false;
        self.announced = false;
        self.held_up = 0;
        self.ledger.started();
    }

    /// Litestream runs, or has newer credentials: it has to show that it follows.
    pub(super) fn catch_up(&mut self, now: BootTime) {
        self.stage = Stage::CatchingUp(CatchUp::begin(now));
    }

    /// Litestream has begun to replicate it, and nothing was asked about it yet.
    pub(super) fn joins(&mut self, now: BootTime) {
        if matches!(self.stage, Stage::Idle) {
            self.catch_up(now);
        }
    }

    /// The same, without a row first.
    pub(super) fn ask_now(&mut self, now: BootTime) {
        self.stage = Stage::CatchingUp(CatchUp::due(now));
    }

    /// Litestream is about to be stopped.
    pub(super) fn prepare(&mut self, now: BootTime) {
        self.has_last_row = false;
        self.stage = Stage::Preparing(Preparation::begin(self.holds_wal, now));
    }

    /// The same of a database that is not there, which nothing can be prepared for.
    pub(super) fn is_ready_for_stop(&mut self) {
        self.stage = Stage::Prepared;
    }

    /// It may be stopped.
    pub(super) fn is_prepared(&self) -> bool {
        matches!(self.stage, Stage::Prepared | Stage::Idle)
    }

    /// Litestream is stopped: its answers do not count any more.
    pub(super) fn stops(&mut self) {
        self.stage = Stage::Idle;
    }

    /// A heartbeat row was committed, or could not be.
    pub(super) fn row(&mut self, committed: Option<&i64>, now: BootTime) {
        if let Some(id) = committed {
            self.ledger.row(*id, now);
        }
        match &mut self.stage {
            Stage::CatchingUp(catch_up) => catch_up.row(committed.is_some(), now),
            Stage::Preparing(preparation) => {
                self.has_last_row |= committed.is_some();
                preparation.row(committed.is_some(), now);
            }
            _ => {}
        }
    }

    /// The last commit, if it can be read: what the application commits shows itself alone. No proof is waited
    /// for while the WAL grows beyond `limit`, in bytes.
    pub(super) fn look(&mut self, commit: Option<Commit>, limit: u64, now: BootTime) {
        if !self.ledger.look(commit, now) {
            return;
        }
        if let Stage::CatchingUp(catch_up) = &mut self.stage {
            catch_up.want();
        }
        if self.ledger.unproved_bytes() > limit {
            self.confirm(now);
        }
    }

    /// What is there to be proved is to be proved then.
    pub(super) fn hurry(&mut self, at: BootTime) {
        if let Stage::CatchingUp(catch_up) = &mut self.stage {
            catch_up.hurry(at);
        }
    }

    /// It is to be proved at this pace from now on.
    pub(super) fn keep_pace(&mut self, pace: Duration, now: BootTime) {
        let next = self.ledger.covered().unwrap_or(now) + pace;
        if let Stage::CatchingUp(catch_up) = &mut self.stage {
            catch_up.keep_pace(next);
        }
    }

    /// It is to be seen at once whether Litestream's files are what they were.
    pub(super) fn confirm(&mut self, now: BootTime) {
        if let Stage::CatchingUp(catch_up) = &mut self.stage {
            catch_up.confirm(now);
        }
    }

    /// What was committed until now is to be proved at once.
    pub(super) fn sync_now(&mut self, now: BootTime) {
        self.wanted = Some(now);
        self.hasten(now);
        self.confirm(now);
    }

    /// Something is not proved that was committed before somebody asked.
    pub(super) fn owes_sync(&self) -> bool {
        self.wanted > self.ledger.covered()
    }

    /// The database was not there, and is now: Litestream could not follow before.
    pub(super) fn appears(&mut self, now: BootTime) {
        self.ledger.excuse(now);
        match self.stage {
            Stage::CatchingUp(_) => self.ask_now(now),
            Stage::Prepared => self.prepare(now),
            _ => {}
        }
    }

    /// Something changed that may let a failing sync succeed.
    pub(super) fn hasten(&mut self, now: BootTime) {
        if let Stage::CatchingUp(catch_up) = &mut self.stage {
            catch_up.hasten(now);
        }
    }

    /// Litestream answered a sync. Returns what that means, if it is news.
    pub(super) fn answered(
        &mut self,
        result: Result<Answer, SyncFailure>,
        asker: Asker,
        socket: &mut Socket,
        jitter: &mut Jitter,
        now: BootTime,
    ) -> Option<Verdict> {
        // A Litestream that has read the database holds its WAL.
        self.holds_wal |= result.is_ok();
        if result == Err(SyncFailure::BeginningMissed) {
            self.ledger.breaks(BEGINNING_MISSED);
        }
        let finding = result.map(|answer| self.ledger.judge(answer, asker.rows, now));
        let wanted = self.ledger.has_unproved_row();
        // Counted from the request: what was committed while the answer was on its way is not in it.
        let next = self.ledger.covered().unwrap_or(now) + asker.pace;
        match &mut self.stage {
            Stage::CatchingUp(catch_up) => {
                let verdict =
                    catch_up.answered(finding, asker, (next, wanted), socket, jitter, now);
                // It can't be known whether it holds the WAL; the guard must end sometime.
                self.holds_wal |= matches!(verdict, Some(Verdict::Unmeasured));
                // It was asked for before that was wanted.
                if self.wanted > self.ledger.covered() {
                    catch_up.confirm(now);
                } else {
                    self.wanted = None;
                }
                verdict
            }
            Stage::Preparing(preparation) if preparation.awaits_sync() => {
                self.stage = Stage::Prepared;
                None
            }
            _ => None,
        }
    }

    /// Handles a late answer.
    pub(super) fn expire(&mut self, now: BootTime) -> Option<Verdict> {
        match &mut self.stage {
            Stage::CatchingUp(catch_up) => catch_up.expire(now),
            _ => None,
        }
    }

    /// What it needs next, if that is due.
    pub(super) fn advance(&mut self, rows: bool, now: BootTime) -> Option<Request> {
        let request = match &mut self.stage {
            Stage::CatchingUp(catch_up) => catch_up.advance(rows, now),
            Stage::Preparing(preparation) => match preparation.advance(rows, now) {
                Progress::Waits => None,
                Progress::Does(request) => Some(request),
                Progress::Over => {
                    self.stage = Stage::Prepared;
                    None
                }
            },
            _ => None,
        };
        if request == Some(Request::Sync) {
            self.ledger.ask(now);
        }
        request
    }

    pub(super) fn deadline(&self) -> BootTime {
        match &self.stage {
            Stage::CatchingUp(catch_up) => catch_up.deadline(),
            Stage::Preparing(preparation) => preparation.deadline(),
            _ => BootTime::NEVER,
        }
    }

    /// It followed at the last answer, as far as that can be known.
    pub(super) fn follows(&self) -> bool {
        matches!(&self.stage, Stage::CatchingUp(catch_up) if catch_up.is_done())
    }

    /// Only the guard can keep the WAL from a reset before Litestream has read it.
    pub(super) fn leaves_wal_open(&self) -> bool {
        match &self.stage {
            Stage::Holding(_) | Stage::Emptying(_) => false,
            Stage::CatchingUp(_) => !self.holds_wal,
            Stage::Preparing(preparation) => !preparation.holds_wal(),
            Stage::Idle | Stage::Surveying | Stage::Surveyed(_) => true,
            Stage::Ready | Stage::Prepared => true,
        }
    }

    /// A row of the stop under way is in the WAL.
    pub(super) fn has_last_row(&self) -> bool {
        self.has_last_row
    }

    /// Its local state is useless. Returns whether it is to be dropped now: not again and again.
    pub(super) fn want_reset(&mut self, now: BootTime) -> bool {
        if self.reset_allowed > now {
            return false;
        }
        let pace = RESET_PACE.saturating_mul(2_u32.saturating_pow(self.resets));
        self.reset_allowed = now + pace.min(LONGEST_RESET_PACE);
        self.resets = self.resets.saturating_add(1);
        self.reset = Reset::Wanted;
        true
    }

    /// Its local state has to be dropped before the next start.
    pub(super) fn wants_reset(&self) -> bool {
        self.reset == Reset::Wanted
    }

    /// It is being dropped.
    pub(super) fn drops_state(&mut self) {
        self.reset = Reset::UnderWay;
        self.ledger.forget();
    }

    pub(super) fn is_dropping(&self) -> bool {
        self.reset == Reset::UnderWay
    }

    /// It was dropped; `is_one_wal`: all of it was made of the WAL that is there.
    pub(super) fn dropped(&mut self, is_one_wal: bool) {
        self.reset = Reset::No;
        if !is_one_wal {
            self.ledger.breaks(proof::LOST);
        }
    }

    /// It could not be dropped.
    pub(super) fn reset_failed(&mut self, now: BootTime) {
        self.reset = Reset::No;
        self.reset_allowed = now + RESET_RETRY;
    }

    /// The WAL is released before Litestream has opened the database: a reset may go unnoticed until
    /// the WAL was emptied.
    pub(super) fn lets_go_of_wal(&mut self) {
        self.ledger.breaks(WAL_LET_GO);
    }

    /// The replica was proved to hold everything; returns whether to log that.
    pub(super) fn caught_up(&mut self, now: BootTime) -> bool {
        if self.reset_allowed <= now {
            self.resets = 0;
        }
        !std::mem::replace(&mut self.announced, true)
    }

    /// The WAL is empty: Litestream uploads the whole database next.
    fn begins_anew(&mut self) {
        self.unemptied = 0;
        self.ledger.begins_anew();
    }

    /// The WAL could not be emptied.
    fn stays_broken(&mut self, because: Because, now: BootTime) {
        // The start makes a replica wrong that was right.
        if because == Because::WalWasReset {
            self.ledger.breaks(BEGINNING_MISSED);
        }
        let wait = RESET_RETRY.saturating_mul(2_u32.saturating_pow(self.unemptied));
        self.unemptied = self.unemptied.saturating_add(1);
        self.reset_allowed = now + wait.min(LONGEST_RESET_RETRY);
        self.resets = self.resets.saturating_sub(1);
    }

    fn holds_up_too_long(&mut self, has_siblings: bool) -> bool {
        self.held_up = self.held_up.saturating_add(1);
        has_siblings && self.held_up >= PATIENCE
    }
}
