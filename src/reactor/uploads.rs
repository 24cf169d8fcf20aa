//! The count of what Litestream has uploaded of each database, since the daemon's start.
//!
//! Owns the sums, which no start of Litestream and no reset of its state sets back. Counts what Litestream's
//! log tells: where that is not heard, or two databases have one name in it, there is no number. Decides
//! nothing.

use std::collections::BTreeMap;

use super::paths::Paths;
use crate::agent::Database;
use crate::litestream::uploads::{Upload, Uploaded};

#[derive(Debug, Default)]
pub(super) struct Uploads {
    /// A log that tells of uploads was heard.
    is_told: bool,
    sums: BTreeMap<Database, Uploaded>,
}

impl Uploads {
    /// What was heard since the last call; `is_told`: in a log that tells of them.
    pub(super) fn heard(&mut self, uploads: Vec<Upload>, is_told: bool, paths: &Paths) {
        self.is_told |= is_told;
        for upload in uploads {
            if let Some(database) = paths.named(&upload.name) {
                self.sums.entry(database).or_default().add(upload.bytes);
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
}
