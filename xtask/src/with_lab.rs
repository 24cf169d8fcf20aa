//! The tasks that need the lab: how their program is started.
//!
//! Owns nothing of what they do.

use std::env;
use std::process::Command;

use edgerepl_tools::{self as tools, Workspace};
use xtask::Outcome;

/// Runs one of them before everybody's eyes.
pub(crate) fn run(words: &[&str]) -> Outcome {
    // Where the user is: a path among the words is meant from there.
    let here = env::current_dir()?;
    Ok(command(words).current_dir(here).status()?.success())
}

/// What runs one of them, built first.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut cargo = Workspace::Lab.cargo("run");
    tools::show_progress_to_people(&mut cargo);
    cargo
        .args(["--package", "xtask-with-lab", "--"])
        .args(words);
    cargo
}
