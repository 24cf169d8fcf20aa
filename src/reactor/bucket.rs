//! The look at what the bucket holds of a database: done by a child that is this program again.
//!
//! Owns both ends: the child's arguments, and its output. The child has Litestream plan a restore and list
//! the bucket, and compares that with Litestream's own files and with its earlier looks, which it records
//! on tmpfs. Downloads nothing, and decides nothing.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::chore::Step;
use crate::clock::WallTime;
use crate::litestream::chain::{
    self, Chain, Holdings, Listing, Look, Own, PlanFailure, Record, Stranger,
};
use crate::litestream::command::{KNOWS_NO_PLAN, Replicate};
use crate::litestream::leash;
use crate::system::{file, this_program};

/// The child's command; not for people.
pub(crate) const COMMAND: &str = "bucket";

/// The largest environment that the child is told, in bytes.
const MOST: u64 = 64 * 1024;

/// What is asked about one database.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) litestream: &'a Replicate,
    /// As Litestream's configuration spells it.
    pub(super) database: &'a Path,
    /// A configuration that names it by path, where Litestream's own does not.
    pub(super) own: Option<PathBuf>,
    /// Litestream's local state of it.
    pub(super) state: PathBuf,
    /// Where the record of earlier looks is.
    pub(super) record: PathBuf,
    /// A path where nothing is.
    pub(super) nowhere: PathBuf,
}

/// The child; `environment` has the credentials.
pub(super) fn look(question: &Question<'_>, environment: Zeroizing<String>) -> Step {
    let Question {
        litestream,
        database,
        own,
        ..
    } = question;
    let own = own.as_deref();
    let mut plan = litestream.plan(database, &question.nowhere, own);
    let at = plan.iter().position(|word| word == "-dry-run");
    plan.insert(at.unwrap_or(plan.len()), "-json".to_owned());
    let asked = json!({
        "plan": plan,
        "snapshots": litestream.list(chain::SNAPSHOTS, database, own),
        "singles": litestream.list(chain::SINGLE, database, own),
        "state": question.state,
        "record": question.record,
    });
    let mut command = this_program();
    command.arg(COMMAND).arg(asked.to_string());
    let name = format!("the plan of a restore of {}", database.display());
    Step::named(name, command).told(environment)
}

/// The child's output.
pub(super) fn looked(printed: &str) -> Result<Listing, PlanFailure> {
    let strange = || {
        let text = "the child that looks at the bucket printed something unexpected";
        PlanFailure::Failed(text.to_owned())
    };
    let found: Value = serde_json::from_str(printed).map_err(|_| strange())?;
    if found["unsupported"] == true {
        return Err(PlanFailure::Unsupported);
    }
    if let Some(cause) = found["failed"].as_str() {
        return Err(PlanFailure::Failed(cause.to_owned()));
    }
    parse(&found).ok_or_else(strange)
}

fn parse(found: &Value) -> Option<Listing> {
    let number = |value: &Value| value.as_u64();
    let time = |value: &Value| value.as_i64().map(WallTime::from_unix);
    let chain = match found["chain"].as_str()? {
        "whole" => Chain::Whole(Holdings {
            files: number(&found["files"])?,
            bytes: number(&found["bytes"])?,
            last: number(&found["last"])?,
            oldest: time(&found["oldest"])?,
            newest: time(&found["newest"])?,
        }),
        "nothing" => Chain::Nothing,
        "hole" => Chain::Hole {
            after: number(&found["at"])?,
        },
        "altered" => Chain::Altered {
            at: number(&found["at"])?,
        },
        _ => return None,
    };
    let stranger = match (number(&found["ahead"]), number(&found["differing"])) {
        (Some(at), _) => Some(Stranger::Ahead { at }),
        (None, Some(at)) => Some(Stranger::Differing { at }),
        (None, None) => None,
    };
    Some(Listing { chain, stranger })
}

fn document(listing: Listing) -> Value {
    let mut found = match listing.chain {
        Chain::Whole(holdings) => json!({
            "chain": "whole",
            "files": holdings.files,
            "bytes": holdings.bytes,
            "last": holdings.last,
            "oldest": holdings.oldest.unix(),
            "newest": holdings.newest.unix(),
        }),
        Chain::Nothing => json!({"chain": "nothing"}),
        Chain::Hole { after } => json!({"chain": "hole", "at": after}),
        Chain::Altered { at } => json!({"chain": "altered", "at": at}),
    };
    match listing.stranger {
        Some(Stranger::Ahead { at }) => found["ahead"] = at.into(),
        Some(Stranger::Differing { at }) => found["differing"] = at.into(),
        None => {}
    }
    found
}

/// The child's work; `None` if it does not know what was asked.
pub(crate) fn child(asked: &str) -> Option<String> {
    let asked: Value = serde_json::from_str(asked).ok()?;
    let words = |key: &str| -> Option<Vec<String>> {
        let words = asked[key].as_array()?.iter();
        words.map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let (plan, snapshots, singles) = (words("plan")?, words("snapshots")?, words("singles")?);
    let [state, record] = ["state", "record"].map(|key| asked[key].as_str().map(Path::new));
    let (state, record) = (state?, record?);
    let mut environment = Zeroizing::default();
    let told = io::stdin().take(MOST).read_to_string(&mut environment);
    let found = told.map_err(|e| e.to_string()).and_then(|_| {
        let ask = |words: &[String]| ask(words, &environment);
        found(ask, [&plan, &snapshots, &singles], state, record)
    });
    Some(
        found
            .unwrap_or_else(|cause| json!({"failed": cause}))
            .to_string(),
    )
}

fn found(
    ask: impl Fn(&[String]) -> Result<String, String>,
    [plan, snapshots, singles]: [&[String]; 3],
    state: &Path,
    record: &Path,
) -> Result<Value, String> {
    let plan = ask(plan);
    if plan.as_ref().is_err_and(|e| e.contains(KNOWS_NO_PLAN)) {
        return Ok(json!({"unsupported": true}));
    }
    let list = |words: &[String]| chain::objects(&ask(words)?);
    let earlier = Record::read(&fs::read(record).unwrap_or_default());
    let look = Look {
        plan: match &plan {
            Ok(printed) => Ok(chain::objects(printed)?),
            Err(message) => Err(message),
        },
        snapshots: list(snapshots)?,
        singles: list(singles)?,
        // After the lists: Litestream keeps each file before it uploads it.
        own: Own::read(state),
        earlier: &earlier,
    };
    let listing = look.judge()?;
    let seen = look.record().document().to_string();
    file::replace(record, 0o600, seen.as_bytes())
        .map_err(|e| format!("{} can't be written: {e}", record.display()))?;
    Ok(document(listing))
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
    let said = String::from_utf8_lossy(&output.stderr);
    let mut lines = said.lines().rev();
    let last = lines.find(|line| !line.trim().is_empty());
    let why = last.unwrap_or("it gives no reason").chars();
    Err(why.filter(|c| !c.is_control()).take(500).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_says_what_its_parent_reads() {
        let holdings = Holdings {
            files: 3,
            bytes: 4096,
            last: 7,
            oldest: WallTime::from_unix(1_000),
            newest: WallTime::from_unix(2_000),
        };
        let strangers = [
            None,
            Some(Stranger::Ahead { at: 9 }),
            Some(Stranger::Differing { at: 5 }),
        ];
        let chains = [
            Chain::Whole(holdings),
            Chain::Nothing,
            Chain::Hole { after: 3 },
            Chain::Altered { at: 4 },
        ];
        for stranger in strangers {
            for chain in chains {
                let listing = Listing { chain, stranger };
                assert_eq!(looked(&document(listing).to_string()), Ok(listing));
            }
        }
        for odd in ["", "{}", "null", r#"{"chain":"whole"}"#, r#"{"chain":7}"#] {
            assert!(matches!(looked(odd), Err(PlanFailure::Failed(_))), "{odd}");
        }
        let unsupported = looked(r#"{"unsupported":true}"#);
        assert_eq!(unsupported, Err(PlanFailure::Unsupported));
        assert_eq!(child("{}"), None);
    }
}
