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
use crate::ipc::status;
use crate::ipc::wish::{self, Wish};

/// How often the daemon is asked how far it is.
const PACE: Duration = Duration::from_millis(100);

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
                true => output::answer(document(are_done(&databases), &databases, &problems), code),
                false => output::answer(table(&databases, &problems), code),
            }
        }
        Err(cause) => {
            let code = ExitCode::from(3);
            if as_json {
                return output::answer(document(false, &[], &[cause]), code);
            }
            output::tell(format_args!("edgerepl: {cause}\n"));
            code
        }
    }
}

/// Waits until each database is done, or for so long; returns what the daemon says then.
fn wait(runtime: &RuntimeDirectory, limit: Duration) -> Result<(Vec<Synced>, Vec<String>), String> {
    let begun = Instant::now();
    let mut asked = wish::ask(runtime, Wish::Sync)?;
    loop {
        let status = status::ask(runtime)?;
        let databases = status["databases"].as_array().into_iter().flatten();
        let databases: Vec<Synced> = databases.map(Synced::read).collect();
        // Another one knows nothing of the wish.
        let has_heard = status["pid"] == asked;
        if !has_heard {
            asked = wish::ask(runtime, Wish::Sync)?;
        } else if are_done(&databases) {
            return Ok((databases, Vec::new()));
        }
        if begun.elapsed() >= limit {
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
    /// What the daemon says of a database.
    fn read(database: &Value) -> Self {
        let state = match database["proof"]["transaction"].as_u64() {
            _ if database["state"] == "absent" => State::Absent,
            Some(transaction) if database["owes_sync"] == false => State::Holds(transaction),
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

/// The form of the document; a change that breaks a reader raises it.
const FORM: u64 = 1;

fn document(is_synced: bool, databases: &[Synced], problems: &[String]) -> String {
    let all = databases.iter().map(|Synced { path, state }| {
        let transaction = match state {
            State::Holds(transaction) => Some(transaction),
            State::Absent | State::Behind => None,
        };
        let is_synced = matches!(state, State::Holds(_));
        let is_there = *state != State::Absent;
        json!({"path": path, "synced": is_synced, "exists": is_there, "transaction": transaction})
    });
    let all: Vec<Value> = all.collect();
    let document = json!({
        "form": FORM,
        "synced": is_synced,
        "databases": all,
        "problems": problems,
    });
    format!("{document}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(database: Value) -> State {
        Synced::read(&database).state
    }

    #[test]
    fn nothing_but_a_proof_of_what_was_asked_for_counts() {
        let proof = json!({"transaction": 7});
        let told = |owes: Value| state(json!({"owes_sync": owes, "proof": proof}));
        assert_eq!(told(json!(false)), State::Holds(7));
        assert_eq!(told(json!(true)), State::Behind);
        assert_eq!(told(Value::Null), State::Behind);
        let unproved = json!({"owes_sync": false, "proof": null});
        assert_eq!(state(unproved), State::Behind);
        assert_eq!(state(json!({})), State::Behind);
    }

    #[test]
    fn a_database_that_is_gone_is_not_said_to_be_on_the_replica() {
        let gone = json!({"state": "absent", "owes_sync": false, "proof": {"transaction": 7}});
        assert_eq!(state(gone.clone()), State::Absent);
        let told: Value =
            serde_json::from_str(&document(true, &[Synced::read(&gone)], &[])).expect("a document");
        let of_it = &told["databases"][0];
        assert_eq!(
            (&of_it["synced"], &of_it["exists"]),
            (&json!(false), &json!(false))
        );
    }
}
