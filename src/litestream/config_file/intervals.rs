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

/// A duration as Go writes it: `90s`, `1h30m`, `24h0m0s`, `1.5h`.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    /// In seconds; of two with the same beginning the longer one first.
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("\u{b5}s", 1e-6),
        ("\u{3bc}s", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut whole = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(end);
        let (name, seconds) = UNITS.iter().find(|(name, _)| unit.starts_with(name))?;
        let seconds = number.parse::<f64>().ok()? * seconds;
        whole = whole.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = &unit[name.len()..];
    }
    (!text.is_empty()).then_some(whole)
}
