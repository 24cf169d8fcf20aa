//! The command line: commands, options, exit codes; and the log, which every command shares.
//!
//! Owns the contract with whoever types or writes a unit file. Each command's work is elsewhere.

use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use log::{Level, LevelFilter};

use crate::config::{DEFAULT_PATH, RuntimeDirectory, Settings};
use crate::credentials::fetch;
use crate::credentials::key::NewKey;
use crate::replication::unit;
use crate::system::leash;
use crate::{check, credential_process, csr, reactor, restore, status, verify};

/// The command that a fetch child is started with; not for people.
pub(crate) const FETCH: &str = "fetch";

/// The configuration can't work (`EX_CONFIG` of sysexits.h): starting again won't help.
pub(crate) const EXIT_CONFIG: u8 = 78;

/// The command line can't be understood (`EX_USAGE` of sysexits.h).
const EXIT_USAGE: u8 = 64;

const HELP: &str = "\
edgerepl keeps a device's SQLite database replicated to S3 with credentials that live for minutes.

Usage: edgerepl COMMAND [--config PATH] [OPTIONS]

Commands:
  run     the daemon: fetch credentials, renew them, run Litestream with them
  check   test the configuration and all that it names; --online also fetches once; --json
  status  what the running daemon knows; --json
  restore restore the database from its replica where there is none, never over one; --wait tries
          until that is done, or there is nothing to do
  verify  restore the replica aside and compare it with the database; --json
  credential-process
          print credentials as AWS SDKs want them of a credential_process: the daemon's, or
          fetched where none runs
  csr     print a certificate request that the device's key signed
          --subject NAME           what it is for [default: CN=, and the thing's name]
          --generate[=p256|rsa2048]  have the token make the key first; never over another

Options:
  --config PATH  the configuration's main file [default: /etc/edgerepl/edgerepl.toml]
  --runtime-directory PATH
                 where sockets and locks live [default: /run/edgerepl]
  --help         this text
  --version      the version

Exit codes:
  run     0 after a clean stop, 78 where the configuration can't work, 1 where it can't begin
  check   0 where all pass, 1 where some fail, 78 where the configuration can't be read
  status  0 healthy, 1 not healthy, 3 not running
  restore 0 where it is restored or there is nothing to do, 1 where not, 78 where the configuration
          can't be read
  verify  0 where the replica holds all that it should, 1 where not or nobody can tell, 78 where
          the configuration can't be read
  credential-process, csr
          0 where it is printed, 1 where there is none, 78 where the configuration can't be read

Environment:
  RUNTIME_DIRECTORY  what --runtime-directory says
  STATE_DIRECTORY    where the last good time is kept; nothing is kept without it
  RUST_LOG           what is logged [default: info]
";

/// Does what the command line says.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = env::args_os()
        .skip(1)
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    start_log();
    match arguments.split_first() {
        Some((command, rest)) if command == leash::COMMAND => {
            log::error!("{}", leash::run(rest));
            ExitCode::from(127)
        }
        Some((command, [])) if command == FETCH => fetch::child(),
        Some((command, [unit, earlier @ ..])) if command == unit::AWAIT => {
            let earlier = earlier.first().map(String::as_str);
            ExitCode::from(u8::from(!unit::await_restart(unit, earlier)))
        }
        Some((command, rest)) => match Options::parse(command, rest) {
            Ok(options) => options.execute(),
            Err(cause) => {
                eprintln!("edgerepl: {cause}; see edgerepl --help");
                ExitCode::from(EXIT_USAGE)
            }
        },
        None => {
            eprint!("{HELP}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

#[derive(Debug)]
struct Options {
    command: Command,
    config: PathBuf,
    runtime: RuntimeDirectory,
    json: bool,
    online: bool,
    wait: bool,
    subject: Option<String>,
    generate: Option<NewKey>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Command {
    Run,
    Check,
    Status,
    Restore,
    Verify,
    CredentialProcess,
    Csr,
    Help,
    Version,
}

impl Options {
    fn parse(command: &str, rest: &[String]) -> Result<Self, String> {
        let command = match command {
            "run" => Command::Run,
            "check" => Command::Check,
            "status" => Command::Status,
            "restore" => Command::Restore,
            "verify" => Command::Verify,
            "credential-process" => Command::CredentialProcess,
            "csr" => Command::Csr,
            "help" | "--help" | "-h" => Command::Help,
            "--version" | "-V" => Command::Version,
            other => return Err(format!("there is no command {other:?}")),
        };
        let mut options = Self {
            command,
            config: PathBuf::from(DEFAULT_PATH),
            runtime: RuntimeDirectory::from_environment(),
            json: false,
            online: false,
            wait: false,
            subject: None,
            generate: None,
        };
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            match word.as_str() {
                "--config" => {
                    options.config = rest.next().ok_or("--config needs a path")?.into();
                }
                "--runtime-directory" => {
                    let path = rest.next().ok_or("--runtime-directory needs a path")?;
                    options.runtime = RuntimeDirectory::new(path);
                }
                "--json"
                    if matches!(command, Command::Check | Command::Status | Command::Verify) =>
                {
                    options.json = true;
                }
                "--wait" if command == Command::Restore => options.wait = true,
                "--online" if command == Command::Check => options.online = true,
                "--subject" if command == Command::Csr => {
                    let name = rest.next().ok_or("--subject needs a name, as CN=thing")?;
                    options.subject = Some(name.clone());
                }
                "--generate" if command == Command::Csr => options.generate = Some(NewKey::P256),
                "--help" | "-h" => options.command = Command::Help,
                other => match (other.split_once('='), command) {
                    (Some(("--config", path)), _) => options.config = path.into(),
                    (Some(("--runtime-directory", path)), _) => {
                        options.runtime = RuntimeDirectory::new(path);
                    }
                    (Some(("--subject", name)), Command::Csr) => {
                        options.subject = Some(name.to_owned());
                    }
                    (Some(("--generate", kind)), Command::Csr) => {
                        options.generate = Some(match kind {
                            "p256" => NewKey::P256,
                            "rsa2048" => NewKey::Rsa2048,
                            _ => return Err("--generate makes p256 or rsa2048".to_owned()),
                        });
                    }
                    _ => return Err(format!("{other:?} is not understood here")),
                },
            }
        }
        Ok(options)
    }

    fn execute(self) -> ExitCode {
        let runtime = self.runtime;
        match self.command {
            Command::Help => print!("{HELP}"),
            Command::Version => println!("edgerepl {}", env!("CARGO_PKG_VERSION")),
            Command::Status => return status::show(&runtime, self.json),
            Command::Check => return check::check(&self.config, &runtime, self.online, self.json),
            Command::CredentialProcess => {
                return credential_process::print(&self.config, &runtime);
            }
            Command::Csr | Command::Restore | Command::Run | Command::Verify => {
                let settings = match Settings::load(&self.config, &runtime) {
                    Ok(settings) => settings,
                    Err(cause) => {
                        log::error!("{cause}");
                        return ExitCode::from(EXIT_CONFIG);
                    }
                };
                match self.command {
                    Command::Csr => {
                        let subject = self.subject.as_deref();
                        return csr::csr(&settings.identity, subject, self.generate, &runtime);
                    }
                    Command::Restore => return restore::restore(&settings, &runtime, self.wait),
                    Command::Verify => return verify::verify(&settings, &runtime, self.json),
                    _ => {}
                }
                if let Err(cause) = reactor::run(&self.config, settings, runtime) {
                    log::error!("{cause}");
                    return ExitCode::FAILURE;
                }
            }
        }
        ExitCode::SUCCESS
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
