//! The intervals in Litestream's file.
//!
//! Owns Go's way of writing a duration, and Litestream's keys for what costs requests. Judges none.

use std::path::Path;
use std::time::Duration;

use super::document::Node;
use super::{Configuration, databases, replica_of};
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
        // Of one database they are those of all.
        let of_snapshots = |key: &str| {
            let of_all = told(self.root.get("snapshot"), key);
            of_all.or_else(|| {
                let mut entries = databases(&self.root);
                entries.find_map(|(_, entry)| told(entry.get("snapshot"), key))
            })
        };
        let of_replica = told(entry.and_then(replica_of), "sync-interval");
        Intervals {
            monitor: of_database("monitor-interval").unwrap_or(default.monitor),
            sync: of_replica
                .or_else(|| of_all("sync-interval"))
                .unwrap_or(default.sync),
            checkpoint: of_database("checkpoint-interval").unwrap_or(default.checkpoint),
            check: of_all("l0-retention-check-interval").unwrap_or(default.check),
            young: of_all("l0-retention").unwrap_or(default.young),
            levels: levels
                .filter(|levels| !levels.is_empty())
                .unwrap_or(default.levels),
            snapshot: of_snapshots("interval").unwrap_or(default.snapshot),
            kept: of_snapshots("retention").unwrap_or(default.kept),
        }
    }

    /// Litestream can be asked for a sync.
    pub(crate) fn has_socket(&self) -> bool {
        let socket = self.root.get("socket");
        socket.is_some_and(|socket| socket.is_true("enabled"))
    }
}

fn told(node: Option<&Node>, key: &str) -> Option<Duration> {
    go_duration(node?.text(key)?)
}

/// A duration as Go writes it, without fractions: `90s`, `1h30m`, `24h0m0s`.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
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
