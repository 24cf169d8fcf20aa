//! Laws of the RPO held.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Law, Past, Step, Time, Verdict};

const DAY: Duration = Duration::from_secs(86_400);

/// What the agent calls the worst of a day is no less than what was really at stake, once it was proved; and
/// no less than what is at stake now, once that is more than may be lost.
#[derive(Debug, Default)]
pub(super) struct WorstIsTrue {
    /// The oldest commit that is on no replica, and when it was last seen so.
    missing: Option<(Time, Time)>,
    /// Those that were.
    uploaded: VecDeque<Uploaded>,
    /// How old those were that are proved, and when that was seen.
    proved: VecDeque<(Duration, Time)>,
}

/// A commit that came to the replica, and is not proved yet.
#[derive(Debug)]
struct Uploaded {
    commit: Time,
    /// How old it was then.
    age: Duration,
    /// When a question of the same moment was answered: it may have come before that commit, or after it.
    counted: Option<Time>,
}

impl WorstIsTrue {
    fn look(&mut self, oldest: Option<Time>, covered: Option<Time>, now: Time) {
        if let Some((commit, seen)) = self.missing
            && oldest != Some(commit)
        {
            self.uploaded.push_back(Uploaded {
                commit,
                age: seen - commit,
                counted: None,
            });
        }
        self.missing = oldest.map(|commit| (commit, now));
        while let Some(first) = self.uploaded.front_mut()
            && covered >= Some(first.commit)
        {
            let counted = *first.counted.get_or_insert(now);
            if covered == Some(first.commit) {
                break;
            }
            self.proved.push_back((first.age, counted));
            self.uploaded.pop_front();
        }
        let old = self.proved.partition_point(|(_, at)| *at + DAY < now);
        self.proved.drain(..old);
    }
}

impl Law for WorstIsTrue {
    const NAME: &'static str = "no loss was worse than the worst that is told";

    fn applies(&self, _: &Past) -> bool {
        !self.proved.is_empty() || self.missing.is_some()
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let Step::Look(glance) = step else {
            if matches!(step, Step::Begins) {
                *self = Self::default();
            }
            return Verdict::Silent;
        };
        if past.database_changed == past.time || past.sight.is_blind {
            *self = Self::default();
        }
        // What was before this run, or before the database was watched, is inherited.
        let since = past.began.max(past.database_changed);
        let oldest = past.sight.oldest_lost.filter(|commit| *commit > since);
        let covered = glance.covered_for.map(|age| past.time.saturating_sub(age));
        self.look(oldest, covered, past.time);
        let open = self.missing.map(|(commit, now)| now - commit);
        let open = open.filter(|age| *age > past.rpo().most());
        let proved = self.proved.iter().map(|(age, _)| *age);
        let Some(worst) = proved.chain(open).max() else {
            return Verdict::Silent;
        };
        let is_told = glance.worst_held.is_some_and(|told| told >= worst);
        Verdict::of(is_told, || {
            format!("{worst:?} would have been lost: {glance:?}, {self:?}")
        })
    }
}
