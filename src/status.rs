//! `edgerepl status`: what the running daemon knows, asked over a socket.
//!
//! Owns the document (JSON, from one [`Report`]), the socket that gives it to whoever connects, and
//! its form for people. The document holds no secret. Nobody is answered from memory of a dead
//! daemon: no socket, no status.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::{BOUND, Delivery, Report, State, SupervisorKind};
use crate::cli::output;
use crate::clock::WallTime;
use crate::config::RuntimeDirectory;
use crate::credentials::Grant;
use crate::system::local::{self, Door};

/// The socket's name in the runtime directory.
const SOCKET: &str = "status.sock";

/// The document's form; a change that breaks a reader raises it.
const FORM: u64 = 1;

/// What `status --json` prints. Times to come and times past are in seconds from now.
pub(crate) fn document(
    report: &Report,
    grant: Option<&Grant>,
    started: WallTime,
    litestream: Option<u32>,
) -> Value {
    let seconds = |d: Duration| d.as_millis() as f64 / 1000.0;
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
            "rotation": report.delivery.map(|delivery| match delivery {
                Delivery::Environment => "restart",
                Delivery::Process => "refresh",
            }),
            "activity": report.replication.name(),
            "for_s": seconds(report.replication_for),
            "pid": litestream,
            "starts": report.starts,
            "rotations": report.rotations,
            "last_gap_s": report.last_gap.map(seconds),
            "proof": report.proof.map(|proof| {
                json!({"transaction": proof.position.replicated, "age_s": seconds(proof.age)})
            }),
            "oldest_unproved_s": report.unproved_for.map(seconds),
            "bound_s": BOUND.as_secs(),
            "lag": report.lag.map(|lag| {
                json!({"row": lag.row, "rows": lag.rows, "s": seconds(lag.time)})
            }),
        },
        "heartbeat": {
            "rows": report.rows,
            "last_id": report.last_row.map(|(id, _)| id),
            "last_age_s": report.last_row.map(|(_, age)| seconds(age)),
        },
        "wal_guard_held_s": report.guard_held.map(seconds),
    })
}

/// One line for `systemctl status`, which changes only when something does.
pub(crate) fn line(report: &Report) -> String {
    let activity = report.replication.name().replace('_', " ");
    match report.state.problems().next() {
        Some(problem) => format!("{}: {problem}", report.state.name()),
        None => format!("{}: {activity}", report.state.name()),
    }
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
        // Whoever may enter the directory may know.
        Door::open(&runtime.file(SOCKET), 0o666).map(Self)
    }

    /// Where they wait.
    pub(crate) fn door(&self) -> &Door {
        &self.0
    }

    /// Answers whoever waits.
    pub(crate) fn answer(&mut self, document: impl FnOnce() -> Value) {
        let clients = self.0.clients();
        if clients.is_empty() {
            return;
        }
        let text = format!("{}\n", document());
        for mut client in clients {
            // It fits a socket's buffer; a reader that does not read loses, not the loop.
            if let Err(e) = client.write_all(text.as_bytes()) {
                log::debug!("somebody asked for the status and did not take it: {e}");
            }
        }
    }
}

/// The command: 0 where the daemon is healthy, 1 where it is not, 3 where none runs.
pub(crate) fn show(runtime: &RuntimeDirectory, as_json: bool) -> ExitCode {
    let document = match ask(runtime) {
        Ok(document) => document,
        Err(cause) => {
            let code = ExitCode::from(3);
            if as_json {
                let document = json!({"form": FORM, "state": "not running", "problems": [cause]});
                return output::answer(format_args!("{document}\n"), code);
            }
            output::tell(format_args!("edgerepl: {cause}\n"));
            return code;
        }
    };
    let code = match document["state"] == State::HEALTHY {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    if as_json {
        return output::answer(format_args!("{document}\n"), code);
    }
    output::answer(table(&document, io::stdout().is_terminal()), code)
}

fn ask(runtime: &RuntimeDirectory) -> Result<Value, String> {
    let path = runtime.file(SOCKET);
    let text = local::ask(&path).map_err(|e| match e.kind() {
        ErrorKind::PermissionDenied => format!("{} may not be read: {e}", path.display()),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            format!("no edgerepl runs here ({}: {e})", path.display())
        }
        _ => format!("edgerepl runs and does not answer: {e}"),
    })?;
    serde_json::from_str(&text).map_err(|_| "edgerepl answers with no status".to_owned())
}

/// The document for a person; the state in colour where there is a terminal.
fn table(document: &Value, colour: bool) -> String {
    let state = document["state"].as_str().unwrap_or("unknown");
    let paint = match state {
        "healthy" => "32",
        "starting" | "stopping" => "33",
        _ => "31",
    };
    let state = if colour {
        format!("\x1b[1;{paint}m{state}\x1b[0m")
    } else {
        state.to_owned()
    };
    let credentials = &document["credentials"];
    let replication = &document["replication"];
    let heartbeat = &document["heartbeat"];
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<13} {value}");
    };
    row("state", state);
    for problem in document["problems"].as_array().into_iter().flatten() {
        row("", format!("- {}", word(problem)));
    }
    row("thing", word(&document["thing_name"]));
    row(
        "credentials",
        match credentials["expires_in_s"].as_f64() {
            Some(left) => format!("valid for {}", span(left)),
            None => "none".to_owned(),
        },
    );
    row(
        "renewal",
        credentials["renewal_in_s"]
            .as_f64()
            .map_or("now".into(), |s| format!("in {}", span(s))),
    );
    let activity = word(&replication["activity"]).replace('_', " ");
    let duration = span(replication["for_s"].as_f64().unwrap_or_default());
    row("litestream", format!("{activity}, for {duration}"));
    row(
        "rotations",
        match replication["last_gap_s"].as_f64() {
            Some(gap) => format!(
                "{}, the last with a gap of {gap:.2} s",
                replication["rotations"]
            ),
            None if replication["rotation"] == "refresh" => {
                format!("{}, without a restart", replication["rotations"])
            }
            None => replication["rotations"].to_string(),
        },
    );
    row(
        "replica",
        match replication["proof"]["age_s"].as_f64() {
            Some(age) => format!(
                "held transaction {} {} ago",
                replication["proof"]["transaction"],
                span(age)
            ),
            None => "not measured".to_owned(),
        },
    );
    row(
        "unproved",
        match replication["oldest_unproved_s"].as_f64() {
            Some(age) => format!(
                "for {} at the most; healthy up to {}",
                span(age),
                span(replication["bound_s"].as_f64().unwrap_or_default())
            ),
            None => "nothing".to_owned(),
        },
    );
    row(
        "lag",
        match replication["lag"]["s"].as_f64() {
            Some(lag) => format!(
                "{} rows, {} (row {} is on the replica)",
                replication["lag"]["rows"],
                span(lag),
                replication["lag"]["row"]
            ),
            None => "not measured".to_owned(),
        },
    );
    row(
        "rows",
        match heartbeat["last_age_s"].as_f64() {
            Some(age) => format!(
                "{} written, the last {} ago (id {})",
                heartbeat["rows"],
                span(age),
                heartbeat["last_id"]
            ),
            None => "none written".to_owned(),
        },
    );
    text
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

/// Seconds as a person says them: `42 s`, `12 min`, `3.5 h`, `9.1 d`.
fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}
