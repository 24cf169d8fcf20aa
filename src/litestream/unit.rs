//! Litestream's systemd unit: two ways to restart it.
//!
//! Owns both. Root asks systemd. No other user may on an image without polkit: there a path unit of
//! root (`edgerepl-litestream.path`) restarts Litestream when its environment file changes, and
//! edgerepl waits until it sees the restart. Never runs a command itself, and never decides.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Uid;

use crate::system::this_program;

/// The command that waits for a restart by the path unit; not for people.
pub const AWAIT: &str = "await-restart";

/// Where systemd (231 and later) links `invocation:UNIT` to an id that changes with every start of
/// the unit: readable by everybody, and without D-Bus.
const UNITS: &str = "/run/systemd/units";

/// How often [`UNITS`] is looked at.
const PACE: Duration = Duration::from_millis(50);

/// The unit's own stop time-out is in it: systemd stops Litestream first.
const LIMIT: Duration = Duration::from_secs(100);

/// A restart that is about to be brought about.
#[derive(Debug)]
pub enum Restart {
    /// `systemctl restart`.
    Asked,
    /// By the path unit, once the environment file changes. Holds the invocation that is to end.
    Awaited(Option<OsString>),
}

impl Restart {
    /// Before the environment file is written.
    pub fn prepare(unit: &str) -> Self {
        if Uid::effective().is_root() {
            Self::Asked
        } else {
            Self::Awaited(invocation(Path::new(UNITS), unit))
        }
    }

    /// What to call [`command`](Self::command) should it fail.
    pub fn name(&self, unit: &str) -> String {
        match self {
            Self::Asked => format!("`systemctl restart {unit}`"),
            Self::Awaited(_) => format!(
                "the wait until edgerepl-litestream.path, which must be enabled, restarts {unit}"
            ),
        }
    }

    /// The command to run once the environment file is written; it ends well when the unit runs.
    pub fn command(self, unit: &str) -> Command {
        match self {
            Self::Asked => systemctl("restart", unit),
            Self::Awaited(earlier) => {
                let mut command = this_program();
                command.arg(AWAIT).arg(unit).args(earlier);
                command
            }
        }
    }
}

/// Waits until the unit was started anew: the hidden command of [`Restart::Awaited`], which knows
/// the unit and, where there was one, the earlier invocation. False where that took too long.
pub fn await_restart(unit: &str, earlier: Option<&str>) -> bool {
    let earlier = earlier.map(OsString::from);
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        let now = invocation(Path::new(UNITS), unit);
        if now.is_some() && now != earlier {
            return true;
        }
        thread::sleep(PACE);
    }
    false
}

/// `systemctl stop UNIT`, which waits until the unit has stopped; `None` where only the path unit
/// can do anything to it.
pub fn stop(unit: &str) -> Option<Command> {
    Uid::effective().is_root().then(|| systemctl("stop", unit))
}

fn systemctl(verb: &str, unit: &str) -> Command {
    let mut command = Command::new("systemctl");
    // There is no terminal to ask for a password.
    command.args(["--no-ask-password", verb, unit]);
    command
}

/// The id of the unit's current run; `None` while it is down.
fn invocation(units: &Path, unit: &str) -> Option<OsString> {
    let link = units.join(format!("invocation:{unit}"));
    Some(fs::read_link(link).ok()?.into_os_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn an_invocation_is_what_systemd_links_to() {
        let units = std::env::temp_dir().join(format!("edgerepl-units-{}", std::process::id()));
        fs::create_dir_all(&units).expect("a folder");
        assert_eq!(invocation(&units, "litestream.service"), None);
        symlink("0af3", units.join("invocation:litestream.service")).expect("a link");
        assert_eq!(
            invocation(&units, "litestream.service"),
            Some("0af3".into())
        );
        fs::remove_dir_all(&units).expect("no folder");
    }
}
