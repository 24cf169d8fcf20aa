//! Laws of what is said to be proved, and of what is lost.

use edgerepl::agent::Action;

use super::{Law, Past, Step, Time, Verdict};

/// A device that is healthy has no row that is older than the bound and not on its replica.
#[derive(Debug, Default)]
pub(super) struct HealthyIsTrue;

impl Law for HealthyIsTrue {
    const NAME: &'static str = "healthy: no old row is missing on the replica";

    fn applies(&self, past: &Past) -> bool {
        past.glance.is_some_and(|glance| glance.is_healthy)
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(glance) if glance.is_healthy => {
                let age = past.sight.oldest_missing.map(|written| past.time - written);
                let bound = past.bound();
                Verdict::of(age.is_none_or(|age| age <= bound), || {
                    format!("one was written {age:?} ago: {glance:?}")
                })
            }
            _ => Verdict::Silent,
        }
    }
}

/// A row that counts as proved is one that a restore brings back.
#[derive(Debug, Default)]
pub(super) struct ProvedIsTrue {
    proved: i64,
}

impl Law for ProvedIsTrue {
    const NAME: &'static str = "a proved row can be restored";

    fn applies(&self, past: &Past) -> bool {
        !past.sight.is_blind && past.glance.is_some_and(|glance| glance.lag.is_some())
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let Step::Look(glance) = step else {
            return Verdict::Silent;
        };
        // The rows of another database have other numbers.
        let proved = match past.database_changed == past.time {
            true => 0,
            false => self.proved,
        };
        self.proved = glance.lag.map_or(0, |lag| lag.row);
        if self.proved <= proved || past.sight.is_blind {
            return Verdict::Silent;
        }
        let (row, last) = (self.proved, past.sight.restorable_row);
        Verdict::of(row <= last, || format!("{row}, and {last} is the last"))
    }
}

/// What Litestream has listed is watched.
#[derive(Debug, Default)]
pub(super) struct Watched;

impl Law for Watched {
    const NAME: &'static str = "what Litestream lists is watched";

    fn applies(&self, past: &Past) -> bool {
        past.sight.litestream_serves_it
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Ignored => Verdict::Broken("nobody watches it".to_owned()),
            Step::Look(_) if self.applies(past) => Verdict::Kept,
            _ => Verdict::Silent,
        }
    }
}

/// A device is healthy only if each of its databases is.
#[derive(Debug, Default)]
pub(super) struct EachIsWell;

impl Law for EachIsWell {
    const NAME: &'static str = "a healthy device has no database that is not";

    fn applies(&self, past: &Past) -> bool {
        past.sight.device_is_healthy
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(glance) if self.applies(past) => {
                Verdict::of(glance.is_healthy, || format!("{glance:?}"))
            }
            _ => Verdict::Silent,
        }
    }
}

/// There is no state without a sentence but health, no health without a proof, and the words say what
/// the figures say.
#[derive(Debug, Default)]
pub(super) struct Words;

impl Law for Words {
    const NAME: &'static str = "no state but health is without its reason";

    fn applies(&self, _: &Past) -> bool {
        true
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Report(report) => {
                let is_healthy = report.state.is_healthy();
                let has_reason = report.state.problems().count() > 0;
                let is_glance = past.sight.device_is_healthy == is_healthy;
                let is_proved = report.databases.iter().all(|d| d.proof.is_some());
                let is_right = is_glance && is_healthy != has_reason && (!is_healthy || is_proved);
                Verdict::of(is_right, || format!("{report:?}"))
            }
            _ => Verdict::Silent,
        }
    }
}

/// Whatever ends edgerepl, tmpfs holds since when a row is not proved, and not a later time.
#[derive(Debug, Default)]
pub(super) struct DebtRemembered;

impl Law for DebtRemembered {
    const NAME: &'static str = "what is not proved is remembered";

    fn applies(&self, past: &Past) -> bool {
        let since = past.began.max(past.database_changed);
        past.sight
            .oldest_missing
            .is_some_and(|written| written > since)
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(_) if self.applies(past) => {
                let (missing, kept) = (past.sight.oldest_missing, past.sight.remembered);
                let is_kept = kept.flatten().is_some_and(|kept| Some(kept) <= missing);
                Verdict::of(is_kept, || {
                    format!("missing since {missing:?}, and {kept:?} is remembered")
                })
            }
            _ => Verdict::Silent,
        }
    }
}

/// Whatever ends edgerepl, it is kept that Litestream has to upload the whole database.
#[derive(Debug, Default)]
pub(super) struct DamageRemembered;

impl Law for DamageRemembered {
    const NAME: &'static str = "what is known to be broken is remembered";

    fn applies(&self, past: &Past) -> bool {
        past.glance.is_some_and(|glance| glance.is_broken)
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(glance) if glance.is_broken => {
                Verdict::is_kept(past.sight.damage_is_remembered, "nobody would know")
            }
            _ => Verdict::Silent,
        }
    }
}

/// What an earlier run had not seen proved is as old in the next one, until something is proved.
#[derive(Debug, Default)]
pub(super) struct DebtInherited {
    owed: Option<Time>,
}

impl Law for DebtInherited {
    const NAME: &'static str = "what is not proved outlives a restart";

    fn applies(&self, _: &Past) -> bool {
        self.owed.is_some()
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match (step, self.owed) {
            (Step::Begins, _) => self.owed = past.sight.remembered.flatten(),
            _ if past.database_changed > past.began => self.owed = None,
            (Step::Look(glance), Some(_)) if glance.proof.is_some() => self.owed = None,
            (Step::Look(glance), Some(since)) => {
                let age = past.time - since;
                let is_kept = glance.unproved_for.is_some_and(|said| said >= age);
                return Verdict::of(is_kept, || format!("it is {age:?} old: {glance:?}"));
            }
            _ => {}
        }
        Verdict::Silent
    }
}

/// No new database takes the place of one that can be restored.
#[derive(Debug, Default)]
pub(super) struct LostIsKept;

impl Law for LostIsKept {
    const NAME: &'static str = "a lost database is not replaced";

    fn applies(&self, past: &Past) -> bool {
        !past.sight.database_is_there && past.sight.replica_is_there
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match step {
            Step::Look(_) if self.applies(past) => Verdict::Kept,
            Step::Action(Action::WriteFirstRow(_)) if self.applies(past) => {
                Verdict::Broken("a new one is made, and the lost one can be restored".to_owned())
            }
            _ => Verdict::Silent,
        }
    }
}
