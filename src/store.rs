//! The device's database, as far as edgerepl has a hand in it.
//!
//! Owns every connection that a process opens: one for the heartbeat rows, one for the WAL guard
//! (`guard`), those of a comparison with the replica (`compare`); and the rule about SQLite's version
//! (`version`). Never changes another table, never has the daemon wait longer than [`BUSY_LIMIT`] for
//! a lock, never checkpoints but to empty a WAL on request. Nothing else in this process may open the
//! database's files: closing any descriptor of one drops SQLite's locks on it, of which a WAL has none.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use crate::clock::WallTime;
use crate::config::TableName;

pub(crate) mod compare;
mod guard;
pub(crate) mod structure;
pub mod version;

pub use guard::WalGuard;

/// How long a row waits for another writer before it is tried again later, by the loop.
pub const BUSY_LIMIT: Duration = Duration::from_millis(20);

/// How many rows one pruning looks at.
const PRUNE_BATCH: u32 = 500;

/// The heartbeat table of the database.
#[derive(Debug)]
pub struct Store {
    database: PathBuf,
    table: TableName,
    /// The first row's id: the time when this daemon started, unless rows with later ids exist.
    first_id: i64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    file: FileIdentity,
    last_id: i64,
}

impl Store {
    /// A store that opens `database` when it is first needed, and again whenever it has to.
    pub fn new(database: &Path, table: &TableName, started: WallTime) -> Self {
        Self {
            database: database.to_owned(),
            table: table.clone(),
            first_id: started.unix(),
            open: None,
        }
    }

    /// Commits one row, durably, and answers with its id.
    ///
    /// # Errors
    /// Why it could not, in words: locked, full, damaged, missing. Nothing was written then.
    pub fn write_row(&mut self) -> Result<i64, String> {
        let row = self.try_write_row();
        if row.as_ref().is_err_and(|e| !is_passing(e)) {
            // What is wrong may be with the handle: a database that was replaced, a disk that came
            // back. The next row finds out.
            self.open = None;
        }
        row.map_err(|e| explain(&self.database, &e))
    }

    /// Deletes rows that are older than `keep`, a few at a time, the oldest first.
    ///
    /// # Errors
    /// As for [`Store::write_row`].
    pub fn prune(&mut self, keep: Duration) -> Result<usize, String> {
        let Some(open) = &self.open else { return Ok(0) };
        let table = &self.table;
        let sql = format!(
            "DELETE FROM {table} WHERE id IN (SELECT id FROM (SELECT id, created_at FROM {table} \
             ORDER BY id LIMIT {PRUNE_BATCH}) WHERE created_at < datetime('now', ?1))"
        );
        let age = format!("-{} seconds", keep.as_secs());
        open.connection
            .execute(&sql, [age])
            .map_err(|e| explain(&self.database, &e))
    }

    fn try_write_row(&mut self) -> rusqlite::Result<i64> {
        let stale = |open: &Open| FileIdentity::of(&self.database) != Some(open.file);
        if self.open.as_ref().is_none_or(stale) {
            self.open = None;
        }
        let open = match &mut self.open {
            Some(open) => open,
            closed => closed.insert(open_table(&self.database, &self.table)?),
        };
        let id = open.last_id.saturating_add(1).max(self.first_id);
        let sql = format!("INSERT INTO {} (id) VALUES (?1)", self.table);
        let inserted = open.connection.execute(&sql, [id]);
        if matches!(&inserted, Err(e) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation))
        {
            // Somebody else writes to the table too: go on after what is there now.
            open.last_id = last_id(&open.connection, &self.table)?;
            let id = open.last_id.saturating_add(1).max(self.first_id);
            open.connection.execute(&sql, [id])?;
            open.last_id = id;
            return Ok(id);
        }
        inserted?;
        open.last_id = id;
        Ok(id)
    }
}

/// Where SQLite has the WAL of `database`.
pub(crate) fn wal_of(database: &Path) -> PathBuf {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    wal.into()
}

/// Moves all that is in the WAL to the database, and leaves the WAL empty.
///
/// # Errors
/// Why it could not, in words: somebody else reads or writes, most often.
pub(crate) fn empty_wal(database: &Path) -> Result<(), String> {
    let checkpoint = |connection: Connection| {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        connection.query_row(sql, [], |row| row.get::<_, bool>(0))
    };
    match connect(database).and_then(checkpoint) {
        Ok(false) => Ok(()),
        Ok(true) => Err(format!("{} is in use by others", database.display())),
        Err(e) => Err(explain(database, &e)),
    }
}

fn open_table(database: &Path, table: &TableName) -> rusqlite::Result<Open> {
    let connection = connect(database)?;
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {table} \
         (id INTEGER PRIMARY KEY, created_at TEXT DEFAULT CURRENT_TIMESTAMP)"
    ))?;
    let last_id = last_id(&connection, table)?;
    let file = FileIdentity::of(database).unwrap_or_default();
    Ok(Open {
        connection,
        file,
        last_id,
    })
}

fn last_id(connection: &Connection, table: &TableName) -> rusqlite::Result<i64> {
    let sql = format!("SELECT coalesce(max(id), 0) FROM {table}");
    connection.query_row(&sql, [], |row| row.get(0))
}

/// A connection as all of ours are.
fn connect(database: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(database)?;
    connection.busy_timeout(BUSY_LIMIT)?;
    // The last connection to close deletes the WAL otherwise, and with it what Litestream needs to
    // go on without a new snapshot.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" {
        connection.pragma_update(None, "journal_mode", "wal")?;
    }
    // A committed row outlives a power cut.
    connection.pragma_update(None, "synchronous", "full")?;
    Ok(connection)
}

/// Which file a path names at the moment, without opening it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// Whether the same connection may succeed in a moment.
fn is_passing(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull)
    )
}

/// One sentence: the database, the cause, the next step where there is one.
fn explain(database: &Path, error: &rusqlite::Error) -> String {
    let database = database.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("{database} is locked by another writer")
        }
        Some(ErrorCode::DiskFull) => format!("{database} is on a full disk; free some space"),
        Some(ErrorCode::CannotOpen) => {
            format!("{database} can't be opened; check its folder and who owns it")
        }
        Some(ErrorCode::ReadOnly) => {
            format!("{database} can't be written to; check who owns it and how it is mounted")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            format!("{database} is damaged ({error}); restore it")
        }
        _ => format!("{database}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("edgerepl-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).expect("a folder");
            Self(path)
        }

        fn database(&self) -> PathBuf {
            self.0.join("app.db")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn store(folder: &Folder, started: i64) -> Store {
        let table: TableName = "HealthCheck".parse().expect("a name");
        Store::new(&folder.database(), &table, WallTime::from_unix(started))
    }

    #[test]
    fn ids_begin_at_the_start_and_never_collide() {
        let folder = Folder::new("ids");
        let mut first = store(&folder, 1_000);
        assert_eq!(first.write_row(), Ok(1_000));
        assert_eq!(first.write_row(), Ok(1_001));
        // A later start with a clock that went back to 1970 goes on after what is there,
        let mut second = store(&folder, 5);
        assert_eq!(second.write_row(), Ok(1_002));
        // and so does one that another writer got in front of.
        assert_eq!(first.write_row(), Ok(1_003));
        assert_eq!(second.write_row(), Ok(1_004));
        assert_eq!(store(&folder, 2_000).write_row(), Ok(2_000));
    }

    #[test]
    fn a_locked_database_delays_the_row_and_only_that() {
        let folder = Folder::new("locked");
        let mut store = store(&folder, 1);
        assert_eq!(store.write_row(), Ok(1));
        let writer = Connection::open(folder.database()).expect("a connection");
        writer.execute_batch("BEGIN IMMEDIATE").expect("the lock");
        let refused = store.write_row().expect_err("the database is locked");
        assert!(
            refused.ends_with("is locked by another writer"),
            "{refused}"
        );
        WalGuard::take(&folder.database()).expect("a reader is not held up by a writer");
        writer.execute_batch("COMMIT").expect("the end of the lock");
        assert_eq!(store.write_row(), Ok(2));
    }

    #[test]
    fn a_replaced_database_is_opened_anew() {
        let folder = Folder::new("replaced");
        let mut store = store(&folder, 1);
        assert_eq!(store.write_row(), Ok(1));
        for file in ["app.db", "app.db-wal", "app.db-shm"] {
            fs::remove_file(folder.0.join(file)).expect("the file");
        }
        assert_eq!(store.write_row(), Ok(1));
        assert!(folder.database().exists());
    }

    #[test]
    fn what_is_no_database_is_an_error_and_is_left_as_it_is() {
        let folder = Folder::new("damaged");
        let text = "not a database, but long enough to be taken for one by its size alone";
        fs::write(folder.database(), text.repeat(100)).expect("the file");
        let refused = store(&folder, 1).write_row().expect_err("no database");
        assert!(refused.contains("is damaged"), "{refused}");
        assert_eq!(
            fs::read_to_string(folder.database()).expect("the file"),
            text.repeat(100)
        );
    }

    #[test]
    fn prunes_only_what_is_older_than_asked() {
        let folder = Folder::new("prune");
        let mut store = store(&folder, 10);
        assert_eq!(store.write_row(), Ok(10));
        let other = Connection::open(folder.database()).expect("a connection");
        let old = "INSERT INTO HealthCheck VALUES (1, '2001-01-01 00:00:00')";
        other.execute_batch(old).expect("an old row");
        assert_eq!(store.prune(Duration::from_secs(3600)), Ok(1));
        assert_eq!(store.prune(Duration::from_secs(3600)), Ok(0));
        let left: i64 = other
            .query_row("SELECT id FROM HealthCheck", [], |r| r.get(0))
            .expect("a row");
        assert_eq!(left, 10);
    }

    /// Parts are left out of the bundled SQLite; what an application has made with its own is no
    /// obstacle.
    #[test]
    fn the_applications_schema_may_need_more_than_we_do() {
        let folder = Folder::new("schema");
        let application = Connection::open(folder.database()).expect("a connection");
        application
            .execute_batch(
                "CREATE TABLE events (body TEXT); \
                 CREATE INDEX kinds ON events (json_extract(body, '$.kind')); \
                 PRAGMA writable_schema = ON; \
                 INSERT INTO sqlite_schema VALUES ('table', 'texts', 'texts', 0, \
                 'CREATE VIRTUAL TABLE texts USING a_module_of_its_own (body)');",
            )
            .expect("the schema");
        drop(application);
        assert_eq!(store(&folder, 1).write_row(), Ok(1));
        let reader = Connection::open(folder.database()).expect("a connection");
        let found: String = reader
            .query_row("PRAGMA integrity_check", [], |r| r.get(0))
            .expect("an answer");
        assert_eq!(found, "ok");
    }

    #[test]
    fn opens_a_database_of_2040() {
        let folder = Folder::new("2040");
        fs::write(folder.database(), "").expect("the file");
        let file = fs::File::options().write(true).open(folder.database());
        let year_2040 = std::time::UNIX_EPOCH + Duration::from_secs(2_208_988_800);
        file.and_then(|file| file.set_modified(year_2040))
            .expect("a file system that knows 2040");
        assert_eq!(store(&folder, 1).write_row(), Ok(1));
    }

    #[test]
    #[ignore = "needs a clock in 2040, which `cargo xtask test year-2040` gives it"]
    fn rows_are_dated_in_2040() {
        let folder = Folder::new("dated");
        let mut store = store(&folder, WallTime::now().unix());
        let id = store.write_row().expect("a row");
        assert!(id >= 2_208_988_800, "{id}");
        let reader = Connection::open(folder.database()).expect("a connection");
        let date: String = reader
            .query_row("SELECT created_at FROM HealthCheck", [], |r| r.get(0))
            .expect("the row");
        assert!(date.starts_with("2040-"), "{date}");
        // The row is seconds old, not a hundred years, and not of the future.
        assert_eq!(store.prune(Duration::from_secs(3600)), Ok(0));
        let future = "SELECT count(*) FROM HealthCheck WHERE created_at > datetime('now')";
        let future: i64 = reader.query_row(future, [], |r| r.get(0)).expect("a count");
        assert_eq!(future, 0);
    }

    #[test]
    fn the_guard_keeps_the_wal_from_being_reset() {
        let folder = Folder::new("guard");
        let mut store = store(&folder, 1);
        store.write_row().expect("a row");
        let writer = Connection::open(folder.database()).expect("a connection");
        writer.busy_timeout(Duration::ZERO).expect("no patience");
        let truncate = || -> i64 {
            writer
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get(0))
                .expect("a checkpoint")
        };
        let guard = WalGuard::take(&folder.database()).expect("the guard");
        assert_eq!(truncate(), 1, "the checkpoint was not held up");
        assert!(guard.wal_size() > 0);
        drop(guard);
        assert_eq!(truncate(), 0);
    }

    #[test]
    fn closing_leaves_the_wal_to_litestream() {
        let folder = Folder::new("close");
        let mut store = store(&folder, 1);
        store.write_row().expect("a row");
        drop(store);
        let wal = fs::metadata(folder.0.join("app.db-wal")).expect("the WAL");
        assert!(wal.len() > 0);
    }
}
