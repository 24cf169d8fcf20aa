//! Commands, options and exit statuses, as people and unit files write them.
//!
//! Owns the words: the help, the manual pages and the completions of shells are all made of what
//! stands here. Does nothing of what they ask for.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::{DEFAULT_PATH, RuntimeDirectory};
use crate::credentials::key::NewKey;

/// The command line, described.
pub fn definition() -> clap::Command {
    Arguments::command()
}

/// Keeps a device's SQLite database replicated to S3 with credentials that live for minutes
#[derive(Debug, Parser)]
#[command(
    name = "edgerepl",
    version,
    about,
    after_help = ENVIRONMENT,
    arg_required_else_help = true
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,

    /// The configuration's main file
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_PATH)]
    pub(super) config: PathBuf,

    /// Where sockets and locks live [default: RUNTIME_DIRECTORY, else /run/edgerepl]
    #[arg(long, global = true, value_name = "PATH")]
    runtime_directory: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn runtime(&self) -> RuntimeDirectory {
        self.runtime_directory
            .clone()
            .map_or_else(RuntimeDirectory::from_environment, RuntimeDirectory::new)
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The daemon: fetches credentials, renews them, and runs Litestream with them
    #[command(after_help = "\
Exit status:
  0   after a clean stop
  1   where it can't begin
  78  where the configuration can't work

Signals:
  SIGTERM, SIGINT  a clean stop: the last row is written and replicated first; within 45 s
  SIGHUP           reads the configuration anew")]
    Run,

    /// Tests the configuration and all that it names
    ///
    /// Each check that fails says what is to be done next. Nothing is changed, and no PIN is offered
    /// that the token has refused before.
    #[command(after_help = "\
Exit status:
  0   where all pass
  1   where some fail
  78  where the configuration can't be read")]
    Check {
        /// Also fetches credentials, once
        #[arg(long)]
        online: bool,
        /// Prints JSON, for programs
        #[arg(long)]
        json: bool,
    },

    /// What the running daemon knows: credentials, Litestream, how far the replica is
    #[command(after_help = "\
Exit status:
  0  healthy
  1  not healthy
  3  not running")]
    Status {
        /// Prints JSON, for programs
        #[arg(long)]
        json: bool,
    },

    /// Restores the database from its replica where there is none
    ///
    /// For the first boot of a replacement, and for a data partition that was lost. A database that
    /// is there is never touched; a loss of power leaves none or a whole one. To be run before the
    /// application and the daemon.
    #[command(after_help = "\
Exit status:
  0   where it is restored, or there is nothing to do
  1   where it is not
  78  where the configuration can't be read")]
    Restore {
        /// Tries until it is done, or known that there is nothing to do
        #[arg(long)]
        wait: bool,
    },

    /// Restores the replica aside and compares it with the database
    ///
    /// Needs as much free space as the database has, beside it, and leaves nothing behind.
    #[command(after_help = "\
Exit status:
  0   where the replica holds all that it should
  1   where it does not, or nobody can tell
  78  where the configuration can't be read")]
    Verify {
        /// Prints JSON, for programs
        #[arg(long)]
        json: bool,
    },

    /// Prints credentials as AWS SDKs want them of a credential_process
    ///
    /// The running daemon's, in a few milliseconds; fetched where none runs. An SDK is pointed there
    /// by AWS_CONFIG_FILE=/run/edgerepl/aws-config.
    #[command(after_help = "\
Exit status:
  0   where they are printed
  1   where there are none
  78  where the configuration can't be read")]
    CredentialProcess,

    /// Prints a certificate request (PKCS #10) that the device's key signed
    #[command(after_help = "\
Exit status:
  0   where it is printed
  1   where there is none
  78  where the configuration can't be read")]
    Csr(Request),
}

#[derive(Args, Debug)]
pub(super) struct Request {
    /// What it is for [default: CN=, and the thing's name]
    #[arg(long, value_name = "NAME")]
    pub(super) subject: Option<String>,

    /// Has the token make the key first; never over another
    #[arg(
        long,
        value_enum,
        value_name = "KIND",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "p256"
    )]
    pub(super) generate: Option<NewKey>,
}

impl ValueEnum for NewKey {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::P256, Self::Rsa2048]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::P256 => PossibleValue::new("p256").help("ECDSA on P-256"),
            Self::Rsa2048 => PossibleValue::new("rsa2048").help("RSA with 2048 bits"),
        })
    }
}

const ENVIRONMENT: &str = "\
Environment:
  RUNTIME_DIRECTORY  what --runtime-directory says
  STATE_DIRECTORY    where the last certificate of the server is kept, for its date
  RUST_LOG           what is logged [default: info]

Started with:
  signals  blocked ones are let through, SIGCHLD is heeded where it was ignored, an alarm is cancelled
  limits   soft ones are raised to what is needed, as far as the hard ones allow
  umask    no file is made that a group or others may write to; a stricter one is kept

Exit status:
  64  of every command: the command line can't be understood";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn options_may_stand_before_and_after_the_command() {
        let parsed = |words: &str| Arguments::try_parse_from(words.split(' '));
        for words in [
            "edgerepl --config /a status --runtime-directory=/b --json",
            "edgerepl status --json --config=/a --runtime-directory /b",
        ] {
            let arguments = parsed(words).expect(words);
            assert_eq!(arguments.config, PathBuf::from("/a"));
            assert_eq!(arguments.runtime(), RuntimeDirectory::new("/b"));
            assert!(matches!(arguments.command, Command::Status { json: true }));
        }
        for (words, kind) in [
            ("edgerepl csr", None),
            ("edgerepl csr --generate", Some(NewKey::P256)),
            ("edgerepl csr --generate=rsa2048", Some(NewKey::Rsa2048)),
        ] {
            let Command::Csr(request) = parsed(words).expect(words).command else {
                panic!("{words}");
            };
            assert_eq!(request.generate, kind, "{words}");
        }
        assert!(parsed("edgerepl restore --json").is_err());
    }
}
