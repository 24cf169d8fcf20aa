//! Lines that a check proposes for a file.
//!
//! Owns how they are told: on a terminal to be copied, in JSON to be written. Never writes into a file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Lines for one place in a file, instead of the lines with these keys that are there.
#[derive(Debug)]
pub(super) struct Proposal {
    file: PathBuf,
    /// A section, or an entry of a list; `None`: the top of the file.
    place: Option<String>,
    lines: Vec<String>,
}

impl Proposal {
    pub(super) fn new(file: &Path, place: Option<String>, lines: Vec<String>) -> Self {
        Self {
            file: file.to_owned(),
            place,
            lines,
        }
    }

    /// For a person, each line behind this margin.
    pub(super) fn print(&self, text: &mut String, margin: &str) {
        let file = self.file.display();
        let _ = match &self.place {
            Some(place) => writeln!(text, "{margin}{file}, {place}"),
            None => writeln!(text, "{margin}{file}"),
        };
        for line in &self.lines {
            let _ = writeln!(text, "{margin}  {line}");
        }
    }

    /// For a program.
    pub(super) fn to_json(&self) -> Value {
        json!({"file": self.file.to_string_lossy(), "place": self.place, "lines": self.lines})
    }
}
