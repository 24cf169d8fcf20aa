use std::fs;

use super::*;

const WHOLE: &str = r#"
        [identity]
        certificate = "/data/edgerepl/device.crt"
        private_key = "/data/edgerepl/device.key"
        [credentials]
        endpoint = "abc123.credentials.iot.ap-northeast-1.amazonaws.com"
        role_alias = "edgerepl"
        region = "ap-northeast-1"
        [database]
        path = "/data/app/app.db"
    "#;

/// Files of a configuration, in a folder of their own.
struct Files(PathBuf);

impl Files {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let root = std::env::temp_dir().join(format!("edgerepl-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
            fs::write(path, text).expect("the file");
        }
        Self(root)
    }

    fn load(&self) -> Result<Settings, String> {
        let runtime = RuntimeDirectory::new("/run/edgerepl");
        let main = self.0.join("etc/edgerepl.toml");
        let loaded = Settings::load_layers(&main, &self.0.join("usr"), &runtime);
        loaded.map_err(|e| e.to_string().replace(&self.0.display().to_string(), ""))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let settings = Files::new("defaults", &[("etc/edgerepl.toml", WHOLE)])
        .load()
        .expect("settings");
    assert_eq!(settings.identity.thing_name, None);
    assert_eq!(settings.provider.endpoint.port, 443);
    assert_eq!(
        settings.provider.ca_file,
        Path::new("/usr/share/edgerepl/aws-iot-ca.pem")
    );
    assert_eq!(settings.renew_before, Duration::from_secs(300));
    assert_eq!(settings.rpo, Duration::from_secs(60));
    assert_eq!(settings.restorable, Some(Duration::from_secs(86_400)));
    assert_eq!(settings.verify, None);
    let replication = settings.replication;
    assert_eq!(
        replication.command,
        ["litestream", "replicate", "-config", "/etc/litestream.yml"]
    );
    assert_eq!(replication.replica, None);
    assert_eq!(replication.rotation, None);
    assert_eq!(replication.supervisor, Supervisor::Child);
    assert_eq!(settings.databases.first.wal_guard, Some(64 << 20));
    let heartbeat = settings.heartbeat.expect("a heartbeat");
    assert_eq!(heartbeat.interval, settings.rpo);
    assert_eq!(heartbeat.table.to_string(), "HealthCheck");
    assert_eq!(heartbeat.keep, Some(Duration::from_secs(30 * 86_400)));
}

#[test]
fn later_layers_win_key_by_key() {
    let files = [
        (
            "usr/10-image.toml",
            "[credentials]\nregion = \"us-east-1\"\nrenew_before = \"1m\"",
        ),
        ("usr/ignored.txt", "this is no TOML"),
        ("etc/edgerepl.toml", WHOLE),
        (
            "etc/edgerepl.toml.d/20-b.toml",
            "[heartbeat]\ninterval = \"off\"",
        ),
        (
            "etc/edgerepl.toml.d/10-a.toml",
            "[heartbeat]\ninterval = \"1s\"\n[identity]\nthing_name = \"t\"",
        ),
    ];
    let settings = Files::new("layers", &files).load().expect("settings");
    assert_eq!(settings.region, "ap-northeast-1");
    assert_eq!(settings.renew_before, Duration::from_secs(60));
    assert_eq!(settings.heartbeat, None);
    assert_eq!(settings.identity.thing_name.as_deref(), Some("t"));
}

#[test]
fn a_price_may_be_whole_or_not() {
    let files = [
        ("etc/edgerepl.toml", WHOLE),
        (
            "etc/edgerepl.toml.d/x.toml",
            "[cost]\nput = 4\ngigabyte = 12.345678",
        ),
    ];
    let prices = Files::new("prices", &files)
        .load()
        .expect("settings")
        .prices;
    let told = [prices.put, prices.get, prices.gigabyte].map(Price::dollars);
    assert_eq!(told, [4.0, 0.4, 12.345678]);
}

#[test]
fn each_mistake_is_one_sentence_with_file_and_key() {
    let cases = [
        (
            "[identity]\nthingname = \"x\"",
            "unknown key in [identity]: \"thingname\"; the nearest known one is \"thing_name\"",
        ),
        (
            "[heartbeet]",
            "unknown section: \"heartbeet\"; the nearest known one is \"heartbeat\"",
        ),
        (
            "[heartbeat]\ninterval = 5",
            "[heartbeat] interval must be a string in quotes, not integer",
        ),
        (
            "[heartbeat]\ninterval = \"5\"",
            "[heartbeat] interval must be a number with ms, s, m, h or d",
        ),
        (
            "[heartbeat]\ninterval = \"1ms\"",
            "[heartbeat] interval must be from 100ms to 1d, not \"1ms\" (or \"off\")",
        ),
        (
            "[heartbeat]\ninterval = \"18446744073709551615s\"",
            "interval must be from 100ms to 1d, not \"18446744073709551615s\" (or \"off\")",
        ),
        (
            "[heartbeat]\ninterval = \"s\"",
            "[heartbeat] interval must be a number with ms, s, m, h or d",
        ),
        (
            "[heartbeat]\ninterval = \"10s\"\nkeep = \"19s\"",
            "[heartbeat] keep must be at least twice the interval, or \"off\"",
        ),
        (
            "[heartbeat]\ntable = \"a; DROP TABLE b\"",
            "[heartbeat] table must be a table's name",
        ),
        (
            "[heartbeat]\ntable = \"sqlite_master\"",
            "[heartbeat] table must be a table's name",
        ),
        (
            "[heartbeat]\nkeep = \"99999999999999999999d\"",
            "[heartbeat] keep must be from 1s to 3650d",
        ),
        (
            "[credentials]\nrenew_before = \"0s\"",
            "[credentials] renew_before must be from 1s to 12h, not \"0s\"",
        ),
        (
            "[credentials]\nendpoint = \"http://x\"",
            "[credentials] endpoint must be reached by https, not http",
        ),
        ("[credentials]\nendpoint = \"x:0\"", "no usable port"),
        ("[credentials]\nendpoint = \"x/y\"", "is not host[:port]"),
        (
            "[credentials]\nrole_alias = \"../x\"",
            "[credentials] role_alias must be the role alias's name",
        ),
        (
            "[database]\npath = \"app.db\"",
            "[database] path must be a path that begins with \"/\"",
        ),
        (
            "[database]\nwal_guard = \"64MB\"",
            "[database] wal_guard must be a number with KiB, MiB or GiB",
        ),
        (
            "[replication]\nsupervisor = \"docker\"",
            "[replication] supervisor must be \"child\" or \"systemd\", not \"docker\"",
        ),
        (
            "[replication]\nrotation = \"reload\"",
            "must be \"auto\" or \"restart\" or \"refresh\", not \"reload\"",
        ),
        (
            "[replication]\ncommand = []",
            "[replication] command must be a list of strings",
        ),
        (
            "[replication]\ncommand = \"litestream\"",
            "[replication] command must be a list of strings",
        ),
        (
            "[identity]\nprivate_key = \"key.pem\"",
            "[identity] private_key must be a path that begins",
        ),
        (
            &format!("[replication]\ncontrol_socket = \"/{}\"", "x".repeat(107)),
            "[replication] control_socket must be a path of at most 107 bytes",
        ),
        (
            "[cost]\nput = \"5\"",
            "[cost] put must be a number without quotes, not string",
        ),
        (
            "[cost]\nput = -0.1",
            "[cost] put must be from 0 to 100000, not \"-0.1\"",
        ),
        (
            "[cost]\ngigabyte = 100001",
            "[cost] gigabyte must be from 0 to 100000, not \"100001\"",
        ),
        (
            "[cost]\nget = 1e300",
            "[cost] get must be from 0 to 100000, not",
        ),
        (
            "[cost]\nget = nan",
            "[cost] get must be a number, not \"NaN\"",
        ),
        (
            "[cost]\nget = -inf",
            "[cost] get must be a number, not \"-inf\"",
        ),
        ("a = [", ":1: is not TOML"),
    ];
    for (text, wanted) in cases {
        let files = [
            ("etc/edgerepl.toml", WHOLE),
            ("etc/edgerepl.toml.d/x.toml", text),
        ];
        let error = Files::new("mistake", &files).load().expect_err(text);
        assert!(error.contains(wanted), "{text:?} gives {error:?}");
        assert!(error.starts_with("/etc/edgerepl.toml.d/x.toml:"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn no_error_quotes_a_private_key_or_a_pin() {
    const BODY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQghunter2";
    let pem = |end: &str| {
        format!("-----BEGIN PRIVATE KEY-----{end}{BODY}{end}{BODY}={end}-----END PRIVATE KEY-----")
    };
    let uri = "object=o?module-path=/m.so&pin-value=hunter2";
    let values = [
        format!("{:?}", pem("\n")),
        format!("{:?}", pem("\r\n")),
        format!("{:?}", pem(" ")),
        format!("\"\"\"\n{}\n\"\"\"", pem("\n")),
        format!("'''{}'''", pem("\n")),
        format!("'''/{}'''", pem("\n")),
        format!("[{:?}]", pem("\n")),
        format!("{{ pem = {:?} }}", pem("\n")),
        pem("\n"),
        format!("\"{}", pem("\n")),
        format!("'{}", pem("\n")),
        format!("'{BODY}'"),
        BODY.to_owned(),
        format!("'pkcs11:{uri}'"),
        format!("'PKCS11:{uri}'"),
        format!("'Pkcs11:{uri}'"),
        format!("' pkcs11:{uri}'"),
        format!("'\tPKCS11:{uri}'"),
        format!("'pkcs11 :{uri}'"),
        format!("pkcs11:{uri}"),
        "'pkcs11:object=o;pin-value=hunter2?module-path=/m.so'".to_owned(),
        "'pkcs11:object=o;hunter2?module-path=/m.so'".to_owned(),
        "'pkcs11:object=o;hunter2=1?module-path=/m.so'".to_owned(),
        "'pkcs11:object=o?module-path=/m.so&pin=hunter2'".to_owned(),
        "'pkcs11:object=o?module-path=/m.so&hunter2'".to_owned(),
        "'pkcs11:object=o?module-path=/m.so&hunter2=1&hunter2=1'".to_owned(),
        "'pkcs11:object=o?module-path=/m.so&pin-source=hunter2'".to_owned(),
        "'pkcs11:object=o?module-path=/m.so&pin-source=file://hunter2'".to_owned(),
        "'pkcs11:object=o?module-path=/m.so&pin-source=file:/run/p hunter2'".to_owned(),
        "'hunter2'".to_owned(),
        "hunter2".to_owned(),
        "'''\n\nhunter2'''".to_owned(),
    ];
    for value in values {
        for text in [
            format!("[identity]\nprivate_key = {value}\n"),
            format!("[identity]\nprivat_key = {value}\n"),
            format!("[identity]\nprivate_key={value}\ncertificate='/x'\n"),
            format!("[identity]\n{value} = 1\n"),
            format!("[identity]\nprivate_key.{BODY} = {value}\n"),
            format!("[{BODY}]\nprivate_key = {value}\n"),
            format!("[identity]\ncertificate = {value}\n"),
            format!("[credentials]\nendpoint = {value}\nca_file = {value}"),
            format!("private_key = {value}\n"),
        ] {
            let files = [
                ("etc/edgerepl.toml", WHOLE),
                ("etc/edgerepl.toml.d/x.toml", &text),
            ];
            let error = Files::new("secret", &files).load().expect_err(&text);
            let is_plain =
                text.contains("certificate = 'hunter2'") || text.contains("endpoint = 'hunter2'");
            for secret in ["hunter2", "MIGH", "AwEH"].iter().filter(|_| !is_plain) {
                assert!(!error.contains(secret), "{text:?} gives {error:?}");
            }
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}

/// `dist/edgerepl.toml` with those of its keys in force that `wanted` picks by section and key.
fn shipped(wanted: impl Fn(&str, &str) -> bool) -> String {
    let mut section = "";
    let mut line = |line: &'static str| {
        section = line.strip_prefix('[').unwrap_or(section);
        let assignment = line.strip_prefix('#')?;
        let (key, _) = assignment.split_once(" = ")?;
        let section = section.trim_end_matches(']');
        (!key.contains(' ') && wanted(section, key)).then_some(assignment)
    };
    include_str!("../../dist/edgerepl.toml")
        .lines()
        .map(|l| format!("{}\n", line(l).unwrap_or(l)))
        .collect()
}

#[test]
fn the_shipped_file_shows_each_key_with_its_default() {
    let table: toml::Table = shipped(|_, _| true).parse().expect("TOML");
    for Known { section, keys, .. } in SCHEMA {
        let shown: Vec<&String> = table[*section]
            .as_table()
            .expect("a section")
            .keys()
            .collect();
        assert_eq!(shown.len(), keys.len(), "[{section}] {shown:?}");
        assert!(
            keys.iter().all(|k| shown.iter().any(|s| s == k)),
            "{shown:?}"
        );
    }
    // What has no default is an example there.
    let examples = [
        "certificate",
        "private_key",
        "thing_name",
        "endpoint",
        "role_alias",
        "region",
        "path",
    ];
    for supervisor in ["child", "systemd"] {
        let layer = format!("[replication]\nsupervisor = {supervisor:?}");
        let load = |name: &str, main: &str| {
            let name = format!("{name}-{supervisor}");
            let files = [
                ("etc/edgerepl.toml", main),
                ("etc/edgerepl.toml.d/x.toml", &layer),
            ];
            Files::new(&name, &files).load().expect("settings")
        };
        let is_example =
            |section: &str, key: &str| section != "replication" && examples.contains(&key);
        let is_of_bucket = |section: &str, key: &str| {
            let keys = ["bucket", "prefix", "endpoint", "retention"];
            section == "replication" && keys.contains(&key)
        };
        let all = load(
            "shipped-all",
            &shipped(|section, key| !is_of_bucket(section, key)),
        );
        let defaults = load("shipped-defaults", &shipped(is_example));
        assert_eq!(all, defaults, "a default that is none");
        if supervisor == "child" {
            let with = |wanted: &[&str]| {
                let is_wanted = |section: &str, key: &str| {
                    is_example(section, key) || section == "replication" && wanted.contains(&key)
                };
                load(&format!("shipped-{}", wanted.len()), &shipped(is_wanted))
            };
            let all = with(&["bucket", "prefix", "retention"]);
            assert_eq!(all, with(&["bucket"]), "a default that is none");
        }
    }
}

#[test]
fn each_duration_and_size_is_refused_beyond_its_bounds_alone() {
    let load = |Bounds { section, key, .. }: Bounds, value: &str| {
        let keep = match key {
            "keep" => "interval = \"100ms\"",
            "retention" => "bucket = \"my-fleet\"",
            _ => "",
        };
        let layer = format!("[{section}]\n{key} = {value:?}\n{keep}");
        let files = [
            ("etc/edgerepl.toml", WHOLE),
            ("etc/edgerepl.toml.d/x.toml", &layer),
        ];
        Files::new("bounds", &files).load()
    };
    let beside = |text: &str, step: i64| {
        let (digits, unit) = text.split_at(text.find(char::is_alphabetic).expect(text));
        let number: i64 = digits.parse().expect(text);
        format!("{}{unit}", number + step)
    };
    for bounds in BOUNDS {
        let Bounds {
            section,
            key,
            least,
            most,
        } = bounds;
        for within in [least, most] {
            assert!(load(bounds, within).is_ok(), "{key} = {within}");
        }
        // More than 64 bits hold.
        let unit = most.trim_start_matches(|c: char| c.is_ascii_digit());
        let huge = format!("{}{unit}", "9".repeat(20));
        for outside in [beside(least, -1), beside(most, 1), huge] {
            let Err(error) = load(bounds, &outside) else {
                panic!("{key} = {outside} is accepted");
            };
            let named =
                format!("[{section}] {key} must be from {least} to {most}, not {outside:?}");
            assert!(error.contains(&named), "{error}");
        }
    }
}

#[test]
fn the_shipped_file_tells_the_bounds_of_each_duration_and_size() {
    let mut told = Vec::new();
    let mut words = String::new();
    for line in include_str!("../../dist/edgerepl.toml").lines() {
        let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with("# ")) else {
            words = format!("{words} {}", line.trim_start_matches(['#', ' ']));
            continue;
        };
        let is_measure =
            value.starts_with('"') && value[1..].starts_with(|c: char| c.is_ascii_digit());
        if is_measure || value == "\"off\"" {
            let key = key.trim_start_matches('#');
            let Bounds { least, most, .. } = BOUNDS.iter().find(|b| b.key == key).expect(key);
            let wanted = format!("{least} to {most}");
            assert!(
                words.contains(&wanted),
                "{key}: {wanted} is not in {words:?}"
            );
            told.push(key);
        }
    }
    assert_eq!(told.len(), BOUNDS.len(), "{told:?}");
}

#[test]
fn a_list_of_databases_is_replaced_whole_by_a_later_layer() {
    let list = "[[database]]\npath = \"/data/a.db\"\nwal_guard = \"off\"\n\
                [[database]]\npath = \"/data/b.db\"\n\
                [[database]]\npath = \"/data/c.db\"\nheartbeat = true\n";
    let one = "[database]\npath = \"/data/one.db\"\n";
    let load = |name: &str, main: &str, layer: &str| {
        let (others, _) = WHOLE.split_once("[database]").expect("a section");
        let main = format!("{others}{main}");
        let files = [
            ("etc/edgerepl.toml", main.as_str()),
            ("etc/edgerepl.toml.d/x.toml", layer),
        ];
        let loaded = Files::new(name, &files).load();
        loaded.map(|settings| {
            let all = settings.databases.iter();
            all.map(|d| (d.path.display().to_string(), d.wal_guard, d.heartbeat))
                .collect::<Vec<_>>()
        })
    };
    let limit = Some(64 << 20);
    let database = |path: &str, limit, rows| (path.to_owned(), limit, rows);
    let all = vec![
        database("/data/a.db", None, true),
        database("/data/b.db", limit, false),
        database("/data/c.db", limit, true),
    ];
    assert_eq!(load("list", list, "").as_ref(), Ok(&all));
    assert_eq!(load("list-over-one", one, list).as_ref(), Ok(&all));
    let alone = vec![database("/data/one.db", limit, true)];
    assert_eq!(load("one-over-list", list, one).as_ref(), Ok(&alone));
    let shorter = "[[database]]\npath = \"/data/one.db\"\n";
    assert_eq!(load("shorter", list, shorter).as_ref(), Ok(&alone));
    let off = "[database]\nheartbeat = false\n";
    assert_eq!(
        load("key-by-key", one, off),
        Ok(vec![database("/data/one.db", limit, false)])
    );
    for (name, layer, told) in [
        (
            "empty",
            "database = []\n",
            "x.toml: database must be a section",
        ),
        (
            "words",
            "database = [7]\n",
            "x.toml: database must be a section",
        ),
        (
            "unnamed",
            "[[database]]\nwal_guard = \"off\"\n",
            "x.toml: [[database]] 1, path is missing",
        ),
        (
            "second",
            &format!("{shorter}[[database]]\npath = \"b.db\"\n"),
            "x.toml: [[database]] 2, path",
        ),
        (
            "flag",
            "[database]\npath = \"/a.db\"\nheartbeat = \"no\"\n",
            "heartbeat must be true or false, not string",
        ),
        (
            "other",
            "[[heartbeat]]\n",
            "x.toml: heartbeat must be a section",
        ),
        // What replaces the list has to be whole.
        ("unnamed-one", off, "[database] path is missing"),
    ] {
        let error = load(name, list, layer).expect_err(name);
        assert!(error.contains(told), "{name}: {error}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let missing = Files::new("missing", &[]).load().expect_err("no file");
    assert!(
        missing.starts_with("/etc/edgerepl.toml: can't be read"),
        "{missing}"
    );
    let text = WHOLE.replace("role_alias", "# role_alias");
    let missing = Files::new("partial", &[("etc/edgerepl.toml", &text)]).load();
    assert_eq!(
        missing.expect_err("no alias"),
        "/etc/edgerepl.toml: [credentials] role_alias is missing"
    );
}

#[test]
fn endpoints_may_be_written_as_people_write_them() {
    for (text, host, port) in [
        ("a.example", "a.example", 443),
        ("a.example:8443", "a.example", 8443),
        ("https://a.example/", "a.example", 443),
        ("https://a.example:8443", "a.example", 8443),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("[::1]", "[::1]", 443),
        ("[::1]:8443", "[::1]", 8443),
    ] {
        let endpoint = Endpoint {
            host: host.to_owned(),
            port,
        };
        assert_eq!(text.parse(), Ok(endpoint), "{text}");
    }
    for wrong in [
        "",
        ":443",
        "a b",
        "a:b",
        "::1",
        "a.example:70000",
        "ftp://a",
    ] {
        assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
    }
}
