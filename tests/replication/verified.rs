//! What a plan of a restore does not see: other bytes of the same size in the bucket. The daemon's own verify
//! names them, one new snapshot mends them, and the next one holds.
//!
//! Owns the harm, and what is waited for in a status. Plans of a restore are made meanwhile, and show nothing.

use std::time::{Duration, Instant};

use edgerepl_lab::{Daemon, Lab, Site};
use serde_json::Value;

use crate::support::{
    Application, LIMIT, Result, all_at_once, assert_nothing_lost, database_of, fill, has_problem,
    site, snapshots, tune_litestream, wait_until,
};

/// A replica is verified so often, and a restore planned.
const PACE: &str = "5s";
const PLANNED: &str = "4s";

/// No rotation comes.
const LIFETIME: Duration = Duration::from_secs(900);

/// A row of the application.
const ROW: Duration = Duration::from_millis(200);

const DATABASE: &str = "app.db";

/// By itself Litestream makes a snapshot at its start and none later, and reads nothing that it uploaded.
const QUIET: &str = "\
snapshot:
  interval: 8760h
  retention: 8760h
l0-retention-check-interval: 8760h
levels:
  - interval: 8760h
  - interval: 17520h
";

#[test]
fn other_bytes_in_the_bucket_are_named_and_one_snapshot_mends_them() -> Result {
    all_at_once(&["refresh", "restart"], |rotation| suffer(rotation))
}

fn suffer(rotation: &str) -> Result {
    let (lab, mut site) = site(&format!("verified-{rotation}"), LIFETIME)?;
    site.set("replication", "rotation", format!("{rotation:?}"));
    site.set("proof", "verify", format!("{PACE:?}"));
    site.set("proof", "restorable", format!("{PLANNED:?}"));
    fill(&site)?;
    tune_litestream(&site, QUIET)?;
    let mut daemon = site.start()?;
    let application = Application::writing(&site, ROW)?;
    let first = wait_until_held(&mut daemon, 0)?;

    garble_all(&lab, &site)?;
    let since = Instant::now();
    let told = daemon.wait_for("word of the other bytes", LIMIT, |status| {
        let database = database_of(status, DATABASE);
        database["verified"]["state"] == "differs"
            && database["state"] == "unhealthy"
            && is_planned_since(database, since)
            && has_problem(status, "the replica holds other bytes than the database")
    })?;
    println!("{rotation}: {}", told["problems"]);

    // After the snapshot, and once more.
    let held = wait_until_held(&mut daemon, first)?;
    wait_until_held(&mut daemon, held)?;
    let made = snapshots(&lab, since);
    assert_eq!(made.len(), 1, "{made:#?}; the log:\n{}", daemon.log());
    application.stop()?;
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)
}

/// A plan that was made since then was whole.
fn is_planned_since(database: &Value, then: Instant) -> bool {
    let restorable = &database["restorable"];
    let age = restorable["checked_s"].as_f64();
    let is_later = age.is_some_and(|age| age < then.elapsed().as_secs_f64());
    is_later && restorable["state"] == "restorable"
}

/// Waits until the device is healthy, with a verify that held after that transaction; the transaction at which
/// it did.
fn wait_until_held(daemon: &mut Daemon, after: u64) -> Result<u64> {
    let status = daemon.wait_for("verify that holds", LIMIT, |status| {
        let restorable = &database_of(status, DATABASE)["restorable"];
        assert_ne!(
            restorable["state"], "broken",
            "a plan sees nothing: {restorable}"
        );
        let is_planned = restorable["state"] == "restorable";
        status["state"] == "healthy" && is_planned && held(status) > Some(after)
    })?;
    Ok(held(&status).unwrap_or_default())
}

fn held(status: &Value) -> Option<u64> {
    let verified = &database_of(status, DATABASE)["verified"];
    let transaction = verified["transaction"].as_u64()?;
    (verified["state"] == "holds").then_some(transaction)
}

/// All that a restore would take, and the snapshot above all.
fn garble_all(lab: &Lab, site: &Site) -> Result {
    let prefix = format!("{}/{DATABASE}", site.device.thing_name);
    let objects = lab.s3().objects(&prefix);
    wait_until("a snapshot", || {
        let keys = objects.keys().unwrap_or_default();
        keys.iter().any(|key| key.contains("/0009/"))
    })?;
    let keys = objects.keys()?;
    Ok(keys.iter().try_for_each(|key| objects.garble(key))?)
}
