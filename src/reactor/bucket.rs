//! The look at what the bucket holds of a database: done by a child that is this program again.
//!
//! Owns both ends: the child's arguments, and its output. The look itself is Litestream's room; what earlier
//! ones saw is recorded on tmpfs. Decides nothing.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::chore::Step;
use crate::clock::WallTime;
use crate::litestream::bucket::{self, Commands};
use crate::litestream::chain::{Chain, Holdings, Listing, PlanFailure, Stranger};
use crate::system::this_program;

/// The child's command; not for people.
pub(crate) const COMMAND: &str = "bucket";

/// The largest environment that the child is told, in bytes.
const MOST: u64 = 64 * 1024;

/// What is asked about one database.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) commands: Commands,
    /// Litestream's local state of it.
    pub(super) state: PathBuf,
    /// Where the record of earlier looks is.
    pub(super) record: PathBuf,
}

/// The child that looks whether the bucket is ahead of Litestream's files of `database`, by the command
/// `list`.
pub(super) fn look_ahead(
    database: &Path,
    list: &[String],
    state: &Path,
    environment: Zeroizing<String>,
) -> Step {
    let name = format!("the look at the replica of {}", database.display());
    let asked = json!({"list": list, "state": state});
    child_of(name, &asked, environment)
}

/// Its output.
pub(super) fn looked_ahead(printed: &str) -> Result<Option<u64>, String> {
    let found: Value = serde_json::from_str(printed).unwrap_or_default();
    match (&found["failed"], &found["ahead"]) {
        (Value::String(cause), _) => Err(cause.clone()),
        (_, Value::Null) if found.is_object() => Ok(None),
        (_, ahead) => ahead.as_u64().map(Some).ok_or_else(strange),
    }
}

/// The child that looks at what the bucket holds of `database`; `environment` has the credentials.
pub(super) fn look(database: &Path, question: &Question, environment: Zeroizing<String>) -> Step {
    let asked = json!({
        "commands": question.commands.document(),
        "state": question.state,
        "record": question.record,
    });
    let name = format!("the plan of a restore of {}", database.display());
    child_of(name, &asked, environment)
}

fn child_of(name: String, asked: &Value, environment: Zeroizing<String>) -> Step {
    let mut command = this_program();
    command.arg(COMMAND).arg(asked.to_string());
    Step::named(name, command).told(environment)
}

fn strange() -> String {
    "the child that looks at the bucket printed something unexpected".to_owned()
}

/// The child's output.
pub(super) fn looked(printed: &str) -> Result<Listing, PlanFailure> {
    let strange = || PlanFailure::Failed(strange());
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
    match asked["list"].is_null() {
        true => plan(&asked),
        false => ahead(&asked),
    }
}

fn ahead(asked: &Value) -> Option<String> {
    let list = bucket::words(&asked["list"])?;
    let state = Path::new(asked["state"].as_str()?);
    let looked = environment().and_then(|told| bucket::ahead(&list, &told, state));
    Some(match looked {
        Ok(at) => json!({"ahead": at}).to_string(),
        Err(cause) => json!({"failed": cause}).to_string(),
    })
}

fn plan(asked: &Value) -> Option<String> {
    let commands = Commands::read(&asked["commands"])?;
    let [state, record] = ["state", "record"].map(|key| asked[key].as_str().map(Path::new));
    let (state, record) = (state?, record?);
    let told = environment().map_err(PlanFailure::Failed);
    let found = told.and_then(|told| bucket::look(&commands, &told, state, Some(record)));
    let found = match found {
        Ok(listing) => document(listing),
        Err(PlanFailure::Unsupported) => json!({"unsupported": true}),
        Err(PlanFailure::Failed(cause)) => json!({"failed": cause}),
    };
    Some(found.to_string())
}

/// What the child is told, with the credentials.
fn environment() -> Result<Zeroizing<String>, String> {
    let mut environment = Zeroizing::default();
    let told = io::stdin().take(MOST).read_to_string(&mut environment);
    told.map(|_| environment).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_ahead_says_what_its_parent_reads() {
        let said = |text: &str| looked_ahead(text);
        assert_eq!(said(&json!({"ahead": 9}).to_string()), Ok(Some(9)));
        assert_eq!(said(&json!({"ahead": null}).to_string()), Ok(None));
        let failed = json!({"failed": "403"}).to_string();
        assert_eq!(said(&failed), Err("403".to_owned()));
        for text in ["", "null", "7", r#"{"ahead": "9"}"#] {
            assert!(said(text).is_err(), "{text}");
        }
    }

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
