//! Litestream's files and its replica, as far as numbers go.
//!
//! Owns what Litestream 0.5 does with them: it counts what it takes, uploads what comes after the last
//! number that it believes S3 to have, and looks at neither once it runs. And what the replica is worth
//! then: a file that does not continue the one before makes it wrong, until one with the whole database
//! comes.

use std::collections::BTreeMap;

use edgerepl::litestream::answer::{Answer, Files, Known, Position, Seam, Survey};

/// Retention leaves so many files, and that of the last answer: edgerepl has it last for two proofs.
const KEPT: usize = 40;

/// The mark of no file.
const NOTHING: u64 = 0;

/// A transaction's file.
#[derive(Clone, Copy, Debug)]
struct Taken {
    mark: u64,
    /// The mark of the file that it continues; `None` where it holds the whole database.
    continues: Option<u64>,
    commits: u64,
    /// What was committed before it is in no file.
    is_torn: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Replica {
    files: BTreeMap<u64, Taken>,
    local: u64,
    /// The last one that was answered with.
    answered: u64,
    folder: u64,
    marks: u64,
    /// The mark of the file that was last taken from this database's WAL.
    taken: u64,
    /// The next file holds the whole database.
    whole: bool,
    /// The WAL was begun anew while Litestream was down, after so many commits, and it will not notice:
    /// it takes it that it had read all of the old one.
    passes_over: Option<u64>,
    /// That was after its files were looked at.
    passes_late: bool,
    /// It was begun anew at all since Litestream read it, and is not empty.
    was_reset: bool,
    /// The folder of the files was begun with one from S3, and went on with another WAL; `None` where it
    /// has not gone on.
    passed_over: Option<bool>,
    /// What the process that runs believes of S3; `None` before it has asked.
    believed: Option<u64>,
    newest: u64,
    newest_file: Option<Taken>,
    /// Something happened to the files that Litestream did not do, since the whole database was uploaded.
    pub(crate) is_hurt: bool,
    was_dropped: bool,
    /// The same, since S3 was given the whole database last.
    is_suspect: bool,
    /// What is on S3 can be restored.
    pub(crate) is_sound: bool,
    /// The commits that a restore brings back, or did before it was wrong.
    pub(crate) commits: u64,
}

/// What happens to a folder that is somebody else's.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Wound {
    Removed,
    /// The files alone.
    Emptied,
    RolledBack(u64),
    /// Another database's, of so many transactions.
    Another(u64),
}

impl Replica {
    pub(crate) fn new() -> Self {
        Self {
            is_sound: true,
            ..Self::default()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.newest == 0
    }

    /// It is wrong, or the next upload may make it so.
    pub(super) fn is_doubtful(&self) -> bool {
        !self.is_sound || self.is_suspect
    }

    /// A process begins that knows nothing of S3.
    pub(crate) fn starts(&mut self) {
        self.believed = None;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.believed.is_some()
    }

    /// The WAL is begun anew after so many commits, while Litestream is down. It notices, and takes the
    /// whole database, unless the new one is shorter.
    pub(crate) fn reset_wal(&mut self, commits: u64, is_shorter: bool, was_surveyed: bool) {
        self.was_reset = true;
        match is_shorter && self.newest > 0 {
            true => {
                self.passes_late |= was_surveyed && self.passes_over.is_none();
                self.passes_over = self.passes_over.or(Some(commits));
            }
            false => self.whole = true,
        }
    }

    /// The WAL is another one than Litestream read last, and seems to be the same, as a look at it shows.
    pub(crate) fn passes_over(&self) -> bool {
        let is_seen = self.passes_over.is_some() && !self.passes_late;
        is_seen && !self.whole && !self.files.is_empty()
    }

    /// The WAL is not the one that the files were made of.
    pub(crate) fn wal_was_reset(&self) -> bool {
        self.was_reset && !self.files.is_empty()
    }

    /// What the files and the WAL look like, after so many commits; the last process was to go on at `seam`.
    pub(crate) fn survey(&mut self, commits: u64, seam: Option<Seam>) -> Survey {
        self.passes_late = false;
        let last = self.files.get(&self.local);
        let is_of_wal = last.is_some_and(|last| last.mark == self.taken) && !self.was_reset;
        let next = Seam {
            after: self.local,
            wal: 0,
            read: 0,
        };
        Survey {
            wal_was_reset: self.wal_was_reset(),
            is_empty: false,
            folder: Some(self.folder),
            seam: is_of_wal.then_some(next),
            has_unread: Some(last.is_some_and(|last| last.commits < commits)),
            is_torn: self.is_torn_at(seam),
        }
    }

    /// The process that was to go on there has not.
    pub(super) fn is_torn_at(&self, seam: Option<Seam>) -> bool {
        seam.and_then(|seam| self.is_torn(seam)) == Some(true)
    }

    fn is_torn(&self, seam: Seam) -> Option<bool> {
        let next = self.files.get(&(seam.after + 1));
        let is_gone = (self.local > seam.after).then_some(false);
        next.map(|next| next.is_torn).or(is_gone)
    }

    /// Nothing is left in the WAL that it could take for the one that it knows.
    pub(crate) fn empty_wal(&mut self) {
        self.was_reset = false;
        self.whole = true;
    }

    /// Takes in all `commits` and uploads what there is.
    ///
    /// # Errors
    /// A file is missing.
    pub(crate) fn sync(&mut self, commits: u64) -> Result<(), ()> {
        if self.believed.is_none() {
            if let Some(newest) = self.newest_file.filter(|_| self.local < self.newest) {
                self.files = BTreeMap::from([(self.newest, newest)]);
                self.local = self.newest;
                self.folder = self.new_mark();
                self.passed_over = None;
                // It fits the WAL, or does not.
                self.whole |= newest.mark != self.taken;
            }
            self.believed = Some(self.newest);
        }
        let last = self.files.get(&self.local).copied();
        self.whole |= last.is_none_or(|last| last.mark != self.taken);
        if self.whole || last.is_some_and(|last| last.commits < commits) {
            self.was_reset = false;
            let passed_over = self.passes_over.take();
            self.passes_late = false;
            let passes = passed_over.is_some() && !self.whole;
            if self.passed_over.is_none() {
                self.passed_over = Some(passes);
                self.is_hurt |= passes;
                self.was_dropped &= !passes;
            }
            let lacks =
                passed_over.is_some_and(|reset| last.is_some_and(|last| last.commits < reset));
            let continues = last.filter(|_| !self.whole).map(|last| match lacks {
                true => NOTHING,
                false => last.mark,
            });
            let mark = self.new_mark();
            self.local += 1;
            let taken = Taken {
                mark,
                continues,
                commits,
                is_torn: lacks && !self.whole,
            };
            self.files.insert(self.local, taken);
            self.taken = mark;
            self.is_hurt &= !(self.whole && self.was_dropped);
            self.whole = false;
        }
        let from = self.believed.unwrap_or_default() + 1;
        for number in from..=self.local {
            let taken = *self.files.get(&number).ok_or(())?;
            let fits = self.newest_file.map(|file| file.mark) == taken.continues;
            self.is_sound = taken.continues.is_none() || self.is_sound && fits;
            self.is_suspect &= taken.continues.is_some();
            if self.is_sound {
                self.commits = taken.commits;
            }
            self.newest = number;
            self.newest_file = Some(taken);
            self.believed = Some(number);
        }
        while self.files.len() > KEPT
            && let Some(first) = self.files.first_entry()
            && *first.key() < self.answered
        {
            first.remove();
        }
        Ok(())
    }

    /// The last number that S3 has.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// The last number that S3 has, if Litestream's files are not as far.
    pub(crate) fn passed_by(&self) -> Option<u64> {
        let is_behind = !self.files.is_empty() && self.local < self.newest;
        is_behind.then_some(self.newest)
    }

    /// S3 has a snapshot of the whole database, as of the last number: what was wrong before it is not read
    /// any more.
    pub(crate) fn is_uploaded_whole(&mut self) {
        self.is_sound = true;
        self.is_suspect = false;
        self.commits = self.newest_file.map_or(0, |file| file.commits);
    }

    /// What a sync is answered with, by an agent that knows so much before.
    pub(crate) fn answer(&mut self, known: Known, commits: u64) -> Answer {
        self.answered = self.local;
        let mark = |number: u64| self.files.get(&number).map(|file| file.mark);
        Answer {
            position: Position {
                local: self.local,
                replicated: self.believed.unwrap_or_default(),
            },
            files: Some(Files {
                folder: self.folder,
                last: mark(self.local),
                before: known.last.and_then(mark),
            }),
            last_commit: Some(commits),
            passed_a_wal_over: self.passed_over,
            lacks_beginning: false,
            is_torn: known.seam.and_then(|seam| self.is_torn(seam)),
            is_of_seam: !self.was_reset,
        }
    }

    /// What was uploaded last lacks the beginning of the WAL.
    pub(crate) fn spoil(&mut self) {
        self.is_sound = false;
        self.is_hurt = true;
        self.was_dropped = false;
    }

    /// The agent has them dropped.
    pub(crate) fn drop_files(&mut self) {
        let (was_hurt, was_suspect) = (self.is_hurt, self.is_suspect);
        self.hurt(Wound::Removed);
        (self.is_hurt, self.is_suspect) = (was_hurt, was_suspect);
        self.was_dropped = true;
    }

    pub(crate) fn hurt(&mut self, wound: Wound) {
        self.is_hurt = true;
        self.is_suspect = true;
        self.was_dropped = false;
        if wound != Wound::Emptied {
            self.folder = self.new_mark();
        }
        match wound {
            Wound::Removed | Wound::Emptied => {
                self.files.clear();
                self.local = 0;
            }
            Wound::RolledBack(by) => {
                self.local = self.local.saturating_sub(by);
                self.files.split_off(&(self.local + 1));
            }
            Wound::Another(transactions) => {
                self.files.clear();
                for number in transactions.saturating_sub(5).max(1)..=transactions {
                    let mark = self.new_mark();
                    let taken = Taken {
                        mark,
                        continues: Some(NOTHING),
                        commits: 0,
                        is_torn: false,
                    };
                    self.files.insert(number, taken);
                }
                self.local = transactions;
            }
        }
        if self.files.is_empty() {
            self.local = 0;
        }
    }

    fn new_mark(&mut self) -> u64 {
        self.marks += 1;
        self.marks
    }
}
