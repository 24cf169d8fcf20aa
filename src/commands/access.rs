//! Credentials for a command: the daemon's if one runs, else from a fetch of its own.
//!
//! Owns the choice between the two, and the environment of a Litestream that a command starts.
//! Never keeps anything after the command.

use std::time::{Duration, Instant};

use super::patience::patiently;
use crate::agent::told_term;
use crate::config::{RuntimeDirectory, Settings};
use crate::credentials::certificate::Certificate;
use crate::credentials::delivery::{self, Variable};
use crate::credentials::fetch;
use crate::credentials::wire::FetchRequest;
use crate::credentials::{Credentials, Document, FetchFailure, Grant};
use crate::ipc::credentials;
use crate::litestream::config_file::{Configuration, Variables};

/// For how long one access serves: far shorter than credentials live, and longer than a few small
/// databases take.
const FRESH: Duration = Duration::from_secs(60);

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
}

/// The access of a command that works through several databases, and may outlive what it was given.
#[derive(Debug)]
pub(crate) struct Accesses<'a> {
    settings: &'a Settings,
    runtime: &'a RuntimeDirectory,
    last: Option<(Instant, Result<Access<'a>, String>)>,
}

impl<'a> Accesses<'a> {
    /// Nothing is obtained before it is needed.
    pub(crate) fn new(settings: &'a Settings, runtime: &'a RuntimeDirectory) -> Self {
        Self {
            settings,
            runtime,
            last: None,
        }
    }

    /// As [`Access::environment`], of an access that was obtained a moment ago.
    ///
    /// # Errors
    /// Why there is none: for all databases of that moment, it is tried once.
    pub(crate) fn environment(&mut self) -> Result<Vec<Variable>, String> {
        let last = self.last.take();
        let fresh = last.filter(|(when, _)| when.elapsed() < FRESH);
        let (_, access) = self.last.insert(fresh.unwrap_or_else(|| {
            let access = Access::obtain(self.settings, self.runtime);
            (Instant::now(), access)
        }));
        access
            .as_ref()
            .map(Access::environment)
            .map_err(Clone::clone)
    }
}

/// Litestream's configuration, read with the thing's name and the region.
///
/// # Errors
/// Why it can't be read, in one sentence.
pub(crate) fn litestream_config(settings: &Settings) -> Result<Configuration, String> {
    let identity = &settings.identity;
    let certificate = Certificate::read(&identity.certificate).map_err(|f| f.message)?;
    let thing_name = fetch::thing_name(identity, &certificate).map_err(|f| f.message)?;
    let replication = &settings.replication;
    let is_unit = replication.has_unit();
    let variables = Variables::of_litestream(&thing_name, &settings.region, is_unit);
    Configuration::of(&replication.command, &variables)
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
