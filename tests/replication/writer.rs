//! A writer that is killed in the middle of a commit: what it wrote last is in the WAL, for Litestream
//! to read, and no part of the database; the next writer puts something else in its place.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use edgerepl_lab::{Daemon, Lab, Site};
use rusqlite::Connection;

use crate::support::{
    LIMIT, Result, SHORT, assert_nothing_lost, fill, full_uploads, local_state, number, site,
    wait_until, wait_until_replicating,
};

/// The two copies of the WAL-index's header and what is known of checkpoints: with it, a commit is
/// published.
const INDEX_HEADER: usize = 136;

/// All that Litestream needs is in the database file: it uploads a copy that misses what was in the
/// WAL, and says that all is well.
#[test]
fn killed_in_a_commit_costs_a_full_upload_and_no_row() -> Result {
    let story = Story::begin("thing-killed")?;
    story.database.execute_batch(
        "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER);
         CREATE TABLE _litestream_lock (id INTEGER);",
    )?;
    story.play(&[52])
}

/// It looks for pages that are not in the database file yet, and can't go on.
#[test]
fn killed_in_a_commit_of_a_database_that_grows_costs_no_row_either() -> Result {
    let story = Story::begin("thing-killed-grown")?;
    story.play(&[52, 53])
}

struct Story {
    lab: Lab,
    site: Site,
    database: Connection,
}

impl Story {
    fn begin(thing_name: &str) -> Result<Self> {
        let (lab, mut site) = site(thing_name, SHORT)?;
        site.set("replication", "rotation", "\"refresh\"");
        // No row of ours comes in between.
        site.set("heartbeat", "interval", "\"off\"");
        fill(&site)?;
        let database = site.connect()?;
        Ok(Self {
            lab,
            site,
            database,
        })
    }

    /// `next`: what the next writer updates, in one transaction.
    fn play(&self, next: &[u32]) -> Result {
        let emptied = "PRAGMA wal_checkpoint(TRUNCATE)";
        self.database.query_row(emptied, [], |_| Ok(()))?;
        let mut daemon = self.site.start()?;
        wait_until_replicating(&mut daemon)?;
        // Rows that are in the WAL, and in Litestream's files, and not in the database file.
        for id in 1..=50 {
            self.update(id)?;
        }
        let path = self.site.database();
        wait_until_read(&path)?;
        be_killed_in(&path, || self.update(51))?;
        wait_until_read(&path)?;
        let next: String = next.iter().map(|id| update(*id)).collect();
        self.site
            .connect()?
            .execute_batch(&format!("BEGIN; {next} COMMIT"))?;
        self.wait_until_begun_anew(&mut daemon)?;
        self.update(54)?;
        assert!(daemon.terminate()?.success());
        assert_nothing_lost(&self.lab, &self.site)
    }

    fn update(&self, id: u32) -> Result {
        Ok(self.database.execute_batch(&update(id))?)
    }

    fn wait_until_begun_anew(&self, daemon: &mut Daemon) -> Result {
        daemon.wait_for("a new beginning", LIMIT, |status| {
            number(status, "replication", "starts") == 2
                && status["replication"]["activity"] == "replicating"
        })?;
        let full = full_uploads(&self.lab);
        assert!(full.len() > 1, "{full:#?}");
        Ok(())
    }
}

/// Writes all of a commit to the WAL, and takes back that it was published.
pub(crate) fn be_killed_in(database: &Path, commit: impl FnOnce() -> Result) -> Result {
    let mut index = database.as_os_str().to_owned();
    index.push("-shm");
    let index = File::options().read(true).write(true).open(index)?;
    let mut header = [0; INDEX_HEADER];
    index.read_exact_at(&mut header, 0)?;
    commit()?;
    index.write_all_at(&header, 0)?;
    Ok(())
}

/// Waits until Litestream has read all that is in the WAL, which nobody has reset.
pub(crate) fn wait_until_read(database: &Path) -> Result {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    let end = fs::metadata(wal)?.len();
    wait_until("Litestream's reading of the WAL", || {
        end_of_newest_file(database) == Some(end)
    })
}

/// Where in the WAL the part ends that Litestream read last, by the header of its newest file.
fn end_of_newest_file(database: &Path) -> Option<u64> {
    let folder = local_state(database).join("ltx/0");
    let files = fs::read_dir(folder).ok()?.flatten().map(|file| file.path());
    // Their names are numbers that grow.
    let newest = files
        .filter(|file| file.extension().is_some_and(|e| e == "ltx"))
        .max()?;
    let mut range = [[0; 8]; 2];
    File::open(newest)
        .ok()?
        .read_exact_at(range.as_flattened_mut(), 48)
        .ok()?;
    Some(range.into_iter().map(u64::from_be_bytes).sum())
}

/// One page of the filling, at the same size.
pub(crate) fn update(id: u32) -> String {
    format!("UPDATE filling SET data = randomblob(4096) WHERE id = {id};")
}
