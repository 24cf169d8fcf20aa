//! `edgerepl verify`: compares replicas with their databases, one after the other.
//!
//! Owns which databases are compared, and the answer about all of them: it holds only where each
//! one does, and where all were compared. An error of one never keeps the others from being compared.

mod comparison;
mod verdict;

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::access::{Accesses, litestream_config};
use super::databases::Subjects;
use super::output::{self, Paint};
use crate::agent::{NotVerified, Verified};
use crate::config::{RuntimeDirectory, Settings};
use crate::litestream::restore;
use crate::reactor::verification;
use crate::system::network::WaysOut;
use crate::system::priority;
use verdict::Verdict;

/// The command: 0 if each replica holds all that it should, 1 if one does not or can't be compared.
pub(crate) fn verify(
    settings: &Settings,
    runtime: &RuntimeDirectory,
    names: &[PathBuf],
    as_json: bool,
) -> ExitCode {
    let report = match compared(settings, runtime, names) {
        Ok(report) => report,
        Err(cause) => {
            if as_json {
                let document = json!({"form": 2, "holds": false, "cause": cause});
                return output::answer(format_args!("{document}\n"), ExitCode::FAILURE);
            }
            log::error!("the replica is not verified: {cause}");
            return ExitCode::FAILURE;
        }
    };
    let code = match report.holds() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    if as_json {
        return output::answer(format_args!("{}\n", report.document()), code);
    }
    if let [(_, Err(cause))] = &report.databases[..] {
        log::error!("the replica is not verified: {cause}");
    }
    match report.text() {
        text if text.is_empty() => code,
        text => output::answer(text, code),
    }
}

/// The same for the daemon, of one database; `None` if it is not understood what is asked. What differs
/// goes to the log.
pub(crate) fn child(words: &[&str]) -> Option<String> {
    let [config, runtime, database] = words else {
        return None;
    };
    let found = match WaysOut::look() {
        Ok(WaysOut {
            mobile_link: Some(link),
            ..
        }) => Err(NotVerified::Metered(link)),
        Ok(_) => found(Path::new(config), runtime, Path::new(database)),
        Err(e) => Err(NotVerified::Failed(format!(
            "it is not known whether the way out is a mobile link, because the kernel can't be asked: {e}"
        ))),
    };
    Some(verification::document(found))
}

fn found(config: &Path, runtime: &str, database: &Path) -> Result<Verified, NotVerified> {
    let runtime = RuntimeDirectory::new(runtime);
    let settings =
        Settings::load(config, &runtime).map_err(|e| NotVerified::Failed(e.to_string()))?;
    let report = compared(&settings, &runtime, &[database.to_owned()]);
    let mut report = report.map_err(NotVerified::Failed)?;
    match report.databases.pop() {
        Some((_, Ok(verdict))) => {
            for difference in verdict.told() {
                log::warn!("{}: {difference}", database.display());
            }
            Ok(Verified {
                holds: verdict.holds(),
                transaction: verdict.transaction,
            })
        }
        Some((_, Err(cause))) if restore::is_unreadable(&cause) => {
            log::warn!("{}: {cause}", database.display());
            Ok(Verified {
                holds: false,
                transaction: None,
            })
        }
        Some((_, Err(cause))) => Err(NotVerified::Failed(cause)),
        None => Err(NotVerified::Failed("nothing was compared".to_owned())),
    }
}

/// What became of each database.
struct Report {
    databases: Vec<(PathBuf, Result<Verdict, String>)>,
    /// What Litestream may replicate beside them.
    not_compared: Vec<String>,
}

fn compared(
    settings: &Settings,
    runtime: &RuntimeDirectory,
    names: &[PathBuf],
) -> Result<Report, String> {
    let configuration = litestream_config(settings)?;
    let subjects = Subjects::of(settings, Some(&configuration));
    let subjects = subjects.chosen(names, Some(&configuration))?;
    let mut accesses = Accesses::new(settings, runtime);
    let mut databases = Vec::new();
    let count = subjects.all.len();
    let tells = count > 1 && io::stderr().is_terminal();
    for (number, subject) in subjects.all.iter().enumerate() {
        if tells {
            let name = subject.path().display();
            log::info!("comparing {name}, {} of {count}", number + 1);
        }
        // Writers have to wait until it is synced.
        if number > 0 {
            priority::usual();
        }
        let verdict = comparison::compare(settings, &configuration, subject, &mut accesses);
        databases.push((subject.path().to_owned(), verdict));
    }
    Ok(Report {
        databases,
        not_compared: subjects.unknown,
    })
}

impl Report {
    fn holds(&self) -> bool {
        self.not_compared.is_empty() && self.databases.iter().all(|(_, verdict)| holds(verdict))
    }

    /// The members of the first database stand at the top, too, but for the verdict on all.
    fn document(&self) -> Value {
        let databases: Vec<Value> = self
            .databases
            .iter()
            .map(|(path, verdict)| {
                let mut document = match verdict {
                    Ok(verdict) => verdict.document(),
                    Err(cause) => json!({"holds": false, "cause": cause}),
                };
                document["database"] = json!(path);
                document
            })
            .collect();
        let mut document = databases.first().cloned().unwrap_or_else(|| json!({}));
        document["form"] = json!(2);
        document["holds"] = json!(self.holds());
        document["not_compared"] = json!(self.not_compared);
        document["databases"] = json!(databases);
        document
    }

    fn text(&self) -> String {
        let mut text = match &self.databases[..] {
            [(_, Ok(verdict))] => verdict.table(),
            // Told on standard error.
            [(_, Err(_))] => String::new(),
            several => of_several(several),
        };
        for other in &self.not_compared {
            let _ = writeln!(
                text,
                "NOT COMPARED: {other}, which Litestream replicates too"
            );
        }
        text
    }
}

fn holds(verdict: &Result<Verdict, String>) -> bool {
    verdict.as_ref().is_ok_and(Verdict::holds)
}

/// A line about all, then a block for each.
fn of_several(databases: &[(PathBuf, Result<Verdict, String>)]) -> String {
    let failing = databases.iter().filter(|(_, verdict)| !holds(verdict));
    let failing: Vec<&Path> = failing.map(|(path, _)| path.as_path()).collect();
    let mut text = match failing[..] {
        [] => {
            let word = format!("all {} replicas hold all that they should", databases.len());
            Paint::Green.on_terminal(&word)
        }
        _ => {
            let word = format!(
                "{} of {} replicas are not proved to hold what they should",
                failing.len(),
                databases.len()
            );
            let names: Vec<_> = failing.iter().map(|p| p.display().to_string()).collect();
            format!("{}: {}", Paint::Red.on_terminal(&word), names.join(", "))
        }
    };
    text.push('\n');
    for (path, verdict) in databases {
        let _ = write!(text, "\n{}\n", path.display());
        match verdict {
            Ok(verdict) => text += &verdict.table(),
            Err(cause) => {
                let word = Paint::Red.on_terminal("NOT COMPARED");
                let _ = writeln!(text, "{word}: {cause}");
            }
        }
    }
    text
}
