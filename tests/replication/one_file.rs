//! One file: edgerepl writes Litestream's configuration itself, and one number says how much may be lost.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use edgerepl_lab::{Lab, S3Fault, Site};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    LIMIT, Result, SHORT, all_at_once, assert_nothing_lost, configure_databases, create,
    litestreams, number, open, site, wait_until, wait_until_replicating, write_row,
};

#[test]
fn two_databases_are_replicated_rotated_compared_and_restored() -> Result {
    all_at_once(&["restart", "refresh"], |rotation| whole_life(rotation))
}

fn whole_life(rotation: &str) -> Result {
    let (lab, mut site) = one_file(&format!("one-file-{rotation}"), SHORT)?;
    site.set("replication", "rotation", format!("{rotation:?}"));
    configure_databases(&site, &[("app.db", true), ("other.db", false)])?;
    let other = site.root().join("other.db");
    create(&other)?;

    let output = site.run(&["check", "--online", "--json"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(lent(&site)?.is_empty(), "the check left its file behind");
    let report: Value = serde_json::from_str(&text)?;
    let mut checks = report["checks"].as_array().into_iter().flatten();
    let cost = checks.find(|check| check["name"] == "cost");
    assert_eq!(
        cost.map(|cost| &cost["outcome"]),
        Some(&"pass".into()),
        "{text}"
    );

    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    let own = site.runtime_file("litestream.yml");
    let mode = fs::metadata(&own)?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let applications = [open(&site.database())?, open(&other)?];
    let rotated = daemon
        .status()
        .map_or(0, |s| number(&s, "replication", "rotations"))
        + 2;
    while daemon
        .status()
        .is_none_or(|status| number(&status, "replication", "rotations") < rotated)
    {
        applications.iter().try_for_each(write_row)?;
        thread::sleep(Duration::from_millis(50));
    }
    let output = site.run(&["sync"])?;
    assert!(output.status.success(), "{output:?}");
    let output = site.run(&["verify", "--json"])?;
    assert!(output.status.success(), "{output:?}");
    assert!(lent(&site)?.is_empty(), "the verify left its file behind");
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)?;
    let thing = &site.device.thing_name;
    let comparison = lab.compare_with(&format!("{thing}/other.db"), &other)?;
    assert!(
        comparison.is_equal() && comparison.live > 20,
        "{comparison:?}"
    );

    // A new device gets them back, without a daemon and its file. The last connection takes the WAL away.
    drop(applications);
    fs::remove_file(own)?;
    for database in [site.database(), other.clone()] {
        fs::rename(&database, database.with_extension("lost"))?;
    }
    let output = site.run(&["restore"])?;
    assert!(output.status.success(), "{output:?}");
    for database in [site.database(), other] {
        let rows = |path: &Path| -> rusqlite::Result<i64> {
            open(path)?.query_row("SELECT count(*) FROM row", [], |row| row.get(0))
        };
        assert_eq!(rows(&database)?, rows(&database.with_extension("lost"))?);
    }
    Ok(())
}

#[test]
fn what_litestream_is_told_changes_with_a_reload() -> Result {
    let (lab, mut site) = one_file("one-file-reload", Duration::from_secs(900))?;
    // A reload fetches, too: a hand-over by a restart would hide what the file does.
    site.set("replication", "rotation", "\"refresh\"");
    let mut daemon = site.start()?;
    let status = wait_until_replicating(&mut daemon)?;
    let starts = number(&status, "replication", "starts");

    // Nothing that concerns it: it runs on.
    site.set("proof", "restorable", "\"2h\"");
    site.write_config()?;
    daemon.signal(Signal::SIGHUP);
    thread::sleep(Duration::from_secs(3));
    let status = daemon.status().ok_or("edgerepl does not answer")?;
    assert_eq!(number(&status, "replication", "starts"), starts);

    site.set("replication", "retention", "\"3d\"");
    site.write_config()?;
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("a start", LIMIT, |status| {
        number(status, "replication", "starts") == starts + 1
            && status["replication"]["activity"] == "replicating"
    })?;
    let text = fs::read_to_string(site.runtime_file("litestream.yml"))?;
    assert!(text.contains("retention: 259200s"), "{text}");
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)
}

#[test]
fn what_is_older_than_the_rpo_outlives_the_device() -> Result {
    const RPO: Duration = Duration::from_secs(9);
    let (lab, mut site) = one_file("one-file-rpo", Duration::from_secs(900))?;
    site.set("replication", "rpo", "\"9s\"");
    site.set("heartbeat", "interval", "\"1h\"");
    for round in 0..3 {
        let mut daemon = site.start()?;
        wait_until_replicating(&mut daemon)?;
        let application = site.connect()?;
        let begun = Instant::now();
        // It ends at another moment between two proofs each time.
        let span = RPO * 2 + RPO * round / 3;
        let mut written = Vec::new();
        while begun.elapsed() < span {
            write_row(&application)?;
            written.push(Instant::now());
            thread::sleep(Duration::from_millis(100));
        }
        lab.s3().set_fault(S3Fault::ConnectionRefused)?;
        let ended = Instant::now();
        daemon.kill()?;
        wait_until("Litestream's end", || litestreams(&site).is_empty())?;
        lab.s3().set_fault(S3Fault::None)?;
        let comparison = site.compare(&lab)?;
        let young = written.iter().filter(|at| ended - **at < RPO).count();
        // The heartbeat row, too.
        let missing = comparison.live - comparison.restored;
        assert_eq!(comparison.different, missing, "{comparison:?}");
        let young = i64::try_from(young)?;
        assert!(
            missing <= young + 1,
            "{round}: {missing} of {young} rows: {comparison:?}"
        );
        let sent = lab.s3().uploads(begun).len();
        assert!(
            sent < written.len() / 5,
            "{round}: {sent} uploads for {} rows",
            written.len()
        );
        assert!(sent > 0);
    }
    Ok(())
}

/// A site with one file, and a database.
fn one_file(thing_name: &str, lifetime: Duration) -> Result<(Lab, Site)> {
    let (lab, mut site) = site(thing_name, lifetime)?;
    site.use_one_file(&lab)?;
    create(&site.database())?;
    Ok((lab, site))
}

/// The files that commands have made for themselves.
fn lent(site: &Site) -> Result<Vec<String>> {
    let folder = site.runtime_file("");
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().display().to_string()));
    let names: Vec<String> = names.collect::<Result<_>>()?;
    Ok(names
        .into_iter()
        .filter(|name| name.starts_with("edgerepl-"))
        .collect())
}
