//! `edgerepl status`: the state of the running daemon.
//!
//! Owns the table for people, and the exit status. Never guesses: everything comes from the daemon,
//! and without a daemon there is no status.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::output::{self, Paint};
use crate::agent::State;
use crate::config::RuntimeDirectory;
use crate::ipc::status::{FORM, ask};

/// The command: 0 if the device is healthy, 1 if it is not, 3 if no daemon runs.
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
    output::answer(table(&document), code)
}

/// The document as a table, with the state in colour on a terminal.
fn table(document: &Value) -> String {
    let state = document["state"].as_str().unwrap_or("unknown");
    let paint = match state {
        "healthy" => Paint::Green,
        "starting" | "stopping" => Paint::Yellow,
        _ => Paint::Red,
    };
    let credentials = &document["credentials"];
    let replication = &document["replication"];
    let heartbeat = &document["heartbeat"];
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<13} {value}");
    };
    row("state", paint.on_terminal(state));
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
            Some(gap) => format!("{}, the last gap {gap:.2} s", replication["rotations"]),
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
                "held transaction {}, {} ago",
                replication["proof"]["transaction"],
                span(age)
            ),
            None => "not measured".to_owned(),
        },
    );
    row(
        "may be lost",
        replication["rpo_s"].as_f64().map_or("-".to_owned(), |rpo| {
            format!("with the device: the last {}", span(rpo))
        }),
    );
    let held_back = match replication["held_back"].as_str() {
        Some("paused") => Some("wait, because of a pause; `edgerepl resume` ends it"),
        Some(_) => Some("wait, because the line is metered"),
        None => None,
    };
    if let Some(held) = held_back {
        row("held back", held.to_owned());
    }
    let held = &replication["rpo_held"];
    row("rpo held", rpo_held(held));
    row("uploads", uploads(&document["databases"]));
    row(
        "unproved",
        match replication["oldest_unproved_s"].as_f64() {
            Some(age) => format!(
                "the oldest for {}; healthy up to {}",
                span(age),
                span(replication["bound_s"].as_f64().unwrap_or_default())
            ),
            None => "nothing".to_owned(),
        },
    );
    for told in upload(replication) {
        row("upload", told);
    }
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
    let databases = document["databases"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    if let [only] = databases {
        row("restorable", restorable(&only["restorable"]));
        if let Some(told) = verified(&only["verified"]) {
            row("verified", told);
        }
    }
    if databases.len() > 1 {
        text.push('\n');
        text.push_str(&table_of(databases));
    }
    text
}

/// What would have been lost.
fn rpo_held(held: &Value) -> String {
    let over = match held["over_s"].as_f64().unwrap_or_default() {
        over if over >= 86_400.0 => "day".to_owned(),
        over => span(over),
    };
    let age = |key: &str| held[key].as_f64().map(span);
    match (age("median_s"), age("worst_s")) {
        (Some(median), Some(worst)) => {
            format!("{median} in the median, {worst} at worst, in the last {over}")
        }
        (None, Some(worst)) => format!("{worst} at worst; nothing was proved in the last {over}"),
        _ => "not measured".to_owned(),
    }
}

/// What was uploaded of all databases, if it is known of each.
fn uploads(databases: &Value) -> String {
    let databases = databases.as_array().map_or(&[][..], Vec::as_slice);
    let sum = |key: &str| -> Option<u64> {
        let numbers = databases.iter().map(|database| database[key].as_u64());
        numbers.sum()
    };
    match (sum("uploads"), sum("uploaded_bytes")) {
        (Some(uploads), Some(bytes)) => {
            format!("{uploads} objects, {}, since edgerepl's start", size(bytes))
        }
        _ => "not counted: Litestream's log is not heard here".to_owned(),
    }
}

/// The upload that is under way on a slow line, and what is said of one that was cut.
fn upload(replication: &Value) -> impl Iterator<Item = String> {
    let upload = &replication["upload"];
    let bytes = |key: &str| upload[key].as_u64().map_or("-".to_owned(), size);
    let under_way = upload["for_s"].as_f64().map(|time| {
        format!(
            "{} of at most {} sent in {}",
            bytes("sent_bytes"),
            bytes("most_bytes"),
            span(time)
        )
    });
    let cut = replication["upload_cut"].as_str().map(str::to_owned);
    under_way.into_iter().chain(cut)
}

/// Whether a database can be restored, and to which states.
fn restorable(restorable: &Value) -> String {
    match restorable["state"].as_str() {
        Some("restorable") => format!(
            "to {} and later, from {} objects, {}; planned {} ago",
            word(&restorable["oldest"]),
            restorable["files"],
            restorable["bytes"].as_u64().map_or("-".to_owned(), size),
            span(restorable["checked_s"].as_f64().unwrap_or_default())
        ),
        Some("broken") => "no".to_owned(),
        Some("shared") => format!(
            "no: for {} another device has written to {}",
            span(restorable["for_s"].as_f64().unwrap_or_default()),
            restorable["replica"].as_str().unwrap_or("the same prefix")
        ),
        Some("off") => "not planned".to_owned(),
        _ => "not known yet".to_owned(),
    }
}

/// The same in a column.
fn restorable_in_short(restorable: &Value) -> String {
    match (
        restorable["state"].as_str(),
        restorable["checked_s"].as_f64(),
    ) {
        (Some("restorable"), Some(age)) => format!("yes, {} ago", span(age)),
        (Some("broken" | "shared"), _) => "no".to_owned(),
        _ => "-".to_owned(),
    }
}

/// What the last verify showed; nothing where none is wanted.
fn verified(verified: &Value) -> Option<String> {
    let age = verified["age_s"].as_f64().map(span);
    let transaction = match verified["transaction"].as_u64() {
        Some(transaction) => format!(" at transaction {transaction}"),
        None => String::new(),
    };
    Some(match (verified["state"].as_str()?, age) {
        ("off", _) => return None,
        ("holds", Some(age)) => format!("holds each byte{transaction}; compared {age} ago"),
        ("differs", Some(age)) => format!("no: other bytes{transaction}; compared {age} ago"),
        ("differs", None) => "no: other bytes, as an earlier run found".to_owned(),
        _ => match verified["cause"].as_str() {
            Some(cause) => format!("not yet: {cause}"),
            None => "not yet".to_owned(),
        },
    })
}

/// A row for each of several databases.
fn table_of(databases: &[Value]) -> String {
    let heading = [
        "database",
        "state",
        "unproved",
        "transaction",
        "restorable",
        "wal",
        "guard",
    ];
    let mut rows = vec![heading.map(str::to_owned)];
    rows.extend(databases.iter().map(|database| {
        let seconds = |key: &str| database[key].as_f64();
        [
            word(&database["path"]),
            word(&database["state"]),
            seconds("oldest_unproved_s").map_or("-".to_owned(), span),
            match database["proof"]["transaction"].as_u64() {
                Some(transaction) => transaction.to_string(),
                None => "-".to_owned(),
            },
            restorable_in_short(&database["restorable"]),
            database["wal_bytes"].as_u64().map_or("-".to_owned(), size),
            seconds("wal_guard_held_s")
                .map_or("-".to_owned(), |held| format!("{} held", span(held))),
        ]
    }));
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let widths = [0, 1, 2, 3, 4, 5].map(width);
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", row[6]);
    }
    text
}

/// Bytes in a unit that is easy to read.
fn size(bytes: u64) -> String {
    match bytes {
        b if b < 1 << 20 => format!("{} KiB", b >> 10),
        b => format!("{:.1} MiB", b as f64 / f64::from(1 << 20)),
    }
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

/// Seconds in a unit that is easy to read: `42 s`, `12 min`, `3.5 h`, `9.1 d`.
fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}
