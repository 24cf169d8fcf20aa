//! The leash: a small step between fork and exec of the Litestream that edgerepl runs.
//!
//! Owns that step, which this program does itself: it asks the kernel to send Litestream SIGTERM if
//! edgerepl dies, and takes a lock that Litestream holds as long as it lives. A new edgerepl thus
//! never starts a second Litestream beside it: two of them on one database ruin its replica.
//!
//! After a kill of edgerepl, the next one finds what still runs by that lock, and by the process
//! group in the lock's file: a wrapper around Litestream may die and leave it behind, with the lock
//! or without. It gets time for a last sync, and is then ended.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::Path;
use std::process::{Command, Stdio, exit};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, OFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::unistd::{Pid, close};

use crate::credentials::delivery;
use crate::system::family::{self, Seen};
use crate::system::{inherited, this_program};

/// The command's name on edgerepl's own command line.
pub const COMMAND: &str = "leash";

/// The largest environment that a program gets, in bytes: several times the size of credentials.
const MOST: u64 = 64 * 1024;

/// How long an earlier Litestream may take for its last sync before it is killed.
const LAST_SYNC: Duration = Duration::from_secs(15);

/// How often it is looked whether it is gone.
const PACE: Duration = Duration::from_millis(10);

/// What stands for the lock where there is none.
const NO_LOCK: &str = "-";

/// The command that runs `litestream` on a leash held by this process, with a lock where nothing of
/// its kind may run beside it, and without what would lead it to other credentials. What its
/// standard input says, in lines of `NAME=value`, goes into its environment: what goes into a
/// [`Command`] can't be wiped afterwards.
pub fn command(lock: Option<&Path>, litestream: &[String]) -> Command {
    let mut command = this_program();
    delivery::keep_out(&mut command);
    command
        .arg(COMMAND)
        .arg(std::process::id().to_string())
        .arg(lock.unwrap_or(Path::new(NO_LOCK)))
        .arg("--")
        .args(litestream);
    command
}

/// Becomes the program in `arguments` (`PARENT LOCK -- PROGRAM ARGUMENTS…`); returns only with the
/// reason why it could not.
pub fn run(arguments: &[OsString]) -> String {
    let [parent, lock, separator, program, rest @ ..] = arguments else {
        return format!("{COMMAND} is an internal command of edgerepl: do not run it by hand");
    };
    let (lock, name) = (Path::new(lock), program.display());
    if separator != "--" {
        return format!("{COMMAND} is an internal command of edgerepl: do not run it by hand");
    }
    // Open files and blocked signals here were inherited from edgerepl's own parent.
    for other in inherited::others() {
        let _ = close(other);
    }
    if let Err(e) = SigSet::empty().thread_set_mask() {
        return format!("the signal mask can't be set: {e}");
    }
    // What it is told is secret, and what it executes can be dumped again. At a limit of 1 the
    // kernel starts no handler either.
    if let Err(e) = setrlimit(Resource::RLIMIT_CORE, 1, 1) {
        log::debug!("a core file of {name} would hold credentials: {e}");
    }
    if let Err(e) = set_pdeathsig(Signal::SIGTERM) {
        return format!("the parent-death signal can't be set: {e}");
    }
    if parent.to_str().and_then(|id| id.parse().ok()) != Some(parent_id()) {
        // It died before the line above.
        exit(0);
    }
    let mut environment = String::new();
    if let Err(e) = io::stdin().take(MOST).read_to_string(&mut environment) {
        return format!("the environment of {name} can't be read: {e}");
    }
    let _held = match (lock != Path::new(NO_LOCK)).then(|| hold(lock)).transpose() {
        Ok(held) => held,
        Err(e) => return format!("{} can't be locked: {e}", lock.display()),
    };
    for number in [1, 2] {
        hold_other_end(number);
    }
    let error = Command::new(program)
        .args(rest)
        .envs(environment.lines().filter_map(|line| line.split_once('=')))
        .stdin(Stdio::null())
        .exec();
    format!("{name} can't be run: {error}")
}

/// Takes the lock for the program, which inherits it.
fn hold(lock: &Path) -> Result<Flock<File>, String> {
    let mut held = take(lock)?;
    fcntl(&*held, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|e| e.to_string())?;
    sign(&mut held);
    Ok(held)
}

/// Takes the lock, once nothing is left of an earlier Litestream.
fn take(lock: &Path) -> Result<Flock<File>, String> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(lock)
        .map_err(|e| e.to_string())?;
    let mut text = String::new();
    // Text that is not UTF-8 names no group.
    let _ = (&mut file).take(64).read_to_string(&mut text);
    let begun = Instant::now();
    if let Some(earlier) = Group::parse(&text) {
        earlier.end(begun);
    }
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Ok(held),
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => file,
            Err((_, e)) => return Err(e.to_string()),
        };
        if begun.elapsed() > LAST_SYNC {
            let metadata = file.metadata().map_err(|e| e.to_string())?;
            // Nobody opens this file but a leash: who has it open inherited it from one. One that
            // waits as this one does is left to wait.
            for pid in family::holders(&metadata)
                .into_iter()
                .filter(|pid| !is_leash(*pid))
            {
                signal(pid, Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(200));
        }
        thread::sleep(PACE);
    }
}

/// Writes into the lock which process group holds it.
fn sign(held: &mut File) {
    let Some(me) = Seen::of(std::process::id()) else {
        return;
    };
    let text = format!("{} {}\n", me.group, me.started);
    // Without it a wrapper's child that closed the lock would go unseen; no reason not to start.
    let _ = held
        .set_len(0)
        .and_then(|()| held.rewind())
        .and_then(|()| held.write_all(text.as_bytes()));
}

/// Keeps the reading end of what the program says open in the program itself. It would die of a
/// pipe without a reader, during its last sync, if edgerepl was killed.
fn hold_other_end(number: i32) {
    let path = format!("/proc/self/fd/{number}");
    let is_pipe = std::fs::metadata(&path).is_ok_and(|file| file.file_type().is_fifo());
    let opened = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path);
    if let Ok(end) = opened
        && is_pipe
        && fcntl(&end, FcntlArg::F_SETFD(FdFlag::empty())).is_ok()
    {
        // Open until the program ends.
        let _ = end.into_raw_fd();
    }
}

/// The process group of an earlier Litestream, by its leader.
struct Group {
    leader: u32,
    started: u64,
}

impl Group {
    fn parse(text: &str) -> Option<Self> {
        let (leader, started) = text.trim_end().split_once(' ')?;
        Some(Self {
            leader: leader.parse().ok().filter(|leader| *leader > 1)?,
            started: started.parse().ok()?,
        })
    }

    /// Who is left of it. The kernel gives its number to nobody else while there is anybody.
    fn members(&self) -> Vec<u32> {
        let Ok(number) = i32::try_from(self.leader) else {
            return Vec::new();
        };
        let leader = Seen::of(self.leader);
        let is_another = leader.is_some_and(|leader| leader.started != self.started);
        // Usually there is none, and no need to look at all processes.
        if is_another || killpg(Pid::from_raw(number), None).is_err() {
            return Vec::new();
        }
        let processes = family::all().into_iter();
        processes
            .filter(|process| process.group == self.leader && !process.is_zombie)
            .map(|process| process.pid)
            .collect()
    }

    /// Has it end. Its leader was told so by the kernel when edgerepl died; told twice, Litestream
    /// would break its last sync off.
    fn end(&self, begun: Instant) {
        let mut told = false;
        loop {
            let members = self.members();
            if members.is_empty() {
                return;
            }
            if !told && !members.contains(&self.leader) {
                told = true;
                members.iter().for_each(|pid| signal(*pid, Signal::SIGTERM));
            }
            if begun.elapsed() > LAST_SYNC {
                members.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
            }
            thread::sleep(PACE);
        }
    }
}

fn is_leash(pid: u32) -> bool {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).nth(1) == Some(COMMAND.as_bytes())
}

fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
