//! The transitions of the hand-over with each step of a start.
//!
//! Owns when Litestream begins anew with a database. Never starts a Litestream that would make a good
//! replica wrong: one that takes a WAL that was reset while it was down for the WAL that it knows. Only
//! where other databases wait too long for that one is its replica given up, until it is uploaded anew.

use super::process::Phase;
use super::start::{Start, Step};
use super::{Introduction, Replicator, Turn};
use crate::agent::Action;
use crate::agent::database::Watched;
use crate::agent::databases::Databases;
use crate::agent::replica::{Because, Emptied};
use crate::agent::watch::Database;
use crate::clock::BootTime;
use crate::config::Rotation;
use crate::litestream::answer::Survey;

/// The reasons: the WAL is not the one that Litestream knows; the replica is wrong.
const WAL_WAS_RESET: &str = "the WAL was reset while Litestream did not hold it";
const EMPTY: &str = "the database is an empty file, which Litestream would take for the database: it is not \
                     started before it is known that S3 holds no replica";
const NOT_STARTED: &str =
    "Litestream is not started: it would mix this device's transactions with the other's";
const MUST_BEGIN_ANEW: &str = "Litestream has to upload the whole database";

impl Replicator {
    /// How Litestream can get credentials is known, or unknown; then the safe way is used.
    pub(in crate::agent) fn probed(
        &mut self,
        result: Result<Rotation, String>,
        turn: &mut Turn<'_>,
    ) {
        if self.step() != Some(Step::Probe) {
            return;
        }
        let rotation = match result {
            Ok(rotation) => {
                self.process.probed = Some(rotation);
                rotation
            }
            Err(cause) => {
                turn.out.warn(format!(
                    "Litestream is restarted at each rotation, because its version is unknown: {cause}"
                ));
                Rotation::Restart
            }
        };
        self.survey(rotation, turn);
    }

    /// The state of Litestream's files and of a WAL is known, or not.
    pub(in crate::agent) fn surveyed(
        &mut self,
        database: Database,
        result: Result<Survey, String>,
        turn: &mut Turn<'_>,
    ) {
        let Some(Step::Survey(rotation)) = self.step() else {
            return;
        };
        let Some(watched) = turn.databases.get_mut(database) else {
            return;
        };
        let shows_rows = watched.shows_rows(turn.has_rows);
        let result = match result {
            Ok(survey)
                if survey.is_empty && watched.creation.forbids_start(!shows_rows, turn.now) =>
            {
                Err(watched.outbox(turn.out).named(EMPTY.to_owned()))
            }
            other => other,
        };
        match result {
            Ok(survey) => {
                let is_held = watched.is_held_for_survey();
                watched.replica.surveyed(survey, is_held, turn.now);
            }
            Err(cause) if !watched.replica.not_surveyed(watched.has_siblings) => {
                return self.wait_to_start(cause, turn);
            }
            Err(cause) => {
                let mut out = watched.outbox(turn.out);
                out.warn(format!(
                    "Litestream starts for the other databases' sake: {cause}"
                ));
                watched.trouble = Some(cause);
            }
        }
        self.go_on_surveyed(rotation, turn);
    }

    /// It is known whether the bucket is ahead of Litestream's files, or unknown.
    pub(in crate::agent) fn looked_ahead(
        &mut self,
        database: Database,
        result: Result<Option<u64>, String>,
        turn: &mut Turn<'_>,
    ) {
        let now = turn.now;
        turn.of(database, |watched, out| {
            let mut out = watched.outbox(out);
            if let Some(at) = watched.claim.looked(result, now, &mut out) {
                watched.restorable.finds_stranger(at, now, &mut out);
            }
        });
        if let Some(Step::Survey(rotation)) = self.step() {
            self.go_on_surveyed(rotation, turn);
        }
    }

    /// Nothing is left to examine, perhaps.
    pub(super) fn go_on_surveyed(&mut self, rotation: Rotation, turn: &mut Turn<'_>) {
        let is_understood = match &self.process.phase {
            Phase::Starting(start) => start.is_understood(),
            _ => false,
        };
        let is_examined = |w: &Watched| w.replica.is_surveyed() && w.claim.is_settled();
        if !is_understood || !turn.databases.iter().all(is_examined) {
            return;
        }
        if self.belongs_to_others(turn) {
            turn.out.warn(NOT_STARTED.to_owned());
            turn.stop_all();
            let until = BootTime::NEVER;
            return self.process.enter(Phase::Waiting { until }, turn.now);
        }
        if turn.databases.iter().any(|w| w.replica.wants_reset()) {
            return self.drop_state(turn);
        }
        for watched in turn.databases.iter_mut() {
            watched.replica.goes_on();
        }
        if turn.databases.iter().any(|w| w.replica.empties_wal()) {
            let start = Start::empty_wals(rotation, turn.databases.has_one(), turn.now);
            return self.process.enter(Phase::Starting(start), turn.now);
        }
        self.launch(rotation, turn);
    }

    pub(in crate::agent) fn started(&mut self, result: Result<(), String>, turn: &mut Turn<'_>) {
        if self.step() != Some(Step::Launch) {
            return;
        }
        match result {
            Ok(()) => {
                // Answers since the stop came from the previous process.
                self.introduction = Introduction::Unmet;
                self.waits_until = None;
                turn.databases.is_told = false;
                self.process.is_up(turn.now);
                turn.catch_up();
            }
            Err(cause) => self.wait_to_start(cause, turn),
        }
    }

    /// A WAL was emptied, or could not be.
    pub(in crate::agent) fn emptied(
        &mut self,
        database: Database,
        result: Result<(), String>,
        turn: &mut Turn<'_>,
    ) {
        let Some(watched) = turn.databases.get_mut(database) else {
            return;
        };
        let has_siblings = watched.has_siblings;
        let emptied = watched
            .replica
            .emptied(result.is_ok(), has_siblings, turn.now);
        let cause = result.err().unwrap_or_default();
        let mut out = watched.outbox(turn.out);
        match emptied {
            Emptied::Aside => return,
            Emptied::Begins(because) => {
                watched.restorable.hasten(turn.now);
                let why = match because {
                    Because::WalWasReset => WAL_WAS_RESET,
                    Because::ReplicaIsBroken => MUST_BEGIN_ANEW,
                };
                out.warn(format!(
                    "{why}; the WAL was emptied, and Litestream uploads the whole database, so no row is \
                     lost"
                ));
            }
            Emptied::Later => out.warn(format!(
                "{MUST_BEGIN_ANEW}, but the WAL could not be emptied: {cause}"
            )),
            Emptied::Blocked => {
                let cause = out.named(format!(
                    "{WAL_WAS_RESET}; the WAL has to be emptied before Litestream may start: {cause}"
                ));
                return self.wait_to_start(cause, turn);
            }
        }
        self.go_on_emptied(turn);
    }

    /// Empties what nobody of ours holds any more, and launches Litestream once all is done.
    pub(super) fn go_on_emptied(&mut self, turn: &mut Turn<'_>) {
        let Some(Step::Empty(rotation)) = self.step() else {
            return;
        };
        for watched in turn.databases.iter_mut() {
            if watched.can_be_emptied() && watched.replica.begin_emptying() {
                turn.out.push(Action::EmptyWal(watched.id()));
            }
        }
        if !turn.databases.iter().any(|w| w.replica.empties_wal()) {
            self.launch(rotation, turn);
        }
    }

    /// A step took too long. What a database with siblings holds up goes on without it, at last.
    pub(super) fn start_is_late(&mut self, turn: &mut Turn<'_>) {
        let Phase::Starting(start) = &mut self.process.phase else {
            return;
        };
        start.understands();
        let (trouble, step) = (start.trouble(), start.step());
        turn.out.push(Action::AbandonStart);
        let mut is_given_up = !turn.databases.has_one();
        for watched in turn.databases.iter_mut().filter(|w| w.has_siblings) {
            if !watched.replica.is_surveyed() || watched.replica.empties_wal() {
                is_given_up &= watched.replica.gives_up(turn.now);
            }
            // What could not be looked at in all that time holds up no upload.
            if !watched.claim.is_settled() {
                watched.claim.waive();
            }
        }
        match step {
            Step::Survey(rotation) if is_given_up => {
                turn.out
                    .warn(format!("{trouble}; Litestream starts all the same"));
                self.go_on_surveyed(rotation, turn);
            }
            Step::Empty(rotation) if is_given_up => {
                turn.out
                    .warn(format!("{trouble}; Litestream starts all the same"));
                self.launch(rotation, turn);
            }
            _ => {
                turn.stop_all();
                let wait = self.process.start_was_late(turn.now);
                turn.out
                    .warn(format!("{trouble}; retrying in {} s", wait.as_secs()));
                self.last_trouble = Some(trouble);
            }
        }
    }

    pub(super) fn start_or_idle(&mut self, turn: &mut Turn<'_>) {
        if self.process.has_credentials(turn.now) {
            self.start(turn);
        } else {
            self.process.enter(Phase::Idle, turn.now);
        }
    }

    pub(super) fn start(&mut self, turn: &mut Turn<'_>) {
        if turn.databases.iter().any(|w| w.replica.wants_reset()) {
            return self.drop_state(turn);
        }
        match self.process.next_rotation() {
            Some(rotation) => self.survey(rotation, turn),
            None => {
                let start = Start::probe(turn.now);
                self.process.enter(Phase::Starting(start), turn.now);
                turn.out.push(Action::Probe);
            }
        }
    }

    fn survey(&mut self, rotation: Rotation, turn: &mut Turn<'_>) {
        let start = Start::survey(rotation, turn.now);
        self.process.enter(Phase::Starting(start), turn.now);
        turn.stop_all();
        turn.out.push(Action::Understand);
        self.survey_all(turn);
    }

    /// Has those examined that are not yet.
    fn survey_all(&self, turn: &mut Turn<'_>) {
        let is_first = self.process.starts == 0;
        let looks_ahead = is_first && self.process.is_child() && turn.paces.plans();
        for watched in turn.databases.iter_mut() {
            if watched.replica.begin_survey() {
                // What is reset after the look at it nobody sees.
                watched.take_guard(turn.now, turn.out);
                turn.out.push(Action::Survey(watched.id()));
            }
            if looks_ahead {
                let mut out = watched.outbox(turn.out);
                watched.claim.begin(turn.now, &mut out);
            } else {
                watched.claim.waive();
            }
        }
    }

    /// Of all that this device replicates another one was seen to write to the prefix before anything was
    /// uploaded: a Litestream here would make its replica a mixture.
    fn belongs_to_others(&self, turn: &Turn<'_>) -> bool {
        let is_others = |w: &Watched| w.is_away() || w.restorable.is_shared();
        // One that is not there may come once Litestream runs.
        let is_any = turn.databases.iter().any(|w| w.restorable.is_shared());
        self.process.starts == 0 && is_any && turn.databases.iter().all(is_others)
    }

    /// Looks again at the buckets that are ahead, where that is due.
    pub(super) fn look_ahead(&mut self, turn: &mut Turn<'_>) {
        for watched in turn.databases.iter_mut() {
            let mut out = watched.outbox(turn.out);
            watched.claim.advance(turn.now, &mut out);
        }
        if let Some(Step::Survey(rotation)) = self.step() {
            self.go_on_surveyed(rotation, turn);
        }
    }

    /// When a look is due, or a WAL can be emptied that our guard has released.
    pub(super) fn goes_on_at(databases: &Databases) -> BootTime {
        let all = databases.iter().map(|w| match w.can_be_emptied() {
            true => BootTime::default(),
            false => w.claim.deadline(),
        });
        all.min().unwrap_or(BootTime::NEVER)
    }

    /// What Litestream's configuration names is known: others may have to be examined than before.
    pub(in crate::agent) fn understood(&mut self, turn: &mut Turn<'_>) {
        if let Phase::Starting(start) = &mut self.process.phase
            && let Step::Survey(rotation) = start.step()
        {
            start.understands();
            self.survey_all(turn);
            self.go_on_surveyed(rotation, turn);
        }
    }

    /// Launches Litestream with the newest credentials, which may have expired meanwhile.
    fn launch(&mut self, rotation: Rotation, turn: &mut Turn<'_>) {
        let is_late = self.leaving.is_some_and(|limit| limit <= turn.now);
        if !self.process.has_credentials(turn.now) || is_late {
            turn.stop_all();
            return self.process.enter(Phase::Idle, turn.now);
        }
        self.rescue.hears();
        for watched in turn.databases.iter_mut() {
            watched.replica.starts();
        }
        self.process.launched(rotation, turn.now);
        turn.out.push(Action::Start(rotation));
    }

    pub(super) fn wait_to_start(&mut self, cause: String, turn: &mut Turn<'_>) {
        turn.stop_all();
        let wait = self.process.wait_to_start(turn.jitter, turn.now);
        turn.out.warn(format!(
            "{cause}; restarting in {:.1} s",
            wait.as_secs_f32()
        ));
        self.last_trouble = Some(cause);
    }

    /// The step of a start that is under way.
    fn step(&self) -> Option<Step> {
        match &self.process.phase {
            Phase::Starting(start) => Some(start.step()),
            _ => None,
        }
    }
}
