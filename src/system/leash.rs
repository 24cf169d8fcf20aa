//! The leash: what stands between edgerepl and the Litestream that it runs.
//!
//! A small step between fork and exec, done by this program itself: it asks the kernel to end
//! Litestream in order (SIGTERM) should edgerepl die, and takes a lock that Litestream then holds
//! for as long as it lives, so that a new edgerepl never starts a second one beside it. Two of them
//! on one database ruin its replica.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::Path;
use std::process::{Child, Command, Stdio, exit};

use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;

/// The command's name on edgerepl's own command line.
pub const COMMAND: &str = "leash";

/// The most that a program is told, in bytes: several times what credentials take.
const MOST: u64 = 64 * 1024;

/// The command that runs `program` on a leash held by this process.
pub fn command(lock: &Path, program: &[String]) -> Command {
    let mut command = super::this_program();
    command
        .arg(COMMAND)
        .arg(std::process::id().to_string())
        .arg(lock)
        .arg("--")
        .args(program);
    command
}

/// Starts what [`command`] gave, and tells it by a pipe what the program's environment holds beside its
/// own, in lines of `NAME=value`: what goes into a [`Command`] can't be wiped afterwards.
///
/// # Errors
/// Where it can't be started or told.
pub fn start(leash: &mut Command, environment: &str) -> io::Result<Child> {
    let mut child = leash.stdin(Stdio::piped()).spawn()?;
    // Less than a pipe holds, so this does not wait for the child to read.
    let told = child
        .stdin
        .take()
        .map(|mut pipe| pipe.write_all(environment.as_bytes()));
    if let Some(Err(e)) = told {
        let _ = child.kill();
        let _ = child.wait();
        return Err(e);
    }
    Ok(child)
}

/// Becomes the program in `arguments` (`PARENT LOCK -- PROGRAM ARGUMENTS…`); returns only with the
/// reason why it could not. What standard input says goes into the program's environment.
pub fn run(arguments: &[String]) -> String {
    let [parent, lock, separator, program, rest @ ..] = arguments else {
        return format!("{COMMAND}: is edgerepl's own command, and not to be used by hand");
    };
    if separator != "--" {
        return format!("{COMMAND}: is edgerepl's own command, and not to be used by hand");
    }
    // What it is told is secret, and what it executes can be dumped again. At a limit of 1 the kernel
    // starts no handler either.
    if let Err(e) = setrlimit(Resource::RLIMIT_CORE, 1, 1) {
        log::debug!("a core file of {program} would hold credentials: {e}");
    }
    if let Err(e) = set_pdeathsig(Signal::SIGTERM) {
        return format!("the kernel takes no parent-death signal: {e}");
    }
    if parent.parse() != Ok(parent_id()) {
        // It died before the line above.
        exit(0);
    }
    let mut environment = String::new();
    if let Err(e) = io::stdin().take(MOST).read_to_string(&mut environment) {
        return format!("the environment of {program} can't be read: {e}");
    }
    let locked = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(lock)
        .map_err(|e| e.to_string())
        .and_then(|file| {
            // Waits for an earlier Litestream to end its last sync.
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e.to_string())
        });
    let held = match locked {
        Ok(held) => held,
        Err(e) => return format!("{lock} can't be locked: {e}"),
    };
    // The program inherits the lock.
    if let Err(e) = fcntl(&*held, FcntlArg::F_SETFD(FdFlag::empty())) {
        return format!("{lock} can't be handed on: {e}");
    }
    let error = Command::new(program)
        .args(rest)
        .envs(environment.lines().filter_map(|line| line.split_once('=')))
        .stdin(Stdio::null())
        .exec();
    format!("{program} can't be run: {error}")
}
