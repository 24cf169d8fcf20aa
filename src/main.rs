//! The edgerepl command.

use std::process::ExitCode;

fn main() -> ExitCode {
    edgerepl::cli::main()
}
