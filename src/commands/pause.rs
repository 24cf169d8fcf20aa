//! `edgerepl pause` and `edgerepl resume`: uploads wait, and do not any more.
//!
//! Owns what is said of it. Never holds anything back: the daemon does, until it is told otherwise or ends.

use std::path::Path;
use std::process::ExitCode;

use super::output;
use crate::config::{RuntimeDirectory, Settings};
use crate::ipc::status;
use crate::ipc::wish::{self, Wish};

/// `pause`: 0 if the daemon holds uploads back, 3 if none runs.
pub(crate) fn pause(config: &Path, runtime: &RuntimeDirectory) -> ExitCode {
    let told = wish::ask(runtime, Wish::Pause).map(|_| {
        // It was taken, whatever is answered now.
        let most = status::ask(runtime).ok();
        let most = most.and_then(|status| status["replication"]["rpo_s"].as_u64());
        let most = most.map_or(String::new(), |most| format!(", for {most} s at the most"));
        format!("uploads wait{most}; `edgerepl resume` ends that\n")
    });
    // What Litestream does by itself is in a file of the user's.
    let is_alone = Settings::load(config, runtime).is_ok_and(|s| s.replication.replica.is_none());
    if told.is_ok() && is_alone {
        output::tell(
            "edgerepl: Litestream still uploads by itself at each monitor-interval of its configuration; set that \
             to [replication] rpo_metered, or set bucket in the place of command\n",
        );
    }
    say(told)
}

/// `resume`: 0 if the daemon goes on, 3 if none runs.
pub(crate) fn resume(runtime: &RuntimeDirectory) -> ExitCode {
    let told = wish::ask(runtime, Wish::Resume).map(|_| {
        let status = status::ask(runtime).unwrap_or_default();
        match status["replication"]["held_back"].as_str() {
            Some(_) => "no pause holds uploads back, but the line is metered\n".to_owned(),
            None => "uploads do not wait any more\n".to_owned(),
        }
    });
    say(told)
}

fn say(told: Result<String, String>) -> ExitCode {
    match told {
        Ok(words) => output::answer(words, ExitCode::SUCCESS),
        Err(cause) => {
            output::tell(format_args!("edgerepl: {cause}\n"));
            ExitCode::from(3)
        }
    }
}
