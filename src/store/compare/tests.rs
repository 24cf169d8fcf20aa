//! Copies that differ in one thing, and sound ones of every kind.

use std::fs;
use std::path::PathBuf;

use super::*;

/// An own collation and an own function in indexes, a CHECK and a generated column with them, tables of
/// modules that this SQLite lacks, and names that nobody expects.
const EVERYTHING: &str = "
    PRAGMA application_id = 7; PRAGMA user_version = 3;
    CREATE TABLE plain (id INTEGER PRIMARY KEY, text TEXT, data BLOB);
    CREATE TABLE moved (text TEXT, real REAL);
    CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
    CREATE TABLE keyed (a PRIMARY KEY, b) WITHOUT ROWID;
    CREATE TABLE \"odd \"\"na'me\" (\"co l\" TEXT);
    CREATE TABLE own (id INTEGER PRIMARY KEY, name TEXT, CHECK (length(name) > 0));
    CREATE TABLE calculated (id INTEGER PRIMARY KEY, lat REAL, cell AS (abs(lat)), kept AS (floor(lat)) STORED);
    CREATE TABLE long (key TEXT PRIMARY KEY, b) WITHOUT ROWID;
    CREATE INDEX by_long ON long (b);
    CREATE TABLE texts_content (id INTEGER PRIMARY KEY, c0);
    CREATE TABLE boxes_node (nodeno INTEGER PRIMARY KEY, data);
    CREATE INDEX by_text ON plain (text);
    CREATE INDEX some ON plain (text) WHERE id > 10;
    CREATE INDEX by_uni ON own (name COLLATE NOCASE);
    CREATE INDEX by_own ON own (lower(name));
    CREATE VIEW seen AS SELECT text FROM plain;
    CREATE TRIGGER noted AFTER INSERT ON moved BEGIN UPDATE counted SET v = 0 WHERE id = 0; END;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
    INSERT INTO plain SELECT i, 'text ' || i, zeroblob(i * 40) FROM n;
    INSERT INTO moved SELECT text, id + 0.5 FROM plain;
    INSERT INTO counted (v) SELECT id FROM plain;
    INSERT INTO keyed SELECT text, id FROM plain;
    INSERT INTO \"odd \"\"na'me\" VALUES ('x'), (NULL);
    INSERT INTO own SELECT id, 'Name ' || id FROM plain;
    INSERT INTO calculated (lat) SELECT id * 1.5 FROM plain;
    INSERT INTO long SELECT id || hex(zeroblob(id * 2)), hex(zeroblob(id)) || id FROM plain;
    INSERT INTO texts_content VALUES (1, 'fts');
    INSERT INTO boxes_node VALUES (1, x'0001');
    CREATE TABLE gone (x); INSERT INTO gone SELECT data FROM plain; DROP TABLE gone;
    PRAGMA writable_schema = ON;
    UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'UNI') WHERE name = 'by_uni';
    UPDATE sqlite_schema SET sql = replace(sql, 'lower', 'own_fold') WHERE name = 'by_own';
    UPDATE sqlite_schema SET sql = replace(sql, 'length', 'own_length') WHERE name = 'own';
    UPDATE sqlite_schema SET sql = replace(sql, 'abs', 'own_cell') WHERE name = 'calculated';
    INSERT INTO sqlite_schema VALUES ('table', 'texts', 'texts', 0, 'CREATE VIRTUAL TABLE texts USING fts9 (c0)');
    INSERT INTO sqlite_schema VALUES ('table', 'boxes', 'boxes', 0, 'CREATE VIRTUAL TABLE boxes USING rtree9 (a, b, c)');
";

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("edgerepl-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn database(&self, begin: &str, sql: &str) -> PathBuf {
        let path = self.0.join("app.db");
        for end in ["", "-wal", "-shm", "-journal"] {
            let _ = fs::remove_file(self.0.join(format!("app.db{end}")));
        }
        let connection = Connection::open(&path).expect("a connection");
        let quick = "PRAGMA synchronous = off";
        connection.execute_batch(quick).expect("no waits");
        connection.execute_batch(begin).expect("its beginning");
        connection.execute_batch(sql).expect("the database");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn pages_of(database: &Path) -> Pages {
    let (live, ()) = Snapshot::of_live(database, || ()).expect("a snapshot");
    let pages = live.pages().expect("readable pages");
    pages.expect("sqlite_dbpage")
}

/// What a change leaves of the header's counters gives nothing away.
fn keep_counters(copy: &Path, original: &[u8]) {
    let mut bytes = fs::read(copy).expect("the copy");
    for range in [24..28, 92..96] {
        bytes[range.clone()].copy_from_slice(&original[range]);
    }
    fs::write(copy, bytes).expect("the copy");
}

fn sound(copy: &Path) -> Soundness {
    let structure = Structure::of(copy).expect("a file");
    Snapshot::of_copy(copy).expect("a copy").judge(&structure)
}

#[test]
fn a_copy_with_one_change_is_not_believed_and_the_change_is_named() {
    let folder = Folder::new("mutations");
    let live = folder.database("PRAGMA journal_mode = wal;", EVERYTHING);
    let pages = pages_of(&live);
    let original = fs::read(&live).expect("the file");
    let copy = folder.0.join("copy.db");
    let compare = || {
        let structure = Structure::of(&copy).expect("a file");
        pages.compare(&copy, &structure).expect("a comparison")
    };
    fs::write(&copy, &original).expect("the copy");
    let same = compare();
    assert_eq!(same.pages, 0, "{:?}", same.named);
    assert!(same.named.is_empty() && same.tables.is_empty());

    let by_sql = [
        ("DROP INDEX by_text", "index by_text is missing"),
        ("DROP INDEX some", "index some is missing"),
        ("DROP INDEX by_uni", "index by_uni is missing"),
        ("DROP TRIGGER noted", "trigger noted is missing"),
        ("DROP VIEW seen", "view seen is missing"),
        (
            "DROP VIEW seen; CREATE VIEW seen AS SELECT data FROM plain",
            "view seen is made otherwise",
        ),
        (
            "DROP INDEX some; CREATE INDEX some ON plain (text) WHERE id > 11",
            "index some is made otherwise",
        ),
        ("DROP TABLE keyed", "table keyed is missing"),
        ("CREATE TABLE more (x)", "table more is too many"),
        (
            "ALTER TABLE moved ADD COLUMN more",
            "table moved is made otherwise",
        ),
        (
            "UPDATE sqlite_sequence SET seq = 9999",
            "table sqlite_sequence: ",
        ),
        ("DELETE FROM sqlite_sequence", "table sqlite_sequence: "),
        ("PRAGMA user_version = 4", "the header (user_version)"),
        ("PRAGMA application_id = 8", "the header (application_id)"),
        (
            "UPDATE moved SET rowid = 1000 WHERE rowid = 300",
            "table moved: ",
        ),
        ("DELETE FROM plain WHERE id = 150", "table plain: "),
        ("DELETE FROM plain", "table plain: "),
        (
            "INSERT INTO plain (text) VALUES ('more')",
            "index by_text: ",
        ),
        (
            "UPDATE plain SET text = 'other' WHERE id = 5",
            "index by_text: ",
        ),
        (
            "UPDATE plain SET data = CAST(data AS TEXT) WHERE id = 5",
            "table plain: ",
        ),
        (
            "UPDATE moved SET real = real + 1e-12 WHERE rowid = 1",
            "table moved: ",
        ),
        (
            "UPDATE moved SET text = '' WHERE rowid = 1",
            "table moved: ",
        ),
        (
            "UPDATE \"odd \"\"na'me\" SET \"co l\" = '' WHERE \"co l\" IS NULL",
            "odd \"na'me: ",
        ),
        ("UPDATE keyed SET b = 0 WHERE a = 'text 7'", "table keyed: "),
        ("DELETE FROM keyed WHERE a = 'text 7'", "table keyed: "),
        (
            "UPDATE texts_content SET c0 = 'ftS'",
            "table texts_content: ",
        ),
        ("UPDATE boxes_node SET data = x'0002'", "table boxes_node: "),
        ("DELETE FROM calculated", "table calculated: "),
        (
            "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'texts'",
            "table texts is missing",
        ),
        (
            "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE tbl_name IN ('own', 'calculated'); PRAGMA writable_schema = RESET; VACUUM",
            "table own is missing",
        ),
        (
            "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE tbl_name IN ('own', 'calculated'); PRAGMA writable_schema = RESET; PRAGMA journal_mode = delete; PRAGMA page_size = 1024; VACUUM",
            "pages of 1024 bytes",
        ),
    ];
    for (sql, expected) in by_sql {
        fs::write(&copy, &original).expect("the copy");
        let writer = Connection::open(&copy).expect("a connection");
        let changed = writer.execute_batch(sql);
        changed.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let emptied = "PRAGMA journal_mode = delete; PRAGMA journal_mode = wal";
        writer.execute_batch(emptied).expect("a file without a WAL");
        drop(writer);
        keep_counters(&copy, &original);
        let found = compare();
        assert!(found.pages > 0, "{sql}");
        let named = found.named.iter().any(|name| name.contains(expected));
        assert!(named, "{sql}: {:?}", found.named);
    }

    let size = pages.page_size;
    let first_of = |owner: &str| -> usize {
        let structure = Structure::of(&live).expect("a file");
        let mut all = 1..=u32::try_from(pages.count()).expect("few pages");
        all.rfind(|page| structure.owner(*page) == owner)
            .unwrap_or_else(|| panic!("{owner} has no page")) as usize
            - 1
    };
    for owner in [
        "table plain",
        "index by_own",
        "table own",
        "free pages",
        "index by_uni",
    ] {
        let mut bytes = original.clone();
        // The last byte: of a cell, or of what is free.
        bytes[(first_of(owner) + 1) * size - 1] ^= 1;
        fs::write(&copy, bytes).expect("the copy");
        let found = compare();
        assert_eq!(found.pages, 1, "{owner}");
        assert!(
            found.named[0].starts_with(owner),
            "{owner}: {:?}",
            found.named
        );
    }
    let mut swapped = original.clone();
    let (one, other) = (first_of("table plain") * size, first_of("table own") * size);
    for byte in 0..size {
        swapped.swap(one + byte, other + byte);
    }
    fs::write(&copy, swapped).expect("the copy");
    assert_eq!(compare().pages, 2);
    fs::write(&copy, &original[..original.len() - size]).expect("the copy");
    assert!(compare().pages > 0);
    fs::write(&copy, [&original[..], &[0; 100]].concat()).expect("the copy");
    assert!(compare().pages > 0);
    fs::write(&copy, "").expect("the copy");
    assert!(compare().pages > 0);
}

#[test]
fn without_pages_what_cannot_be_read_is_a_difference() {
    let folder = Folder::new("rows");
    let live = folder.database("PRAGMA journal_mode = wal;", EVERYTHING);
    let copy = folder.0.join("copy.db");
    fs::copy(&live, &copy).expect("the copy");
    let (live, ()) = Snapshot::of_live(&live, || ()).expect("a snapshot");
    let replica = Snapshot::of_copy(&copy).expect("a copy");
    // A column that is computed does not matter, and all rows are seen.
    let whole = live.content("calculated").expect("what is stored");
    assert_eq!(whole.rows, 300);
    assert_eq!(replica.content("calculated"), Ok(whole));
    assert!(live.content("texts").is_err());
    assert_eq!(live.differences(&replica), Ok(Vec::new()));
    drop(replica);
    let writer = Connection::open(&copy).expect("a connection");
    let change = "DELETE FROM calculated; DROP VIEW seen; PRAGMA user_version = 5;";
    writer.execute_batch(change).expect("a change");
    drop(writer);
    let replica = Snapshot::of_copy(&copy).expect("a copy");
    assert_ne!(replica.content("calculated"), Ok(whole));
    let named = live.differences(&replica).expect("both are readable");
    assert_eq!(named, ["view seen is missing", "the header: user_version"]);
}

#[test]
fn what_needs_the_applications_code_is_no_damage_and_is_told() {
    let folder = Folder::new("foreign");
    let found = sound(&folder.database("", EVERYTHING));
    assert_eq!(found.damage, None);
    let told = found.unchecked.join("\n");
    assert!(
        told.contains("table own: ") && told.contains("own_"),
        "{told}"
    );
    // Its own NOCASE, by which its index is in another order than by ours.
    let own_order = "CREATE TABLE t (x); CREATE INDEX i ON t (x); \
        INSERT INTO t VALUES ('a'), ('B'), ('c'), ('D'); PRAGMA writable_schema = ON; \
        UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON t (x COLLATE NOCASE)' WHERE name = 'i';";
    let found = sound(&folder.database("", own_order));
    assert_eq!(found.damage, None);
    assert!(found.unchecked[0].contains("index i"), "{found:?}");
    // A rule that its rows broke before it was made.
    let rule = "CREATE TABLE t (x); INSERT INTO t VALUES (1); PRAGMA writable_schema = ON; \
        UPDATE sqlite_schema SET sql = 'CREATE TABLE t (x CHECK (x > 1))';";
    let found = sound(&folder.database("", rule));
    assert_eq!(found.damage, None);
    assert_eq!(found.unchecked, ["table t: its CHECK constraints"]);
    // A function of ours by its name, of the application's by its arguments: ICU's.
    let more = "CREATE TABLE t (x); CREATE INDEX i ON t (lower(x)); INSERT INTO t VALUES ('I'); \
        PRAGMA writable_schema = ON; \
        UPDATE sqlite_schema SET sql = replace(sql, '(x))', '(x, ''tr''))') WHERE name = 'i';";
    let found = sound(&folder.database("", more));
    assert_eq!(found.damage, None);
    assert!(found.unchecked[0].contains("lower()"), "{found:?}");
    // What nobody can read is damage.
    let torn = more.replace("'(x, ''tr''))'", "'(x'");
    let found = sound(&folder.database("", &torn));
    assert!(
        found
            .damage
            .is_some_and(|said| said.contains("malformed database schema (i)"))
    );
    // By the same columns in their plain order it is damage.
    let plain = own_order.replace("x COLLATE NOCASE", "x DESC");
    let found = sound(&folder.database("", &plain));
    assert!(found.damage.is_some_and(|said| said.contains("index i")));
}

#[test]
fn sound_databases_of_every_kind_are_believed() {
    let folder = Folder::new("kinds");
    for size in [512, 1024, 4096, 65_536] {
        for vacuum in 0..3 {
            for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
                let begin = format!(
                    "PRAGMA page_size = {size}; PRAGMA auto_vacuum = {vacuum}; \
                     PRAGMA encoding = '{encoding}';"
                );
                let database = folder.database(&begin, EVERYTHING);
                let said = || format!("{begin} {:?}", sound(&database).damage);
                assert_eq!(sound(&database).damage, None, "{}", said());
                let structure = Structure::of(&database).expect("a file");
                assert_eq!(structure.entries("table", "plain"), Some(300));
                assert_eq!(structure.entries("index", "by_text"), Some(300));
                let writer = Connection::open(&database).expect("a connection");
                let less = "DELETE FROM plain WHERE id % 3 > 0; PRAGMA incremental_vacuum(5);";
                writer.execute_batch(less).expect("a change");
                assert_eq!(sound(&database).damage, None, "{}", said());
                writer.execute_batch("DROP INDEX by_uni; DROP INDEX by_own; DROP TABLE own; DROP TABLE calculated; VACUUM").expect("a smaller one");
                assert_eq!(sound(&database).damage, None, "{}", said());
            }
        }
    }
}

#[test]
fn the_lock_page_is_where_sqlite_has_it() {
    let pages = [512, 4096, 65_536].map(lock_page);
    assert_eq!(pages, [2_097_153, 262_145, 16_385]);
}

#[test]
fn a_broken_structure_is_named_and_none_is_a_panic() {
    let folder = Folder::new("broken");
    let database = folder.database(
        "PRAGMA page_size = 512; PRAGMA auto_vacuum = 1;",
        EVERYTHING,
    );
    let original = fs::read(&database).expect("the file");
    let copy = folder.0.join("copy.db");
    let structure = Structure::of(&database).expect("a file");
    let root = structure.objects.iter().find(|o| o.name == "plain");
    let root = root.expect("the table").root as usize;
    for (at, byte, expected) in [
        (
            (root - 1) * 512,
            99,
            "of table plain: it is no page of a b-tree",
        ),
        ((root - 1) * 512 + 8, 99, "of table plain: it leads to page"),
        ((root - 1) * 512 + 3, 99, "of table plain: its cells begin"),
        (39, 77, "free pages: "),
        (16, 0, "the file's header is none"),
    ] {
        let mut bytes = original.clone();
        bytes[at] = byte;
        fs::write(&copy, bytes).expect("the copy");
        let faults = Structure::of(&copy).expect("a file").faults.join("\n");
        assert!(faults.contains(expected), "{expected}: {faults}");
    }
    // Whatever is in a file, the walk ends.
    let mut seed = 20_261_127_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize
    };
    for _ in 0..500 {
        let mut bytes = original.clone();
        for _ in 0..1 + random() % 8 {
            let page = match random() % 2 {
                0 => random() % 30 * 512,
                _ => random() % (bytes.len() / 512) * 512,
            };
            let at = page + random() % 512 % (1 << (random() % 10));
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, random() as u8][random() % 6];
        }
        fs::write(&copy, &bytes).expect("the copy");
        let _ = Structure::of(&copy).expect("a file");
    }
}
