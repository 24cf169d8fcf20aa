//! Children of this process, each from the same clean beginning.
//!
//! Owns the one way in which the daemon starts anything: with no signal blocked or ignored, whatever
//! this process blocks or was started with, and with nothing open but what it is given. The standard
//! library hands its own mask on since Rust 1.67, and a program that does not unblock signals by itself
//! could then not be stopped. Never waits for a child: an exit is asked for.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use nix::errno::Errno;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::{THIS_PROGRAM, inherited};

/// The exit status of a child whose own nobody knows: no success.
const UNKNOWN: i32 = 1;

/// No turn of the loop collects more adopted children than this.
const ADOPTED_AT_ONCE: usize = 64;

/// What a child's standard descriptors are; none is `/dev/null`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streams<'a> {
    /// What it reads.
    pub input: Option<BorrowedFd<'a>>,
    /// Where it writes.
    pub output: Option<BorrowedFd<'a>>,
    /// Where it complains.
    pub errors: Option<BorrowedFd<'a>>,
}

/// A child that was started here. Dropping it neither ends it nor collects it.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`, of which the program, the arguments and the environment count. It leads a
    /// process group of its own, so that all that it starts can be signalled with it.
    ///
    /// # Errors
    /// What the kernel says; where the program isn't there, that.
    pub fn start(command: &Command, streams: Streams<'_>) -> io::Result<Self> {
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
                | PosixSpawnFlags::POSIX_SPAWN_SETPGROUP,
        )?;
        attributes.set_sigmask(&SigSet::empty())?;
        attributes.set_sigdefault(&SigSet::all())?;
        attributes.set_pgroup(Pid::from_raw(0))?;
        let mut files = PosixSpawnFileActions::init()?;
        let nothing = File::options().read(true).write(true).open("/dev/null")?;
        let given = [streams.input, streams.output, streams.errors];
        for (number, stream) in (0..).zip(given) {
            let stream = stream.unwrap_or(nothing.as_fd());
            files.add_dup2(stream.as_raw_fd(), number)?;
        }
        // What is opened here is closed by the exec; what the parent left open is not.
        for other in inherited::others() {
            files.add_close(other)?;
        }
        let program = text(command.get_program())?;
        // A command does not tell what it calls its program.
        let called = match THIS_PROGRAM {
            (path, name) if command.get_program() == path => name.as_ref(),
            _ => command.get_program(),
        };
        let mut arguments = vec![text(called)?];
        for argument in command.get_args() {
            arguments.push(text(argument)?);
        }
        let environment = environment(command)?;
        let pid = posix_spawnp(&program, &files, &attributes, &arguments, &environment)?;
        Ok(Self { pid, ended: None })
    }

    /// As [`Process::start`], and tells it `text` by its standard input, which it is to read at once.
    ///
    /// # Errors
    /// As for [`Process::start`]; also where it does not listen.
    pub fn start_told(command: &Command, streams: Streams<'_>, text: &str) -> io::Result<Self> {
        let (read, mut write) = io::pipe()?;
        let streams = Streams {
            input: Some(read.as_fd()),
            ..streams
        };
        let process = Self::start(command, streams)?;
        drop(read);
        if let Err(e) = write.write_all(text.as_bytes()) {
            process.kill();
            return Err(e);
        }
        Ok(process)
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => Some(ExitStatus::from_raw((code & 0xff) << 8)),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(ExitStatus::from_raw(signal as i32)),
                // Somebody else collected it: there is no such child any more, and nobody knows how it ended.
                Err(Errno::ECHILD) => Some(ExitStatus::from_raw(UNKNOWN << 8)),
                _ => None,
            };
        }
        self.ended
    }

    /// Sends a signal to it alone, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            // It is not collected yet, so the number is still its own.
            let _ = kill(self.pid, signal);
        }
    }

    /// Sends a signal to its whole process group. Of a group that has ended nothing is left to get it.
    pub fn signal_group(&self, signal: Signal) {
        let _ = killpg(self.pid, signal);
    }

    /// Ends it and its group at once.
    pub fn kill(&self) {
        self.signal_group(Signal::SIGKILL);
        self.signal(Signal::SIGKILL);
    }
}

/// Collects children that this process did not start but was given, when their parents ended; none of
/// `own`, whose ends somebody asks for.
pub fn collect_adopted(own: &[u32]) {
    for _ in 0..ADOPTED_AT_ONCE {
        let any = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let ended = waitid(Id::All, any).ok().and_then(|status| status.pid());
        let Some(pid) = ended.filter(|pid| !own.contains(&pid.as_raw().unsigned_abs())) else {
            return;
        };
        let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
    }
}

/// This process's environment with what `command` changes in it.
fn environment(command: &Command) -> io::Result<Vec<CString>> {
    let mut variables: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => variables.insert(name.to_owned(), value.to_owned()),
            None => variables.remove(name),
        };
    }
    variables
        .into_iter()
        .map(|(mut variable, value)| {
            variable.push("=");
            variable.push(value);
            text(&variable)
        })
        .collect()
}

fn text(word: &OsStr) -> io::Result<CString> {
    Ok(CString::new(word.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::{Duration, Instant};

    use super::*;

    fn said(command: &Command) -> String {
        let (mut read, write) = io::pipe().expect("a pipe");
        let streams = Streams {
            output: Some(write.as_fd()),
            errors: Some(write.as_fd()),
            ..Streams::default()
        };
        let mut process = Process::start(command, streams).expect("it starts");
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).expect("text");
        end(&mut process);
        text
    }

    fn end(process: &mut Process) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(60);
        while process.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        process.ended().expect("an end")
    }

    #[test]
    fn a_child_begins_with_no_signal_blocked_or_ignored_and_leads_its_group() {
        let blocked = SigSet::all();
        blocked.thread_block().expect("all signals blocked");
        let mut command = Command::new("cat");
        command.arg("/proc/self/status").arg("/proc/self/stat");
        let text = said(&command);
        SigSet::all().thread_unblock().expect("and unblocked");
        for mask in ["SigBlk", "SigIgn"] {
            let line = text.lines().find(|line| line.starts_with(mask));
            let bits = line.and_then(|line| line.split_whitespace().last());
            let bits = bits.and_then(|bits| u64::from_str_radix(bits, 16).ok());
            // From 32 on the C library and an emulator keep some to themselves.
            assert_eq!(bits.map(|bits| bits & 0x7fff_ffff), Some(0), "{text}");
        }
        let stat = text.lines().last().and_then(|line| line.split_once(") "));
        let (pid, rest) = stat.expect("a line of numbers");
        let pid = pid.split(' ').next();
        // State, parent, process group.
        assert_eq!(rest.split(' ').nth(2), pid, "{text}");
    }

    #[test]
    fn a_child_has_the_environment_and_the_end_that_it_was_given() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo ${EDGEREPL_TEST-unset} ${HOME-unset}; exit 3"])
            .env("EDGEREPL_TEST", "a value")
            .env_remove("HOME");
        assert_eq!(said(&command), "a value unset\n");
        let mut process = Process::start(&command, Streams::default()).expect("it starts");
        assert_eq!(end(&mut process).code(), Some(3));
        // Where `vfork` is emulated as `fork`, the child cannot tell its parent and ends with 127.
        match Process::start(&Command::new("/nowhere/at/all"), Streams::default()) {
            Err(missing) => assert_eq!(missing.kind(), io::ErrorKind::NotFound),
            Ok(mut process) => assert_eq!(end(&mut process).code(), Some(127)),
        }
    }
}
