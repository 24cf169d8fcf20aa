//! When to fetch credentials: before they expire, and after a failure at a pace that fits its class.
//!
//! Owns the lease in force, the fetch in flight, and the limit on fetches. Never deals with Litestream.
//! Until the daemon ends, a fetch is always in flight or due.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backoff::{Backoff, Jitter};
use super::{Action, Actions, Lease, Now, Policy};
use crate::clock::BootTime;
use crate::credentials::{FailureClass, FetchFailure, LONGEST_WAIT};

/// A fetch that takes longer is killed. The child's own limit on the network is 20 s; the rest is for a
/// slow secure element.
pub(super) const FETCH_LIMIT: Duration = Duration::from_secs(30);

/// A killed child that exists after this is stuck in the kernel, and is abandoned.
const DEATH_LIMIT: Duration = Duration::from_secs(5);

/// The least time between two fetches, whatever lifetimes or events ask for.
const LEAST_INTERVAL: Duration = Duration::from_secs(5);

/// Reloads bring at most one fetch forward in this time: a loop of reloads repairs nothing.
const RELOAD_PACE: Duration = Duration::from_secs(60);

/// If S3 says that the session has expired, the next fetch is at least this long after the last one.
const EARLY_PACE: Duration = Duration::from_secs(60);

/// What a fetch after a failure, or one that was brought forward, takes from the allowance, and the
/// full allowance: at most 110 fetches in an hour, and one per 45 s in the long run. A fetch because a
/// lease expires is free: it can't wait, and comes at most six times in an hour with AWS's shortest
/// lease.
const COST: Duration = Duration::from_secs(45);
const ALLOWANCE: Duration = Duration::from_secs(30 * COST.as_secs());

/// The network or the server: quick at first, because most outages are short.
const TRANSIENT: Backoff = Backoff {
    first: Duration::from_secs(2),
    longest: Duration::from_secs(300),
    least: Duration::from_secs(1),
};

/// The key: each retry opens the module anew, and finds a token that is back within two minutes.
const KEY: Backoff = Backoff {
    first: Duration::from_secs(2),
    longest: Duration::from_secs(120),
    least: Duration::from_secs(1),
};

/// Refused: somebody has to change something, and more retries do not help.
const REFUSED: Backoff = Backoff {
    first: Duration::from_secs(60),
    longest: Duration::from_secs(900),
    least: Duration::from_secs(30),
};

/// A refused PIN: the fetch checks whether the PIN's file changed, and does not use the token before.
const WRONG_PIN: Backoff = Backoff {
    first: Duration::from_secs(15),
    longest: Duration::from_secs(120),
    least: Duration::from_secs(10),
};

/// The clock is not set: time synchronization needs seconds once there is a network. After this many
/// retries in vain the bound doubles; a clock that is set brings the fetch forward anyway.
const CLOCK_NOT_SET: Backoff = Backoff {
    first: Duration::from_secs(10),
    longest: Duration::from_secs(90),
    least: Duration::from_secs(5),
};
const LOOKS_AT_ONE_PACE: u32 = 8;

/// The age at which a lease of `lifetime` is renewed.
///
/// `renew_before` its end, but not before two thirds of it, so that a short lifetime causes no storm,
/// and not after nineteen twentieths, so that a long one leaves time for an outage. Less up to a tenth
/// by `phase`, so that a fleet that booted together spreads out.
pub(super) fn renewal_age(lifetime: Duration, renew_before: Duration, phase: u16) -> Duration {
    let due = lifetime.saturating_sub(renew_before);
    let due = due.clamp(lifetime * 2 / 3, lifetime * 19 / 20);
    let spread = lifetime / 10;
    due.saturating_sub(spread * u32::from(phase) / u32::from(u16::MAX))
        .max(LEAST_INTERVAL)
}

/// A thing's place in its fleet: the same at each boot, and evenly distributed over all names (FNV-1a,
/// folded).
pub(crate) fn phase(thing_name: &str) -> u16 {
    let hash = thing_name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (hash >> 16) as u16 ^ hash as u16
}

/// How long an AWS SDK may use credentials that are valid for `left` and renewed in `renewal_in` (zero
/// if that is late) before it asks again. An SDK asks only when this time is over, so it ends when the
/// next credentials should be there.
///
/// If they are not, the time is short, then shorter: each request starts a process.
pub fn told_term(left: Duration, renewal_in: Duration) -> Duration {
    let spare = left.saturating_sub(renewal_in);
    let told = renewal_in + (spare / 4).min(SPARE);
    told.max(LEAST_TOLD).min(left)
}

/// The longest time that a due fetch takes without a failure.
const SPARE: Duration = Duration::from_secs(30);

/// The least time between two requests of an SDK.
const LEAST_TOLD: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Renewal {
    state: State,
    last_attempt: Option<BootTime>,
    in_force: Option<Term>,
    failure: Option<FetchFailure>,
    in_a_row: u32,
    /// Failed attempts while the clock is not set.
    looks: u32,
    /// When the allowance is full again, and whether the next fetch is free.
    full_at: BootTime,
    free: bool,
    /// When the fetch was due that a reload last brought forward.
    hastened: Option<BootTime>,
    pub(super) fetch_time: Option<Duration>,
    pub(super) granted: u64,
    pub(super) failures: BTreeMap<FailureClass, u64>,
}

/// The begin and the end of a lease on the boot clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Term {
    pub(super) begins: BootTime,
    pub(super) ends: BootTime,
}

#[derive(Debug)]
enum State {
    /// Due at that time.
    Due(BootTime),
    /// Sent at `since`, and late from `deadline` on.
    InFlight { since: BootTime, deadline: BootTime },
    /// Killed; stuck in the kernel if it exists at `deadline`.
    Dying { deadline: BootTime },
    /// The daemon ends.
    Stopped,
}

impl Renewal {
    /// The first fetch is due at once.
    pub(super) fn new(now: BootTime) -> Self {
        Self {
            state: State::Due(now),
            last_attempt: None,
            in_force: None,
            failure: None,
            in_a_row: 0,
            looks: 0,
            full_at: now,
            free: true,
            hastened: None,
            fetch_time: None,
            granted: 0,
            failures: BTreeMap::new(),
        }
    }

    pub(super) fn advance(&mut self, now: BootTime, out: &mut Actions) {
        match self.state {
            State::Due(due) if due <= now => {
                self.state = State::InFlight {
                    since: now,
                    deadline: now + FETCH_LIMIT,
                };
                self.last_attempt = Some(now);
                if !self.free {
                    self.full_at = self.full_at.max(now) + COST;
                }
                out.push(Action::Fetch);
            }
            State::InFlight { deadline, .. } if deadline <= now => {
                self.state = State::Dying {
                    deadline: now + DEATH_LIMIT,
                };
                out.push(Action::KillFetch);
            }
            State::Dying { deadline } if deadline <= now => {
                out.push(Action::AbandonFetch);
                let failure = FetchFailure {
                    class: FailureClass::Key,
                    message: "the fetch child is stuck in the kernel and can't be killed; \
                              check the bus of the secure element"
                        .to_owned(),
                    retry_after: None,
                };
                self.count(failure, KEY.longest, now, out);
            }
            _ => {}
        }
    }

    pub(super) fn deadline(&self) -> BootTime {
        match self.state {
            State::Due(at)
            | State::InFlight { deadline: at, .. }
            | State::Dying { deadline: at } => at,
            State::Stopped => BootTime::NEVER,
        }
    }

    /// Accepts a lease and returns its term; `None` if there was no request.
    pub(super) fn granted(
        &mut self,
        lease: &Lease,
        policy: &Policy,
        now: Now,
        out: &mut Actions,
    ) -> Option<Term> {
        // Counted from the request: the answer's delay must not lengthen the lease.
        let begins = match self.state {
            State::InFlight { since, .. } => since,
            State::Dying { .. } => self.last_attempt.unwrap_or(now.boot),
            State::Due(_) | State::Stopped => return None,
        };
        let term = Term {
            begins,
            ends: begins + lease.lifetime,
        };
        let age = renewal_age(lease.lifetime, policy.renew_before, lease.phase);
        self.state = State::Due((begins + age).max(begins + LEAST_INTERVAL));
        self.free = true;
        self.in_force = Some(term);
        self.fetch_time = Some(now.boot.since(begins));
        self.granted += 1;
        (self.in_a_row, self.looks) = (0, 0);
        self.failure = None;
        let (lifetime, next) = (lease.lifetime.as_secs(), age.as_secs());
        out.info(format!(
            "credentials are valid for {lifetime} s; the next renewal is in {next} s"
        ));
        Some(term)
    }

    /// Accepts a failure, and waits as its class requires.
    pub(super) fn failed(
        &mut self,
        failure: FetchFailure,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Actions,
    ) {
        if !matches!(self.state, State::InFlight { .. } | State::Dying { .. }) {
            return;
        }
        let mut in_a_row = self.in_a_row.saturating_add(1);
        let backoff = match failure.class {
            FailureClass::Transient => TRANSIENT,
            FailureClass::Key => KEY,
            FailureClass::Refused => REFUSED,
            FailureClass::ClockNotSet => {
                in_a_row = 1 + self.looks / LOOKS_AT_ONE_PACE;
                self.looks = self.looks.saturating_add(1);
                CLOCK_NOT_SET
            }
            FailureClass::WrongPin => WRONG_PIN,
        };
        let asked = failure.retry_after.unwrap_or_default();
        let wait = backoff
            .wait(in_a_row, jitter)
            .max(self.honoured(asked, now));
        self.count(failure, wait, now, out);
    }

    /// How much of a provider's requested wait is honoured: at most half of the time that the
    /// credentials are still valid, so that a long wait alone never ends replication.
    fn honoured(&self, asked: Duration, now: BootTime) -> Duration {
        let left = self.in_force.map(|term| term.ends.since(now));
        let most = left.filter(|left| !left.is_zero()).map(|left| left / 2);
        asked.min(LONGEST_WAIT).min(most.unwrap_or(LONGEST_WAIT))
    }

    fn count(&mut self, failure: FetchFailure, wait: Duration, now: BootTime, out: &mut Actions) {
        *self.failures.entry(failure.class).or_default() += 1;
        let message = &failure.message;
        let due = (now + wait).max(self.allowed());
        self.state = State::Due(due);
        self.free = false;
        let said_before = self.failure.as_ref().is_some_and(|f| f.message == *message);
        // Logged once: this state can last for months, and `status` shows it.
        if !said_before {
            let wait = due.since(now).as_secs_f32();
            out.warn(format!(
                "no credentials; retrying in {wait:.1} s: {message}"
            ));
        }
        // A clock that is not set is no failure of the device.
        if failure.class != FailureClass::ClockNotSet {
            self.in_a_row = self.in_a_row.saturating_add(1);
        }
        self.failure = Some(failure);
    }

    /// A network outage may be over.
    pub(super) fn network_changed(&mut self, jitter: &mut Jitter, now: BootTime) {
        self.looks = 0;
        let waits_for_it = self.failure.as_ref().is_some_and(|f| {
            matches!(f.class, FailureClass::Transient | FailureClass::ClockNotSet)
                && f.retry_after.is_none()
        });
        if waits_for_it {
            // The jitter is for a site that comes back all at once; the growing pause is for a network
            // that flaps.
            let soon = now + jitter.between(Duration::ZERO, Duration::from_secs(1));
            self.bring_forward(soon, LEAST_INTERVAL * self.in_a_row.clamp(1, 12));
        }
    }

    /// A certificate that was not valid may be valid now.
    pub(super) fn clock_stepped(&mut self, now: BootTime) {
        let waits_for_it = self.failure.as_ref().is_some_and(|f| {
            matches!(f.class, FailureClass::Transient | FailureClass::ClockNotSet)
        });
        if waits_for_it {
            self.bring_forward(now, LEAST_INTERVAL);
        }
    }

    /// S3 says that the session has expired. If the provider's clock is behind, each session seems to
    /// last longer than it does.
    pub(super) fn ended_early(&mut self, now: BootTime, out: &mut Actions) {
        let left = self.in_force.map(|term| term.ends.since(now));
        let Some(left) = left.filter(|left| !left.is_zero()) else {
            return;
        };
        let due = self.due();
        self.bring_forward(now, EARLY_PACE);
        if self.due() != due {
            out.warn(format!(
                "S3 ended the session {} s early; new credentials are fetched",
                left.as_secs()
            ));
        }
    }

    /// The configuration was changed: what failed may work now. Until it does, the waits after failures
    /// stay as long as before.
    pub(super) fn hasten(&mut self, now: BootTime) {
        let due = self.due();
        let soon = self
            .hastened
            .map_or(now, |last| now.max(last + RELOAD_PACE));
        self.bring_forward(soon, LEAST_INTERVAL);
        if self.due() != due {
            self.hastened = self.due();
        }
    }

    pub(super) fn stop(&mut self, out: &mut Actions) {
        if matches!(self.state, State::InFlight { .. }) {
            out.push(Action::KillFetch);
        }
        self.state = State::Stopped;
    }

    /// The term of the credentials in force, expired or not.
    pub(super) fn term(&self) -> Option<Term> {
        self.in_force
    }

    /// Why the last fetch failed, if it did.
    pub(super) fn failure(&self) -> Option<&FetchFailure> {
        self.failure.as_ref()
    }

    /// Failures because the clock is not set do not count.
    pub(super) fn failures_in_a_row(&self) -> usize {
        usize::try_from(self.in_a_row).unwrap_or(usize::MAX)
    }

    /// When the next fetch is due, unless one is in flight.
    pub(super) fn due(&self) -> Option<BootTime> {
        match self.state {
            State::Due(due) => Some(due),
            _ => None,
        }
    }

    /// Brings a later fetch forward to `when`, but no closer than `apart` to the last attempt.
    fn bring_forward(&mut self, when: BootTime, apart: Duration) {
        if let State::Due(due) = self.state {
            let earliest = self.last_attempt.map_or(when, |last| last + apart);
            let soonest = when.max(earliest).max(self.allowed());
            if soonest < due {
                self.state = State::Due(soonest);
                self.free = false;
            }
        }
    }

    /// When the allowance is enough for another fetch.
    fn allowed(&self) -> BootTime {
        let enough = self.full_at.since_boot() + COST;
        BootTime::new(enough.saturating_sub(ALLOWANCE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With credentials that end so long from now.
    fn renewal(left: Option<u64>, now: BootTime) -> Renewal {
        let term = |left| Term {
            begins: BootTime::default(),
            ends: now + Duration::from_secs(left),
        };
        Renewal {
            in_force: left.map(term),
            ..Renewal::new(now)
        }
    }

    #[test]
    fn a_wait_that_is_asked_for_is_kept_to_half_of_what_is_left_at_the_most() {
        let now = BootTime::new(Duration::from_secs(100_000));
        for (asked, left, kept) in [
            (7, Some(600), 7),
            (300, Some(600), 300),
            (301, Some(600), 300),
            (u64::MAX, Some(600), 300),
            (u64::MAX, Some(10), 5),
            (u64::MAX, Some(100_000), 900),
            // Nothing is left that could be lost.
            (600, Some(0), 600),
            (u64::MAX, None, 900),
        ] {
            let honoured = renewal(left, now).honoured(Duration::from_secs(asked), now);
            assert_eq!(honoured, Duration::from_secs(kept), "{asked}, {left:?}");
        }
    }

    /// However often it is refused so, and however close to the end.
    #[test]
    fn a_fetch_is_tried_again_before_the_credentials_end_whatever_wait_is_asked_for() {
        let begun = BootTime::new(Duration::from_secs(1_000));
        let mut renewal = renewal(Some(300), begun);
        let ends = begun + Duration::from_secs(300);
        let (mut jitter, mut out, mut now) = (Jitter::new(1), Actions::default(), begun);
        let mut late = 0;
        while late < 20 && now < ends {
            renewal.advance(now, &mut out);
            assert!(renewal.due().is_none(), "a fetch is in flight");
            let failure = FetchFailure {
                class: FailureClass::Transient,
                message: "busy".to_owned(),
                retry_after: Some(Duration::MAX),
            };
            renewal.failed(failure, &mut jitter, now, &mut out);
            now = renewal.due().expect("another one is due");
            late = renewal.failures_in_a_row();
        }
        // The first is due after 150 s, the second after 75 more, and so on.
        assert!(late >= 4, "{late} tries");
    }
}
