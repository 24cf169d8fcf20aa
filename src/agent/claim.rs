//! Whether another device claims the prefix, before this one uploads anything in a run.
//!
//! Owns the looks at the bucket before Litestream's first start, and when they are over. What is ahead of
//! Litestream's files may be this device's own: an older copy of its disk has taken their place. But while
//! Litestream is stopped this device uploads nothing: what comes to the bucket then is another device's.
//! Never starts anything, and never judges what else the bucket holds: `restorable` does.
//!
//! ```text
//!              asked         nothing is ahead, or it can't be known
//!   Open ────────────► Asked ────────────────────────────────────────► Free
//!                      │  ▲ ahead, and no more than before               ▲ for long enough
//!                      │  └──────────────────────────── Waiting ─────────┘
//!                      └──► Taken: more than before
//! ```

use std::time::Duration;

use super::Action;
use super::watch::Outbox;
use crate::clock::BootTime;

/// How long one look may take: Litestream's start, and one list on a slow line.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// The bucket is looked at again after this time.
const PACE: Duration = Duration::from_secs(10);

/// And for so long: another device that runs has uploaded a row of its own by then.
pub(super) const PATIENCE: Duration = Duration::from_secs(70);

#[derive(Debug, Default)]
pub(super) struct Claim {
    stage: Stage,
    /// The transaction that was ahead at the first look, and when that was.
    ahead: Option<(u64, BootTime)>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Stage {
    #[default]
    Open,
    Asked {
        limit: BootTime,
    },
    Waiting {
        until: BootTime,
    },
    Free,
    Taken,
}

impl Claim {
    /// Litestream is about to start: looks, unless that was done in this run.
    pub(super) fn begin(&mut self, now: BootTime, out: &mut Outbox<'_>) {
        if self.stage == Stage::Open {
            self.ask(now, out);
        }
    }

    /// Nobody wants looks, or another Litestream may run.
    pub(super) fn waive(&mut self) {
        self.stage = Stage::Free;
    }

    /// The newest transaction in the bucket that is ahead of Litestream's files. Returns it once it is
    /// another device's.
    pub(super) fn looked(
        &mut self,
        result: Result<Option<u64>, String>,
        now: BootTime,
        out: &mut Outbox<'_>,
    ) -> Option<u64> {
        let is_asked = match self.stage {
            Stage::Asked { .. } => true,
            // The start was given up meanwhile: what was seen is so all the same.
            Stage::Open => false,
            Stage::Waiting { .. } | Stage::Free | Stage::Taken => return None,
        };
        let at = match result {
            Ok(Some(at)) => at,
            _ if !is_asked => return None,
            Ok(None) => {
                self.stage = Stage::Free;
                return None;
            }
            Err(cause) => {
                self.is_unknown(&cause, out);
                return None;
            }
        };
        if self.ahead.is_none() {
            out.warn(format!(
                "the bucket is ahead of Litestream's files here (transaction {at}): Litestream is not started \
                 before it is known that no other device writes to the same prefix, {} s at most",
                PATIENCE.as_secs()
            ));
        }
        let (first, since) = *self.ahead.get_or_insert((at, now));
        if !is_asked {
            return None;
        }
        self.stage = match () {
            () if at > first => Stage::Taken,
            () if now.since(since) >= PATIENCE => Stage::Free,
            () => Stage::Waiting { until: now + PACE },
        };
        (self.stage == Stage::Taken).then_some(at)
    }

    /// Looks again if that is due, and waits for no look for too long.
    pub(super) fn advance(&mut self, now: BootTime, out: &mut Outbox<'_>) {
        match self.stage {
            Stage::Waiting { until } if until <= now => self.ask(now, out),
            Stage::Asked { limit } if limit <= now => {
                out.push(Action::AbandonLookAhead(out.database));
                self.is_unknown("it took too long", out);
            }
            _ => {}
        }
    }

    /// The start is given up.
    pub(super) fn interrupt(&mut self) {
        if !self.is_settled() {
            self.stage = Stage::Open;
        }
    }

    /// Nothing is left to look for.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.stage, Stage::Free | Stage::Taken)
    }

    pub(super) fn deadline(&self) -> BootTime {
        match self.stage {
            Stage::Asked { limit: at } | Stage::Waiting { until: at } => at,
            Stage::Open | Stage::Free | Stage::Taken => BootTime::NEVER,
        }
    }

    fn ask(&mut self, now: BootTime, out: &mut Outbox<'_>) {
        let limit = now + LOOK_LIMIT;
        self.stage = Stage::Asked { limit };
        out.push(Action::LookAhead(out.database));
    }

    /// The first plan of a restore shows it, later: what can't be listed holds up no upload.
    fn is_unknown(&mut self, cause: &str, out: &mut Outbox<'_>) {
        out.info(format!(
            "the bucket could not be looked at before the first upload: {cause}"
        ));
        self.stage = Stage::Free;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Actions;
    use crate::agent::watch::Database;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    /// What is done at that time; `result` is what a look has found.
    fn look(
        claim: &mut Claim,
        result: Result<Option<u64>, String>,
        now: BootTime,
    ) -> (Option<u64>, bool) {
        let mut actions = Actions::default();
        let mut out = Outbox::new(Database(0), None, &mut actions);
        claim.begin(now, &mut out);
        claim.advance(now, &mut out);
        let found = claim.looked(result, now, &mut out);
        (found, actions.0.contains(&Action::LookAhead(Database(0))))
    }

    #[test]
    fn a_prefix_without_anything_ahead_is_looked_at_once() {
        for found in [Ok(None), Err("403".to_owned())] {
            let mut claim = Claim::default();
            assert_eq!(look(&mut claim, found, at(0)), (None, true));
            assert!(claim.is_settled());
            assert_eq!(look(&mut claim, Ok(Some(9)), at(100)), (None, false));
            assert_eq!(claim.deadline(), BootTime::NEVER);
        }
    }

    #[test]
    fn a_prefix_that_grows_while_litestream_is_stopped_is_anothers() {
        let mut claim = Claim::default();
        assert_eq!(look(&mut claim, Ok(Some(9)), at(0)), (None, true));
        assert_eq!(claim.deadline(), at(10));
        assert_eq!(look(&mut claim, Ok(Some(9)), at(10)), (None, true));
        // A start that is given up forgets nothing.
        claim.interrupt();
        assert_eq!(look(&mut claim, Ok(Some(10)), at(20)), (Some(10), true));
        assert!(claim.is_settled());
    }

    #[test]
    fn what_a_look_shows_after_its_start_was_given_up_counts() {
        let mut claim = Claim::default();
        let mut actions = Actions::default();
        let mut out = Outbox::new(Database(0), None, &mut actions);
        claim.begin(at(0), &mut out);
        claim.interrupt();
        assert_eq!(claim.looked(Ok(Some(9)), at(1), &mut out), None);
        assert!(!claim.is_settled());
        assert_eq!(look(&mut claim, Ok(Some(10)), at(2)), (Some(10), true));
    }

    #[test]
    fn what_does_not_grow_is_an_older_copy_of_the_own_files() {
        let mut claim = Claim::default();
        let looks: Vec<_> = (0..9)
            .map(|look| look * 10)
            .map(|second| look(&mut claim, Ok(Some(9)), at(second)))
            .collect();
        assert_eq!(looks[..8], [(None, true); 8]);
        assert_eq!(looks[8], (None, false), "it is over");
        assert!(claim.is_settled());
    }

    #[test]
    fn a_look_that_hangs_holds_up_no_upload() {
        let mut claim = Claim::default();
        let mut actions = Actions::default();
        let mut out = Outbox::new(Database(0), None, &mut actions);
        claim.begin(at(0), &mut out);
        assert_eq!(claim.deadline(), at(20));
        claim.advance(at(20), &mut out);
        assert_eq!(claim.looked(Ok(Some(9)), at(21), &mut out), None);
        assert!(claim.is_settled());
        assert!(actions.0.contains(&Action::AbandonLookAhead(Database(0))));
    }
}
