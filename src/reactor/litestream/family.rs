//! The process family of edgerepl's Litestream: the process that was started, and its descendants.
//!
//! Owns its start, its signals and its end. A wrapper around Litestream may end before it; the family
//! has ended only when no process of it is left. Decides nothing: the agent says when to end or kill
//! it.

use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::BootTime;
use crate::litestream::uploads::Upload;
use crate::reactor::voice::Voice;
use crate::system::family::{self, Seen};
use crate::system::process::{Process, Streams};

/// If a leader leaves processes behind, they get SIGTERM at once, and this time for the last sync.
const ORPHANS_LIMIT: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Family {
    leader: Process,
    /// When the leader was started, in the kernel's ticks; zero if unknown.
    started: u64,
    voice: Voice,
    terminated: bool,
    /// The leader has ended, and the processes that are left then are killed.
    kill_orphans: Option<BootTime>,
}

impl Family {
    /// Starts it by its leash, which gets the environment.
    ///
    /// # Errors
    /// The kernel's error.
    pub(super) fn start(leash: &Command, environment: &str) -> Result<Self, String> {
        let (voice, writer) = Voice::new()?;
        let streams = Streams {
            input: None,
            output: Some(writer.as_fd()),
            errors: Some(writer.as_fd()),
        };
        let leader = Process::start_told(leash, streams, environment).map_err(|e| e.to_string())?;
        let started = Seen::of(leader.id()).map_or(0, |seen| seen.started);
        Ok(Self {
            leader,
            started,
            voice,
            terminated: false,
            kill_orphans: None,
        })
    }

    /// The id of the process that was started.
    pub(super) fn id(&self) -> u32 {
        self.leader.id()
    }

    /// The pipe to poll: its output.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.voice.pipe()
    }

    /// When processes are to be killed.
    pub(super) fn deadline(&self) -> BootTime {
        self.kill_orphans.unwrap_or(BootTime::NEVER)
    }

    /// Asks it to end. The first SIGTERM goes to the leader only: if the leader passes it on,
    /// Litestream would get it twice, which aborts the last sync; if not, the leader dies, and then the
    /// processes it leaves get theirs. The second SIGTERM goes to all.
    pub(super) fn terminate(&mut self, own: &[u32]) {
        let again = std::mem::replace(&mut self.terminated, true);
        if again || self.kill_orphans.is_some() {
            self.signal_all(Signal::SIGTERM, own);
        } else {
            self.leader.signal(Signal::SIGTERM);
        }
    }

    /// Kills all of it at once.
    pub(super) fn kill(&self, own: &[u32]) {
        self.signal_all(Signal::SIGKILL, own);
    }

    /// How it ended, in words, once no process is left. `own`: all children that this process started
    /// itself.
    pub(super) fn poll(&mut self, own: &[u32], secrets: &[&str]) -> Option<String> {
        let ended = self.leader.ended();
        self.voice.hear(secrets);
        let how = ended?;
        let left = self.members(own);
        if left.is_empty() {
            // More output may have come after the read above.
            self.voice.hear(secrets);
            return Some(self.voice.with_last_words(how.to_string()));
        }
        let now = BootTime::now();
        match self.kill_orphans {
            None => {
                self.kill_orphans = Some(now + ORPHANS_LIMIT);
                log::info!(
                    "Litestream's wrapper exited ({how}) and left Litestream behind; it is stopped, too"
                );
                signal(&left, Signal::SIGTERM);
            }
            Some(due) if due <= now => {
                self.kill_orphans = Some(now + ORPHANS_LIMIT);
                signal(&left, Signal::SIGKILL);
            }
            Some(_) => {}
        }
        None
    }

    /// Whether it complained about what the bucket holds.
    pub(super) fn complained(&mut self) -> bool {
        self.voice.complained()
    }

    /// What its lines tell of uploads since the last call, and whether they tell of any.
    pub(super) fn uploads(&mut self) -> (Vec<Upload>, bool) {
        (self.voice.uploads(), self.voice.tells())
    }

    /// Whether this process belongs to the Litestream that was started, and so may answer for it.
    pub(super) fn includes(&self, pid: u32) -> bool {
        pid == self.leader.id()
            || (family::descends(pid, std::process::id())
                && Seen::of(pid).is_some_and(|seen| seen.started >= self.started))
    }

    fn signal_all(&self, which: Signal, own: &[u32]) {
        self.leader.signal(which);
        let leader = self.leader.id();
        let mut others = self.members(own);
        others.retain(|pid| *pid != leader);
        signal(&others, which);
    }

    /// All processes of it that live. `own`: as above.
    pub(super) fn members(&self, own: &[u32]) -> Vec<u32> {
        family::members(&family::all(), self.leader.id(), std::process::id(), own)
    }
}

fn signal(pids: &[u32], which: Signal) {
    for pid in pids {
        if let Ok(pid) = i32::try_from(*pid) {
            let _ = kill(Pid::from_raw(pid), which);
        }
    }
}
