use std::time::Duration;

use super::*;

const GOOD: &str = "
socket: { enabled: true, path: /run/edgerepl/litestream.sock }
dbs:
  - path: /data/app.db
    replica:
      type: s3
      bucket: b
      path: ${EDGEREPL_THING_NAME}/app.db
";

fn configuration(text: &str) -> Configuration {
    let known = [("EDGEREPL_THING_NAME", "thing-1"), ("EMPTY", "")];
    let known = known.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Configuration::read(text, Some(&Variables::closed(known))).expect("YAML")
}

fn findings(text: &str, version: (u32, u32, u32)) -> Vec<Finding> {
    configuration(text).lint(Surroundings {
        databases: &[Path::new("/data/app.db")],
        control_socket: Path::new("/run/edgerepl/litestream.sock"),
        thing_name: Some("thing-1"),
        version: Some(version),
    })
}

#[test]
fn knows_the_bucket() {
    let bucket = |from: &str, to: &str| {
        let changed = GOOD.replace(from, to);
        configuration(&changed).bucket(Path::new("/data/app.db"))
    };
    let known = |name: &str| Some(name.to_owned());
    assert_eq!(bucket("", ""), known("b"));
    let url = "url: s3://fleet/thing/app.db?region=x";
    assert_eq!(bucket("bucket: b", url), known("fleet"));
    let list = GOOD.replace("replica:\n      type", "replicas:\n    - type");
    let old = configuration(&list).bucket(Path::new("/data/app.db"));
    assert_eq!(old, known("b"));
    assert_eq!(bucket("bucket: b", "bucket: $BUCKET"), None);
    assert_eq!(bucket("bucket: b", "type: file"), None);
}

#[test]
fn knows_the_servers() {
    let stores = |from: &str, to: &str| {
        let changed = GOOD.replace(from, to);
        configuration(&changed).stores("eu-west-1").join(" ")
    };
    assert_eq!(stores("", ""), "s3.eu-west-1.amazonaws.com:443");
    for (added, server) in [
        ("region: us-east-2", "s3.us-east-2.amazonaws.com:443"),
        ("region: cn-north-1", "s3.cn-north-1.amazonaws.com.cn:443"),
        ("endpoint: http://127.0.0.1:9000", "127.0.0.1:9000"),
        ("endpoint: http://minio.example", "minio.example:80"),
        ("endpoint: https://[2001:db8::1]/", "[2001:db8::1]:443"),
        ("endpoint: minio.example", "minio.example:443"),
        // As Litestream has it: a variable that nobody sets is empty.
        ("endpoint: $ENDPOINT", "s3.eu-west-1.amazonaws.com:443"),
        ("endpoint: https://key:secret@minio.example", ""),
    ] {
        assert_eq!(
            stores("bucket: b", &format!("bucket: b\n      {added}")),
            server,
            "{added}"
        );
    }
    for (place, server) in [
        ("url: s3://b/app.db", "s3.eu-west-1.amazonaws.com:443"),
        ("url: s3://b/app.db?x=1&endpoint=h:9000&region=r", "h:9000"),
        (
            "url: s3://b/app.db?region=us-east-2",
            "s3.us-east-2.amazonaws.com:443",
        ),
        ("url: file:///backup", ""),
        ("account-name: b", ""),
    ] {
        assert_eq!(stores("bucket: b", place), server, "{place}");
    }
    let both = format!(
        "{GOOD}  - path: /data/b.db\n    replica: {{ bucket: c, endpoint: 'http://h:9' }}\n"
    );
    assert_eq!(
        configuration(&both).stores("eu-west-1"),
        ["s3.eu-west-1.amazonaws.com:443", "h:9"]
    );
}

#[test]
fn tells_people_where_a_replica_is_and_no_credential() {
    let place = |from: &str, to: &str| {
        let changed = GOOD.replace(from, to);
        configuration(&changed).place(Path::new("/data/app.db"))
    };
    let good = place("", "").expect("a place");
    assert!(good.starts_with("s3://b/"), "{good}");
    let of_url = |url: &str| place("bucket: b", &format!("url: {url}"));
    let fleet = "s3://fleet/thing/app.db";
    assert_eq!(of_url(&format!("{fleet}?region=x")).as_deref(), Some(fleet));
    assert_eq!(of_url("s3://key:secret@fleet/app.db"), None);
    assert_eq!(place("bucket: b", "bucket: $BUCKET"), None);
    let folder = GOOD.replace("path: /data/app.db", "dir: /data\n    pattern: '*.db'");
    let found = configuration(&folder).place(Path::new("/data/log.db"));
    assert_eq!(found, Some(format!("{good}/log.db")));
}

#[test]
fn has_nothing_to_say_of_a_good_one() {
    assert_eq!(findings(GOOD, (0, 5, 17)), []);
    let named = GOOD.replace("${EDGEREPL_THING_NAME}", "fleet/thing-1");
    assert_eq!(findings(&named, (0, 5, 17)), []);
}

#[test]
fn names_each_trap_and_the_next_step() {
    let cases = [
        (
            "bucket: b",
            "bucket: b\n      access-key-id: A",
            "dbs[0].replica.access-key-id",
            true,
        ),
        (
            "dbs:",
            "secret-access-key: S\ndbs:",
            "it holds secret-access-key",
            true,
        ),
        (
            "path: /data/app.db",
            "path: /data/other.db",
            "/data/other.db",
            true,
        ),
        (
            "${EDGEREPL_THING_NAME}",
            "all",
            "dbs[0].replica.path does not name",
            false,
        ),
        (
            "enabled: true",
            "enabled: false",
            "control socket is not enabled",
            false,
        ),
        ("litestream.sock", "other.sock", "edgerepl uses", true),
        (
            "bucket: b",
            "bucket: b\n      retention: 72h",
            "ignores dbs[0].replica.retention",
            false,
        ),
    ];
    for (from, to, words, is_fault) in cases {
        let found = findings(&GOOD.replace(from, to), (0, 5, 17));
        assert_eq!(found.len(), 1, "{to}: {found:?}");
        assert!(found[0].cause.contains(words), "{to}: {found:?}");
        assert_eq!(found[0].is_fault, is_fault, "{to}: {found:?}");
        assert!(!found[0].next.is_empty());
    }
    for odd in ["", "[]", "dbs: 3", "dbs: [1, {path: 7}]", "null"] {
        assert!(findings(odd, (0, 5, 17))[0].is_fault, "{odd}");
    }
}

#[test]
fn knows_where_the_local_state_is() {
    let meta_path = |line: &str| {
        let text = GOOD.replace("    replica:", &format!("    {line}\n    replica:"));
        configuration(&text).meta_path(Path::new("/data/app.db"))
    };
    assert_eq!(
        meta_path("meta-path: /data/meta"),
        Some("/data/meta".into())
    );
    assert_eq!(meta_path("meta-path: $META"), None);
    assert_eq!(
        meta_path("meta-path: /data//./x/../m"),
        Some("/data/m".into())
    );
    assert_eq!(meta_path("monitor-interval: 1s"), None);
}

#[test]
fn intervals_of_0_3_are_counted_from_a_start() {
    let old = GOOD.replace("replica:", "replicas:\n    -");
    let found = findings(&old, (0, 3, 13));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0]
            .cause
            .contains("dbs[0].replicas[0].retention-check-interval is 1h")
    );
    let quick = old.replace("bucket: b", "bucket: b\n      retention-check-interval: 5m");
    assert_eq!(findings(&quick, (0, 3, 13)), []);
    let daily = quick.replace("bucket: b", "bucket: b\n      snapshot-interval: 24h");
    assert_eq!(findings(&daily, (0, 3, 13)), []);
    let found = findings(&daily, (0, 3, 8));
    assert!(
        found[0].cause.contains("snapshot-interval is 24h"),
        "{found:?}"
    );
}

#[test]
fn reads_go_durations() {
    let seconds = |text: &str| go_duration(text).map(|d| d.as_secs());
    assert_eq!(seconds("1h30m"), Some(5400));
    assert_eq!(seconds("300s"), Some(300));
    assert_eq!(seconds("500ms"), Some(0));
    assert_eq!(seconds("0.5h"), Some(1800));
    assert_eq!(seconds("1h.5m1.50s"), Some(3631));
    assert_eq!(go_duration("100ms"), Some(Duration::from_millis(100)));
    assert_eq!(go_duration("250us"), Some(Duration::from_micros(250)));
    assert_eq!(go_duration("1.5\u{b5}s"), Some(Duration::from_nanos(1500)));
    for bad in [
        "",
        "h",
        "5",
        "5 m",
        "1d",
        ".h",
        "1.2.3s",
        "-1s",
        "1es",
        "99999999999999999999h",
    ] {
        assert_eq!(seconds(bad), None, "{bad}");
    }
}

#[test]
fn static_keys_are_seen_however_they_get_there() {
    let merged = format!("defaults: &d {{ access-key-id: A }}\n{GOOD}      <<: *d\n");
    let listed = format!("a: &a {{ secret-access-key: S }}\n{GOOD}      <<: [*a]\n");
    let marked = format!("\u{feff}access-key-id: A\n{GOOD}");
    let again = format!("{GOOD}    replica: {{ bucket: c, access-key-id: A }}\n");
    let quoted = format!("\"access-key-id\": $EDGEREPL_THING_NAME\n{GOOD}");
    for (text, place) in [
        (merged, "dbs[0].replica.access-key-id"),
        (listed, "dbs[0].replica.secret-access-key"),
        (marked, "access-key-id"),
        (again, "dbs[0].replica.access-key-id"),
        (quoted, "access-key-id"),
    ] {
        assert_eq!(configuration(&text).static_keys(), [place], "{text}");
    }
    for nothing in ["${EMPTY}", "", "\"\"", "$UNSET", "~"] {
        let text = format!("access-key-id: {nothing}\n{GOOD}");
        assert_eq!(configuration(&text).static_keys(), [""; 0], "{nothing}");
        assert_eq!(findings(&text, (0, 5, 17)), [], "{nothing}");
    }
}

#[test]
fn what_litestream_accepts_is_accepted() {
    for (from, to) in [
        ("enabled: true", "enabled: yes"),
        ("enabled: true", "enabled: On"),
        ("/data/app.db", "//data/./x/..//app.db"),
        ("/data/app.db", "sqlite:///data/app.db"),
        ("bucket: b", "bucket: a\n      bucket: b"),
        (
            "bucket: b",
            "tags: { a: ${EDGEREPL_THING_NAME} }\n      bucket: b",
        ),
        ("socket:", "--- # ${UNSET}\nsocket:"),
        (
            "app.db\n    replica",
            "app.db\n    unknown: ${UNSET}\n    replica",
        ),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let text = GOOD.replace(from, to);
        assert_eq!(findings(&text, (0, 5, 17)), [], "{to}");
    }
}

#[test]
fn a_prefix_from_a_variable_that_is_unset_is_a_fault_that_names_it() {
    for name in ["HOSTNAM", "EMPTY"] {
        let text = GOOD.replace("EDGEREPL_THING_NAME", name);
        let found = findings(&text, (0, 5, 17));
        assert!(
            found[0].is_fault && found[0].cause.contains(name),
            "{found:?}"
        );
    }
    let url = GOOD.replace("path: ${EDGEREPL_THING_NAME}", "url: s3://b/$NOBODY/x");
    assert!(findings(&url, (0, 5, 17))[0].cause.contains("${NOBODY}"));
    let open = Variables::open([]);
    let unit = Configuration::read(&GOOD.replace("EDGEREPL_THING_NAME", "HOST"), Some(&open));
    let found = unit.expect("YAML").missing_variables().expect("a finding");
    assert!(
        !found.is_fault && found.cause.contains("${HOST}"),
        "{found:?}"
    );
}

#[test]
fn names_each_database_in_words() {
    let named = |text: &str| -> Vec<String> {
        let entries = configuration(text).named().into_iter();
        entries.map(|entry| entry.named.to_string()).collect()
    };
    assert_eq!(named(GOOD), ["/data/app.db"]);
    let more = format!("{GOOD}  - path: /data/b.db\n  - dir: /data/more\n    pattern: '*'\n");
    let all = ["/data/app.db", "/data/b.db", "the databases in /data/more"];
    assert_eq!(named(&more), all);
}

#[test]
fn each_entry_has_its_kind() {
    let text = "dbs:\n- path: //data/./a.db\n- path: $HERE/b.db\n- dir: /data/more\n  \
                pattern: '*.db'\n  recursive: yes\n- dir: /data\n  pattern: $P\n  watch: true\n";
    let open = Variables::open([]);
    let read = Configuration::read(text, Some(&open)).expect("YAML");
    let named: Vec<Named> = read.named().into_iter().map(|entry| entry.named).collect();
    let wanted = [
        Named::Database("/data/a.db".into()),
        Named::Unknown("${HERE}/b.db".into()),
        Named::Folder(Folder {
            path: "/data/more".into(),
            pattern: "*.db".into(),
            is_recursive: true,
            is_watched: false,
        }),
        Named::UnknownFolder("/data/${P}".into()),
    ];
    assert_eq!(named, wanted);
    assert_eq!(read.named()[2].place, "dbs[2]");
    assert!(read.names(Path::new("/data/more/x/y.db")));
    assert!(!configuration(GOOD).names(Path::new("/data/more/x.db")));
}

#[test]
fn folders_are_looked_through_within_bounds_and_each_database_is_there_once() {
    let root = std::env::temp_dir().join(format!("edgerepl-named-{}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    let deep = root.join(vec!["d"; 20].join("/"));
    fs::create_dir_all(&deep).expect("folders");
    fs::create_dir_all(root.join(".b.db-verify")).expect("a folder");
    for name in ["b.db", "a.db", "d/c.db", ".b.db-verify/replica-1.db"] {
        fs::write(root.join(name), "SQLite format 3\0 and more").expect("a file");
    }
    for (name, content) in [
        ("e.db", ""),
        ("t.db", "a text that is no header"),
        ("a.db-wal", "x"),
    ] {
        fs::write(root.join(name), content).expect("a file");
    }
    std::os::unix::fs::symlink(root.join("a.db"), root.join("z.db")).expect("a link");
    let look = |entries: &str| {
        let text = format!("dbs:\n{}", entries.replace("ROOT", &root.to_string_lossy()));
        configuration(&text).databases()
    };
    let names = |paths: &[PathBuf]| -> Vec<String> {
        let inside = paths
            .iter()
            .map(|path| path.strip_prefix(&root).unwrap_or(path));
        inside.map(|path| path.display().to_string()).collect()
    };
    let faults = |found: &Found| -> Vec<String> { found.faults().map(|f| f.cause).collect() };

    let found = look("- { dir: ROOT, pattern: '*' }");
    assert_eq!(names(&found.databases), ["a.db", "b.db"]);
    assert_eq!(names(&found.passed_over), ["e.db", "t.db"]);
    let twice = faults(&found);
    assert!(twice[0].contains("/a.db and dbs[0] names ") && twice[0].contains("one file"));

    let found = look("- { path: ROOT/x/../a.db }\n- { dir: ROOT, pattern: '?.db', recursive: on }");
    assert_eq!(names(&found.databases), ["a.db", "b.db", "d/c.db"]);
    let faults_of_both = faults(&found);
    let named = format!(
        "dbs[0] and dbs[1] both name {}",
        root.join("a.db").display()
    );
    assert!(faults_of_both.contains(&named), "{faults_of_both:?}");
    assert!(
        faults_of_both
            .iter()
            .any(|f| f.contains("deeper than 16 folders"))
    );

    let missing = "- { path: ROOT/never.db }\n- { path: ROOT//never.db }";
    let found = look(missing);
    assert_eq!(names(&found.databases), ["never.db"]);
    assert_eq!(faults(&found).len(), 1);
    for (entry, says) in [
        (
            "- { dir: ROOT/none, pattern: '*' }",
            "can't be read: No such file",
        ),
        ("- { dir: ROOT, pattern: '[' }", "is malformed"),
        ("- { dir: ROOT/z.db, pattern: '*' }", "is a link"),
    ] {
        let found = look(entry);
        assert!(faults(&found)[0].contains(says), "{found:?}");
    }
    for n in 0..1100 {
        fs::write(deep.join(format!("{n}.db")), "SQLite format 3\0").expect("a file");
    }
    let many = format!("- {{ dir: {}, pattern: '*.db' }}", deep.display());
    let found = look(&many);
    assert_eq!(found.databases.len(), 1000);
    assert!(
        faults(&found)[0].contains("more than 1000 files"),
        "{:?}",
        found.unseen
    );
    fs::remove_dir_all(&root).expect("the folder");
}

#[test]
fn a_database_of_a_folder_has_a_replica_and_a_state_of_its_own() {
    let alone = |replica: &str| {
        let text = format!(
            "region: r\nsecret-access-key: S\ndbs:\n- dir: /data\n  pattern: '*.db'\n  \
             recursive: true\n  replica: {replica}\n"
        );
        configuration(&text).alone(Path::new("/data/x/ö 1.db"))
    };
    for (replica, key, wanted) in [
        ("{ bucket: b, path: p/q }", "path", "p/q/x/ö 1.db"),
        ("{ bucket: b }", "path", "x/ö 1.db"),
        ("{ type: file, path: /r/ }", "path", "/r/x/ö 1.db"),
        (
            "{ url: 's3://b/p?a=b' }",
            "url",
            "s3://b/p/x/%C3%B6%201.db?a=b",
        ),
        ("{ url: 's3://b' }", "url", "s3://b/x/%C3%B6%201.db"),
        (
            "{ url: 'file:///p%20%71[/#f' }",
            "url",
            "file:///p%20q%5B/x/%C3%B6%201.db#f",
        ),
        ("{ url: 'file:///' }", "url", "file:///x/%C3%B6%201.db"),
    ] {
        let text = alone(replica).expect(replica).expect(replica);
        let read = Configuration::read(&text, None).expect("YAML");
        let found = replicas(&read.root);
        assert_eq!(found[0].1.text(key), Some(wanted), "{text}");
        assert_eq!(read.root.text("region"), Some("r"));
        assert_eq!(read.static_keys(), [""; 0], "{text}");
        let named = read.databases().databases;
        assert_eq!(named, [Path::new("/data/x/ö 1.db")]);
    }
    let own = configuration(GOOD).alone(Path::new("/data/app.db"));
    assert_eq!(own, Ok(None));
    let meta_path = |line: &str| {
        let text = format!("dbs: [{{ dir: /data, pattern: '*', recursive: true, {line} }}]");
        configuration(&text).meta_path(Path::new("/data/x/a.db"))
    };
    assert_eq!(
        meta_path("meta-dir: /m"),
        Some("/m/x/a.db-litestream".into())
    );
    assert_eq!(
        meta_path("meta-path: /m"),
        Some("/m/x/.a.db-litestream".into())
    );
    assert_eq!(meta_path(""), None);
}

#[test]
fn an_application_and_a_restore_by_litestream_are_said() {
    let text = format!("exec: app\n{GOOD}");
    assert!(findings(&text, (0, 5, 17))[0].cause.contains("it has exec"));
    let text = GOOD.replace("replica:", "restore-if-db-not-exists: true\n    replica:");
    assert!(configuration(&text).restores_missing(Path::new("/data//app.db")));
    assert!(!configuration(GOOD).restores_missing(Path::new("/data/app.db")));
}

#[test]
fn aliases_and_depth_are_bounded() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for n in 1..12 {
        let aliases = vec![format!("*a{}", n - 1); 9].join(",");
        bomb += &format!("a{n}: &a{n} [{aliases}]\n");
    }
    let deep = "[".repeat(5000) + &"]".repeat(5000);
    let long = "$LONG".repeat(9000);
    let merges = "a: &a { <<: *a }";
    let variables = Variables::closed([("LONG".to_owned(), "x".repeat(1000))]);
    for text in [&*bomb, &deep, &long, merges, "a: { <<: 1 }", "[", "*nobody"] {
        assert!(Configuration::read(text, Some(&variables)).is_err());
    }
}
