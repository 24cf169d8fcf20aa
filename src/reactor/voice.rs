//! A child's output: a pipe that edgerepl reads and copies to its own log.
//!
//! Owns the pipe, the last line, and what lines tell: of uploads, and complaints about the bucket. A child that
//! wrote to edgerepl's standard error itself would die or hang with the reader of that. Never waits, and reads at
//! most a pipe's capacity in a turn; never passes on a secret.

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::litestream::chain;
use crate::litestream::uploads::{self, Upload};
use crate::system::stderr;

/// How much is read in one turn, in bytes.
const HEARD_AT_ONCE: usize = 64 * 1024;

/// A longer line is split, in bytes.
const LONGEST_LINE: usize = 4096;

/// How much of the last line is kept, in characters.
const TOLD: usize = 500;

#[derive(Debug)]
pub(super) struct Voice {
    pipe: Option<PipeReader>,
    line: Vec<u8>,
    last: Option<String>,
    complained: bool,
    /// Its lines tell of uploads.
    tells: bool,
    uploads: Vec<Upload>,
}

impl Voice {
    /// A voice, and the end of the pipe for the child.
    ///
    /// # Errors
    /// The kernel has no descriptor left.
    pub(super) fn new() -> Result<(Self, PipeWriter), String> {
        let made = || -> io::Result<_> {
            let (read, write) = io::pipe()?;
            fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            Ok((read, write))
        };
        let (read, write) = made().map_err(|e| format!("the kernel gives no pipe: {e}"))?;
        let voice = Self {
            pipe: Some(read),
            line: Vec::new(),
            last: None,
            complained: false,
            tells: false,
            uploads: Vec::new(),
        };
        Ok((voice, write))
    }

    /// The pipe to poll, until all writers have closed it.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Logs what was written since the last call, without `secrets`.
    pub(super) fn hear(&mut self, secrets: &[&str]) {
        let mut piece = [0; 4096];
        let mut heard = 0;
        while heard < HEARD_AT_ONCE {
            let Some(pipe) = &mut self.pipe else { break };
            match pipe.read(&mut piece) {
                Ok(0) => self.pipe = None,
                Ok(length) => {
                    heard += length;
                    self.take(&piece[..length], secrets);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
        if self.pipe.is_none() && !self.line.is_empty() {
            self.pass_on(secrets);
        }
    }

    /// What ended, and how, with its last line.
    pub(super) fn with_last_words(&self, how: impl Into<String>) -> String {
        let how = how.into();
        match &self.last {
            Some(last) => format!("{how}; it said last: {last}"),
            None => how,
        }
    }

    /// Whether a line since the last call complained about what the bucket holds.
    pub(super) fn complained(&mut self) -> bool {
        std::mem::take(&mut self.complained)
    }

    /// Whether its lines tell of uploads.
    pub(super) fn tells(&self) -> bool {
        self.tells
    }

    /// The uploads that lines since the last call told of.
    pub(super) fn uploads(&mut self) -> Vec<Upload> {
        std::mem::take(&mut self.uploads)
    }

    fn take(&mut self, piece: &[u8], secrets: &[&str]) {
        for byte in piece {
            if *byte == b'\n' {
                self.pass_on(secrets);
            } else if self.line.len() >= LONGEST_LINE - 1 {
                self.split(secrets);
            }
            if *byte != b'\n' {
                self.line.push(*byte);
            }
        }
    }

    /// Passes the beginning of a long line on; not the end of it, which may be the beginning of a secret.
    fn split(&mut self, secrets: &[&str]) {
        let mut line = redacted(&self.line, secrets).into_bytes();
        let longest = secrets.iter().map(|secret| secret.len()).max();
        let kept = longest.unwrap_or_default().min(LONGEST_LINE / 2);
        let rest = line.split_off(line.len().saturating_sub(kept));
        self.line = line;
        self.pass_on(secrets);
        self.line = rest;
    }

    fn pass_on(&mut self, secrets: &[&str]) {
        let mut line = redacted(&self.line, secrets);
        self.line.clear();
        let told: String = line.chars().filter(|c| !c.is_control()).collect();
        self.complained |= chain::is_complaint(&told);
        self.tells |= uploads::are_told(&told);
        self.uploads.extend(uploads::of_line(&told));
        if !told.trim().is_empty() {
            self.last = Some(told.trim().chars().take(TOLD).collect());
        }
        line.push('\n');
        stderr::line(line.as_bytes());
    }
}

fn redacted(line: &[u8], secrets: &[&str]) -> String {
    let mut line = String::from_utf8_lossy(line).into_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        if line.contains(secret) {
            line = line.replace(secret, "(secret)");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_not_split_in_a_secret() {
        let secret = "s3cr3t".repeat(100);
        for before in LONGEST_LINE - 650..LONGEST_LINE + 10 {
            let (mut voice, _write) = Voice::new().expect("a pipe");
            let line = format!("{}{secret} and more", "x".repeat(before));
            voice.take(line.as_bytes(), &[&secret]);
            voice.pass_on(&[&secret]);
            let last = voice.with_last_words("");
            assert!(!last.contains("s3cr3t"), "{before}: {last}");
        }
    }

    #[test]
    fn the_last_line_is_known_and_holds_no_secret() {
        let (mut voice, mut write) = Voice::new().expect("a pipe");
        assert_eq!(voice.with_last_words("it ended"), "it ended");
        write
            .write_all(b"first\nthe key is s3cr3t\x1b[2J!\n \n\n")
            .expect("said");
        voice.hear(&["s3cr3t"]);
        assert_eq!(
            voice.with_last_words("it ended"),
            "it ended; it said last: the key is (secret)[2J!"
        );
        write.write_all(b"no newline at the end").expect("said");
        drop(write);
        voice.hear(&[]);
        assert!(voice.pipe().is_none());
        assert!(voice.with_last_words("").ends_with("no newline at the end"));
    }

    #[test]
    fn a_line_without_end_is_heard_in_parts() {
        let (mut voice, mut write) = Voice::new().expect("a pipe");
        write.write_all(&[b'x'; LONGEST_LINE + 9]).expect("said");
        voice.hear(&[]);
        assert_eq!(voice.line.len(), 10);
        assert_eq!(voice.last.as_ref().map(String::len), Some(TOLD));
    }
}
