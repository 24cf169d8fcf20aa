//! Signals as something to read, in the loop's own time.
//!
//! Owns the process's signal mask. A child's exit arrives here too, so that it wakes the loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// No more are read in one turn of the loop.
const READ_AT_ONCE: usize = 16;

/// The signals that a daemon lives by.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Takes SIGTERM, SIGINT, SIGHUP and SIGCHLD away from their defaults. To be called before any
    /// child is started, so that no exit is missed. [`Process`](super::process::Process) gives children
    /// an empty mask.
    ///
    /// # Errors
    /// Where the kernel has no descriptor left.
    pub fn take() -> io::Result<Self> {
        let mask: SigSet = [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGCHLD,
        ]
        .into_iter()
        .collect();
        mask.thread_block()?;
        Ok(Self(SignalFd::with_flags(
            &mask,
            SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
        )?))
    }

    /// What has arrived since the last call; each signal once, however often it was sent.
    pub fn drain(&self) -> Vec<Signal> {
        let mut arrived = Vec::new();
        // A sender that never pauses fills the queue anew as it is read: the rest is for the next turn.
        for _ in 0..READ_AT_ONCE {
            let Ok(Some(info)) = self.0.read_signal() else {
                break;
            };
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            let signal = Signal::try_from(number);
            arrived.extend(signal.ok().filter(|signal| !arrived.contains(signal)));
        }
        arrived
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
