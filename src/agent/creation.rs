//! A missing database, or an empty file in its place: whether it may be created.
//!
//! Owns one rule: a database is created only if no replica of it can be restored, and Litestream does not
//! take an empty file for one before. Otherwise the new one would be replicated over the replica's newest
//! state, and a Litestream that restores missing databases would find it present. One without heartbeat
//! rows is its application's to create. Never looks for a replica itself.

use std::time::Duration;

use super::Action;
use super::backoff::{Backoff, Jitter};
use super::watch::Outbox;
use crate::clock::BootTime;

/// A look takes a few requests; one that takes longer is given up.
const LOOK_LIMIT: Duration = Duration::from_secs(120);

/// The retry of a failed look: most often S3 can't be reached.
const RETRY: Backoff = Backoff {
    first: Duration::from_secs(2),
    longest: Duration::from_secs(300),
    least: Duration::from_secs(1),
};

/// If there is a replica, the operator restores or removes it: the next look comes after this.
const PACE: Duration = Duration::from_secs(300);

/// What is said of a missing database, before a look for its replica and after it.
const MISSING: &str = "the database does not exist";
const AWAITED: &str = "the database does not exist yet, and neither does a replica: its application has to \
                       create it, or its path in the configuration has to be corrected";

#[derive(Debug)]
pub(super) struct Creation {
    state: State,
    failures: u32,
    /// Its application creates it, or somebody restores it: it takes no heartbeat rows.
    by_others: bool,
    /// Why no database is created, if known.
    trouble: Option<String>,
}

#[derive(Debug)]
enum State {
    /// The database is there, as far as known.
    There,
    /// It is missing, and there are no credentials for a look.
    Blocked,
    /// A look is due at this time.
    Due(BootTime),
    /// A look is under way, and late from this time on.
    Looking(BootTime),
    /// There is no replica, and it is for others to create the database.
    Awaited,
}

impl Creation {
    pub(super) fn new() -> Self {
        Self {
            state: State::There,
            failures: 0,
            by_others: false,
            trouble: None,
        }
    }

    /// There is no database; whether it is for others to create it.
    pub(super) fn missing(&mut self, by_others: bool, now: BootTime) {
        self.by_others = by_others;
        let is_news = match self.state {
            State::There => true,
            State::Awaited => !by_others,
            State::Blocked | State::Due(_) | State::Looking(_) => false,
        };
        if is_news {
            self.state = State::Due(now);
        }
    }

    /// It is there, or not watched any more.
    pub(super) fn over(&mut self, out: &mut Outbox<'_>) {
        if matches!(self.state, State::Looking(_)) {
            out.push(Action::AbandonLook(out.database));
        }
        *self = Self::new();
    }

    pub(super) fn advance(
        &mut self,
        has_credentials: bool,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Outbox<'_>,
    ) {
        match self.state {
            State::Blocked if has_credentials => self.look(now, out),
            State::Due(at) if at <= now && !has_credentials => self.state = State::Blocked,
            State::Due(at) if at <= now => self.look(now, out),
            State::Looking(limit) if limit <= now => {
                out.push(Action::AbandonLook(out.database));
                self.looked(
                    Err("the request took too long".to_owned()),
                    jitter,
                    now,
                    out,
                );
            }
            _ => {}
        }
    }

    /// Whether a replica can be restored, or why that is unknown.
    pub(super) fn looked(
        &mut self,
        result: Result<bool, String>,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Outbox<'_>,
    ) {
        if !matches!(self.state, State::Looking(_)) {
            return;
        }
        let trouble = match result {
            Ok(false) if self.by_others => {
                out.info(AWAITED.to_owned());
                self.state = State::Awaited;
                self.failures = 0;
                self.trouble = None;
                return;
            }
            Ok(false) => {
                out.info(
                    "the database does not exist, and neither does a replica: it is created"
                        .to_owned(),
                );
                *self = Self::new();
                return out.push(Action::WriteFirstRow(out.database));
            }
            Ok(true) => {
                self.failures = 0;
                self.state = State::Due(now + PACE);
                "the database does not exist or is an empty file, but S3 holds a replica of it, which a \
                 new database would replace: restore it with `edgerepl restore` \
                 (edgerepl-restore.service does so before the start), or give the device another prefix"
                    .to_owned()
            }
            Err(cause) => {
                self.failures = self.failures.saturating_add(1);
                self.state = State::Due(now + RETRY.wait(self.failures, jitter));
                format!(
                    "the database does not exist, and whether S3 has its replica, which a new database would \
                     replace, is not known: {cause}"
                )
            }
        };
        if self.trouble.as_ref() != Some(&trouble) {
            out.warn(trouble.clone());
        }
        self.trouble = Some(trouble);
    }

    pub(super) fn deadline(&self) -> BootTime {
        match self.state {
            State::There | State::Blocked | State::Awaited => BootTime::NEVER,
            State::Due(at) | State::Looking(at) => at,
        }
    }

    /// Why there is no database, and what the operator can do.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// There is none, as far as known.
    pub(super) fn is_missing(&self) -> bool {
        !matches!(self.state, State::There)
    }

    /// An empty file is in its place: whether Litestream has to wait, which would take it for the database.
    /// Only what is known of a replica tells.
    pub(super) fn forbids_start(&mut self, by_others: bool, now: BootTime) -> bool {
        self.missing(by_others, now);
        !matches!(self.state, State::Awaited)
    }

    /// There is none, and others have to create it, for this reason: until then nothing is replicated.
    pub(super) fn awaits_others(&self) -> Option<&str> {
        let why = self.trouble().unwrap_or(match self.state {
            State::Awaited => AWAITED,
            _ => MISSING,
        });
        (self.by_others && self.is_missing()).then_some(why)
    }

    fn look(&mut self, now: BootTime, out: &mut Outbox<'_>) {
        self.state = State::Looking(now + LOOK_LIMIT);
        out.push(Action::LookForReplica(out.database));
    }
}
