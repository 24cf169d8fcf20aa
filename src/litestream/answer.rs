//! Litestream's answer to a sync, and the state of its files and of the WAL at that moment, or before a
//! start.
//!
//! Owns the types and sentences for it. Never judges: the agent decides whether an answer can be
//! true.

/// Why Litestream did not confirm a sync.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SyncFailure {
    /// Nothing listens on its control socket.
    NoSocket,
    /// It says that it can't read its own local state (a power cut leaves it so, or somebody
    /// removed it).
    StateCorrupt(String),
    /// What it uploads, or is about to, lacks the beginning of the WAL.
    BeginningMissed,
    /// S3 refuses the session, as one whose time is over; what was said of it.
    SessionEnded(String),
    /// It tried and failed.
    Failed(String),
}

/// What is wrong after a writer was killed in the middle of a commit.
pub const BEGINNING_MISSED: &str = "Litestream read the WAL from its middle on, after a writer \
                                    was killed in a commit: its replica misses rows";

/// Where Litestream and its replica stand.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// The last transaction that Litestream took from the database.
    pub local: u64,
    /// The last one that its replica holds.
    pub replicated: u64,
}

/// What Litestream answered to a sync, and how its files and the WAL looked then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Where it says that it stands.
    pub position: Position,
    /// Its own files; `None` where it has no folder of them that can be seen.
    pub files: Option<Files>,
    /// By which the last commit in the WAL is told from any other, [`NO_COMMIT`] where there is
    /// none; `None` where that can't be seen.
    pub last_commit: Option<u64>,
    /// The folder of its files begins with one that it fetched from its replica, after which it took
    /// another WAL; `None` as long as it has taken nothing after it.
    pub passed_a_wal_over: Option<bool>,
    /// What it took since the answer before lacks the beginning of the WAL.
    pub lacks_beginning: bool,
}

/// What its files and the WAL look like while it is down.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Survey {
    /// The WAL is another one than it read last.
    pub wal_was_reset: bool,
    /// The mark of the folder of its files; `None` where no such folder can be seen.
    pub folder: Option<u64>,
}

/// The mark of a WAL without a commit.
pub const NO_COMMIT: u64 = 0;

/// What is to be known of the files by which Litestream remembers what it took. Marks are equal
/// where what they stand for is the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Files {
    /// The folder's mark.
    pub folder: u64,
    /// The mark of the last transaction's file, if it is there.
    pub last: Option<u64>,
    /// The same for the last transaction of the answer before.
    pub before: Option<u64>,
}
