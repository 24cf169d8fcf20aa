//! A WAL that begins anew after edgerepl has looked at it, and before Litestream reads it: Litestream misses
//! what was in it, and says that its replica is complete.
//!
//! The WAL guard is an open read transaction, and holds nothing where all of the WAL is in the database file
//! already: then one more commit begins the WAL anew. Where rows are written edgerepl writes one first; to
//! these databases it writes none.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use edgerepl_lab::{Daemon, Lab, Site, tools};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rusqlite::Connection;

use crate::support::{
    LIMIT, Result, assert_begun_anew, configure_databases, fill, lengthen_wal, litestreams,
    local_state, number, script, site, snapshots, use_script, wait_until, wait_until_replicating,
    write_row,
};

#[test]
fn what_litestream_passed_over_costs_a_full_upload_and_no_row() -> Result {
    let mut device = Device::replicating("thing-late-reset")?;
    device.reset_after_the_look()?;
    device.let_litestream_start()?;
    device.assert_begun_anew()
}

/// It has uploaded what does not continue its replica, and nobody has asked it about that.
#[test]
fn a_litestream_that_died_before_it_was_asked_is_found_out() -> Result {
    let mut device = Device::replicating("thing-late-death")?;
    device.reset_after_the_look()?;
    device.have_it_pass_over_unasked()?;
    device.daemon.signal(Signal::SIGCONT);
    device.assert_begun_anew()
}

#[test]
fn an_edgerepl_that_died_before_it_asked_leaves_word() -> Result {
    let mut device = Device::replicating("thing-late-deaths")?;
    device.reset_after_the_look()?;
    device.have_it_pass_over_unasked()?;
    device.daemon.kill()?;
    device.daemon = device.site.start()?;
    device.assert_begun_anew()
}

/// A device whose Litestream waits at its start while a file is there.
struct Device {
    lab: Lab,
    site: Site,
    daemon: Daemon,
    database: Connection,
    waits: PathBuf,
    waiting: PathBuf,
}

impl Device {
    fn replicating(thing_name: &str) -> Result<Self> {
        let (lab, mut site) = site(thing_name, Duration::from_secs(120))?;
        let (waits, waiting) = (site.root().join("waits"), site.root().join("waiting"));
        let litestream = tools::litestream("0.5.17")?;
        let text = format!(
            "while [ -e {waits:?} ]; do touch {waiting:?}; sleep 0.05; done\nexec {litestream:?} \"$@\"\n"
        );
        let script = script(&site, "slow", &text)?;
        use_script(&mut site, &script);
        fill(&site)?;
        configure_databases(&site, &[("app.db", false)])?;
        let database = site.connect()?;
        let began = Instant::now();
        let mut daemon = site.start()?;
        wait_until_replicating(&mut daemon)?;
        // One that is made later would have all that was passed over.
        wait_until("a snapshot", || !snapshots(&lab, began).is_empty())?;
        lengthen_wal(&database)?;
        assert!(site.sync(), "everything is on the replica");
        Ok(Self {
            lab,
            site,
            daemon,
            database,
            waits,
            waiting,
        })
    }

    /// Litestream dies, and the application goes on; once edgerepl has looked at the WAL, it begins anew.
    fn reset_after_the_look(&mut self) -> Result {
        self.daemon.signal(Signal::SIGSTOP);
        self.kill_litestream()?;
        for _ in 0..20 {
            write_row(&self.database)?;
        }
        let sql = "PRAGMA wal_checkpoint(PASSIVE)";
        let left: i64 = (self.database).query_row(sql, [], |row| {
            Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?)
        })?;
        assert_eq!(left, 0, "all of the WAL is in the database file");
        fs::write(&self.waits, "")?;
        self.daemon.signal(Signal::SIGCONT);
        wait_until("the next start", || self.waiting.exists())?;
        write_row(&self.database)?;
        Ok(())
    }

    fn let_litestream_start(&self) -> Result {
        Ok(fs::remove_file(&self.waits)?)
    }

    /// Litestream takes the new WAL and dies, while edgerepl stands still.
    fn have_it_pass_over_unasked(&mut self) -> Result {
        let folder = local_state(&self.site.database()).join("ltx/0");
        let taken = || fs::read_dir(&folder).map_or(0, Iterator::count);
        self.daemon.wait_for("the start", LIMIT, |status| {
            number(status, "replication", "starts") == 2
        })?;
        self.daemon.signal(Signal::SIGSTOP);
        let before = taken();
        self.let_litestream_start()?;
        wait_until("what it takes", || taken() > before)?;
        // Time to upload it, which it does at once.
        thread::sleep(Duration::from_secs(2));
        self.kill_litestream()
    }

    fn kill_litestream(&self) -> Result {
        let running = litestreams(&self.site);
        assert_eq!(running.len(), 1, "{running:?}");
        kill(Pid::from_raw(running[0]), Signal::SIGKILL)?;
        let is_gone = || litestreams(&self.site).is_empty();
        wait_until("Litestream's end", is_gone)
    }

    fn assert_begun_anew(self) -> Result {
        assert_begun_anew(&self.lab, &self.site, self.daemon, &self.database)
    }
}
