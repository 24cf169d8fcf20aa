//! The device: its power, its two clocks, its sleep.
//!
//! Owns what the kernel would tell of time, and what is left after a power cut: what is on the disk.

use edgerepl::agent::{Event, Now};
use edgerepl::clock::{BootTime, WallTime};

use super::{Coming, DAY, HOUR, MINUTE, SECOND, Time, World};
use crate::coverage::Happening;
use crate::faults::Fault;

/// The day on which each world begins, in 2026.
pub(super) const BEGAN: i64 = 1_795_000_000;

pub(super) struct Device {
    pub(super) booted: Time,
    pub(super) awake_at: Time,
    /// What the wall clock shows too much, in seconds.
    pub(super) wall_offset: i64,
}

impl World {
    /// Power comes (back).
    pub(super) fn boot(&mut self) {
        self.device.booted = self.time;
        for database in &mut self.databases {
            database.remembered = None;
            database.seam = None;
            // A device without a place for it has it on tmpfs, too.
            database.begins_anew &= self.keeps_state;
            database.is_unrestorable &= self.keeps_state;
            database.differs &= self.keeps_state;
        }
        self.litestream.process = self.new_process();
        self.litestream.up = false;
        let is_lost = self.faults.has(Fault::LostDisks) && self.chance.one_in(5);
        if is_lost {
            self.coverage.happened(Happening::LostDisk);
        }
        let corrupts = self.faults.has(Fault::Corruption);
        for database in &mut self.databases {
            if is_lost {
                database.lose();
            }
            // The application was there first.
            if self.chance.one_in(8) {
                let is_shorter = self.chance.one_in(2);
                database.reset_wal(is_shorter, false);
            }
            database.corrupt |= corrupts && self.chance.one_in(4);
        }
        if self.faults.has(Fault::NoClock) && self.chance.one_in(2) {
            self.device.wall_offset = -self.true_wall().unix();
            let wait = self.chance.between(SECOND, 5 * MINUTE);
            self.expect(Coming::ClockMended, wait);
        }
        self.start_daemon();
    }

    pub(super) fn cut_power(&mut self) {
        self.coverage.happened(Happening::PowerCut);
        self.stop_daemon();
        self.boot();
        self.expect_sometime(Coming::PowerCut, HOUR, 60 * DAY);
    }

    pub(super) fn sleep(&mut self) {
        self.coverage.happened(Happening::Sleep);
        self.device.awake_at = self.time + self.chance.scale(SECOND, 2 * DAY);
        for laws in &mut self.laws {
            laws.sleeps_until(self.device.awake_at);
        }
        self.expect_sometime(Coming::Sleep, HOUR, 60 * DAY);
    }

    pub(super) fn step_clock(&mut self) {
        self.coverage.happened(Happening::ClockStep);
        let years = self.chance.pick(&[-50, -1, 0, 0, 1, 50]);
        let seconds = self.chance.below(7200) as i64 - 3600;
        self.set_clock(years * 365 * 86_400 + seconds);
        // Time synchronisation puts it right before long, as a rule.
        let wrong = if self.chance.one_in(20) {
            self.chance.scale(6 * HOUR, 20 * DAY)
        } else {
            self.chance.scale(SECOND, 6 * HOUR)
        };
        self.expect(Coming::ClockMended, wrong);
        self.expect_sometime(Coming::ClockStep, MINUTE, 30 * DAY);
    }

    pub(super) fn set_clock(&mut self, offset: i64) {
        let was = std::mem::replace(&mut self.device.wall_offset, offset);
        self.litestream_sees_clock(was, offset);
        self.tell(Event::ClockStepped);
    }

    /// Certificates of this year are not valid yet, for a device that lives in an earlier one.
    pub(super) fn clock_is_behind(&self) -> bool {
        self.device.wall_offset < -86_400
    }

    pub(super) fn now(&self) -> Now {
        let wall = self.true_wall().unix();
        Now {
            boot: BootTime::new(self.time - self.device.booted),
            wall: WallTime::from_unix(wall.saturating_add(self.device.wall_offset)),
        }
    }

    pub(super) fn true_wall(&self) -> WallTime {
        WallTime::from_unix(BEGAN + self.time.as_secs() as i64)
    }
}
