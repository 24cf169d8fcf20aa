//! Uploads that wait: a metered line, a pause, and what ends the wait.

use std::{
    fs,
    process::Output,
    thread,
    time::{Duration, Instant},
};

use edgerepl_lab::{Daemon, Lab, Site};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    LIMIT, Result, assert_nothing_lost, create, open, site, wait_until, wait_until_replicating,
    write_row,
};

const LIFETIME: Duration = Duration::from_secs(900);

/// Longer than several RPOs of [`thrifty`].
const A_WHILE: Duration = Duration::from_secs(8);

/// A site that uploads each 2 s, or each hour where uploads wait.
fn thrifty(thing_name: &str) -> Result<(Lab, Site)> {
    let (lab, mut site) = site(thing_name, LIFETIME)?;
    site.use_one_file(&lab)?;
    site.set("replication", "rotation", "\"refresh\"");
    site.set("replication", "rpo", "\"2s\"");
    create(&site.database())?;
    Ok((lab, site))
}

fn held_back(status: &Value) -> Option<&str> {
    status["replication"]["held_back"].as_str()
}

fn words(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// What S3 is sent of the database since then; what Litestream makes of that is not edgerepl's affair.
fn uploads(lab: &Lab, since: Instant) -> Vec<String> {
    let keys = lab.s3().uploads(since).into_iter().map(|upload| upload.key);
    keys.filter(|key| key.contains("/0000/")).collect()
}

/// What S3 is sent while an application and edgerepl write.
fn uploads_in(lab: &Lab, site: &Site, span: Duration) -> Result<Vec<String>> {
    let application = open(&site.database())?;
    let begun = Instant::now();
    while begun.elapsed() < span {
        write_row(&application)?;
        thread::sleep(Duration::from_millis(200));
    }
    Ok(uploads(lab, begun))
}

/// Nothing is uploaded by itself, the device is healthy, and a sync is made all the same.
fn assert_it_waits(lab: &Lab, site: &Site, daemon: &mut Daemon, why: &str) -> Result {
    let none: [&str; 0] = [];
    // What was on its way when it was told.
    assert!(site.run(&["sync"])?.status.success());
    assert_eq!(uploads_in(lab, site, A_WHILE)?, none, "{why}");
    let status = daemon.status().ok_or("edgerepl does not answer")?;
    assert_eq!(held_back(&status), Some(why), "{status:#}");
    assert_eq!(status["state"], "healthy", "{status:#}");
    assert_eq!(status["replication"]["rpo_s"], 3600, "{status:#}");
    let output = site.run(&["status"])?;
    assert!(
        words(&output).contains("wait, because"),
        "{}",
        words(&output)
    );
    let begun = Instant::now();
    assert!(site.run(&["sync"])?.status.success());
    assert!(!uploads(lab, begun).is_empty(), "a sync waits, too");
    assert_eq!(uploads_in(lab, site, A_WHILE)?, none, "{why}, after a sync");
    Ok(())
}

/// What has waited is uploaded at once, and the rest at the pace of before.
fn assert_it_goes_on(
    lab: &Lab,
    site: &Site,
    daemon: &mut Daemon,
    end: &dyn Fn() -> Result,
) -> Result {
    let begun = Instant::now();
    end()?;
    wait_until("an upload", || !uploads(lab, begun).is_empty())?;
    let status = daemon.wait_for("the end of the wait", LIMIT, |s| held_back(s).is_none())?;
    assert_eq!(status["state"], "healthy", "{status:#}");
    assert!(uploads_in(lab, site, A_WHILE)?.len() >= 2);
    Ok(())
}

#[test]
fn a_pause_holds_uploads_back_until_somebody_resumes_them() -> Result {
    let (lab, site) = thrifty("paused")?;
    for command in ["pause", "resume"] {
        let output = site.run(&[command])?;
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(
            words(&output).contains("no edgerepl runs here"),
            "{output:?}"
        );
    }
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    for _ in 0..2 {
        let output = site.run(&["pause"])?;
        assert!(output.status.success(), "{output:?}");
        assert!(
            words(&output).contains("for 3600 s at the most"),
            "{output:?}"
        );
        assert!(output.stderr.is_empty(), "{output:?}");
    }
    assert_it_waits(&lab, &site, &mut daemon, "paused")?;
    assert_it_goes_on(&lab, &site, &mut daemon, &|| {
        let output = site.run(&["resume"])?;
        assert!(output.status.success(), "{output:?}");
        assert!(words(&output).contains("do not wait"), "{output:?}");
        Ok(())
    })?;
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)
}

#[test]
fn uploads_wait_while_the_file_of_a_modem_manager_is_there() -> Result {
    let (lab, mut site) = thrifty("metered")?;
    let file = site.root().join("metered");
    site.set(
        "replication",
        "metered",
        format!("{:?}", file.display().to_string()),
    );
    let mut daemon = site.start()?;
    let status = wait_until_replicating(&mut daemon)?;
    assert_eq!(held_back(&status), None, "{status:#}");
    fs::write(&file, "")?;
    daemon.wait_for("the wait", LIMIT, |status| {
        held_back(status) == Some("metered")
    })?;
    assert_it_waits(&lab, &site, &mut daemon, "metered")?;
    // Nobody has asked for a pause.
    let output = site.run(&["resume"])?;
    assert!(words(&output).contains("the line is metered"), "{output:?}");
    assert_it_goes_on(&lab, &site, &mut daemon, &|| Ok(fs::remove_file(&file)?))?;
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)
}

#[test]
fn a_wal_that_is_full_waits_for_nothing() -> Result {
    let (lab, mut site) = thrifty("full-wal")?;
    site.set("replication", "metered", "true");
    site.set("database", "wal_guard", "\"1MiB\"");
    let mut daemon = site.start()?;
    let status = wait_until_replicating(&mut daemon)?;
    assert_eq!(held_back(&status), Some("metered"), "{status:#}");
    assert!(site.run(&["sync"])?.status.success());
    let begun = Instant::now();
    let application = open(&site.database())?;
    application.execute(
        "INSERT INTO row (text) VALUES (hex(randomblob(300000)))",
        [],
    )?;
    // It is looked at each 10 min, and at a reload.
    daemon.signal(Signal::SIGHUP);
    thread::sleep(A_WHILE);
    assert_eq!(uploads(&lab, begun).len(), 0, "it is not full yet");
    application.execute(
        "INSERT INTO row (text) VALUES (hex(randomblob(600000)))",
        [],
    )?;
    daemon.signal(Signal::SIGHUP);
    wait_until("an upload", || !uploads(&lab, begun).is_empty())?;
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)
}

#[test]
fn a_pause_says_where_litestream_uploads_by_itself() -> Result {
    let (_lab, site) = site("paused-alone", LIFETIME)?;
    create(&site.database())?;
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    let output = site.run(&["pause"])?;
    assert!(output.status.success(), "{output:?}");
    assert!(words(&output).contains("monitor-interval"), "{output:?}");
    assert!(daemon.terminate()?.success());
    Ok(())
}
