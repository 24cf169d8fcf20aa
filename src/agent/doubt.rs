//! Why a restore is not known to be right, or known not to be, before it is formatted.
//!
//! Owns the form of that sentence, whatever looks at a restore. Never looks at one, and decides nothing but
//! when nobody has for too long.

use std::fmt;
use std::time::Duration;

use crate::clock::BootTime;

/// A fault that was seen, or that nothing was seen for too long; and why the last try failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt<'a, F> {
    cause: Cause<F>,
    trouble: Option<&'a str>,
}

#[derive(Clone, Copy, Debug)]
enum Cause<F> {
    Fault(F),
    /// In words that the trouble ends.
    Overdue(&'static str),
}

impl<'a, F> Doubt<'a, F> {
    pub(super) fn of(fault: F, trouble: Option<&'a str>) -> Self {
        Self {
            cause: Cause::Fault(fault),
            trouble,
        }
    }

    pub(super) fn overdue(words: &'static str, trouble: Option<&'a str>) -> Self {
        Self {
            cause: Cause::Overdue(words),
            trouble,
        }
    }
}

impl<F: fmt::Display> fmt::Display for Doubt<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.cause, self.trouble) {
            (Cause::Fault(fault), None) => fault.fmt(f),
            (Cause::Fault(fault), Some(trouble)) => write!(f, "{fault} (so far: {trouble})"),
            (Cause::Overdue(words), trouble) => {
                write!(f, "{words}: {}", trouble.unwrap_or_default())
            }
        }
    }
}

/// Whether nothing has come of it for two paces, although it was tried. `since`: when it last did, or could
/// have first.
pub(super) fn is_overdue(
    pace: Option<Duration>,
    since: Option<BootTime>,
    failures: u32,
    now: BootTime,
) -> bool {
    let late = pace
        .zip(since)
        .is_some_and(|(pace, since)| now.since(since) > pace * 2);
    failures > 0 && late
}
