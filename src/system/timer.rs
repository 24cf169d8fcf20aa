//! Time as something to read: one alarm on the boot clock, and word of each step of the wall clock.
//!
//! On armv7 the C library counts seconds here in 32 bits. Only the boot clock, which needs decades
//! for those, is ever set to anything; the wall clock's watch is for no time at all.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::read;

use crate::clock::BootTime;

/// As far as 32 bits go. An alarm for later rings then, and is set anew.
const FARTHEST: Duration = Duration::from_secs(i32::MAX as u64);

/// The one timer that all deadlines share. Runs on while the device sleeps.
#[derive(Debug)]
pub struct Alarm(TimerFd);

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    /// Where the kernel has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(timer(ClockId::CLOCK_BOOTTIME)?))
    }

    /// Sets it; what it was set to before is forgotten. A time that is past rings at once.
    ///
    /// # Errors
    /// Where the kernel refuses a time, which it does not.
    pub fn set(&self, when: BootTime) -> io::Result<()> {
        if when == BootTime::NEVER {
            return Ok(self.0.unset()?);
        }
        // A time of zero would disarm the timer.
        let when = when.since_boot().clamp(Duration::from_nanos(1), FARTHEST);
        Ok(self.0.set(
            Expiration::OneShot(TimeSpec::from_duration(when)),
            TimerSetTimeFlags::TFD_TIMER_ABSTIME,
        )?)
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
pub struct ClockWatch(TimerFd);

impl ClockWatch {
    /// A watch over `CLOCK_REALTIME`.
    ///
    /// # Errors
    /// Where the kernel has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let watch = Self(timer(ClockId::CLOCK_REALTIME)?);
        watch.arm()?;
        Ok(watch)
    }

    /// Whether the clock was set since the last call.
    pub fn drain(&self) -> bool {
        let stepped = read(&self.0, &mut [0; 8]) == Err(Errno::ECANCELED);
        stepped && self.arm().is_ok()
    }

    /// A timer that is not running can be cancelled too, by whoever sets the clock.
    fn arm(&self) -> io::Result<()> {
        let flags =
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        Ok(self.0.set(Expiration::OneShot(TimeSpec::zero()), flags)?)
    }
}

impl AsFd for ClockWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn timer(clock: ClockId) -> io::Result<TimerFd> {
    Ok(TimerFd::new(
        clock,
        TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
    )?)
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
