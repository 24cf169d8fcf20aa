//! A root shell inside the machine, at the other end of a virtual serial port.
//!
//! Owns how a command is sent and its end is recognised; there is no agent in the machine but
//! `/bin/sh`. What a command means is for the tests to know.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::Failure;
use super::machine::Machine;

/// The shell is there within this from the start of the kernel: emulation is slow, and the machine
/// that emulates may be busy.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// What is sent before the shell listens is lost, so it is asked this often whether it does.
const KNOCK: Duration = Duration::from_millis(500);

pub(crate) struct Shell {
    port: UnixStream,
    heard: Vec<u8>,
    commands: u64,
}

impl Shell {
    /// Waits until the shell answers.
    pub(crate) fn open(machine: &mut Machine) -> Result<Self, Failure> {
        let mut shell = Self {
            port: UnixStream::connect(machine.shell())?,
            heard: Vec::new(),
            commands: 0,
        };
        while machine.is_on() && machine.age() < BOOT_LIMIT {
            let mark = shell.send("true")?;
            if shell.wait_for(&mark, KNOCK)?.is_some() {
                return Ok(shell);
            }
        }
        Err(format!("the machine has no shell; {}", machine.last_words()).into())
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
        let mark = self.send(command)?;
        self.wait_for(&mark, COMMAND_LIMIT)?
            .ok_or_else(|| format!("`{command}` has not ended within {COMMAND_LIMIT:?}").into())
    }

    /// Sends a command that nobody answers for: one that ends the machine.
    pub(crate) fn send(&mut self, command: &str) -> Result<String, Failure> {
        self.commands += 1;
        let mark = format!("\u{1}{}\u{1}", self.commands);
        let begin = format!("\u{2}{}\u{2}", self.commands);
        let text = format!(
            "printf '{begin}'; {{ {command}\n}} </dev/null 2>&1; printf '{mark}%d\\n' $?\n"
        );
        self.port.write_all(text.as_bytes())?;
        Ok(mark)
    }

    /// The exit code and the output of the command that ends with `mark`.
    fn wait_for(&mut self, mark: &str, limit: Duration) -> Result<Option<(i32, String)>, Failure> {
        let begun = Instant::now();
        let mut piece = [0; 4096];
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
            self.port.set_read_timeout(Some(left))?;
            match self.port.read(&mut piece) {
                Ok(0) => return Err("the machine's serial port is closed".into()),
                Ok(n) => self.heard.extend_from_slice(&piece[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}
