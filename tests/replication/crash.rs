//! edgerepl killed at any moment of a rotation: Litestream ends with it, never are there two of them
//! on the database, and nothing is lost.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use edgerepl_lab::{S3Fault, Site};

use crate::support::{
    Application, LIMIT, Result, SHORT, assert_begun_anew, assert_nothing_lost, fill, lengthen_wal,
    litestreams, number, reset_wal, site, wait_until, wait_until_replicating, write_row,
};

/// The line with which a rotation begins.
const GRANTED: &str = "credentials are valid for";

#[test]
fn killed_early_in_a_rotation() -> Result {
    kill_after("thing-crash-early", [0, 10, 20, 30, 45])
}

#[test]
fn killed_late_in_a_rotation() -> Result {
    kill_after("thing-crash-late", [60, 80, 110, 150, 200])
}

/// Kills edgerepl so many milliseconds after a rotation has begun, one after the other.
fn kill_after(thing_name: &str, moments: [u64; 5]) -> Result {
    let (lab, site) = site(thing_name, SHORT)?;
    fill(&site)?;
    let application = Application::writing(&site, Duration::from_millis(20))?;
    let site = Arc::new(site);
    let census = Census::begin(&site);
    for (turn, moment) in moments.into_iter().enumerate() {
        let mut daemon = site.start()?;
        wait_until_replicating(&mut daemon)?;
        let before = daemon.log().matches(GRANTED).count();
        wait_until("a rotation", || {
            daemon.log().matches(GRANTED).count() > before
        })?;
        thread::sleep(Duration::from_millis(moment));
        daemon.kill()?;
        // Every other time the next edgerepl is there before the last Litestream has gone.
        if turn % 2 == 0 {
            wait_until("Litestream's end", || litestreams(&site).is_empty())?;
        }
    }
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    application.stop()?;
    assert!(daemon.terminate()?.success());
    assert_eq!(census.end()?, 1, "there were several Litestreams at once");

    let integrity: String = site
        .connect()?
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    assert_eq!(integrity, "ok");
    // It may have cost a full upload: nobody held the WAL between two daemons.
    assert_nothing_lost(&lab, &site)
}

/// With a last sync that S3 holds up, the old Litestream outlives edgerepl by far.
#[test]
fn the_next_litestream_waits_for_the_last() -> Result {
    let (lab, site) = site("thing-crash-slow", Duration::from_secs(120))?;
    fill(&site)?;
    let site = Arc::new(site);
    let census = Census::begin(&site);
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    let last = litestreams(&site);
    lab.s3().set_fault(S3Fault::Hang)?;
    write_row(&site.connect()?)?;
    daemon.kill()?;

    let mut daemon = site.start()?;
    daemon.wait_for("start", LIMIT, |status| {
        number(status, "replication", "starts") == 1
    })?;
    // Time enough for a second one to come up, where nothing held it.
    thread::sleep(Duration::from_secs(1));
    assert_eq!(litestreams(&site), last);
    lab.s3().set_fault(S3Fault::None)?;
    daemon.wait_for("proof", LIMIT, |status| {
        status["replication"]["proof"].is_object()
    })?;
    assert_ne!(litestreams(&site), last);
    assert!(daemon.terminate()?.success());
    assert_eq!(census.end()?, 1, "there were several Litestreams at once");
    assert_nothing_lost(&lab, &site)
}

/// While both are dead an application writes, resets the WAL, and then writes so little that what
/// Litestream read last is still in its place: Litestream takes it that it has read all before.
#[test]
fn a_wal_that_was_reset_meanwhile_costs_a_full_upload_and_no_row() -> Result {
    reset_meanwhile("thing-crash-reset", |_| String::new())
}

#[test]
fn litestreams_memory_is_looked_for_where_it_was_told_to_have_it() -> Result {
    reset_meanwhile("thing-crash-meta", |site| {
        format!("    meta-path: {}\n", site.root().join("meta").display())
    })
}

/// `more` is what Litestream's configuration says of the database beside the replica.
fn reset_meanwhile(thing_name: &str, more: impl Fn(&Site) -> String) -> Result {
    let (lab, site) = site(thing_name, Duration::from_secs(120))?;
    let file = site.root().join("litestream.yml");
    let text = fs::read_to_string(&file)?;
    fs::write(
        &file,
        text.replace("    replica:", &(more(&site) + "    replica:")),
    )?;
    fill(&site)?;
    let database = site.connect()?;
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    lengthen_wal(&database)?;
    daemon.kill()?;
    wait_until("Litestream's end", || litestreams(&site).is_empty())?;
    for _ in 0..20 {
        write_row(&database)?;
    }
    reset_wal(&database)?;

    let daemon = site.start()?;
    assert_begun_anew(&lab, &site, daemon, &database)
}

#[test]
fn one_runtime_directory_has_one_daemon() -> Result {
    let (_lab, site) = site("thing-leash", Duration::from_secs(60))?;
    fill(&site)?;
    let mut daemon = site.start()?;
    let before = wait_until_replicating(&mut daemon)?;
    let second = site.run(&["run"])?;
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr)?;
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("another edgerepl runs with the runtime directory"),
        "{said}"
    );
    let after = daemon.status().ok_or("the first one was disturbed")?;
    assert_eq!(after["replication"]["pid"], before["replication"]["pid"]);
    assert_eq!(litestreams(&site).len(), 1);
    Ok(())
}

/// Counts Litestreams all the time.
struct Census {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

impl Census {
    fn begin(site: &Arc<Site>) -> Self {
        let (stop, most) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (stopped, seen, site) = (stop.clone(), most.clone(), site.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                seen.fetch_max(litestreams(&site).len(), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(10));
            }
        });
        Self { stop, most, thread }
    }

    /// The most that there were at one time.
    fn end(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the census panicked")?;
        Ok(self.most.load(Ordering::Relaxed))
    }
}
