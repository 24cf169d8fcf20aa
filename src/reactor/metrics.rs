//! The metrics: the data of `status` as a text file for Prometheus (node_exporter's textfile collector).
//!
//! Owns their names and the file, `edgerepl.prom` in the runtime directory, which is on tmpfs. Made
//! from the same [`Report`] as the status. Never wakes the daemon: it is written in turns that happen
//! anyway, and deleted when the daemon ends normally.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::agent::{Database, DatabaseReport, Report, Restorability, Verity};
use crate::clock::BootTime;
use crate::config::RuntimeDirectory;
use crate::credentials::FailureClass;
use crate::litestream::chain::Holdings;
use crate::litestream::uploads::Uploaded;
use crate::system::file;

/// The file's name.
const FILE: &str = "edgerepl.prom";

/// No scraper is faster.
const PACE: Duration = Duration::from_secs(10);

/// The file, while the daemon runs.
#[derive(Debug)]
pub(crate) struct Metrics {
    path: PathBuf,
    due: BootTime,
    failed: bool,
}

impl Metrics {
    /// Writes nothing yet, and deletes the file of an earlier daemon.
    pub(crate) fn new(runtime: &RuntimeDirectory) -> Self {
        let path = runtime.file(FILE);
        let _ = fs::remove_file(&path);
        Self {
            path,
            due: BootTime::default(),
            failed: false,
        }
    }

    /// Writes the file if it is due. A failure to write is logged once.
    pub(crate) fn show(
        &mut self,
        report: &Report,
        uploaded: impl Fn(Database) -> Option<Uploaded>,
        now: BootTime,
    ) {
        if now < self.due {
            return;
        }
        self.due = now + PACE;
        match file::replace(&self.path, 0o644, text(report, uploaded).as_bytes()) {
            Err(e) if !self.failed => {
                log::warn!("{} can't be written: {e}", self.path.display());
                self.failed = true;
            }
            Err(_) => {}
            Ok(()) => self.failed = false,
        }
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        // The last figures of a dead daemon must not look current.
        let _ = fs::remove_file(&self.path);
    }
}

/// All metrics, in the text format 0.0.4. What was never measured is left out.
fn text(report: &Report, uploaded: impl Fn(Database) -> Option<Uploaded>) -> String {
    families(report, uploaded)
        .iter()
        .filter(|family| !family.samples.is_empty())
        .map(Family::to_string)
        .collect()
}

fn families(report: &Report, uploaded: impl Fn(Database) -> Option<Uploaded>) -> [Family; 27] {
    let seconds = |time: Duration| time.as_secs_f64();
    let flag = |is: bool| Some(f64::from(u8::from(is)));
    let count = |number: u64| Some(number as f64);
    let failures = FailureClass::ALL.map(|class| {
        let found = report.failures.iter().find(|(failed, _)| *failed == class);
        let label = format!("{{class=\"{}\"}}", class.name());
        (label, found.map_or(0.0, |(_, count)| *count as f64))
    });
    let of_each = |value: &dyn Fn(&DatabaseReport) -> Option<f64>| {
        let samples = report.databases.iter().filter_map(|database| {
            let label = format!("{{database=\"{}\"}}", escaped(&database.name));
            Some((label, value(database)?))
        });
        samples.collect::<Vec<_>>()
    };
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    [
        Family::labelled(
            "edgerepl_info",
            "gauge",
            "The version that runs.",
            [(version, 1.0)],
        ),
        Family::gauge(
            "edgerepl_healthy",
            "Whether all that is promised is so.",
            flag(report.state.is_healthy()),
        ),
        Family::gauge(
            "edgerepl_credentials_expire_in_seconds",
            "The time to the end of the credentials in force; 0 where there are none.",
            Some(seconds(report.credentials_left.unwrap_or_default())),
        ),
        Family::counter(
            "edgerepl_credentials_grants_total",
            "Credentials granted since the start.",
            count(report.granted),
        ),
        Family::labelled(
            "edgerepl_credentials_failures_total",
            "counter",
            "Fetches that gave none since the start, by what they call for.",
            failures,
        ),
        Family::gauge(
            "edgerepl_fetch_duration_seconds",
            "What the last fetch that gave credentials took.",
            report.fetch_time.map(seconds),
        ),
        Family::counter(
            "edgerepl_litestream_starts_total",
            "Starts of Litestream since the start.",
            count(report.starts),
        ),
        Family::counter(
            "edgerepl_rotations_total",
            "Newer credentials handed to Litestream since the start.",
            count(report.rotations),
        ),
        Family::gauge(
            "edgerepl_rotation_gap_seconds",
            "From Litestream's last stop until its replica was seen to follow again.",
            report.last_gap.map(seconds),
        ),
        Family::labelled(
            "edgerepl_database_healthy",
            "gauge",
            "Whether every old row of the database is proved to be on the replica, or nothing was written.",
            of_each(&|database| flag(database.state.is_well())),
        ),
        Family::labelled(
            "edgerepl_oldest_unproved_seconds",
            "gauge",
            "How old the oldest row is that no replica is known to hold; 0 where all are proved.",
            of_each(&|database| Some(seconds(database.unproved_for.unwrap_or_default()))),
        ),
        Family::gauge(
            "edgerepl_rpo_seconds",
            "How much may be lost with the device: what was committed in so many seconds.",
            Some(seconds(report.rpo.most())),
        ),
        Family::gauge(
            "edgerepl_uploads_held_back",
            "Whether uploads wait, because the line is metered or because of a pause.",
            flag(report.held_back.is_some()),
        ),
        Family::gauge(
            "edgerepl_unproved_bound_seconds",
            "How old the oldest unproved row may be on a healthy device.",
            Some(seconds(report.bound)),
        ),
        Family::labelled(
            "edgerepl_rpo_held_seconds",
            "summary",
            "What would have been lost just before a proof, of the last day: how old the oldest commit may have been.",
            held(report),
        ),
        Family::labelled(
            "edgerepl_uploads_total",
            "counter",
            "Objects that Litestream has uploaded since the start.",
            of_each(&|database| Some(uploaded(database.database)?.uploads as f64)),
        ),
        Family::labelled(
            "edgerepl_uploaded_bytes_total",
            "counter",
            "How large the objects were together that Litestream has uploaded since the start.",
            of_each(&|database| Some(uploaded(database.database)?.bytes as f64)),
        ),
        Family::labelled(
            "edgerepl_replica_lag_seconds",
            "gauge",
            "The time since the replica was known to hold every row; 0 where it still does.",
            of_each(&|database| database.lag.map(|lag| seconds(lag.time))),
        ),
        Family::labelled(
            "edgerepl_replica_lag_rows",
            "gauge",
            "Heartbeat rows that the replica is not known to hold.",
            of_each(&|database| database.lag.map(|lag| lag.rows as f64)),
        ),
        Family::labelled(
            "edgerepl_heartbeat_rows_total",
            "counter",
            "Heartbeat rows written since the start.",
            of_each(&|database| count(database.rows)),
        ),
        Family::labelled(
            "edgerepl_wal_guard_held",
            "gauge",
            "Whether the WAL is kept from being reset, as it is while Litestream is down.",
            of_each(&|database| flag(database.guard_held.is_some())),
        ),
        Family::labelled(
            "edgerepl_restorable",
            "gauge",
            "Whether the database can be restored from what the bucket lists.",
            of_each(&|database| match database.restore.state {
                Restorability::Off | Restorability::Unknown => None,
                Restorability::Restorable(_) => flag(true),
                Restorability::Broken | Restorability::Shared => flag(false),
            }),
        ),
        Family::labelled(
            "edgerepl_restorable_age_seconds",
            "gauge",
            "The time since a plan of a restore last showed that the database can be restored.",
            of_each(&|database| database.restore.planned.map(seconds)),
        ),
        Family::labelled(
            "edgerepl_restorable_files",
            "gauge",
            "How many objects a restore takes.",
            of_each(&|database| Some(holdings(database)?.files as f64)),
        ),
        Family::labelled(
            "edgerepl_restorable_bytes",
            "gauge",
            "How large the objects are together that a restore takes.",
            of_each(&|database| Some(holdings(database)?.bytes as f64)),
        ),
        Family::labelled(
            "edgerepl_verified",
            "gauge",
            "Whether the replica holds the database's bytes, as the last verify showed.",
            of_each(&|database| match database.verify.state {
                Verity::Off | Verity::Unknown => None,
                Verity::Holds => flag(true),
                Verity::Differs => flag(false),
            }),
        ),
        Family::labelled(
            "edgerepl_verified_age_seconds",
            "gauge",
            "The time since the replica and the database were last compared.",
            of_each(&|database| database.verify.age.map(seconds)),
        ),
    ]
}

/// The quantiles of the last day, and the sums since the start; nothing before there is any.
fn held(report: &Report) -> Vec<(String, f64)> {
    let held = &report.rpo_held;
    let Some(worst) = held.worst else {
        return Vec::new();
    };
    let quantile = |quantile: &str, age: Duration| {
        let label = format!("{{quantile=\"{quantile}\"}}");
        (label, age.as_secs_f64())
    };
    let median = held.median.map(|median| quantile("0.5", median));
    let quantiles = median.into_iter().chain([quantile("1", worst)]);
    let sums = [
        ("_sum".to_owned(), held.sum.as_secs_f64()),
        ("_count".to_owned(), held.all_proofs as f64),
    ];
    quantiles.chain(sums).collect()
}

fn holdings(database: &DatabaseReport) -> Option<Holdings> {
    match database.restore.state {
        Restorability::Restorable(holdings) => Some(holdings),
        _ => None,
    }
}

/// A label's value, as the text format has it.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

/// A metric, and its samples by their labels, or by what is added to its name.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Vec<(String, f64)>,
}

impl Family {
    fn gauge(name: &'static str, help: &'static str, value: Option<f64>) -> Self {
        Self::labelled(name, "gauge", help, value.map(|v| (String::new(), v)))
    }

    fn counter(name: &'static str, help: &'static str, value: Option<f64>) -> Self {
        Self::labelled(name, "counter", help, value.map(|v| (String::new(), v)))
    }

    fn labelled(
        name: &'static str,
        kind: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (String, f64)>,
    ) -> Self {
        Self {
            name,
            kind,
            help,
            samples: samples.into_iter().collect(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name, kind, help, ..
        } = self;
        writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        self.samples
            .iter()
            .try_for_each(|(label, value)| writeln!(f, "{name}{label} {value}"))
    }
}
