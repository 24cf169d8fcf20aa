//! What the kernel tells of a process from the outside.
//!
//! Owns how that is read. Nothing here wakes the process, or takes a signal or a breakpoint to it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// A process that runs.
pub(super) struct Process(PathBuf);

impl Process {
    pub(super) fn new(id: u32) -> Self {
        Self(PathBuf::from(format!("/proc/{id}")))
    }

    /// Its share of the memory that it uses, in KiB.
    pub(super) fn pss(&self) -> io::Result<u64> {
        number(&self.0.join("smaps_rollup"), "Pss:")
    }

    /// Of that what it has written to, and nobody shares.
    pub(super) fn private_dirty(&self) -> io::Result<u64> {
        number(&self.0.join("smaps_rollup"), "Private_Dirty:")
    }

    /// How many descriptors are open.
    pub(super) fn descriptors(&self) -> io::Result<u64> {
        Ok(fs::read_dir(self.0.join("fd"))?.count() as u64)
    }

    /// How often one of its threads has begun to wait, and so was woken up, since it started.
    pub(super) fn wake_ups(&self) -> io::Result<u64> {
        self.sum_of_threads(|thread| number(&thread.join("status"), "voluntary_ctxt_switches:"))
    }

    /// What its threads have had of the processors.
    pub(super) fn processor_time(&self) -> io::Result<Duration> {
        let nanoseconds = self.sum_of_threads(|thread| {
            let text = fs::read_to_string(thread.join("schedstat"))?;
            let first = text.split(' ').next().and_then(|word| word.parse().ok());
            first.ok_or_else(|| no_number(thread, "schedstat"))
        })?;
        Ok(Duration::from_nanos(nanoseconds))
    }

    fn sum_of_threads(&self, of: impl Fn(&Path) -> io::Result<u64>) -> io::Result<u64> {
        let threads = fs::read_dir(self.0.join("task"))?;
        threads.map(|thread| of(&thread?.path())).sum()
    }
}

/// The starts of a program, by whomever.
pub(super) struct Starts(Inotify);

impl Starts {
    /// Those from now on.
    pub(super) fn of(program: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // The kernel opens a program to start it, and makes one event of two that are alike: so it tells
        // of the ends, too.
        let events = AddWatchFlags::IN_OPEN | AddWatchFlags::IN_CLOSE_NOWRITE;
        inotify.add_watch(program, events)?;
        Ok(Self(inotify))
    }

    /// How many there were since the last question; of two at one moment one.
    pub(super) fn count(&self) -> io::Result<u64> {
        let mut count = 0;
        loop {
            match self.0.read_events() {
                Ok(events) => {
                    let is_start = |mask: AddWatchFlags| mask.contains(AddWatchFlags::IN_OPEN);
                    count += events.iter().filter(|event| is_start(event.mask)).count() as u64;
                }
                Err(nix::errno::Errno::EAGAIN) => return Ok(count),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// The number in the line of a `/proc` file that begins with `name`.
fn number(file: &Path, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .ok_or_else(|| no_number(file, name))
}

fn no_number(file: &Path, name: &str) -> io::Error {
    io::Error::other(format!("{} has no number of {name}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn tells_of_this_process_and_of_the_starts_of_a_program() {
        let this = Process::new(std::process::id());
        assert!(this.pss().expect("memory") > this.private_dirty().expect("memory"));
        assert!(this.descriptors().expect("descriptors") > 2);
        let before = this.wake_ups().expect("switches");
        std::thread::sleep(Duration::from_millis(5));
        assert!(this.wake_ups().expect("switches") > before);
        assert!(this.processor_time().expect("a time") > Duration::ZERO);

        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("true");
        fs::copy("/bin/true", &program).expect("a program");
        let starts = Starts::of(&program).expect("inotify");
        for _ in 0..3 {
            let status = Command::new(&program).status();
            assert!(status.expect("it starts").success());
        }
        assert_eq!(starts.count().expect("events"), 3);
        assert_eq!(starts.count().expect("events"), 0);
    }
}
