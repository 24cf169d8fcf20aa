//! What a process is given besides its arguments and its environment: signals, alarms, limits, the
//! umask, the working folder, open files.
//!
//! Owns the clean beginning of each command, whatever the parent forgot to tidy up. What an operator
//! chooses stays: hard limits, a stricter umask, priority, and a terminal's hang-up that is ignored.
//! Files that the parent left open stay so here, for one may be a lock on the parent's behalf; no child
//! gets them.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{alarm, chdir};

/// What soft limits are at least, where the hard ones allow it: those that end a process, or cripple it.
const LIMITS: [(Resource, rlim_t); 7] = [
    (Resource::RLIMIT_NOFILE, 1024),
    (Resource::RLIMIT_STACK, 8 << 20),
    (Resource::RLIMIT_AS, RLIM_INFINITY),
    (Resource::RLIMIT_CPU, RLIM_INFINITY),
    (Resource::RLIMIT_DATA, RLIM_INFINITY),
    (Resource::RLIMIT_FSIZE, RLIM_INFINITY),
    (Resource::RLIMIT_NPROC, RLIM_INFINITY),
];

/// With fewer open files something of edgerepl or of Litestream fails sooner or later.
const LEAST_FILES: rlim_t = 128;

/// What a parent's timer of processor time sends, which no safe call stops, and what a file that grows
/// too large does: with it blocked the write fails instead. Each ends a process that does not know it.
const BLOCKED: [Signal; 3] = [Signal::SIGVTALRM, Signal::SIGPROF, Signal::SIGXFSZ];

/// Sets what a command needs. To be called once, before anything else is opened, made or started.
pub fn settle() {
    alarm::cancel();
    for (resource, enough) in LIMITS {
        raise(resource, enough);
    }
    // Nobody but the owner writes to what is made here, and the owner does.
    let given = umask(Mode::from_bits_truncate(0o077));
    umask((given | Mode::from_bits_truncate(0o022)) & !Mode::S_IRWXU);
    // It may be gone, and SQLite and others ask for it.
    if env::current_dir().is_err() {
        let _ = chdir("/");
    }
    heed_children();
    unblock_signals();
}

/// Descriptors that are open and no standard ones.
pub fn others() -> Vec<RawFd> {
    let open = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    open.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect()
}

/// The folder that a service manager names in `variable`; of several the first.
pub fn folder(variable: &str) -> Option<PathBuf> {
    let given = env::var_os(variable)?.into_vec();
    let first = given.split(|byte| *byte == b':').next()?;
    let folder = PathBuf::from(OsStr::from_bytes(first));
    folder.is_absolute().then_some(folder)
}

fn raise(resource: Resource, enough: rlim_t) {
    let Ok((soft, hard)) = getrlimit(resource) else {
        return;
    };
    let wanted = enough.min(hard);
    if soft < wanted
        && let Err(e) = setrlimit(resource, wanted, hard)
    {
        log::debug!("the soft limit {resource:?} stays at {soft}: {e}");
    }
    if resource == Resource::RLIMIT_NOFILE && hard < LEAST_FILES {
        log::warn!(
            "no more than {hard} files may be open at once, and {LEAST_FILES} are needed: raise \
             RLIMIT_NOFILE where edgerepl is started (LimitNOFILE= in a unit, ulimit -n in a script)"
        );
    }
}

/// Where SIGCHLD is ignored the kernel tells nobody that a child has ended, and how. Of a signal with a
/// handler an exec makes one with its default.
fn heed_children() {
    if !is_ignored(Signal::SIGCHLD) {
        return;
    }
    let again = || -> io::Result<()> {
        let handled = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(Signal::SIGCHLD as i32, handled)?;
        let mut arguments = env::args_os();
        let mut command = Command::new(env::current_exe()?);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        Err(command.args(arguments).exec())
    };
    // With the handler alone children are heeded, too; only some calls are interrupted.
    if let Err(e) = again() {
        log::debug!("SIGCHLD was ignored, and edgerepl can't begin anew: {e}");
    }
}

fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    ignored.is_some_and(|bits| bits >> (signal as i32 - 1) & 1 == 1)
}

/// What has arrived while it was blocked was for the parent, but for what asks for an end.
fn unblock_signals() {
    let mut stale = SigSet::all();
    for end in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        stale.remove(end);
    }
    if let Ok(pending) =
        SignalFd::with_flags(&stale, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
    {
        while let Ok(Some(_)) = pending.read_signal() {}
    }
    let blocked: SigSet = BLOCKED.into_iter().collect();
    let _ = blocked.thread_set_mask();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_told_from_one_that_is_not() {
        // Of which Rust's own runtime ignores the first.
        assert!(is_ignored(Signal::SIGPIPE));
        assert!(!is_ignored(Signal::SIGTERM));
    }

    #[test]
    fn open_files_are_seen_but_for_the_standard_ones() {
        use std::os::fd::AsRawFd;

        let file = fs::File::open("/dev/null").expect("a file");
        let others = others();
        assert!(others.contains(&file.as_raw_fd()), "{others:?}");
        assert!(others.iter().all(|number| *number > 2), "{others:?}");
    }
}
