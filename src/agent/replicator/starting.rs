//! The transitions of the hand-over with each step of a start.
//!
//! Owns when Litestream begins anew. Never starts a Litestream that would make a good replica wrong:
//! one that takes a WAL that was reset while it was down for the WAL that it knows.

use super::Replicator;
use super::introduction::Introduction;
use super::process::Phase;
use super::start::{Because, Start};
use crate::agent::backoff::Jitter;
use crate::agent::{Action, Actions};
use crate::clock::BootTime;
use crate::config::Rotation;
use crate::litestream::answer::Survey;

/// The reasons: the WAL is not the one that Litestream knows; the replica is wrong.
const WAL_WAS_RESET: &str = "the WAL was reset while Litestream did not hold it";
const MUST_BEGIN_ANEW: &str = "Litestream has to upload the whole database";

impl Replicator {
    /// How Litestream can get credentials is known, or unknown; then the safe way is used.
    pub(in crate::agent) fn probed(
        &mut self,
        result: Result<Rotation, String>,
        now: BootTime,
        out: &mut Actions,
    ) {
        if !matches!(&self.process.phase, Phase::Starting(start) if start.is_probe()) {
            return;
        }
        let rotation = match result {
            Ok(rotation) => {
                self.process.probed = Some(rotation);
                rotation
            }
            Err(cause) => {
                out.warn(format!(
                    "Litestream is restarted at each rotation, because its version is unknown: {cause}"
                ));
                Rotation::Restart
            }
        };
        self.survey(rotation, now, out);
    }

    /// The state of its files and the WAL is known, or not: then it is not started.
    pub(in crate::agent) fn surveyed(
        &mut self,
        result: Result<Survey, String>,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Actions,
    ) {
        let Phase::Starting(start) = &self.process.phase else {
            return;
        };
        let Some(rotation) = start.surveyed() else {
            return;
        };
        let survey = match result {
            Ok(survey) => survey,
            Err(cause) => return self.wait_to_start(cause, jitter, now, out),
        };
        if !self.replica.ledger.surveyed(survey.folder) && self.may_reset(now) {
            self.replica.begins_reset(now);
            return self.drop_state(now, out);
        }
        let is_broken = self.replica.ledger.is_broken();
        let because = match survey.wal_was_reset {
            true => Some(Because::WalWasReset),
            false => is_broken.then_some(Because::ReplicaIsBroken),
        };
        match because {
            Some(because) => {
                let start = Start::empty_wal(rotation, because, now);
                self.process.enter(Phase::Starting(start), now);
            }
            None => self.launch(rotation, now, out),
        }
    }

    pub(in crate::agent) fn started(
        &mut self,
        result: Result<(), String>,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Actions,
    ) {
        if !matches!(&self.process.phase, Phase::Starting(start) if start.is_launched()) {
            return;
        }
        match result {
            Ok(()) => {
                // Answers since the stop came from the previous process.
                self.introduction = Introduction::Unmet;
                self.process.is_up(now);
                self.replica.catch_up(now);
            }
            Err(cause) => self.wait_to_start(cause, jitter, now, out),
        }
    }

    /// The WAL was emptied, or could not be. If not, a start that would make a good replica wrong
    /// waits. A replica that already misses rows is better than none: it starts, and the next start
    /// tries again.
    pub(in crate::agent) fn emptied(
        &mut self,
        result: Result<(), String>,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Actions,
    ) {
        let start = match &self.process.phase {
            Phase::Starting(start) => start.emptied(),
            _ => None,
        };
        let Some((rotation, because)) = start else {
            // It was emptied because the guard released it. No Litestream had the database open then.
            if result.is_ok() {
                self.replica.begins_anew();
            }
            return;
        };
        match (result, because) {
            (Ok(()), _) => {
                self.replica.begins_anew();
                let why = match because {
                    Because::WalWasReset => WAL_WAS_RESET,
                    Because::ReplicaIsBroken => MUST_BEGIN_ANEW,
                };
                out.warn(format!(
                    "{why}; the WAL was emptied, and Litestream uploads the whole database, so no row is lost"
                ));
                self.launch(rotation, now, out);
            }
            (Err(why), Because::WalWasReset) => {
                let cause = format!(
                    "{WAL_WAS_RESET}; the WAL has to be emptied before Litestream may start: {why}"
                );
                self.wait_to_start(cause, jitter, now, out);
            }
            (Err(why), Because::ReplicaIsBroken) => {
                self.replica.stays_broken(now);
                out.warn(format!(
                    "{MUST_BEGIN_ANEW}, but the WAL could not be emptied: {why}"
                ));
                self.launch(rotation, now, out);
            }
        }
    }

    pub(super) fn start_or_idle(&mut self, now: BootTime, out: &mut Actions) {
        if self.process.has_credentials(now) {
            self.start(now, out);
        } else {
            self.process.enter(Phase::Idle, now);
        }
    }

    pub(super) fn start(&mut self, now: BootTime, out: &mut Actions) {
        if self.replica.has_old_state() {
            self.replica.begins_reset(now);
            return self.drop_state(now, out);
        }
        match self.process.next_rotation() {
            Some(rotation) => self.survey(rotation, now, out),
            None => self.begin_start(Start::probe(now), now, out),
        }
    }

    fn survey(&mut self, rotation: Rotation, now: BootTime, out: &mut Actions) {
        self.begin_start(Start::survey(rotation, now), now, out);
    }

    fn begin_start(&mut self, step: (Start, Action), now: BootTime, out: &mut Actions) {
        let (start, action) = step;
        self.process.enter(Phase::Starting(start), now);
        out.push(action);
    }

    /// Launches Litestream with the newest credentials, which may have expired meanwhile.
    fn launch(&mut self, rotation: Rotation, now: BootTime, out: &mut Actions) {
        if !self.process.has_credentials(now) || self.leaving.is_some_and(|limit| limit <= now) {
            return self.process.enter(Phase::Idle, now);
        }
        self.rescue.hears();
        self.replica.starts();
        self.process.launched(rotation, now);
        out.push(Action::Start(rotation));
    }

    pub(super) fn wait_to_start(
        &mut self,
        cause: String,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Actions,
    ) {
        let wait = self.process.wait_to_start(jitter, now);
        out.warn(format!(
            "{cause}; restarting in {:.1} s",
            wait.as_secs_f32()
        ));
        self.last_trouble = Some(cause);
    }
}
