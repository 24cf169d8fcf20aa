//! The WAL guard: an open read transaction, which keeps every checkpoint from resetting the WAL.
//!
//! Owns one connection of its own. Pins the WAL only if the WAL holds something that is not in the
//! database file yet when the transaction begins, so whoever takes it writes a row first. Says how
//! large the WAL has become; when that is too large is the agent's to know.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{Failure, connect, explain, wal_of};

/// The WAL can't be reset as long as this lives.
#[derive(Debug)]
pub struct WalGuard {
    _transaction: Connection,
    wal: PathBuf,
}

impl WalGuard {
    /// Begins the read transaction.
    ///
    /// # Errors
    /// Why it could not, in words.
    pub fn take(database: &Path) -> Result<Self, String> {
        let begin = || -> Result<_, Failure> {
            let connection = connect(database)?;
            // A transaction begins with its first read, not with BEGIN.
            connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_master;")?;
            Ok(connection)
        };
        let transaction = begin().map_err(|e| explain(database, &e))?;
        Ok(Self {
            _transaction: transaction,
            wal: wal_of(database),
        })
    }

    /// The size of the WAL in bytes.
    pub fn wal_size(&self) -> u64 {
        fs::metadata(&self.wal).map_or(0, |m| m.len())
    }
}
