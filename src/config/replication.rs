//! The replication: `[replication]`.
//!
//! Owns the choice between a Litestream with a configuration of the user's own and one that edgerepl writes.
//! Never writes it.

use std::path::PathBuf;
use std::time::Duration;

use super::layers::Section;
use super::{ConfigError, RETENTION, RuntimeDirectory, value};

/// Stands for the thing's name in `[replication] prefix`.
pub const THING_NAME: &str = "{thing_name}";

/// Litestream's configuration that edgerepl writes, in the runtime directory.
const OWN_CONFIGURATION: &str = "litestream.yml";

/// The replication: `[replication]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replication {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// When the line is metered: uploads wait then.
    pub metered: Metered,
    /// Where the replicas are, if edgerepl writes Litestream's configuration; `None`: the user has one.
    pub replica: Option<Replica>,
    /// How Litestream gets new credentials; `None` ("auto"): by a refresh if this Litestream can do it,
    /// else by a restart.
    pub rotation: Option<Rotation>,
    /// The supervisor of Litestream.
    pub supervisor: Supervisor,
    /// Litestream's control socket, as in Litestream's configuration. If nothing listens there,
    /// edgerepl works without it, a little slower.
    pub control_socket: PathBuf,
}

impl Replication {
    /// Litestream is run by a unit of its own.
    pub fn has_unit(&self) -> bool {
        matches!(self.supervisor, Supervisor::Systemd { .. })
    }

    pub(super) fn read(
        section: &Section<'_>,
        runtime: &RuntimeDirectory,
    ) -> Result<Self, ConfigError> {
        let replica = Replica::read(section)?;
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
            "restart" => Some(Rotation::Restart),
            "refresh" => Some(Rotation::Refresh),
            _ => None,
        };
        let command = match replica {
            Some(_) => {
                let file = runtime.file(OWN_CONFIGURATION).display().to_string();
                let words = ["litestream", "replicate", "-config", &file];
                words.map(str::to_owned).to_vec()
            }
            None => section.command("command", &default)?,
        };
        Ok(Self {
            command,
            metered: section.flag_or("metered", value::metered)?,
            replica,
            rotation,
            supervisor,
            control_socket: section
                .optional("control_socket", value::socket_path)?
                .unwrap_or_else(|| runtime.file("litestream.sock")),
        })
    }
}

/// Where the replicas are: `[replication] bucket` and what belongs to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replica {
    /// The bucket.
    pub bucket: String,
    /// What the keys of all objects begin with; [`THING_NAME`] stands in it for the thing's name.
    pub prefix: String,
    /// The URL of a store that is not AWS.
    pub endpoint: Option<String>,
    /// How far back a restore may go.
    pub retention: Duration,
}

impl Replica {
    fn read(section: &Section<'_>) -> Result<Option<Self>, ConfigError> {
        let Some(bucket) = section.optional("bucket", value::bucket)? else {
            let alone = ["prefix", "endpoint", "retention"];
            return match alone.into_iter().find(|key| section.has(key)) {
                Some(key) => Err(section.error(key, "needs bucket beside it".to_owned())),
                None => Ok(None),
            };
        };
        if section.has("command") {
            let cause = "can't be set beside bucket, with which edgerepl runs `litestream` by a configuration \
                         of its own; remove one of the two";
            return Err(section.error("command", cause.to_owned()));
        }
        if section.choice("supervisor", "child", &["child", "systemd"])? != "child" {
            let cause = "must be \"child\" beside bucket, because another unit's Litestream reads a file of its \
                         own";
            return Err(section.error("supervisor", cause.to_owned()));
        }
        Ok(Some(Self {
            bucket,
            prefix: section.parsed_or("prefix", THING_NAME, value::prefix)?,
            endpoint: section.optional("endpoint", value::store)?,
            retention: section.parsed_or(RETENTION.key, "1d", RETENTION.around(value::duration))?,
        }))
    }
}

/// When the line is metered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Metered {
    /// Always, or never.
    Fixed(bool),
    /// While the default route goes out by a mobile link.
    OnMobileLink,
    /// While there is this file, which a modem manager makes.
    While(PathBuf),
}

impl From<bool> for Metered {
    fn from(is_metered: bool) -> Self {
        Self::Fixed(is_metered)
    }
}

/// How Litestream gets new credentials.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rotation {
    /// By a restart with the credentials in the environment: every version can do it.
    Restart,
    /// By a refresh: Litestream asks a process of ours for them, whenever those that it has are about to
    /// end; 0.5 and later.
    Refresh,
}

impl Rotation {
    /// The word for it, in the configuration and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Refresh => "refresh",
        }
    }
}

/// The supervisor of Litestream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Supervisor {
    /// edgerepl itself: credentials never touch a file.
    Child,
    /// systemd, in Litestream's own unit.
    Systemd {
        /// The unit to restart.
        unit: String,
        /// The unit's `EnvironmentFile=`, on tmpfs.
        environment_file: PathBuf,
    },
}
