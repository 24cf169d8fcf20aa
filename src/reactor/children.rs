//! The children: short-lived, each with a deadline that the agent sets and the reactor enforces.
//!
//! Owns processes and pipes. An exit wakes the loop by SIGCHLD; here it is only asked for, never
//! waited for. A child that outlives its use goes to the leftovers, which are killed and reaped.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use zeroize::Zeroizing;

use super::notify;
use super::voice::Voice;
use crate::clock::BootTime;
use crate::credentials::fetch;
use crate::credentials::stage::Stage;
use crate::credentials::wire::{FetchRequest, Reply};
use crate::credentials::{FailureClass, FetchFailure, Grant};
use crate::system::process::{Process, Streams};
use crate::system::this_program;

/// How much is read from a child's pipe at a time.
const PIECE: usize = 4096;

/// The child that fetches credentials.
#[derive(Debug)]
pub(super) struct FetchChild {
    child: Process,
    pipe: Option<PipeReader>,
    /// With secrets in it. It never grows, which would leave a copy behind.
    read: Zeroizing<Vec<u8>>,
    voice: Voice,
    stage: Option<Stage>,
    killed: bool,
}

impl FetchChild {
    /// Starts it and tells it what is wanted.
    pub(super) fn start(request: &FetchRequest) -> Result<Self, String> {
        let mut command = this_program();
        command.arg(fetch::COMMAND);
        notify::withhold(&mut command);
        let (voice, errors) = Voice::new()?;
        let start = || -> io::Result<_> {
            let (answer, answered) = io::pipe()?;
            fcntl(&answer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            let streams = Streams {
                output: Some(answered.as_fd()),
                errors: Some(errors.as_fd()),
                ..Streams::default()
            };
            let child = Process::start_told(&command, streams, &request.to_json())?;
            Ok((child, answer))
        };
        let (child, pipe) = start().map_err(|e| e.to_string())?;
        Ok(Self {
            child,
            pipe: Some(pipe),
            read: Zeroizing::new(Vec::with_capacity(Reply::MAX_LINE + PIECE)),
            voice,
            stage: None,
            killed: false,
        })
    }

    /// What to watch, until it ends: the answer, and what else is said.
    pub(super) fn pipes(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [self.pipe.as_ref().map(AsFd::as_fd), self.voice.pipe()]
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Past its deadline: it is killed, and its exit says so.
    pub(super) fn kill(&mut self) {
        self.killed = true;
        self.child.kill();
    }

    /// The answer, or what became of a child that gave none.
    pub(super) fn poll(&mut self) -> Option<Result<Grant, FetchFailure>> {
        // In this order: an exit that is seen here comes after all that was written before it.
        let exit = self.child.ended();
        self.voice.hear(&[]);
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
            self.child.kill();
            return Some(Err(self.without_answer("answered without end")));
        }
        exit.map(|status| Err(self.died(status)))
    }

    pub(super) fn into_child(self) -> Process {
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
    /// Whether the WAL continues what is dropped.
    ResetState {
        continues: bool,
    },
}

/// How it is looked whether there is a replica.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    Plan,
    List,
}

/// Commands, one after the other, as long as each succeeds.
#[derive(Debug)]
pub(super) struct Chore {
    running: Running,
    rest: VecDeque<Step>,
}

/// A command, and what to call it should it fail.
#[derive(Debug)]
pub(super) struct Step {
    name: String,
    command: Command,
    told: Zeroizing<String>,
}

impl Step {
    pub(super) fn named(name: String, command: Command) -> Self {
        Self {
            name,
            command,
            told: Zeroizing::default(),
        }
    }

    /// What it is told by its standard input.
    pub(super) fn told(mut self, text: Zeroizing<String>) -> Self {
        self.told = text;
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
    pub(super) fn start(steps: impl IntoIterator<Item = Step>) -> Result<Self, String> {
        let mut rest: VecDeque<Step> = steps.into_iter().collect();
        let first = rest.pop_front().ok_or("there is nothing to do")?;
        Ok(Self {
            running: Running::start(first)?,
            rest,
        })
    }

    /// What to watch: what is printed and what else is said.
    pub(super) fn pipes(&self) -> [Option<BorrowedFd<'_>>; 2] {
        let Running { pipe, voice, .. } = &self.running;
        [pipe.as_ref().map(AsFd::as_fd), voice.pipe()]
    }

    pub(super) fn id(&self) -> u32 {
        self.running.process.id()
    }

    /// The outcome, once the last command has ended or one has failed: what the last one printed, as far
    /// as it is worth reading.
    pub(super) fn poll(&mut self) -> Option<Result<String, String>> {
        let running = &mut self.running;
        let ended = running.process.ended();
        running.hear();
        let status = ended?;
        if !status.success() {
            let how = format!("{} failed ({status})", running.name);
            return Some(Err(running.voice.with_last_words(how)));
        }
        let Some(next) = self.rest.pop_front() else {
            return Some(Ok(String::from_utf8_lossy(&running.printed).into_owned()));
        };
        match Running::start(next) {
            Ok(running) => {
                self.running = running;
                None
            }
            Err(cause) => Some(Err(cause)),
        }
    }

    pub(super) fn into_child(self) -> Process {
        self.running.process
    }
}

/// A command that runs.
#[derive(Debug)]
struct Running {
    name: String,
    process: Process,
    pipe: Option<PipeReader>,
    printed: Vec<u8>,
    voice: Voice,
}

impl Running {
    /// No more of what a command prints is kept, in bytes.
    const KEPT: usize = 4096;

    fn start(step: Step) -> Result<Self, String> {
        let Step {
            name,
            mut command,
            told,
        } = step;
        notify::withhold(&mut command);
        let (voice, errors) = Voice::new()?;
        let start = || -> io::Result<_> {
            let (pipe, output) = io::pipe()?;
            fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            let streams = Streams {
                output: Some(output.as_fd()),
                errors: Some(errors.as_fd()),
                ..Streams::default()
            };
            let process = match told.is_empty() {
                true => Process::start(&command, streams),
                false => Process::start_told(&command, streams, &told),
            };
            Ok((process?, pipe))
        };
        let (process, pipe) = start().map_err(|e| format!("{name} can't be run: {e}"))?;
        Ok(Self {
            name,
            process,
            pipe: Some(pipe),
            printed: Vec::new(),
            voice,
        })
    }

    /// Takes in what there is: a pipe that nobody empties would hold the command up. A child that it left
    /// behind may still hold the pipe, and is not waited for.
    fn hear(&mut self) {
        self.voice.hear(&[]);
        let mut piece = [0; 4096];
        // What a pipe holds, and no more in one turn.
        for _ in 0..16 {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut piece) {
                Ok(0) => self.pipe = None,
                Ok(length) => {
                    let room = Self::KEPT.saturating_sub(self.printed.len());
                    self.printed.extend_from_slice(&piece[..length.min(room)]);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// Children that nobody waits for any more.
#[derive(Debug, Default)]
pub(super) struct Leftovers(Vec<(Process, BootTime)>);

impl Leftovers {
    /// How long such a child has to end by itself.
    const GRACE: Duration = Duration::from_secs(3);

    /// More than this many that survive SIGKILL, stuck in the kernel, are not added to.
    const MOST: usize = 4;

    pub(super) fn add(&mut self, child: Process) {
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

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|(child, _)| child.id())
    }

    /// Forgets those that have ended, kills those that should have.
    pub(super) fn reap(&mut self) {
        let now = BootTime::now();
        self.0.retain_mut(|(child, deadline)| {
            let alive = child.ended().is_none();
            if alive && *deadline <= now {
                child.kill();
                *deadline = BootTime::NEVER;
            }
            alive
        });
    }

    pub(super) fn kill_all(&self) {
        for (child, _) in &self.0 {
            child.kill();
        }
    }
}
