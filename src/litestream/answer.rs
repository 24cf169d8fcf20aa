//! Litestream's answer to a sync, and the state of its files and of the WAL at that time or before a
//! start.
//!
//! Owns the types and sentences for it. Never judges: the agent decides whether an answer proves
//! anything.

/// Why Litestream did not confirm a sync.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SyncFailure {
    /// Nothing listens on its control socket.
    NoSocket,
    /// It can't read its own local state (after a power cut, or because the files were removed).
    StateCorrupt(String),
    /// What it uploads, or is about to upload, lacks the beginning of the WAL.
    BeginningMissed,
    /// S3 refuses the session as expired; the text of the error.
    SessionEnded(String),
    /// It tried and failed.
    Failed(String),
}

/// The problem after a writer was killed during a commit.
pub const BEGINNING_MISSED: &str = "Litestream read the WAL from its middle on, after a writer \
                                    was killed in a commit: its replica misses rows";

/// The problem after a WAL was begun anew between the look at it and Litestream's start.
pub const WAL_PASSED_OVER: &str = "the WAL was begun anew before Litestream had read all of it, so its replica \
                                   misses rows";

/// The positions of Litestream and its replica.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// The last transaction that Litestream took from the database.
    pub local: u64,
    /// The last transaction that its replica holds.
    pub replicated: u64,
}

/// Litestream's answer to a sync, and the state of its files and the WAL at that time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The position that it reports.
    pub position: Position,
    /// Its own files; `None` if their folder can't be seen.
    pub files: Option<Files>,
    /// The mark of the last commit in the WAL, [`NO_COMMIT`] if there is none; `None` if it can't be
    /// read.
    pub last_commit: Option<u64>,
    /// Its folder begins with a file that it fetched from its replica, and it then took another WAL;
    /// `None` until it has taken something.
    pub passed_a_wal_over: Option<bool>,
    /// What it took since the last answer lacks the beginning of the WAL.
    pub lacks_beginning: bool,
    /// It has not gone on at the [`Seam`], but with another WAL, and the old one held more; `None` until it has
    /// taken something, and without a seam.
    pub is_torn: Option<bool>,
    /// The WAL has not been begun anew since the [`Seam`].
    pub is_of_seam: bool,
}

/// Where the transactions of one Litestream end, and those of the next one have to go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seam {
    /// The last transaction before.
    pub after: u64,
    /// The salts of the WAL that it was made of.
    pub wal: u64,
    /// Up to where in that WAL it was made of it, in bytes.
    pub read: u64,
}

/// What is known of its transactions before it answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Known {
    /// The last one in an earlier answer.
    pub last: Option<u64>,
    /// Where it has to go on, if it was not seen to.
    pub seam: Option<Seam>,
}

/// The last commit in a WAL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Commit {
    /// It stays the same until the next commit; [`NO_COMMIT`] if there is none.
    pub mark: u64,
    /// Which WAL it is in: another one after each reset.
    pub wal: u64,
    /// The WAL's size up to its end, in bytes.
    pub bytes: u64,
}

impl Commit {
    /// A WAL without one.
    pub const NONE: Self = Self {
        mark: NO_COMMIT,
        wal: NO_COMMIT,
        bytes: 0,
    };

    /// How many bytes the WAL has grown by since `earlier`.
    pub const fn beyond(self, earlier: Self) -> u64 {
        match self.wal == earlier.wal {
            true => self.bytes.saturating_sub(earlier.bytes),
            false => self.bytes,
        }
    }
}

/// The state of its files and the WAL while it is down.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Survey {
    /// The WAL is not the one that it read last.
    pub wal_was_reset: bool,
    /// The database is an empty file.
    pub is_empty: bool,
    /// The mark of the folder of its files, and of the database's file; `None` if it can't be seen.
    pub folder: Option<u64>,
    /// Where the next one has to go on; `None` where it is not known to have read anything of this WAL.
    pub seam: Option<Seam>,
    /// The WAL holds commits that no transaction has; `None` where that can't be told.
    pub has_unread: Option<bool>,
    /// The last one did not go on at the seam that it was given.
    pub is_torn: bool,
}

/// The mark of a WAL without a commit.
pub const NO_COMMIT: u64 = 0;

/// The state of the files in which Litestream records what it took. Equal marks mean equal things.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Files {
    /// The mark of the folder, and of the database's file.
    pub folder: u64,
    /// The mark of the last transaction's file, if it exists.
    pub last: Option<u64>,
    /// The same for the last transaction of the previous answer.
    pub before: Option<u64>,
}
