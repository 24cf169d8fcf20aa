//! Laws of fetches, and of what is said about credentials.

use std::collections::VecDeque;
use std::time::Duration;

use edgerepl::agent::{Action, Event};
use edgerepl::credentials::FailureClass;

use super::{Law, Past, Step, Time, Verdict};

/// No hour sees more fetches, each of which costs the token a signature.
const FETCHES_PER_HOUR: usize = 120;

/// AWS grants none that is shorter: it has to be renewed as often as it ends.
const SHORTEST_LEASE: Duration = Duration::from_secs(900);

/// No lease is longer, and none is renewed later.
const LONGEST_LEASE: Duration = Duration::from_secs(13 * 3600);

/// With no wait asked for, a fetch that the network failed is tried again so soon: 5 min, and what the
/// allowance of fetches adds.
const TRANSIENT_PACE: Duration = Duration::from_secs(6 * 60);

/// A fetch is in flight or one is due, while any credentials could live, up to the daemon's end.
#[derive(Debug, Default)]
pub(super) struct AlwaysDue;

impl Law for AlwaysDue {
    const NAME: &'static str = "a fetch is in flight, or due";

    fn applies(&self, past: &Past) -> bool {
        past.end_asked.is_none()
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(glance) if self.applies(past) => {
                let is_due = glance.renewal_in.is_some_and(|wait| wait <= LONGEST_LEASE);
                Verdict::of(past.sight.fetch_is_in_flight || is_due, || {
                    format!("no fetch is due, or too late: {glance:?}")
                })
            }
            _ => Verdict::Silent,
        }
    }
}

/// No two fetches run beside each other: the token has one session.
#[derive(Debug, Default)]
pub(super) struct OneFetch;

impl Law for OneFetch {
    const NAME: &'static str = "one fetch at a time";

    fn applies(&self, _: &Past) -> bool {
        true
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Action(Action::Fetch) => Verdict::is_kept(
                !past.sight.fetch_is_in_flight,
                "a second fetch beside the first",
            ),
            _ => Verdict::Silent,
        }
    }
}

/// Whatever the network, the provider or whoever reloads does, no hour sees a storm of fetches.
#[derive(Debug, Default)]
pub(super) struct FetchPace {
    fetches: VecDeque<Time>,
}

impl Law for FetchPace {
    const NAME: &'static str = "no storm of fetches";

    fn applies(&self, _: &Past) -> bool {
        true
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Event(Event::Fetched(Ok(lease))) if lease.lifetime < SHORTEST_LEASE => {
                self.fetches.pop_back();
                Verdict::Silent
            }
            Step::Action(Action::Fetch) => {
                let hour_ago = past.time.saturating_sub(Duration::from_secs(3600));
                self.fetches.push_back(past.time);
                let old = self.fetches.partition_point(|fetch| *fetch < hour_ago);
                self.fetches.drain(..old);
                Verdict::of(self.fetches.len() <= FETCHES_PER_HOUR, || {
                    format!("{} fetches in an hour", self.fetches.len())
                })
            }
            _ => Verdict::Silent,
        }
    }
}

/// A clock that is set causes no fetch, where the last one did not fail.
#[derive(Debug, Default)]
pub(super) struct ClockAlone {
    was_set: bool,
}

impl Law for ClockAlone {
    const NAME: &'static str = "a clock that is set causes no fetch";

    fn applies(&self, past: &Past) -> bool {
        past.grants > 0 && !past.last_fetch_failed && past.time > past.slept_until
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Event(event) => {
                self.was_set = matches!(event, Event::ClockStepped) && self.applies(past);
                match self.was_set {
                    true => Verdict::Kept,
                    false => Verdict::Silent,
                }
            }
            Step::Action(Action::Fetch) if self.was_set => {
                Verdict::Broken("setting the clock alone caused a fetch".to_owned())
            }
            _ => Verdict::Silent,
        }
    }
}

/// A wait that a provider asks for, or that the network costs, does not outlast the credentials.
#[derive(Debug, Default)]
pub(super) struct NoLongWait;

impl Law for NoLongWait {
    const NAME: &'static str = "no wait outlasts the credentials";

    fn applies(&self, past: &Past) -> bool {
        past.glance.is_some_and(|glance| {
            glance.failure == Some(FailureClass::Transient)
                && glance.renewal_in.is_some()
                && glance.credentials_left.is_some()
        })
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, _: &Past) -> Verdict {
        let Step::Look(glance) = step else {
            return Verdict::Silent;
        };
        match (glance.failure, glance.renewal_in, glance.credentials_left) {
            (Some(FailureClass::Transient), Some(due), Some(left)) => {
                Verdict::of(due <= left.max(TRANSIENT_PACE), || {
                    format!("tried again in {due:?}, and {left:?} are left")
                })
            }
            _ => Verdict::Silent,
        }
    }
}

/// An SDK is never told that credentials last longer than they do.
#[derive(Debug, Default)]
pub(super) struct SdkTold;

impl Law for SdkTold {
    const NAME: &'static str = "an SDK is told no longer term than there is";

    fn applies(&self, past: &Past) -> bool {
        past.glance.is_some_and(|glance| glance.told_term.is_some())
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, _: &Past) -> Verdict {
        match step {
            Step::Look(glance) if glance.told_term.is_some() => {
                Verdict::of(glance.told_term <= glance.credentials_left, || {
                    format!("{glance:?}")
                })
            }
            _ => Verdict::Silent,
        }
    }
}
