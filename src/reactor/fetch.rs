//! The fetch child: its request, its answer, its death.
//!
//! Owns the process and its pipes. Never waits for an exit: SIGCHLD wakes the loop, which then asks for
//! it. Sets no deadline: the agent does.

use std::io::{self, ErrorKind, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitStatus;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use zeroize::Zeroizing;

use super::notify;
use super::voice::Voice;
use crate::credentials::fetch;
use crate::credentials::stage::Stage;
use crate::credentials::wire::{FetchRequest, Reply};
use crate::credentials::{FailureClass, FetchFailure, Grant};
use crate::system::process::{Process, Streams};
use crate::system::this_program;

/// How much is read from the child's pipe at a time, in bytes.
const PIECE: usize = 4096;

/// The child that fetches credentials.
#[derive(Debug)]
pub(super) struct FetchChild {
    child: Process,
    pipe: Option<PipeReader>,
    /// Holds secrets. It never grows, because that would leave a copy behind.
    read: Zeroizing<Vec<u8>>,
    voice: Voice,
    stage: Option<Stage>,
    killed: bool,
}

impl FetchChild {
    /// Starts the child and sends it the request.
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

    /// The pipes to poll until it ends: the answer, and the standard error.
    pub(super) fn pipes(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [self.pipe.as_ref().map(AsFd::as_fd), self.voice.pipe()]
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it after its deadline; its exit says so.
    pub(super) fn kill(&mut self) {
        self.killed = true;
        self.child.kill();
    }

    /// The answer, or how a child without an answer ended.
    pub(super) fn poll(&mut self) -> Option<Result<Grant, FetchFailure>> {
        // In this order: an exit that is seen here comes after everything that was written before it.
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
            self.without_answer("timed out and was killed")
        } else {
            self.without_answer(&format!("died ({status})"))
        }
    }

    /// Blames the stage that the child was in.
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
