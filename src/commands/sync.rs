//! `edgerepl sync`: everything that was committed so far is on the replica when it ends with 0.
//!
//! Owns the wait, and what is said of it. Never asks Litestream itself: the daemon does.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::output::{self, Paint};
use crate::config::RuntimeDirectory;
use crate::ipc::{status, sync};

/// How often the daemon is asked how far it is.
const PACE: Duration = Duration::from_millis(100);

/// What became of one database.
#[derive(Debug)]
struct Synced {
    path: String,
    /// The replica's transaction that holds all, if one does.
    transaction: Option<u64>,
    is_done: bool,
}

/// The command: 0 if each replica holds what its database held, 1 if one does not in time, 3 if no daemon
/// runs.
pub(crate) fn sync(runtime: &RuntimeDirectory, limit: Duration, as_json: bool) -> ExitCode {
    match wait(runtime, limit) {
        Ok((databases, problems)) => {
            let is_done = databases.iter().all(|each| each.is_done);
            let code = match is_done {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            };
            match as_json {
                true => output::answer(document(&databases, &problems), code),
                false => output::answer(table(&databases, &problems), code),
            }
        }
        Err(cause) => {
            output::tell(format_args!("edgerepl: {cause}\n"));
            ExitCode::from(3)
        }
    }
}

/// Waits until each database is done, or for so long; returns what the daemon says then.
fn wait(runtime: &RuntimeDirectory, limit: Duration) -> Result<(Vec<Synced>, Vec<String>), String> {
    let asked = Instant::now();
    sync::ask(runtime)?;
    loop {
        let status = status::ask(runtime)?;
        let databases: Vec<Synced> = status["databases"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|database| Synced::read(database, asked.elapsed()))
            .collect();
        if databases.iter().all(|each| each.is_done) {
            return Ok((databases, Vec::new()));
        }
        if asked.elapsed() >= limit {
            let problems = status["problems"].as_array().into_iter().flatten();
            let problems = problems.filter_map(Value::as_str).map(str::to_owned);
            return Ok((databases, problems.collect()));
        }
        thread::sleep(PACE);
    }
}

impl Synced {
    /// What the daemon says of a database, when it was asked `since` ago.
    fn read(database: &Value, since: Duration) -> Self {
        // A database that its application has not made yet holds nothing.
        let is_absent = database["state"] == "absent";
        let covered = database["covered_s"].as_f64();
        Self {
            path: database["path"].as_str().unwrap_or_default().to_owned(),
            transaction: database["proof"]["transaction"].as_u64(),
            is_done: is_absent || covered.is_some_and(|age| age < since.as_secs_f64()),
        }
    }
}

fn table(databases: &[Synced], problems: &[String]) -> String {
    let mut text = String::new();
    for each in databases {
        let (word, told) = match (each.is_done, each.transaction) {
            (true, Some(transaction)) => (
                Paint::Green.on_terminal("synced"),
                format!("the replica holds everything up to now (transaction {transaction})"),
            ),
            (true, None) => (
                Paint::Yellow.on_terminal("absent"),
                "there is no database yet".to_owned(),
            ),
            (false, _) => (
                Paint::Red.on_terminal("not synced"),
                "the replica may lack what was written lately".to_owned(),
            ),
        };
        let _ = writeln!(text, "{word}  {}: {told}", each.path);
    }
    for problem in problems {
        let _ = writeln!(text, "- {problem}");
    }
    text
}

fn document(databases: &[Synced], problems: &[String]) -> String {
    let all: Vec<Value> = databases
        .iter()
        .map(|each| {
            json!({
                "path": each.path,
                "synced": each.is_done,
                "transaction": each.transaction,
            })
        })
        .collect();
    let is_done = databases.iter().all(|each| each.is_done);
    let document = json!({"synced": is_done, "databases": all, "problems": problems});
    format!("{document}\n")
}
