//! A live database beside its restored replica: page by page, or row by row where the linked SQLite
//! gives no pages.
//!
//! Owns reading both, the live one as it was at one moment, and what is sound about the copy. Writes to
//! neither, runs nothing that their schemas bring along, and holds 8 bytes of each page in memory.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::structure::{HEADER, Object, PageFile, Structure, lock_page};
use super::{BUSY_LIMIT, Failure, connect, distrust_schema, explain};
use crate::config::TableName;

#[cfg(test)]
mod tests;

/// How long the look at one moment waits for a writer to commit.
const WRITER_LIMIT: Duration = Duration::from_secs(5);

/// How many differences are named.
const MOST_NAMED: usize = 100;

/// A database, as it was when this was made.
#[derive(Debug)]
pub(crate) struct Snapshot(Connection);

/// What a table holds: how many rows, and a checksum of them all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Content {
    pub(crate) rows: u64,
    checksum: u64,
}

/// All pages of a database at one moment.
#[derive(Debug)]
pub(crate) struct Pages {
    page_size: usize,
    header: Vec<u8>,
    /// Of the first page without the header, and of all others.
    checksums: Vec<u64>,
    objects: Vec<Object>,
}

/// How a copy differs from what it should be.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    pub(crate) pages: u64,
    /// Each in words.
    pub(crate) named: Vec<String>,
    /// Tables that have an own part in it.
    pub(crate) tables: Vec<String>,
}

/// What can be said of a copy without the application's code.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Soundness {
    pub(crate) damage: Option<String>,
    /// What SQLite can't judge, and why.
    pub(crate) unchecked: Vec<String>,
}

impl Soundness {
    /// `ok`, or the first thing that is wrong.
    pub(crate) fn integrity(&self) -> String {
        self.damage.clone().unwrap_or_else(|| "ok".to_owned())
    }
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
            let holder = distrusting(connect(database)?)?;
            holder.busy_timeout(WRITER_LIMIT)?;
            holder.execute_batch("BEGIN IMMEDIATE")?;
            let done = while_held();
            let snapshot = reader(database)?;
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
        // Immutable: nothing is made beside it.
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
        connection
            .map(Self)
            .map_err(|e| explain(database, &e.into()))
    }

    /// All pages; none where the linked SQLite does not give them.
    ///
    /// # Errors
    /// Why they can't be read, in words.
    pub(crate) fn pages(&self) -> Result<Option<Pages>, String> {
        let mut statement = match self.0.prepare("SELECT pgno, data FROM sqlite_dbpage") {
            Err(e) if e.to_string().contains("no such table: sqlite_dbpage") => return Ok(None),
            statement => statement.map_err(|e| format!("its pages can't be read: {e}"))?,
        };
        let mut read = || -> rusqlite::Result<Pages> {
            let mut pages = Pages::empty();
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                pages.add(row.get(0)?, row.get_ref(1)?.as_blob()?);
            }
            drop(rows);
            pages.objects = self.objects()?;
            Ok(pages)
        };
        let pages = read();
        pages
            .map(Some)
            .map_err(|e| format!("its pages can't be read: {e}"))
    }

    /// The schema, row by row.
    fn objects(&self) -> rusqlite::Result<Vec<Object>> {
        let sql = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema";
        let mut statement = self.0.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut objects = Vec::new();
        while let Some(row) = rows.next()? {
            let text = |column: usize| -> rusqlite::Result<String> {
                // Whatever an application has put there.
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

    /// What is sound about a copy: its structure, and what SQLite can check without the application's
    /// code, table by table.
    pub(crate) fn judge(&self, structure: &Structure) -> Soundness {
        let mut sound = Soundness {
            damage: structure.faults.first().cloned(),
            unchecked: Vec::new(),
        };
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

    /// What is wrong with a table for certain; an error is what SQLite can't judge.
    fn judge_table(&self, table: &str, structure: &Structure) -> rusqlite::Result<Option<String>> {
        // By an application's collation or function: what this SQLite makes of it proves nothing, even
        // of a name that it knows, for the application may have its own NOCASE.
        let mut foreign = Vec::new();
        let sql = "SELECT l.name, l.partial, EXISTS (SELECT 1 FROM pragma_index_xinfo(l.name) x \
                   WHERE x.cid = -2 OR x.coll <> 'BINARY' COLLATE NOCASE OR x.cid IN \
                   (SELECT cid FROM pragma_table_xinfo(?1) WHERE hidden IN (2, 3))) \
                   FROM pragma_index_list(?1) l";
        let mut statement = self.0.prepare(sql)?;
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
            .0
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
            // Told, and not believed.
            Some(said) => Err(unjudged(format!("{said}, by this SQLite's rules"))),
            None if self.has_check(table)? => Err(unjudged("its CHECK constraints".to_owned())),
            None => Ok(None),
        }
    }

    /// Whether a table is made with CHECK constraints, which no read-only connection has SQLite judge.
    fn has_check(&self, table: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT lower(sql) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        let made: String = self.0.query_row(sql, [table], |row| row.get(0))?;
        let is_one = |(at, word): (usize, &str)| {
            let before = made[..at].chars().next_back();
            let after = made[at + word.len()..].trim_start();
            after.starts_with('(') && !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
        };
        Ok(made.match_indices("check").any(is_one))
    }

    /// The names of all tables but SQLite's and Litestream's own, in order.
    pub(crate) fn tables(&self) -> Result<Vec<String>, String> {
        let names = || {
            self.0
                .prepare(
                    "SELECT name FROM sqlite_master WHERE type = 'table' \
                     AND sql NOT LIKE 'create virtual%' \
                     AND (name = 'sqlite_sequence' OR name NOT LIKE 'sqlite\\_%' ESCAPE '\\') \
                     AND name NOT LIKE '\\_litestream\\_%' ESCAPE '\\' ORDER BY name",
                )?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()
        };
        names().map_err(|e| format!("its tables can't be listed: {e}"))
    }

    /// How many rows a table has, where SQLite can count them.
    pub(crate) fn count(&self, table: &str) -> Option<u64> {
        let quoted = table.replace('"', "\"\"");
        let sql = format!("SELECT count(*) FROM \"{quoted}\" NOT INDEXED");
        let rows: rusqlite::Result<i64> = self.0.query_row(&sql, [], |row| row.get(0));
        rows.ok().and_then(|rows| u64::try_from(rows).ok())
    }

    /// What the table of this name holds, as far as it is stored and not computed.
    ///
    /// # Errors
    /// Why it can't be read, in words.
    pub(crate) fn content(&self, table: &str) -> Result<Content, String> {
        let read = || -> rusqlite::Result<Content> {
            let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
            let sql = "SELECT name, hidden FROM pragma_table_xinfo(?1)";
            let mut statement = self.0.prepare(sql)?;
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
            let without_rowid: bool = self.0.query_row(sql, [table], |row| row.get(0))?;
            let number = ["rowid", "_rowid_", "oid"]
                .into_iter()
                .find(|name| !names.iter().any(|n| n == name));
            if let (false, Some(number)) = (without_rowid, number) {
                stored.push(number.to_owned());
            }
            // In the order of the table itself, whatever indexes there are.
            let (columns, table) = (stored.join(", "), quote(table));
            self.sum(&format!("SELECT {columns} FROM {table} NOT INDEXED"), [])
        };
        read().map_err(|e| e.to_string())
    }

    /// What the heartbeat table holds between two ids, both included.
    ///
    /// # Errors
    /// Why it can't be read, in words.
    pub(crate) fn heartbeat(&self, table: &TableName, ids: (i64, i64)) -> Result<Content, String> {
        let sql = format!("SELECT * FROM {table} WHERE id BETWEEN ?1 AND ?2 ORDER BY id");
        self.sum(&sql, [ids.0, ids.1]).map_err(|e| e.to_string())
    }

    /// The first and the last id of the heartbeat table; nothing where it has no row.
    pub(crate) fn ids(&self, table: &TableName) -> Option<(i64, i64)> {
        let sql = format!("SELECT min(id), max(id) FROM {table}");
        let ids = self
            .0
            .query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        ids.ok()
    }

    /// What differs beside the rows, where rows are compared: the schema and the header's numbers.
    ///
    /// # Errors
    /// Why it can't be read, in words.
    pub(crate) fn differences(&self, replica: &Self) -> Result<Vec<String>, String> {
        let read = || -> rusqlite::Result<Vec<String>> {
            let mut named = changes(&self.objects()?, &replica.objects()?).0;
            for name in ["user_version", "application_id", "encoding", "auto_vacuum"] {
                let value = |of: &Self| -> rusqlite::Result<String> {
                    let sql = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
                    of.0.query_row(&sql, [], |row| row.get(0))
                };
                if value(self)? != value(replica)? {
                    named.push(format!("the header: {name}"));
                }
            }
            Ok(named)
        };
        read().map_err(|e| format!("the schema can't be read: {e}"))
    }

    fn sum(&self, sql: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<Content> {
        let mut statement = self.0.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query(parameters)?;
        let mut hasher = DefaultHasher::new();
        let mut count = 0;
        while let Some(row) = rows.next()? {
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

impl Pages {
    fn empty() -> Self {
        Self {
            page_size: 0,
            header: Vec::new(),
            checksums: Vec::new(),
            objects: Vec::new(),
        }
    }

    /// Pages come in order.
    fn add(&mut self, number: u32, bytes: &[u8]) {
        let skipped = if number == 1 { HEADER } else { 0 };
        if number == 1 {
            self.page_size = bytes.len();
            self.header = bytes.get(..HEADER).unwrap_or_default().to_vec();
        }
        let mut hasher = DefaultHasher::new();
        // What the lock page holds is nobody's.
        if number != lock_page(self.page_size) {
            hasher.write(bytes.get(skipped..).unwrap_or_default());
        }
        self.checksums.push(hasher.finish());
    }

    pub(crate) fn count(&self) -> u64 {
        self.checksums.len() as u64
    }

    /// How a restored file differs from these pages. Whose pages they are is told by the file's
    /// structure, and what is not in it any more by the schema that these pages had.
    ///
    /// # Errors
    /// Where the file can't be read, in words.
    pub(crate) fn compare(
        &self,
        copy: &Path,
        structure: &Structure,
    ) -> Result<Differences, String> {
        let file = PageFile::open(copy)?;
        let mut found = Differences::default();
        if file.page_size != self.page_size {
            found.pages = self.count();
            let sizes = (file.page_size, self.page_size);
            found
                .named
                .push(format!("pages of {} bytes, not of {}", sizes.0, sizes.1));
            found.tables = self.objects.iter().map(|o| o.table.clone()).collect();
            return Ok(found);
        }
        let mut owners: BTreeMap<String, (u64, u32)> = BTreeMap::new();
        let mut differ = |owner: String, page: u32| {
            owners.entry(owner).or_insert((0, page)).0 += 1;
        };
        for (page, checksum) in (1_u32..).zip(&self.checksums) {
            if page > file.pages {
                break;
            }
            let mut here = Self {
                page_size: self.page_size,
                ..Self::empty()
            };
            here.add(page, &file.read(page)?);
            let header = page == 1 && here.header != self.header;
            let rest = here.checksums.first() != Some(checksum);
            if header {
                differ(header_difference(&self.header, &here.header), page);
            }
            if rest {
                differ(structure.owner(page), page);
            }
            found.pages += u64::from(header || rest);
        }
        let missing = self.count().saturating_sub(u64::from(file.pages));
        let beyond = u64::from(file.pages).saturating_sub(self.count());
        found.pages += missing + beyond;
        if found.pages == 0 && file.rest == 0 {
            return Ok(found);
        }
        let (changes, tables) = changes(&self.objects, &structure.objects);
        found.tables = tables;
        for object in &structure.objects {
            if owners.contains_key(&object.to_string()) {
                found.tables.push(object.table.clone());
            }
        }
        let pages = owners.iter().map(|(owner, (count, first))| match count {
            1 => format!("{owner}: page {first}"),
            count => format!("{owner}: {count} pages from {first} on"),
        });
        found.named = changes.into_iter().chain(pages).take(MOST_NAMED).collect();
        if missing > 0 {
            let text = format!("{missing} pages are missing at the end");
            found.named.push(text);
        }
        if beyond > 0 || file.rest > 0 {
            let text = format!("{beyond} pages and {} bytes too many at the end", file.rest);
            found.named.push(text);
            found.pages = found.pages.max(1);
        }
        Ok(found)
    }
}

/// Objects that are gone, new or made otherwise, in words, and their tables.
fn changes(live: &[Object], replica: &[Object]) -> (Vec<String>, Vec<String>) {
    let by_name = |objects: &[Object]| -> BTreeMap<(String, String), Object> {
        let keyed = objects.iter().map(|o| (o.kind.clone(), o.name.clone()));
        keyed.zip(objects.iter().cloned()).collect()
    };
    let (live, replica) = (by_name(live), by_name(replica));
    let (mut named, mut tables) = (Vec::new(), Vec::new());
    for (key, object) in &live {
        let what = match replica.get(key) {
            None => "is missing",
            Some(other) if other.definition != object.definition || other.table != object.table => {
                "is made otherwise"
            }
            Some(_) => continue,
        };
        named.push(format!("{object} {what}"));
        tables.push(object.table.clone());
    }
    for (key, object) in &replica {
        if !live.contains_key(key) {
            named.push(format!("{object} is too many"));
            tables.push(object.table.clone());
        }
    }
    (named, tables)
}

/// Which of the header's numbers differ.
fn header_difference(live: &[u8], replica: &[u8]) -> String {
    let fields = [
        (24, 4, "change counter"),
        (28, 4, "size"),
        (32, 8, "free list"),
        (40, 4, "schema cookie"),
        (52, 4, "largest root"),
        (56, 4, "encoding"),
        (60, 4, "user_version"),
        (64, 4, "incremental vacuum"),
        (68, 4, "application_id"),
    ];
    let differs = |at: usize, size: usize| live.get(at..at + size) != replica.get(at..at + size);
    let names: Vec<&str> = fields
        .iter()
        .filter(|(at, size, _)| differs(*at, *size))
        .map(|(_, _, name)| *name)
        .collect();
    match names.is_empty() {
        true => "the header".to_owned(),
        false => format!("the header ({})", names.join(", ")),
    }
}

/// A connection for which the database is somebody else's: its schema runs nothing that has effects,
/// and what it stores is looked at before it is used.
fn distrusting(connection: Connection) -> rusqlite::Result<Connection> {
    distrust_schema(&connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// A connection to the live database that can't write.
fn reader(database: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY_LIMIT)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    distrusting(connection)
}

/// What SQLite says is no proof of damage.
fn unjudged(why: String) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR);
    rusqlite::Error::SqliteFailure(code, Some(why))
}

/// A definition that can't be read is damage, unless it is for a function or the like of the
/// application's: one that has our function's name and more arguments is refused with it.
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
