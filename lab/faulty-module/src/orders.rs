//! What is to go wrong, and what was called.
//!
//! Owns two files of the token's folder. `orders` has a line for each fault, read at each call:
//! `FUNCTION FAULT [AFTER]`, where FAULT is a code (`0x30`), `hang`, `crash`, `corrupt` or `delay` (by a
//! second), and with AFTER a single call has it, the one after so many of that function in a process; without it all
//! calls do. To `calls` a line is added for each call: `PROCESS FUNCTION`.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use std::{process, thread};

use cryptoki_sys::{CK_RV, CKR_GENERAL_ERROR};
use nix::sys::signal::{Signal, raise};

pub(crate) enum Fault {
    Code(CK_RV),
    Hang,
    Crash,
    Corrupt,
    Delay,
}

/// The fault that this call of a function has.
pub(crate) fn next(function: &str) -> Option<Fault> {
    let folder = folder();
    let call = format!("{} {function}\n", process::id());
    let file = folder.join("calls");
    // In a file, for what is in memory is gone when the module is unloaded.
    let calls = fs::read_to_string(&file).unwrap_or_default();
    let earlier = calls.split_inclusive('\n').filter(|c| *c == call).count();
    if let Ok(mut calls) = File::options().create(true).append(true).open(file) {
        let _ = calls.write_all(call.as_bytes());
    }
    let orders = fs::read_to_string(folder.join("orders")).unwrap_or_default();
    orders.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let named = words.next() == Some(function);
        let fault = words.next().and_then(parse);
        let due = words
            .next()
            .is_none_or(|after| after.parse() == Ok(earlier));
        fault.filter(|_| named && due)
    })
}

fn parse(fault: &str) -> Option<Fault> {
    Some(match fault {
        "hang" => Fault::Hang,
        "crash" => Fault::Crash,
        "corrupt" => Fault::Corrupt,
        "delay" => Fault::Delay,
        code => Fault::Code(CK_RV::from_str_radix(code.strip_prefix("0x")?, 16).ok()?),
    })
}

/// Does not come back, as a driver that waits for its bus.
pub(crate) fn hang() -> ! {
    loop {
        thread::park();
    }
}

/// Comes back late, and well.
pub(crate) fn delay() -> bool {
    thread::sleep(Duration::from_secs(1));
    false
}

/// Ends the process, as a stray pointer does.
pub(crate) fn crash() -> CK_RV {
    let _ = raise(Signal::SIGSEGV);
    CKR_GENERAL_ERROR
}

/// Where all is that this module reads and writes.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os("EDGEREPL_FAULTY_TOKEN").map_or_else(PathBuf::new, PathBuf::from)
}
