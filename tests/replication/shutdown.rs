//! edgerepl's end and its reload: what was committed before is replicated, and nothing keeps it from
//! ending.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use edgerepl_lab::S3Fault;
use nix::sys::signal::Signal;

use crate::support::{
    LIMIT, Result, assert_nothing_lost, assert_one_full_upload, fill, litestreams, number, site,
    wait_until, wait_until_replicating, write_row,
};

#[test]
fn the_last_row_is_replicated() -> Result {
    let (lab, site) = site("thing-end", Duration::from_secs(60))?;
    fill(&site)?;
    let application = site.connect()?;
    for _ in 0..3 {
        let mut daemon = site.start()?;
        wait_until_replicating(&mut daemon)?;
        for _ in 0..50 {
            write_row(&application)?;
        }
        let status = daemon.terminate()?;
        assert_eq!(status.code(), Some(0));
        assert!(litestreams(&site).is_empty());
        assert_nothing_lost(&lab, &site)?;
    }
    assert_one_full_upload(&lab);
    Ok(())
}

/// Litestream, when it has just been started, ends without a last sync: edgerepl gives it the moment
/// that it needs.
#[test]
fn the_last_row_is_replicated_even_in_a_hand_over() -> Result {
    let (lab, site) = site("thing-end-early", Duration::from_secs(60))?;
    fill(&site)?;
    let application = site.connect()?;
    for _ in 0..3 {
        let mut daemon = site.start()?;
        daemon.wait_for("start", LIMIT, |status| {
            number(status, "replication", "starts") == 1
        })?;
        write_row(&application)?;
        assert_eq!(daemon.terminate()?.code(), Some(0));
        assert!(litestreams(&site).is_empty());
        assert_nothing_lost(&lab, &site)?;
    }
    Ok(())
}

#[test]
fn it_comes_without_s3() -> Result {
    let (lab, site) = site("thing-end-offline", Duration::from_secs(120))?;
    fill(&site)?;
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    lab.s3().set_fault(S3Fault::ConnectionRefused)?;
    write_row(&site.connect()?)?;
    let begin = Instant::now();
    assert_eq!(daemon.terminate()?.code(), Some(0));
    assert!(
        begin.elapsed() < Duration::from_secs(45),
        "{:?}",
        begin.elapsed()
    );
    assert!(litestreams(&site).is_empty());

    // What S3 did not get then it gets next time.
    lab.s3().set_fault(S3Fault::None)?;
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    assert_eq!(daemon.terminate()?.code(), Some(0));
    assert_nothing_lost(&lab, &site)
}

#[test]
fn it_comes_sooner_when_asked_twice() -> Result {
    let (lab, site) = site("thing-end-twice", Duration::from_secs(120))?;
    fill(&site)?;
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    lab.s3().set_fault(S3Fault::Hang)?;
    write_row(&site.connect()?)?;
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for("stop", LIMIT, |status| status["state"] == "stopping")?;
    thread::sleep(Duration::from_secs(1));
    let begin = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_for_exit()?.code(), Some(0));
    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
    assert!(litestreams(&site).is_empty());
    Ok(())
}

#[test]
fn a_reload_applies_what_works_and_only_that() -> Result {
    let (lab, mut site) = site("thing-reload", Duration::from_secs(60))?;
    fill(&site)?;
    site.set("heartbeat", "interval", "\"1h\"");
    let mut daemon = site.start()?;
    let before = wait_until_replicating(&mut daemon)?;

    fs::write(site.config(), "[heartbeat]\nintervall = \"1s\"\n")?;
    daemon.signal(Signal::SIGHUP);
    wait_until("the refusal", || {
        daemon
            .log()
            .contains("the configuration could not be reloaded, and the old one stays")
    })?;
    let status = daemon.status().ok_or("edgerepl does not answer")?;
    assert_eq!(status["pid"], before["pid"]);
    assert_eq!(status["state"], "healthy");

    site.set("heartbeat", "interval", "\"100ms\"");
    site.write_config()?;
    daemon.signal(Signal::SIGHUP);
    let rows = number(&before, "heartbeat", "rows");
    daemon.wait_for("quicker rows", LIMIT, |status| {
        number(status, "heartbeat", "rows") > rows + 20
    })?;
    wait_until_replicating(&mut daemon)?;
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)
}
