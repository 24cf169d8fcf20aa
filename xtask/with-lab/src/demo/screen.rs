//! The demo's terminal: a line for each thing that happens, and, where somebody looks, a few under them
//! that change.
//!
//! Owns what is on the screen and when. Knows nothing of what it shows.

use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

/// Where nobody looks, lines like the changing ones come this often.
const PLAIN_PACE: Duration = Duration::from_secs(10);

pub(super) struct Screen {
    begun: Instant,
    live: bool,
    /// So many changing lines are the last on the screen.
    changing: usize,
    last_plain: Instant,
}

impl Screen {
    pub(super) fn new() -> Self {
        let begun = Instant::now();
        Self {
            begun,
            live: stdout().is_terminal(),
            changing: 0,
            last_plain: begun,
        }
    }

    /// What has happened.
    pub(super) fn say(&mut self, text: &str) {
        self.clear();
        println!("{:>6.1} s  {text}", self.begun.elapsed().as_secs_f32());
    }

    /// How things are.
    pub(super) fn glance(&mut self, lines: &[String]) {
        if self.live {
            self.clear();
            for line in lines {
                let time = self.begun.elapsed().as_secs_f32();
                println!("\x1b[36m{time:>6.1} s\x1b[0m  {line}");
            }
            let _ = stdout().flush();
            self.changing = lines.len();
        } else if self.last_plain.elapsed() >= PLAIN_PACE {
            self.last_plain = Instant::now();
            for line in lines {
                self.say(line);
            }
        }
    }

    fn clear(&mut self) {
        let lines = std::mem::take(&mut self.changing);
        if lines > 0 {
            // Up to the first of them, and all from there on removed.
            print!("\x1b[{lines}A\r\x1b[J");
        }
    }
}
