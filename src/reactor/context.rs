//! What everything that the reactor starts needs: the configuration and the credentials in force.
//!
//! Owns both, and the use of settings: for the agent's policy, the heartbeat's table, Litestream's
//! configuration. Starts nothing, and waits for nothing.

use std::path::{Path, PathBuf};

use log::warn;

use crate::agent::{Policy, SupervisorKind};
use crate::clock::WallTime;
use crate::config::{Heartbeat, RuntimeDirectory, Settings, Supervisor, TableName};
use crate::credentials::Grant;
use crate::credentials::delivery::{self, Variable};
use crate::litestream::config_file::{Configuration, Variables};
use crate::store::Store;

#[derive(Debug)]
pub(super) struct Context {
    /// The configuration's main file.
    pub(super) config: PathBuf,
    pub(super) settings: Settings,
    pub(super) runtime: RuntimeDirectory,
    pub(super) grant: Option<Grant>,
}

impl Context {
    pub(super) fn database(&self) -> &Path {
        &self.settings.databases.first.path
    }

    /// The configured command that runs Litestream.
    pub(super) fn command(&self) -> &[String] {
        &self.settings.replication.command
    }

    pub(super) fn supervisor(&self) -> &Supervisor {
        &self.settings.replication.supervisor
    }

    /// Litestream's configuration, as a Litestream that starts now would read it.
    pub(super) fn litestream_config(&self) -> Result<Configuration, String> {
        let thing_name = self.grant.as_ref().map_or("", |grant| &grant.thing_name);
        let is_unit = matches!(self.supervisor(), Supervisor::Systemd { .. });
        let variables = Variables::of_litestream(thing_name, &self.settings.region, is_unit);
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

    pub(super) fn policy(&self) -> Policy {
        let settings = &self.settings;
        let heartbeat = settings.heartbeat.as_ref();
        Policy {
            renew_before: settings.renew_before,
            heartbeat: heartbeat.map(|heartbeat| heartbeat.interval),
            prune: heartbeat.is_some_and(|heartbeat| heartbeat.keep.is_some()),
            supervisor: match self.supervisor() {
                Supervisor::Child => SupervisorKind::Child,
                Supervisor::Systemd { .. } => SupervisorKind::Systemd,
            },
            rotation: settings.replication.rotation,
            wal_guard: settings.databases.first.wal_guard.is_some(),
            database: settings.databases.first.path.clone(),
        }
    }

    /// The destination of heartbeat rows, for a daemon that started then.
    pub(super) fn store(&self, started: WallTime) -> Option<Store> {
        let heartbeat = self.settings.heartbeat.as_ref()?;
        Some(Store::new(self.database(), &heartbeat.table, started))
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
        let rows_move = settings.databases.first.path != self.settings.databases.first.path
            || table(&settings) != table(&self.settings);
        self.settings = settings;
        Ok(rows_move)
    }
}

const NO_CREDENTIALS: &str = "there are no credentials";

fn table(settings: &Settings) -> Option<&TableName> {
    let heartbeat = settings.heartbeat.as_ref();
    heartbeat.map(|Heartbeat { table, .. }| table)
}
