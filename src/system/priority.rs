//! How much a process gets of the disk.
//!
//! The kernel's call has no safe form in a library that is kept: it is made by `ionice`, which
//! util-linux and BusyBox have. Where there is none, or where the disk's scheduler knows no priorities,
//! nothing is lost but politeness.

use std::process::{Command, Stdio};

/// From now on this thread, and all that it starts, gets what nobody else wants of the disk.
pub fn idle() {
    set("3");
}

/// From now on this thread, and all that it starts, gets as much as any other.
pub fn usual() {
    set("0");
}

fn set(class: &str) {
    let made = Command::new("ionice")
        .args(["-c", class, "-p", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !made.as_ref().is_ok_and(std::process::ExitStatus::success) {
        log::debug!("ionice can't be run: {made:?}");
    }
}
