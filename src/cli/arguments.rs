//! Commands, options and exit statuses, as people and unit files write them.
//!
//! Owns the words: the help, the manual pages and the shell completions are all made from this
//! file. Never executes a command.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::{DEFAULT_PATH, RuntimeDirectory};
use crate::credentials::key::NewKey;
use crate::litestream::moment::Moment;

/// The command line's definition.
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

    /// Main configuration file
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_PATH)]
    pub(super) config: PathBuf,

    /// Directory of sockets and locks [default: RUNTIME_DIRECTORY, else /run/edgerepl]
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
    /// Runs the daemon: fetches credentials, renews them, and hands them to Litestream
    #[command(after_help = "\
Exit status:
  0   edgerepl stopped cleanly
  1   edgerepl can't start
  78  the configuration can't work

Signals:
  SIGTERM, SIGINT  stop cleanly within 45 s: write and replicate a last row first
  SIGHUP           reload the configuration")]
    Run,

    /// Checks the configuration and everything that it names
    ///
    /// Each check that fails prints the next step. The command changes nothing, and never offers a
    /// PIN that the token has refused.
    #[command(after_help = "\
Exit status:
  0   all checks pass
  1   a check fails
  78  the configuration can't be read")]
    Check {
        /// Also fetches credentials once
        #[arg(long)]
        online: bool,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },

    /// Writes a configuration: asks for what is missing, or takes it as options
    ///
    /// Then checks it as `check --online` does, and prints the next command. It never overwrites a file: where the
    /// main configuration file is there, it writes a layer beside it.
    #[command(after_help = "\
Exit status:
  0  the configuration is written
  1  it is not")]
    Init(Answers),

    /// Shows the state of the running daemon: credentials, Litestream, replica
    #[command(after_help = "\
Exit status:
  0  the device is healthy
  1  the device is not healthy
  3  no daemon runs, or none answers")]
    Status {
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },

    /// Restores the databases that are missing from their replicas
    ///
    /// For the first boot of a replacement device, or after the loss of a data partition. Run it
    /// before the application and the daemon start. It never changes an existing database. A power
    /// cut leaves each database either missing or complete.
    #[command(after_help = "\
Exit status:
  0   each database is restored, or there is nothing to do
  1   a database is not restored
  78  the configuration can't be read")]
    Restore {
        /// Databases to restore, by path or by file name [default: all that are configured, in
        /// edgerepl or in Litestream]
        #[arg(value_name = "DATABASE")]
        names: Vec<PathBuf>,
        /// Retries until each database is restored, or there is nothing to do
        #[arg(long)]
        wait: bool,
        /// Restores the state of this time, such as 2026-11-29T12:00:00Z (RFC 3339)
        #[arg(long, value_name = "TIME")]
        timestamp: Option<Moment>,
    },

    /// Restores the replicas to temporary copies and compares them with the databases
    ///
    /// One database after the other. Needs free space beside each database, as much as the database
    /// takes. Removes the copy at the end.
    #[command(after_help = "\
Exit status:
  0   each replica holds everything it should
  1   a replica does not, or can't be compared
  78  the configuration can't be read")]
    Verify {
        /// Databases to compare, by path or by file name [default: all that are configured, in
        /// edgerepl or in Litestream]
        #[arg(value_name = "DATABASE")]
        names: Vec<PathBuf>,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },

    /// Uploads everything now, such as before a planned power-off
    ///
    /// Ends once each replica is proved to hold all that was committed before.
    #[command(after_help = "\
Exit status:
  0  each replica holds everything; a database that is not there has nothing to upload
  1  a replica does not within the time
  3  no daemon runs, or none answers")]
    Sync {
        /// How long to wait, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        timeout: u32,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },

    /// Holds uploads back, for [replication] rpo_metered at the most
    ///
    /// For a link that sleeps or is paid by the byte. Lasts until `edgerepl resume`, or until the daemon ends.
    /// `edgerepl sync` still uploads, as does a hand-over of credentials by a restart of Litestream.
    #[command(after_help = "\
Exit status:
  0  uploads wait
  3  no daemon runs, or none answers")]
    Pause,

    /// Ends a pause: what has waited is uploaded at once
    #[command(after_help = "\
Exit status:
  0  no pause holds uploads back
  3  no daemon runs, or none answers")]
    Resume,

    /// After an update over the air: decides whether the booted image may stay
    ///
    /// An image on which this device was healthy before may stay. A new one is on trial: it may stay once the device
    /// is healthy, and it may not if the device is not healthy within the limit, although the servers that the
    /// image before it has reached can be reached, or if no daemon answers for so long. Without a network the
    /// trial goes on. The command never reboots: edgerepl-boot-check.service does.
    #[command(after_help = "\
Exit status:
  0  the image may stay
  1  it may not: reboot, and let the boot loader go back
  3  it is not known yet")]
    BootCheck(Trial),

    /// Prints credentials in the format of the AWS SDKs' credential_process
    ///
    /// The daemon answers in a few milliseconds. If no daemon runs, the command fetches credentials
    /// itself. To make an SDK use it, set AWS_CONFIG_FILE=/run/edgerepl/aws-config.
    #[command(after_help = "\
Exit status:
  0   the credentials are printed
  1   there are no credentials
  78  the configuration can't be read")]
    CredentialProcess,

    /// Prints a certificate request (PKCS #10), signed with the device's key
    #[command(after_help = "\
Exit status:
  0   the request is printed
  1   the request can't be made
  78  the configuration can't be read")]
    Csr(Request),
}

#[derive(Args, Debug)]
pub(super) struct Answers {
    /// Path of the device's certificate (PEM)
    #[arg(long, value_name = "PATH")]
    certificate: Option<String>,
    /// The certificate's private key: a PKCS #11 URI, or a path
    #[arg(long, value_name = "KEY")]
    private_key: Option<String>,
    /// Endpoint of the AWS IoT credential provider
    #[arg(long, value_name = "HOST")]
    endpoint: Option<String>,
    /// Role alias that the device assumes
    #[arg(long, value_name = "NAME")]
    role_alias: Option<String>,
    /// Region of the bucket
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Bucket for the replicas
    #[arg(long, value_name = "NAME")]
    bucket: Option<String>,
    /// Path of the database
    #[arg(long, value_name = "PATH")]
    database: Option<String>,
}

impl Answers {
    /// What was given for an option of this name.
    pub(super) fn to(&self, option: &str) -> Option<String> {
        match option {
            "certificate" => self.certificate.clone(),
            "private-key" => self.private_key.clone(),
            "endpoint" => self.endpoint.clone(),
            "role-alias" => self.role_alias.clone(),
            "region" => self.region.clone(),
            "bucket" => self.bucket.clone(),
            "database" => self.database.clone(),
            _ => None,
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct Trial {
    /// How long a new image may take to be healthy, in seconds; time without a network does not count
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub(super) limit: u32,
    /// Waits until it is known
    #[arg(long)]
    pub(super) wait: bool,
    /// Name of the booted slot [default: from the kernel's command line]
    #[arg(long, value_name = "NAME")]
    pub(super) slot: Option<String>,
    /// Decides nothing: notes, before a reboot, whether the device is healthy, for the trial of the next image
    #[arg(long, conflicts_with_all = ["limit", "wait"])]
    pub(super) before_reboot: bool,
}

#[derive(Args, Debug)]
pub(super) struct Request {
    /// Distinguished name of the subject [default: CN=, then the thing's name]
    #[arg(long, value_name = "NAME")]
    pub(super) subject: Option<String>,

    /// Generates the key in the token first; never replaces a key
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
  RUNTIME_DIRECTORY  default of --runtime-directory
  STATE_DIRECTORY    directory of what outlives a boot, such as the server's last certificate
  RUST_LOG           log filter [default: info]

Inherited state:
  signals  edgerepl unblocks blocked signals, resets an ignored SIGCHLD and cancels a pending alarm
  limits   edgerepl raises soft limits to what it needs, up to the hard limits
  umask    edgerepl creates no file that group or others may write to; it keeps a stricter umask

Exit status:
  64  any command: the command line is invalid";

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
        let words = "edgerepl restore a.db --timestamp 2026-11-29T12:00:00+01:00 /data/b.db --wait";
        let Command::Restore {
            names, timestamp, ..
        } = parsed(words).expect(words).command
        else {
            panic!("{words}");
        };
        assert_eq!(names, ["a.db", "/data/b.db"].map(PathBuf::from));
        assert!(timestamp.is_some());
        let refused = parsed("edgerepl restore --timestamp yesterday").expect_err("no time");
        assert!(
            refused.to_string().contains("2026-11-29T12:00:00Z"),
            "{refused}"
        );
    }
}
