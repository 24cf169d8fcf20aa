//! What becomes of the hand-over with each step of a start.
//!
//! Owns when Litestream begins anew. A start that would make a good replica wrong is put off: that of a
//! Litestream which would take a WAL that was reset while it was down for the one that it knows.

use super::Replicator;
use super::introduction::Introduction;
use super::process::Phase;
use super::start::{Because, Start};
use crate::agent::backoff::Jitter;
use crate::agent::{Action, Actions};
use crate::clock::BootTime;
use crate::config::Rotation;
use crate::litestream::answer::Survey;

/// What is said where the WAL is another one than Litestream knows, and of a replica that is wrong.
const WAL_WAS_RESET: &str = "the WAL was reset while Litestream did not hold it";
const MUST_BEGIN_ANEW: &str = "Litestream has to upload the whole database";

impl Replicator {
    /// It is known how Litestream can be given credentials, or not; then the safe way is taken.
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

    /// It is known how its files and the WAL look before the start, or not: it is never started blindly.
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
                // What was told since it was stopped was told by the one before.
                self.introduction = Introduction::Unmet;
                self.process.is_up(now);
                self.replica.catch_up(now);
            }
            Err(cause) => self.wait_to_start(cause, jitter, now, out),
        }
    }

    /// The WAL was emptied, or could not be. Before a start: a good replica is not made wrong by a start:
    /// that waits. One that misses something already is better than none, and the next start tries again.
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
            // It was emptied because it was let go. No Litestream had the database open then.
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

    /// Starts it with the newest credentials, which may have ended on the way here.
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
