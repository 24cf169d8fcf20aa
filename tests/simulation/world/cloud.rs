//! AWS's side of a fetch and of a look, with the key on the way to it.
//!
//! Owns how a fetch or a look ends, in each weather, and the credentials that came of it. Never decides
//! when either begins.

use std::time::Duration;

use edgerepl::agent::{Event, Lease};
use edgerepl::clock::WallTime;
use edgerepl::credentials::{FailureClass, FetchFailure};

use super::device::BEGAN;
use super::weather::{Key, Provider};
use super::{Coming, DAY, HOUR, MINUTE, SECOND, Time, World, id};

/// What the device has of AWS.
pub(super) struct Cloud {
    /// The fetch in flight, and whether it was killed.
    pub(super) fetch: Option<u64>,
    fetch_is_killed: bool,
    lifetime: Duration,
    phase: u16,
    /// When the credentials that the reactor holds end.
    pub(super) granted_until: Time,
    /// The last grant had a wrong date.
    pub(super) clock_is_doubted: bool,
}

impl Cloud {
    pub(super) fn new(lifetime: Duration, phase: u16) -> Self {
        Self {
            fetch: None,
            fetch_is_killed: false,
            lifetime,
            phase,
            granted_until: Duration::ZERO,
            clock_is_doubted: false,
        }
    }

    /// The daemon is gone, with all that it had asked for.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.lifetime, self.phase);
    }

    fn grant(&mut self, lifetime: Duration, server_time: WallTime, time: Time) -> Lease {
        self.granted_until = time + lifetime;
        Lease {
            lifetime,
            server_time: Some(server_time),
            phase: self.phase,
        }
    }
}

impl World {
    pub(super) fn start_fetch(&mut self) {
        let process = self.new_process();
        self.cloud.fetch = Some(process);
        self.cloud.fetch_is_killed = false;
        let hangs = matches!(self.weather.key, Key::Hanging | Key::Stuck)
            || self.weather.provider == Provider::Hanging;
        if !hangs {
            let wait = self.chance.scale(SECOND / 50, 25 * SECOND);
            self.expect(Coming::FetchEnds(process), wait);
        }
    }

    pub(super) fn kill_fetch(&mut self) {
        if let Some(process) = self.cloud.fetch
            && self.weather.key != Key::Stuck
        {
            self.cloud.fetch_is_killed = true;
            self.expect(Coming::FetchEnds(process), Duration::from_millis(10));
        }
    }

    pub(super) fn end_fetch(&mut self) {
        self.cloud.fetch = None;
        let outcome = self.outcome_of_fetch();
        self.tell(Event::Fetched(outcome));
    }

    fn outcome_of_fetch(&mut self) -> Result<Lease, FetchFailure> {
        let failure = |class, retry_after| {
            Err(FetchFailure {
                class,
                message: format!("{class:?}"),
                retry_after,
            })
        };
        let time = self.time;
        match (self.weather.key, self.weather.provider) {
            _ if self.cloud.fetch_is_killed => failure(FailureClass::Key, None),
            (Key::WrongPin, _) => failure(FailureClass::WrongPin, None),
            (Key::Failing | Key::Hanging | Key::Stuck, _) => failure(FailureClass::Key, None),
            _ if !self.weather.network => failure(FailureClass::Transient, None),
            _ if self.clock_is_behind() && self.chance.one_in(2) => {
                failure(FailureClass::ClockNotSet, None)
            }
            (_, Provider::Failing | Provider::Hanging) => failure(FailureClass::Transient, None),
            (_, Provider::Throttling) => {
                let wait = self.chance.scale(SECOND, 15 * MINUTE);
                failure(FailureClass::Transient, Some(wait))
            }
            (_, Provider::Refusing) => failure(FailureClass::Refused, None),
            (_, Provider::Lying) if self.chance.one_in(2) => {
                let waits = [Duration::ZERO, 15 * MINUTE, Duration::MAX];
                failure(FailureClass::Transient, Some(self.chance.pick(&waits)))
            }
            (_, Provider::Lying) => {
                let lifetime = self.chance.pick(&[SECOND, MINUTE, HOUR, 13 * HOUR]);
                let times = [i64::MIN, 0, BEGAN - 200_000_000, 2 * BEGAN, i64::MAX];
                let told = WallTime::from_unix(self.chance.pick(&times));
                self.cloud.clock_is_doubted = true;
                Ok(self.cloud.grant(lifetime, told, time))
            }
            (_, Provider::Well) => {
                let told = self.true_wall();
                self.cloud.clock_is_doubted = false;
                Ok(self.cloud.grant(self.cloud.lifetime, told, time))
            }
        }
    }

    pub(super) fn start_look(&mut self, number: usize) {
        let process = self.new_process();
        self.databases[number].look = Some(process);
        if !self.chance.one_in(20) {
            let wait = self.chance.scale(SECOND / 10, MINUTE);
            self.expect(Coming::LookEnds(process), wait);
        }
    }

    /// Where a replica is found, somebody restores it sooner or later.
    pub(super) fn end_look(&mut self, process: u64) {
        let Some(number) = self.number_of(|database| &mut database.look, process) else {
            return;
        };
        let asked = self.weather.s3 && self.weather.network;
        let is_there = !self.databases[number].replica.is_empty();
        if asked && is_there {
            self.expect_sometime(Coming::Restored(number), MINUTE, 2 * DAY);
        }
        let found = asked.then_some(is_there);
        let found = found.ok_or("S3 is away".to_owned());
        self.tell(Event::Looked(id(number), found));
    }
}
