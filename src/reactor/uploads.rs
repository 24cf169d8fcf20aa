//! The count of what Litestream has uploaded of each database, since the daemon's start.
//!
//! Owns the sums, which no start of Litestream and no reset of its state sets back. Transactions are counted by
//! the numbers in Litestream's answers, and sized by their files here; what is compacted, and snapshots, by its
//! log. Where that is not heard, or two databases have one name in it, there is no number: one without the
//! snapshots would look too good. Decides nothing.

use std::collections::BTreeMap;

use super::paths::Paths;
use crate::agent::Database;
use crate::litestream::answer::Position;
use crate::litestream::uploads::{Upload, Uploaded};

#[derive(Debug, Default)]
pub(super) struct Uploads {
    /// A log that tells of uploads was heard.
    is_told: bool,
    sums: BTreeMap<Database, Uploaded>,
    counted: BTreeMap<Database, Counted>,
}

/// The last transaction that is counted.
#[derive(Clone, Copy, Debug)]
enum Counted {
    /// It had a file before the first start, and was uploaded before, as far as is known.
    Before(u64),
    /// The replica held it at the last answer.
    Replicated(u64),
}

impl Uploads {
    /// The last transaction that has a file, before a start.
    pub(super) fn begins(&mut self, database: Database, newest: u64) {
        let before = Counted::Before(newest);
        self.counted.entry(database).or_insert(before);
    }

    /// The last transaction that is counted, at an answer.
    pub(super) fn counted(&self, database: Database, position: Position) -> u64 {
        match self.counted.get(&database) {
            Some(Counted::Before(last) | Counted::Replicated(last)) => *last,
            // It was there before the daemon.
            None => position.replicated,
        }
    }

    /// The replica holds so many; `found`: the files that are there of those that are not counted.
    pub(super) fn replicated(&mut self, database: Database, position: Position, found: Uploaded) {
        let now = Counted::Replicated(position.replicated);
        let new = match self.counted.insert(database, now) {
            Some(Counted::Replicated(last)) => position.replicated.saturating_sub(last),
            // Litestream may go on from what the replica holds: all before its files is older.
            Some(Counted::Before(_)) => found.uploads,
            None => 0,
        };
        // Another device's, as a replica that is ahead may be, are not this one's.
        if position.replicated <= position.local {
            let bytes = scaled(found, new);
            let more = Uploaded {
                uploads: new,
                bytes,
            };
            self.sums.entry(database).or_default().add(more);
        }
    }

    /// What was heard since the last call; `is_told`: in a log that tells of uploads.
    pub(super) fn heard(&mut self, uploads: Vec<Upload>, is_told: bool, paths: &Paths) {
        self.is_told |= is_told;
        for upload in uploads {
            if let Some(database) = paths.named(&upload.name) {
                let bytes = upload.bytes;
                let more = Uploaded { uploads: 1, bytes };
                self.sums.entry(database).or_default().add(more);
            }
        }
    }

    /// What was uploaded of a database; `None` where that is not told.
    pub(super) fn of(&self, database: Database, paths: &Paths) -> Option<Uploaded> {
        let name = paths.in_litestream(database).file_name()?.to_str()?;
        let is_told = self.is_told && paths.named(name) == Some(database);
        is_told.then(|| self.sums.get(&database).copied().unwrap_or_default())
    }
}

/// The bytes of so many: those whose files are gone already are as large as the others.
fn scaled(found: Uploaded, uploads: u64) -> u64 {
    let all = u128::from(found.bytes) * u128::from(uploads);
    let mean = all.checked_div(u128::from(found.uploads));
    u64::try_from(mean.unwrap_or_default()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn upload(name: &str, bytes: u64) -> Upload {
        let name = name.to_owned();
        Upload { name, bytes }
    }

    fn sum(uploads: u64, bytes: u64) -> Option<Uploaded> {
        Some(Uploaded { uploads, bytes })
    }

    #[test]
    fn what_is_not_told_is_no_number() {
        let mut paths = Paths::default();
        let mut number = |path: &str| paths.number(Path::new(path)).expect("a number");
        let (app, other) = (number("/data/app.db"), number("/data/other.db"));
        let mut uploads = Uploads::default();
        assert_eq!(uploads.of(app, &paths), None, "nothing was heard yet");
        uploads.heard(Vec::new(), true, &paths);
        assert_eq!(uploads.of(app, &paths), sum(0, 0));
        let heard = [
            ("app.db", 5),
            ("other.db", 7),
            ("app.db", 9),
            ("gone.db", 11),
        ];
        let heard = heard.map(|(name, bytes)| upload(name, bytes));
        uploads.heard(heard.to_vec(), true, &paths);
        // A later Litestream that says nothing takes nothing back.
        uploads.heard(Vec::new(), false, &paths);
        assert_eq!(uploads.of(app, &paths), sum(2, 14));
        assert_eq!(uploads.of(other, &paths), sum(1, 7));
        // One name, and it may be of either.
        let twin = paths.number(Path::new("/more/app.db")).expect("a number");
        uploads.heard(vec![upload("app.db", 1)], true, &paths);
        assert_eq!(uploads.of(app, &paths), None);
        assert_eq!(uploads.of(twin, &paths), None);
        assert_eq!(uploads.of(other, &paths), sum(1, 7));
    }

    #[test]
    fn transactions_are_counted_once_whatever_becomes_of_their_numbers() {
        let mut paths = Paths::default();
        let app = paths.number(Path::new("/data/app.db")).expect("a number");
        let at = |replicated| Position {
            local: replicated,
            replicated,
        };
        let found = |uploads, bytes| Uploaded { uploads, bytes };
        let mut uploads = Uploads::default();
        uploads.heard(Vec::new(), true, &paths);
        // Nine were there before; the replica has been ahead of them, and Litestream goes on after it.
        uploads.begins(app, 9);
        assert_eq!(uploads.counted(app, at(50)), 9);
        uploads.replicated(app, at(50), found(2, 200));
        assert_eq!(uploads.of(app, &paths), sum(2, 200));
        // A second start changes nothing.
        uploads.begins(app, 51);
        assert_eq!(uploads.counted(app, at(60)), 50);
        // Half of the files are gone.
        uploads.replicated(app, at(60), found(5, 1000));
        assert_eq!(uploads.of(app, &paths), sum(12, 2200));
        // The same answer again, one without any file, and one of numbers that began anew.
        uploads.replicated(app, at(60), found(0, 0));
        uploads.replicated(app, at(61), found(0, 0));
        uploads.replicated(app, at(3), found(3, 900));
        assert_eq!(uploads.of(app, &paths), sum(13, 2200));
        uploads.replicated(app, at(4), found(1, 10));
        assert_eq!(uploads.of(app, &paths), sum(14, 2210));
        // Somebody else's.
        let ahead = Position {
            local: 4,
            replicated: 900,
        };
        uploads.replicated(app, ahead, found(1, 10));
        assert_eq!(uploads.of(app, &paths), sum(14, 2210));
        // What nobody surveyed was there before.
        let mut uploads = Uploads::default();
        uploads.heard(Vec::new(), true, &paths);
        assert_eq!(uploads.counted(app, at(7)), 7);
        uploads.replicated(app, at(7), found(0, 0));
        uploads.replicated(app, at(8), found(1, 5));
        assert_eq!(uploads.of(app, &paths), sum(1, 5));
        uploads.replicated(app, at(u64::MAX), found(1, u64::MAX));
        let most = uploads.of(app, &paths).map(|sum| sum.bytes);
        assert_eq!(most, Some(u64::MAX));
    }
}
