//! Sound files of many kinds, files with one fault, and SQLite's own judgement of the same files.

use std::fs;
use std::path::PathBuf;

use rusqlite::Connection;

use super::*;

/// Trees of several levels, records that go on on other pages, and pages that are free.
const CONTENT: &str = "
    CREATE TABLE small (id INTEGER PRIMARY KEY, text TEXT);
    CREATE TABLE large (data BLOB);
    CREATE TABLE keyed (a TEXT PRIMARY KEY, b) WITHOUT ROWID;
    CREATE TABLE none (x);
    CREATE INDEX by_text ON small (text);
    CREATE INDEX by_data ON large (data);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
    INSERT INTO small SELECT i * 7, 'row ' || i || hex(zeroblob(i % 50)) FROM n;
    INSERT INTO large SELECT zeroblob(id * 3) FROM small WHERE id < 1400;
    INSERT INTO large VALUES (zeroblob(200000));
    INSERT INTO keyed SELECT text || id, zeroblob(id) FROM small WHERE id < 700;
    INSERT INTO small VALUES (-9223372036854775808, 'first'), (9223372036854775807, 'last');
    CREATE TABLE gone (x); INSERT INTO gone SELECT data FROM large; DROP TABLE gone;
";

/// A database in a folder of its own.
struct Database(PathBuf);

impl Database {
    fn new(name: &str, begin: &str) -> Self {
        let path = std::env::temp_dir().join(format!("edgerepl-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder");
        let database = Self(path);
        database.change(&format!("{begin} {CONTENT}"));
        database
    }

    fn path(&self) -> PathBuf {
        self.0.join("app.db")
    }

    fn change(&self, sql: &str) {
        let connection = Connection::open(self.path()).expect("a connection");
        let changed = connection.execute_batch(&format!("PRAGMA synchronous = off; {sql}"));
        changed.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    fn structure(&self) -> Structure {
        Structure::of(&self.path()).expect("a file")
    }

    /// The faults of a file with other bytes.
    fn faults_of(&self, bytes: &[u8]) -> String {
        let copy = self.0.join("copy.db");
        fs::write(&copy, bytes).expect("a copy");
        Structure::of(&copy).expect("a file").faults.join("\n")
    }

    /// What SQLite says of it, of the structure alone.
    fn judged_by_sqlite(&self, bytes: &[u8]) -> Vec<String> {
        let copy = self.0.join("copy.db");
        fs::write(&copy, bytes).expect("a copy");
        let connection = Connection::open(&copy).expect("a connection");
        let judge = || -> rusqlite::Result<Vec<String>> {
            let mut statement = connection.prepare("PRAGMA integrity_check(1000)")?;
            statement.query_map([], |row| row.get(0))?.collect()
        };
        judge().unwrap_or_else(|e| vec![format!("error: {e}")])
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn sound_files_of_every_kind_have_no_fault_and_no_page_without_an_owner() {
    for size in [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536] {
        for vacuum in 0..3 {
            let begin = format!("PRAGMA page_size = {size}; PRAGMA auto_vacuum = {vacuum};");
            let database = Database::new("sound", &begin);
            for change in [
                "",
                "DELETE FROM small WHERE id % 3 = 0; DELETE FROM large WHERE rowid % 2 = 0;",
                "PRAGMA secure_delete = on; DELETE FROM keyed WHERE a > 'row 2';",
                "PRAGMA incremental_vacuum(7);",
                "UPDATE large SET data = zeroblob(9000) WHERE rowid % 5 = 0;",
                "DROP TABLE keyed; VACUUM;",
                "PRAGMA journal_mode = wal; DELETE FROM large;",
                "DELETE FROM small;",
            ] {
                database.change(change);
                let structure = database.structure();
                let faults = structure.faults.join("\n");
                assert_eq!(faults, "", "{begin} {change}");
                for page in 1..structure.owners.len() {
                    let owner = structure.owners[page];
                    assert_ne!(owner, NOBODY, "{begin} {change} page {page}");
                }
            }
        }
    }
}

#[test]
fn one_fault_is_told_with_its_page_and_its_owner() {
    let database = Database::new("faults", "PRAGMA page_size = 512; PRAGMA auto_vacuum = 2;");
    let original = fs::read(database.path()).expect("the file");
    let structure = database.structure();
    let root = |name: &str| {
        let object = structure.objects.iter().find(|object| object.name == name);
        object.expect("the object").root as usize
    };
    let leads_to = |page: usize| (page as u32).to_be_bytes();
    let (small, large, by_text) = (root("small"), root("large"), root("by_text"));
    let at = |page: usize| (page - 1) * 512;
    let first_free = page_at(&original, 32) as usize;
    let twice = format!("page {large} of table large: it leads to page {small}, which belongs");
    let mapped = format!("page {small} of table small: the pointer map is wrong");
    let none = format!("page {small} of table small: it leads to page 4294967295");
    let endless = format!("it leads to page {first_free}, which belongs to free pages already");
    let faults: [(usize, &[u8], &str); 13] = [
        (0, b"s", "the file's header is not a database's"),
        (16, &[0, 3], "the file's header is not a database's"),
        (20, &[200], "reserves more of each page"),
        (21, &[63], "a format that SQLite does not know"),
        (44, &[0, 0, 0, 9], "a format that SQLite does not know"),
        (28, &[0x7f; 4], "the file ends with page"),
        (36, &[0, 0, 0, 1], "free pages: there are"),
        (at(first_free), &leads_to(first_free), &endless),
        (at(large) + 8, &leads_to(small), &twice),
        (at(small) + 8, &[0xff; 4], &none),
        (
            at(by_text),
            &[13],
            "of index by_text: it is a page of another kind",
        ),
        // The first page of the pointer map, where it speaks of a root.
        (at(2) + 5 * (small - 3), &[5], &mapped),
        (
            at(small) + 3,
            &[0xff, 0xff],
            "of table small: its cells begin outside",
        ),
    ];
    for (place, bytes, expected) in faults {
        let mut changed = original.clone();
        changed[place..place + bytes.len()].copy_from_slice(bytes);
        let told = database.faults_of(&changed);
        assert!(told.contains(expected), "{place} {expected}: {told}");
    }
    // Cut off, also in the midst of a page.
    for length in [
        0,
        50,
        100,
        511,
        512,
        original.len() - 512,
        original.len() - 1,
    ] {
        let told = database.faults_of(&original[..length]);
        assert!(!told.is_empty(), "{length}");
    }
}

/// What SQLite finds wrong with a file without any schema, the walk finds, too; and it finds nothing in
/// a file with which SQLite finds nothing wrong.
#[test]
fn the_walk_judges_as_sqlite_does() {
    let mut seed = 20_261_127_u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    };
    let (mut sound, mut broken) = (0, 0);
    for vacuum in 0..2 {
        let begin = format!("PRAGMA page_size = 512; PRAGMA auto_vacuum = {vacuum};");
        let database = Database::new("judged", &begin);
        let original = fs::read(database.path()).expect("the file");
        for _ in 0..250 {
            let mut bytes = original.clone();
            let page = random(original.len() / 512) * 512;
            for _ in 0..=random(3) {
                // The head of a page more often than the rest.
                let reach = 1 << (1 + random(9));
                let at = page + random(reach);
                bytes[at] = match random(4) {
                    0 => bytes[at] ^ 1 << random(8),
                    1 => bytes[at].wrapping_add(1),
                    2 => 0,
                    _ => 0xff,
                };
            }
            let faults = database.faults_of(&bytes);
            let said = database.judged_by_sqlite(&bytes);
            let structural = said.iter().find(|said| is_structural(said));
            match structural {
                None if said == ["ok"] => {
                    assert_eq!(faults, "", "at page {}", page / 512 + 1);
                    sound += 1;
                }
                None => {}
                Some(said) => {
                    assert_ne!(faults, "", "at page {}: {said}", page / 512 + 1);
                    broken += 1;
                }
            }
        }
    }
    assert!(sound > 20 && broken > 150, "{sound} {broken}");
}

fn is_structural(said: &str) -> bool {
    let begins = ["Tree ", "Page ", "Freelist", "Bad ptr", "*** in", "error: "];
    // What a definition says is not for the walk to read.
    begins.iter().any(|begin| said.starts_with(begin))
        && !said.contains("malformed database schema")
}
