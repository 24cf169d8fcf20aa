//! A live database beside its restored replica, table by table.
//!
//! Owns reading both, the live one as it was at one moment. Writes to neither, and holds nothing of a
//! table in memory but a row.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::{Failure, connect, distrust_schema, explain};
use crate::config::TableName;

/// How long the look at one moment waits for a writer to commit.
const WRITER_LIMIT: Duration = Duration::from_secs(5);

/// A database, as it was when this was made.
#[derive(Debug)]
pub(crate) struct Snapshot(Connection);

/// What a table holds: how many rows, and a checksum of them all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Content {
    pub(crate) rows: u64,
    checksum: u64,
}

impl Snapshot {
    /// The live database at the moment in which `while_held` is done: no writer commits meanwhile, so
    /// it has to be quick.
    ///
    /// # Errors
    /// Why the database can't be read or held, in words.
    pub(crate) fn of_live<T>(
        database: &Path,
        while_held: impl FnOnce() -> T,
    ) -> Result<(Self, T), String> {
        let look = || -> Result<_, Failure> {
            let holder = connect(database)?;
            holder.busy_timeout(WRITER_LIMIT)?;
            holder.execute_batch("BEGIN IMMEDIATE")?;
            let done = while_held();
            let snapshot = connect(database)?;
            // A transaction begins with its first read, not with BEGIN.
            snapshot.execute_batch("BEGIN; SELECT count(*) FROM sqlite_master;")?;
            holder.execute_batch("ROLLBACK")?;
            Ok((Self(snapshot), done))
        };
        look().map_err(|e| explain(database, &e))
    }

    /// A restored copy, which nobody writes to.
    ///
    /// # Errors
    /// Why it can't be opened, in words.
    pub(crate) fn of_copy(database: &Path) -> Result<Self, String> {
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
            let connection = Connection::open_with_flags(database, flags)?;
            distrust_schema(&connection)?;
            Ok(Self(connection))
        };
        open().map_err(|e: rusqlite::Error| explain(database, &e.into()))
    }

    /// What `PRAGMA integrity_check` says: `ok`, or the first thing that is wrong.
    pub(crate) fn integrity(&self) -> String {
        let said = self
            .0
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
        said.unwrap_or_else(|e| e.to_string())
    }

    /// The names of all tables but SQLite's and Litestream's own, in order.
    pub(crate) fn tables(&self) -> Result<Vec<String>, String> {
        let names = || {
            self.0
                .prepare(
                    "SELECT name FROM sqlite_master WHERE type = 'table' \
                     AND sql NOT LIKE 'create virtual%' \
                     AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
                     AND name NOT LIKE '\\_litestream\\_%' ESCAPE '\\' ORDER BY name",
                )?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()
        };
        names().map_err(|e| format!("its tables can't be listed: {e}"))
    }

    /// What the table of this name holds; nothing where there is none.
    pub(crate) fn content(&self, table: &str) -> Content {
        let quoted = table.replace('"', "\"\"");
        // In the order of the table itself, whatever indexes there are.
        self.sum(&format!("SELECT * FROM \"{quoted}\" NOT INDEXED"), [])
    }

    /// What the heartbeat table holds between two ids, both included.
    pub(crate) fn heartbeat(&self, table: &TableName, ids: (i64, i64)) -> Content {
        let sql = format!("SELECT * FROM {table} WHERE id BETWEEN ?1 AND ?2 ORDER BY id");
        self.sum(&sql, [ids.0, ids.1])
    }

    /// The first and the last id of the heartbeat table; nothing where it has no row.
    pub(crate) fn ids(&self, table: &TableName) -> Option<(i64, i64)> {
        let sql = format!("SELECT min(id), max(id) FROM {table}");
        let ids = self
            .0
            .query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        ids.ok()
    }

    /// A row that can't be read counts as none, so that it shows as a difference.
    fn sum(&self, sql: &str, parameters: impl rusqlite::Params) -> Content {
        let mut content = Content {
            rows: 0,
            checksum: 0,
        };
        let read = || -> rusqlite::Result<()> {
            let mut statement = self.0.prepare(sql)?;
            let columns = statement.column_count();
            let mut rows = statement.query(parameters)?;
            let mut hasher = DefaultHasher::new();
            while let Some(row) = rows.next()? {
                for column in 0..columns {
                    hash(row.get_ref(column)?, &mut hasher);
                }
                content.rows += 1;
                content.checksum = hasher.finish();
            }
            Ok(())
        };
        let _ = read();
        content
    }
}

fn hash(value: ValueRef<'_>, hasher: &mut DefaultHasher) {
    match value {
        ValueRef::Null => 0u8.hash(hasher),
        ValueRef::Integer(number) => (1u8, number).hash(hasher),
        ValueRef::Real(number) => (2u8, number.to_bits()).hash(hasher),
        ValueRef::Text(text) => (3u8, text).hash(hasher),
        ValueRef::Blob(bytes) => (4u8, bytes).hash(hasher),
    }
}
