//! What everything that the reactor starts needs: the configuration and the credentials in force.
//!
//! Owns both, and the use of settings: for the agent's policy, the heartbeat's table, Litestream's
//! configuration. Starts nothing, and waits for nothing.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use log::warn;

use super::paths::Paths;
use crate::agent::{Database, Policy, Rpo, SupervisorKind, Watch};
use crate::config::{self, Heartbeat, RuntimeDirectory, Settings, Supervisor, TableName};
use crate::credentials::Grant;
use crate::credentials::delivery::{self, Variable};
use crate::litestream::config_file::{Configuration, Variables};
use crate::litestream::own_config;

#[derive(Debug)]
pub(super) struct Context {
    /// The configuration's main file.
    pub(super) config: PathBuf,
    pub(super) settings: Settings,
    pub(super) runtime: RuntimeDirectory,
    pub(super) grant: Option<Grant>,
    pub(super) paths: Paths,
}

impl Context {
    pub(super) fn path(&self, database: Database) -> &Path {
        self.paths.path(database)
    }

    /// How large the WAL of a database may grow, in bytes, while it is held.
    pub(super) fn wal_limit(&self, database: Database) -> Option<u64> {
        let mut configured = self.settings.databases.iter();
        match configured.find(|configured| self.paths.find(&configured.path) == Some(database)) {
            Some(configured) => configured.wal_guard,
            None => Some(config::WAL_LIMIT),
        }
    }

    /// How a database is watched that Litestream names so, and edgerepl's configuration does not.
    pub(super) fn watch_of_litestream(&mut self, path: &Path) -> Option<Watch> {
        let database = self.paths.number_in_litestream(path)?;
        Some(Watch {
            database,
            name: self.path(database).display().to_string().into(),
            rows: false,
            wal_guard: self.wal_limit(database),
        })
    }

    /// The configured command that runs Litestream.
    pub(super) fn command(&self) -> &[String] {
        &self.settings.replication.command
    }

    pub(super) fn supervisor(&self) -> &Supervisor {
        &self.settings.replication.supervisor
    }

    /// The thing's name, once there are credentials.
    pub(super) fn thing_name(&self) -> &str {
        self.grant.as_ref().map_or("", |grant| &grant.thing_name)
    }

    /// Litestream's configuration, as a Litestream that starts now would read it. It is written first where
    /// it is edgerepl's.
    pub(super) fn litestream_config(&self) -> Result<Configuration, String> {
        own_config::write(&self.settings)?;
        let region = &self.settings.region;
        let is_unit = self.settings.replication.has_unit();
        let variables = Variables::of_litestream(self.thing_name(), region, is_unit);
        Configuration::of(self.command(), &variables)
    }

    /// An environment that contains the credentials in force.
    pub(super) fn variables(&self) -> Result<Vec<Variable>, String> {
        let grant = self.grant.as_ref().ok_or(NO_CREDENTIALS)?;
        let region = &self.settings.region;
        Ok(delivery::with_keys(
            &grant.thing_name,
            region,
            &grant.credentials,
        ))
    }

    /// An environment that names the process to ask for credentials.
    pub(super) fn variables_to_ask(&self) -> Result<Vec<Variable>, String> {
        let grant = self.grant.as_ref().ok_or(NO_CREDENTIALS)?;
        let region = &self.settings.region;
        let config = delivery::write_sdk_config(&self.runtime, &self.config, region)?;
        let config = config.to_string_lossy();
        Ok(delivery::to_ask(&grant.thing_name, region, &config))
    }

    /// The secrets that must not be logged from Litestream's output.
    pub(super) fn secrets(&self) -> Vec<&str> {
        let credentials = self.grant.as_ref().map(|grant| &grant.credentials);
        let secrets = credentials.map(|c| [c.secret_access_key.as_str(), c.session_token.as_str()]);
        secrets.into_iter().flatten().collect()
    }

    pub(super) fn policy(&mut self) -> Policy {
        let settings = &self.settings;
        let heartbeat = settings.heartbeat.as_ref();
        let databases = settings.databases.iter().filter_map(|configured| {
            Some(Watch {
                database: self.paths.number(&configured.path)?,
                name: configured.path.display().to_string().into(),
                rows: configured.heartbeat,
                wal_guard: configured.wal_guard,
            })
        });
        Policy {
            databases: databases.collect(),
            renew_before: settings.renew_before,
            rpo: Rpo::new(settings.rpo),
            rpo_metered: Rpo::new(settings.rpo_metered),
            heartbeat: heartbeat.map(|heartbeat| heartbeat.interval),
            prune: heartbeat.is_some_and(|heartbeat| heartbeat.keep.is_some()),
            supervisor: match settings.replication.supervisor {
                Supervisor::Child => SupervisorKind::Child,
                Supervisor::Systemd { .. } => SupervisorKind::Systemd,
            },
            rotation: settings.replication.rotation,
            restorable: settings.restorable,
            verify: settings.verify,
            litestream: own_config::text(settings).map(Rc::from),
        }
    }

    /// Reloads the configuration; returns whether heartbeat rows have a new destination.
    ///
    /// # Errors
    /// Why it is invalid; then it changes nothing.
    pub(super) fn reload(&mut self) -> Result<bool, String> {
        let mut settings =
            Settings::load(&self.config, &self.runtime).map_err(|cause| cause.to_string())?;
        if settings.replication.supervisor != *self.supervisor() {
            warn!("[replication] supervisor changes when edgerepl is restarted, not before");
            settings.replication.supervisor = self.supervisor().clone();
        }
        let rows_move = table(&settings) != table(&self.settings);
        self.settings = settings;
        Ok(rows_move)
    }
}

const NO_CREDENTIALS: &str = "there are no credentials";

fn table(settings: &Settings) -> Option<&TableName> {
    let heartbeat = settings.heartbeat.as_ref();
    heartbeat.map(|Heartbeat { table, .. }| table)
}
