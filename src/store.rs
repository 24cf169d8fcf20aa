//! edgerepl's access to the device's database.
//!
//! Owns every connection of a process: one for the heartbeat rows, one for the WAL guard (`guard`),
//! those of a comparison with the replica (`compare`); and the rule about SQLite's version
//! (`version`). Never changes a table that edgerepl did not make (`table`), never makes the daemon
//! wait longer than [`BUSY_LIMIT`] for a lock, never checkpoints a long WAL but to empty it on request.
//! Nothing else in this process may open the database's files: closing any descriptor of a file
//! drops SQLite's locks on it, and a WAL has none.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior,
};

use crate::clock::WallTime;
use crate::config::TableName;

pub(crate) mod compare;
mod format;
mod guard;
pub(crate) mod structure;
mod table;
#[cfg(test)]
mod tests;
pub mod version;

pub use guard::WalGuard;
use table::{Claim, Taken};

/// How long a row waits for another writer before the loop retries it later.
pub const BUSY_LIMIT: Duration = Duration::from_millis(20);

/// How long a trial waits for another writer.
const TRIAL_LIMIT: Duration = Duration::from_secs(5);

/// A commit of ours checkpoints a WAL that is no longer, in bytes; a longer one is left to whoever wrote it,
/// to Litestream, or to [`empty_wal`].
const CHECKPOINTED: u64 = 8 << 20;

/// SQLite's own default, in pages: from then on a commit checkpoints.
const CHECKPOINT_PAGES: u32 = 1000;

/// How many rows one pruning looks at.
const PRUNE_BATCH: u32 = 500;

/// Rows with this id or a later one are not edgerepl's, whose ids begin with a time in seconds and
/// rise by one per row.
const END_OF_IDS: i64 = 1 << 40;

/// The last second of the year 9999: no clock is believed to be later.
const LATEST_START: i64 = 253_402_300_799;

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
    /// The schema by which the table was seen to be ours.
    claimed_in: Option<i64>,
}

impl Store {
    /// A store that opens `database` when it is first needed, and again whenever it has to.
    pub fn new(database: &Path, table: &TableName, started: WallTime) -> Self {
        Self {
            database: database.to_owned(),
            table: table.clone(),
            first_id: started.unix().clamp(1, LATEST_START),
            open: None,
        }
    }

    /// Commits one row, durably, and answers with its id. Makes no database.
    ///
    /// # Errors
    /// Why not, in words: locked, full, damaged, missing, or the table is not edgerepl's.
    /// Nothing was written then.
    pub fn write_row(&mut self) -> Result<i64, String> {
        self.write(Absent::IsRefused)
    }

    /// As [`Store::write_row`], in a database that is made where there is none.
    ///
    /// # Errors
    /// As for [`Store::write_row`].
    pub fn write_first_row(&mut self) -> Result<i64, String> {
        self.write(Absent::IsMade)
    }

    fn write(&mut self, absent: Absent) -> Result<i64, String> {
        let row = self.try_write_row(absent);
        if row.as_ref().is_err_and(|e| !is_passing(e)) {
            // What is wrong may be with the handle: a database that was replaced, a disk that came
            // back. The next row finds out.
            self.open = None;
        }
        row.map_err(|e| explain(&self.database, &e))
    }

    /// How old the row before `id` is, by the clock that dated it and the one of now, where those
    /// agree that it is not of the future.
    pub fn age_of_row_before(&self, id: i64) -> Option<Duration> {
        let connection = &self.open.as_ref()?.connection;
        let sql = format!(
            "SELECT CAST(strftime('%s', 'now') AS INTEGER) - strftime('%s', created_at) \
             FROM main.{} WHERE id < ?1 ORDER BY id DESC LIMIT 1",
            self.table
        );
        let age: Option<i64> = connection.query_row(&sql, [id], |row| row.get(0)).ok()?;
        Some(Duration::from_secs(u64::try_from(age?).ok()?))
    }

    /// Deletes rows that are older than `keep`, a few at a time, the oldest first.
    ///
    /// # Errors
    /// As for [`Store::write_row`].
    pub fn prune(&mut self, keep: Duration) -> Result<usize, String> {
        let (table, file) = (&self.table, FileIdentity::of(&self.database));
        let Some(open) = self.open.as_mut().filter(|open| Some(open.file) == file) else {
            return Ok(0);
        };
        let pruned = open.with_table(table, |transaction| Ok(prune(transaction, table, keep)?));
        pruned.map_err(|e| explain(&self.database, &e))
    }

    fn try_write_row(&mut self, absent: Absent) -> Result<i64, Failure> {
        let stale = |open: &Open| FileIdentity::of(&self.database) != Some(open.file);
        if self.open.as_ref().is_none_or(stale) {
            self.open = None;
        }
        let open = match &mut self.open {
            Some(open) => open,
            closed => closed.insert(Open::new(&self.database, absent)?),
        };
        let (table, first_id) = (&self.table, self.first_id);
        open.bound_checkpoint(&self.database)?;
        open.with_table(table, |transaction| insert(transaction, table, first_id))
    }
}

impl Open {
    fn new(database: &Path, absent: Absent) -> Result<Self, Failure> {
        Ok(Self {
            connection: connect_or(database, absent)?,
            file: FileIdentity::of(database).unwrap_or_default(),
            claimed_in: None,
        })
    }

    /// Makes the next commit take no longer than a row does, however much others have left in the WAL.
    fn bound_checkpoint(&self, database: &Path) -> rusqlite::Result<()> {
        let length = fs::metadata(wal_of(database)).map_or(0, |wal| wal.len());
        let pages = match length <= CHECKPOINTED {
            true => CHECKPOINT_PAGES,
            false => 0,
        };
        let sql = format!("PRAGMA wal_autocheckpoint = {pages}");
        self.connection.query_row(&sql, [], |_| Ok(()))
    }

    /// Does `what` in one transaction with a look at the table, so that nobody puts another one
    /// into its place meanwhile.
    fn with_table<T>(
        &mut self,
        table: &TableName,
        what: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let behavior = TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        let schema = transaction.pragma_query_value(None, "schema_version", |row| row.get(0))?;
        let claimed = match self.claimed_in == Some(schema) {
            true => Claim::Ours,
            false => claim(&transaction, table)?,
        };
        let done = what(&transaction)?;
        transaction.commit()?;
        // The rows of one without a mark are looked at each time; one that was just made, once
        // more.
        self.claimed_in = (claimed == Claim::Ours).then_some(schema);
        Ok(done)
    }
}

/// Finds the table to be ours, or makes it.
fn claim(transaction: &Transaction<'_>, table: &TableName) -> Result<Claim, Failure> {
    let claim = table::claim(transaction, table)?.map_err(Failure::Taken)?;
    if claim == Claim::Free {
        transaction.execute_batch(&table::definition(table))?;
    }
    Ok(claim)
}

fn insert(transaction: &Transaction<'_>, table: &TableName, first_id: i64) -> Result<i64, Failure> {
    let last = format!("SELECT id FROM main.{table} WHERE id < ?1 ORDER BY id DESC LIMIT 1");
    let last: Option<i64> = transaction
        .query_row(&last, [END_OF_IDS], |row| row.get(0))
        .optional()?;
    let id = last.map_or(first_id, |last| first_id.max(last.saturating_add(1)));
    if id >= END_OF_IDS {
        return Err(Failure::NoIdLeft(table.clone()));
    }
    let sql = format!("INSERT INTO main.{table} (id) VALUES (?1)");
    transaction.execute(&sql, [id])?;
    Ok(id)
}

/// Rows with another date than SQLite's own are not ours. Those of the future, of a clock that was
/// wrong, are passed over: they would be in the way of all later ones.
fn prune(
    transaction: &Transaction<'_>,
    table: &TableName,
    keep: Duration,
) -> rusqlite::Result<usize> {
    const DATE: &str =
        "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9]";
    let sql = format!(
        "DELETE FROM main.{table} WHERE id IN (SELECT id FROM (SELECT id, created_at \
         FROM main.{table} WHERE id < {END_OF_IDS} AND created_at GLOB '{DATE}' \
         AND created_at < datetime('now', '+1 day') ORDER BY id LIMIT {PRUNE_BATCH}) \
         WHERE created_at < datetime('now', ?1))"
    );
    transaction.execute(&sql, [format!("-{} seconds", keep.as_secs())])
}

/// How a trial went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tried {
    /// A row can be written.
    Works,
    /// Another process writes for longer than the trial waits.
    Locked,
}

/// Tries what writing a row takes, without a table only the lock, and leaves all as it was: the
/// journal mode, and no WAL where there was none.
///
/// # Errors
/// Why no row can be written, in words.
pub(crate) fn try_row(database: &Path, table: Option<&TableName>) -> Result<Tried, String> {
    let attempt = || -> Result<(), Failure> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(database, flags)?;
        connection.busy_timeout(TRIAL_LIMIT)?;
        distrust_schema(&connection)?;
        // A WAL that is there holds what Litestream still reads; one that is made for the trial
        // goes with it.
        let is_there = wal_of(database).exists();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, is_there)?;
        let behavior = TransactionBehavior::Immediate;
        let transaction = connection.transaction_with_behavior(behavior)?;
        if let Some(table) = table {
            claim(&transaction, table)?;
            insert(&transaction, table, 1)?;
        }
        Ok(transaction.rollback()?)
    };
    match attempt() {
        Ok(()) => Ok(Tried::Works),
        Err(e) if matches!(e.code(), Some(ErrorCode::DatabaseBusy)) => Ok(Tried::Locked),
        Err(e) => Err(explain(database, &e)),
    }
}

/// Refuses a database that is a symbolic link.
///
/// SQLite has the WAL beside the file that a link leads to, Litestream looks for it beside the
/// link: it would replicate no row, and never say so. A link in a parent folder leads both to one
/// place.
///
/// # Errors
/// Where the link leads to, in words.
pub(crate) fn refuse_link(database: &Path) -> Result<(), String> {
    match link(database) {
        Some(target) => Err(explain(database, &Failure::Link(target))),
        None => Ok(()),
    }
}

/// The size of a database's WAL in bytes; `None` if it can't be read.
pub(crate) fn wal_size(database: &Path) -> Option<u64> {
    match fs::metadata(wal_of(database)) {
        Ok(wal) => Some(wal.len()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Some(0),
        Err(_) => None,
    }
}

/// Where SQLite has the WAL of `database`.
pub(crate) fn wal_of(database: &Path) -> PathBuf {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    wal.into()
}

/// How long an emptying is tried, and how often it asks for the place between two commits before one attempt
/// ends, and at which pace. A commit may have to wait as long for that. SQLite's own timeout asks ten times
/// a second in the end, and misses the few milliseconds that a busy application leaves; and where another
/// connection checkpoints, as each commit of an application does once the WAL is long, it asks once.
const EMPTYING_LIMIT: Duration = Duration::from_secs(1);
const EMPTYING_TRIES: i32 = 500;
const EMPTYING_PACE: Duration = Duration::from_millis(1);

/// Moves the contents of the WAL to the database, and leaves the WAL empty. Takes as long as the disk
/// does: no loop may do it. Most of it is done while writers go on.
///
/// # Errors
/// Why not, in words: usually another process reads or writes.
pub(crate) fn empty_wal(database: &Path) -> Result<(), String> {
    let checkpoint = |mut connection: Connection| {
        connection.busy_handler(Some(|tries| {
            std::thread::sleep(EMPTYING_PACE);
            tries < EMPTYING_TRIES
        }))?;
        let busy = |mode| {
            let sql = format!("PRAGMA wal_checkpoint({mode})");
            connection.query_row(&sql, [], |row| row.get::<_, bool>(0))
        };
        busy("PASSIVE")?;
        let begun = Instant::now();
        while busy("TRUNCATE")? {
            if begun.elapsed() >= EMPTYING_LIMIT {
                return Ok(true);
            }
            std::thread::sleep(EMPTYING_PACE);
        }
        Ok(false)
    };
    match connect(database).and_then(checkpoint) {
        Ok(false) => Ok(()),
        Ok(true) => Err(format!(
            "{} is in use by another connection",
            database.display()
        )),
        Err(e) => Err(explain(database, &e)),
    }
}

/// What to do about a missing database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Absent {
    IsRefused,
    IsMade,
}

/// Whether the database is missing in an existing folder, or empty. The caller creates one only when it
/// knows that no replica of it can be restored.
pub fn is_missing(database: &Path) -> bool {
    let is_there = !is_absent(database) && !is_empty(database);
    !is_there && database.parent().is_some_and(Path::is_dir)
}

/// Whether its file is there and holds nothing, as a power cut may leave it: SQLite, and Litestream with it,
/// takes that for a new database. What a WAL or a journal holds belongs to it.
pub fn is_empty(database: &Path) -> bool {
    let length = |path: &Path| {
        let file = fs::symlink_metadata(path).ok()?;
        file.is_file().then_some(file.len())
    };
    let beside = |end: &str| {
        let mut name = database.as_os_str().to_owned();
        name.push(end);
        length(Path::new(&name)).unwrap_or(0)
    };
    length(database) == Some(0) && beside("-wal") == 0 && beside("-journal") == 0
}

fn is_absent(database: &Path) -> bool {
    let found = fs::symlink_metadata(database);
    found.is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

/// A connection with edgerepl's settings, to an existing database.
fn connect(database: &Path) -> Result<Connection, Failure> {
    connect_or(database, Absent::IsRefused)
}

fn connect_or(database: &Path, absent: Absent) -> Result<Connection, Failure> {
    let connection = open(database, absent)?;
    // The next statement would make it one.
    if absent == Absent::IsRefused && is_empty(database) {
        return Err(Failure::Empty);
    }
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" {
        connection.pragma_update(None, "journal_mode", "wal")?;
    }
    // A committed row outlives a power cut.
    connection.pragma_update(None, "synchronous", "full")?;
    Ok(connection)
}

/// A connection that has not read the schema, of which a large one takes as much memory each time.
fn open(database: &Path, absent: Absent) -> Result<Connection, Failure> {
    if let Some(target) = link(database) {
        return Err(Failure::Link(target));
    }
    let mut flags = OpenFlags::default();
    if absent == Absent::IsRefused {
        flags.remove(OpenFlags::SQLITE_OPEN_CREATE);
    }
    let connection = Connection::open_with_flags(database, flags)?;
    connection.busy_timeout(BUSY_LIMIT)?;
    distrust_schema(&connection)?;
    // The last connection to close deletes the WAL otherwise, and with it what Litestream needs to
    // go on without a new snapshot.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// Where `database` leads to, if it is a symbolic link.
fn link(database: &Path) -> Option<PathBuf> {
    fs::symlink_metadata(database)
        .is_ok_and(|file| file.is_symlink())
        .then(|| fs::canonicalize(database).or_else(|_| fs::read_link(database)))
        .map(Result::unwrap_or_default)
}

/// The schema is the application's: nothing in it makes this process write elsewhere or call what
/// only a person should.
fn distrust_schema(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    Ok(())
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

/// Why an operation was not done.
#[derive(Debug)]
enum Failure {
    Sqlite(rusqlite::Error),
    /// The heartbeat table is not edgerepl's.
    Taken(Taken),
    /// A row that edgerepl did not write has the last id.
    NoIdLeft(TableName),
    /// The path is a symbolic link to this.
    Link(PathBuf),
    /// The file holds nothing.
    Empty,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Failure {
    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code(),
            _ => None,
        }
    }
}

/// Whether the same connection may succeed in a moment.
fn is_passing(failure: &Failure) -> bool {
    matches!(
        failure.code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull)
    )
}

/// One sentence: the database, the cause, and the next step if there is one.
fn explain(database: &Path, failure: &Failure) -> String {
    let database = database.display();
    let error = match failure {
        Failure::Sqlite(error) => error,
        Failure::Taken(taken) => return format!("{database}: {taken}"),
        Failure::NoIdLeft(table) => {
            return format!(
                "{database}: a row that edgerepl did not write has the last possible id of \
                 {table}, {}; delete that row",
                END_OF_IDS - 1
            );
        }
        Failure::Empty => return format!("{database} is an empty file"),
        Failure::Link(target) => {
            return format!(
                "{database} is a symbolic link, and Litestream would not find the WAL; name {} in \
                 [database] path and in litestream.yml",
                target.display()
            );
        }
    };
    match failure.code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("{database} is locked by another writer")
        }
        Some(ErrorCode::DiskFull) => format!("{database} is on a full disk; free some space"),
        Some(ErrorCode::CannotOpen) => {
            format!("{database} can't be opened; check its folder, owner and mode")
        }
        Some(ErrorCode::ReadOnly) => {
            format!("{database} can't be written to; check its owner, mode and mount options")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            format!("{database} is damaged ({error}); restore it")
        }
        _ => format!("{database}: {error}"),
    }
}
