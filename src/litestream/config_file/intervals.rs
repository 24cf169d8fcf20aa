//! The intervals in Litestream's file.
//!
//! Owns Go's way of writing a duration, and Litestream's keys for what costs requests. Judges none.

use std::path::Path;
use std::time::Duration;

use super::Configuration;
use super::document::Node;
use crate::litestream::cost::Intervals;

impl Configuration {
    /// When a Litestream that reads this asks S3 for something about `database`. What can't be read has
    /// Litestream's default.
    pub(crate) fn intervals(&self, database: &Path) -> Intervals {
        let default = Intervals::default();
        let entry = self.entry(database);
        let of_database = |key: &str| told(entry, key);
        let of_all = |key: &str| told(Some(&*self.root), key);
        let levels: Option<Vec<Duration>> = self
            .root
            .list("levels")
            .map(|level| told(Some(level), "interval"))
            .collect();
        Intervals {
            monitor: of_database("monitor-interval").unwrap_or(default.monitor),
            checkpoint: of_database("checkpoint-interval").unwrap_or(default.checkpoint),
            check: of_all("l0-retention-check-interval").unwrap_or(default.check),
            levels: levels
                .filter(|levels| !levels.is_empty())
                .unwrap_or(default.levels),
            snapshot: told(self.root.get("snapshot"), "interval").unwrap_or(default.snapshot),
        }
    }
}

fn told(node: Option<&Node>, key: &str) -> Option<Duration> {
    go_duration(node?.text(key)?)
}

/// A duration as Go writes it, without fractions: `90s`, `1h30m`, `24h0m0s`.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    let mut whole = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let (factor, length) = match unit {
            _ if unit.starts_with("ms") => (1, 2),
            _ if unit.starts_with('h') => (3_600_000, 1),
            _ if unit.starts_with('m') => (60_000, 1),
            _ if unit.starts_with('s') => (1000, 1),
            _ => return None,
        };
        whole = whole.checked_add(Duration::from_millis(number.checked_mul(factor)?))?;
        rest = &unit[length..];
    }
    (!text.is_empty()).then_some(whole)
}
