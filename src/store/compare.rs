//! A comparison of a live database with its restored replica: page by page, or row by row if the linked
//! SQLite can't read pages.
//!
//! Owns the reads of both, with the live one in one snapshot and for a limited time, and the check of
//! the copy. Never writes to either, never runs code of their schemas, and keeps only 8 bytes of each
//! page in memory.
//!
//! Only the lock page, at 2^30 bytes, may differ: SQLite never writes it, and its content is undefined.
//! Free pages are equal, too: they keep what SQLite last wrote, and Litestream copies them.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::structure::{Object, Structure, changes, named_tables};
use super::{BUSY_LIMIT, Failure, connect, distrust_schema, explain, wal_of};
use crate::config::TableName;

mod pages;
#[cfg(test)]
mod tests;

pub(crate) use pages::Pages;

/// How long the snapshot waits for a writer to commit.
const WRITER_LIMIT: Duration = Duration::from_secs(5);

/// How long the snapshot of the live database is held: as long as the WAL guard holds at most.
const HELD_LIMIT: Duration = Duration::from_secs(300);

/// How many pages or rows are read between two checks of the limits.
const BETWEEN_LOOKS: u64 = 1024;

/// What is compared if the linked SQLite can't read pages, in words.
pub(crate) const BY_ROWS: &str = "rows, rowids, the schema's text, sequences and the header's \
                                  numbers, but not free pages or indexes that need the \
                                  application's code";

/// Parts of the header that rows do not show. The rest follows from the pages' content.
const HEADER_PRAGMAS: [&str; 8] = [
    "user_version",
    "application_id",
    "encoding",
    "auto_vacuum",
    "page_size",
    "page_count",
    "freelist_count",
    "schema_version",
];

/// A snapshot of a database.
#[derive(Debug)]
pub(crate) struct Snapshot {
    connection: Connection,
    /// For a live database.
    hold: Option<Hold>,
}

/// What a snapshot costs the writers: no checkpoint gets past it, and the WAL grows.
#[derive(Debug)]
struct Hold {
    begun: Instant,
    wal: PathBuf,
    before: u64,
    most: u64,
}

/// Everything that a comparison by rows needs of one side.
#[derive(Debug)]
pub(crate) struct Rows {
    objects: Vec<Object>,
    /// Numbers of the header, by pragma.
    header: Vec<(&'static str, String)>,
    /// Each table's content, or why it can't be read.
    pub(crate) tables: BTreeMap<String, Result<Content, String>>,
}

/// A table's content: the number of rows, and a checksum of all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Content {
    pub(crate) rows: u64,
    checksum: u64,
}

/// The state of a copy, as far as known without the application's code.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Soundness {
    pub(crate) damage: Option<String>,
    /// What SQLite can't check, and why.
    pub(crate) unchecked: Vec<String>,
}

impl Soundness {
    /// From the structure alone.
    pub(crate) fn of_structure(structure: &Structure) -> Self {
        Self {
            damage: structure.faults.first().cloned(),
            unchecked: Vec::new(),
        }
    }

    /// `ok`, or the first fault.
    pub(crate) fn integrity(&self) -> String {
        self.damage.clone().unwrap_or_else(|| "ok".to_owned())
    }
}

impl Snapshot {
    /// A snapshot of the live database, taken while `while_held` runs: no writer commits meanwhile, so
    /// it has to be quick. The WAL may grow by `most` bytes during the snapshot.
    ///
    /// # Errors
    /// Why the database can't be read or held, in words.
    pub(crate) fn of_live<T>(
        database: &Path,
        most: u64,
        while_held: impl FnOnce() -> T,
    ) -> Result<(Self, T), String> {
        let look = || -> Result<_, Failure> {
            let holder = distrusting(connect(database)?)?;
            holder.busy_timeout(WRITER_LIMIT)?;
            holder.execute_batch("BEGIN IMMEDIATE")?;
            let done = while_held();
            let snapshot = reader(database)?;
            // A transaction begins with its first read, not with BEGIN.
            snapshot.execute_batch("BEGIN; SELECT count(*) FROM sqlite_master;")?;
            let wal = wal_of(database);
            let hold = Hold {
                begun: Instant::now(),
                before: size_of(&wal),
                wal,
                most,
            };
            holder.execute_batch("ROLLBACK")?;
            let live = Self {
                connection: snapshot,
                hold: Some(hold),
            };
            Ok((live, done))
        };
        look().map_err(|e| explain(database, &e))
    }

    /// The live database now, for a short read.
    ///
    /// # Errors
    /// Why it can't be opened, in words.
    pub(crate) fn now(database: &Path) -> Result<Self, String> {
        let connection = reader(database).map_err(|e| explain(database, &e.into()))?;
        Ok(Self {
            connection,
            hold: None,
        })
    }

    /// A restored copy, which has no writers.
    ///
    /// # Errors
    /// Why it can't be opened, in words.
    pub(crate) fn of_copy(database: &Path) -> Result<Self, String> {
        // Immutable: SQLite creates no file beside it.
        let mut uri = "file:".to_owned();
        for byte in database.as_os_str().as_bytes() {
            match byte {
                b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                    uri.push(char::from(*byte));
                }
                byte => {
                    let _ = write!(uri, "%{byte:02X}");
                }
            }
        }
        uri += "?immutable=1";
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(uri, flags).and_then(distrusting);
        Ok(Self {
            connection: connection.map_err(|e| explain(database, &e.into()))?,
            hold: None,
        })
    }

    /// Releases the snapshot, and returns how long checkpoints have waited for it.
    pub(crate) fn release(self) -> Duration {
        self.hold
            .map_or(Duration::ZERO, |hold| hold.begun.elapsed())
    }

    /// Checks the limits of the snapshot.
    fn is_too_dear(&self, read: u64) -> Result<(), String> {
        match &self.hold {
            Some(hold) if read.is_multiple_of(BETWEEN_LOOKS) => hold.look(),
            _ => Ok(()),
        }
    }

    /// All pages; `None` if the linked SQLite can't read them.
    ///
    /// # Errors
    /// Why they can't be read, in words.
    pub(crate) fn pages(&self) -> Result<Option<Pages>, String> {
        if !gives_pages(&self.connection) {
            return Ok(None);
        }
        let unread = |e: rusqlite::Error| format!("its pages can't be read: {e}");
        let sql = "SELECT pgno, data FROM sqlite_dbpage";
        let mut statement = self.connection.prepare(sql).map_err(unread)?;
        let mut pages = Pages::default();
        let mut rows = statement.query([]).map_err(unread)?;
        while let Some(row) = rows.next().map_err(unread)? {
            self.is_too_dear(pages.count())?;
            let mut read = || {
                pages.add(row.get(0)?, row.get_ref(1)?.as_blob()?);
                Ok(())
            };
            read().map_err(unread)?;
        }
        pages.objects = self.objects().map_err(unread)?;
        Ok(Some(pages))
    }

    /// What is compared without pages: the schema's text, the header's numbers, and each table's rows
    /// with their rowids, including `sqlite_sequence`.
    ///
    /// # Errors
    /// Why the schema or the header can't be read, in words.
    pub(crate) fn rows(&self) -> Result<Rows, String> {
        let unread = |e: rusqlite::Error| format!("the schema can't be read: {e}");
        let mut header = Vec::new();
        for name in HEADER_PRAGMAS {
            let sql = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
            let value = self.connection.query_row(&sql, [], |row| row.get(0));
            header.push((name, value.map_err(unread)?));
        }
        let mut tables = BTreeMap::new();
        for name in self.tables()? {
            self.is_too_dear(0)?;
            let content = self.content(&name);
            self.is_too_dear(0)?;
            tables.insert(name, content);
        }
        Ok(Rows {
            objects: self.objects().map_err(unread)?,
            header,
            tables,
        })
    }

    /// The schema, row by row.
    fn objects(&self) -> rusqlite::Result<Vec<Object>> {
        let sql = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut objects = Vec::new();
        while let Some(row) = rows.next()? {
            let text = |column: usize| -> rusqlite::Result<String> {
                // An application may have stored any type here.
                let value = row.get_ref(column)?;
                let bytes = value.as_bytes_or_null().ok().flatten().unwrap_or_default();
                Ok(String::from_utf8_lossy(bytes).into_owned())
            };
            let root: Option<i64> = row.get(3)?;
            let root = u32::try_from(root.unwrap_or(0)).unwrap_or(u32::MAX);
            objects.push(Object::new(
                &text(0)?,
                &text(1)?,
                &text(2)?,
                root,
                &text(4)?,
            ));
        }
        Ok(objects)
    }

    /// Checks a copy: its structure, and what SQLite can check without the application's code, table by
    /// table.
    pub(crate) fn judge(&self, structure: &Structure) -> Soundness {
        let mut sound = Soundness::of_structure(structure);
        if sound.damage.is_some() {
            return sound;
        }
        let tables = structure.objects.iter();
        for table in tables.filter(|o| o.kind == "table" && o.root != 0) {
            match self.judge_table(&table.name, structure) {
                Ok(Some(damage)) => {
                    sound.damage = Some(format!("{table}: {damage}"));
                    return sound;
                }
                Ok(None) => {}
                Err(e) if says_damage(&e) => {
                    sound.damage = Some(format!("{table}: {e}"));
                    return sound;
                }
                Err(rusqlite::Error::SqlInputError { msg, .. }) => {
                    sound.unchecked.push(format!("{table}: {msg}"));
                }
                Err(e) => sound.unchecked.push(format!("{table}: {e}")),
            }
        }
        sound
    }

    /// A certain fault of a table; an error is what SQLite can't check.
    fn judge_table(&self, table: &str, structure: &Structure) -> rusqlite::Result<Option<String>> {
        // Indexes that use an application's collation or function: this SQLite's result proves nothing,
        // even for a known name, because the application may have its own NOCASE.
        let mut foreign = Vec::new();
        let sql = "SELECT l.name, l.partial, EXISTS (SELECT 1 FROM pragma_index_xinfo(l.name) x \
                   WHERE x.cid = -2 OR x.coll <> 'BINARY' COLLATE NOCASE OR x.cid IN \
                   (SELECT cid FROM pragma_table_xinfo(?1) WHERE hidden IN (2, 3))) \
                   FROM pragma_index_list(?1) l";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([table])?;
        while let Some(row) = rows.next()? {
            let (name, partial): (String, bool) = (row.get(0)?, row.get(1)?);
            let counts = (
                structure.entries("index", &name),
                structure.entries("table", table),
            );
            if let (false, (Some(entries), Some(of))) = (partial, counts)
                && entries != of
            {
                let damage = format!("index {name} has {entries} entries for {of} rows");
                return Ok(Some(damage));
            }
            if partial || row.get(2)? {
                foreign.push(name);
            }
        }
        drop(rows);
        let quoted = table.replace('"', "\"\"");
        let mut statement = self
            .connection
            .prepare(&format!("PRAGMA integrity_check(\"{quoted}\")"))?;
        let mut rows = statement.query([])?;
        let mut doubtful = None;
        while let Some(row) = rows.next()? {
            let said: String = row.get(0)?;
            if said == "ok" {
                continue;
            }
            let of_foreign = foreign
                .iter()
                .any(|name| said.ends_with(&format!(" index {name}")));
            let of_rules = ["NULL value", "NUMERIC value", "TEXT value"]
                .iter()
                .any(|rule| said.starts_with(rule));
            let of_order = said.starts_with("row not in PRIMARY KEY order") && !foreign.is_empty();
            match of_foreign || of_rules || of_order {
                true => doubtful = Some(said),
                false => return Ok(Some(said)),
            }
        }
        match doubtful {
            // Reported, but it proves nothing.
            Some(said) => Err(unjudged(format!("{said}, by this SQLite's rules"))),
            None if self.has_check(table)? => Err(unjudged("its CHECK constraints".to_owned())),
            None => Ok(None),
        }
    }

    /// Whether a table has CHECK constraints, which SQLite does not check on a read-only connection.
    fn has_check(&self, table: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT lower(sql) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        let made: String = self.connection.query_row(sql, [table], |row| row.get(0))?;
        let is_one = |(at, word): (usize, &str)| {
            let before = made[..at].chars().next_back();
            let after = made[at + word.len()..].trim_start();
            after.starts_with('(') && !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
        };
        Ok(made.match_indices("check").any(is_one))
    }

    /// The names of all tables except Litestream's, in order.
    fn tables(&self) -> Result<Vec<String>, String> {
        let objects = self.objects();
        let objects = objects.map_err(|e| format!("its tables can't be listed: {e}"))?;
        let mut names: Vec<String> = named_tables(&objects).map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The number of rows in a table, if SQLite can count them.
    pub(crate) fn count(&self, table: &str) -> Option<u64> {
        let quoted = table.replace('"', "\"\"");
        let sql = format!("SELECT count(*) FROM \"{quoted}\" NOT INDEXED");
        let rows: rusqlite::Result<i64> = self.connection.query_row(&sql, [], |row| row.get(0));
        rows.ok().and_then(|rows| u64::try_from(rows).ok())
    }

    /// The stored content of a table, without computed columns.
    ///
    /// # Errors
    /// Why it can't be read, in words.
    pub(crate) fn content(&self, table: &str) -> Result<Content, String> {
        let read = || -> rusqlite::Result<Content> {
            let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
            let sql = "SELECT name, hidden FROM pragma_table_xinfo(?1)";
            let mut statement = self.connection.prepare(sql)?;
            let mut rows = statement.query([table])?;
            let (mut names, mut stored) = (Vec::new(), Vec::new());
            while let Some(row) = rows.next()? {
                let name: String = row.get(0)?;
                if row.get::<_, i64>(1)? == 0 {
                    stored.push(quote(&name));
                }
                names.push(name.to_lowercase());
            }
            let sql = "SELECT wr FROM pragma_table_list(?1) WHERE schema = 'main'";
            let without_rowid: bool = self.connection.query_row(sql, [table], |row| row.get(0))?;
            let number = ["rowid", "_rowid_", "oid"]
                .into_iter()
                .find(|name| !names.iter().any(|n| n == name));
            if let (false, Some(number)) = (without_rowid, number) {
                stored.push(number.to_owned());
            }
            // In the table's own order, whatever indexes exist.
            let (columns, table) = (stored.join(", "), quote(table));
            self.sum(&format!("SELECT {columns} FROM {table} NOT INDEXED"), [])
        };
        read().map_err(|e| e.to_string())
    }

    /// The content of the heartbeat table between two ids, inclusive.
    ///
    /// # Errors
    /// Why it can't be read, in words.
    pub(crate) fn heartbeat(&self, table: &TableName, ids: (i64, i64)) -> Result<Content, String> {
        let sql = format!("SELECT * FROM {table} WHERE id BETWEEN ?1 AND ?2 ORDER BY id");
        self.sum(&sql, [ids.0, ids.1]).map_err(|e| e.to_string())
    }

    /// The first and the last id of the heartbeat table; `None` if it is empty.
    pub(crate) fn ids(&self, table: &TableName) -> Option<(i64, i64)> {
        let sql = format!("SELECT min(id), max(id) FROM {table}");
        let ids = self
            .connection
            .query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        ids.ok()
    }

    fn sum(&self, sql: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<Content> {
        let mut statement = self.connection.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query(parameters)?;
        let mut hasher = DefaultHasher::new();
        let mut count = 0;
        while let Some(row) = rows.next()? {
            self.is_too_dear(count).map_err(unjudged)?;
            for column in 0..columns {
                hash(row.get_ref(column)?, &mut hasher);
            }
            count += 1;
        }
        Ok(Content {
            rows: count,
            checksum: hasher.finish(),
        })
    }
}

impl Hold {
    /// # Errors
    /// The limit that is reached, in words.
    fn look(&self) -> Result<(), String> {
        let grown = size_of(&self.wal).saturating_sub(self.before);
        let why = match (self.begun.elapsed() > HELD_LIMIT, grown > self.most) {
            (true, _) => format!("read within {} min", HELD_LIMIT.as_secs() / 60),
            (_, true) => format!("read before its WAL grew by {} MiB", grown >> 20),
            _ => return Ok(()),
        };
        Err(format!(
            "the live database could not be {why}, and checkpoints wait for that: verify when less \
             is written, or raise [database] wal_guard"
        ))
    }
}

impl Rows {
    /// Differences beside the rows: the schema and the header's numbers.
    pub(crate) fn differences(&self, replica: &Self) -> Vec<String> {
        let mut named = changes(&self.objects, &replica.objects).0;
        let numbers = self.header.iter().zip(&replica.header);
        let others = numbers.filter(|(here, there)| here != there);
        named.extend(others.map(|((name, _), _)| format!("the header: {name}")));
        named
    }
}

/// Whether the linked SQLite can read a database's pages (SQLITE_ENABLE_DBPAGE_VTAB).
pub(crate) fn linked_gives_pages() -> bool {
    Connection::open_in_memory().is_ok_and(|connection| gives_pages(&connection))
}

fn gives_pages(connection: &Connection) -> bool {
    let sql = "SELECT EXISTS (SELECT 1 FROM pragma_module_list WHERE name = 'sqlite_dbpage')";
    connection.query_row(sql, [], |row| row.get(0)) == Ok(true)
}

fn size_of(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |file| file.len())
}

/// A connection to an untrusted database: its schema runs nothing with side effects, and its cells are
/// checked before use.
fn distrusting(connection: Connection) -> rusqlite::Result<Connection> {
    distrust_schema(&connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// A read-only connection to the live database.
fn reader(database: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY_LIMIT)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    distrusting(connection)
}

/// A finding of SQLite's that proves no damage.
fn unjudged(why: String) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR);
    rusqlite::Error::SqliteFailure(code, Some(why))
}

/// A definition that can't be read is damage, unless it uses the application's code: SQLite also
/// refuses a function that has the name of one of ours and more arguments.
fn says_damage(error: &rusqlite::Error) -> bool {
    let said = error.to_string();
    let is_of_code = ["function", "collation", "module", "unsafe use"]
        .iter()
        .any(|word| said.contains(word));
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SystemIoFailure)
    ) && !(said.contains("malformed database schema") && is_of_code)
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
