//! Litestream's activity, in one word for people and programs.
//!
//! Owns the words. Never decides which one applies, nor what it means for the device.

/// What Litestream does, as far as the agent knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Activity {
    /// Litestream is down: no credentials last long enough.
    WaitingForCredentials,
    /// It ended or could not be started; a retry is due.
    WaitingToRestart,
    /// It is being started.
    Starting,
    /// It runs, and has not yet shown that it follows.
    CatchingUp,
    /// It runs, and followed at the last answer.
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
