//! `edgerepl sync`: what was committed before it ends is on the replica, whatever comes then.

use std::process::Output;
use std::time::Duration;

use edgerepl_lab::S3Fault;
use serde_json::Value;

use crate::support::{
    LIMIT, Result, add_databases, all_at_once, assert_nothing_lost, configure_databases, create,
    database_of, litestreams, open, site, wait_until, wait_until_replicating, write_row,
};

const LIFETIME: Duration = Duration::from_secs(900);

/// Nothing but what is asked for moves anything within the test.
const SELDOM: &str = "\"1h\"";

#[test]
fn what_was_committed_before_a_sync_outlives_the_device() -> Result {
    all_at_once(&["restart", "refresh"], |rotation| sync(rotation))
}

fn sync(rotation: &str) -> Result {
    let (lab, mut site) = site(&format!("sync-{rotation}"), LIFETIME)?;
    site.set("replication", "rotation", format!("{rotation:?}"));
    site.set("heartbeat", "interval", SELDOM);
    create(&site.database())?;
    add_databases(&site, &["other.db"])?;
    configure_databases(&site, &[("app.db", true), ("other.db", false)])?;
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    let databases = ["app.db", "other.db"];
    for round in 0..3 {
        for name in databases {
            let database = open(&site.root().join(name))?;
            (0..20).try_for_each(|_| write_row(&database))?;
        }
        let output = site.run(&["sync", "--json"])?;
        assert!(output.status.success(), "{round}: {output:?}");
        let document = answer(&output)?;
        assert_eq!(document["synced"], true, "{document:#}");
        for name in databases {
            let told = database_of(&document, name);
            assert!(told["transaction"].is_u64(), "{told:#}");
        }
        // As a power cut does: nobody uploads anything any more, not even at its end.
        lab.s3().set_fault(S3Fault::ConnectionRefused)?;
        daemon.kill()?;
        wait_until("Litestream's end", || litestreams(&site).is_empty())?;
        lab.s3().set_fault(S3Fault::None)?;
        for name in databases {
            let prefix = format!("{}/{name}", site.device.thing_name);
            let comparison = lab.compare_with(&prefix, &site.root().join(name))?;
            assert!(comparison.is_equal(), "{round}, {name}: {comparison:?}");
        }
        daemon = site.start()?;
        wait_until_replicating(&mut daemon)?;
    }
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)
}

#[test]
fn a_sync_that_does_not_come_to_pass_says_why() -> Result {
    let (lab, mut site) = site("sync-refused", LIFETIME)?;
    site.set("heartbeat", "interval", SELDOM);
    site.set("replication", "rotation", "\"refresh\"");
    let output = site.run(&["sync"])?;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("no edgerepl runs here"), "{told}");

    create(&site.database())?;
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    lab.s3().set_fault(S3Fault::ConnectionRefused)?;
    write_row(&open(&site.database())?)?;
    let output = site.run(&["sync", "--json", "--timeout", "3"])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let document = answer(&output)?;
    assert_eq!(database_of(&document, "app.db")["synced"], false);
    let table = site.run(&["sync", "--timeout", "1"])?;
    let told = String::from_utf8_lossy(&table.stdout);
    assert!(told.contains("not synced"), "{told}");
    // What was asked for comes to pass once S3 is back, however late.
    lab.s3().set_fault(S3Fault::None)?;
    let output = site.run(&["sync", "--timeout", "120"])?;
    assert!(output.status.success(), "{output:?}; {}", daemon.log());
    daemon.wait_for("health", LIMIT, |status| status["state"] == "healthy")?;
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)
}

fn answer(output: &Output) -> Result<Value> {
    Ok(serde_json::from_slice(&output.stdout)?)
}
