//! Whether the database's WAL is still the one that Litestream read last.
//!
//! Owns what is known of the files by which Litestream 0.5 remembers it. Reads a few bytes of them
//! and of the WAL, and changes none.
//!
//! Litestream 0.5.17 that comes back to another WAL looks whether the frame that it read last is
//! still in its place. Where it is not, it uploads the whole database. Where it is, for the new WAL
//! is shorter than the old one was, it takes it that it had read all of the old one. Rows that were
//! written to that while Litestream was down are on no replica then, and each sync says that
//! nothing is missing.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::store::wal_of;

/// By which a WAL is told from the one before.
type Salts = [u8; 8];

/// Where they are in a WAL's header, and in that of Litestream's files.
const IN_WAL: usize = 16;
const IN_LTX: usize = 64;

/// Whether the WAL was begun anew since Litestream, which has its local state in `state`, read it.
/// Without a WAL, or with nothing that Litestream remembers, it was not: what is missing Litestream
/// notices by itself.
pub(crate) fn wal_was_reset(database: &Path, state: &Path) -> bool {
    match (salts(&wal_of(database), &[], IN_WAL), last_read(state)) {
        (Some(now), Some(before)) => now != before,
        _ => false,
    }
}

/// Where Litestream has its local state unless it is told.
pub(crate) fn default_state(database: &Path) -> PathBuf {
    let mut folder = OsString::from(".");
    folder.push(database.file_name().unwrap_or_default());
    folder.push("-litestream");
    database.with_file_name(folder)
}

/// The salts of the WAL that Litestream read last, by the newest of its files that can be read: a
/// power cut may have left others.
fn last_read(state: &Path) -> Option<Salts> {
    let files = fs::read_dir(state.join("ltx/0")).ok()?;
    let mut files: Vec<_> = files.flatten().map(|file| file.path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "ltx"));
    // Their names are numbers that grow, all of one length.
    files.sort_unstable();
    let found = files.iter().rev().find_map(|f| salts(f, b"LTX1", IN_LTX));
    found.filter(|salts| *salts != Salts::default())
}

/// The salts in a file that begins with `magic`. SQLite has no lock on a WAL's own file that
/// closing it here could drop.
fn salts(file: &Path, magic: &[u8], at: usize) -> Option<Salts> {
    let mut header = [0; IN_LTX + size_of::<Salts>()];
    let header = &mut header[..at + size_of::<Salts>()];
    File::open(file).ok()?.read_exact(header).ok()?;
    let (before, salts) = header.split_at(at);
    before.starts_with(magic).then(|| salts.try_into().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wal_is_known_by_its_salts() {
        let folder = std::env::temp_dir().join(format!("edgerepl-lineage-{}", std::process::id()));
        let database = folder.join("app.db");
        let state = default_state(&database);
        assert_eq!(state, folder.join(".app.db-litestream"));
        let ltx = state.join("ltx/0");
        fs::create_dir_all(&ltx).expect("a folder");
        let reset = || wal_was_reset(&database, &state);
        let file = |magic: &[u8], at: usize, salts: &[u8]| {
            [magic, &vec![7; at - magic.len()], salts].concat()
        };
        let read = |name: &str, content: &[u8]| fs::write(ltx.join(name), content).expect("a file");

        assert!(!reset(), "there is nothing");
        fs::write(folder.join("app.db-wal"), file(b"", IN_WAL, b"new salt")).expect("a WAL");
        assert!(!reset(), "Litestream remembers nothing");
        read("1.ltx", &file(b"LTX1", IN_LTX, b"old salt"));
        assert!(reset());
        read("2.ltx", &file(b"LTX1", IN_LTX, b"new salt"));
        assert!(!reset());
        read("2.ltx", b"LTX1, cut off");
        read("3.ltx", &file(b"LTX9", IN_LTX, b"new salt"));
        read("4.tmp", &file(b"LTX1", IN_LTX, b"new salt"));
        assert!(reset(), "the newest can't be read");
        fs::write(folder.join("app.db-wal"), b"").expect("an empty WAL");
        assert!(!reset());
        fs::remove_dir_all(folder).expect("the folder");
    }
}
