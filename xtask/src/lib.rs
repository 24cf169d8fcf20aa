//! What the project's tasks have in common: what is installed, and what is built for devices.
//!
//! Owns no task, and needs no lab. A task makes sure of what it needs by itself, so that the first
//! command on a fresh machine is also the only one.

use std::error::Error;
use std::process::ExitCode;

pub mod cross;
pub mod image;
pub mod process;
pub mod setup;
pub mod target;

/// True where a task's question was answered with yes.
pub type Outcome = Result<bool, Box<dyn Error>>;

/// How a task's program ends; an error is told on the standard error.
pub fn exit_code(done: Outcome) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
