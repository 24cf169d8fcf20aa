//! What is proved of the replica, and since when something is unproved.
//!
//! Owns the model of proof, and the measure of health: the age of the oldest unproved row. Never asks
//! or starts anything: the replicator decides when Litestream is asked, and what to do about one that
//! does not follow.
//!
//! Litestream numbers the transactions that it takes from the WAL, keeps each in a file, and uploads
//! the files in order. It answers a sync with the last number that it took (`local`) and the last one
//! that its replica holds (`replicated`). The numbers alone prove nothing: if its files were removed,
//! Litestream begins again at 1, uploads nothing while its numbers are below the replica's, and then
//! uploads files that do not continue the replica; all the while it answers that it has synced.
//!
//! So an answer proves the rows that were committed before its request, if
//!
//! 1. **the replica is where Litestream is**: `replicated` equals `local`. If it is less, something is
//!    missing; if it is more, it is not the replica of these files;
//! 2. **the history is one**: since the last answer, `local` did not go back, the folder of the files
//!    and the database's file are the same, the file of the last number is there, and the file of the
//!    number before is unchanged, unless retention has removed it;
//! 3. **Litestream reads this database**: `local` has grown since an earlier answer. An idle database
//!    syncs without an error, also with an expired session, or after another file replaced the
//!    database.
//!
//! At its start Litestream first compares its files with S3, and creates the folder anew if they are
//! behind: the folder may change from one process to the next, and the numbers may begin again. The
//! first answer only serves for comparison with the next one. Nothing but a proof makes a row proved:
//! no start, no grant, no reload, no clock.
//!
//! What no answer shows: an upload that S3 confirmed and lost, and a second device that writes to the
//! same prefix.

use std::time::Duration;

use crate::agent::Legacy;
use crate::clock::BootTime;
use crate::litestream::answer::{
    Answer, BEGINNING_MISSED, Commit, Known, NO_COMMIT, Position, Seam, Survey, WAL_PASSED_OVER,
};

#[cfg(test)]
mod tests;

/// The reasons for a broken history.
const WENT_BACK: &str = "Litestream restarted its transaction numbers, as `litestream reset` does, so its \
                         uploads do not continue the replica";
const IS_AHEAD: &str = "the replica is ahead of Litestream: Litestream's local state was removed or is an \
                        older copy, or another device writes to the same prefix";
const IS_ANOTHER: &str = "the database's file or Litestream's local state was removed or replaced while \
                          Litestream ran, so its uploads do not continue the replica";
pub(super) const LOST: &str =
    "Litestream's local state was lost, and the WAL may not continue the replica";

/// What is known of one database.
#[derive(Debug)]
pub(super) struct Ledger {
    began: BootTime,
    /// The age, at the beginning, of the oldest unproved row of an earlier run.
    inherited: Option<Duration>,
    /// The last row, and when it was committed.
    row: Option<(Row, BootTime)>,
    /// When the oldest unproved row was committed, and the first one after the last sync request.
    oldest: Option<BootTime>,
    after: Option<BootTime>,
    asked: Option<Asked>,
    /// When the first request since the last proof was sent.
    waiting: Option<BootTime>,
    /// The last answer, and whether it came from the running process.
    seen: Option<Answer>,
    is_same_process: bool,
    /// When the last answer was asked for that continued the one before.
    sound: Option<BootTime>,
    /// The mark of the files' folder before the start, and where Litestream has to go on in them, until it is
    /// known how it did.
    folder_before: Option<Option<u64>>,
    seam: Option<Seam>,
    /// Why Litestream has to upload the whole database before its answers count.
    broken: Option<&'static str>,
    /// That upload has begun, and no answer has proved anything since.
    begins_anew: bool,
    /// Everything that was committed before this time is proved.
    covered: Option<BootTime>,
    /// The last commit at the last look, whether a row came after it, and the last commit at the last look
    /// before a request that was answered by a proof.
    looked: Option<Commit>,
    has_newer_row: bool,
    proved_look: Option<Commit>,
    proof: Option<Proof>,
    /// What the last proof ended, until it is counted.
    ended: Option<Duration>,
}

/// A row of this run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Row {
    pub(super) id: i64,
    /// From 1 on.
    pub(super) number: u64,
}

/// A sync request to Litestream.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: BootTime,
    row: Option<Row>,
    looked: Option<Commit>,
}

/// An answer showed that the replica held everything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Proof {
    /// When the answer came, and when it was asked for.
    pub(super) at: BootTime,
    pub(super) asked: BootTime,
    pub(super) position: Position,
    /// The last row at the time of the request.
    pub(super) row: Option<Row>,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Finding {
    /// The replica holds everything that was committed before the request.
    Proved,
    /// The replica is where Litestream is; the next answer shows what that proves.
    Begun,
    /// Something was committed, and Litestream has taken nothing since.
    Unread,
    /// The replica lacks transactions that Litestream has taken.
    Behind,
    /// The answer is about other files, or about another replica.
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
            sound: None,
            folder_before: None,
            seam: None,
            broken: None,
            begins_anew: false,
            covered: None,
            looked: None,
            has_newer_row: false,
            proved_look: None,
            proof: None,
            ended: None,
        }
    }

    /// An earlier run left an unproved row of this age.
    pub(super) fn inherit(&mut self, age: Duration) {
        self.inherited = self.inherited.max(Some(age));
    }

    /// An earlier run did not see Litestream go on there.
    pub(super) fn recalls_seam(&mut self, seam: Option<Seam>) {
        self.seam = self.seam.or(seam);
    }

    /// A row was committed.
    pub(super) fn row(&mut self, id: i64, now: BootTime) {
        let number = self.rows() + 1;
        self.row = Some((Row { id, number }, now));
        self.has_newer_row = true;
        self.oldest.get_or_insert(now);
        self.after.get_or_insert(now);
    }

    /// Litestream is asked to sync.
    pub(super) fn ask(&mut self, now: BootTime) {
        self.after = None;
        self.waiting.get_or_insert(now);
        let row = self.row.map(|(row, _)| row);
        let looked = self.looked;
        self.asked = Some(Asked {
            at: now,
            row,
            looked,
        });
    }

    /// Litestream is about to start, with its files as they are found; `is_held`: nobody resets the WAL any more,
    /// but for one that has nothing unread. Returns whether the stopped process had its files there, as far as
    /// known.
    #[must_use]
    pub(super) fn surveyed(&mut self, survey: Survey, is_held: bool) -> bool {
        let folder = survey.folder;
        self.folder_before = Some(folder);
        let may_tear = survey.has_unread != Some(false) || !is_held;
        self.seam = survey.seam.filter(|_| may_tear);
        if survey.is_torn {
            self.breaks(WAL_PASSED_OVER);
        }
        let seen = self.seen.as_ref().filter(|_| self.is_same_process);
        let is_same = seen
            .and_then(|seen| seen.files)
            .is_none_or(|files| Some(files.folder) == folder);
        if !is_same {
            self.broken.get_or_insert(IS_ANOTHER);
        }
        is_same
    }

    /// The last commit now, if it can be read. Returns whether something may have been committed since the
    /// last proof; without rows only that shows that a database is idle.
    pub(super) fn look(&mut self, commit: Option<Commit>, now: BootTime) -> bool {
        self.looked = commit;
        self.has_newer_row = false;
        let is_idle = self.is_idle();
        if is_idle {
            self.covered = Some(now);
        }
        !is_idle
    }

    /// Litestream is started.
    pub(super) fn started(&mut self) {
        self.proved_look = None;
        self.asked = None;
        self.is_same_process = false;
    }

    /// Its local state is dropped: the next answer is compared with nothing.
    pub(super) fn forget(&mut self) {
        self.seen = None;
        self.seam = None;
    }

    /// What Litestream uploads does not continue its replica.
    pub(super) fn breaks(&mut self, why: &'static str) {
        self.broken = Some(why);
    }

    /// Whether Litestream has to upload the whole database.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Litestream begins to upload the whole database.
    pub(super) fn begins_anew(&mut self) {
        self.begins_anew = self.broken.take().is_some();
        self.forget();
    }

    /// Judges the answer to the last request; `rows`: heartbeat rows are written.
    pub(super) fn judge(&mut self, answer: Answer, rows: bool, now: BootTime) -> Finding {
        // An answer of the previous process, or about another database.
        let Some(asked) = self.asked else {
            return Finding::Behind;
        };
        let position = answer.position;
        if self.is_torn(&answer) {
            self.broken = self.broken.or(Some(WAL_PASSED_OVER));
        }
        if answer.lacks_beginning || self.passed_a_wal_over(&answer) {
            self.broken = self.broken.or(Some(BEGINNING_MISSED));
        }
        self.broken = self.broken.or_else(|| self.fault_of(&answer));
        if let Some(why) = self.broken {
            return Finding::Broken(why);
        }
        // The WAL was begun anew, and nobody knows yet whether it went on where it had to.
        if self.seam.is_some() && answer.is_torn.is_none() && !answer.is_of_seam {
            return Finding::Unread;
        }
        self.sound = Some(asked.at);
        let before = self.seen.replace(answer);
        let is_same_process = std::mem::replace(&mut self.is_same_process, true);
        if position.local == 0 || position.replicated < position.local {
            return Finding::Behind;
        }
        // Until the first row is written, rows show nothing.
        let rows = rows && asked.row.is_some();
        let Some(before) = before else {
            // This process has compared its files with S3. Without rows, that is the proof.
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
            true => {
                let is_quiet = is_quiet || answer.last_commit.is_none();
                asked.row == self.proof.and_then(|proof| proof.row)
                    && self.proof.is_some()
                    && is_quiet
            }
            false => answer
                .last_commit
                .is_some_and(|last| last == NO_COMMIT || is_quiet),
        };
        // The first proof, or one of what the answer before had taken, and had not uploaded yet.
        let is_more = |proof: Proof| proof.position.replicated < position.replicated;
        if nothing_new && self.proof.is_none_or(is_more) {
            return self.prove(asked, position, now);
        }
        if nothing_new {
            self.waiting = None;
            self.covered = Some(asked.at);
            self.proved_look = asked.looked;
            return Finding::Proved;
        }
        // The old mark stays: the commit counts as new until Litestream reads it.
        self.seen = Some(Answer {
            last_commit: before.last_commit,
            ..answer
        });
        Finding::Unread
    }

    /// How many bytes of the WAL, at the last look, are not proved to be on the replica: no less than there are.
    pub(super) fn unproved_bytes(&self) -> u64 {
        match (self.looked, self.proved_look) {
            (Some(now), Some(then)) => now.beyond(then),
            (Some(now), None) => now.bytes,
            (None, _) => 0,
        }
    }

    /// Nothing was committed since all was proved, as the last look showed.
    pub(super) fn is_idle(&self) -> bool {
        !self.has_newer_row && self.looked.is_some() && self.looked == self.proved_look
    }

    /// When the last answer was asked for that showed that Litestream's files are what they were.
    pub(super) fn sound(&self) -> Option<BootTime> {
        self.sound
    }

    /// Everything that was committed before is proved.
    pub(super) fn covered(&self) -> Option<BootTime> {
        self.covered
    }

    /// What the next answer is compared with.
    pub(super) fn known(&self) -> Known {
        Known {
            last: self.seen.as_ref().map(|seen| seen.position.local),
            seam: self.seam,
        }
    }

    /// The number of rows that were committed in this run.
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

    /// There is a row without a proof.
    pub(super) fn has_unproved_row(&self) -> bool {
        self.oldest.is_some()
    }

    /// How long the database has been watched.
    pub(super) fn age(&self, now: BootTime) -> Duration {
        now.since(self.began)
    }

    /// The age of the oldest unproved row; without rows, the possible age of an unproved transaction.
    /// `None` if all are proved.
    pub(super) fn unproved_for(&self, rows: bool, now: BootTime) -> Option<Duration> {
        let own = self.unproved_since(rows).map(|since| now.since(since));
        own.max(self.inherited_for(now))
    }

    /// How long ago something may have been committed that is not proved, whether a row shows it or not: what
    /// an application commits between a proof and its next row, too.
    pub(super) fn open_for(&self, now: BootTime) -> Duration {
        let own = now.since(self.covered.unwrap_or(self.began));
        let inherited = self.inherited_for(now).unwrap_or_default();
        own.max(inherited)
    }

    /// The same just before a proof that was not counted yet.
    pub(super) fn take_ended(&mut self) -> Option<Duration> {
        self.ended.take()
    }

    /// Since when Litestream has not confirmed a sync; `None` if it has.
    pub(super) fn waits_since(&self) -> Option<BootTime> {
        self.waiting
    }

    /// Litestream could not answer: the device slept, or there were no credentials.
    pub(super) fn excuse(&mut self, now: BootTime) {
        self.waiting = self.waiting.map(|_| now);
    }

    /// What the next run has to know, of this run and an earlier one.
    pub(super) fn legacy(&self, rows: bool) -> Legacy {
        let inherited = self.inherited.map(|age| {
            let began = self.began.since_boot();
            BootTime::new(began.saturating_sub(age))
        });
        Legacy {
            unproved_since: inherited.or(self.unproved_since(rows)),
            // Kept until a proof: a change to the files may not have reached the disk.
            begins_anew: self.broken.is_some() || self.begins_anew,
            is_unrestorable: false,
            differs: false,
            seam: self.seam,
        }
    }

    fn inherited_for(&self, now: BootTime) -> Option<Duration> {
        let since_began = now.since(self.began);
        self.inherited.map(|age| age.saturating_add(since_began))
    }

    fn unproved_since(&self, rows: bool) -> Option<BootTime> {
        match rows {
            true => self.oldest,
            false => Some(self.covered.unwrap_or(self.began)),
        }
    }

    fn prove(&mut self, asked: Asked, position: Position, now: BootTime) -> Finding {
        self.ended = Some(self.open_for(now));
        self.inherited = None;
        self.begins_anew = false;
        self.waiting = None;
        self.oldest = self.after;
        self.covered = Some(asked.at);
        self.proved_look = asked.looked;
        self.proof = Some(Proof {
            at: now,
            asked: asked.at,
            position,
            row: asked.row,
        });
        Finding::Proved
    }

    /// Whether Litestream rebuilt its folder from the replica's last file, and then took another WAL.
    /// In a folder older than the process this is normal: each checkpoint begins a new WAL.
    fn passed_a_wal_over(&mut self, answer: &Answer) -> bool {
        let folder = answer.files.map(|files| files.folder);
        let is_new = self.folder_before.is_some_and(|before| before != folder);
        if !is_new || answer.passed_a_wal_over.is_some() {
            self.folder_before = None;
        }
        is_new && answer.passed_a_wal_over == Some(true)
    }

    /// Whether Litestream has not gone on where it had to. In a folder that it has rebuilt it has not begun there.
    fn is_torn(&mut self, answer: &Answer) -> bool {
        let folder = answer.files.map(|files| files.folder);
        let is_rebuilt = self.folder_before.is_some_and(|before| before != folder);
        let is_torn = self.seam.is_some() && !is_rebuilt && answer.is_torn == Some(true);
        self.seam = self
            .seam
            .filter(|_| !is_rebuilt && answer.is_torn.is_none());
        is_torn
    }

    /// Why `answer` does not continue the last answer, if so.
    fn fault_of(&self, answer: &Answer) -> Option<&'static str> {
        if answer.position.replicated > answer.position.local {
            return Some(IS_AHEAD);
        }
        let before = self.seen.as_ref()?;
        // The same number, but another file.
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
