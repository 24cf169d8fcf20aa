//! A root shell inside the machine, at the other end of a virtual serial port or of its console.
//!
//! Owns how a command is sent and its end is recognised; there is no agent in the machine but
//! `/bin/sh`. What a command means is for the tests to know.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use xtask::image::Door;

use super::Failure;
use super::machine::Machine;

/// The shell is there within this from the start of the kernel: emulation is slow, and the machine
/// that emulates may be busy.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// How long a login takes, without a password.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);

/// What is sent before the shell listens is lost, so it is asked this often whether it does.
const KNOCK: Duration = Duration::from_millis(500);

pub(crate) struct Shell {
    port: UnixStream,
    ears: Receiver<Vec<u8>>,
    heard: Vec<u8>,
    commands: u64,
}

impl Shell {
    /// Waits until the shell answers.
    pub(crate) fn open(machine: &mut Machine, door: Door) -> Result<Self, Failure> {
        let port = UnixStream::connect(machine.shell())?;
        let mut shell = Self {
            ears: listen_to(port.try_clone()?),
            port,
            heard: Vec::new(),
            commands: 0,
        };
        if door == Door::Console {
            shell.log_in(machine)?;
        }
        while machine.is_on() && machine.age() < BOOT_LIMIT {
            let mark = shell.send("true")?;
            if shell.wait_for(&mark, KNOCK)?.is_some() {
                return Ok(shell);
            }
        }
        Err(format!("the machine has no shell; {}", machine.last_words()).into())
    }

    /// Logs in as root, and has a shell listen that neither echoes nor edits.
    fn log_in(&mut self, machine: &mut Machine) -> Result<(), Failure> {
        while machine.is_on() && machine.age() < BOOT_LIMIT {
            if self.hear("login: ", KNOCK)? {
                self.port.write_all(b"root\n")?;
                if self.hear("# ", LOGIN_LIMIT)? {
                    self.port
                        .write_all(b"dmesg -n 1; stty -echo -opost; sh -s 2>&1 | cat\n")?;
                    return Ok(());
                }
            }
        }
        Err(format!("root can't log in; {}", machine.last_words()).into())
    }

    /// Whether these words are heard in time; what came before them is forgotten.
    fn hear(&mut self, words: &str, limit: Duration) -> Result<bool, Failure> {
        let begun = Instant::now();
        loop {
            let text = String::from_utf8_lossy(&self.heard).into_owned();
            if let Some((_, rest)) = text.split_once(words) {
                self.heard = rest.as_bytes().to_vec();
                return Ok(true);
            }
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            self.listen(left)?;
        }
    }

    /// Runs a command and answers with what it printed; one that fails is an error.
    pub(crate) fn run(&mut self, command: &str) -> Result<String, Failure> {
        match self.try_run(command)? {
            (0, text) => Ok(text),
            (code, text) => Err(format!("`{command}` failed ({code}): {}", text.trim()).into()),
        }
    }

    /// Runs a command and answers with its exit code and what it printed.
    pub(crate) fn try_run(&mut self, command: &str) -> Result<(i32, String), Failure> {
        self.try_run_within(command, COMMAND_LIMIT)
    }

    /// The same with a command that takes its time.
    pub(crate) fn try_run_within(
        &mut self,
        command: &str,
        limit: Duration,
    ) -> Result<(i32, String), Failure> {
        let mark = self.send(command)?;
        self.wait_for(&mark, limit)?
            .ok_or_else(|| format!("`{command}` has not ended within {limit:?}").into())
    }

    /// What a command printed, where there is a shell that answers at once: none while the machine
    /// goes down or comes up.
    pub(crate) fn ask(&mut self, command: &str) -> Result<Option<String>, Failure> {
        let mark = self.send(command)?;
        let answer = self.wait_for(&mark, KNOCK)?;
        Ok(answer.and_then(|(code, text)| (code == 0).then_some(text)))
    }

    /// Sends a command that nobody answers for: one that ends the machine.
    pub(crate) fn send(&mut self, command: &str) -> Result<String, Failure> {
        self.commands += 1;
        let number = self.commands;
        // The marks are printed and not written, so that a terminal that echoes is not taken for
        // one that answers.
        let text = format!(
            "printf '\\002%d\\002' {number}; {{ {command}\n}} </dev/null 2>&1; \
             printf '\\001%d\\001%d\\n' {number} $?\n"
        );
        let mark = format!("\u{1}{number}\u{1}");
        self.port.write_all(text.as_bytes())?;
        Ok(mark)
    }

    /// The exit code and the output of the command that ends with `mark`.
    fn wait_for(&mut self, mark: &str, limit: Duration) -> Result<Option<(i32, String)>, Failure> {
        let begun = Instant::now();
        loop {
            let text = String::from_utf8_lossy(&self.heard).into_owned();
            if let Some((output, rest)) = text.split_once(mark)
                && let Some((code, _)) = rest.split_once('\n')
            {
                let begin = mark.replace('\u{1}', "\u{2}");
                let output = output.rsplit_once(&begin).map_or(output, |(_, own)| own);
                self.heard.clear();
                return Ok(Some((code.trim().parse().unwrap_or(-1), output.to_owned())));
            }
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            self.listen(left)?;
        }
    }

    /// Takes in what comes, and waits for it that long.
    fn listen(&mut self, limit: Duration) -> Result<(), Failure> {
        match self.ears.recv_timeout(limit) {
            Ok(piece) => self.heard.extend(piece),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err("the machine's serial port is closed".into());
            }
        }
        Ok(())
    }
}

/// What the machine says, piece by piece. It is taken in also where nobody waits for it: a machine
/// whose console nobody reads stands still.
fn listen_to(mut port: UnixStream) -> Receiver<Vec<u8>> {
    let (mouth, ears) = mpsc::channel();
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(n) = port.read(&mut piece) {
            if n == 0 || mouth.send(piece[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    ears
}
