//! The look at what a bucket holds of a database: by Litestream's own commands.
//!
//! Owns which ones are asked, and in what order. Blocks until they answer, so it is for a child or for a
//! command, and never for the loop. Downloads nothing, and judges nothing: `chain` does.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use super::chain::{self, Listing, Look, Own, PlanFailure, Record};
use super::command::{KNOWS_NO_PLAN, Replicate, last_words};
use super::leash;
use crate::system::file;

/// The commands that are asked, with their arguments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Commands {
    plan: Vec<String>,
    snapshots: Vec<String>,
    singles: Vec<String>,
}

impl Commands {
    /// Those for `database`, as Litestream's configuration spells it, by that configuration or by `own`, in
    /// which nothing is to be expanded. `nowhere` is a path where nothing is.
    pub(crate) fn of(
        litestream: &Replicate,
        database: &Path,
        own: Option<&Path>,
        nowhere: &Path,
    ) -> Self {
        let mut plan = litestream.plan(database, nowhere, own);
        // The database comes last.
        plan.insert(plan.len().saturating_sub(1), "-json".to_owned());
        Self {
            plan,
            snapshots: litestream.list(chain::SNAPSHOTS, database, own),
            singles: litestream.list(chain::SINGLE, database, own),
        }
    }

    /// They, to be read again.
    pub(crate) fn document(&self) -> Value {
        json!({"plan": self.plan, "snapshots": self.snapshots, "singles": self.singles})
    }

    /// Reads what [`Commands::document`] made.
    pub(crate) fn read(document: &Value) -> Option<Self> {
        Some(Self {
            plan: words(&document["plan"])?,
            snapshots: words(&document["snapshots"])?,
            singles: words(&document["singles"])?,
        })
    }
}

/// The words of a command, from a document.
pub(crate) fn words(document: &Value) -> Option<Vec<String>> {
    let words = document.as_array()?.iter();
    words.map(|word| word.as_str().map(str::to_owned)).collect()
}

/// The newest single transaction in the bucket, by the command `list`, if Litestream's files below `state` are
/// not as far; none where it has no files.
///
/// # Errors
/// Why the bucket can't be listed.
pub(crate) fn ahead(
    list: &[String],
    environment: &str,
    state: &Path,
) -> Result<Option<u64>, String> {
    let Some(own) = Own::read(state) else {
        return Ok(None);
    };
    let singles = chain::objects(&ask(list, environment)?)?;
    Ok(own.passed_by(&singles))
}

/// Looks at the bucket. `environment` has the credentials, in lines of `NAME=value`; `state` is Litestream's
/// local state; `record` is the file that keeps what earlier looks saw, if they count.
///
/// # Errors
/// Why no restore could be planned.
pub(crate) fn look(
    commands: &Commands,
    environment: &str,
    state: &Path,
    record: Option<&Path>,
) -> Result<Listing, PlanFailure> {
    let plan = ask(&commands.plan, environment);
    if plan.as_ref().is_err_and(|e| e.contains(KNOWS_NO_PLAN)) {
        return Err(PlanFailure::Unsupported);
    }
    compare(commands, &plan, environment, state, record).map_err(PlanFailure::Failed)
}

fn compare(
    commands: &Commands,
    plan: &Result<String, String>,
    environment: &str,
    state: &Path,
    record: Option<&Path>,
) -> Result<Listing, String> {
    let list = |words: &[String]| chain::objects(&ask(words, environment)?);
    let earlier = record.map(|file| fs::read(file).unwrap_or_default());
    let earlier = Record::read(&earlier.unwrap_or_default());
    let look = Look {
        plan: match plan {
            Ok(printed) => Ok(chain::objects(printed)?),
            Err(message) => Err(message),
        },
        snapshots: list(&commands.snapshots)?,
        singles: list(&commands.singles)?,
        // After the lists: Litestream keeps each file before it uploads it.
        own: Own::read(state),
        earlier: &earlier,
    };
    let listing = look.judge()?;
    if let Some(record) = record {
        let seen = look.record().document().to_string();
        file::replace(record, 0o600, seen.as_bytes())
            .map_err(|e| format!("{} can't be written: {e}", record.display()))?;
    }
    Ok(listing)
}

/// What a command of Litestream's prints.
fn ask(words: &[String], environment: &str) -> Result<String, String> {
    let failed = |e: io::Error| format!("{} can't be run: {e}", words[0]);
    let mut litestream = leash::command(None, words);
    let litestream = litestream
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = litestream.spawn().map_err(failed)?;
    if let Some(mut input) = running.stdin.take() {
        input.write_all(environment.as_bytes()).map_err(failed)?;
    }
    let output = running.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(last_words(&String::from_utf8_lossy(&output.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_they_were_written() {
        let words = ["litestream", "replicate", "-config", "/etc/l.yml"].map(str::to_owned);
        let litestream = Replicate::parse(&words).expect("a command");
        let database = Path::new("/data/app.db");
        let commands = Commands::of(&litestream, database, None, Path::new("/run/no-copy"));
        assert_eq!(
            commands.plan.join(" "),
            "litestream restore -config /etc/l.yml -dry-run -o /run/no-copy -json /data/app.db"
        );
        assert_eq!(
            commands.singles.join(" "),
            "litestream ltx -config /etc/l.yml -level 0 -json /data/app.db"
        );
        assert_eq!(Commands::read(&commands.document()), Some(commands));
        assert_eq!(Commands::read(&json!({"plan": [7]})), None);
    }
}
