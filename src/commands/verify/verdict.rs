//! What a comparison of one database with its replica has shown.
//!
//! Owns the verdict, and its words for people and for programs. Never compares anything.

use std::time::Duration;

use serde_json::{Value, json};

use crate::commands::output::Paint;
use crate::store::compare::{BY_ROWS, Soundness};

/// The result.
pub(super) struct Verdict {
    /// The transaction at which both sides were compared; `None` if Litestream can't name it.
    pub(super) transaction: Option<u64>,
    /// How many pages were compared; `None` if rows were.
    pub(super) pages: Option<u64>,
    pub(super) pages_different: u64,
    /// A sentence for each difference.
    pub(super) differences: Vec<String>,
    pub(super) soundness: Soundness,
    pub(super) tables: Vec<Table>,
    /// Heartbeat rows that the replica did not hold yet.
    pub(super) behind: u64,
    /// How long checkpoints of the live database had to wait.
    pub(super) held: Duration,
    pub(super) took: Duration,
}

/// A table of the database, the replica, or both.
pub(super) struct Table {
    pub(super) name: String,
    /// How many rows, if they could be counted.
    pub(super) live: Option<u64>,
    pub(super) replica: Option<u64>,
    pub(super) equal: bool,
    /// Whether a difference counts: both were read at the same transaction, or their rows never
    /// change.
    pub(super) binding: bool,
}

impl Verdict {
    /// Whether the replica holds all that it should.
    pub(super) fn holds(&self) -> bool {
        let differs = |table: &Table| table.binding && !table.equal;
        self.soundness.damage.is_none()
            && self.pages_different == 0
            && self.differences.is_empty()
            && !self.tables.iter().any(differs)
    }

    /// What the replica does not hold as it should: a few sentences, however much it is.
    pub(super) fn told(&self) -> impl Iterator<Item = &str> {
        let differences = self.differences.iter().map(String::as_str);
        differences.chain(self.soundness.damage.as_deref()).take(10)
    }

    /// As JSON.
    pub(super) fn document(&self) -> Value {
        let tables: Vec<Value> = self
            .tables
            .iter()
            .map(|table| {
                json!({
                    "name": table.name,
                    "rows": table.live,
                    "rows_on_replica": table.replica,
                    "equal": table.equal,
                    "compared_at_one_moment": table.binding,
                })
            })
            .collect();
        json!({
            "holds": self.holds(),
            "transaction": self.transaction,
            "compared": if self.pages.is_some() { "pages" } else { "rows" },
            "pages": self.pages,
            "pages_different": self.pages.map(|_| self.pages_different),
            "differences": self.differences,
            "integrity": self.soundness.integrity(),
            "unchecked": self.soundness.unchecked,
            "rows_behind": self.behind,
            "tables": tables,
            "held_s": self.held.as_millis() as f64 / 1000.0,
            "took_s": self.took.as_millis() as f64 / 1000.0,
        })
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let (word, paint) = match self.holds() {
            true => ("the replica holds all that it should", Paint::Green),
            false => ("the replica does not hold what it should", Paint::Red),
        };
        let mut text = format!("{}\n", paint.on_terminal(word));
        text += &match (self.transaction, self.pages) {
            (Some(transaction), Some(pages)) if self.pages_different == 0 => {
                format!(
                    "all {pages} pages equal the device's at transaction {transaction}, byte for \
                     byte"
                )
            }
            (Some(transaction), Some(pages)) => format!(
                "{} of {pages} pages differ from the device's at transaction {transaction}",
                self.pages_different
            ),
            (Some(transaction), None) => format!(
                "compared at transaction {transaction} by {BY_ROWS}, because the linked SQLite \
                 can't read pages (it lacks SQLITE_ENABLE_DBPAGE_VTAB)"
            ),
            (None, _) => format!(
                "compared by heartbeat rows; {} of them are not on the replica yet",
                self.behind
            ),
        };
        text += &format!(
            "; took {:.1} s; checkpoints waited {:.1} s; integrity: {}\n",
            self.took.as_secs_f32(),
            self.held.as_secs_f32(),
            self.soundness.integrity(),
        );
        for difference in &self.differences {
            text += &format!("DIFFERS: {difference}\n");
        }
        for unchecked in &self.soundness.unchecked {
            text += &format!("not checked without the application's code: {unchecked}\n");
        }
        text += &format!("\n{:<32} {:>10} {:>10}\n", "table", "live", "replica");
        let shown = |rows: Option<u64>| rows.map_or("?".to_owned(), |rows| rows.to_string());
        for table in &self.tables {
            let verdict = match (table.equal, table.binding) {
                (true, _) => "equal",
                (false, true) => "DIFFERS",
                (false, false) if table.live.or(table.replica).is_none() => "can't be read",
                (false, false) => "changed meanwhile",
            };
            text += &format!(
                "{:<32} {:>10} {:>10}  {verdict}\n",
                table.name,
                shown(table.live),
                shown(table.replica)
            );
        }
        text
    }
}
