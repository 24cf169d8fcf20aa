//! Credentials for a command: the daemon's if one runs, else from a fetch of its own.
//!
//! Owns the choice between the two, and the environment of a Litestream that a command starts.
//! Never keeps anything after the command.

use super::patience::patiently;
use crate::agent::told_term;
use crate::config::{RuntimeDirectory, Settings, Supervisor};
use crate::credentials::certificate::Certificate;
use crate::credentials::delivery::{self, Variable};
use crate::credentials::fetch;
use crate::credentials::wire::FetchRequest;
use crate::credentials::{Credentials, Document, FetchFailure, Grant};
use crate::ipc::credentials;
use crate::litestream::config_file::{Configuration, Variables};

/// Credentials, their region, and the thing's name, which Litestream expands in its file.
#[derive(Debug)]
pub(crate) struct Access<'a> {
    credentials: Credentials,
    region: &'a str,
    thing_name: String,
}

impl<'a> Access<'a> {
    /// From the daemon if one runs, else by a fetch.
    ///
    /// # Errors
    /// Why there is none, in one sentence.
    pub(crate) fn obtain(
        settings: &'a Settings,
        runtime: &RuntimeDirectory,
    ) -> Result<Self, String> {
        let identity = &settings.identity;
        let certificate = Certificate::read(&identity.certificate).map_err(|f| f.message)?;
        let document = match credentials::ask(runtime) {
            Ok(answer) => answer?,
            Err(_) => fetched(settings, runtime)?,
        };
        Ok(Self {
            thing_name: fetch::thing_name(identity, &certificate).map_err(|f| f.message)?,
            credentials: credentials::read(&document)?,
            region: &settings.region,
        })
    }

    /// The variables that a Litestream with these credentials gets beside its own environment.
    pub(crate) fn environment(&self) -> Vec<Variable> {
        delivery::with_keys(&self.thing_name, self.region, &self.credentials)
    }

    /// Litestream's configuration, read with the thing's name and the region.
    ///
    /// # Errors
    /// Why it can't be read, in one sentence.
    pub(crate) fn litestream_config(&self, settings: &Settings) -> Result<Configuration, String> {
        let replication = &settings.replication;
        let is_unit = matches!(replication.supervisor, Supervisor::Systemd { .. });
        let variables = Variables::of_litestream(&self.thing_name, self.region, is_unit);
        Configuration::of(&replication.command, &variables)
    }
}

/// The document for an SDK, from credentials that are fetched for the command.
///
/// # Errors
/// Why there are none, in one sentence.
pub(crate) fn fetched(settings: &Settings, runtime: &RuntimeDirectory) -> Result<Document, String> {
    let grant = fetch(settings, runtime)
        .map_err(|failure| format!("no credentials: {}", failure.message))?;
    let spare = settings.renew_before.min(grant.lifetime / 3);
    let term = told_term(grant.lifetime, grant.lifetime - spare);
    Ok(credentials::of(&grant.credentials, term))
}

/// Fetches credentials for a command, by the daemon's rules.
///
/// # Errors
/// Why there are none.
pub(crate) fn fetch(
    settings: &Settings,
    runtime: &RuntimeDirectory,
) -> Result<Grant, FetchFailure> {
    let request = FetchRequest::of(settings, runtime, 0);
    patiently(move |on_stage| fetch::fetch(&request, on_stage))
}
