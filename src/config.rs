//! The configuration: TOML files in layers become one validated [`Settings`].
//!
//! Owns the contract of keys, defaults and limits. Every `Settings` can be run: a value that can't
//! work is refused here, with its file and key. Never opens a path that it names: whether a
//! certificate exists may change at any time, and `check` and the fetch test it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

mod layers;
mod pkcs11_uri;
mod prices;
mod private_key;
mod replication;
mod required;
mod runtime_directory;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use layers::layers_beside;
use layers::{Known, Layers, Section};
pub use pkcs11_uri::Pkcs11Uri;
pub use prices::{Price, Prices};
pub use private_key::PrivateKey;
pub use replication::{Metered, Replica, Replication, Rotation, Supervisor, THING_NAME};
pub use required::Required;
pub use runtime_directory::RuntimeDirectory;
pub(crate) use value::is_thing_name;
use value::shown;
pub use value::{Bounds, TableName};

/// The default of `--config`: the main file.
pub const DEFAULT_PATH: &str = "/etc/edgerepl/edgerepl.toml";

/// The folder of the image's files, the layer below the main file.
pub const VENDOR_DIRECTORY: &str = "/usr/lib/edgerepl";

/// Sections and the keys that each may hold: the contract.
const SCHEMA: &[Known] = &[
    section("identity", &["thing_name", "certificate", "private_key"]),
    section(
        "credentials",
        &[
            "endpoint",
            "role_alias",
            "region",
            "ca_file",
            "renew_before",
        ],
    ),
    section(
        "replication",
        &[
            "command",
            "rotation",
            "supervisor",
            "unit",
            "environment_file",
            "control_socket",
            "rpo",
            "metered",
            "rpo_metered",
            "bucket",
            "prefix",
            "endpoint",
            "retention",
        ],
    ),
    Known {
        repeats: true,
        ..section("database", &["path", "wal_guard", "heartbeat"])
    },
    section("heartbeat", &["interval", "table", "keep"]),
    section("proof", &["restorable", "verify"]),
    section("cost", &["put", "get", "gigabyte"]),
];

const fn section(section: &'static str, keys: &'static [&'static str]) -> Known {
    let repeats = false;
    Known {
        section,
        keys,
        repeats,
    }
}

/// AWS grants no longer session.
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

/// The default of `wal_guard`, in bytes: how large the WAL of a database may grow of which nothing is said.
pub const WAL_LIMIT: u64 = 64 << 20;

/// Each row is a durable write.
const INTERVAL: Bounds = Bounds {
    section: "heartbeat",
    key: "interval",
    least: "100ms",
    most: "1d",
};

/// No device is used for longer; "off" keeps rows without a limit.
const KEEP: Bounds = Bounds {
    section: "heartbeat",
    key: "keep",
    least: "1s",
    most: "3650d",
};

/// Each plan costs a dozen requests; "off" plans none.
const RESTORABLE: Bounds = Bounds {
    section: "proof",
    key: "restorable",
    least: "1s",
    most: "365d",
};

/// Each verify downloads the whole database; "off" makes none.
const VERIFY: Bounds = Bounds {
    section: "proof",
    key: "verify",
    least: "1s",
    most: "365d",
};

/// Each upload costs a request.
const RPO: Bounds = Bounds {
    section: "replication",
    key: "rpo",
    least: "1s",
    most: "1d",
};

/// Each upload that waits is lost with the device.
const RPO_METERED: Bounds = Bounds {
    section: "replication",
    key: "rpo_metered",
    least: "1s",
    most: "1d",
};

/// Each snapshot is the whole database.
const RETENTION: Bounds = Bounds {
    section: "replication",
    key: "retention",
    least: "1h",
    most: "3650d",
};

/// The bounds of each duration and size.
pub const BOUNDS: [Bounds; 9] = [
    RENEW_BEFORE,
    RPO,
    RPO_METERED,
    RETENTION,
    WAL_GUARD,
    INTERVAL,
    KEEP,
    RESTORABLE,
    VERIFY,
];

/// The whole configuration, validated.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// The device's identity.
    pub identity: Identity,
    /// The source of credentials.
    pub provider: Provider,
    /// The AWS region for Litestream.
    pub region: String,
    /// How long before their expiry credentials are renewed.
    pub renew_before: Duration,
    /// The Litestream that replicates the databases, and its supervisor.
    pub replication: Replication,
    /// How much may be lost with the device: what was committed in this time.
    pub rpo: Duration,
    /// The same while uploads wait; no less.
    pub rpo_metered: Duration,
    /// The databases.
    pub databases: Databases,
    /// The heartbeat rows; `None` if the application writes enough itself.
    pub heartbeat: Option<Heartbeat>,
    /// How often it is proved that each database can be restored; `None`: never.
    pub restorable: Option<Duration>,
    /// How often the bytes of each replica are compared with its database; `None`: never.
    pub verify: Option<Duration>,
    /// What is paid for the replication.
    pub prices: Prices,
}

impl Settings {
    /// How far two proofs may be apart, where something is committed all the time: where the line may be metered,
    /// more than the RPO.
    pub fn rarest_proof(&self) -> Duration {
        match self.replication.metered {
            Metered::Fixed(false) => self.rpo,
            _ => self.rpo_metered,
        }
    }

    /// Reads the layers of `main` and of [`VENDOR_DIRECTORY`].
    ///
    /// # Errors
    /// The first value that can't work, as one sentence with its file and key.
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
        let rpo = replication.parsed_or(RPO.key, "1m", RPO.around(value::duration))?;
        let rpo_metered =
            replication.parsed_or(RPO_METERED.key, "1h", RPO_METERED.around(value::duration))?;
        let settings = Self {
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
            rpo,
            rpo_metered: rpo_metered.max(rpo),
            databases: Databases::read(&layers)?,
            heartbeat: Heartbeat::read(&layers.section("heartbeat"), rpo)?,
            restorable: layers.section("proof").parsed_or(
                RESTORABLE.key,
                "1d",
                value::or_off(RESTORABLE.around(value::duration)),
            )?,
            verify: layers.section("proof").parsed_or(
                VERIFY.key,
                "off",
                value::or_off(VERIFY.around(value::duration)),
            )?,
            prices: Prices::read(&layers.section("cost"))?,
        };
        if settings.replication.replica.is_some() {
            settings.databases.can_be_named(&layers)?;
        }
        Ok(settings)
    }
}

/// The device's identity: `[identity]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The thing's name; `None` is the certificate's subject CN.
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

/// A host and a port for HTTPS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// A DNS name, or an IP address that the certificate names.
    pub host: String,
    /// The default is 443.
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

/// The databases: `[database]`, or each `[[database]]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Databases {
    /// The first one; there is one at least.
    pub first: Database,
    /// The others, in their order.
    pub others: Vec<Database>,
}

impl Databases {
    /// All of them, the first one first.
    pub fn iter(&self) -> impl Iterator<Item = &Database> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Each is replicated to its file's name below one prefix, in a file in which Litestream expands
    /// variables.
    fn can_be_named(&self, layers: &Layers) -> Result<(), ConfigError> {
        let mut names = BTreeSet::new();
        for (database, section) in self.iter().zip(layers.sections("database")) {
            let name = database.path.file_name().unwrap_or_default();
            let cause = match () {
                () if database.path.to_string_lossy().contains('$') => {
                    "must have no \"$\" where [replication] bucket is set, because Litestream would expand it"
                }
                () if !names.insert(name) => {
                    "must have another file name than the other databases where [replication] bucket is set, \
                     because their replicas have these names below one prefix"
                }
                () => continue,
            };
            return Err(section.error("path", cause.to_owned()));
        }
        Ok(())
    }

    fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let mut sections = layers.sections("database");
        let first = sections
            .next()
            .unwrap_or_else(|| layers.section("database"));
        Ok(Self {
            first: Database::read(&first, true)?,
            others: sections
                .map(|section| Database::read(&section, false))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// A database.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Database {
    /// The SQLite database that Litestream replicates.
    pub path: PathBuf,
    /// How large the WAL may grow, in bytes, while the WAL guard holds it; `None`: no guard.
    pub wal_guard: Option<u64>,
    /// Heartbeat rows are written to it, if any are.
    pub heartbeat: bool,
}

impl Database {
    fn read(section: &Section<'_>, heartbeat: bool) -> Result<Self, ConfigError> {
        Ok(Self {
            path: section.parsed("path", value::absolute_path)?,
            heartbeat: section.flag("heartbeat", heartbeat)?,
            wal_guard: section.parsed_or(
                WAL_GUARD.key,
                "64MiB",
                value::or_off(WAL_GUARD.around(value::size)),
            )?,
        })
    }
}

/// The heartbeat rows: `[heartbeat]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Heartbeat {
    /// The time between two rows.
    pub interval: Duration,
    /// The table that holds them.
    pub table: TableName,
    /// How long a row is kept; `None`: without a limit.
    pub keep: Option<Duration>,
}

impl Heartbeat {
    fn read(section: &Section<'_>, rpo: Duration) -> Result<Option<Self>, ConfigError> {
        let table = section.parsed_or("table", "HealthCheck", str::parse)?;
        let keep = value::or_off(KEEP.around(value::duration));
        let keep = section.parsed_or(KEEP.key, "30d", keep)?;
        let interval = value::or_off(INTERVAL.around(value::duration));
        let interval = section.optional(INTERVAL.key, interval)?;
        // One that is told has to fit `keep`; one that is not does.
        let fitting = keep.map_or(rpo, |keep| rpo.min(keep / 2));
        let interval = interval.unwrap_or(Some(fitting));
        // The next row's id follows the last one's, so the last row has to be kept.
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
    /// The exit status of a command that this error stops (`EX_CONFIG` of sysexits.h): a restart
    /// does not help.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(78)
    }
}
