//! What is proved of the replica, and since when something is not.
//!
//! Owns the model of proof, and what healthy means by it: how old the oldest row is that is not proved.
//! Asks nobody and starts nothing: when Litestream is asked, and what is done about one that lost its way,
//! is the replicator's.
//!
//! Litestream numbers the transactions that it takes from the WAL, keeps each as a file of its own, and
//! uploads the files in their order. Asked to sync, it answers with the last number that it took (`local`)
//! and the last one that its replica holds (`replicated`). Both are numbers and no more: a Litestream whose
//! files were removed begins anew at 1, uploads nothing as long as its numbers are below the replica's, and
//! what does not fit on what is there from then on; all the while it answers that it has synced.
//!
//! So an answer proves the rows that were committed before it was asked for, if
//!
//! 1. **the replica is where Litestream is**: `replicated` equals `local`. Behind, something is missing;
//!    ahead, it is not the replica of these files;
//! 2. **the history is one**: since the answer before, `local` did not go back, the folder of the files is
//!    the same one, the file of the last number is there, and that of the number before is what it was,
//!    unless retention has removed it;
//! 3. **Litestream reads this database**: `local` has grown since an answer that was given before. An idle
//!    database syncs happily, with a session that has ended, or where a file has taken the place of another.
//!
//! A process that starts compares its files with S3 before all else, and makes the folder anew where they
//! are behind: from one process to the next the folder may change, and the numbers may begin anew. The
//! first answer of all is only what the next one is compared with. Nothing but a proof makes a row proved:
//! no start, no grant, no reload, no clock.
//!
//! What no answer shows: an upload that S3 confirmed and did not keep, and a second device that writes into
//! the same prefix.

use std::time::Duration;

use crate::agent::Legacy;
use crate::clock::BootTime;
use crate::litestream::answer::{Answer, BEGINNING_MISSED, NO_COMMIT, Position};

#[cfg(test)]
mod tests;

/// A row that is older, and that no replica is known to hold, is told of.
pub const BOUND: Duration = Duration::from_secs(120);

/// What breaks a history, in words.
const WENT_BACK: &str = "Litestream restarted its transaction numbers, as `litestream reset` does, so its uploads do not continue the replica";
const IS_AHEAD: &str = "the replica is ahead of Litestream: Litestream's local state was removed or is an older copy, or another device writes to the same prefix";
const IS_ANOTHER: &str = "Litestream's local state was removed or replaced while Litestream ran, so its uploads do not continue the replica";
pub(super) const LOST: &str =
    "Litestream's local state was lost, and the WAL may not continue the replica";

/// What is known, in the end, of one database.
#[derive(Debug)]
pub(super) struct Ledger {
    began: BootTime,
    /// How old, at the beginning, the oldest row was that an earlier run had not seen proved.
    inherited: Option<Duration>,
    /// The last row, and when it was committed.
    row: Option<(Row, BootTime)>,
    /// When the oldest row was committed that is not proved, and the first one after the last question.
    oldest: Option<BootTime>,
    after: Option<BootTime>,
    asked: Option<Asked>,
    /// When the first question was put that no answer has proved anything to.
    waiting: Option<BootTime>,
    /// What was answered last, and whether by the process that runs.
    seen: Option<Answer>,
    is_same_process: bool,
    /// The mark of the folder of its files before the start, until it is known how it went on there.
    folder_before: Option<Option<u64>>,
    /// Why Litestream has to upload the whole database before anything that it says is believed.
    broken: Option<&'static str>,
    /// It is on the way to that: no answer has proved anything since.
    begins_anew: bool,
    /// All that was committed before then is proved.
    covered: Option<BootTime>,
    proof: Option<Proof>,
}

/// A row of this run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Row {
    pub(super) id: i64,
    /// From 1 on.
    pub(super) number: u64,
}

/// A question that was put to Litestream.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: BootTime,
    row: Option<Row>,
}

/// That the replica held all that there was, as an answer showed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Proof {
    /// When it came, and when it was asked for.
    pub(super) at: BootTime,
    pub(super) asked: BootTime,
    pub(super) position: Position,
    /// The last row that there was when it was asked for.
    pub(super) row: Option<Row>,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Finding {
    /// The replica holds all that was committed before the question.
    Proved,
    /// The replica is where Litestream is; what that is worth the next answer shows.
    Begun,
    /// Something was committed, and Litestream has taken nothing since.
    Unread,
    /// The replica lacks what Litestream has taken.
    Behind,
    /// What Litestream says is said of other files, or of another replica.
    Broken(&'static str),
}

impl Ledger {
    pub(super) fn new(now: BootTime) -> Self {
        Self {
            began: now,
            inherited: None,
            row: None,
            oldest: None,
            after: None,
            asked: None,
            waiting: None,
            seen: None,
            is_same_process: false,
            folder_before: None,
            broken: None,
            begins_anew: false,
            covered: None,
            proof: None,
        }
    }

    /// An earlier run left a row behind, so old by now, that it had not seen proved.
    pub(super) fn inherit(&mut self, age: Duration) {
        self.inherited = self.inherited.max(Some(age));
    }

    /// A row was committed.
    pub(super) fn row(&mut self, id: i64, now: BootTime) {
        let number = self.rows() + 1;
        self.row = Some((Row { id, number }, now));
        self.oldest.get_or_insert(now);
        self.after.get_or_insert(now);
    }

    /// Litestream is asked to sync.
    pub(super) fn ask(&mut self, now: BootTime) {
        self.after = None;
        self.waiting.get_or_insert(now);
        let row = self.row.map(|(row, _)| row);
        self.asked = Some(Asked { at: now, row });
    }

    /// Litestream is about to be started, and its files are in a folder of this mark, or in none. Whether it
    /// is the one in which the process that was stopped had them, as far as that is known.
    #[must_use]
    pub(super) fn surveyed(&mut self, folder: Option<u64>) -> bool {
        self.folder_before = Some(folder);
        let seen = self.seen.as_ref().filter(|_| self.is_same_process);
        let is_same = seen
            .and_then(|seen| seen.files)
            .is_none_or(|files| Some(files.folder) == folder);
        if !is_same {
            self.broken.get_or_insert(IS_ANOTHER);
        }
        is_same
    }

    /// Litestream is started.
    pub(super) fn started(&mut self) {
        self.asked = None;
        self.is_same_process = false;
    }

    /// Its local state is dropped: what it says next is compared with nothing.
    pub(super) fn forget(&mut self) {
        self.seen = None;
    }

    /// What Litestream uploads does not continue its replica.
    pub(super) fn breaks(&mut self, why: &'static str) {
        self.broken = Some(why);
    }

    /// Whether Litestream has to upload the whole database.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// It is about to.
    pub(super) fn begins_anew(&mut self) {
        self.begins_anew = self.broken.take().is_some();
        self.forget();
    }

    /// Takes in an answer to what was asked last, where heartbeat rows are written (`rows`) or not.
    pub(super) fn judge(&mut self, answer: Answer, rows: bool, now: BootTime) -> Finding {
        // Of the process before, or of another database.
        let Some(asked) = self.asked else {
            return Finding::Behind;
        };
        let position = answer.position;
        if answer.lacks_beginning || self.passed_a_wal_over(&answer) {
            self.broken = self.broken.or(Some(BEGINNING_MISSED));
        }
        self.broken = self.broken.or_else(|| self.fault_of(&answer));
        if let Some(why) = self.broken {
            return Finding::Broken(why);
        }
        let before = self.seen.replace(answer);
        let is_same_process = std::mem::replace(&mut self.is_same_process, true);
        if position.local == 0 || position.replicated < position.local {
            return Finding::Behind;
        }
        // As long as none could be written, rows show nothing.
        let rows = rows && asked.row.is_some();
        let Some(before) = before else {
            // The process that answers has asked S3 for what is there. Where nobody writes, that is all.
            return match rows {
                true => Finding::Begun,
                false => self.prove(asked, position, now),
            };
        };
        if before.position.local < position.local {
            return self.prove(asked, position, now);
        }
        let is_quiet = !is_same_process || before.last_commit == answer.last_commit;
        let nothing_new = match rows {
            true => asked.row == self.proof.and_then(|proof| proof.row) && self.proof.is_some(),
            false => answer
                .last_commit
                .is_some_and(|last| last == NO_COMMIT || is_quiet),
        };
        if nothing_new && self.proof.is_none() {
            return self.prove(asked, position, now);
        }
        if nothing_new {
            self.waiting = None;
            self.covered = Some(asked.at);
            return Finding::Proved;
        }
        // It stays new until it is read.
        self.seen = Some(Answer {
            last_commit: before.last_commit,
            ..answer
        });
        Finding::Unread
    }

    /// The last transaction that was heard of.
    pub(super) fn last_seen(&self) -> Option<u64> {
        self.seen.as_ref().map(|seen| seen.position.local)
    }

    /// Rows that were committed in this run.
    pub(super) fn rows(&self) -> u64 {
        self.row.map_or(0, |(row, _)| row.number)
    }

    /// The last one's id, and when it was committed.
    pub(super) fn last_row(&self) -> Option<(i64, BootTime)> {
        self.row.map(|(row, at)| (row.id, at))
    }

    pub(super) fn proof(&self) -> Option<Proof> {
        self.proof
    }

    /// A row is there that no proof speaks of.
    pub(super) fn has_unproved_row(&self) -> bool {
        self.oldest.is_some()
    }

    /// For how long the database has been watched.
    pub(super) fn age(&self, now: BootTime) -> Duration {
        now.since(self.began)
    }

    /// How old the oldest row is that is not proved; without rows, how old a transaction may be that is
    /// not. `None` where all are.
    pub(super) fn unproved_for(&self, rows: bool, now: BootTime) -> Option<Duration> {
        let inherited = self.inherited.map(|age| age + now.since(self.began));
        let own = self.unproved_since(rows).map(|since| now.since(since));
        own.max(inherited)
    }

    /// Since when Litestream has not shown what it was asked for; `None` where it has.
    pub(super) fn waits_since(&self) -> Option<BootTime> {
        self.waiting
    }

    /// Litestream could not answer: the device slept, or there were no credentials.
    pub(super) fn excuse(&mut self, now: BootTime) {
        self.waiting = self.waiting.map(|_| now);
    }

    /// What the next run is to know, of this run and an earlier one.
    pub(super) fn legacy(&self, rows: bool) -> Legacy {
        let inherited = self.inherited.map(|age| {
            let began = self.began.since_boot();
            BootTime::new(began.saturating_sub(age))
        });
        Legacy {
            unproved_since: inherited.or(self.unproved_since(rows)),
            // Until that is proved: what was done to files may not have reached the disk.
            begins_anew: self.broken.is_some() || self.begins_anew,
        }
    }

    fn unproved_since(&self, rows: bool) -> Option<BootTime> {
        match rows {
            true => self.oldest,
            false => Some(self.covered.unwrap_or(self.began)),
        }
    }

    fn prove(&mut self, asked: Asked, position: Position, now: BootTime) -> Finding {
        self.inherited = None;
        self.begins_anew = false;
        self.waiting = None;
        self.oldest = self.after;
        self.covered = Some(asked.at);
        self.proof = Some(Proof {
            at: now,
            asked: asked.at,
            position,
            row: asked.row,
        });
        Finding::Proved
    }

    /// Whether it began a folder anew with the last file of its replica, and then took another WAL. In a
    /// folder that is older than the process that says nothing: each checkpoint begins a WAL anew.
    fn passed_a_wal_over(&mut self, answer: &Answer) -> bool {
        let folder = answer.files.map(|files| files.folder);
        let is_new = self.folder_before.is_some_and(|before| before != folder);
        if !is_new || answer.passed_a_wal_over.is_some() {
            self.folder_before = None;
        }
        is_new && answer.passed_a_wal_over == Some(true)
    }

    /// Why `answer` does not continue what was answered before, if so.
    fn fault_of(&self, answer: &Answer) -> Option<&'static str> {
        if answer.position.replicated > answer.position.local {
            return Some(IS_AHEAD);
        }
        let before = self.seen.as_ref()?;
        // The same number, and not the same file.
        if let (Some(was), Some(is)) = (before.files, answer.files)
            && was
                .last
                .is_some_and(|was| is.before.is_some_and(|is| was != is))
        {
            return Some(IS_ANOTHER);
        }
        if !self.is_same_process {
            return None;
        }
        if answer.position.local < before.position.local {
            return Some(WENT_BACK);
        }
        let is_same = match (before.files, answer.files) {
            (Some(was), Some(is)) => was.folder == is.folder && is.last.is_some(),
            (Some(_), None) => false,
            (None, _) => true,
        };
        (!is_same).then_some(IS_ANOTHER)
    }
}
