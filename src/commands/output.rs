//! What commands print: the one place that writes to standard output, and to standard error beside
//! the log.
//!
//! Owns colours, and what comes of an answer that nobody takes. Never panics: `println!` does, and with a panic the
//! program aborts.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use zeroize::Zeroizing;

/// Prints a command's whole answer, and says how the command ends: with `verdict`, also where the
/// reader has gone; a failure where the answer can't be written.
pub(crate) fn answer(text: impl Display, verdict: ExitCode) -> ExitCode {
    // Written at once, so that a reader gets all of it or knows that it did not.
    let text = Zeroizing::new(text.to_string());
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => verdict,
        Err(e) if e.kind() == ErrorKind::BrokenPipe => verdict,
        Err(e) => {
            log::error!("the answer can't be written to standard output: {e}");
            ExitCode::FAILURE
        }
    }
}

/// How a word looks to a person.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Paint {
    /// All is well.
    Green,
    /// Something waits.
    Yellow,
    /// Something is wrong.
    Red,
}

impl Paint {
    /// The word in this colour, where a terminal shows it.
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

/// Tells a person, on standard error. Where nobody reads that there is nobody to tell.
pub(crate) fn tell(text: impl Display) {
    let _ = io::stderr().write_all(text.to_string().as_bytes());
}
