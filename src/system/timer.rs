//! Time as something to read: one alarm on the boot clock, and word of each step of the wall clock.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::read;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::clock::BootTime;

/// The one timer that all deadlines share. Runs on while the device sleeps.
#[derive(Debug)]
pub struct Alarm(OwnedFd);

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    /// Where the kernel has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(timer(TimerfdClockId::Boottime)?))
    }

    /// Sets it; what it was set to before is forgotten. A time that is past rings at once.
    ///
    /// # Errors
    /// Where the kernel refuses a time, which it does not.
    pub fn set(&self, when: BootTime) -> io::Result<()> {
        let when = match when {
            // A time of zero disarms the timer.
            BootTime::NEVER => Duration::ZERO,
            when => when.since_boot().max(Duration::from_nanos(1)),
        };
        arm(&self.0, when, TimerfdTimerFlags::ABSTIME)
    }

    /// Takes note that it rang.
    pub fn drain(&self) {
        let _ = read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Notices that somebody set the wall clock.
#[derive(Debug)]
pub struct ClockWatch(OwnedFd);

impl ClockWatch {
    /// A watch over `CLOCK_REALTIME`.
    ///
    /// # Errors
    /// Where the kernel has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let watch = Self(timer(TimerfdClockId::Realtime)?);
        watch.arm()?;
        Ok(watch)
    }

    /// Whether the clock was set since the last call.
    pub fn drain(&self) -> bool {
        let stepped = read(&self.0, &mut [0; 8]) == Err(Errno::ECANCELED);
        stepped && self.arm().is_ok()
    }

    /// The timer is for a day that no device sees; what counts is that setting the clock cancels it.
    fn arm(&self) -> io::Result<()> {
        const NEVER: Duration = Duration::from_secs(1 << 33);
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        arm(&self.0, NEVER, flags)
    }
}

impl AsFd for ClockWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn timer(clock: TimerfdClockId) -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    Ok(timerfd_create(clock, flags)?)
}

/// Sets a timer for one time.
fn arm(timer: &OwnedFd, when: Duration, flags: TimerfdTimerFlags) -> io::Result<()> {
    let setting = Itimerspec {
        it_interval: Timespec::default(),
        it_value: when.try_into().map_err(io::Error::other)?,
    };
    timerfd_settime(timer, flags, &setting)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn rings(alarm: &Alarm) -> bool {
        let mut waits = [PollFd::new(alarm.as_fd(), PollFlags::POLLIN)];
        poll(&mut waits, PollTimeout::from(20_u8)) == Ok(1)
    }

    #[test]
    fn rings_when_it_is_time_and_not_before() {
        let alarm = Alarm::new().expect("an alarm");
        assert!(!rings(&alarm));
        alarm.set(BootTime::now()).expect("a time that is past");
        assert!(rings(&alarm));
        // Not even where the seconds need more than 32 bits, whose lower half is past.
        let far = BootTime::new(Duration::from_secs((1 << 32) + 1));
        alarm.set(far).expect("a time that is far");
        assert!(!rings(&alarm));
        alarm.set(BootTime::NEVER).expect("no time");
        assert!(!rings(&alarm));
    }

    #[test]
    fn a_clock_that_nobody_sets_was_not_set() {
        let watch = ClockWatch::new().expect("a watch");
        assert!(!watch.drain());
    }
}
