//! A start on its way: how Litestream can be given credentials, how its files and the WAL look, the
//! WAL emptied where Litestream has to begin anew, and then the start itself.
//!
//! Owns the order of these steps, how long each may take, and what becomes of the hand-over after each. A
//! start that would make a good replica wrong is put off: that of a Litestream which would take a WAL that
//! was reset while it was down for the one that it knows.

use std::time::Duration;

use super::Replicator;
use super::process::Phase;
use crate::agent::backoff::Jitter;
use crate::agent::{Action, Actions, Delivery};
use crate::clock::BootTime;
use crate::litestream::answer::Survey;

/// Within this each step is over: `systemctl restart` waits for the unit's own stop time-out.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// The same for the WAL: 1 GiB of it, on flash that takes 2 MB each second.
const EMPTY_LIMIT: Duration = Duration::from_secs(600);

/// What is said where the WAL is another one than Litestream knows, and of a replica that is wrong.
const WAL_WAS_RESET: &str = "the WAL was reset while Litestream did not hold it";
const MUST_BEGIN_ANEW: &str = "Litestream has to upload the whole database";

#[derive(Debug)]
pub(in crate::agent) struct Start {
    step: Step,
    deadline: BootTime,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// It is being found out how Litestream can be given credentials.
    Probe,
    /// Its files and the WAL are being looked at.
    Survey(Delivery),
    /// The WAL is to be emptied, once nobody of ours holds it.
    Hold(Delivery, Because),
    /// It is being emptied.
    Empty(Delivery, Because),
    /// Litestream is being started.
    Launch,
}

/// Why Litestream has to begin anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Because {
    /// The WAL was reset while it was down. Its replica is good as long as it is not started.
    WalWasReset,
    /// Its replica is wrong already.
    ReplicaIsBroken,
}

impl Start {
    pub(super) fn probe(now: BootTime) -> (Self, Action) {
        (Self::at(Step::Probe, STEP_LIMIT, now), Action::Probe)
    }

    pub(super) fn survey(delivery: Delivery, now: BootTime) -> (Self, Action) {
        let step = Step::Survey(delivery);
        (Self::at(step, STEP_LIMIT, now), Action::Survey)
    }

    pub(super) fn empty_wal(delivery: Delivery, because: Because, now: BootTime) -> Self {
        Self::at(Step::Hold(delivery, because), EMPTY_LIMIT, now)
    }

    pub(super) fn launch(now: BootTime) -> Self {
        Self::at(Step::Launch, STEP_LIMIT, now)
    }

    /// The next step, where nothing but the guard was waited for.
    pub(super) fn advance(&mut self, is_guarded: bool) -> Option<Action> {
        match self.step {
            Step::Hold(delivery, because) if !is_guarded => {
                self.step = Step::Empty(delivery, because);
                Some(Action::EmptyWal)
            }
            _ => None,
        }
    }

    pub(super) fn deadline(&self) -> BootTime {
        self.deadline
    }

    /// What is late, and what to do about it.
    pub(super) fn trouble(&self) -> String {
        let limit = match self.step {
            Step::Hold(..) | Step::Empty(..) => EMPTY_LIMIT,
            Step::Probe | Step::Survey(_) | Step::Launch => STEP_LIMIT,
        };
        let what = match self.step {
            Step::Probe => "Litestream has not said its version",
            Step::Survey(_) => "the disk has not shown Litestream's files",
            Step::Hold(..) | Step::Empty(..) => "the disk has not taken what is in the WAL",
            Step::Launch => {
                return format!(
                    "systemd has not restarted Litestream's unit within {} s; look into it with \
                     `systemctl status`",
                    limit.as_secs()
                );
            }
        };
        format!(
            "{what} within {} s; look at the disk, in the kernel's log",
            limit.as_secs()
        )
    }

    pub(super) fn is_probe(&self) -> bool {
        self.step == Step::Probe
    }

    /// What the files that are looked at are for.
    pub(super) fn surveyed(&self) -> Option<Delivery> {
        match self.step {
            Step::Survey(delivery) => Some(delivery),
            _ => None,
        }
    }

    /// What the WAL that is emptied is for.
    pub(super) fn emptied(&self) -> Option<(Delivery, Because)> {
        match self.step {
            Step::Empty(delivery, because) => Some((delivery, because)),
            _ => None,
        }
    }

    /// Litestream itself, or its unit, was told to start.
    pub(super) fn is_launched(&self) -> bool {
        self.step == Step::Launch
    }

    /// Whoever holds the WAL keeps it from being emptied.
    pub(super) fn empties_wal(&self) -> bool {
        matches!(self.step, Step::Hold(..) | Step::Empty(..))
    }

    fn at(step: Step, limit: Duration, now: BootTime) -> Self {
        Self {
            step,
            deadline: now + limit,
        }
    }
}

impl Replicator {
    /// It is known how Litestream can be given credentials, or not; then the safe way is taken.
    pub(in crate::agent) fn probed(
        &mut self,
        result: Result<Delivery, String>,
        now: BootTime,
        out: &mut Actions,
    ) {
        if !matches!(&self.process.phase, Phase::Starting(start) if start.is_probe()) {
            return;
        }
        let delivery = match result {
            Ok(delivery) => {
                self.process.next_delivery = Some(delivery);
                delivery
            }
            Err(cause) => {
                out.warn(format!(
                    "Litestream is restarted at each rotation, for nobody knows whether it can do \
                     without: {cause}"
                ));
                Delivery::Environment
            }
        };
        self.survey(delivery, now, out);
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
        let Some(delivery) = start.surveyed() else {
            return;
        };
        let survey = match result {
            Ok(survey) => survey,
            Err(cause) => return self.wait_to_start(cause, jitter, now, out),
        };
        self.replica.ledger.surveyed(survey.folder);
        let is_broken = self.replica.ledger.is_broken();
        let because = match survey.wal_was_reset {
            true => Some(Because::WalWasReset),
            false => is_broken.then_some(Because::ReplicaIsBroken),
        };
        match because {
            Some(because) => {
                let start = Start::empty_wal(delivery, because, now);
                self.process.enter(Phase::Starting(start), now);
            }
            None => self.launch(delivery, now, out),
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
                self.process.is_up(now);
                self.replica.catch_up(now);
            }
            Err(cause) => self.wait_to_start(cause, jitter, now, out),
        }
    }

    /// The WAL was emptied before a start, or could not be. A good replica is not made wrong by a start:
    /// that waits. One that misses something already is better than none, and the next start tries again.
    pub(in crate::agent) fn emptied(
        &mut self,
        result: Result<(), String>,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Actions,
    ) {
        let Phase::Starting(start) = &self.process.phase else {
            return;
        };
        let Some((delivery, because)) = start.emptied() else {
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
                    "{why}; the WAL was emptied, so that Litestream uploads the whole database and \
                     misses no row"
                ));
                self.launch(delivery, now, out);
            }
            (Err(why), Because::WalWasReset) => {
                let cause = format!(
                    "{WAL_WAS_RESET}; the WAL has to be emptied before Litestream may start: {why}"
                );
                self.wait_to_start(cause, jitter, now, out);
            }
            (Err(why), Because::ReplicaIsBroken) => {
                self.replica.stays_broken(now);
                out.warn(format!("{MUST_BEGIN_ANEW}, and does not yet: {why}"));
                self.launch(delivery, now, out);
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
        match self.process.next_delivery {
            Some(delivery) => self.survey(delivery, now, out),
            None => self.begin_start(Start::probe(now), now, out),
        }
    }

    fn survey(&mut self, delivery: Delivery, now: BootTime, out: &mut Actions) {
        self.begin_start(Start::survey(delivery, now), now, out);
    }

    fn begin_start(&mut self, step: (Start, Action), now: BootTime, out: &mut Actions) {
        let (start, action) = step;
        self.process.enter(Phase::Starting(start), now);
        out.push(action);
    }

    /// Starts it with the newest credentials, which may have ended on the way here.
    fn launch(&mut self, delivery: Delivery, now: BootTime, out: &mut Actions) {
        if !self.process.has_credentials(now) {
            return self.process.enter(Phase::Idle, now);
        }
        self.introduced = false;
        self.rescue.hears();
        self.replica.starts();
        self.process.launched(delivery, now);
        out.push(Action::Start(delivery));
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
            "{cause}; started again in {:.1} s",
            wait.as_secs_f32()
        ));
        self.last_trouble = Some(cause);
    }
}
