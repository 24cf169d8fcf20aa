//! What Litestream does, in one word for people and programs.
//!
//! Owns the words. Knows neither how it comes to that, nor what it means for the device.

/// What Litestream does, as far as the agent knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Activity {
    /// It is down, for there are no credentials that last.
    WaitingForCredentials,
    /// It ended or could not be started, and is tried again.
    WaitingToRestart,
    /// It is being started.
    Starting,
    /// It runs, and has not shown yet that it follows.
    CatchingUp,
    /// It runs, and followed when last asked.
    Replicating,
    /// It is being stopped.
    Stopping,
    /// Its local state is being dropped.
    Resetting,
    /// It was stopped for good.
    Stopped,
}

impl Activity {
    /// The word for it in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WaitingForCredentials => "waiting_for_credentials",
            Self::WaitingToRestart => "waiting_to_restart",
            Self::Starting => "starting",
            Self::CatchingUp => "catching_up",
            Self::Replicating => "replicating",
            Self::Stopping => "stopping",
            Self::Resetting => "resetting",
            Self::Stopped => "stopped",
        }
    }
}
