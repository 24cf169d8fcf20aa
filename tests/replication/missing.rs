//! A database that isn't there at the start: it is made only where no replica of it can be restored, and
//! a Litestream that restores what is missing is let do so.

use std::{fs, time::Duration};

use edgerepl_lab::{Lab, S3Fault, Site};
use rusqlite::Connection;

use crate::support::{LIMIT, Result, has_problem, site, wait_until, wait_until_replicating};

const LIFETIME: Duration = Duration::from_secs(900);

/// Replicates a thousand rows, and then loses the database and all that was beside it.
fn lose_a_thousand_rows(lab: &Lab, site: &Site) -> Result {
    replicate_a_thousand_rows(site)?;
    assert!(site.compare(lab)?.is_equal());
    lose(site)
}

fn replicate_a_thousand_rows(site: &Site) -> Result {
    let database = site.connect()?;
    database.execute_batch(
        "CREATE TABLE measurement (id INTEGER PRIMARY KEY, value TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO measurement SELECT i, hex(randomblob(20)) FROM n;",
    )?;
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    assert!(daemon.terminate()?.success());
    Ok(())
}

fn lose(site: &Site) -> Result {
    for name in ["app.db", "app.db-wal", "app.db-shm"] {
        let _ = fs::remove_file(site.root().join(name));
    }
    let _ = fs::remove_dir_all(site.root().join(".app.db-litestream"));
    assert!(!site.database().exists());
    Ok(())
}

fn measurements(site: &Site) -> Option<i64> {
    let open =
        Connection::open_with_flags(site.database(), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY);
    let count = "SELECT count(*) FROM measurement";
    open.ok()?.query_row(count, [], |row| row.get(0)).ok()
}

/// By its flag, and by its key.
#[test]
fn a_litestream_that_restores_what_is_missing_is_let_do_so() -> Result {
    for by_flag in [true, false] {
        let (lab, mut site) = site(&format!("thing-restores-{by_flag}"), LIFETIME)?;
        lose_a_thousand_rows(&lab, &site)?;
        let config = site.root().join("litestream.yml");
        if by_flag {
            let litestream = edgerepl_lab::tools::litestream("0.5.17")?;
            let command = format!(
                "[{litestream:?}, \"replicate\", \"-restore-if-db-not-exists\", \"-config\", {config:?}]"
            );
            site.set("replication", "command", command);
        } else {
            let text = fs::read_to_string(&config)?.replace(
                "    replica:",
                "    restore-if-db-not-exists: true\n    replica:",
            );
            fs::write(&config, text)?;
        }
        let mut daemon = site.start()?;
        wait_until("the rows", || measurements(&site) == Some(1000))?;
        daemon.wait_for("health", LIMIT, |status| status["state"] == "healthy")?;
        assert!(daemon.terminate()?.success());
        assert_eq!(measurements(&site), Some(1000));
        assert!(site.compare(&lab)?.is_equal());
    }
    Ok(())
}

/// As a power cut leaves a file that was just made.
#[test]
fn an_empty_file_is_no_database_where_a_replica_can_be_restored() -> Result {
    let (lab, site) = site("thing-emptied", LIFETIME)?;
    lose_a_thousand_rows(&lab, &site)?;
    fs::write(site.database(), "")?;
    let mut daemon = site.start()?;
    let told = daemon.wait_for("problem", LIMIT, |status| {
        has_problem(status, "S3 holds a replica of it")
            && has_problem(status, "which Litestream would take for the database")
    })?;
    assert_eq!(told["replication"]["starts"], 0, "{told}");
    assert_eq!(fs::metadata(site.database())?.len(), 0, "it was filled");
    assert!(site.run(&["restore"])?.status.success());
    assert_eq!(measurements(&site), Some(1000));
    daemon.wait_for("health", LIMIT * 4, |status| status["state"] == "healthy")?;
    assert!(daemon.terminate()?.success());
    assert_eq!(measurements(&site), Some(1000));
    assert!(site.compare(&lab)?.is_equal());
    Ok(())
}

#[test]
fn an_empty_file_without_a_replica_is_a_database_that_begins() -> Result {
    let (lab, site) = site("thing-begins", LIFETIME)?;
    fs::write(site.database(), "")?;
    let mut daemon = site.start()?;
    daemon.wait_for("health", LIMIT, |status| status["state"] == "healthy")?;
    assert!(daemon.terminate()?.success());
    assert!(site.compare(&lab)?.is_equal());
    Ok(())
}

#[test]
fn where_there_is_a_replica_no_new_database_takes_its_place() -> Result {
    for version in ["0.5.17", "0.3.13"] {
        let (lab, mut site) = site(&format!("thing-kept-{version}").replace('.', "-"), LIFETIME)?;
        site.use_litestream(&lab, version)?;
        if version == "0.3.13" {
            let database = site.connect()?;
            database.execute_batch("CREATE TABLE measurement (id INTEGER PRIMARY KEY)")?;
            let mut daemon = site.start()?;
            // Without a control socket only S3 shows what arrived.
            daemon.wait_for("Litestream", LIMIT, |s| s["replication"]["starts"] == 1)?;
            wait_until("a snapshot", || {
                !lab.s3()
                    .uploads(std::time::Instant::now() - LIMIT)
                    .is_empty()
            })?;
            assert!(daemon.terminate()?.success());
            drop(database);
            lose(&site)?;
        } else {
            lose_a_thousand_rows(&lab, &site)?;
        }
        let mut daemon = site.start()?;
        daemon.wait_for("problem", LIMIT, |status| {
            has_problem(status, "S3 holds a replica of it")
        })?;
        assert!(!site.database().exists(), "{version}: it was made");
        if version == "0.5.17" {
            // The operator's next step, while the daemon runs.
            assert!(site.run(&["restore"])?.status.success());
            wait_until("the rows", || measurements(&site) == Some(1000))?;
            daemon.wait_for("health", LIMIT * 4, |status| status["state"] == "healthy")?;
        }
        assert!(daemon.terminate()?.success());
    }
    Ok(())
}

/// Litestream's own restore knows no database of a folder.
#[test]
fn no_new_database_takes_the_place_of_a_lost_one_of_a_folder() -> Result {
    let (_lab, site) = site("thing-folder", LIFETIME)?;
    let config = site.root().join("litestream.yml");
    let text = fs::read_to_string(&config)?;
    let path = format!("- path: {}", site.database().display());
    assert!(text.contains(&path), "{text}");
    let folder = format!("- dir: {}\n    pattern: app.db", site.root().display());
    fs::write(&config, text.replace(&path, &folder))?;
    replicate_a_thousand_rows(&site)?;
    lose(&site)?;
    let mut daemon = site.start()?;
    daemon.wait_for("problem", LIMIT, |status| {
        has_problem(status, "S3 holds a replica of it")
    })?;
    assert!(!site.database().exists(), "it was made");
    let restored = site.run(&["restore"])?;
    let why = String::from_utf8_lossy(&restored.stderr).into_owned();
    assert!(restored.status.success(), "{why}");
    wait_until("the rows", || measurements(&site) == Some(1000))?;
    daemon.wait_for("health", LIMIT * 4, |status| status["state"] == "healthy")?;
    assert!(daemon.terminate()?.success());
    Ok(())
}

#[test]
fn where_s3_can_not_be_asked_nothing_is_made_and_where_it_holds_nothing_it_is() -> Result {
    let (lab, site) = site("thing-begins", LIFETIME)?;
    lab.s3().set_fault(S3Fault::Refuse)?;
    let mut daemon = site.start()?;
    daemon.wait_for("problem", LIMIT * 2, |status| {
        has_problem(status, "whether S3 has its replica")
    })?;
    assert!(!site.database().exists());
    lab.s3().set_fault(S3Fault::None)?;
    daemon.wait_for("health", LIMIT * 4, |status| status["state"] == "healthy")?;
    assert!(site.database().exists());
    assert!(daemon.terminate()?.success());
    Ok(())
}
