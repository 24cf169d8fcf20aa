//! Whether each database can be restored from what the bucket holds.
//!
//! Owns what is said of the plans that the daemon makes, and, online, a look of the check's own. Never counts
//! a bucket that holds nothing yet as a fault: a device is checked before its first start, too.

use std::time::Duration;

use super::{Check, Outcome, fail, warn};
use crate::commands::databases::{Subject, Subjects};
use crate::config::{RuntimeDirectory, Settings};
use crate::credentials::{Grant, delivery};
use crate::litestream::bucket::{self, Commands};
use crate::litestream::chain::{Chain, Listing, PlanFailure, Stranger};
use crate::litestream::command::{NO_COPY, Replicate};
use crate::litestream::config_file::{Configuration, Found};
use crate::litestream::lineage;

/// The first Litestream that plans a restore.
const PLANS: (u32, u32, u32) = (0, 5, 12);

const NAME: &str = "restorable";

/// What the daemon proves of that.
pub(super) fn planned(settings: &Settings, version: Option<(u32, u32, u32)>) -> Check {
    let outcome = match (settings.restorable, version) {
        (None, _) => warn(
            "[proof] restorable is \"off\": nobody is told that objects have vanished from the bucket",
            "set it to a time such as \"1d\", unless the requests cost too much",
        ),
        (Some(_), Some(version)) if version < PLANS => warn(
            "this Litestream plans no restore: nobody is told that objects have vanished from the bucket, but \
             by `edgerepl verify`",
            "install Litestream 0.5.17 or later",
        ),
        (Some(_), _) if Replicate::parse(&settings.replication.command).is_err() => warn(
            "[replication] command is not `litestream replicate`, so no restore can be planned: nobody is told \
             that objects have vanished from the bucket",
            "name Litestream itself there",
        ),
        (Some(pace), _) => {
            let mended = match settings.replication.has_unit() {
                true => "; what is broken is mended only where edgerepl may stop the unit",
                false => "",
            };
            Outcome::Pass(format!(
                "the restore of each database is planned each {}{mended}",
                words(pace)
            ))
        }
    };
    Check::new(NAME, outcome)
}

/// What the bucket holds of each database now.
pub(super) fn online(
    settings: &Settings,
    runtime: &RuntimeDirectory,
    grant: &Grant,
    configuration: &Configuration,
    found: Found,
) -> Vec<Check> {
    let subjects = Subjects::among(settings, found).all;
    let environment = delivery::with_keys(&grant.thing_name, &settings.region, &grant.credentials);
    let environment = delivery::lines(&environment);
    let is_one = subjects.len() == 1;
    let check = |subject: &Subject| {
        let outcome = look(settings, runtime, configuration, subject, &environment);
        match is_one {
            true => Check::new("bucket", outcome),
            false => Check::new(format!("bucket {}", subject.path().display()), outcome),
        }
    };
    subjects.iter().map(check).collect()
}

fn look(
    settings: &Settings,
    runtime: &RuntimeDirectory,
    configuration: &Configuration,
    subject: &Subject,
    environment: &str,
) -> Outcome {
    let database = &subject.in_litestream;
    match configuration.alone(database) {
        Ok(None) => {}
        Ok(Some(_)) => {
            let why = "a database of a folder is looked at by the daemon alone";
            return Outcome::Skip(why.to_owned());
        }
        Err(cause) => return Outcome::Skip(cause),
    }
    let litestream = match Replicate::parse(&settings.replication.command) {
        Ok(litestream) => litestream,
        Err(cause) => return Outcome::Skip(cause),
    };
    let commands = Commands::of(&litestream, database, None, &runtime.file(NO_COPY));
    let state = lineage::state_of(database, Some(configuration));
    outcome(bucket::look(&commands, environment, &state, None))
}

fn outcome(found: Result<Listing, PlanFailure>) -> Outcome {
    let listing = match found {
        Ok(listing) => listing,
        Err(PlanFailure::Unsupported) => {
            return Outcome::Skip("this Litestream plans no restore".to_owned());
        }
        Err(PlanFailure::Failed(cause)) => {
            return fail(
                format!("what the bucket holds is not known: {cause}"),
                "check the bucket, the endpoint and the role's permission to list",
            );
        }
    };
    match listing.stranger {
        Some(Stranger::Differing { at }) => {
            return fail(
                format!(
                    "the bucket holds other transactions than Litestream's files here, up to transaction {at}: \
                     another device writes to the same prefix, or these files are an older copy"
                ),
                "run edgerepl, whose status says which; give each device a prefix of its own",
            );
        }
        // A power cut may have taken Litestream's own newest files.
        Some(Stranger::Ahead { at }) => {
            return warn(
                format!(
                    "the bucket holds transaction {at}, which this device's Litestream does not know"
                ),
                "if edgerepl runs, another device writes to the same prefix: give each one of its own",
            );
        }
        None => {}
    }
    let mends = "run edgerepl, which has Litestream upload a new snapshot; look who deletes or changes objects";
    match listing.chain {
        Chain::Whole(holdings) => Outcome::Pass(format!(
            "a restore takes {} objects, {} bytes, to states from {} to {}",
            holdings.files, holdings.bytes, holdings.oldest, holdings.newest
        )),
        Chain::Nothing => Outcome::Pass("the bucket holds no snapshot of it yet".to_owned()),
        Chain::Hole { after } => fail(
            format!("a restore ends at transaction {after}, because the next one is missing"),
            mends,
        ),
        Chain::Altered { at } => fail(
            format!(
                "the object that ends with transaction {at} has another size than was uploaded"
            ),
            mends,
        ),
    }
}

/// A duration as it is written in the configuration.
fn words(time: Duration) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "d"), (3600, "h"), (60, "m")];
    let seconds = time.as_secs();
    let unit = UNITS
        .iter()
        .find(|(length, _)| seconds >= *length && seconds.is_multiple_of(*length));
    match unit {
        Some((length, name)) => format!("{}{name}", seconds / length),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_as_they_are_written() {
        for (seconds, told) in [(86_400, "1d"), (5400, "90m"), (7200, "2h"), (61, "61s")] {
            assert_eq!(words(Duration::from_secs(seconds)), told);
        }
    }
}
