//! Laws of the daemon's turns and of its end.

use std::time::Duration;

use edgerepl::agent::Action;

use super::{Law, Past, Step, Verdict};

/// A unit's `TimeoutStopSec=`: by then Litestream has ended or was killed.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// A turn leaves nothing behind that is due: else the watchdog is not fed, and rightly so.
#[derive(Debug, Default)]
pub(super) struct NothingLeft;

impl Law for NothingLeft {
    const NAME: &'static str = "a turn leaves nothing due behind";

    fn applies(&self, _: &Past) -> bool {
        true
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, _: &Past) -> Verdict {
        match step {
            Step::Turned { is_due } => Verdict::is_kept(!is_due, "something was left"),
            _ => Verdict::Silent,
        }
    }
}

/// The daemon ends when it was asked to, and leaves no Litestream of its own behind.
#[derive(Debug, Default)]
pub(super) struct Asked;

impl Law for Asked {
    const NAME: &'static str = "no end unasked, none with Litestream left";

    fn applies(&self, _: &Past) -> bool {
        true
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Action(Action::Exit) => {
                let is_left = past.sight.litestream_is_child && past.sight.litestream_is_up;
                Verdict::of(past.end_asked.is_some() && !is_left, || {
                    format!("asked at {:?}; {:?}", past.end_asked, past.sight)
                })
            }
            _ => Verdict::Silent,
        }
    }
}

/// The end comes within a unit's time-out, unless not even SIGKILL brings it.
#[derive(Debug, Default)]
pub(super) struct Timely {
    was_killed: bool,
}

impl Law for Timely {
    const NAME: &'static str = "an end takes no longer than it may";

    fn applies(&self, past: &Past) -> bool {
        past.end_asked.is_some()
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let Some(asked) = past.end_asked else {
            return Verdict::Silent;
        };
        if !matches!(
            step,
            Step::Action(Action::Kill | Action::Exit) | Step::Look(_)
        ) {
            return Verdict::Silent;
        }
        self.was_killed |= matches!(step, Step::Action(Action::Kill));
        let took = past.time.saturating_sub(asked.max(past.slept_until));
        let is_kept = took <= STOP_LIMIT || self.was_killed;
        Verdict::of(is_kept, || format!("it takes {took:?}"))
    }
}

/// A daemon that ends fetches nothing, and starts Litestream once at the most: where a hand-over under way
/// alone brings the last rows out.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    starts: u32,
}

impl Law for Quiet {
    const NAME: &'static str = "a daemon that ends begins nothing";

    fn applies(&self, past: &Past) -> bool {
        past.end_asked.is_some()
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            _ if !self.applies(past) => return Verdict::Silent,
            Step::Action(Action::Fetch) => return Verdict::Broken("it fetches".to_owned()),
            Step::Action(Action::Start(_)) => self.starts += 1,
            Step::Action(Action::Exit) => {}
            _ => return Verdict::Silent,
        }
        Verdict::of(self.starts <= 1, || format!("{} starts", self.starts))
    }
}
