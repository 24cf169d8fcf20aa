//! The WAL guard: an open read transaction, which keeps every checkpoint from resetting the WAL.
//!
//! Owns one connection. It pins the WAL only if the WAL holds something that is not yet in the
//! database file when the transaction begins, so the caller writes a row first. Reports the size of
//! the WAL; never decides when that is too large: the agent does.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{Absent, Failure, connect, explain, open, wal_of, wal_size};

/// The WAL can't be reset as long as this lives.
#[derive(Debug)]
pub struct WalGuard {
    _transaction: Connection,
    database: PathBuf,
}

impl WalGuard {
    /// Begins the read transaction.
    ///
    /// # Errors
    /// Why it could not, in words.
    pub fn take(database: &Path) -> Result<Self, String> {
        let hold = || -> Result<_, Failure> {
            let held = begin(open(database, Absent::IsRefused)?)?;
            if wal_of(database).exists() {
                return Ok(held);
            }
            // The application has set the journal mode back: there is no WAL, and a reader would hold up
            // its commits.
            drop(held);
            begin(connect(database)?)
        };
        let transaction = hold().map_err(|e| explain(database, &e))?;
        Ok(Self {
            _transaction: transaction,
            database: database.to_owned(),
        })
    }

    /// The size of the WAL in bytes.
    pub fn wal_size(&self) -> u64 {
        wal_size(&self.database).unwrap_or_default()
    }
}

/// A transaction begins with its first read, not with BEGIN; this one needs no schema.
fn begin(connection: Connection) -> Result<Connection, Failure> {
    connection.execute_batch("BEGIN; PRAGMA schema_version;")?;
    Ok(connection)
}
