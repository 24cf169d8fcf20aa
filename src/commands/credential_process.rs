//! `edgerepl credential-process`: credentials for any AWS SDK, by its `credential_process` setting.
//!
//! Owns the output and the exit status. The output is a secret: it is never written anywhere else.

use std::path::Path;
use std::process::ExitCode;

use super::{access, output};
use crate::config::{RuntimeDirectory, Settings};
use crate::ipc::credentials;

/// The command: prints credentials, from the daemon if one runs, else from a fetch of its own.
pub(crate) fn print(config: &Path, runtime: &RuntimeDirectory) -> ExitCode {
    let answer = match credentials::ask(runtime) {
        Ok(answer) => answer,
        Err(why) => {
            log::debug!("{why}; fetching credentials");
            match Settings::load(config, runtime) {
                Ok(settings) => access::fetched(&settings, runtime),
                Err(cause) => {
                    log::error!("{cause}");
                    return cause.exit_code();
                }
            }
        }
    };
    match answer {
        Ok(document) => output::answer(format_args!("{}\n", *document), ExitCode::SUCCESS),
        Err(why) => {
            log::error!("{why}");
            ExitCode::FAILURE
        }
    }
}
