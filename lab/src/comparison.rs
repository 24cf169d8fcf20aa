//! A live database compared with its restored replica, row by row.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

/// A live database beside its restored replica.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Comparison {
    /// Rows in the live database, all tables together.
    pub live: i64,
    /// Rows in the restored one.
    pub restored: i64,
    /// Rows that only one of the two holds.
    pub different: i64,
    /// What `PRAGMA integrity_check` says of the restored one.
    pub integrity: String,
}

impl Comparison {
    /// Whether the replica holds exactly what the live database holds.
    pub fn is_equal(&self) -> bool {
        self.live == self.restored && self.different == 0 && self.integrity == "ok"
    }

    pub(crate) fn of(live: &Path, restored: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(restored)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        let integrity = connection.query_row("PRAGMA integrity_check", [], |r| r.get(0))?;
        connection.execute("ATTACH ?1 AS live", [live.display().to_string()])?;
        let tables: Vec<String> = connection
            .prepare(
                "SELECT name FROM live.sqlite_master WHERE type = 'table' \
                 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
                 AND name NOT LIKE '\\_litestream\\_%' ESCAPE '\\'",
            )?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let count = |sql: String| connection.query_row(&sql, [], |row| row.get::<_, i64>(0));
        let mut sum = Self {
            live: 0,
            restored: 0,
            different: 0,
            integrity,
        };
        for table in tables {
            let table = table.replace('"', "\"\"");
            let (ours, theirs) = (format!("live.\"{table}\""), format!("main.\"{table}\""));
            sum.live += count(format!("SELECT count(*) FROM {ours}"))?;
            sum.restored += count(format!("SELECT count(*) FROM {theirs}"))?;
            for (a, b) in [(&ours, &theirs), (&theirs, &ours)] {
                let only = format!("SELECT * FROM {a} EXCEPT SELECT * FROM {b}");
                sum.different += count(format!("SELECT count(*) FROM ({only})"))?;
            }
        }
        Ok(sum)
    }
}
