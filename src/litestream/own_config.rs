//! Litestream's configuration where edgerepl writes it: `[replication] bucket`.
//!
//! Owns its text: the socket, the databases, and the intervals. edgerepl's own syncs are the uploads, at the
//! RPO's pace: what Litestream does by itself is a net below them, and the rest is chosen for few requests.
//! Holds no credentials. Never reads such a file: `config_file` does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::mkdtemp;
use serde_json::Value;

use super::command;
use super::cost::Intervals;
use crate::config::{Replica, RuntimeDirectory, Settings, THING_NAME};
use crate::credentials::delivery;
use crate::system::file;

/// A checkpoint for its time alone commits something, which is one more upload: a WAL of 1,000 pages brings
/// one sooner.
const CHECKPOINT: Duration = Duration::from_secs(3600);

/// A snapshot is the whole database: one a day, or as often as the retention asks for.
const SNAPSHOT_PACE: Duration = Duration::from_secs(86_400);

/// So many uploads are compacted at once, and their objects go. Each time costs requests, and a restore reads
/// all that is not compacted yet.
const COMPACTED: u32 = 60;
const LEAST_COMPACTION: Duration = Duration::from_secs(10 * 60);
const LONGEST_COMPACTION: Duration = Duration::from_secs(3600);

/// What was compacted stays for so long, for a restore that reads the bucket meanwhile; and for two proofs at the
/// least: the second one shows by the file of the first that nobody has replaced Litestream's files in between.
const YOUNG: Duration = Duration::from_secs(10 * 60);

/// What is compacted of that is compacted again.
const HIGHER_LEVELS: [Duration; 2] = [Duration::from_secs(6 * 3600), SNAPSHOT_PACE];

/// The intervals for what may be lost. Litestream's own rounds, in which it reads the WAL and uploads what nobody
/// has asked for, come after edgerepl's syncs, also while uploads wait: edgerepl sees how far each WAL grows.
pub(crate) fn intervals(settings: &Settings) -> Intervals {
    let compaction = settings.rpo.saturating_mul(COMPACTED);
    let compaction = compaction.clamp(LEAST_COMPACTION, LONGEST_COMPACTION);
    Intervals {
        monitor: settings.rpo_metered,
        checkpoint: CHECKPOINT,
        check: compaction,
        young: YOUNG.max(settings.rarest_proof().saturating_mul(2)),
        levels: [&[compaction], &HIGHER_LEVELS[..]].concat(),
        snapshot: SNAPSHOT_PACE,
        ..Intervals::default()
    }
}

/// The lines for the control socket.
pub(crate) fn socket(path: &Path) -> Vec<String> {
    let path = quoted(&path.to_string_lossy());
    [
        "socket:",
        "  enabled: true",
        &format!("  path: {path}"),
        "  permissions: 0600",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The lines for these intervals: those of the whole file, and those of each database.
pub(crate) fn lines(intervals: &Intervals) -> [Vec<String>; 2] {
    let line = |key: &str, interval: Duration| format!("{key}: {}", seconds(interval));
    let mut of_all = vec![
        line("l0-retention", intervals.young),
        line("l0-retention-check-interval", intervals.check),
        "levels:".to_owned(),
    ];
    let levels = intervals.levels.iter();
    of_all.extend(levels.map(|level| line("  - interval", *level)));
    let of_database = vec![
        line("monitor-interval", intervals.monitor),
        line("checkpoint-interval", intervals.checkpoint),
    ];
    [of_all, of_database]
}

/// The text; `None` where the user has a configuration of his own.
pub(crate) fn text(settings: &Settings) -> Option<String> {
    let replica = settings.replication.replica.as_ref()?;
    let intervals = intervals(settings);
    let [of_all, of_database] = lines(&intervals);
    let mut text = format!(
        "# Written by edgerepl from its own configuration: change that.\n\
         {}\n\
         shutdown-sync-timeout: 10s\n\
         {}\n\
         snapshot:\n  interval: {}\n  retention: {}\ndbs:\n",
        socket(&settings.replication.control_socket).join("\n"),
        of_all.join("\n"),
        seconds(intervals.snapshot.min(replica.retention)),
        seconds(replica.retention),
    );
    for database in settings.databases.iter() {
        text += &format!(
            "  - path: {}\n    {}\n    replica:\n",
            quoted(&database.path.to_string_lossy()),
            of_database.join("\n    "),
        );
        text += &place(replica, &settings.region, &database.path);
    }
    Some(text)
}

/// Writes it where Litestream is told to read it, unless it is there.
///
/// # Errors
/// Why it can't be written, in one sentence.
pub(crate) fn write(settings: &Settings) -> Result<(), String> {
    let Some(text) = text(settings) else {
        return Ok(());
    };
    let path = command::configuration(&settings.replication.command);
    if fs::read_to_string(&path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    file::replace(&path, 0o600, text.as_bytes())
        .map_err(|e| format!("{} can't be written: {e}", path.display()))
}

/// A folder with that file for one command; gone with it.
#[derive(Debug)]
pub(crate) struct Lent(PathBuf);

impl Lent {
    /// Has `settings` name a file of this process alone: the daemon's may be missing, or of another
    /// configuration.
    ///
    /// # Errors
    /// Why there can be none, in one sentence.
    pub(crate) fn to(
        settings: &mut Settings,
        runtime: &RuntimeDirectory,
    ) -> Result<Option<Self>, String> {
        if settings.replication.replica.is_none() {
            return Ok(None);
        }
        let make =
            |folder: &Path| mkdtemp(&folder.join("edgerepl-XXXXXX")).map_err(io::Error::from);
        let folder = make(runtime.path())
            .or_else(|_| make(&std::env::temp_dir()))
            .map_err(|e| format!("Litestream's configuration can't be written: {e}"))?;
        let lent = Self(folder);
        let file = lent.0.join("litestream.yml").display().to_string();
        if let Some(last) = settings.replication.command.last_mut() {
            *last = file;
        }
        write(settings)?;
        Ok(Some(lent))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // It holds no secret; a folder on tmpfs that stays costs a page.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where the replica of one database is.
fn place(replica: &Replica, region: &str, database: &Path) -> String {
    let variable = format!("${{{}}}", delivery::THING_NAME);
    let prefix = replica.prefix.replace(THING_NAME, &variable);
    let name = database.file_name().unwrap_or_default().to_string_lossy();
    let mut place = format!(
        "      type: s3\n      bucket: {}\n      path: {}\n      region: {}\n",
        quoted(&replica.bucket),
        quoted(&format!("{prefix}/{name}")),
        quoted(region),
    );
    if let Some(endpoint) = &replica.endpoint {
        place += &format!(
            "      endpoint: {}\n      force-path-style: true\n",
            quoted(endpoint)
        );
    }
    place
}

/// A text as YAML reads it, whatever is in it: as JSON writes it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}

#[cfg(test)]
mod tests;
