//! An application of the demo's device, which knows nothing of edgerepl: a plain SQLite connection.
//!
//! Owns its database, and how often it writes. It checkpoints as SQLite has it, and never waits for a
//! replica.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;

/// Its database's name.
pub(super) const DATABASE: &str = "sensors.db";

/// As often as edgerepl writes here.
const PACE: Duration = Duration::from_millis(100);

/// A lock is let go within this: a checkpoint's, of a small database.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Application {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<rusqlite::Result<()>>>,
}

#[derive(Default)]
struct Shared {
    rows: AtomicU64,
    ends: AtomicBool,
}

impl Application {
    /// Makes the database in that folder, and begins to write.
    pub(super) fn start(folder: &Path) -> rusqlite::Result<Self> {
        let database = Connection::open(folder.join(DATABASE))?;
        database.busy_timeout(PATIENCE)?;
        database.pragma_update(None, "journal_mode", "wal")?;
        database.execute_batch("CREATE TABLE reading (id INTEGER PRIMARY KEY, value BLOB)")?;
        let shared = Arc::new(Shared::default());
        let writers = shared.clone();
        Ok(Self {
            shared,
            writer: Some(thread::spawn(move || write(&database, &writers))),
        })
    }

    /// How many rows it has committed.
    pub(super) fn rows(&self) -> u64 {
        self.shared.rows.load(Ordering::Relaxed)
    }

    /// Ends it; an error where it could not write.
    pub(super) fn end(&mut self) -> Result<(), String> {
        self.shared.ends.store(true, Ordering::Relaxed);
        let written = self.writer.take().map(JoinHandle::join);
        match written {
            Some(Ok(Err(e))) => Err(format!("the application could not write: {e}")),
            Some(Err(_)) => Err("the application has panicked".to_owned()),
            Some(Ok(Ok(()))) | None => Ok(()),
        }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
    }
}

fn write(database: &Connection, shared: &Shared) -> rusqlite::Result<()> {
    while !shared.ends.load(Ordering::Relaxed) {
        database.execute("INSERT INTO reading (value) VALUES (randomblob(40))", [])?;
        shared.rows.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PACE);
    }
    Ok(())
}
