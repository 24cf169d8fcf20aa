//! Standard error, of which nobody knows who reads it, or whether.
//!
//! Owns the rule that the log holds nothing up: where the daemon would have to wait for its reader, or
//! there is none any more, a line is lost, and counted. Knows nothing of what the lines say.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What a pipe takes at once, or not at all (`PIPE_BUF` of Linux), in bytes: a longer line is cut.
const LONGEST: usize = 4096;

/// Whether lines are lost rather than waited with.
static NEVER_WAITS: AtomicBool = AtomicBool::new(false);

/// Lines that were lost since the last one that was not.
static LOST: AtomicU64 = AtomicU64::new(0);

/// From now on a reader that does not read costs lines, and no time.
pub fn never_wait() {
    NEVER_WAITS.store(true, Ordering::Relaxed);
}

/// Writes a line, newline included; a lost one is counted, and told of with the next that is not.
pub fn line(text: &[u8]) {
    let _ = StandardError.write(text);
}

/// Standard error for whoever writes a line at a time.
#[derive(Clone, Copy, Debug)]
pub struct StandardError;

impl Write for StandardError {
    /// Takes the whole line, whatever becomes of it.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        let mut line = text.strip_suffix(b"\n").unwrap_or(text).to_vec();
        line.truncate(LONGEST - 1);
        line.push(b'\n');
        let waits = !NEVER_WAITS.load(Ordering::Relaxed);
        let put =
            |line: &[u8]| (waits || takes_a_line(&stderr)) && stderr.lock().write_all(line).is_ok();
        let lost = LOST.swap(0, Ordering::Relaxed);
        let told = lost == 0
            || put(
                format!("edgerepl: {lost} lines of the log were lost: nobody read it\n").as_bytes(),
            );
        if !told || !put(&line) {
            LOST.fetch_add(lost * u64::from(!told) + 1, Ordering::Relaxed);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether [`LONGEST`] bytes can be written at once.
fn takes_a_line(stderr: &io::Stderr) -> bool {
    let mut polled = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1))
}
