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

/// The status tells whole milliseconds, and leaves off the rest.
const PRECISION: Duration = Duration::from_millis(1);

/// What became of one database.
#[derive(Debug)]
struct Synced {
    path: String,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The replica holds everything, with this transaction.
    Holds(u64),
    /// There is no database: its application has to make it, or somebody to restore it.
    Absent,
    /// It may lack something.
    Behind,
}

/// The command: 0 if each replica holds what its database held, 1 if one does not in time, 3 if no daemon
/// runs.
pub(crate) fn sync(runtime: &RuntimeDirectory, limit: Duration, as_json: bool) -> ExitCode {
    match wait(runtime, limit) {
        Ok((databases, problems)) => {
            let code = match are_done(&databases) {
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
        // Before the status is made: the answer takes time, in which no proof gets younger.
        let since = asked.elapsed();
        let status = status::ask(runtime)?;
        let databases: Vec<Synced> = status["databases"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|database| Synced::read(database, since))
            .collect();
        if are_done(&databases) {
            return Ok((databases, Vec::new()));
        }
        if since >= limit {
            let problems = status["problems"].as_array().into_iter().flatten();
            let problems = problems.filter_map(Value::as_str).map(str::to_owned);
            return Ok((databases, problems.collect()));
        }
        thread::sleep(PACE);
    }
}

fn are_done(databases: &[Synced]) -> bool {
    databases.iter().all(|each| each.state != State::Behind)
}

impl Synced {
    /// What the daemon says of a database, when it was asked `since` ago at least.
    fn read(database: &Value, since: Duration) -> Self {
        let covered = database["covered_s"].as_f64();
        let is_covered =
            covered.is_some_and(|age| age + PRECISION.as_secs_f64() < since.as_secs_f64());
        let state = match database["proof"]["transaction"].as_u64() {
            _ if database["state"] == "absent" => State::Absent,
            Some(transaction) if is_covered => State::Holds(transaction),
            _ => State::Behind,
        };
        let path = database["path"].as_str().unwrap_or_default().to_owned();
        Self { path, state }
    }
}

fn table(databases: &[Synced], problems: &[String]) -> String {
    let mut text = String::new();
    for Synced { path, state } in databases {
        let _ = match state {
            State::Holds(transaction) => writeln!(
                text,
                "{}  {path}: the replica holds everything up to now (transaction {transaction})",
                Paint::Green.on_terminal("synced")
            ),
            State::Absent => writeln!(
                text,
                "{}  {path}: there is no database",
                Paint::Yellow.on_terminal("absent")
            ),
            State::Behind => writeln!(
                text,
                "{}  {path}: the replica may lack what was written lately",
                Paint::Red.on_terminal("not synced")
            ),
        };
    }
    for problem in problems {
        let _ = writeln!(text, "- {problem}");
    }
    text
}

fn document(databases: &[Synced], problems: &[String]) -> String {
    let all = databases.iter().map(|Synced { path, state }| {
        let transaction = match state {
            State::Holds(transaction) => Some(transaction),
            State::Absent | State::Behind => None,
        };
        json!({"path": path, "synced": *state != State::Behind, "transaction": transaction})
    });
    let all: Vec<Value> = all.collect();
    let document = json!({"synced": are_done(databases), "databases": all, "problems": problems});
    format!("{document}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(database: Value, since_ms: u64) -> State {
        Synced::read(&database, Duration::from_millis(since_ms)).state
    }

    #[test]
    fn nothing_but_a_proof_of_after_the_request_counts() {
        let covered = |age: f64| json!({"covered_s": age, "proof": {"transaction": 7}});
        assert_eq!(state(covered(0.038), 40), State::Holds(7));
        // The status tells whole milliseconds: it may have been asked for before.
        assert_eq!(state(covered(0.039), 40), State::Behind);
        assert_eq!(state(covered(0.040), 40), State::Behind);
        assert_eq!(state(json!({"covered_s": null}), 40), State::Behind);
        assert_eq!(state(json!({}), 40), State::Behind);
    }

    #[test]
    fn a_database_that_is_gone_is_not_said_to_be_on_the_replica() {
        let gone = json!({"state": "absent", "covered_s": 0.001, "proof": {"transaction": 7}});
        assert_eq!(state(gone, 40), State::Absent);
    }
}
