//! How the parts of the world fare that fail by themselves.
//!
//! Owns which part is well, and for how long: most outages are short, and some last for days. Never says
//! what an outage does to whoever needs the part.

use edgerepl::agent::Event;

use super::{Coming, DAY, HOUR, MINUTE, SECOND, World};
use crate::chance::Chance;
use crate::faults::Fault;

/// The parts of the world that have weather.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Part {
    Network,
    Provider,
    Key,
    S3,
    Disk,
}

/// How each part fares.
#[derive(Debug)]
pub(super) struct Weather {
    pub(super) network: bool,
    pub(super) provider: Provider,
    pub(super) key: Key,
    pub(super) s3: bool,
    pub(super) disk: bool,
    /// The way to S3 leads over a mobile link: all goes well, and each byte is paid for.
    pub(super) is_metered: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Provider {
    Well,
    Failing,
    Throttling,
    Refusing,
    Hanging,
    /// Its clock is wrong, and so is each number that it or the fetch's process tells.
    Lying,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Key {
    Well,
    Failing,
    Hanging,
    /// Not even SIGKILL ends a process that waits for this bus.
    Stuck,
    WrongPin,
}

impl Part {
    pub(super) const ALL: [(Self, Fault); 5] = [
        (Self::Network, Fault::Network),
        (Self::Provider, Fault::Provider),
        (Self::Key, Fault::Key),
        (Self::S3, Fault::S3),
        (Self::Disk, Fault::Disk),
    ];
}

impl Weather {
    pub(super) const FINE: Self = Self {
        network: true,
        provider: Provider::Well,
        key: Key::Well,
        s3: true,
        disk: true,
        is_metered: false,
    };

    /// Nothing stands between the device and its replica.
    pub(super) fn is_fine(&self) -> bool {
        self.network
            && self.provider == Provider::Well
            && self.key == Key::Well
            && self.s3
            && self.disk
    }

    /// What is well fails, and what failed is well; whether it is.
    fn turn(&mut self, part: Part, chance: &mut Chance) -> bool {
        match part {
            Part::Network => toggle(&mut self.network),
            Part::S3 => toggle(&mut self.s3),
            Part::Disk => toggle(&mut self.disk),
            Part::Provider => {
                let faults = [
                    Provider::Failing,
                    Provider::Throttling,
                    Provider::Refusing,
                    Provider::Hanging,
                    Provider::Lying,
                ];
                self.provider = match self.provider {
                    Provider::Well => chance.pick(&faults),
                    _ => Provider::Well,
                };
                self.provider == Provider::Well
            }
            Part::Key => {
                let faults = [
                    Key::Failing,
                    Key::Failing,
                    Key::Failing,
                    Key::Hanging,
                    Key::Hanging,
                    Key::Stuck,
                    Key::WrongPin,
                ];
                self.key = match self.key {
                    Key::Well => chance.pick(&faults),
                    _ => Key::Well,
                };
                self.key == Key::Well
            }
        }
    }
}

fn toggle(well: &mut bool) -> bool {
    *well = !*well;
    *well
}

impl World {
    pub(super) fn change_weather(&mut self, part: Part) {
        self.carry_upload();
        let well = self.weather.turn(part, &mut self.chance);
        self.look_in();
        if part == Part::Network {
            let was_metered = self.weather.is_metered;
            self.weather.is_metered = well && self.chance.one_in(8);
            self.tell(Event::NetworkChanged);
            if well {
                self.tell(Event::NetworkBack);
            }
            if self.knows_line && was_metered != self.weather.is_metered {
                self.tell(Event::Metered(self.weather.is_metered));
            }
            if well && self.clock_is_behind() {
                let wait = self.chance.between(SECOND, MINUTE);
                self.expect(Coming::ClockMended, wait);
            }
        }
        self.expect_weather(part, well);
    }

    /// Well for minutes to months; then unwell for two hours at the most, as a rule.
    pub(super) fn expect_weather(&mut self, part: Part, well: bool) {
        let wait = if well {
            self.chance.scale(10 * MINUTE, 60 * DAY)
        } else if self.chance.one_in(20) {
            self.chance.scale(2 * HOUR, 2 * DAY)
        } else {
            self.chance.scale(SECOND / 10, 2 * HOUR)
        };
        self.expect(Coming::Weather(part), wait);
    }
}
