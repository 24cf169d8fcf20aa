//! The children: short-lived, each with a deadline that the agent sets and the reactor enforces.
//!
//! Owns processes and pipes. An exit wakes the loop by SIGCHLD; here it is only asked for, never
//! waited for. A child that outlives its use goes to the leftovers, which are killed and reaped.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zeroize::Zeroizing;

use super::notify;
use crate::cli;
use crate::clock::BootTime;
use crate::credentials::fetch::{FetchRequest, Reply, Stage};
use crate::credentials::{FailureClass, FetchFailure, Grant};
use crate::system::this_program;

/// How much is read from a child's pipe at a time.
const PIECE: usize = 4096;

/// Asks a child to end.
pub(super) fn terminate(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // It is ours and not reaped yet, so the number is still its own.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}

/// The child that fetches credentials.
#[derive(Debug)]
pub(super) struct FetchChild {
    child: Child,
    pipe: Option<ChildStdout>,
    /// With secrets in it. It never grows, which would leave a copy behind.
    read: Zeroizing<Vec<u8>>,
    stage: Option<Stage>,
    killed: bool,
}

impl FetchChild {
    /// Starts it and tells it what is wanted.
    pub(super) fn start(request: &FetchRequest) -> Result<Self, String> {
        let mut command = this_program();
        command
            .arg(cli::FETCH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        notify::withhold(&mut command);
        let mut child = command.spawn().map_err(|e| e.to_string())?;
        let pipe = child.stdout.take();
        let nonblocking = pipe
            .as_ref()
            .map(|pipe| fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)));
        let told = child.stdin.take().map(|mut pipe| {
            // Less than a pipe holds, so this does not wait for the child to read.
            pipe.write_all(request.to_json().as_bytes())
        });
        if !matches!(nonblocking, Some(Ok(_))) || !matches!(told, Some(Ok(()))) {
            let _ = child.kill();
            let _ = child.wait();
            return Err("its pipes can't be used".to_owned());
        }
        Ok(Self {
            child,
            pipe,
            read: Zeroizing::new(Vec::with_capacity(Reply::MAX_LINE + PIECE)),
            stage: None,
            killed: false,
        })
    }

    /// The pipe to watch, until it ends.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Past its deadline: it is killed, and its exit says so.
    pub(super) fn kill(&mut self) {
        self.killed = true;
        let _ = self.child.kill();
    }

    /// The answer, or what became of a child that gave none.
    pub(super) fn poll(&mut self) -> Option<Result<Grant, FetchFailure>> {
        // In this order: an exit that is seen here comes after all that was written before it.
        let exit = self.child.try_wait();
        self.read_pipe();
        while let Some(end) = self.read.iter().position(|b| *b == b'\n') {
            let line: Zeroizing<Vec<u8>> = Zeroizing::new(self.read.drain(..=end).collect());
            match Reply::parse(&String::from_utf8_lossy(&line)) {
                Ok(Reply::Stage(stage)) => self.stage = Some(stage),
                Ok(Reply::Granted(grant)) => return Some(Ok(grant)),
                Ok(Reply::Failed(failure)) | Err(failure) => return Some(Err(failure)),
            }
        }
        if self.read.len() > Reply::MAX_LINE {
            let _ = self.child.kill();
            return Some(Err(self.without_answer("answered without end")));
        }
        match exit {
            Ok(Some(status)) => Some(Err(self.died(status))),
            _ => None,
        }
    }

    pub(super) fn into_child(self) -> Child {
        self.child
    }

    fn read_pipe(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut piece = Zeroizing::new([0; PIECE]);
        while self.read.len() <= Reply::MAX_LINE {
            match pipe.read(&mut *piece) {
                Ok(0) => {
                    self.pipe = None;
                    return;
                }
                Ok(n) => self.read.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn died(&self, status: ExitStatus) -> FetchFailure {
        if self.killed {
            self.without_answer("was killed, for it had not answered in time")
        } else {
            self.without_answer(&format!("died ({status})"))
        }
    }

    /// Blames what the child was busy with.
    fn without_answer(&self, what: &str) -> FetchFailure {
        let (class, stage) = match self.stage {
            Some(Stage::Key) => (FailureClass::Key, "while it opened the private key"),
            Some(Stage::Signature) => (FailureClass::Key, "while the private key signed"),
            Some(Stage::Network) => (FailureClass::Transient, "while it talked to the endpoint"),
            None => (FailureClass::Transient, "before it began"),
        };
        FetchFailure::new(class, format!("the fetch {what} {stage}"))
    }
}

/// What a chore is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Errand {
    Probe,
    RestartUnit,
    ResetState,
}

/// Commands, one after the other, as long as each succeeds.
#[derive(Debug)]
pub(super) struct Chore {
    errand: Errand,
    running: Child,
    name: String,
    rest: VecDeque<Step>,
}

/// A command, and what to call it should it fail.
#[derive(Debug)]
pub(super) struct Step {
    name: String,
    command: Command,
}

impl Step {
    pub(super) fn named(name: String, command: Command) -> Self {
        Self { name, command }
    }

    /// What it prints is wanted.
    pub(super) fn heard(mut self) -> Self {
        self.command.stdout(Stdio::piped());
        self
    }
}

impl From<Command> for Step {
    /// By its words.
    fn from(command: Command) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        Self::named(format!("`{}`", words.join(" ")), command)
    }
}

impl Chore {
    pub(super) fn start(
        errand: Errand,
        steps: impl IntoIterator<Item = Step>,
    ) -> Result<Self, String> {
        let mut rest: VecDeque<Step> = steps.into_iter().collect();
        let first = rest.pop_front().ok_or("there is nothing to do")?;
        let (running, name) = spawn(first)?;
        Ok(Self {
            errand,
            running,
            name,
            rest,
        })
    }

    pub(super) fn errand(&self) -> Errand {
        self.errand
    }

    /// The outcome, once the last command has ended or one has failed: what the last one printed,
    /// where that is wanted and as far as a pipe holds it.
    pub(super) fn poll(&mut self) -> Option<Result<String, String>> {
        let Ok(Some(status)) = self.running.try_wait() else {
            return None;
        };
        if !status.success() {
            return Some(Err(format!("{} failed ({status})", self.name)));
        }
        let Some(next) = self.rest.pop_front() else {
            return Some(Ok(self.printed()));
        };
        match spawn(next) {
            Ok((running, name)) => {
                (self.running, self.name) = (running, name);
                None
            }
            Err(cause) => Some(Err(cause)),
        }
    }

    pub(super) fn into_child(self) -> Child {
        self.running
    }

    /// The command has ended, so that nothing more comes: one read takes it all. A child that it left
    /// behind may still hold the pipe, and is not waited for.
    fn printed(&mut self) -> String {
        let mut piece = [0; 4096];
        let read = self.running.stdout.as_mut().and_then(|pipe| {
            fcntl(&*pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
            pipe.read(&mut piece).ok()
        });
        String::from_utf8_lossy(&piece[..read.unwrap_or(0)]).into_owned()
    }
}

fn spawn(step: Step) -> Result<(Child, String), String> {
    let Step { name, mut command } = step;
    notify::withhold(&mut command);
    match command.stdin(Stdio::null()).spawn() {
        Ok(child) => Ok((child, name)),
        Err(e) => Err(format!("{name} can't be run: {e}")),
    }
}

/// Children that nobody waits for any more.
#[derive(Debug, Default)]
pub(super) struct Leftovers(Vec<(Child, BootTime)>);

impl Leftovers {
    /// How long such a child has to end by itself.
    const GRACE: Duration = Duration::from_secs(3);

    /// More than this many that survive SIGKILL, stuck in the kernel, are not added to.
    const MOST: usize = 4;

    pub(super) fn add(&mut self, child: Child) {
        self.0.push((child, BootTime::now() + Self::GRACE));
    }

    /// Whether another child may be started that might end up here.
    pub(super) fn has_room(&self) -> Result<(), String> {
        if self.0.len() < Self::MOST {
            return Ok(());
        }
        Err(
            "too many earlier ones are stuck in the kernel; check the secure element's bus"
                .to_owned(),
        )
    }

    /// When there is one to kill.
    pub(super) fn deadline(&self) -> BootTime {
        self.0
            .iter()
            .map(|(_, deadline)| *deadline)
            .min()
            .unwrap_or(BootTime::NEVER)
    }

    /// Forgets those that have ended, kills those that should have.
    pub(super) fn reap(&mut self) {
        let now = BootTime::now();
        self.0.retain_mut(|(child, deadline)| {
            let alive = matches!(child.try_wait(), Ok(None));
            if alive && *deadline <= now {
                let _ = child.kill();
                *deadline = BootTime::NEVER;
            }
            alive
        });
    }

    pub(super) fn kill_all(&mut self) {
        for (child, _) in &mut self.0 {
            let _ = child.kill();
        }
    }
}
