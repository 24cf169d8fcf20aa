//! Laws of a slow line: what moves is left alone, and what stands still is not.

use std::time::Duration;

use edgerepl::agent::Event;

use super::start::stops;
use super::{Law, Past, Step, Time, Verdict};

/// So long an upload has to move before it is seen to.
const SEEN: Duration = Duration::from_secs(60);

/// A hand-over for new credentials comes so shortly before the end of the old ones at the earliest: half a
/// minute, by an end that is counted from the request, not from the grant.
const HAND_OVER: Duration = Duration::from_secs(61);

/// What stands still is ended by then, where restarts had mended all before; and where they had not.
const LIMIT: Duration = Duration::from_secs(2 * 3600);
const LATE_LIMIT: Duration = Duration::from_secs(13 * 3600);

/// A device that asks more seldom may see it later.
const OFTEN: Duration = Duration::from_secs(40 * 60);

/// An upload that moves is ended by nothing but the end of the credentials that it is made with; another
/// database, and a replica that is broken, come first.
#[derive(Debug, Default)]
pub(super) struct Moving {
    /// What runs before was started by an earlier run of edgerepl, and gets a start of this one.
    started: Option<Time>,
}

impl Law for Moving {
    const NAME: &'static str = "an upload that moves is not ended by a rescue";

    fn applies(&self, past: &Past) -> bool {
        let is_seen = |since: Time| past.time >= since.max(past.slept_until) + SEEN;
        let is_moving = past.sight.upload_moves_since.is_some_and(is_seen);
        let is_hurt = past.sight.any_is_hurt || past.sight.any_awaits_snapshot;
        past.end_asked.is_none() && is_moving && !is_hurt
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        match (step, self.started) {
            (Step::Event(Event::Started(Ok(()))), _) => self.started = Some(past.time),
            (Step::Action(action), Some(started))
                if self.applies(past)
                    && stops(action, past)
                    && past.sight.set_changed < started =>
            {
                return match past.sight.litestream_credentials_end {
                    Some(end) => Verdict::of(past.time + HAND_OVER >= end, || {
                        format!("its credentials last until {end:?}")
                    }),
                    // It is restarted for new ones, perhaps.
                    None if !past.sight.litestream_asks => Verdict::Silent,
                    None => Verdict::Broken("it asks for new credentials by itself".to_owned()),
                };
            }
            _ => {}
        }
        Verdict::Silent
    }
}

/// In fair weather an upload that stands still is ended.
#[derive(Debug, Default)]
pub(super) struct Standing {
    fine_since: Option<Time>,
    last_free: Time,
}

impl Law for Standing {
    const NAME: &'static str = "an upload that stands still is ended";

    fn applies(&self, past: &Past) -> bool {
        past.end_asked.is_none() && past.sight.upload_stands && past.asks_within(OFTEN)
    }

    #[inline]
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict {
        let Step::Look(glance) = step else {
            return Verdict::Silent;
        };
        let is_fine = past.sight.is_fine_beside_upload && past.sight.clock_is_right;
        let since = self.fine_since.unwrap_or(past.time);
        self.fine_since = is_fine.then_some(since);
        let is_hurt = past.sight.state_is_corrupt || past.sight.wal_stays;
        let is_free = !past.sight.upload_stands || !past.asks_within(OFTEN);
        if is_free || is_hurt || past.sight.any_snapshot_is_under_way {
            self.last_free = past.time;
        }
        if !is_fine || !self.applies(past) {
            return Verdict::Silent;
        }
        let since = since
            .max(past.began)
            .max(past.slept_until)
            .max(past.policy_changed);
        let limit = match past.followed > since {
            true => LIMIT,
            false => LATE_LIMIT,
        };
        let stood = past.time - self.last_free.max(since);
        Verdict::of(stood < limit, || {
            format!("it stands for {stood:?}: {glance:?}")
        })
    }
}
