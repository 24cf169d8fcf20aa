//! Laws of fair weather: after a while all is well, and nobody had to do anything.

use std::time::Duration;

use edgerepl::agent::Event;

use super::{Law, Past, Step, Time, Verdict, follows};

/// After so much fair weather all must be well again. The slowest retry is 15 min.
const RECOVERY: Duration = Duration::from_secs(40 * 60);

/// Broken local state may need several resets, which are an hour apart.
const RESET_RECOVERY: Duration = Duration::from_secs(24 * 3600);

/// What hangs after it followed in fair weather is mended by it.
const STUCK_RECOVERY: Duration = Duration::from_secs(2 * 3600);

/// Where S3 was away before, and restarts mended nothing, the next one may be so late.
const LATE_STUCK_RECOVERY: Duration = Duration::from_secs(13 * 3600);

/// A database that takes rows gets one in each interval.
#[derive(Debug, Default)]
pub(super) struct Rows {
    last: Time,
}

impl Law for Rows {
    const NAME: &'static str = "rows go on where the database takes them";

    fn applies(&self, past: &Past) -> bool {
        past.end_asked.is_none() && past.sight.heartbeat.is_some() && past.disk_well_since.is_some()
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match (step, past.sight.heartbeat, past.disk_well_since) {
            (Step::Event(Event::Row(_, Ok(_))), ..) => self.last = past.time,
            (Step::Look(_), Some(interval), Some(disk)) if self.applies(past) => {
                let since = self
                    .last
                    .max(disk)
                    .max(past.began)
                    .max(past.slept_until)
                    .max(past.policy_changed);
                let late = past.time.saturating_sub(since);
                return Verdict::of(late <= interval + Duration::from_secs(2), || {
                    format!("none for {late:?}")
                });
            }
            _ => {}
        }
        Verdict::Silent
    }
}

/// In fair weather there are credentials.
#[derive(Debug, Default)]
pub(super) struct Credentials;

impl Law for Credentials {
    const NAME: &'static str = "fair weather: there are credentials";

    fn applies(&self, past: &Past) -> bool {
        past.fair_since()
            .is_some_and(|since| past.time > since + RECOVERY)
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(glance) if self.applies(past) => {
                Verdict::of(glance.credentials_left.is_some(), || format!("{glance:?}"))
            }
            _ => Verdict::Silent,
        }
    }
}

/// In fair weather the device is healthy.
#[derive(Debug, Default)]
pub(super) struct Replication {
    was_well: bool,
    was_hurt: bool,
    last_well: Time,
    last_hurt: Time,
}

impl Law for Replication {
    const NAME: &'static str = "fair weather: the replica follows";

    fn applies(&self, past: &Past) -> bool {
        let since = past.fair_since().map(|since| since.max(self.last_hurt));
        since.is_some_and(|since| past.time > since + RECOVERY)
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let Step::Look(glance) = step else {
            return Verdict::Silent;
        };
        let sight = &past.sight;
        // What is known to be broken is begun anew at a pace of its own, and so is what can't be restored.
        let is_hurt = sight.state_is_corrupt
            || sight.wal_stays
            || sight.litestream_is_stuck
            || glance.is_broken
            || past.shown.is_unsettled()
            || past.compared.is_unsettled()
            || sight.any_snapshot_is_under_way;
        let is_hurt = is_hurt || past.is_new_database;
        if std::mem::replace(&mut self.was_hurt, is_hurt) || is_hurt {
            self.last_hurt = past.time;
        }
        // What somebody has to mend, who is told of it.
        let is_told = sight.clock_is_doubted;
        let is_proved = glance.unproved_for.unwrap_or_default() <= past.bound();
        let is_well = (glance.is_healthy || is_told && is_proved) && sight.litestream_is_up;
        // Between two looks nothing changes.
        if std::mem::replace(&mut self.was_well, is_well) || is_well {
            self.last_well = past.time;
        }
        match past.fair_since() {
            Some(since) if self.applies(past) => {
                let bad = past.time - self.last_well.max(since).max(self.last_hurt);
                Verdict::of(bad < RECOVERY, || format!("not for {bad:?}: {glance:?}"))
            }
            _ => Verdict::Silent,
        }
    }
}

/// A sync that somebody asked for takes no longer, where nothing is in the way: a row, a sync that may be under
/// way already, and one more.
const ASKED_LIMIT: Duration = Duration::from_secs(60);

/// In fair weather everything is proved soon that was committed before somebody asked.
#[derive(Debug, Default)]
pub(super) struct AskedSync {
    asked: Option<Time>,
    was_open: bool,
    last_barred: Time,
}

impl Law for AskedSync {
    const NAME: &'static str = "fair weather: a sync that is asked for";

    fn applies(&self, past: &Past) -> bool {
        self.asked.is_some() && past.fair_since().is_some()
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let glance = match step {
            Step::Event(Event::SyncWanted) => {
                self.asked = Some(past.time);
                return Verdict::Silent;
            }
            Step::Look(glance) => glance,
            _ => return Verdict::Silent,
        };
        let is_open = follows(glance) && !glance.is_broken && !past.sight.litestream_is_stuck;
        // Between two looks nothing changes.
        if !std::mem::replace(&mut self.was_open, is_open) || !is_open {
            self.last_barred = past.time;
        }
        let Some(asked) = self.asked else {
            return Verdict::Silent;
        };
        let is_covered = |age| past.time.saturating_sub(age) >= asked;
        if glance.covered_for.is_some_and(is_covered) {
            self.asked = None;
            return Verdict::Kept;
        }
        match past.fair_since() {
            Some(fair) => {
                let due = asked.max(self.last_barred).max(fair) + ASKED_LIMIT;
                Verdict::of(past.time <= due, || {
                    format!("not since {asked:?}: {glance:?}")
                })
            }
            None => Verdict::Silent,
        }
    }
}

/// In fair weather a Litestream that hangs is restarted.
#[derive(Debug, Default)]
pub(super) struct Hung {
    last_unasked: Time,
    was_corrupt: bool,
    last_unstuck: Time,
    last_corrupt: Time,
}

impl Law for Hung {
    const NAME: &'static str = "fair weather: what hangs is restarted";

    fn applies(&self, past: &Past) -> bool {
        past.fair_since().is_some() && past.sight.litestream_is_stuck && past.asks_within(RECOVERY)
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let Step::Look(glance) = step else {
            return Verdict::Silent;
        };
        if !past.sight.litestream_is_stuck {
            self.last_unstuck = past.time;
        }
        let is_corrupt = past.sight.state_is_corrupt || past.sight.wal_stays;
        let is_corrupt = is_corrupt || past.sight.any_snapshot_is_under_way;
        if std::mem::replace(&mut self.was_corrupt, is_corrupt) || is_corrupt {
            self.last_corrupt = past.time;
        }
        if !past.asks_within(RECOVERY) {
            self.last_unasked = past.time;
        }
        match past.fair_since() {
            Some(since) if self.applies(past) => {
                let limit = match past.followed > since {
                    true => STUCK_RECOVERY,
                    false => LATE_STUCK_RECOVERY,
                };
                // What is corrupt, too, may take as long as a reset.
                let free = self.last_unstuck.max(self.last_unasked);
                let hung = past.time - free.max(since).max(self.last_corrupt);
                Verdict::of(hung < limit, || {
                    format!("it hangs for {hung:?}: {glance:?}")
                })
            }
            _ => Verdict::Silent,
        }
    }
}

/// In fair weather local state that is broken is dropped.
#[derive(Debug, Default)]
pub(super) struct BrokenState {
    last_sound: Time,
}

impl Law for BrokenState {
    const NAME: &'static str = "fair weather: broken local state is dropped";

    fn applies(&self, past: &Past) -> bool {
        let is_broken = past.sight.state_is_corrupt || past.sight.wal_stays;
        // What another device wrote, too, is left alone.
        past.fair_since().is_some() && is_broken && !past.shown.is_shared()
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let Step::Look(glance) = step else {
            return Verdict::Silent;
        };
        match past.fair_since() {
            Some(since) if self.applies(past) => {
                let broken = past.time - self.last_sound.max(since).max(past.database_changed);
                Verdict::of(broken < RESET_RECOVERY, || {
                    format!("it is broken for {broken:?}: {glance:?}")
                })
            }
            _ => {
                self.last_sound = past.time;
                Verdict::Silent
            }
        }
    }
}
