//! What the kernel offers a single-threaded daemon, in the shape that the reactor wants.
//!
//! Owns the descriptors that become readable when something happens: signals, time, the network.
//! Decides nothing.

use std::os::unix::process::CommandExt;
use std::process::Command;

pub mod family;
pub(crate) mod file;
pub mod leash;
pub mod local;
pub mod network;
pub mod process;
pub mod signals;
pub mod stderr;
pub mod timer;

/// This very program again, also after an update has replaced its file.
pub fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("edgerepl");
    command
}
