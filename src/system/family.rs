//! Processes by what the kernel says of them in `/proc`: whose children they are, in which group, what
//! they hold open.
//!
//! Owns the reading of `/proc`. A process that is invisible here (another user's, in a sandbox) is not
//! there. Sends no signal and waits for nobody.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::clock::BootTime;

/// No family tree is deeper; one that is read while it changes might have no end.
const DEEPEST: usize = 64;

/// A process, as it was at one look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seen {
    /// Its id.
    pub pid: u32,
    /// Who started it, or adopted it.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// It has ended, and nobody has collected it.
    pub is_zombie: bool,
    /// When it was started, in the kernel's ticks after the boot.
    pub started: u64,
}

impl Seen {
    /// The process of this id; nothing where there is none that can be seen.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in brackets, which may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        let mut number = || fields.next()?.parse().ok();
        let (parent, group) = (number()?, number()?);
        let started = fields.nth(16)?.parse().ok()?;
        Some(Self {
            pid,
            parent,
            group,
            is_zombie: matches!(state, "Z" | "X"),
            started,
        })
    }

    /// When it was started, on the clock of all deadlines, to the kernel's tick (10 ms).
    pub fn started_at(&self) -> Option<BootTime> {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten()?;
        let ticks = u64::try_from(ticks).ok().filter(|ticks| *ticks > 0)?;
        let (seconds, rest) = (self.started / ticks, self.started % ticks);
        let rest = Duration::from_millis(rest.saturating_mul(1000) / ticks);
        Some(BootTime::new(
            Duration::from_secs(seconds).saturating_add(rest),
        ))
    }
}

/// All processes that can be seen.
pub fn all() -> Vec<Seen> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Seen::of(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// The processes of these groups.
pub fn in_groups(groups: &[u32]) -> Vec<u32> {
    let all = all()
        .into_iter()
        .filter(|seen| groups.contains(&seen.group));
    all.map(|seen| seen.pid).collect()
}

/// Whether `pid` is `ancestor` or descends from it.
pub fn descends(pid: u32, ancestor: u32) -> bool {
    let mut next = Some(pid);
    for _ in 0..DEEPEST {
        match next {
            Some(pid) if pid == ancestor => return true,
            Some(pid) if pid > 1 => next = Seen::of(pid).map(|process| process.parent),
            _ => return false,
        }
    }
    false
}

/// Those of `processes` that live and belong to the family of `leader`: in its group, descended from it,
/// or adopted by `adopter`, which started all of `own` itself.
pub fn members(processes: &[Seen], leader: u32, adopter: u32, own: &[u32]) -> Vec<u32> {
    let belongs = |process: &Seen| {
        let mut ancestor = process;
        for _ in 0..DEEPEST {
            let is_adopted = ancestor.parent == adopter && !own.contains(&ancestor.pid);
            if ancestor.pid == leader || ancestor.group == leader || is_adopted {
                return true;
            }
            match processes.iter().find(|p| p.pid == ancestor.parent) {
                Some(parent) if parent.pid != adopter => ancestor = parent,
                _ => return false,
            }
        }
        false
    };
    let living = processes.iter().filter(|process| !process.is_zombie);
    living.filter(|p| belongs(p)).map(|p| p.pid).collect()
}

/// The other processes that hold this file open.
pub fn holders(file: &Metadata) -> Vec<u32> {
    let is_it = |fd: fs::DirEntry| {
        fs::metadata(fd.path()).is_ok_and(|m| m.ino() == file.ino() && m.dev() == file.dev())
    };
    let holds = |pid: u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        open.into_iter().flatten().flatten().any(is_it)
    };
    let others = all().into_iter().map(|process| process.pid);
    others
        .filter(|pid| *pid != std::process::id() && holds(*pid))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process_as_the_kernel_knows_it() {
        let me = Seen::of(std::process::id()).expect("it runs");
        assert_eq!(me.parent, std::os::unix::process::parent_id());
        assert!(!me.is_zombie);
        let started = me.started_at().expect("a time");
        let age = BootTime::now().since(started);
        assert!(age < Duration::from_secs(3600), "{age:?}");
        assert!(descends(me.pid, me.parent) && !descends(me.parent, me.pid));
        assert!(all().contains(&me));
        assert_eq!(Seen::of(u32::MAX), None);
    }

    #[test]
    fn a_family_is_a_group_its_descendants_and_whoever_was_adopted() {
        let process = |pid, parent, group| Seen {
            pid,
            parent,
            group,
            is_zombie: pid == 26,
            started: 0,
        };
        let processes = [
            process(10, 1, 10),
            // Another child of the same parent, and its own child.
            process(15, 10, 15),
            process(16, 15, 15),
            // The leader, one in its group, one that left it, and that one's child.
            process(20, 10, 20),
            process(21, 1, 20),
            process(22, 20, 22),
            process(23, 22, 23),
            // Adopted, and its child; one that has ended.
            process(24, 10, 24),
            process(25, 24, 25),
            process(26, 20, 20),
            process(30, 1, 30),
        ];
        let found = members(&processes, 20, 10, &[15, 20]);
        assert_eq!(found, [20, 21, 22, 23, 24, 25]);
        let without_its_leader: Vec<_> = processes.into_iter().filter(|p| p.pid != 20).collect();
        let found = members(&without_its_leader, 20, 10, &[15]);
        assert_eq!(found, [21, 24, 25], "an orphan's parent is another by then");
    }

    #[test]
    fn who_holds_a_file_is_seen() {
        let path = std::env::temp_dir().join(format!("edgerepl-held-{}", std::process::id()));
        let file = fs::File::create(&path).expect("a file");
        let metadata = file.metadata().expect("its metadata");
        assert_eq!(holders(&metadata), [0_u32; 0]);
        let mut sleeper = std::process::Command::new("sleep")
            .arg("60")
            .stdin(file)
            .spawn()
            .expect("it starts");
        assert_eq!(holders(&metadata), [sleeper.id()]);
        sleeper.kill().expect("killed");
        sleeper.wait().expect("ended");
        fs::remove_file(path).expect("removed");
    }
}
