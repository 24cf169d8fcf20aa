//! Copies that differ in one thing, and sound ones of every kind.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::store::format::lock_page;
use changes::{CHANGES, EVERYTHING};

mod changes;

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
    let (live, ()) = Snapshot::of_live(database, u64::MAX, || ()).expect("a snapshot");
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
        let differing = pages.differing(&copy).expect("a comparison");
        let found = pages.name(&differing, &structure);
        assert_eq!(
            differing.is_none(),
            found.pages == 0 && found.named.is_empty()
        );
        found
    };
    // What the verdict was by before: what the tables hold, and nothing else.
    let tables = || -> BTreeMap<_, _> {
        let copy = Snapshot::of_copy(&copy).expect("a copy");
        copy.rows()
            .map_or_else(|_| BTreeMap::new(), |rows| rows.tables)
    };
    let (mut changes, mut unseen) = (0, 0);
    fs::write(&copy, &original).expect("the copy");
    let same_tables = tables();
    let same = compare();
    assert_eq!(same.pages, 0, "{:?}", same.named);
    assert!(same.named.is_empty() && same.tables.is_empty());

    for (sql, expected) in CHANGES {
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
        changes += 1;
        unseen += usize::from(tables() == same_tables);
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
        changes += 1;
        unseen += usize::from(tables() == same_tables);
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
    assert_eq!(
        (changes + 4, unseen),
        (40, 13),
        "changes, and those that no table's rows show"
    );
}

#[test]
fn a_look_at_one_moment_ends_where_it_costs_writers_too_much() {
    let folder = Folder::new("held");
    let database = folder.database("PRAGMA journal_mode = wal;", EVERYTHING);
    let writer = Connection::open(&database).expect("a connection");
    let write = || {
        let row = "INSERT INTO plain (data) VALUES (zeroblob(2000000))";
        writer.execute_batch(row).expect("a row");
    };
    write();
    let look = |most| {
        Snapshot::of_live(&database, most, || ())
            .expect("a snapshot")
            .0
    };
    let (patient, hasty) = (look(64 << 20), look(1 << 20));
    write();
    patient.pages().expect("readable pages").expect("pages");
    patient.rows().expect("readable rows");
    let told = [
        hasty.pages().expect_err("a WAL that grew"),
        hasty.rows().expect_err("a WAL that grew"),
    ];
    for told in told {
        assert!(told.contains("before its WAL grew by 1 MiB"), "{told}");
        assert!(told.contains("raise [database] wal_guard"), "{told}");
    }
    let mut late = look(u64::MAX);
    let hold = late.hold.as_mut().expect("a live one");
    hold.begun -= HELD_LIMIT + Duration::from_secs(1);
    let told = late.pages().expect_err("a long look");
    assert!(told.contains("read within 5 min"), "{told}");
    // Let go, they hold up no checkpoint.
    for one in [patient, hasty, late] {
        one.release();
    }
    let busy = "PRAGMA wal_checkpoint(TRUNCATE)";
    let busy = writer.query_row(busy, [], |row| row.get::<_, i64>(0));
    assert_eq!(busy, Ok(0));
}

#[test]
fn without_pages_what_cannot_be_read_is_a_difference() {
    let folder = Folder::new("rows");
    let live = folder.database("PRAGMA journal_mode = wal;", EVERYTHING);
    let copy = folder.0.join("copy.db");
    fs::copy(&live, &copy).expect("the copy");
    let (live, ()) = Snapshot::of_live(&live, u64::MAX, || ()).expect("a snapshot");
    let replica = Snapshot::of_copy(&copy).expect("a copy");
    // A column that is computed does not matter, and all rows are seen.
    let whole = live.content("calculated").expect("what is stored");
    assert_eq!(whole.rows, 300);
    assert_eq!(replica.content("calculated"), Ok(whole));
    assert!(live.content("texts").is_err());
    let rows = live.rows().expect("its rows");
    let same = replica.rows().expect("its rows");
    assert_eq!(rows.differences(&same), [""; 0]);
    drop(replica);
    let writer = Connection::open(&copy).expect("a connection");
    let change = "DELETE FROM calculated; DROP VIEW seen; PRAGMA user_version = 5;";
    writer.execute_batch(change).expect("a change");
    drop(writer);
    let replica = Snapshot::of_copy(&copy).expect("a copy");
    assert_ne!(replica.content("calculated"), Ok(whole));
    let named = rows.differences(&replica.rows().expect("its rows"));
    assert_eq!(
        named,
        [
            "view seen is missing",
            "the header: user_version",
            "the header: freelist_count",
            "the header: schema_version"
        ]
    );
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
            "of table plain: it is not a b-tree page",
        ),
        ((root - 1) * 512 + 8, 99, "of table plain: it leads to page"),
        ((root - 1) * 512 + 3, 99, "of table plain: its cells begin"),
        (39, 77, "free pages: "),
        (16, 0, "the file's header is not a"),
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
