//! Notifications to the service manager (sd_notify(3)); none without one.
//!
//! Owns the watchdog's schedule. Feeds it only when the reactor says that a turn is finished.

use std::io;
use std::process::Command;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::agent::Report;
use crate::clock::BootTime;

/// The loop must not spin for a limit that is too short for any loop.
const LEAST_PACE: Duration = Duration::from_millis(100);

/// A child must not send notifications in our name.
pub(super) fn withhold(command: &mut Command) {
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
}

#[derive(Debug)]
pub(super) struct Notifier {
    /// Half of the unit's `WatchdogSec=`; `None` without one.
    pace: Option<Duration>,
    due: BootTime,
    shown: String,
}

impl Notifier {
    pub(super) fn new() -> Self {
        let pace = sd_notify::watchdog_enabled().map(|limit| (limit / 2).max(LEAST_PACE));
        let due = if pace.is_some() {
            BootTime::default()
        } else {
            BootTime::NEVER
        };
        Self {
            pace,
            due,
            shown: String::new(),
        }
    }

    pub(super) fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(e) => log::debug!("the monotonic clock can't be read: {e}"),
        }
    }

    /// Updates the line in `systemctl status`, only if it changed.
    pub(super) fn show(&mut self, report: &Report) {
        let line = line(report);
        if line != self.shown {
            tell(&[NotifyState::Status(&line)]);
            self.shown = line;
        }
    }

    /// A turn finished, and no due work is left.
    pub(super) fn feed_watchdog(&mut self, now: BootTime) {
        if let Some(pace) = self.pace
            && self.due <= now
        {
            tell(&[NotifyState::Watchdog]);
            self.due = now + pace;
        }
    }

    /// When a turn is needed if nothing else happens.
    pub(super) fn deadline(&self) -> BootTime {
        self.due
    }
}

/// The line for `systemctl status`, which changes only with the state, and while an upload moves.
fn line(report: &Report) -> String {
    let activity = report.replication.name().replace('_', " ");
    match report.state.problems().next() {
        Some(problem) => format!("{}: {problem}", report.state.name()),
        None => format!("{}: {activity}", report.state.name()),
    }
}

fn tell(state: &[NotifyState<'_>]) {
    let told: io::Result<()> = sd_notify::notify(state);
    if let Err(e) = told {
        log::debug!("the service manager can't be told: {e}");
    }
}
