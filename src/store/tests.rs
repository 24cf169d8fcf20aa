use super::*;

/// With a database in it that holds no table.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("edgerepl-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder");
        make(&path.join("app.db"));
        Self(path)
    }

    fn database(&self) -> PathBuf {
        self.0.join("app.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes a database without a table.
fn make(database: &Path) {
    let made = Connection::open(database).expect("a database");
    made.execute_batch("PRAGMA user_version = 1")
        .expect("a page");
}

fn store(folder: &Folder, started: i64) -> Store {
    let table: TableName = "HealthCheck".parse().expect("a name");
    Store::new(&folder.database(), &table, WallTime::from_unix(started))
}

#[test]
fn ids_begin_at_the_start_and_never_collide() {
    let folder = Folder::new("ids");
    let mut first = store(&folder, 1_000);
    assert_eq!(first.write_row(), Ok(1_000));
    assert_eq!(first.write_row(), Ok(1_001));
    // A later start with a clock that went back to 1970 goes on after what is there,
    let mut second = store(&folder, 5);
    assert_eq!(second.write_row(), Ok(1_002));
    // and so does one that another writer got in front of.
    assert_eq!(first.write_row(), Ok(1_003));
    assert_eq!(second.write_row(), Ok(1_004));
    assert_eq!(store(&folder, 2_000).write_row(), Ok(2_000));
}

#[test]
fn a_locked_database_delays_the_row_and_only_that() {
    let folder = Folder::new("locked");
    let mut store = store(&folder, 1);
    assert_eq!(store.write_row(), Ok(1));
    let writer = Connection::open(folder.database()).expect("a connection");
    writer.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let refused = store.write_row().expect_err("the database is locked");
    assert!(
        refused.ends_with("is locked by another writer"),
        "{refused}"
    );
    WalGuard::take(&folder.database()).expect("a reader is not held up by a writer");
    writer.execute_batch("COMMIT").expect("the end of the lock");
    assert_eq!(store.write_row(), Ok(2));
}

#[test]
fn a_row_moves_a_short_wal_to_the_database_and_no_long_one() {
    for (megabytes, is_moved) in [(5, true), (10, false)] {
        let folder = Folder::new("checkpoint");
        let mut store = store(&folder, 1);
        store.write_row().expect("a row");
        let writer = Connection::open(folder.database()).expect("a connection");
        writer
            .query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))
            .expect("a setting");
        let sql = format!("CREATE TABLE t AS SELECT randomblob({megabytes} << 20)");
        writer.execute_batch(&sql).expect("a long WAL");
        store.write_row().expect("a row");
        let length = fs::metadata(folder.database()).expect("it").len();
        assert_eq!(length > megabytes << 20, is_moved, "{megabytes} MiB");
    }
}

#[test]
fn a_replaced_database_is_opened_anew() {
    let folder = Folder::new("replaced");
    let mut store = store(&folder, 1);
    assert_eq!(store.write_row(), Ok(1));
    for file in ["app.db", "app.db-wal", "app.db-shm"] {
        fs::remove_file(folder.0.join(file)).expect("the file");
    }
    make(&folder.database());
    assert_eq!(store.write_row(), Ok(1));
}

#[test]
fn a_missing_database_is_made_by_one_alone_who_knows() {
    let folder = Folder::new("missing");
    fs::remove_file(folder.database()).expect("the file");
    let mut store = store(&folder, 1);
    assert!(is_missing(&store.database));
    assert!(store.write_row().is_err());
    assert!(WalGuard::take(&folder.database()).is_err());
    assert!(empty_wal(&folder.database()).is_err());
    assert!(!folder.database().exists(), "it was made all the same");
    assert_eq!(store.write_first_row(), Ok(1));
    assert!(!is_missing(&store.database));
    assert_eq!(store.write_row(), Ok(2));
    // An empty file is no database, unless a WAL or a journal holds it.
    let empty = folder.0.join("empty.db");
    fs::write(&empty, "").expect("a file");
    assert!(is_missing(&empty) && is_empty(&empty));
    for end in ["-wal", "-journal"] {
        let beside = folder.0.join(format!("empty.db{end}"));
        fs::write(&beside, "x").expect("a file");
        assert!(!is_missing(&empty), "{end}");
        fs::write(&beside, "").expect("a file");
        assert!(is_missing(&empty), "{end}");
        fs::remove_file(&beside).expect("the file");
    }
    assert!(!is_empty(&store.database) && !is_empty(&folder.0));
    let refused = WalGuard::take(&empty)
        .map(drop)
        .expect_err("nothing to hold");
    assert!(refused.ends_with("is an empty file"), "{refused}");
    assert!(is_empty(&empty), "it was made a database");
    // A folder that isn't there may be a partition that is mounted later.
    let nowhere = Path::new("/nowhere/app.db");
    assert!(!is_missing(nowhere));
}

#[test]
fn what_is_no_database_is_an_error_and_is_left_as_it_is() {
    let folder = Folder::new("damaged");
    let text = "not a database, but long enough to be taken for one by its size alone";
    fs::write(folder.database(), text.repeat(100)).expect("the file");
    let refused = store(&folder, 1).write_row().expect_err("no database");
    assert!(refused.contains("is damaged"), "{refused}");
    assert_eq!(
        fs::read_to_string(folder.database()).expect("the file"),
        text.repeat(100)
    );
}

#[test]
fn prunes_only_what_is_older_than_asked() {
    let folder = Folder::new("prune");
    let mut store = store(&folder, 10);
    assert_eq!(store.write_row(), Ok(10));
    let other = Connection::open(folder.database()).expect("a connection");
    let old = "INSERT INTO HealthCheck VALUES (1, '2001-01-01 00:00:00')";
    other.execute_batch(old).expect("an old row");
    assert_eq!(store.prune(Duration::from_secs(3600)), Ok(1));
    assert_eq!(store.prune(Duration::from_secs(3600)), Ok(0));
    let left: i64 = other
        .query_row("SELECT id FROM HealthCheck", [], |r| r.get(0))
        .expect("a row");
    assert_eq!(left, 10);
}

/// The application's rows, and what becomes of them beside a store that is told to use their table.
#[test]
fn what_edgerepl_did_not_make_is_neither_written_to_nor_pruned() {
    const OLD: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 49)";
    const OURS: &str = "(id INTEGER PRIMARY KEY, created_at TEXT DEFAULT CURRENT_TIMESTAMP)";
    let cases = [
        (
            "its own form",
            "CREATE TABLE HealthCheck (id INTEGER PRIMARY KEY, created_at, result)".to_owned(),
            "is a table that edgerepl did not make",
        ),
        (
            "another case",
            "CREATE TABLE healthCHECK (id INTEGER PRIMARY KEY, created_at, result)".to_owned(),
            "is a table that edgerepl did not make",
        ),
        (
            "the form of the version without the mark",
            format!("CREATE TABLE HealthCheck {OURS}"),
            "is a table with rows that edgerepl did not write",
        ),
        (
            "that form in another case",
            format!("CREATE TABLE HEALTHCHECK {OURS}"),
            "is a table with rows that edgerepl did not write",
        ),
        (
            "a quoted name",
            format!("CREATE TABLE \"HealthCheck\" {OURS}"),
            "is a table that edgerepl did not make",
        ),
        (
            "strict",
            format!("CREATE TABLE HealthCheck {OURS} STRICT"),
            "is a table that edgerepl did not make",
        ),
        (
            "a view",
            format!(
                "CREATE TABLE checks {OURS}; \
                     CREATE VIEW HealthCheck AS SELECT id, created_at FROM checks; \
                     CREATE TRIGGER writes INSTEAD OF INSERT ON HealthCheck BEGIN \
                     INSERT INTO checks VALUES (new.id, new.created_at); END"
            ),
            "is a view",
        ),
        (
            "an index",
            format!("CREATE TABLE checks {OURS}; CREATE INDEX healthcheck ON checks (id)"),
            "is an index",
        ),
        (
            "a virtual table",
            format!(
                "CREATE TABLE checks {OURS}; PRAGMA writable_schema = ON; \
                     INSERT INTO sqlite_schema VALUES ('table', 'HealthCheck', 'HealthCheck', 0, \
                     'create virtual table HealthCheck USING a_module_of_its_own (body)');"
            ),
            "is a virtual table",
        ),
    ];
    for (case, schema, says) in cases {
        let folder = Folder::new("foreign");
        let application = Connection::open(folder.database()).expect("a connection");
        application.execute_batch(&schema).expect(case);
        let rows = match case {
            "a view" | "an index" | "a virtual table" => "checks",
            _ => "HealthCheck",
        };
        let insert = format!(
            "INSERT INTO {rows} (id, created_at) {OLD} SELECT i, '2001-01-01 00:00:00' FROM n"
        );
        application.execute_batch(&insert).expect(case);
        let mut store = store(&folder, 1_790_000_000);
        for _ in 0..2 {
            let refused = store.write_row().expect_err(case);
            assert!(refused.contains(says), "{case}: {refused}");
            let next = "set [heartbeat] table = \"edgerepl_heartbeat\"";
            assert!(refused.ends_with(next), "{case}: {refused}");
            let _ = store.prune(Duration::from_secs(1));
        }
        assert_eq!(count(&application, rows), 49, "{case}");
    }
}

#[test]
fn the_name_that_is_proposed_is_free() {
    let folder = Folder::new("proposed");
    let application = Connection::open(folder.database()).expect("a connection");
    application
        .execute_batch("CREATE TABLE HealthCheck (a); CREATE TABLE EDGEREPL_heartbeat (a)")
        .expect("the tables");
    let refused = store(&folder, 1).write_row().expect_err("it is taken");
    assert!(refused.ends_with("\"edgerepl_heartbeat_2\""), "{refused}");
}

#[test]
fn a_table_of_the_version_without_the_mark_stays_in_use() {
    for first in [None, Some(1_700_000_000)] {
        let folder = Folder::new("unmarked");
        let before = Connection::open(folder.database()).expect("a connection");
        before
            .execute_batch(
                "CREATE TABLE IF NOT EXISTS HealthCheck \
                     (id INTEGER PRIMARY KEY, created_at TEXT DEFAULT CURRENT_TIMESTAMP)",
            )
            .expect("the table");
        if let Some(first) = first {
            let sql = "INSERT INTO HealthCheck VALUES (?1, '2023-11-14 22:13:20')";
            before.execute(sql, [first]).expect("a row");
        }
        let mut store = store(&folder, 1_790_000_000);
        assert_eq!(store.write_row(), Ok(1_790_000_000));
        let pruned = store.prune(Duration::from_secs(3600));
        assert_eq!(pruned, Ok(usize::from(first.is_some())));
        // The application begins to use it.
        before
            .execute_batch("INSERT INTO HealthCheck VALUES (1, '2001-01-01 00:00:00')")
            .expect("a row");
        assert!(store.prune(Duration::from_secs(3600)).is_err());
        assert!(store.write_row().is_err());
        assert_eq!(count(&before, "HealthCheck"), 2);
    }
}

#[test]
fn what_the_application_hangs_on_the_table_later_stops_rows_and_pruning() {
    let cases = [
        (
            "CREATE TRIGGER copies AFTER INSERT ON healthcheck BEGIN DELETE FROM own; END",
            "DROP TRIGGER copies",
            "is a table with the trigger \"copies\" on it",
        ),
        (
            "CREATE TRIGGER aborts BEFORE DELETE ON HealthCheck BEGIN DELETE FROM own; END",
            "DROP TRIGGER aborts",
            "is a table with the trigger \"aborts\" on it",
        ),
        (
            "CREATE TRIGGER calls AFTER INSERT ON HealthCheck \
                 BEGIN SELECT a_function_of_its_own(new.id); END",
            "DROP TRIGGER calls",
            "is a table with the trigger \"calls\" on it",
        ),
        (
            "CREATE UNIQUE INDEX seconds ON healthcheck (created_at)",
            "DROP INDEX seconds",
            "is a table with the index \"seconds\" on it",
        ),
        (
            "CREATE INDEX days ON HealthCheck (date(created_at))",
            "DROP INDEX days",
            "is a table with the index \"days\" on it",
        ),
        (
            "CREATE INDEX late ON HealthCheck (id) WHERE created_at > '2100'",
            "DROP INDEX late",
            "is a table with the index \"late\" on it",
        ),
        (
            "CREATE TABLE \"its own\" (at REFERENCES HEALTHCHECK ON DELETE CASCADE); \
                 INSERT INTO \"its own\" VALUES (5)",
            "DROP TABLE \"its own\"",
            "is a table that \"its own\" refers to",
        ),
        (
            "ALTER TABLE HealthCheck ADD COLUMN result",
            "ALTER TABLE HealthCheck DROP COLUMN result",
            "is a table that edgerepl did not make",
        ),
        (
            "ALTER TABLE HealthCheck RENAME TO kept; \
                 CREATE VIEW HealthCheck AS SELECT id, created_at FROM kept",
            "DROP VIEW HealthCheck",
            "is a view",
        ),
    ];
    for (change, back, says) in cases {
        let folder = Folder::new("later");
        let mut store = store(&folder, 10);
        assert_eq!(store.write_row(), Ok(10));
        let application = Connection::open(folder.database()).expect("a connection");
        application
            .execute_batch(
                "CREATE TABLE own (a); INSERT INTO own VALUES (1); \
                     INSERT INTO HealthCheck VALUES (5, '2001-01-01 00:00:00')",
            )
            .expect("the application's rows");
        application.execute_batch(change).expect(change);
        let refused = store.prune(Duration::from_secs(1)).expect_err(change);
        assert!(refused.contains(says), "{refused}");
        let refused = store.write_row().expect_err(change);
        assert!(refused.contains(says), "{refused}");
        assert_eq!(count(&application, "HealthCheck"), 2, "{change}");
        assert_eq!(count(&application, "own"), 1, "{change}");
        application.execute_batch(back).expect(back);
        if !change.contains("COLUMN") {
            assert!(store.write_row().is_ok(), "{change}");
            assert!(store.prune(Duration::from_secs(1)).is_ok(), "{change}");
        }
    }
}

#[test]
fn an_index_that_sorts_as_sqlite_does_is_in_nobodys_way() {
    let folder = Folder::new("sorted");
    let mut store = store(&folder, 10);
    assert_eq!(store.write_row(), Ok(10));
    let application = Connection::open(folder.database()).expect("a connection");
    application
        .execute_batch("CREATE INDEX by_date ON HealthCheck (created_at COLLATE nocase, id)")
        .expect("an index");
    assert_eq!(store.write_row(), Ok(11));
}

#[test]
fn rows_of_somebody_else_in_our_table_are_passed_over_and_never_pruned() {
    let folder = Folder::new("strangers");
    let mut store = store(&folder, 1_000);
    assert_eq!(store.write_row(), Ok(1_000));
    let other = Connection::open(folder.database()).expect("a connection");
    let strangers = [
        "(9223372036854775807, '2001-01-01 00:00:00')",
        "(1790000000123, '2001-01-01 00:00:00')",
        "(1, NULL)",
        "(2, '')",
        "(3, 'yesterday')",
        "(4, 5)",
        "(5, x'00')",
        "(6, '2001-01-01')",
        "(-9223372036854775808, 0.5)",
    ];
    for row in strangers {
        let sql = format!("INSERT INTO HealthCheck VALUES {row}");
        other.execute_batch(&sql).expect(row);
    }
    assert_eq!(store.write_row(), Ok(1_001));
    assert_eq!(store.prune(Duration::from_secs(1)), Ok(0));
    assert_eq!(count(&other, "HealthCheck"), 2 + strangers.len());
    let last = format!("INSERT INTO HealthCheck (id) VALUES ({})", END_OF_IDS - 1);
    other.execute_batch(&last).expect("the last id");
    let refused = store.write_row().expect_err("no id is left");
    assert!(refused.ends_with("delete that row"), "{refused}");
}

/// Neither rows that are not ours nor rows of a clock that was ahead keep the old ones for ever.
#[test]
fn pruning_gets_past_what_it_leaves() {
    let folder = Folder::new("past");
    let mut store = store(&folder, 5_000);
    assert_eq!(store.write_row(), Ok(5_000));
    let other = Connection::open(folder.database()).expect("a connection");
    other
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1200) \
                 INSERT INTO HealthCheck SELECT i, iif(i % 2, NULL, '9000-01-01 00:00:00') FROM n; \
                 INSERT INTO HealthCheck VALUES (4000, '2001-01-01 00:00:00')",
        )
        .expect("the rows");
    assert_eq!(store.prune(Duration::from_secs(3600)), Ok(1));
}

#[test]
fn a_database_that_is_a_link_is_refused_by_name() {
    let folder = Folder::new("link");
    fs::remove_file(folder.database()).expect("the file");
    let real = folder.0.join("real.db");
    for target_exists in [false, true] {
        if target_exists {
            make(&real);
        } else {
            std::os::unix::fs::symlink(&real, folder.database()).expect("a link");
        }
        let mut store = store(&folder, 1);
        let guard = WalGuard::take(&folder.database()).map(drop);
        let empty = empty_wal(&folder.database());
        for refused in [store.write_row().map(drop), guard, empty] {
            let refused = refused.expect_err("it is a link");
            assert!(refused.contains("is a symbolic link"), "{refused}");
            let target = real.display().to_string();
            assert!(refused.contains(&target), "{refused}");
        }
        let made = fs::read_dir(&folder.0).expect("the folder").count();
        assert_eq!(made, 1 + usize::from(target_exists));
    }
}

#[test]
fn a_link_in_a_parent_folder_is_fine() {
    let folder = Folder::new("parent");
    let (real, link) = (folder.0.join("real"), folder.0.join("link"));
    fs::create_dir(&real).expect("a folder");
    make(&real.join("app.db"));
    std::os::unix::fs::symlink(&real, &link).expect("a link");
    let table: TableName = "HealthCheck".parse().expect("a name");
    let mut store = Store::new(&link.join("app.db"), &table, WallTime::from_unix(1));
    assert_eq!(store.write_row(), Ok(1));
    assert!(real.join("app.db-wal").exists());
}

fn count(connection: &Connection, table: &str) -> usize {
    let sql = format!("SELECT count(*) FROM {table}");
    let rows: isize = connection
        .query_row(&sql, [], |row| row.get(0))
        .expect("a count");
    rows.unsigned_abs()
}

/// Parts are left out of the bundled SQLite; what an application has made with its own is no
/// obstacle.
#[test]
fn the_applications_schema_may_need_more_than_we_do() {
    let folder = Folder::new("schema");
    let application = Connection::open(folder.database()).expect("a connection");
    application
        .execute_batch(
            "CREATE TABLE events (body TEXT); \
                 CREATE INDEX kinds ON events (json_extract(body, '$.kind')); \
                 PRAGMA writable_schema = ON; \
                 INSERT INTO sqlite_schema VALUES ('table', 'texts', 'texts', 0, \
                 'CREATE VIRTUAL TABLE texts USING a_module_of_its_own (body)');",
        )
        .expect("the schema");
    drop(application);
    assert_eq!(store(&folder, 1).write_row(), Ok(1));
    let reader = Connection::open(folder.database()).expect("a connection");
    let found: String = reader
        .query_row("PRAGMA integrity_check", [], |r| r.get(0))
        .expect("an answer");
    assert_eq!(found, "ok");
}

#[test]
fn opens_a_database_of_2040() {
    let folder = Folder::new("2040");
    let file = fs::File::options().write(true).open(folder.database());
    let year_2040 = std::time::UNIX_EPOCH + Duration::from_secs(2_208_988_800);
    file.and_then(|file| file.set_modified(year_2040))
        .expect("a file system that knows 2040");
    assert_eq!(store(&folder, 1).write_row(), Ok(1));
}

#[test]
#[ignore = "needs a clock in 2040, which `cargo xtask test year-2040` gives it"]
fn rows_are_dated_in_2040() {
    let folder = Folder::new("dated");
    let mut store = store(&folder, WallTime::now().unix());
    let id = store.write_row().expect("a row");
    assert!(id >= 2_208_988_800, "{id}");
    let reader = Connection::open(folder.database()).expect("a connection");
    let date: String = reader
        .query_row("SELECT created_at FROM HealthCheck", [], |r| r.get(0))
        .expect("the row");
    assert!(date.starts_with("2040-"), "{date}");
    // The row is seconds old, not a hundred years, and not of the future.
    assert_eq!(store.prune(Duration::from_secs(3600)), Ok(0));
    let future = "SELECT count(*) FROM HealthCheck WHERE created_at > datetime('now')";
    let future: i64 = reader.query_row(future, [], |r| r.get(0)).expect("a count");
    assert_eq!(future, 0);
}

#[test]
fn the_guard_keeps_the_wal_from_being_reset() {
    let folder = Folder::new("guard");
    let mut store = store(&folder, 1);
    store.write_row().expect("a row");
    let writer = Connection::open(folder.database()).expect("a connection");
    writer.busy_timeout(Duration::ZERO).expect("no patience");
    let truncate = || -> i64 {
        writer
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get(0))
            .expect("a checkpoint")
    };
    let guard = WalGuard::take(&folder.database()).expect("the guard");
    assert_eq!(truncate(), 1, "the checkpoint was not held up");
    assert!(guard.wal_size() > 0);
    drop(guard);
    assert_eq!(truncate(), 0);
}

#[test]
fn closing_leaves_the_wal_to_litestream() {
    let folder = Folder::new("close");
    let mut store = store(&folder, 1);
    store.write_row().expect("a row");
    drop(store);
    let wal = fs::metadata(folder.0.join("app.db-wal")).expect("the WAL");
    assert!(wal.len() > 0);
}

/// A reader of a database that has no WAL would hold up each commit.
#[test]
fn the_guard_holds_up_no_commit_where_the_application_set_the_journal_mode_back() {
    let folder = Folder::new("set-back");
    let writer = Connection::open(folder.database()).expect("a connection");
    writer
        .execute_batch("PRAGMA journal_mode = delete; CREATE TABLE app (id INTEGER PRIMARY KEY)")
        .expect("a table");
    drop(writer);
    let _guard = WalGuard::take(&folder.database()).expect("the guard");
    let writer = Connection::open(folder.database()).expect("a connection");
    let mode: String = writer
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .expect("a mode");
    assert_eq!(mode, "wal");
    writer
        .execute_batch("INSERT INTO app DEFAULT VALUES")
        .expect("a commit is not held up");
}

/// Under an application that commits all the time there is a place between two commits.
#[test]
fn a_wal_is_emptied_beside_a_writer_that_does_not_rest() {
    let folder = Folder::new("restless");
    let database = folder.database();
    let writer = Connection::open(&database).expect("a connection");
    writer
        .execute_batch("PRAGMA journal_mode = wal; CREATE TABLE app (data BLOB)")
        .expect("a table");
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        scope.spawn(move || {
            writer
                .busy_timeout(Duration::from_secs(10))
                .expect("a limit");
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                // Longer in a commit than in between.
                writer
                    .execute_batch("BEGIN IMMEDIATE; INSERT INTO app VALUES (zeroblob(9999))")
                    .expect("a row");
                std::thread::sleep(Duration::from_millis(50));
                writer.execute_batch("COMMIT").expect("a commit");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let emptied: Vec<_> = (0..5)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(30));
                empty_wal(&database)
            })
            .collect();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(emptied.iter().all(Result::is_ok), "{emptied:?}");
    });
}
