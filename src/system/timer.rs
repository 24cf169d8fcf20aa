//! Time as something to read: one alarm on the boot clock, and word of each step of the wall clock.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::read;

use crate::clock::BootTime;

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
        let when = TimeSpec::from_duration(when.since_boot().max(Duration::from_nanos(1)));
        Ok(self.0.set(
            Expiration::OneShot(when),
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

    /// The timer is for a day that no device sees; what counts is that setting the clock cancels it.
    fn arm(&self) -> io::Result<()> {
        let never = TimeSpec::from_duration(Duration::from_secs(i32::MAX as u64 * 4));
        let flags =
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        Ok(self.0.set(Expiration::OneShot(never), flags)?)
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
