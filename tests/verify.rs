//! `edgerepl verify`: what it says of replicas that are whole, behind and damaged.

mod common;

use std::error::Error;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{LIMIT, Outcome, damage_restores, lab, replicates, site};
use edgerepl_lab::{KeyKind, Lab, Site, tools};
use rusqlite::Connection;
use serde_json::Value;

#[test]
fn every_table_is_equal_while_an_application_writes() -> Outcome {
    let (lab, site) = device("verify-busy")?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| -> Outcome {
        let application = scope.spawn(|| write_until(&site, &done));
        let end = End(&done);
        let mut daemon = site.start()?;
        daemon.wait_for("replication", LIMIT, replicates)?;
        let mut rows = Vec::new();
        for _ in 0..3 {
            let report = report(&site.run(&["verify", "--json"])?)?;
            assert_eq!(report["holds"], true, "{report:#}");
            assert!(report["transaction"].as_u64() > Some(0), "{report:#}");
            for name in ["HealthCheck", "odd \"name", "row"] {
                let table = table(&report, name)?;
                assert_eq!(table["equal"], true, "{report:#}");
                assert!(table["rows"].as_u64() > Some(0), "{report:#}");
            }
            rows.push(table(&report, "row")?["rows"].as_u64());
        }
        assert!(rows.is_sorted_by(|a, b| a < b), "nobody wrote: {rows:?}");
        let shown = site.run(&["verify"])?;
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.status.success(), "{text}");
        assert!(
            text.starts_with("the replica holds all that it should"),
            "{text}"
        );
        drop(end);
        let application = application.join().map_err(|_| "it panicked")?;
        application.map_err(|e| e.to_string())?;
        daemon.terminate()?;
        Ok(())
    })?;
    leaves_nothing(&site)?;
    assert!(site.compare(&lab)?.is_equal());
    Ok(())
}

/// Ends the application, also where a check fails: it would be waited for.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn heartbeat_rows_are_the_proof_where_litestream_cannot_say() -> Outcome {
    let (lab, mut site) = device("verify-0-3")?;
    site.use_litestream(&lab, "0.3.13")?;
    let mut daemon = site.start()?;
    daemon.wait_for("a snapshot", LIMIT, |_| {
        let requests = lab.s3().requests();
        requests.iter().filter(|r| r.is_upload()).count() > 3
    })?;
    let report = report(&site.run(&["verify", "--json"])?)?;
    assert_eq!(report["holds"], true, "{report:#}");
    assert_eq!(report["transaction"], Value::Null);
    assert!(report["rows_behind"].is_u64(), "{report:#}");
    assert!(table(&report, "HealthCheck")?["rows"].as_u64() > Some(0));
    // A row of those that never change.
    let database = site.connect()?;
    database.execute(
        "UPDATE HealthCheck SET created_at = 'x' WHERE id = (SELECT min(id) FROM HealthCheck)",
        [],
    )?;
    daemon.terminate()?;
    database.execute(
        "UPDATE HealthCheck SET created_at = 'y' WHERE id = (SELECT min(id) FROM HealthCheck)",
        [],
    )?;
    let report = self::report(&site.run(&["verify", "--json"])?)?;
    assert_eq!(report["holds"], false, "{report:#}");
    leaves_nothing(&site)
}

#[test]
fn a_replica_that_is_gone_or_damaged_is_not_believed() -> Outcome {
    let (_lab, mut site) = device("verify-damaged")?;
    let mut daemon = site.start()?;
    daemon.wait_for("replication", LIMIT, replicates)?;
    // What comes back is cut off at its end.
    damage_restores(&mut site)?;
    let output = site.run(&["verify", "--json"])?;
    let damaged: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(output.status.code(), Some(1), "{damaged:#}");
    assert_eq!(damaged["holds"], false, "{damaged:#}");

    // Somebody has emptied the bucket.
    let config = site.root().join("litestream.yml");
    let elsewhere = site.root().join("elsewhere.yml");
    let text = fs::read_to_string(config)?.replace("THING_NAME}/app.db", "THING_NAME}/gone.db");
    fs::write(&elsewhere, text)?;
    let real = tools::litestream("0.5.17")?;
    let gone = format!("[{real:?}, \"replicate\", \"-config\", {elsewhere:?}]");
    site.set("replication", "command", gone);
    let output = site.run(&["verify"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the replica is not verified: "), "{said}");
    daemon.terminate()?;
    leaves_nothing(&site)
}

#[test]
fn a_table_that_lost_all_its_rows_is_not_believed_whatever_it_computes() -> Outcome {
    let (_lab, mut site) = device("verify-computed")?;
    let database = site.connect()?;
    database.execute_batch(
        "CREATE TABLE positions (id INTEGER PRIMARY KEY, lat REAL, cell AS (abs(lat * 10)));
         CREATE TABLE names (name TEXT);
         CREATE INDEX by_name ON names (name COLLATE NOCASE);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO positions (lat) SELECT i / 7.0 FROM n;
         INSERT INTO names VALUES ('Ärger'), ('zwei'), ('Drei');
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'abs', 'own_cell') WHERE name = 'positions';
         UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'UNI') WHERE name = 'by_name';",
    )?;
    drop(database);
    let mut daemon = site.start()?;
    daemon.wait_for("replication", LIMIT, replicates)?;
    let sound = report(&site.run(&["verify", "--json"])?)?;
    assert_eq!(sound["holds"], true, "{sound:#}");
    assert_eq!(sound["compared"], "pages", "{sound:#}");
    assert!(sound["pages"].as_u64() > Some(0), "{sound:#}");
    assert_eq!(sound["pages_different"], 0, "{sound:#}");
    assert!(sound["unchecked"].to_string().contains("UNI"), "{sound:#}");

    // The same copy again and again, changed in one way.
    let [saved, altered] = ["restored.db", "altered.db"].map(|name| site.root().join(name));
    wrap_restores(&mut site, &saved, &altered)?;
    assert!(site.run(&["verify"])?.status.success());
    let changes = [
        ("DELETE FROM positions", "table positions: "),
        ("DROP INDEX covers", "index covers is missing"),
        ("PRAGMA user_version = 9", "user_version"),
    ];
    for (change, named) in changes {
        fs::copy(&saved, &altered)?;
        Connection::open(&altered)?.execute_batch(change)?;
        let report = report(&site.run(&["verify", "--json"])?)?;
        assert_eq!(report["holds"], false, "{change}: {report:#}");
        let told = report["differences"].to_string();
        assert!(told.contains(named), "{change}: {report:#}");
        assert_eq!(table(&report, "names")?["equal"], true, "{report:#}");
    }
    daemon.terminate()?;
    leaves_nothing(&site)
}

#[test]
fn pages_of_every_size_are_equal_after_deletions_and_vacuums() -> Outcome {
    let lab = lab(900)?;
    for (size, vacuum) in [(512, 1), (8192, 0), (65_536, 2)] {
        let device = lab.provision_pem(KeyKind::EcdsaP256, &format!("verify-{size}"))?;
        let site = site(&lab, &device)?;
        let database = site.connect()?;
        database.execute_batch(&format!(
            "PRAGMA journal_mode = delete; PRAGMA page_size = {size};
             PRAGMA auto_vacuum = {vacuum}; VACUUM; PRAGMA journal_mode = wal;
             CREATE TABLE filling (id INTEGER PRIMARY KEY, data BLOB);
             CREATE INDEX by_data ON filling (data);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
             INSERT INTO filling SELECT i, randomblob(i * 8) FROM n;"
        ))?;
        let mut daemon = site.start()?;
        daemon.wait_for("replication", LIMIT, replicates)?;
        for change in [
            "DELETE FROM filling WHERE id % 3 = 0",
            "PRAGMA incremental_vacuum(3)",
            "PRAGMA secure_delete = on; DELETE FROM filling WHERE id % 3 = 1",
            "VACUUM",
        ] {
            database.execute_batch(change)?;
            let report = report(&site.run(&["verify", "--json"])?)?;
            assert_eq!(report["holds"], true, "{size} {change}: {report:#}");
            assert_eq!(report["compared"], "pages", "{report:#}");
        }
        let page_size: i64 = database.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        assert_eq!(page_size, size);
        daemon.terminate()?;
        leaves_nothing(&site)?;
    }
    Ok(())
}

/// A device whose application has tables with what SQLite can hold.
fn device(thing_name: &str) -> Result<(Lab, Site), Box<dyn Error>> {
    let lab = lab(900)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, thing_name)?;
    let site = site(&lab, &device)?;
    let database = site.connect()?;
    database.execute_batch(
        "CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT);
         CREATE TABLE \"odd \"\"name\" (a PRIMARY KEY, b) WITHOUT ROWID;
         CREATE INDEX covers ON row (text, id);
         INSERT INTO \"odd \"\"name\" VALUES (1.5, x'00ff'), ('text', NULL), (7, '');",
    )?;
    Ok((lab, site))
}

/// Gives the site a Litestream whose restores are kept in `saved`, and are `altered` where that exists.
fn wrap_restores(site: &mut Site, saved: &Path, altered: &Path) -> Outcome {
    let real = tools::litestream("0.5.17")?;
    let script = site.root().join("altering");
    let text = format!(
        "#!/bin/sh\n{real:?} \"$@\" || exit\nfor o; do case $o in */replica-*.db) \
         [ -e {altered:?} ] || cp $o {saved:?}; [ ! -e {altered:?} ] || cp {altered:?} $o;; esac; done\n"
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    let config = site.root().join("litestream.yml");
    let command = format!("[{script:?}, \"replicate\", \"-config\", {config:?}]");
    site.set("replication", "command", command);
    Ok(())
}

fn write_until(site: &Site, done: &AtomicBool) -> Result<(), rusqlite::Error> {
    let database = site.connect().map_err(|_| rusqlite::Error::InvalidQuery)?;
    while !done.load(Ordering::Relaxed) {
        database.execute("INSERT INTO row (text) VALUES (hex(randomblob(20)))", [])?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn report(output: &Output) -> Result<Value, Box<dyn Error>> {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).map_err(|e| format!("{e}: {said}").into())
}

fn table(report: &Value, name: &str) -> Result<Value, String> {
    let tables = report["tables"].as_array().into_iter().flatten();
    let mut named = tables.filter(|table| table["name"] == name);
    named
        .next()
        .cloned()
        .ok_or(format!("no {name}: {report:#}"))
}

fn leaves_nothing(site: &Site) -> Outcome {
    for entry in fs::read_dir(site.root())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        assert!(!name.contains("verify"), "{name} was left behind");
    }
    Ok(())
}
