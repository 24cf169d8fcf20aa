//! Programs of this machine that a task runs to their end.
//!
//! Owns how an end is judged. What it means, and what somebody should do then, the caller knows.

use std::process::Command;

/// Runs to the end and answers with what was printed; or, in words, with why it did not end well: all
/// that the program said of it.
pub fn output(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|cause| format!("{} can't be run: {cause}", name(command)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    match String::from_utf8_lossy(&output.stderr).trim() {
        "" => Err(format!("{} failed ({})", name(command), output.status)),
        said => Err(said.to_owned()),
    }
}

/// Runs to the end before everybody's eyes.
pub fn run(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} failed ({status}): see above", name(command))),
        Err(cause) => Err(format!("{} can't be run: {cause}", name(command))),
    }
}

/// The last line of what a program said: the reason, most often.
pub fn last_line(said: &str) -> &str {
    said.lines().next_back().unwrap_or(said)
}

pub(crate) fn name(command: &Command) -> String {
    command.get_program().display().to_string()
}
