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

use crate::clock::BootTime;
use crate::litestream::answer::{Answer, NO_COMMIT, Position};

/// A row that is older, and that no replica is known to hold, is told of.
pub const BOUND: Duration = Duration::from_secs(120);

/// What breaks a history, in words.
const WENT_BACK: &str = "Litestream has begun to count its transactions anew, as after `litestream reset`, \
                         so that what it uploads does not continue its replica";
const IS_AHEAD: &str = "the replica is ahead of Litestream: its local state was removed or is an older one, \
                        or another device writes into the same prefix";
const IS_ANOTHER: &str = "Litestream's local state was removed or replaced while it ran, so that what it \
                          uploads does not continue its replica";
pub(super) const LOST: &str = "Litestream's local state was lost, and nobody can tell whether the WAL \
                               continues its replica";

/// What is known, in the end, of one database.
#[derive(Debug)]
pub(super) struct Ledger {
    began: BootTime,
    /// How old, at the beginning, the oldest row was that an earlier run had not seen proved.
    inherited: Option<Duration>,
    /// The last row.
    row: Option<Row>,
    /// When the oldest row was committed that is not proved, and the first one after the last question.
    oldest: Option<BootTime>,
    after: Option<BootTime>,
    asked: Option<Asked>,
    /// When the first question was put that no answer has proved anything to.
    waiting: Option<BootTime>,
    /// What was answered last, and whether by the process that runs.
    seen: Option<Answer>,
    is_same_process: bool,
    /// Why Litestream has to upload the whole database before anything that it says is believed.
    broken: Option<&'static str>,
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
            broken: None,
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
        self.row = Some(Row { id, number });
        self.oldest.get_or_insert(now);
        self.after.get_or_insert(now);
    }

    /// Litestream is asked to sync.
    pub(super) fn ask(&mut self, now: BootTime) {
        self.after = None;
        self.waiting.get_or_insert(now);
        let row = self.row;
        self.asked = Some(Asked { at: now, row });
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
        self.broken = None;
        self.forget();
    }

    /// Takes in an answer to what was asked last, where heartbeat rows are written (`rows`) or not.
    pub(super) fn judge(&mut self, answer: Answer, rows: bool, now: BootTime) -> Finding {
        let position = answer.position;
        self.broken = self.broken.or_else(|| self.fault_of(&answer));
        if let Some(why) = self.broken {
            return Finding::Broken(why);
        }
        let before = self.seen.replace(answer);
        let is_same_process = std::mem::replace(&mut self.is_same_process, true);
        let Some(asked) = self.asked else {
            return Finding::Behind;
        };
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
        self.row.map_or(0, |row| row.number)
    }

    pub(super) fn proof(&self) -> Option<Proof> {
        self.proof
    }

    /// A row is there that no proof speaks of.
    pub(super) fn has_unproved_row(&self) -> bool {
        self.oldest.is_some()
    }

    /// For how long this run has been.
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

    /// What the next run is to know: since when a row is not proved, of this run or an earlier one.
    pub(super) fn remembered(&self, rows: bool) -> Option<BootTime> {
        let inherited = self.inherited.map(|age| {
            let began = self.began.since_boot();
            BootTime::new(began.saturating_sub(age))
        });
        inherited.or(self.unproved_since(rows))
    }

    fn unproved_since(&self, rows: bool) -> Option<BootTime> {
        match rows {
            true => self.oldest,
            false => Some(self.covered.unwrap_or(self.began)),
        }
    }

    fn prove(&mut self, asked: Asked, position: Position, now: BootTime) -> Finding {
        self.inherited = None;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::litestream::answer::Files;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    /// An answer of a Litestream whose files are all of one history.
    fn answer(local: u64, replicated: u64, before: Option<u64>) -> Answer {
        Answer {
            position: Position { local, replicated },
            files: Some(Files {
                folder: 1,
                last: Some(1000 + local),
                before: before.map(|before| 1000 + before),
            }),
            last_commit: Some(local),
        }
    }

    /// A ledger that has one proof, of transaction 10, asked for at 100 s.
    fn proved() -> Ledger {
        let mut ledger = Ledger::new(at(0));
        ledger.started();
        ledger.row(1, at(90));
        ledger.ask(at(95));
        assert_eq!(
            ledger.judge(answer(9, 9, None), true, at(96)),
            Finding::Begun
        );
        assert_eq!(
            ledger.unproved_for(true, at(100)),
            Some(Duration::from_secs(10))
        );
        ledger.row(2, at(99));
        ledger.ask(at(100));
        let proof = ledger.judge(answer(10, 10, Some(9)), true, at(101));
        assert_eq!(proof, Finding::Proved);
        assert_eq!(ledger.unproved_for(true, at(101)), None);
        ledger
    }

    /// What an answer means that is given after another row.
    fn then(ledger: &mut Ledger, answer: Answer) -> Finding {
        ledger.row(3, at(110));
        ledger.ask(at(111));
        ledger.judge(answer, true, at(112))
    }

    #[test]
    fn an_answer_proves_what_was_committed_before_the_question_and_no_more() {
        let mut ledger = proved();
        ledger.row(3, at(110));
        ledger.ask(at(111));
        ledger.row(4, at(112));
        let proof = ledger.judge(answer(11, 11, Some(10)), true, at(113));
        assert_eq!(proof, Finding::Proved);
        assert_eq!(
            ledger.proof().and_then(|proof| proof.row).map(|row| row.id),
            Some(3)
        );
        assert_eq!(
            ledger.unproved_for(true, at(120)),
            Some(Duration::from_secs(8))
        );
        // It was taken with the row before, so that nothing moves: another one shows it.
        ledger.ask(at(130));
        assert_eq!(
            ledger.judge(answer(11, 11, Some(11)), true, at(131)),
            Finding::Unread
        );
    }

    #[test]
    fn a_history_that_is_not_one_proves_nothing_until_all_is_uploaded_anew() {
        let files = |folder, last, before| {
            Some(Files {
                folder,
                last,
                before,
            })
        };
        let with = |files| Answer {
            files,
            ..answer(11, 11, None)
        };
        for (what, odd) in [
            ("begun anew", answer(1, 10, None)),
            ("the replica is ahead", answer(11, 12, Some(10))),
            ("gone back, the replica too", answer(8, 8, None)),
            ("another folder", with(files(2, Some(1011), Some(1010)))),
            ("the last file is missing", with(files(1, None, Some(1010)))),
            (
                "another file of the same number",
                with(files(1, Some(7), Some(7))),
            ),
            ("no folder any more", with(None)),
        ] {
            let mut ledger = proved();
            assert!(
                matches!(then(&mut ledger, odd), Finding::Broken(_)),
                "{what}"
            );
            // What looks well from now on is not.
            let well = answer(12, 12, Some(11));
            assert!(
                matches!(then(&mut ledger, well), Finding::Broken(_)),
                "{what}"
            );
            ledger.started();
            assert!(
                matches!(then(&mut ledger, well), Finding::Broken(_)),
                "{what}"
            );
            assert_eq!(ledger.proof().map(|proof| proof.position.local), Some(10));
            ledger.begins_anew();
            assert_eq!(
                then(&mut ledger, answer(20, 20, None)),
                Finding::Begun,
                "{what}"
            );
            assert_eq!(
                then(&mut ledger, answer(21, 21, Some(20))),
                Finding::Proved,
                "{what}"
            );
        }
    }

    #[test]
    fn what_retention_removes_and_what_a_start_makes_anew_breaks_no_history() {
        let mut ledger = proved();
        assert_eq!(then(&mut ledger, answer(11, 11, None)), Finding::Proved);
        ledger.started();
        let mut anew = answer(12, 12, None);
        anew.files = anew.files.map(|files| Files { folder: 2, ..files });
        assert_eq!(then(&mut ledger, anew), Finding::Proved);
        // Files that were lost while it was down: it goes on from its replica, which may be behind.
        ledger.started();
        assert_eq!(then(&mut ledger, answer(11, 11, None)), Finding::Unread);
        assert_eq!(then(&mut ledger, answer(12, 12, Some(11))), Finding::Proved);
        // But not with another file of a number that was there.
        ledger.started();
        let mut other = answer(13, 13, None);
        other.files = other.files.map(|files| Files {
            before: Some(7),
            ..files
        });
        assert!(matches!(then(&mut ledger, other), Finding::Broken(_)));
    }

    #[test]
    fn nothing_but_a_proof_makes_the_oldest_row_younger() {
        let mut ledger = proved();
        ledger.inherit(Duration::from_secs(500));
        ledger.row(3, at(110));
        for answer in [answer(10, 10, Some(10)), answer(11, 10, Some(10))] {
            ledger.ask(at(115));
            ledger.started();
            ledger.ask(at(120));
            assert_ne!(ledger.judge(answer, true, at(121)), Finding::Proved);
            ledger.excuse(at(125));
            ledger.forget();
            assert_eq!(
                ledger.unproved_for(true, at(130)),
                Some(Duration::from_secs(630))
            );
        }
        assert_eq!(ledger.remembered(true), Some(at(0)));
    }

    #[test]
    fn where_no_row_can_be_written_the_wal_tells_whether_something_was() {
        let mut ledger = Ledger::new(at(0));
        ledger.started();
        ledger.ask(at(10));
        let idle = answer(9, 9, None);
        assert_eq!(ledger.judge(idle, true, at(11)), Finding::Proved);
        ledger.ask(at(40));
        assert_eq!(ledger.judge(idle, true, at(41)), Finding::Proved);
        let written = Answer {
            last_commit: Some(77),
            ..idle
        };
        ledger.ask(at(70));
        assert_eq!(ledger.judge(written, true, at(71)), Finding::Unread);
        ledger.ask(at(80));
        assert_eq!(ledger.judge(written, true, at(81)), Finding::Unread);
        let unseen = Answer {
            last_commit: None,
            ..idle
        };
        assert_eq!(ledger.judge(unseen, true, at(82)), Finding::Unread);
    }

    #[test]
    fn an_answer_that_nobody_asked_for_proves_nothing() {
        let mut ledger = proved();
        ledger.row(3, at(110));
        ledger.ask(at(111));
        // Of the process before.
        ledger.started();
        assert_eq!(
            ledger.judge(answer(11, 11, Some(10)), true, at(112)),
            Finding::Behind
        );
    }
}
