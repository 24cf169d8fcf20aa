//! Several databases of a device under one Litestream: each keeps every row, whatever becomes of the
//! process that they share.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::Duration;

use edgerepl_lab::{Daemon, Lab, Site};
use nix::sys::signal::Signal;
use rusqlite::Connection;
use serde_json::Value;

use crate::support::{
    Application, LIMIT, Result, SHORT, add_databases, create, fill, lengthen_wal, litestreams,
    open, reset_wal, site, wait_until, write_row,
};

/// What Litestream alone names, beside the database of edgerepl's configuration.
const OTHERS: [&str; 2] = ["second.db", "third.db"];

/// Both processes are killed, the applications write on and begin their WALs anew: Litestream alone would
/// take each of these for the one that it knows, and miss the rows of the old one for ever.
#[test]
fn no_database_loses_a_row_whose_wal_was_reset_meanwhile() -> Result {
    for rotation in ["restart", "refresh"] {
        let (_lab, mut site) = device(&format!("several-reset-{rotation}"), 900)?;
        site.set("replication", "rotation", format!("{rotation:?}"));
        let databases = open_all(&site)?;
        let mut daemon = site.start()?;
        wait_for_proofs(&mut daemon)?;
        for database in &databases {
            lengthen_wal(database)?;
        }
        wait_for_proofs(&mut daemon)?;
        daemon.kill()?;
        wait_until("Litestream's end", || litestreams(&site).is_empty())?;
        for database in &databases {
            (0..20).try_for_each(|_| write_row(database))?;
            reset_wal(database)?;
        }
        let mut daemon = site.start()?;
        wait_for_proofs(&mut daemon)?;
        verify(&site)?;
        assert!(daemon.terminate()?.success());
    }
    Ok(())
}

/// One restart for all of them, under applications that write to each.
#[test]
fn rotations_lose_no_row_of_any_database() -> Result {
    for rotation in ["restart", "refresh"] {
        let (_lab, mut site) = device(&format!("several-rotate-{rotation}"), SHORT.as_secs())?;
        site.set("replication", "rotation", format!("{rotation:?}"));
        let databases = open_all(&site)?;
        let mut daemon = site.start()?;
        wait_for_proofs(&mut daemon)?;
        let rotations = |status: &Value| status["replication"]["rotations"].as_u64();
        loop {
            for database in &databases {
                write_row(database)?;
            }
            thread::sleep(Duration::from_millis(20));
            let status = daemon.status().ok_or("it does not answer")?;
            if rotations(&status) >= Some(4) {
                // One for each rotation, the last of which may be under way.
                let starts = status["replication"]["starts"]
                    .as_u64()
                    .ok_or("no starts")?;
                let wanted = if rotation == "restart" { 4..=5 } else { 1..=1 };
                assert!(wanted.contains(&starts), "{rotation}: {status:#}");
                break;
            }
        }
        wait_for_proofs(&mut daemon)?;
        verify(&site)?;
        assert!(daemon.terminate()?.success());
    }
    Ok(())
}

/// Nothing is restarted for it, and the others are proved meanwhile.
#[test]
fn a_database_that_is_not_made_yet_costs_the_others_nothing_and_is_watched_once_it_is_there()
-> Result {
    let (_lab, site) = device("several-absent", 900)?;
    let awaited = site.root().join(OTHERS[1]);
    remove(&awaited)?;
    let _rows = Application::writing(&site, Duration::from_millis(100))?;
    let mut daemon = site.start()?;
    let of_awaited = |status: &Value| status["databases"][2].clone();
    daemon.wait_for("what is absent", LIMIT, |status| {
        of_awaited(status)["state"] == "absent"
            && status["databases"][0]["state"] == "healthy"
            && status["databases"][1]["proof"].is_object()
    })?;
    assert!(!awaited.exists(), "it was made");
    let status = daemon.status().ok_or("it does not answer")?;
    assert_ne!(status["state"], "healthy", "{status:#}");
    assert_eq!(status["replication"]["starts"], 1, "{status:#}");

    create(&awaited)?;
    wait_for_proofs(&mut daemon)?;
    let status = daemon.status().ok_or("it does not answer")?;
    assert_eq!(status["replication"]["starts"], 1, "{status:#}");
    verify(&site)?;
    assert!(daemon.terminate()?.success());
    Ok(())
}

/// The path leads through a link to the file that is watched: nothing is to be restarted for that.
#[test]
fn a_reload_that_spells_a_path_otherwise_goes_on_with_the_same_database() -> Result {
    let (_lab, mut site) = device("several-spelling", 900)?;
    // Each reload brings a renewal forward.
    site.set("replication", "rotation", "\"refresh\"");
    let _databases = open_all(&site)?;
    let mut daemon = site.start()?;
    wait_for_proofs(&mut daemon)?;
    symlink(site.root(), site.root().join("alias"))?;
    let other = site.root().join("alias/app.db");
    site.set("database", "path", format!("{other:?}"));
    site.write_config()?;
    let rows = |status: &Value| status["heartbeat"]["rows"].as_u64();
    let before = daemon.status().as_ref().and_then(rows);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("rows after the reload", LIMIT, |status| {
        rows(status) > before.map(|rows| rows + 3)
    })?;
    assert!(daemon.log().contains("the configuration was reloaded"));
    wait_for_proofs(&mut daemon)?;
    let status = daemon.status().ok_or("it does not answer")?;
    assert_eq!(status["replication"]["starts"], 1, "{status:#}");
    let watched = status["databases"].as_array().map(Vec::len);
    assert_eq!(watched, Some(1 + OTHERS.len()), "{status:#}");
    verify(&site)?;
    assert!(daemon.terminate()?.success());
    Ok(())
}

/// Litestream replicates what comes into a folder, and edgerepl watches it as it comes.
#[test]
fn databases_that_come_and_go_in_a_folder_are_watched_while_they_are_there() -> Result {
    let (_lab, site) = device("several-folder", 900)?;
    let folder = site.root().join("folder");
    fs::create_dir(&folder)?;
    let file = site.root().join("litestream.yml");
    let entry = format!(
        "dbs:\n  - dir: {folder:?}\n    pattern: '*.db'\n    watch: true\n    replica: {{ type: file, \
         path: {:?} }}\n",
        site.root().join("replicas")
    );
    let text = fs::read_to_string(&file)?.replacen("dbs:\n", &entry, 1);
    fs::write(&file, text)?;
    let _databases = open_all(&site)?;
    let mut daemon = site.start()?;
    wait_for_proofs(&mut daemon)?;
    let names: Vec<_> = (0..10).map(|n| folder.join(format!("{n}.db"))).collect();
    for name in &names {
        create(name)?;
    }
    let watched = |status: &Value| {
        let all = status["databases"].as_array().into_iter().flatten();
        let inside = all.filter(|d| d["path"].as_str().is_some_and(|p| p.contains("/folder/")));
        inside.filter(|d| d["proof"].is_object()).count()
    };
    daemon.wait_for("all ten", LIMIT, |status| watched(status) == 10)?;
    names.iter().try_for_each(|name| remove(name))?;
    daemon.wait_for("none of them", LIMIT, |status| watched(status) == 0)?;
    daemon.wait_for("health", LIMIT, |status| status["state"] == "healthy")?;
    assert!(daemon.terminate()?.success());
    Ok(())
}

/// A site whose Litestream replicates [`OTHERS`], too.
fn device(thing_name: &str, seconds: u64) -> Result<(Lab, Site)> {
    let (lab, site) = site(thing_name, Duration::from_secs(seconds))?;
    fill(&site)?;
    add_databases(&site, &OTHERS)?;
    Ok((lab, site))
}

/// A database is gone, with what SQLite has beside it.
fn remove(database: &Path) -> Result {
    fs::remove_file(database)?;
    for end in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{end}", database.display()));
    }
    Ok(())
}

/// A connection of the application to each.
fn open_all(site: &Site) -> Result<Vec<Connection>> {
    let mut all = vec![site.connect()?];
    for name in OTHERS {
        all.push(open(&site.root().join(name))?);
    }
    Ok(all)
}

/// All of it is proved to be on the replicas.
fn wait_for_proofs(daemon: &mut Daemon) -> Result {
    let began = std::time::Instant::now();
    daemon.wait_for("proofs", LIMIT, |status| {
        let all = status["databases"].as_array();
        let is_proved = |database: &Value| {
            let age = database["oldest_unproved_s"].as_f64().unwrap_or_default();
            // What was committed before this was asked for is proved.
            database["proof"].is_object() && age < began.elapsed().as_secs_f64()
        };
        status["state"] == "healthy"
            && all.is_some_and(|all| all.len() > OTHERS.len() && all.iter().all(is_proved))
    })?;
    Ok(())
}

fn verify(site: &Site) -> Result {
    let verified = site.run(&["verify"])?;
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert_eq!(verified.status.code(), Some(0), "{said}");
    for name in OTHERS {
        assert!(said.contains(name), "{said}");
    }
    Ok(())
}
