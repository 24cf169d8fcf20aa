//! An S3 that refuses, hangs or is not there during a rotation: one restart for it and no more, and
//! the replica catches up by itself when S3 is back.

use std::time::Duration;

use edgerepl_lab::S3Fault;

use crate::support::{
    Application, LIMIT, Result, assert_nothing_lost, assert_one_full_upload, fill, number, site,
    wait_until_replicating,
};

#[test]
fn refuses() -> Result {
    rotate_with("thing-refuse", S3Fault::Refuse)
}

#[test]
fn hangs() -> Result {
    rotate_with("thing-hang", S3Fault::Hang)
}

#[test]
fn is_not_there() -> Result {
    rotate_with("thing-absent", S3Fault::ConnectionRefused)
}

fn rotate_with(thing_name: &str, fault: S3Fault) -> Result {
    // Long enough for a stop that S3 holds up until Litestream is cut short.
    let (lab, site) = site(thing_name, Duration::from_secs(30))?;
    fill(&site)?;
    let mut daemon = site.start()?;
    let before = wait_until_replicating(&mut daemon)?;
    let starts = number(&before, "replication", "starts");
    let application = Application::writing(&site, Duration::from_millis(50))?;

    lab.s3().set_fault(fault)?;
    let during = daemon.wait_for("restart", LIMIT, |status| {
        number(status, "replication", "starts") > starts
            && status["replication"]["activity"] == "catching_up"
    })?;
    assert_eq!(number(&during, "replication", "rotations"), 1);
    assert!(
        during["wal_guard_held_s"].is_number(),
        "the WAL is open: {during:#}"
    );
    lab.s3().set_fault(S3Fault::None)?;
    let after = wait_until_replicating(&mut daemon)?;
    assert!(
        after["wal_guard_held_s"].is_null(),
        "the WAL is held: {after:#}"
    );
    let rotations = number(&after, "replication", "rotations");
    assert_eq!(number(&after, "replication", "starts"), starts + rotations);

    application.stop()?;
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)?;
    assert_one_full_upload(&lab);
    Ok(())
}
