//! The database and its disk: locked, full, missing, late. Rows wait for it; rotations don't.

use std::{
    fs, thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use edgerepl_lab::{Daemon, KeyKind, Lab, LabOptions, Site, SmallDisk, tools};

use crate::support::{
    Application, LIMIT, Result, SHORT, assert_nothing_lost, assert_one_full_upload, fill,
    has_problem, number, site, wait_until_replicating,
};

#[test]
fn a_lock_of_a_minute_delays_rows_and_no_rotation() -> Result {
    let (lab, site) = site("thing-locked", SHORT)?;
    fill(&site)?;
    let mut daemon = site.start()?;
    let before = wait_until_replicating(&mut daemon)?;
    let writer = site.connect()?;
    writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO row (text) VALUES ('slow')")?;
    let end = Instant::now() + Duration::from_secs(60);
    daemon.wait_for("problem", LIMIT, |status| {
        has_problem(status, "no heartbeat row can be written")
            && has_problem(status, "is locked by another writer")
    })?;
    thread::sleep(end.saturating_duration_since(Instant::now()));
    let during = daemon.status().ok_or("edgerepl does not answer")?;
    writer.execute_batch("COMMIT")?;
    let passed = |section, key| number(&during, section, key) - number(&before, section, key);
    assert!(passed("heartbeat", "rows") <= 1, "{during:#}");
    assert!(passed("replication", "rotations") >= 6, "{during:#}");
    // One for each, but for one that may be under way.
    let missing = passed("replication", "rotations") - passed("replication", "starts");
    assert!(missing <= 1, "{during:#}");

    let rows = number(&during, "heartbeat", "rows");
    assert_rows_go_on(daemon, rows, &lab, &site)?;
    assert_one_full_upload(&lab);
    Ok(())
}

#[test]
fn a_full_disk_delays_rows_and_no_rotation() -> Result {
    let lab = Lab::start(LabOptions {
        lifetime: SHORT,
        ..LabOptions::default()
    })?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing-full")?;
    let Some(disk) = SmallDisk::mount(&lab.root().join("sites/thing-full"), 8)? else {
        eprintln!("not tested: only root can mount a small disk");
        return Ok(());
    };
    let site = Site::new(&lab, device, tools::edgerepl()?)?;
    let mut daemon = site.start()?;
    let before = wait_until_replicating(&mut daemon)?;
    disk.fill()?;
    let during = daemon.wait_for("problem", LIMIT, |status| {
        has_problem(status, "is on a full disk; free some space")
            && number(status, "replication", "starts")
                >= number(&before, "replication", "starts") + 2
    })?;
    disk.free()?;
    let rows = number(&during, "heartbeat", "rows");
    assert_rows_go_on(daemon, rows, &lab, &site)
}

#[test]
fn ids_begin_at_the_start_and_rise_by_one() -> Result {
    let (lab, mut site) = site("thing-ids", SHORT)?;
    site.set("heartbeat", "table", "\"Pulse\"");
    site.set("heartbeat", "interval", "\"1s\"");
    assert!(!site.database().exists());
    let mut last = 0;
    for run in 0..2 {
        let begin = unix_time();
        let mut daemon = site.start()?;
        daemon.wait_for_rotations(1, LIMIT)?;
        assert!(daemon.terminate()?.success());
        let ids = ids_after(&site, last)?;
        assert!(ids.len() > 5, "run {run}: {ids:?}");
        assert!(
            ids.windows(2).all(|pair| pair[0] + 1 == pair[1]),
            "run {run}: {ids:?}"
        );
        // The second run may find the ids ahead of the clock.
        let first = begin.max(last + 1);
        assert!(
            (first..first + 10).contains(&ids[0]),
            "run {run} at {begin}: {ids:?}"
        );
        last = ids[ids.len() - 1];
    }
    assert_nothing_lost(&lab, &site)
}

#[test]
fn without_a_heartbeat_it_still_rotates() -> Result {
    let (lab, mut site) = site("thing-silent", SHORT)?;
    fill(&site)?;
    site.set("heartbeat", "interval", "\"off\"");
    let application = Application::writing(&site, Duration::from_millis(50))?;
    let mut daemon = site.start()?;
    daemon.wait_for_rotations(2, LIMIT)?;
    application.stop()?;
    assert!(daemon.terminate()?.success());
    let tables: i64 = site.connect()?.query_row(
        "SELECT count(*) FROM sqlite_master WHERE name = 'HealthCheck'",
        [],
        |row| row.get(0),
    )?;
    assert_eq!(tables, 0);
    assert_nothing_lost(&lab, &site)?;
    assert_one_full_upload(&lab);
    Ok(())
}

/// The application's rows stay, replication goes on, and who looks is told.
#[test]
fn a_table_of_the_applications_is_left_alone_and_named() -> Result {
    let (lab, mut site) = site("thing-taken", SHORT)?;
    fill(&site)?;
    site.set("heartbeat", "keep", "\"1s\"");
    let rows = || -> Result<i64> {
        let sql = "SELECT count(*) FROM healthcheck";
        Ok(site.connect()?.query_row(sql, [], |row| row.get(0))?)
    };
    site.connect()?.execute_batch(
        "CREATE TABLE healthcheck (id INTEGER PRIMARY KEY, created_at, result);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 49)
         INSERT INTO healthcheck SELECT i, '2001-01-01 00:00:00', 'good' FROM n;",
    )?;
    let application = Application::writing(&site, Duration::from_millis(50))?;
    let mut daemon = site.start()?;
    daemon.wait_for("problem", LIMIT, |status| {
        has_problem(status, "HealthCheck is a table that edgerepl did not make")
            && has_problem(status, "set [heartbeat] table = \"edgerepl_heartbeat\"")
            && status["state"] == "unhealthy"
            && number(status, "replication", "rotations") >= 2
    })?;
    wait_until_replicating(&mut daemon)?;
    application.stop()?;
    assert!(daemon.terminate()?.success());
    assert_eq!(rows()?, 49);
    assert_nothing_lost(&lab, &site)
}

/// The data partition is mounted when edgerepl runs already.
#[test]
fn a_folder_that_comes_late_is_named_and_then_used() -> Result {
    let (lab, mut site) = site("thing-late", SHORT)?;
    let (data, away) = (site.root().join("data"), site.root().join("data-away"));
    let database = data.join("app.db");
    fs::create_dir(&data)?;
    let config = lab.litestream_config(&database, &site.runtime_file("litestream.sock"))?;
    // Litestream's configuration is the image's, and always there.
    fs::copy(config, site.root().join("litestream.yml"))?;
    fs::rename(&data, &away)?;
    site.set("database", "path", format!("{database:?}"));

    let mut daemon = site.start()?;
    daemon.wait_for("problem", LIMIT, |status| {
        has_problem(status, "app.db can't be opened; check its folder")
    })?;
    fs::rename(&away, &data)?;
    daemon.wait_for("health", LIMIT, |status| {
        status["state"] == "healthy" && number(status, "heartbeat", "rows") > 5
    })?;
    wait_until_replicating(&mut daemon)?;
    assert!(daemon.terminate()?.success());
    // To where the comparison looks for it.
    for name in ["app.db", "app.db-wal", "app.db-shm"] {
        fs::rename(data.join(name), site.root().join(name))?;
    }
    assert_nothing_lost(&lab, &site)
}

/// More rows than those are written, and all are in the replica.
fn assert_rows_go_on(mut daemon: Daemon, rows: u64, lab: &Lab, site: &Site) -> Result {
    daemon.wait_for("rows", LIMIT, |status| {
        number(status, "heartbeat", "rows") > rows + 3 && status["state"] == "healthy"
    })?;
    wait_until_replicating(&mut daemon)?;
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(lab, site)
}

fn unix_time() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs() as i64)
}

fn ids_after(site: &Site, last: i64) -> Result<Vec<i64>> {
    let database = site.connect()?;
    let mut query = database.prepare("SELECT id FROM Pulse WHERE id > ?1 ORDER BY id")?;
    let ids = query.query_map([last], |row| row.get(0))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}
