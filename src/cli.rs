//! The command line: the work and the exit status of each command, and the log that all share.
//!
//! Owns the contract with operators and unit files; `arguments` has its words. Never does a
//! command's work itself.

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use env_logger::Target;
use log::{Level, LevelFilter};
use nix::sys::prctl::set_dumpable;

use crate::commands::{
    boot_check, check, credential_process, csr, init, output, pause, restore, status, sync, verify,
};
use crate::config::{RuntimeDirectory, Settings};
use crate::credentials::fetch;
use crate::litestream::own_config::Lent;
use crate::litestream::{leash, unit};
use crate::reactor::{self, bucket, disk, verification};
use crate::system::inherited;
use crate::system::stderr::StandardError;

mod arguments;

pub use arguments::definition;
use arguments::{Arguments, Command, Request, Trial};

/// The command line can't be understood (`EX_USAGE` of sysexits.h).
const EXIT_USAGE: u8 = 64;

/// Does what the command line says.
pub fn main() -> ExitCode {
    start_log();
    keep_memory_private();
    if let Some(code) = for_edgerepl_itself() {
        return code;
    }
    inherited::settle();
    match Arguments::try_parse() {
        Ok(arguments) => execute(arguments),
        Err(answer) => {
            // The help and the version come this way, too.
            if !answer.use_stderr() {
                return output::answer(answer.render(), ExitCode::SUCCESS);
            }
            output::tell(answer.render());
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Whatever this process dies of, it leaves no core file, and no other process of its user may read
/// its memory: each command may hold a credential or a PIN. What it executes begins anew.
fn keep_memory_private() {
    if let Err(e) = set_dumpable(false) {
        log::debug!("a core file of this process would hold secrets: {e}");
    }
}

/// What edgerepl starts itself with, and nobody else.
fn for_edgerepl_itself() -> Option<ExitCode> {
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    if let [command, rest @ ..] = &words[..]
        && command == leash::COMMAND
    {
        log::error!("{}", leash::run(rest));
        return Some(ExitCode::from(127));
    }
    let words: Vec<&str> = words
        .iter()
        .map(|word| word.to_str())
        .collect::<Option<_>>()?;
    match words.split_first()? {
        (&fetch::COMMAND, []) => Some(fetch::child()),
        (&check::database::COMMAND, [order]) => {
            let verdict = check::database::child(order)?;
            Some(output::answer(verdict, ExitCode::SUCCESS))
        }
        (&disk::COMMAND, question) => {
            Some(output::answer(disk::child(question)?, ExitCode::SUCCESS))
        }
        (&bucket::COMMAND, [asked]) => {
            Some(output::answer(bucket::child(asked)?, ExitCode::SUCCESS))
        }
        (&verification::COMMAND, words) => {
            Some(output::answer(verify::child(words)?, ExitCode::SUCCESS))
        }
        (&unit::AWAIT, [unit, earlier @ ..]) => {
            let restarted = unit::await_restart(unit, earlier.first().copied());
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
            cause.exit_code()
        })
    };
    // With a configuration for Litestream, where edgerepl writes that.
    let lent = || {
        let mut settings = load()?;
        match Lent::to(&mut settings, &runtime) {
            Ok(lent) => Ok((settings, lent)),
            Err(cause) => {
                log::error!("{cause}");
                Err(ExitCode::FAILURE)
            }
        }
    };
    let code = match &arguments.command {
        Command::Status { json } => Ok(status::show(&runtime, *json)),
        Command::Check { online, json } => Ok(check::check(config, &runtime, *online, *json)),
        Command::Sync { timeout, json } => {
            let limit = Duration::from_secs(u64::from(*timeout));
            Ok(sync::sync(&runtime, limit, *json))
        }
        Command::Pause => Ok(pause::pause(config, &runtime)),
        Command::Resume => Ok(pause::resume(&runtime)),
        Command::Init(answers) => Ok(init::init(config, &runtime, &|required| {
            answers.to(required.option)
        })),
        Command::BootCheck(trial) => Ok(boot_check(trial, &runtime)),
        Command::CredentialProcess => Ok(credential_process::print(config, &runtime)),
        Command::Run => load().map(|settings| run(config, settings, &runtime)),
        Command::Restore {
            names,
            wait,
            timestamp,
        } => lent().map(|(settings, _lent)| {
            let order = restore::Order {
                names,
                moment: timestamp.as_ref(),
                wait: *wait,
            };
            restore::restore(&settings, &runtime, &order)
        }),
        Command::Verify { names, json } => {
            lent().map(|(settings, _lent)| verify::verify(&settings, &runtime, names, *json))
        }
        Command::Csr(Request { subject, generate }) => {
            load().map(|s| csr::csr(&s.identity, subject.as_deref(), *generate, &runtime))
        }
    };
    code.unwrap_or_else(|code| code)
}

fn boot_check(trial: &Trial, runtime: &RuntimeDirectory) -> ExitCode {
    let slot = trial.slot.as_deref();
    if trial.before_reboot {
        return boot_check::note(runtime, slot);
    }
    let order = boot_check::Order {
        slot,
        limit: Duration::from_secs(u64::from(trial.limit)),
        wait: trial.wait,
    };
    boot_check::check(runtime, &order)
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
        .target(Target::Pipe(Box::new(StandardError)))
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
