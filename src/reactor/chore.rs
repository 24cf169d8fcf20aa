//! Chores: slow work, done by commands outside the loop, one after the other.
//!
//! Owns their processes and pipes, and their output. Never waits for an exit: SIGCHLD wakes the loop,
//! which then asks for it. Sets no deadline: the agent does.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use zeroize::Zeroizing;

use super::leftovers::Leftovers;
use super::notify;
use super::voice::Voice;
use crate::agent::Database;
use crate::litestream::answer::Position;
use crate::system::process::{Process, Streams};
use crate::system::{family, heap};

/// The purpose of a chore.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Errand {
    Probe,
    /// The search for the databases that Litestream's configuration names by a folder, where these may
    /// come and go (`change`), or not.
    Find {
        change: bool,
    },
    Survey(Database),
    EmptyWal(Database),
    RestartUnit,
    ResetState(Database),
    /// The look whether the bucket is ahead of Litestream's files.
    LookAhead(Database),
    /// The look at what the bucket holds.
    Plan(Database),
    Snapshot(Database),
    Verify(Database),
    /// The removal of what a verify that was killed has left.
    Sweep(Database),
    /// The search for a replica of a missing database.
    Look {
        database: Database,
        look: Look,
    },
    /// The examination of Litestream's files, with its answer and the WAL's last commit at that time.
    Examine {
        database: Database,
        position: Position,
        last_commit: Option<u64>,
    },
}

impl Errand {
    /// The database whose answer it examines.
    pub(super) fn examines(&self) -> Option<Database> {
        match self {
            Self::Examine { database, .. } => Some(*database),
            _ => None,
        }
    }

    /// The missing database whose replica it looks for.
    pub(super) fn looks_for(&self) -> Option<Database> {
        match self {
            Self::Look { database, .. } => Some(*database),
            _ => None,
        }
    }
}

/// The way to find out whether there is a replica.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    Plan,
    List,
}

/// The output of each command, or what failed.
pub(super) type Outcome = Result<Vec<String>, String>;

/// So many chores run at once: each is a process, and a device has few processors.
const MOST: usize = 8;

/// The chores, at most one for each errand; those that have to wait follow in their order.
#[derive(Debug, Default)]
pub(super) struct Chores {
    running: Vec<(Errand, Chore)>,
    waiting: VecDeque<(Errand, Vec<Step>)>,
    /// Some had to wait since all were done last.
    was_crowded: bool,
}

impl Chores {
    /// Starts a chore, or has it wait for its turn, unless there is one for the same errand.
    ///
    /// # Errors
    /// Why it can't be started.
    pub(super) fn begin(&mut self, errand: Errand, steps: Vec<Step>) -> Result<(), String> {
        let running = self.running.iter().map(|(other, _)| other);
        let mut all = running.chain(self.waiting.iter().map(|(other, _)| other));
        if all.any(|other| *other == errand) {
            return Ok(());
        }
        match self.running.len() < MOST {
            true => self.running.push((errand, Chore::start(steps)?)),
            false => {
                self.waiting.push_back((errand, steps));
                self.was_crowded = true;
            }
        }
        Ok(())
    }

    /// The pipes to poll: the standard output and the standard error.
    pub(super) fn pipes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let pipes = self.running.iter().flat_map(|(_, chore)| chore.pipes());
        pipes.flatten()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        let chores = self.running.iter();
        chores.map(|(_, chore)| chore.running.process.id())
    }

    /// The processes of those that upload, by their groups.
    pub(super) fn senders(&self) -> Vec<u32> {
        let is_sender = |errand: &Errand| matches!(errand, Errand::Snapshot(_));
        let senders = self.running.iter().filter(|(errand, _)| is_sender(errand));
        let groups: Vec<u32> = senders
            .map(|(_, chore)| chore.running.process.id())
            .collect();
        match groups.is_empty() {
            true => Vec::new(),
            false => family::in_groups(&groups),
        }
    }

    /// The chores that have ended, or could not be started when it was their turn.
    pub(super) fn poll(&mut self, secrets: &[&str]) -> Vec<(Errand, Outcome)> {
        let mut ended = Vec::new();
        self.running.retain_mut(|(errand, chore)| {
            let outcome = chore.poll(secrets);
            let is_over = outcome.is_some();
            ended.extend(outcome.map(|outcome| (*errand, outcome)));
            !is_over
        });
        while self.running.len() < MOST
            && let Some((errand, steps)) = self.waiting.pop_front()
        {
            match Chore::start(steps) {
                Ok(chore) => self.running.push((errand, chore)),
                Err(cause) => ended.push((errand, Err(cause))),
            }
        }
        // Each that waits is a command line, and what is written to its standard input: of a hundred databases that
        // is more than all that is kept of them.
        if self.running.is_empty() && std::mem::take(&mut self.was_crowded) {
            heap::give_back();
        }
        ended
    }

    /// Abandons the chores of `errands`: they report nothing any more.
    pub(super) fn abandon(&mut self, errands: impl Fn(&Errand) -> bool, leftovers: &mut Leftovers) {
        self.waiting.retain(|(errand, _)| !errands(errand));
        for (_, chore) in self.running.extract_if(.., |(errand, _)| errands(errand)) {
            leftovers.add(chore.running.process);
        }
    }
}

/// Commands, one after the other, until one fails.
#[derive(Debug)]
struct Chore {
    running: Running,
    rest: VecDeque<Step>,
    printed: Vec<String>,
}

/// A command, and its name in an error.
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

    /// Sets its standard input.
    pub(super) fn told(mut self, text: Zeroizing<String>) -> Self {
        self.told = text;
        self
    }
}

impl From<Command> for Step {
    /// Named by its command line.
    fn from(command: Command) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        Self::named(format!("`{}`", words.join(" ")), command)
    }
}

impl Chore {
    fn start(steps: Vec<Step>) -> Result<Self, String> {
        let mut rest = VecDeque::from(steps);
        let first = rest.pop_front().ok_or("there is nothing to do")?;
        Ok(Self {
            running: Running::start(first)?,
            rest,
            printed: Vec::new(),
        })
    }

    fn pipes(&self) -> [Option<BorrowedFd<'_>>; 2] {
        let Running { pipe, voice, .. } = &self.running;
        [pipe.as_ref().map(AsFd::as_fd), voice.pipe()]
    }

    /// The outcome, once the last command has ended or one has failed.
    fn poll(&mut self, secrets: &[&str]) -> Option<Outcome> {
        let running = &mut self.running;
        let ended = running.process.ended();
        running.hear(secrets);
        let status = ended?;
        if !status.success() {
            let how = format!("{} failed ({status})", running.name);
            return Some(Err(running.voice.with_last_words(how)));
        }
        let printed = String::from_utf8_lossy(&running.printed).into_owned();
        self.printed.push(printed);
        let Some(next) = self.rest.pop_front() else {
            return Some(Ok(std::mem::take(&mut self.printed)));
        };
        match Running::start(next) {
            Ok(running) => {
                self.running = running;
                None
            }
            Err(cause) => Some(Err(cause)),
        }
    }
}

/// A running command.
#[derive(Debug)]
struct Running {
    name: String,
    process: Process,
    pipe: Option<PipeReader>,
    printed: Vec<u8>,
    voice: Voice,
}

impl Running {
    /// How much of a command's output is kept, in bytes: more than the paths of a thousand databases.
    const KEPT: usize = 1 << 20;

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

    /// Reads what is there: a full pipe would block the command. A child that it left behind may still
    /// hold the pipe, and is not waited for.
    fn hear(&mut self, secrets: &[&str]) {
        self.voice.hear(secrets);
        let mut piece = [0; 4096];
        // At most one pipe's capacity in a turn.
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

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    #[test]
    fn the_paths_of_many_databases_are_heard_to_the_last() {
        const LENGTH: usize = 300_000;
        let mut command = Command::new("head");
        command.args(["-c", &LENGTH.to_string(), "/dev/zero"]);
        let step = Step::named("head".to_owned(), command);
        let mut chores = Chores::default();
        chores.begin(Errand::Probe, vec![step]).expect("it starts");
        let outcome = loop {
            let pipes = chores.pipes().map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            poll(&mut pipes.collect::<Vec<_>>(), PollTimeout::from(10u8)).expect("a wait");
            if let Some((_, outcome)) = chores.poll(&[]).pop() {
                break outcome;
            }
        };
        let printed = outcome.expect("it succeeds");
        assert_eq!(printed.concat().len(), LENGTH);
    }
}
