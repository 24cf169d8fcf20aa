//! The WAL guard: an application that truncates the WAL at every chance while Litestream is down
//! costs no full upload; and the same without the guard, which shows that it is the guard's doing.

use std::{fs, io::Read, os::unix::net::UnixStream, path::Path, thread, time::Duration};

use edgerepl_lab::{Lab, S3Fault, Site, tools};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rusqlite::Connection;
use serde_json::Value;

use crate::support::{
    Application, FILLING, LIMIT, Result, SHORT, assert_begun_anew, assert_nothing_lost,
    assert_one_full_upload, fill, full_uploads, has_problem, lengthen_wal, litestreams, number,
    reset_wal, script, site, use_script, wait_until, wait_until_replicating, write_row,
};

/// Room for a restart that takes longer than usual.
const LIFETIME: Duration = Duration::from_secs(12);

#[test]
fn checkpoints_cost_nothing() -> Result {
    let (lab, site) = site("thing-guard", LIFETIME)?;
    rotate_with_checkpoints(&lab, site)?;
    assert_one_full_upload(&lab);
    Ok(())
}

#[test]
fn checkpoints_without_the_guard_cost_a_full_upload() -> Result {
    let (lab, mut site) = site("thing-no-guard", LIFETIME)?;
    site.set("database", "wal_guard", "\"off\"");
    rotate_with_checkpoints(&lab, site)?;
    let full = full_uploads(&lab);
    assert!(full.len() > 1, "the guard is not needed: {full:#?}");
    Ok(())
}

/// Three rotations, each with half a second in which Litestream is down, while one application writes
/// 100 rows a second and another truncates the WAL whenever Litestream may be down.
fn rotate_with_checkpoints(lab: &Lab, mut site: Site) -> Result {
    let litestream = tools::litestream("0.5.17")?;
    let slow = script(
        &site,
        "slow",
        &format!("sleep 0.5\nexec {litestream:?} \"$@\"\n"),
    )?;
    use_script(&mut site, &slow);
    fill(&site)?;
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    let writer = Application::writing(&site, Duration::from_millis(10))?;
    let status = site.runtime_file("status.sock");
    let checkpoints = Application::doing(&site, Duration::from_millis(20), move |database| {
        // At other times Litestream holds the WAL itself, but for moments of its own choice.
        if is_replicating(&status) {
            Ok(())
        } else {
            truncate_wal(database).map(drop)
        }
    })?;
    for rotation in 1..=3 {
        daemon.wait_for_rotations(rotation, LIMIT)?;
    }
    let (written, truncated) = (writer.stop()?, checkpoints.stop()?);
    assert!(written > 500, "{written} rows");
    assert!(truncated > 30, "{truncated} checkpoints");
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(lab, &site)
}

/// Litestream's own hold on the WAL is what counts between rotations. A sync that comes too early
/// costs it that hold, and the rows of every moment in which the application's checkpoint wins.
#[test]
fn between_rotations_a_busy_application_loses_nothing() -> Result {
    let (lab, site) = site("thing-busy", Duration::from_secs(300))?;
    fill(&site)?;
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    let database = site.connect()?;
    // SQLite's own checkpoints come every 1,000 pages: this is ten times as many.
    for _ in 0..2500 {
        write_row(&database)?;
        thread::sleep(Duration::from_millis(5));
    }
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)?;
    assert_one_full_upload(&lab);
    Ok(())
}

/// Litestream takes its lock anew when it opens the database and at each of its checkpoints. Here each
/// of its syncs is one that edgerepl asked for: the lock has to outlive the question.
#[test]
fn a_sync_that_was_asked_for_leaves_litestream_its_hold_on_the_wal() -> Result {
    let (lab, mut site) = site("thing-hold", SHORT)?;
    site.set("replication", "rotation", "\"refresh\"");
    let file = site.root().join("litestream.yml");
    let text = fs::read_to_string(&file)?;
    fs::write(
        &file,
        text.replace("    replica:", "    monitor-interval: 1h\n    replica:"),
    )?;
    fill(&site)?;
    let database = site.connect()?;
    database.pragma_update(None, "wal_autocheckpoint", 0)?;
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    assert!(is_held(&site)?, "after Litestream opened the database");

    // More than the 1,000 pages at which Litestream checkpoints.
    database.execute_batch("UPDATE filling SET data = randomblob(4096)")?;
    let rotations = |status: &Value| number(status, "replication", "rotations");
    let before = daemon.status().as_ref().map_or(0, rotations);
    daemon.wait_for("syncs", LIMIT, |status| {
        rotations(status) >= before + 2 && status["replication"]["activity"] == "replicating"
    })?;
    assert!(is_held(&site)?, "after Litestream's checkpoint");
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)
}

#[test]
fn it_lets_go_of_a_wal_that_grows_too_large() -> Result {
    let (lab, mut site) = site("thing-guard-limit", Duration::from_secs(60))?;
    site.set("database", "wal_guard", "\"1MiB\"");
    let works = site.root().join("works");
    let litestream = tools::litestream("0.5.17")?;
    let text = format!("[ -e {works:?} ] && exec {litestream:?} \"$@\"\nexit 1\n");
    let script = script(&site, "ends", &text)?;
    use_script(&mut site, &script);
    fill(&site)?;
    let mut daemon = site.start()?;
    daemon.wait_for("guard", LIMIT, |status| {
        status["wal_guard_held_s"].is_number() && has_problem(status, "Litestream exited")
    })?;
    let database = site.connect()?;
    database.execute_batch("UPDATE filling SET data = randomblob(4096) WHERE id % 2")?;
    let let_go = "the WAL is released, because the WAL has reached [database] wal_guard";
    wait_until("the guard's end", || daemon.log().contains(let_go))?;
    let status = daemon.status().ok_or("edgerepl does not answer")?;
    assert!(status["wal_guard_held_s"].is_null());
    // A child of edgerepl's empties it; where that comes too late, this does.
    let mut wal = site.database().into_os_string();
    wal.push("-wal");
    wait_until("an end to the hold on the WAL", || {
        let emptied = truncate_wal(&database).is_ok();
        emptied && fs::metadata(&wal).is_ok_and(|wal| wal.len() < FILLING / 4)
    })?;
    let rows = number(&status, "heartbeat", "rows");
    daemon.wait_for("rows", LIMIT, |status| {
        number(status, "heartbeat", "rows") > rows
    })?;

    fs::write(works, "")?;
    wait_until_replicating(&mut daemon)?;
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)
}

/// Litestream that starts while S3 is away can't look at the database, holds nothing, and takes what it
/// finds later for what it knew, where a reset left that in its place.
#[test]
fn what_was_let_go_of_costs_a_full_upload_and_no_row() -> Result {
    let (lab, mut site) = site("thing-let-go", Duration::from_secs(120))?;
    site.set("database", "wal_guard", "\"1MiB\"");
    fill(&site)?;
    let database = site.connect()?;
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    lengthen_wal(&database)?;
    lab.s3().set_fault(S3Fault::ConnectionRefused)?;
    for litestream in litestreams(&site) {
        kill(Pid::from_raw(litestream), Signal::SIGKILL)?;
    }
    daemon.wait_for("a start", LIMIT, |status| {
        number(status, "replication", "starts") == 2 && status["wal_guard_held_s"].is_number()
    })?;
    database.execute_batch("UPDATE filling SET data = randomblob(4096) WHERE id % 2")?;
    wait_until("the guard's end", || {
        daemon.log().contains("the WAL is released")
    })?;
    reset_wal(&database)?;
    lab.s3().set_fault(S3Fault::None)?;
    assert_begun_anew(&lab, &site, daemon, &database)
}

/// Whether anybody keeps an application from resetting the WAL, which it tries.
fn is_held(site: &Site) -> Result<bool> {
    let application = site.connect()?;
    write_row(&application)?;
    Ok(truncate_wal(&application)?)
}

fn is_replicating(status: &Path) -> bool {
    let mut text = String::new();
    UnixStream::connect(status).is_ok_and(|mut stream| stream.read_to_string(&mut text).is_ok())
        && text.contains("\"activity\":\"replicating\"")
}

/// Tries once; whether somebody was in the way.
fn truncate_wal(database: &Connection) -> rusqlite::Result<bool> {
    database.busy_timeout(Duration::ZERO)?;
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
}
