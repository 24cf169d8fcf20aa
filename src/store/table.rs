//! The owner of the heartbeat table. Rows are written to, and pruned from, only a table that
//! edgerepl made.
//!
//! Owns the table's definition, and the mark in it, which SQLite keeps with the schema. The rest of
//! the schema is the application's, which may have a table of the same name in another case. Never
//! changes, renames or drops what it finds.

use std::fmt;

use rusqlite::{Connection, OptionalExtension, params};

use crate::config::TableName;

/// What edgerepl writes into the text of its own table.
const MARK: &str = " /* made and pruned by edgerepl */";

/// 2020 began then. The version before the mark counted its rows from the time of its start, where
/// an application counts from 1.
const YEAR_2020: i64 = 1_577_836_800;

/// Other names for the table, to be proposed if its name is taken.
const OTHER_NAMES: [&str; 4] = [
    "edgerepl_heartbeat",
    "edgerepl_heartbeat_2",
    "edgerepl_heartbeat_3",
    "edgerepl_heartbeat_4",
];

/// Whether edgerepl may use the heartbeat table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Claim {
    /// The name is unused: the table can be made.
    Free,
    /// It is edgerepl's for as long as the schema stays as it is.
    Ours,
    /// It is edgerepl's by its rows: an earlier version made it without a mark.
    OursByItsRows,
}

/// Another object has the name, or depends on the table.
#[derive(Debug)]
pub(super) struct Taken {
    table: String,
    /// What it is, after "is".
    what: String,
    /// An unused name.
    instead: Option<&'static str>,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, what, .. } = self;
        write!(
            f,
            "{table} is {what}: edgerepl writes and prunes no heartbeat rows; "
        )?;
        match self.instead {
            Some(name) => write!(f, "set [heartbeat] table = {name:?}"),
            None => f.write_str("set [heartbeat] table to an unused name"),
        }
    }
}

/// The statement that makes the table, with its mark.
pub(super) fn definition(table: &TableName) -> String {
    text_of(table, MARK)
}

/// Says whose the table is, by the schema that `connection` sees.
pub(super) fn claim(
    connection: &Connection,
    table: &TableName,
) -> rusqlite::Result<Result<Claim, Taken>> {
    let what = match look(connection, table)? {
        Ok(claim) => return Ok(Ok(claim)),
        Err(what) => what,
    };
    let mut instead = None;
    for name in OTHER_NAMES {
        if let Ok(other) = name.parse()
            && look(connection, &other)?.is_ok()
        {
            instead = Some(name);
            break;
        }
    }
    Ok(Err(Taken {
        table: table.to_string(),
        what,
        instead,
    }))
}

fn text_of(table: impl fmt::Display, mark: &str) -> String {
    format!(
        "CREATE TABLE {table} \
         (id INTEGER PRIMARY KEY, created_at TEXT DEFAULT CURRENT_TIMESTAMP{mark})"
    )
}

/// The claim, or what has the name instead. SQLite ignores the case of ASCII letters in names.
fn look(connection: &Connection, table: &TableName) -> rusqlite::Result<Result<Claim, String>> {
    let name = table.to_string();
    let named = "SELECT type, name, coalesce(sql, '') FROM main.sqlite_master \
                 WHERE type <> 'trigger' AND name = ?1 COLLATE NOCASE";
    let found = connection
        .query_row(named, [&name], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((kind, stored, sql)): Option<(String, String, String)> = found else {
        return Ok(Ok(Claim::Free));
    };
    let is_virtual = sql
        .get(..14)
        .is_some_and(|start| start.eq_ignore_ascii_case("CREATE VIRTUAL"));
    let what = match kind.as_str() {
        "table" if is_virtual => "a virtual table".to_owned(),
        "table" if sql == text_of(&stored, MARK) => return hanging_on(connection, &name),
        "table" if sql == text_of(&stored, "") => {
            if !began_since_2020(connection, table)? {
                "a table with rows that edgerepl did not write".to_owned()
            } else {
                let hanging = hanging_on(connection, &name)?;
                return Ok(hanging.map(|_| Claim::OursByItsRows));
            }
        }
        "table" => "a table that edgerepl did not make".to_owned(),
        "view" => "a view".to_owned(),
        other => format!("an {other}"),
    };
    Ok(Err(what))
}

/// A trigger does something of the application's with each row; an index may refuse a row, or need
/// the application's own code for it; a foreign key deletes the application's rows with ours, or
/// keeps ours from being deleted.
fn hanging_on(connection: &Connection, name: &str) -> rusqlite::Result<Result<Claim, String>> {
    let trigger = "SELECT name FROM main.sqlite_master \
                   WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE";
    let trigger: Option<String> = connection
        .query_row(trigger, [name], |row| row.get(0))
        .optional()?;
    if let Some(trigger) = trigger {
        return Ok(Err(format!("a table with the trigger {trigger:?} on it")));
    }
    // An index that only sorts a column by SQLite's own rules does no harm.
    let index = "SELECT name FROM pragma_index_list(?1) AS found WHERE found.\"unique\" \
                 OR found.partial OR EXISTS (SELECT 1 FROM pragma_index_xinfo(found.name) \
                 WHERE cid = -2 OR upper(coll) NOT IN ('BINARY', 'NOCASE', 'RTRIM'))";
    let index: Option<String> = connection
        .query_row(index, [name], |row| row.get(0))
        .optional()?;
    if let Some(index) = index {
        return Ok(Err(format!("a table with the index {index:?} on it")));
    }
    let reference = "SELECT referring.name FROM main.sqlite_master AS referring, \
                     pragma_foreign_key_list(referring.name) AS foreign_key \
                     WHERE referring.type = 'table' AND referring.sql LIKE '%references%' \
                     AND foreign_key.\"table\" = ?1 COLLATE NOCASE";
    let referring: Option<String> = connection
        .query_row(reference, [name], |row| row.get(0))
        .optional()?;
    Ok(match referring {
        Some(referring) => Err(format!("a table that {referring:?} refers to")),
        None => Ok(Claim::Ours),
    })
}

/// Whether its rows are as the version without the mark wrote them. A table without rows is taken
/// for one: nothing in it can be lost.
fn began_since_2020(connection: &Connection, table: &TableName) -> rusqlite::Result<bool> {
    let others = format!("SELECT EXISTS (SELECT 1 FROM main.{table} WHERE id < ?1)");
    let others: bool = connection.query_row(&others, params![YEAR_2020], |row| row.get(0))?;
    Ok(!others)
}
