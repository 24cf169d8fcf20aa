//! Laws of the WAL guard: it holds when nobody else does, and no longer than it may cost.

use edgerepl::agent::{Action, Event};

use super::past::GUARD_LIMIT;
use super::start::stops;
use super::{Law, Past, Step, Verdict, follows};

/// The guard is taken where it is wanted, and not a second time while it holds.
#[derive(Debug, Default)]
pub(super) struct Wanted;

impl Law for Wanted {
    const NAME: &'static str = "the guard is taken where wanted, and once";

    fn applies(&self, _: &Past) -> bool {
        true
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Action(Action::TakeGuard(_)) => {
                let is_right = past.sight.wants_guard && !past.sight.guard_is_held;
                Verdict::of(is_right, || format!("{:?}", past.sight))
            }
            _ => Verdict::Silent,
        }
    }
}

/// The guard holds for 300 s at the most: past that a full upload is cheaper.
#[derive(Debug, Default)]
pub(super) struct Bounded;

impl Law for Bounded {
    const NAME: &'static str = "the guard holds no longer than it may";

    fn applies(&self, past: &Past) -> bool {
        past.guard_since.is_some() && past.time > past.slept_until
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match (step, past.guard_since) {
            (Step::Look(_), Some(since)) if self.applies(past) => {
                // What is uploaded over a slow line may need the WAL.
                let held = past.time - since.max(past.sent_more);
                Verdict::of(held <= GUARD_LIMIT, || format!("it holds for {held:?}"))
            }
            _ => Verdict::Silent,
        }
    }
}

/// Once Litestream has caught up, its own lock is enough.
#[derive(Debug, Default)]
pub(super) struct LetGo;

impl Law for LetGo {
    const NAME: &'static str = "no guard beside a Litestream that follows";

    fn applies(&self, past: &Past) -> bool {
        past.glance.as_ref().is_some_and(follows)
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(glance) if follows(glance) => {
                Verdict::is_kept(!past.sight.guard_is_held, "the guard holds all the same")
            }
            _ => Verdict::Silent,
        }
    }
}

/// The guard is given up for a bound alone, of time or of size.
#[derive(Debug, Default)]
pub(super) struct NotAbandoned {
    was_too_large: bool,
}

impl Law for NotAbandoned {
    const NAME: &'static str = "the guard is given up for a bound alone";

    fn applies(&self, past: &Past) -> bool {
        past.guard_since.is_some()
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Event(event) => self.was_too_large = matches!(event, Event::WalTooLarge(_)),
            Step::Action(Action::AbandonGuard(_)) => {
                let held = past.guard_since.map(|since| past.time - since);
                let is_late = held.is_some_and(|held| held >= GUARD_LIMIT);
                return Verdict::of(is_late || self.was_too_large, || {
                    format!("it held for {held:?}")
                });
            }
            _ => {}
        }
        Verdict::Silent
    }
}

/// A WAL that has reached its bound is let go at once.
#[derive(Debug, Default)]
pub(super) struct LargeWal {
    is_told: bool,
}

impl Law for LargeWal {
    const NAME: &'static str = "a WAL at its bound is let go";

    fn applies(&self, _: &Past) -> bool {
        self.is_told
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Event(event) => self.is_told |= matches!(event, Event::WalTooLarge(_)),
            Step::Action(Action::TakeGuard(_)) => self.is_told = false,
            Step::Look(_) if self.is_told => {
                return Verdict::is_kept(!past.sight.guard_is_held, "the guard holds on to it");
            }
            _ => {}
        }
        Verdict::Silent
    }
}

/// When Litestream is stopped, the guard holds the WAL, unless it can't, or reached a bound.
#[derive(Debug, Default)]
pub(super) struct AtStop;

impl Law for AtStop {
    const NAME: &'static str = "no stop with nothing to hold the WAL";

    fn applies(&self, past: &Past) -> bool {
        let excused = past.guard_is_spent || past.guard_failed_lately() || past.came_lately();
        past.end_asked.is_none()
            && past.sight.wants_guard
            && !excused
            && past.sight.disk_is_well
            && !past.sight.state_is_corrupt
            && !past.sight.files_are_hurt
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Action(action) if self.applies(past) && stops(action, past) => Verdict::is_kept(
                past.sight.guard_is_held,
                "Litestream was stopped with nothing to hold the WAL",
            ),
            _ => Verdict::Silent,
        }
    }
}

/// While Litestream is down, or has not read it all, nobody resets the WAL: that would cost a snapshot.
#[derive(Debug, Default)]
pub(super) struct WhileDown;

impl Law for WhileDown {
    const NAME: &'static str = "the WAL is held while Litestream is down";

    fn applies(&self, past: &Past) -> bool {
        let excused = past.guard_is_spent
            || past.guard_failed_lately()
            || past.is_new_database
            || past.came_lately();
        past.end_asked.is_none()
            && past.sight.wants_guard
            && !excused
            && past.time > past.slept_until
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(glance) if self.applies(past) && !follows(glance) => Verdict::Kept,
            Step::WalReset if self.applies(past) => {
                Verdict::Broken("nothing held the WAL, and it was reset".to_owned())
            }
            _ => Verdict::Silent,
        }
    }
}
