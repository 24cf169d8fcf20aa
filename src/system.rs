//! What the kernel offers a single-threaded daemon, in the shape that the reactor wants.
//!
//! Owns the descriptors that become readable when something happens: signals, time, the network.
//! Decides nothing.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

pub mod family;
pub mod file;
pub mod heap;
pub mod inherited;
mod netlink;
pub mod network;
pub mod priority;
pub mod process;
pub mod signals;
pub mod stderr;
pub mod timer;
pub mod traffic;

/// Where this very program is, also after an update has replaced its file; and what it is called.
const THIS_PROGRAM: (&str, &str) = ("/proc/self/exe", "edgerepl");

/// This very program again.
pub fn this_program() -> Command {
    let (path, name) = THIS_PROGRAM;
    let mut command = Command::new(path);
    command.arg0(name);
    command
}

/// The kernel's id of this boot, which is another one at each; empty where the kernel or the sandbox does not tell.
pub fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
