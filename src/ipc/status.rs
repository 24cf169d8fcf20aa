//! The daemon's status, over a socket, for any process that connects.
//!
//! Owns the document (JSON, from one [`Report`]) and both ends of the socket. The document never
//! holds a secret. A dead daemon is never quoted: without its socket there is no status.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::socket::{self, Door};
use crate::agent::{
    Database, DatabaseReport, HeldBack, Report, Restorability, RestoreReport, RpoHeld,
    SupervisorKind, VerifyReport,
};
use crate::clock::WallTime;
use crate::config::Rotation;
use crate::config::RuntimeDirectory;
use crate::credentials::Grant;
use crate::litestream::uploads::Uploaded;

/// The socket's name in the runtime directory.
const SOCKET: &str = "status.sock";

/// The document's form; a change that breaks a reader raises it.
pub(crate) const FORM: u64 = 2;

/// What the agent does not know of a database.
#[derive(Debug)]
pub(crate) struct Outside {
    /// In bytes.
    pub(crate) wal_size: Option<u64>,
    /// Where its replica is.
    pub(crate) replica: Option<String>,
    /// What was uploaded of it, as far as Litestream tells.
    pub(crate) uploaded: Option<Uploaded>,
}

/// What `status --json` prints. Times to come and times past are in seconds from now.
pub(crate) fn document(
    report: &Report,
    grant: Option<&Grant>,
    started: WallTime,
    litestream: Option<u32>,
    endpoints: &[String],
    outside: impl Fn(Database) -> Outside,
) -> Value {
    let databases = report.databases.iter();
    let databases: Vec<Value> = databases
        .map(|each| database(each, outside(each.database)))
        .collect();
    // Members of the first form are about the first database.
    let first = databases.first().cloned().unwrap_or_default();
    let count = |n: &(_, u64)| n.1;
    let failures: serde_json::Map<String, Value> = report
        .failures
        .iter()
        .map(|f| (f.0.name().to_owned(), count(f).into()))
        .collect();
    json!({
        "form": FORM,
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "started": started.to_string(),
        "state": report.state.name(),
        "problems": report.state.problems().collect::<Vec<_>>(),
        "thing_name": grant.map(|g| &g.thing_name),
        "endpoints": endpoints,
        "credentials": {
            "valid": report.credentials_left.is_some(),
            "expires_in_s": report.credentials_left.map(seconds),
            "expiration": grant.map(|g| g.expiration.to_string()),
            "renewal_in_s": report.renewal_in.map(seconds),
            "granted": report.granted,
            "fetch_time_s": report.fetch_time.map(seconds),
            "failures": failures,
            "last_failure": report.failure.as_ref().map(|(class, message)| {
                json!({"class": class.name(), "message": message})
            }),
        },
        "replication": {
            "supervisor": match report.supervisor {
                SupervisorKind::Child => "child",
                SupervisorKind::Systemd => "systemd",
            },
            "rotation": report.rotation.map(Rotation::name),
            "activity": report.replication.name(),
            "for_s": seconds(report.replication_for),
            "pid": litestream,
            "starts": report.starts,
            "rotations": report.rotations,
            "last_gap_s": report.last_gap.map(seconds),
            "upload": report.upload.map(|upload| {
                json!({
                    "sent_bytes": upload.sent,
                    "most_bytes": upload.most,
                    "bytes_a_second": upload.rate(),
                    "for_s": seconds(upload.time),
                })
            }),
            "upload_cut": report.cut,
            "rpo_s": report.rpo.most().as_secs(),
            "held_back": report.held_back.map(HeldBack::name),
            "rpo_held": rpo_held(report.rpo_held),
            "proof": first["proof"],
            "oldest_unproved_s": report.unproved_for.map(seconds),
            "bound_s": report.bound.as_secs(),
            "lag": first["lag"],
        },
        "heartbeat": first["heartbeat"],
        "wal_guard_held_s": first["wal_guard_held_s"],
        "databases": databases,
    })
}

/// What would have been lost, in the time that is said.
fn rpo_held(held: RpoHeld) -> Value {
    json!({
        "median_s": held.median.map(seconds),
        "worst_s": held.worst.map(seconds),
        "proofs": held.proofs,
        "over_s": held.over.as_secs(),
    })
}

/// What is said of one database.
fn database(report: &DatabaseReport, outside: Outside) -> Value {
    json!({
        "path": &*report.name,
        "state": report.state.name(),
        "proof": report.proof.map(|proof| {
            json!({"transaction": proof.position.replicated, "age_s": seconds(proof.age)})
        }),
        "oldest_unproved_s": report.unproved_for.map(seconds),
        "owes_sync": report.owes_sync,
        "lag": report.lag.map(|lag| {
            json!({"row": lag.row, "rows": lag.rows, "s": seconds(lag.time)})
        }),
        "heartbeat": {
            "rows": report.rows,
            "last_id": report.last_row.map(|(id, _)| id),
            "last_age_s": report.last_row.map(|(_, age)| seconds(age)),
        },
        "wal_bytes": outside.wal_size,
        "uploads": outside.uploaded.map(|u| u.uploads),
        "uploaded_bytes": outside.uploaded.map(|u| u.bytes),
        "wal_guard_held_s": report.guard_held.map(seconds),
        "restorable": restorable(&report.restore, outside.replica),
        "verified": verified(&report.verify),
    })
}

/// What is said of a database's restore. The moments are S3's.
fn restorable(report: &RestoreReport, replica: Option<String>) -> Value {
    let holdings = match report.state {
        Restorability::Restorable(holdings) => Some(holdings),
        _ => None,
    };
    json!({
        "state": report.state.name(),
        "replica": replica,
        "cause": report.cause,
        "for_s": report.broken_for.map(seconds),
        "checked_s": report.looked.map(seconds),
        "whole_s": report.planned.map(seconds),
        "files": holdings.map(|h| h.files),
        "bytes": holdings.map(|h| h.bytes),
        "oldest": holdings.map(|h| h.oldest.to_string()),
        "newest": holdings.map(|h| h.newest.to_string()),
    })
}

/// What is said of the bytes of a database's replica.
fn verified(report: &VerifyReport) -> Value {
    json!({
        "state": report.state.name(),
        "transaction": report.transaction,
        "age_s": report.age.map(seconds),
        "cause": report.cause,
    })
}

fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}

/// The daemon's end of the socket.
#[derive(Debug)]
pub(crate) struct StatusServer(Door);

impl StatusServer {
    /// Opens it. The caller holds the runtime directory's lock, so that what lies there is dead.
    ///
    /// # Errors
    /// Where the directory can't be written to.
    pub(crate) fn bind(runtime: &RuntimeDirectory) -> io::Result<Self> {
        // Every user who may enter the directory may read the status.
        Door::open(&runtime.file(SOCKET), 0o666).map(Self)
    }

    /// Where they wait.
    pub(crate) fn door(&self) -> &Door {
        &self.0
    }

    /// Answers the clients that wait.
    pub(crate) fn answer(&mut self, document: impl FnOnce() -> Value) {
        let clients = self.0.clients();
        if clients.is_empty() {
            return;
        }
        let text = format!("{}\n", document());
        for mut client in clients {
            // It fits a socket's buffer; a reader that does not read loses, not the loop.
            if let Err(e) = client.write_all(text.as_bytes()) {
                log::debug!("a client asked for the status and did not read it: {e}");
            }
        }
    }
}

/// What the daemon says.
///
/// # Errors
/// Why none does, in one sentence.
pub(crate) fn ask(runtime: &RuntimeDirectory) -> Result<Value, String> {
    let path = runtime.file(SOCKET);
    let text = socket::ask(&path).map_err(|e| socket::unanswered(&path, &e))?;
    serde_json::from_str(&text).map_err(|_| "edgerepl answers with no status".to_owned())
}
