//! The configuration: fragments of TOML in layers become one validated [`Settings`].
//!
//! Owns the contract of keys, defaults and limits. A `Settings` that exists can be run: whatever
//! can't work is refused here, with the file and the key named. Never opens what the paths name:
//! whether a certificate is there is a matter of the moment, and `check` and the fetch find out.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

mod layers;
mod pkcs11_uri;
mod private_key;
mod runtime_directory;
mod value;

use layers::{Layers, Section};
pub use pkcs11_uri::Pkcs11Uri;
pub use private_key::PrivateKey;
pub use runtime_directory::RuntimeDirectory;
pub(crate) use value::is_thing_name;
use value::shown;
pub use value::{Bounds, TableName};

/// Where the main file is looked for unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/edgerepl/edgerepl.toml";

/// The image's own fragments, under the main file.
pub const VENDOR_DIRECTORY: &str = "/usr/lib/edgerepl";

/// Sections and the keys that each may hold: the contract.
const SCHEMA: &[(&str, &[&str])] = &[
    ("identity", &["thing_name", "certificate", "private_key"]),
    (
        "credentials",
        &[
            "endpoint",
            "role_alias",
            "region",
            "ca_file",
            "renew_before",
        ],
    ),
    (
        "replication",
        &[
            "command",
            "rotation",
            "supervisor",
            "unit",
            "environment_file",
            "control_socket",
        ],
    ),
    ("database", &["path", "wal_guard"]),
    ("heartbeat", &["interval", "table", "keep"]),
];

/// AWS grants no session that is longer.
const RENEW_BEFORE: Bounds = Bounds {
    section: "credentials",
    key: "renew_before",
    least: "1s",
    most: "12h",
};

/// SQLite's own checkpoints leave a WAL of 4 MiB; no device has the space for more than the most.
const WAL_GUARD: Bounds = Bounds {
    section: "database",
    key: "wal_guard",
    least: "1MiB",
    most: "64GiB",
};

/// Each row is a durable write.
const INTERVAL: Bounds = Bounds {
    section: "heartbeat",
    key: "interval",
    least: "100ms",
    most: "1d",
};

/// No device lives longer; "off" is for ever.
const KEEP: Bounds = Bounds {
    section: "heartbeat",
    key: "keep",
    least: "1s",
    most: "3650d",
};

/// Those of each duration and size.
pub const BOUNDS: [Bounds; 4] = [RENEW_BEFORE, WAL_GUARD, INTERVAL, KEEP];

/// All that edgerepl was told, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Who the device is.
    pub identity: Identity,
    /// Where credentials come from.
    pub provider: Provider,
    /// The AWS region that Litestream is told.
    pub region: String,
    /// How long before their end credentials are renewed.
    pub renew_before: Duration,
    /// What replicates the database, and who runs it.
    pub replication: Replication,
    /// The database.
    pub database: Database,
    /// The rows that prove life; `None` where the application writes enough by itself.
    pub heartbeat: Option<Heartbeat>,
}

impl Settings {
    /// Reads the layers of `main` and of [`VENDOR_DIRECTORY`].
    ///
    /// # Errors
    /// The first thing that can't work, as one sentence with the file and the key.
    pub fn load(main: &Path, runtime: &RuntimeDirectory) -> Result<Self, ConfigError> {
        Self::load_layers(main, Path::new(VENDOR_DIRECTORY), runtime)
    }

    fn load_layers(
        main: &Path,
        vendor: &Path,
        runtime: &RuntimeDirectory,
    ) -> Result<Self, ConfigError> {
        let layers = Layers::read(vendor, main, SCHEMA)?;
        let replication = layers.section("replication");
        Ok(Self {
            identity: Identity::read(&layers.section("identity"))?,
            provider: Provider::read(&layers.section("credentials"))?,
            region: layers
                .section("credentials")
                .parsed("region", value::region)?,
            renew_before: layers.section("credentials").parsed_or(
                RENEW_BEFORE.key,
                "5m",
                RENEW_BEFORE.around(value::duration),
            )?,
            replication: Replication::read(&replication, runtime)?,
            database: Database::read(&layers.section("database"))?,
            heartbeat: Heartbeat::read(&layers.section("heartbeat"))?,
        })
    }
}

/// Who the device is: `[identity]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The thing's name; where `None`, the certificate's subject CN.
    pub thing_name: Option<String>,
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// A PKCS#11 URI or the path of a PEM file.
    pub private_key: PrivateKey,
}

impl Identity {
    fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            thing_name: section.optional("thing_name", value::thing_name)?,
            certificate: section.parsed("certificate", value::absolute_path)?,
            private_key: section.parsed("private_key", value::private_key)?,
        })
    }
}

/// The AWS IoT Core credential provider: `[credentials]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Provider {
    /// The account's endpoint.
    pub endpoint: Endpoint,
    /// The role alias to assume.
    pub role_alias: String,
    /// A bundle of PEM certificates, any of which may be the server's root.
    pub ca_file: PathBuf,
}

impl Provider {
    fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            endpoint: section.parsed("endpoint", str::parse)?,
            role_alias: section.parsed("role_alias", value::role_alias)?,
            ca_file: section.parsed_or(
                "ca_file",
                "/usr/share/edgerepl/aws-iot-ca.pem",
                value::absolute_path,
            )?,
        })
    }
}

/// A host and a port that speak HTTPS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// A DNS name (an IP address also works where the certificate names it).
    pub host: String,
    /// 443 unless given.
    pub port: u16,
}

/// Reads `host`, `host:port`, `https://host[:port][/]`, with an IPv6 address in brackets.
impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("http://") {
            return Err("must be reached by https, not http".to_owned());
        }
        let authority = text.strip_prefix("https://").unwrap_or(text);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                let port = port.parse().ok().filter(|p| *p != 0);
                (
                    host,
                    port.ok_or_else(|| {
                        format!("has no usable port after the colon: {}", shown(text))
                    })?,
                )
            }
            _ => (authority, 443),
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        let named = rustls::pki_types::ServerName::try_from(bare);
        if named.is_err() || (bare == host && bare.contains(':')) {
            return Err(format!("is not host[:port]: {}", shown(text)));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What replicates the database: `[replication]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replication {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How new credentials reach it.
    pub rotation: Rotation,
    /// Who runs it.
    pub supervisor: Supervisor,
    /// Litestream's control socket, as its own configuration names it. Where nothing listens there
    /// edgerepl works without, a little slower.
    pub control_socket: PathBuf,
}

impl Replication {
    fn read(section: &Section<'_>, runtime: &RuntimeDirectory) -> Result<Self, ConfigError> {
        let default = ["litestream", "replicate", "-config", "/etc/litestream.yml"];
        let supervisor = match section.choice("supervisor", "child", &["child", "systemd"])? {
            "systemd" => Supervisor::Systemd {
                unit: section.parsed_or("unit", "litestream.service", value::unit)?,
                environment_file: section
                    .optional("environment_file", value::absolute_path)?
                    .unwrap_or_else(|| runtime.file("litestream.env")),
            },
            _ => Supervisor::Child,
        };
        let rotation = match section.choice("rotation", "auto", &["auto", "restart", "refresh"])? {
            "restart" => Rotation::Restart,
            "refresh" => Rotation::Refresh,
            _ => Rotation::Auto,
        };
        Ok(Self {
            command: section.command("command", &default)?,
            rotation,
            supervisor,
            control_socket: section
                .optional("control_socket", value::socket_path)?
                .unwrap_or_else(|| runtime.file("litestream.sock")),
        })
    }
}

/// How new credentials reach Litestream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rotation {
    /// By a refresh where the Litestream in front of us can be given credentials so, else by a
    /// restart.
    Auto,
    /// Litestream is restarted with them in its environment: every version understands that.
    Restart,
    /// Litestream asks for them by itself: 0.5 and later.
    Refresh,
}

/// Who runs Litestream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Supervisor {
    /// edgerepl itself: credentials never touch a file.
    Child,
    /// systemd, in a unit of its own.
    Systemd {
        /// The unit to restart.
        unit: String,
        /// What the unit's `EnvironmentFile=` names, on tmpfs.
        environment_file: PathBuf,
    },
}

/// The database: `[database]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Database {
    /// The SQLite database that Litestream replicates.
    pub path: PathBuf,
    /// How large the WAL may grow, in bytes, while the WAL guard holds it; `None` is no guard.
    pub wal_guard: Option<u64>,
}

impl Database {
    fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            path: section.parsed("path", value::absolute_path)?,
            wal_guard: section.parsed_or(
                WAL_GUARD.key,
                "64MiB",
                value::or_off(WAL_GUARD.around(value::size)),
            )?,
        })
    }
}

/// The rows that prove life: `[heartbeat]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Heartbeat {
    /// The time between two rows.
    pub interval: Duration,
    /// The table that holds them.
    pub table: TableName,
    /// How long a row is kept; `None` is for ever.
    pub keep: Option<Duration>,
}

impl Heartbeat {
    fn read(section: &Section<'_>) -> Result<Option<Self>, ConfigError> {
        let table = section.parsed_or("table", "HealthCheck", str::parse)?;
        let duration = |bounds: Bounds, default| {
            let read = |text: &str| value::or_off(bounds.around(value::duration))(text);
            section.parsed_or(bounds.key, default, read)
        };
        let (keep, interval) = (duration(KEEP, "30d")?, duration(INTERVAL, "5s")?);
        // The next row's id follows that of the one before, which has to be there.
        if interval.zip(keep).is_some_and(|(i, k)| k < i * 2) {
            let cause = "must be at least twice the interval, or \"off\"";
            return Err(section.error(KEEP.key, cause.to_owned()));
        }
        Ok(interval.map(|interval| Self {
            interval,
            table,
            keep,
        }))
    }
}

/// Why the configuration can't work: one sentence that names the file and the key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// How a command ends that can't be done for it (`EX_CONFIG` of sysexits.h): starting again won't help.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(78)
    }
}

#[cfg(test)]
mod tests {
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
        let replication = settings.replication;
        assert_eq!(
            replication.command,
            ["litestream", "replicate", "-config", "/etc/litestream.yml"]
        );
        assert_eq!(replication.rotation, Rotation::Auto);
        assert_eq!(replication.supervisor, Supervisor::Child);
        assert_eq!(settings.database.wal_guard, Some(64 << 20));
        let heartbeat = settings.heartbeat.expect("a heartbeat");
        assert_eq!(heartbeat.interval, Duration::from_secs(5));
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
                "[replication] control_socket must be a path of 107 bytes at the most",
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
            format!(
                "-----BEGIN PRIVATE KEY-----{end}{BODY}{end}{BODY}={end}-----END PRIVATE KEY-----"
            )
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
                let is_plain = text.contains("certificate = 'hunter2'")
                    || text.contains("endpoint = 'hunter2'");
                for secret in ["hunter2", "MIGH", "AwEH"].iter().filter(|_| !is_plain) {
                    assert!(!error.contains(secret), "{text:?} gives {error:?}");
                }
                assert_eq!(error.lines().count(), 1, "{error}");
            }
        }
    }

    /// `dist/edgerepl.toml` with those of its keys in force that `wanted` picks.
    fn shipped(wanted: impl Fn(&str) -> bool) -> String {
        let line = |line: &'static str| {
            let assignment = line.strip_prefix('#')?;
            let (key, _) = assignment.split_once(" = ")?;
            (!key.contains(' ') && wanted(key)).then_some(assignment)
        };
        include_str!("../dist/edgerepl.toml")
            .lines()
            .map(|l| format!("{}\n", line(l).unwrap_or(l)))
            .collect()
    }

    #[test]
    fn the_shipped_file_shows_each_key_with_its_default() {
        let table: toml::Table = shipped(|_| true).parse().expect("TOML");
        for (section, keys) in SCHEMA {
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
            let all = load("shipped-all", &shipped(|_| true));
            let defaults = load("shipped-defaults", &shipped(|key| examples.contains(&key)));
            assert_eq!(all, defaults, "a default that is none");
        }
    }

    #[test]
    fn each_duration_and_size_is_refused_beyond_its_bounds_alone() {
        let load = |Bounds { section, key, .. }: Bounds, value: &str| {
            let keep = match key {
                "keep" => "interval = \"100ms\"",
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
        for line in include_str!("../dist/edgerepl.toml").lines() {
            let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with("# "))
            else {
                words = format!("{words} {}", line.trim_start_matches(['#', ' ']));
                continue;
            };
            if value.starts_with('"') && value[1..].starts_with(|c: char| c.is_ascii_digit()) {
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
}
