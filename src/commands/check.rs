//! `edgerepl check`: named checks of everything that can be tested before the first fetch.
//!
//! Owns the list of checks and, for each failure, the operator's next step. Never changes anything:
//! it creates no database, renews and restarts nothing. Loads the PKCS#11 module into its own
//! process, and gives up on a module that hangs.

mod cost;
pub(crate) mod database;
mod proposal;
mod restorable;
mod secure_element;

use std::fmt::Write;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::access;
use super::output::{self, Paint};
use super::patience::{PATIENCE, patiently};
use crate::clock::WallTime;
use crate::config::{Pkcs11Uri, PrivateKey, Rotation, RuntimeDirectory, Settings, Supervisor};
use crate::credentials::certificate::Certificate;
use crate::credentials::fetch;
use crate::credentials::key;
use crate::credentials::{FailureClass, FetchFailure, Grant, delivery, tls};
use crate::litestream::command::{self, Replicate};
use crate::litestream::config_file::{
    Configuration, Finding, Found, Surroundings, Variables, notice,
};
use crate::litestream::own_config::Lent;
use crate::store::compare::{BY_ROWS, linked_gives_pages};
use crate::store::version::SqliteVersion;
use crate::system::process::{Process, Streams};
use proposal::Proposal;

/// A certificate that expires within this time is a warning.
const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 86_400);

/// The first Litestream whose SQLite does not have the WAL-reset race.
const LITESTREAM_SAFE: (u32, u32, u32) = (0, 5, 17);

/// How long a killed child may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// How many bytes of a program's output are kept: the last ones.
const HEARD: usize = 4096;

/// Stands for the thing's name where that is not known.
const UNKNOWN_THING: &str = "THING";

/// The next step after a failure of the token or its key.
const NEXT_FOR_TOKEN: &str = "check the module, the token and the token's bus";

/// The command: 0 if all checks pass, 1 if a check fails, 78 if the configuration can't be read.
pub(crate) fn check(
    config: &Path,
    runtime: &RuntimeDirectory,
    online: bool,
    as_json: bool,
) -> ExitCode {
    let mut settings = match Settings::load(config, runtime) {
        Ok(settings) => settings,
        Err(cause) => {
            let next = "correct that line, then run the check again";
            let failed = Check::new("configuration", fail(cause.to_string(), next));
            return print(&[failed], as_json, cause.exit_code());
        }
    };
    let _lent = match Lent::to(&mut settings, runtime) {
        Ok(lent) => lent,
        Err(cause) => {
            let next = "make a folder for temporary files that can be written to, such as /tmp";
            let failed = Check::new("litestream_config", fail(cause, next));
            return print(&[failed], as_json, ExitCode::FAILURE);
        }
    };
    let checks = all(config, &settings, runtime, online);
    let code = match checks.iter().all(Check::passes) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    print(&checks, as_json, code)
}

fn all(config: &Path, settings: &Settings, runtime: &RuntimeDirectory, online: bool) -> Vec<Check> {
    let refused_pin = runtime.refused_pin();
    let certificate = Certificate::read(&settings.identity.certificate);
    let (version, litestream) = litestream(settings);
    let thing_name = thing_name(settings, &certificate);
    let configuration = configuration(settings, thing_name.as_deref(), version);
    let found = configuration.as_ref().map(Configuration::databases);
    let found = found.unwrap_or_default();
    let litestream_config = match &configuration {
        Ok(known) => litestream_config(settings, known, &found, thing_name.as_deref(), version),
        Err(cause) => fail(
            cause,
            "install Litestream's configuration, or name it in [replication] command",
        ),
    };
    let mut checks = vec![
        Check::new(
            "configuration",
            match runtime.takes_sockets() {
                Ok(()) => Outcome::Pass(format!("{} is valid", config.display())),
                Err(cause) => fail(cause, "set a shorter RuntimeDirectory= in the unit"),
            },
        ),
        Check::new("modes", modes(settings)),
        Check::new("certificate", certificate_dates(settings, &certificate)),
        Check::new("key", key_matches(settings, &refused_pin, certificate.ok())),
        Check::new("ca_bundle", ca_bundle(settings)),
        Check::new("litestream", litestream),
        Check::new("litestream_config", litestream_config),
        Check::new(
            "sqlite",
            sqlite(SqliteVersion::linked(), linked_gives_pages()),
        ),
    ];
    checks.push(restorable::planned(settings, version));
    let known = configuration.as_ref().ok();
    checks.extend(
        known.and_then(|known| cost::predicted(settings, config, version, known, found.clone())),
    );
    checks.extend(database::checks(settings, runtime, known, found.clone()));
    if let PrivateKey::Pkcs11(uri) = &settings.identity.private_key {
        checks.push(Check::new("token", token(uri)));
        if secure_element::is_behind(&uri.module_path) {
            checks.extend(secure_element::checks(Path::new("/"), &uri.module_path));
        }
    }
    if let Supervisor::Systemd {
        environment_file, ..
    } = &settings.replication.supervisor
    {
        checks.push(Check::new("environment_file", in_memory(environment_file)));
    }
    if online {
        let granted = access::fetch(settings, runtime);
        checks.push(Check::new("fetch", fetched(&granted)));
        if let (Some(known), Ok(grant)) = (known, &granted) {
            checks.extend(restorable::online(settings, runtime, grant, known, found));
        }
    }
    checks
}

/// A named check and its outcome.
struct Check {
    name: String,
    outcome: Outcome,
    /// What programs may want to know beside the sentence; null where there is nothing.
    figures: Value,
    /// The lines that the next step speaks of.
    proposal: Vec<Proposal>,
}

enum Outcome {
    Pass(String),
    /// It works, but the operator should know.
    Warn {
        cause: String,
        next: String,
    },
    Fail {
        cause: String,
        next: String,
    },
    /// It was not run: a check that it depends on has failed.
    Skip(String),
}

impl Check {
    fn new(name: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            name: name.into(),
            outcome,
            figures: Value::Null,
            proposal: Vec::new(),
        }
    }

    fn passes(&self) -> bool {
        matches!(self.outcome, Outcome::Pass(_) | Outcome::Warn { .. })
    }
}

fn fail(cause: impl Into<String>, next: impl Into<String>) -> Outcome {
    Outcome::Fail {
        cause: cause.into(),
        next: next.into(),
    }
}

fn warn(cause: impl Into<String>, next: impl Into<String>) -> Outcome {
    Outcome::Warn {
        cause: cause.into(),
        next: next.into(),
    }
}

/// Only the owner may access a file that holds a secret.
fn modes(settings: &Settings) -> Outcome {
    let secret = match &settings.identity.private_key {
        PrivateKey::Pem(path) => Some(path),
        PrivateKey::Pkcs11(uri) => uri.pin_source.as_ref(),
    };
    let Some(path) = secret else {
        return Outcome::Pass("no file holds a secret".to_owned());
    };
    let name = path.display();
    match fs::metadata(path) {
        Err(e) => fail(
            format!("{name} can't be accessed: {e}"),
            "install the file, with mode 0600",
        ),
        Ok(file) => match file.permissions().mode() & 0o077 {
            0 => Outcome::Pass(format!("only its owner can access {name}")),
            _ => fail(
                format!(
                    "{name} has the mode {:04o}, which gives other users access",
                    file.permissions().mode() & 0o7777
                ),
                format!("chmod 600 {name}"),
            ),
        },
    }
}

fn certificate_dates(
    settings: &Settings,
    certificate: &Result<Certificate, FetchFailure>,
) -> Outcome {
    let certificate = match certificate {
        Ok(certificate) => certificate,
        Err(failure) => {
            let next = "install the device's certificate as PEM, leaf first";
            return fail(&failure.message, next);
        }
    };
    let name = match fetch::thing_name(&settings.identity, certificate) {
        Ok(name) => name,
        Err(failure) => return fail(failure.message, "set [identity] thing_name"),
    };
    let now = WallTime::now().max(WallTime::of_build());
    let (begins, ends) = (certificate.not_before(), certificate.not_after());
    if now < begins {
        let cause = format!(
            "the certificate is valid from {begins}, but the clock shows {}",
            WallTime::now()
        );
        return fail(cause, "set the clock");
    }
    if now >= ends {
        return fail(
            format!("the certificate expired at {ends}"),
            "request a new certificate for the same key",
        );
    }
    if ends - now < EXPIRY_WARNING {
        let cause = format!("the certificate expires at {ends}, in less than 30 days");
        return warn(cause, "request a new certificate for the same key");
    }
    Outcome::Pass(format!(
        "the certificate names {name} and is valid until {ends}"
    ))
}

/// The token that holds the key; the key itself is a check of its own.
fn token(uri: &Pkcs11Uri) -> Outcome {
    let uri = uri.clone();
    match patiently(move |on_stage| key::describe(&uri, on_stage)) {
        Ok(text) => Outcome::Pass(text),
        Err(failure) => fail(failure.message, NEXT_FOR_TOKEN),
    }
}

/// One signature by the key, verified with the certificate.
fn key_matches(
    settings: &Settings,
    refused_pin: &Path,
    certificate: Option<Certificate>,
) -> Outcome {
    let Some(certificate) = certificate else {
        return Outcome::Skip("the key needs a certificate to be compared with".to_owned());
    };
    let private_key = settings.identity.private_key.clone();
    let name = private_key.to_string();
    let refused_pin = refused_pin.to_owned();
    let tested = patiently(move |on_stage| {
        let begun = Instant::now();
        let key = key::open(&private_key, &refused_pin, on_stage)?;
        let opened = begun.elapsed();
        certificate.self_test(&key)?;
        Ok((opened, begun.elapsed() - opened))
    });
    match tested {
        Ok((opened, signed)) => Outcome::Pass(format!(
            "{name} matches the certificate; opened in {} ms, signed in {} ms",
            opened.as_millis(),
            signed.as_millis()
        )),
        Err(failure) => {
            let next = match failure.class {
                FailureClass::WrongPin => {
                    "put the right PIN into the file before the next try: tokens lock"
                }
                FailureClass::Key => NEXT_FOR_TOKEN,
                _ => "check [identity] private_key and certificate",
            };
            fail(failure.message, next)
        }
    }
}

fn ca_bundle(settings: &Settings) -> Outcome {
    match tls::read_roots(&settings.provider.ca_file) {
        Ok(roots) => Outcome::Pass(format!("the bundle has {} roots", roots.len())),
        Err(failure) => fail(
            failure.message,
            "install the CA bundle of Amazon Trust Services",
        ),
    }
}

/// Litestream's version, if it prints one, and the outcome of the check.
fn litestream(settings: &Settings) -> (Option<(u32, u32, u32)>, Outcome) {
    let program = match command::locate(&settings.replication.command[0]) {
        Ok(program) => program,
        Err(cause) => return (None, fail(cause, "install Litestream 0.5.17 or later")),
    };
    let name = program.display();
    let asked =
        Replicate::parse(&settings.replication.command).and_then(|command| command.version());
    let ask = match asked {
        Ok(ask) => ask,
        Err(cause) => {
            let next = "make sure that the command runs Litestream 0.5.17 or later";
            return (None, warn(cause, next));
        }
    };
    let printed = match litestream_prints(ask, UNKNOWN_THING, &settings.region) {
        Ok(printed) => printed,
        Err(e) => {
            let cause = format!("`{name} version` fails: {e}");
            return (None, fail(cause, "run that command by hand"));
        }
    };
    let version = command::version(&printed);
    let outcome = match version {
        None => warn(
            format!("{name} does not print its version"),
            "make sure that the command runs Litestream 0.5.17 or later",
        ),
        Some(version) if version < LITESTREAM_SAFE => warn(
            format!(
                "{name} is Litestream {}.{}.{}: its SQLite can corrupt the WAL at a checkpoint",
                version.0, version.1, version.2
            ),
            "install Litestream 0.5.17 or later",
        ),
        Some((major, minor, patch)) => {
            Outcome::Pass(format!("{name} is Litestream {major}.{minor}.{patch}"))
        }
    };
    (version, outcome)
}

/// The thing's name, if it is known.
fn thing_name(
    settings: &Settings,
    certificate: &Result<Certificate, FetchFailure>,
) -> Option<String> {
    let certificate = certificate.as_ref().ok()?;
    fetch::thing_name(&settings.identity, certificate).ok()
}

/// Litestream's own file, read as Litestream reads it.
fn configuration(
    settings: &Settings,
    thing_name: Option<&str>,
    version: Option<(u32, u32, u32)>,
) -> Result<Configuration, String> {
    let replication = &settings.replication;
    let is_unit = replication.has_unit();
    let named = thing_name.unwrap_or(UNKNOWN_THING);
    let mut variables = Variables::of_litestream(named, &settings.region, is_unit);
    if replication.rotation == Some(Rotation::Restart)
        || version.is_some_and(|version| version < command::REFRESHES)
    {
        variables = variables.with_credentials();
    }
    Configuration::of(&replication.command, &variables)
}

/// Settings in it that do not work with temporary credentials. Reports the first fault, or else the
/// first warning.
fn litestream_config(
    settings: &Settings,
    configuration: &Configuration,
    found: &Found,
    thing_name: Option<&str>,
    version: Option<(u32, u32, u32)>,
) -> Outcome {
    let replication = &settings.replication;
    let is_unit = replication.has_unit();
    let named = thing_name.unwrap_or(UNKNOWN_THING);
    let faults: Vec<Finding> = found.faults().collect();
    // The unit's environment is not known here, nor is what Litestream expands with it.
    if version.is_some()
        && !is_unit
        && faults.is_empty()
        && let Ok(litestream) = Replicate::parse(&replication.command)
        && let Err(said) = litestream_prints(litestream.databases(), named, &settings.region)
    {
        let cause = format!(
            "Litestream does not accept {}: {said}",
            configuration.path().display()
        );
        return fail(cause, "correct that file as Litestream says");
    }
    let databases: Vec<&Path> = settings
        .databases
        .iter()
        .map(|d| d.path.as_path())
        .collect();
    let mut findings = configuration.lint(Surroundings {
        databases: &databases,
        control_socket: &settings.replication.control_socket,
        thing_name,
        version,
    });
    findings.splice(0..0, faults);
    findings.extend(forgotten(settings, configuration));
    let name = configuration.path().display();
    let worst = findings.iter().find(|finding| finding.is_fault);
    let Some(worst) = worst.or(findings.first()) else {
        return Outcome::Pass(format!("{name} works with temporary credentials"));
    };
    let others = match findings.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let cause = format!("{name}: {}{others}", worst.cause);
    match worst.is_fault {
        true => fail(cause, &worst.next),
        false => warn(cause, &worst.next),
    }
}

/// Two proofs in a row show that nobody has replaced Litestream's files, if the file of the first is there still.
fn forgotten(settings: &Settings, configuration: &Configuration) -> Option<Finding> {
    let apart = settings.rarest_proof();
    let database = &settings.databases.first;
    let kept = configuration.intervals(&database.path).young;
    let is_gone = configuration.has_socket() && !kept.is_zero() && kept < apart;
    is_gone.then(|| {
        notice(
            format!(
                "l0-retention is {} s, and two proofs may be {} s apart: that Litestream's files are replaced \
                 in between may go unnoticed",
                kept.as_secs(),
                apart.as_secs()
            ),
            "set l0-retention to twice as long as two proofs are apart",
        )
    })
}

fn sqlite(version: SqliteVersion, gives_pages: bool) -> Outcome {
    if !version.is_safe() {
        return fail(
            format!("SQLite {version} can corrupt a database that another process checkpoints"),
            "link SQLite 3.51.3 or later, or build with the feature bundled-sqlite",
        );
    }
    if !gives_pages {
        return warn(
            format!("SQLite {version} can't read pages: `edgerepl verify` compares {BY_ROWS}"),
            "link a SQLite that is built with SQLITE_ENABLE_DBPAGE_VTAB, or build with the \
             feature bundled-sqlite",
        );
    }
    Outcome::Pass(format!(
        "SQLite {version} has no WAL-reset race; `edgerepl verify` can compare pages"
    ))
}

fn in_memory(file: &Path) -> Outcome {
    let folder = file.parent().unwrap_or(Path::new("/"));
    match delivery::is_in_memory(folder) {
        Ok(true) => Outcome::Pass(format!("{} is on tmpfs", folder.display())),
        Ok(false) => fail(
            format!("{} is not on tmpfs", folder.display()),
            "set [replication] environment_file to a path under /run",
        ),
        Err(e) => fail(
            format!("{} can't be accessed: {e}", folder.display()),
            "let systemd create it (RuntimeDirectory=)",
        ),
    }
}

fn fetched(granted: &Result<Grant, FetchFailure>) -> Outcome {
    match granted {
        Ok(grant) => Outcome::Pass(format!(
            "the provider granted credentials to {} for {} s",
            grant.thing_name,
            grant.lifetime.as_secs()
        )),
        Err(failure) => {
            let next = match failure.class {
                FailureClass::Refused => "correct what the message names, here or at AWS",
                FailureClass::Key => "make the check \"key\" pass first",
                FailureClass::ClockNotSet => "set the clock, or wait until it is synchronised",
                FailureClass::WrongPin => "put the right PIN into the file",
                FailureClass::Transient => "check the network and [credentials] endpoint",
            };
            fail(&failure.message, next)
        }
    }
}

/// The output of a Litestream `command`, in the environment that Litestream gets.
///
/// # Errors
/// As for [`output_of`].
fn litestream_prints(
    mut command: Command,
    thing_name: &str,
    region: &str,
) -> Result<String, String> {
    delivery::keep_out(&mut command);
    let environment = delivery::to_ask(thing_name, region, delivery::NOTHING);
    command.envs(
        environment
            .iter()
            .map(|(name, value)| (name, value.as_str())),
    );
    output_of(&command)
}

/// The end of what `command` prints.
///
/// # Errors
/// The last line on its standard error, or why there is none.
fn output_of(command: &Command) -> Result<String, String> {
    let started = || -> io::Result<_> {
        let ((printed, output), (said, errors)) = (io::pipe()?, io::pipe()?);
        let streams = Streams {
            input: None,
            output: Some(output.as_fd()),
            errors: Some(errors.as_fd()),
        };
        Ok((
            Process::start(command, streams)?,
            heard(printed),
            heard(said),
        ))
    };
    let (mut child, printed, said) = started().map_err(|e| e.to_string())?;
    let deadline = Instant::now() + PATIENCE;
    // SIGKILL does not end a process that is stuck in the kernel.
    let ended = loop {
        match child.ended() {
            Some(status) => break Some(status),
            None if Instant::now() >= deadline + GRACE => break None,
            None if Instant::now() >= deadline => child.kill(),
            None => {}
        }
        thread::sleep(Duration::from_millis(10));
    };
    // A process that it started may keep the pipes open.
    let all = |from: Receiver<String>| {
        let text = from.recv_timeout(Duration::from_secs(1));
        text.unwrap_or_default()
    };
    match ended {
        Some(status) if status.success() => Ok(all(printed)),
        _ if Instant::now() >= deadline => {
            Err(format!("it did not end within {} s", PATIENCE.as_secs()))
        }
        Some(status) => Err(last_line(&all(said)).unwrap_or_else(|| status.to_string())),
        None => Err("it did not end after SIGKILL".to_owned()),
    }
}

/// The last bytes that come out of `pipe`. A thread reads it, so that the writer never blocks.
fn heard(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut kept = Vec::new();
        let mut chunk = [0; HEARD];
        while let Ok(length @ 1..) = pipe.read(&mut chunk) {
            kept.extend_from_slice(&chunk[..length]);
            let surplus = kept.len().saturating_sub(HEARD);
            kept.drain(..surplus);
        }
        // The receiver has gone if the child took too long.
        let _ = sender.send(String::from_utf8_lossy(&kept).into_owned());
    });
    receiver
}

/// The last line that is not blank, without control characters.
fn last_line(said: &str) -> Option<String> {
    let last = said.lines().rev().find(|line| !line.trim().is_empty())?;
    let readable = last.trim().chars().filter(|c| !c.is_control());
    Some(readable.take(500).collect())
}

fn print(checks: &[Check], as_json: bool, code: ExitCode) -> ExitCode {
    if as_json {
        let passed = checks.iter().all(Check::passes);
        let checks: Vec<Value> = checks.iter().map(to_json).collect();
        let document = json!({"form": 1, "passed": passed, "checks": checks});
        return output::answer(format_args!("{document}\n"), code);
    }
    let mut text = String::new();
    let longest = checks.iter().map(|check| check.name.chars().count()).max();
    let width = longest.unwrap_or_default();
    for check in checks {
        let Check { name, outcome, .. } = check;
        let (word, paint, said, next) = match outcome {
            Outcome::Pass(text) => ("ok", Paint::Green, text, None),
            Outcome::Warn { cause, next } => ("warn", Paint::Yellow, cause, Some(next)),
            Outcome::Fail { cause, next } => ("FAIL", Paint::Red, cause, Some(next)),
            Outcome::Skip(text) => ("skip", Paint::Yellow, text, None),
        };
        let word = paint.on_terminal(&format!("{word:<5}"));
        let _ = writeln!(text, "{word} {name:<width$} {said}");
        if let Some(next) = next {
            let _ = writeln!(text, "      {:<width$} next: {next}", "");
        }
        let margin = " ".repeat(width + 9);
        check
            .proposal
            .iter()
            .for_each(|lines| lines.print(&mut text, &margin));
    }
    output::answer(text, code)
}

fn to_json(check: &Check) -> Value {
    let (word, text, next) = match &check.outcome {
        Outcome::Pass(text) => ("pass", text, None),
        Outcome::Warn { cause, next } => ("warn", cause, Some(next)),
        Outcome::Fail { cause, next } => ("fail", cause, Some(next)),
        Outcome::Skip(text) => ("skip", text, None),
    };
    let mut document =
        json!({"name": check.name, "outcome": word, "detail": text, "next_step": next});
    if !check.figures.is_null() {
        document["figures"] = check.figures.clone();
    }
    if !check.proposal.is_empty() {
        document["proposal"] = check.proposal.iter().map(Proposal::to_json).collect();
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_sqlite_without_pages_is_told_with_what_is_compared_instead() {
        let safe = SqliteVersion::linked();
        assert!(safe.is_safe() && linked_gives_pages());
        assert!(matches!(sqlite(safe, true), Outcome::Pass(_)));
        let Outcome::Warn { cause, next } = sqlite(safe, false) else {
            panic!("there is no warning");
        };
        assert!(cause.contains("compares rows, rowids"), "{cause}");
        assert!(next.contains("SQLITE_ENABLE_DBPAGE_VTAB"), "{next}");
    }
}
