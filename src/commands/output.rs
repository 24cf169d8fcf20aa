//! The output of commands: the only place that writes to standard output, and the only one beside
//! the log that writes to standard error.
//!
//! Owns colours, and the exit status if an answer can't be written. Never panics: `println!` does,
//! and a panic aborts the program.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use zeroize::Zeroizing;

/// Prints a command's whole answer, and returns the exit status: `verdict`, also if the reader has
/// gone; a failure if the answer can't be written.
pub(crate) fn answer(text: impl Display, verdict: ExitCode) -> ExitCode {
    // One write: the reader gets all of it, or the exit status shows that it did not.
    let text = Zeroizing::new(text.to_string());
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => verdict,
        Err(e) if e.kind() == ErrorKind::BrokenPipe => verdict,
        Err(e) => {
            log::error!("can't write to standard output: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The colour of a word on a terminal.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Paint {
    /// It works.
    Green,
    /// Something waits.
    Yellow,
    /// Something is wrong.
    Red,
}

impl Paint {
    /// The word in this colour, if standard output is a terminal.
    pub(crate) fn on_terminal(self, word: &str) -> String {
        if !io::stdout().is_terminal() {
            return word.to_owned();
        }
        let code = match self {
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Red => 31,
        };
        format!("\x1b[1;{code}m{word}\x1b[0m")
    }
}

/// Prints to standard error. A failure is ignored: there is no other place to report it.
pub(crate) fn tell(text: impl Display) {
    let _ = io::stderr().write_all(text.to_string().as_bytes());
}
