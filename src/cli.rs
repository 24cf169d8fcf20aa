//! The command line: what each command leads to, its exit status, and the log that all share.
//!
//! Owns the contract with whoever types or writes a unit file; `arguments` has its words. Each
//! command's work is elsewhere.

use std::env;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use log::{Level, LevelFilter};

use crate::config::{RuntimeDirectory, Settings};
use crate::credentials::fetch;
use crate::replication::unit;
use crate::system::leash;
use crate::{check, credential_process, csr, reactor, restore, status, verify};

mod arguments;

pub use arguments::definition;
use arguments::{Arguments, Command, Request};

/// The command that a fetch child is started with; not for people.
pub(crate) const FETCH: &str = "fetch";

/// The configuration can't work (`EX_CONFIG` of sysexits.h): starting again won't help.
pub(crate) const EXIT_CONFIG: u8 = 78;

/// The command line can't be understood (`EX_USAGE` of sysexits.h).
const EXIT_USAGE: u8 = 64;

/// Does what the command line says.
pub fn main() -> ExitCode {
    start_log();
    if let Some(code) = for_edgerepl_itself() {
        return code;
    }
    match Arguments::try_parse() {
        Ok(arguments) => execute(arguments),
        Err(answer) => {
            // The help and the version come this way, too.
            let is_fault = answer.use_stderr();
            let _ = answer.print();
            ExitCode::from(if is_fault { EXIT_USAGE } else { 0 })
        }
    }
}

/// What edgerepl starts itself with, and nobody else.
fn for_edgerepl_itself() -> Option<ExitCode> {
    let arguments: Vec<String> = env::args_os()
        .skip(1)
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    match arguments.split_first()? {
        (command, rest) if command == leash::COMMAND => {
            log::error!("{}", leash::run(rest));
            Some(ExitCode::from(127))
        }
        (command, []) if command == FETCH => Some(fetch::child()),
        (command, [order]) if command == check::database::COMMAND => {
            let verdict = check::database::child(order)?;
            let printed = writeln!(std::io::stdout(), "{verdict}");
            Some(ExitCode::from(u8::from(printed.is_err())))
        }
        (command, [unit, earlier @ ..]) if command == unit::AWAIT => {
            let earlier = earlier.first().map(String::as_str);
            let restarted = unit::await_restart(unit, earlier);
            Some(ExitCode::from(u8::from(!restarted)))
        }
        _ => None,
    }
}

fn execute(arguments: Arguments) -> ExitCode {
    let (config, runtime) = (arguments.config.as_path(), arguments.runtime());
    let load = || {
        Settings::load(config, &runtime).map_err(|cause| {
            log::error!("{cause}");
            ExitCode::from(EXIT_CONFIG)
        })
    };
    let code = match &arguments.command {
        Command::Status { json } => Ok(status::show(&runtime, *json)),
        Command::Check { online, json } => Ok(check::check(config, &runtime, *online, *json)),
        Command::CredentialProcess => Ok(credential_process::print(config, &runtime)),
        Command::Run => load().map(|settings| run(config, settings, &runtime)),
        Command::Restore { wait } => load().map(|s| restore::restore(&s, &runtime, *wait)),
        Command::Verify { json } => load().map(|s| verify::verify(&s, &runtime, *json)),
        Command::Csr(Request { subject, generate }) => {
            load().map(|s| csr::csr(&s.identity, subject.as_deref(), *generate, &runtime))
        }
    };
    code.unwrap_or_else(|code| code)
}

fn run(config: &Path, settings: Settings, runtime: &RuntimeDirectory) -> ExitCode {
    match reactor::run(config, settings, runtime.clone()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            log::error!("{cause}");
            ExitCode::FAILURE
        }
    }
}

/// One line an event on standard error; with the journal's level before it where it reads along.
fn start_log() {
    let journal = env::var_os("JOURNAL_STREAM").is_some();
    env_logger::Builder::new()
        .filter_level(LevelFilter::Info)
        .parse_default_env()
        // Whatever RUST_LOG says: these would log what goes over the wire.
        .filter_module("ureq", LevelFilter::Warn)
        .filter_module("ureq_proto", LevelFilter::Warn)
        .filter_module("rustls", LevelFilter::Warn)
        .format(move |line, record| {
            let (number, name) = match record.level() {
                Level::Error => (3, "error: "),
                Level::Warn => (4, "warning: "),
                Level::Info => (6, ""),
                Level::Debug | Level::Trace => (7, "debug: "),
            };
            if journal {
                writeln!(line, "<{number}>{}", record.args())
            } else {
                writeln!(line, "edgerepl: {name}{}", record.args())
            }
        })
        .init();
}
