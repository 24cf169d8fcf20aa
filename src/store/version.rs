//! The rule about SQLite's version, for the library of this process.
//!
//! SQLite 3.7.0 to 3.51.2 can reset the WAL while another process checkpoints, and lose or corrupt
//! committed data. That happens where one process writes and another (Litestream) checkpoints,
//! which is edgerepl's use. Owns that rule only.

/// The SQLite that this process runs with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SqliteVersion(i32);

impl SqliteVersion {
    /// The version of the library that was linked, or compiled in.
    pub fn linked() -> Self {
        Self(rusqlite::version_number())
    }

    /// Whether it is free of the WAL-reset race.
    pub const fn is_safe(self) -> bool {
        self.0 < 3_007_000 || self.0 > 3_051_002
    }
}

/// The SQLite that edgerepl compiles in must obey the rule.
#[cfg(feature = "bundled-sqlite")]
const _: () = assert!(SqliteVersion(libsqlite3_sys::SQLITE_VERSION_NUMBER).is_safe());

impl std::fmt::Display for SqliteVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}.{}.{}",
            self.0 / 1_000_000,
            self.0 / 1000 % 1000,
            self.0 % 1000
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_the_versions_with_the_wal_reset_race() {
        for (number, safe) in [
            (3_006_023, true),
            (3_007_000, false),
            (3_045_003, false),
            (3_051_002, false),
            (3_051_003, true),
        ] {
            assert_eq!(SqliteVersion(number).is_safe(), safe, "{number}");
        }
        assert_eq!(SqliteVersion(3_051_003).to_string(), "3.51.3");
    }
}
