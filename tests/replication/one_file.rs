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
    FILLING, LIMIT, Result, SHORT, all_at_once, assert_nothing_lost, configure_databases, create,
    fill, litestreams, number, open, site, wait_until, wait_until_replicating, write_row,
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

#[test]
fn what_is_uploaded_is_counted() -> Result {
    let (lab, mut site) = site("one-file-counted", SHORT)?;
    site.use_one_file(&lab)?;
    site.set("replication", "rotation", "\"restart\"");
    site.set("heartbeat", "interval", "\"1h\"");
    configure_databases(&site, &[("app.db", true), ("other.db", false)])?;
    fill(&site)?;
    create(&site.root().join("other.db"))?;
    let mut daemon = site.start()?;
    let status = wait_until_replicating(&mut daemon)?;
    assert!(held(&status, "worst_s").is_some(), "{status:#}");
    let applications = [site.connect()?, open(&site.root().join("other.db"))?];
    let names = ["app.db", "other.db"];
    let mut before = [(0, 0); 2];
    let is_over = |status: &Value| number(status, "replication", "starts") >= 3;
    while daemon.status().is_none_or(|status| !is_over(&status)) {
        applications.iter().try_for_each(write_row)?;
        thread::sleep(Duration::from_millis(50));
        if let Some(now) = daemon.status().and_then(|status| shown(&status)) {
            for (before, now) in before.iter().zip(now) {
                assert!(
                    before.0 <= now.0 && before.1 <= now.1,
                    "{before:?}, {now:?}"
                );
            }
            before = now;
        }
    }
    // Each object once: Litestream knows of no request that failed.
    let counted = || names.map(|name| objects(&lab, &format!("one-file-counted/{name}/")));
    let output = site.run(&["sync"])?;
    assert!(output.status.success(), "{output:?}");
    daemon.wait_for("the count of S3", LIMIT, |status| {
        shown(status) == Some(counted())
    })?;
    let [app, _] = counted();
    assert!(app.0 > 5 && app.1 > FILLING, "{app:?}");
    let status = daemon.status().ok_or("edgerepl does not answer")?;
    let (median, worst) = (held(&status, "median_s"), held(&status, "worst_s"));
    assert!(median > Some(0.0) && median <= worst, "{status:#}");

    // An outage that is under way is the worst of all.
    lab.s3().set_fault(S3Fault::ConnectionRefused)?;
    site.set("replication", "rpo", "\"3s\"");
    site.write_config()?;
    daemon.signal(Signal::SIGHUP);
    let worst = worst.unwrap_or_default();
    write_row(&applications[0])?;
    daemon.wait_for("the outage", LIMIT, |status| {
        held(status, "worst_s").is_some_and(|now| now > worst + 3.0)
    })?;
    lab.s3().set_fault(S3Fault::None)?;
    assert!(daemon.terminate()?.success());
    Ok(())
}

/// What a status shows as uploaded of each database, and how large it was.
fn shown(status: &Value) -> Option<[(u64, u64); 2]> {
    let of = |number: usize| {
        let database = &status["databases"][number];
        let uploads = database["uploads"].as_u64()?;
        Some((uploads, database["uploaded_bytes"].as_u64()?))
    };
    Some([of(0)?, of(1)?])
}

/// The same as S3 counted it, below a prefix.
fn objects(lab: &Lab, prefix: &str) -> (u64, u64) {
    let requests = lab.s3().requests().into_iter();
    let own = requests.filter(|request| request.key.starts_with(prefix));
    own.filter(|request| request.status == Some(200))
        .fold((0, 0), |(uploads, bytes), request| {
            match request.operation {
                "PutObject" => (uploads + 1, bytes + request.bytes),
                "CompleteMultipartUpload" => (uploads + 1, bytes),
                "UploadPart" => (uploads, bytes + request.bytes),
                _ => (uploads, bytes),
            }
        })
}

/// A figure of the RPO that is held, in seconds.
fn held(status: &Value, figure: &str) -> Option<f64> {
    status["replication"]["rpo_held"][figure].as_f64()
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
