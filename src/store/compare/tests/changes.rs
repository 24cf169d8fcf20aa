//! A database with every kind of object, and changes to a copy of it that have to be told.

/// An own collation and an own function in indexes, a CHECK and a generated column with them, tables of
/// modules that this SQLite lacks, and names that nobody expects.
pub(crate) const EVERYTHING: &str = "
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

/// Each with what names it.
pub(crate) const CHANGES: &[(&str, &str)] = &[
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
    ("PRAGMA user_version = 4", "user_version)"),
    ("PRAGMA application_id = 8", "application_id)"),
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
