//! The comparison of a replica with its database that the daemon has made: done by a child that is this
//! program again.
//!
//! Owns the child's arguments, and the form of its output. What it does is `commands::verify`'s: beside a
//! person's `verify` it differs only in that it makes none over a mobile link, and always prints what it
//! found. Decides nothing.

use serde_json::{Value, json};

use super::chore::Step;
use super::context::Context;
use crate::agent::{Database, NotVerified, Verified};
use crate::system::this_program;

/// The child's command; not for people.
pub(crate) const COMMAND: &str = "comparison";

/// The child.
pub(super) fn verify(database: Database, context: &Context) -> Step {
    let database = context.path(database);
    let mut command = this_program();
    command
        .arg(COMMAND)
        .args([&context.config, context.runtime.path(), database]);
    Step::named(format!("the verify of {}", database.display()), command)
}

/// The child's output.
pub(super) fn verified(printed: &str) -> Result<Verified, NotVerified> {
    let found: Value = serde_json::from_str(printed).unwrap_or_default();
    let text = |key: &str| found[key].as_str().map(str::to_owned);
    if let Some(link) = text("metered") {
        return Err(NotVerified::Metered(link));
    }
    if let Some(cause) = text("failed") {
        return Err(NotVerified::Failed(cause));
    }
    let strange = "the child that compares the replica printed something unexpected";
    let holds = found["holds"].as_bool();
    Ok(Verified {
        holds: holds.ok_or_else(|| NotVerified::Failed(strange.to_owned()))?,
        transaction: found["transaction"].as_u64(),
    })
}

/// The same, as the child prints it.
pub(crate) fn document(found: Result<Verified, NotVerified>) -> String {
    let document = match found {
        Ok(Verified { holds, transaction }) => json!({"holds": holds, "transaction": transaction}),
        Err(NotVerified::Metered(link)) => json!({"metered": link}),
        Err(NotVerified::Failed(cause)) => json!({"failed": cause}),
    };
    document.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_says_what_its_parent_reads() {
        let (holds, transaction) = (true, Some(7));
        let found = [
            Ok(Verified { holds, transaction }),
            Ok(Verified {
                holds: false,
                transaction: None,
            }),
            Err(NotVerified::Metered("wwan0".to_owned())),
            Err(NotVerified::Failed("there is no room".to_owned())),
        ];
        for found in found {
            assert_eq!(verified(&document(found.clone())), found);
        }
        for odd in ["", "{}", "null", r#"{"holds":7}"#, r#"{"transaction":7}"#] {
            assert!(
                matches!(verified(odd), Err(NotVerified::Failed(_))),
                "{odd}"
            );
        }
    }
}
