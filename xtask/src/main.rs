//! The project's own tasks: `cargo xtask TASK`.

use std::process::ExitCode;

mod setup;

fn main() -> ExitCode {
    match setup::setup() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
