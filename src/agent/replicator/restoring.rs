//! What a restore would give, of each database: when that is planned and verified, and the stop of
//! Litestream for a new snapshot.
//!
//! Owns that one replica at a time is verified, and that nothing is looked at but while Litestream follows.
//! Never judges what is found: `restorable` and `verification` do.

use std::time::Duration;

use super::process::{LEAST_TERM, Phase};
use super::thrift::Thrift;
use super::{Replicator, Turn};
use crate::agent::Policy;
use crate::agent::database::Watched;
use crate::agent::databases::Databases;
use crate::agent::verification::Moment;
use crate::agent::watch::Database;
use crate::clock::BootTime;

/// No verify begins so shortly before a hand-over.
const NEAR: Duration = Duration::from_secs(10);

/// How often Litestream is asked for a proof, and how often it is looked at what a restore would give.
#[derive(Clone, Copy, Debug)]
pub(in crate::agent) struct Paces {
    pub(super) proof: Duration,
    /// A device that follows has uploaded what was committed by then.
    upload: Duration,
    restorable: Option<Duration>,
    verify: Option<Duration>,
}

impl Paces {
    pub(in crate::agent) fn of(policy: &Policy, thrift: &Thrift) -> Self {
        Self {
            proof: thrift.rpo(policy).pace(),
            upload: thrift.rpo(policy).bound(),
            restorable: policy.restorable,
            verify: policy.verify,
        }
    }

    /// It is looked at what the bucket holds.
    pub(super) fn plans(&self) -> bool {
        self.restorable.is_some()
    }
}

impl Replicator {
    /// Plans what is due, and makes a new snapshot where one is missing and may be made.
    pub(super) fn look_at_restores(&mut self, turn: &mut Turn<'_>) {
        let can_plan = self.can_plan();
        for watched in turn.databases.iter_mut() {
            let grounds = watched.grounds(turn.paces.upload).filter(|_| can_plan);
            let mut out = watched.outbox(turn.out);
            let restorable = &mut watched.restorable;
            restorable.advance(
                turn.paces.restorable,
                grounds,
                turn.jitter,
                turn.now,
                &mut out,
            );
        }
        self.verify(turn);
        if self.mended_at(turn.databases) > turn.now {
            return;
        }
        if !self.process.has_credentials(turn.now) {
            for watched in turn.databases.iter_mut() {
                watched.puts_mending_off(turn.now + LEAST_TERM);
            }
            return;
        }
        for watched in turn.databases.iter_mut() {
            if watched.mends_at() <= turn.now {
                watched.begin_mending(turn.now);
                let mut out = watched.outbox(turn.out);
                out.warn(
                    "Litestream is stopped to upload a new snapshot, without which the database can't be \
                     restored"
                        .to_owned(),
                );
            }
        }
        self.prepare(turn);
    }

    /// Has one database verified, if that is due and none is.
    fn verify(&self, turn: &mut Turn<'_>) {
        let (can_verify, is_near) = (self.can_verify(), self.stop_is_near(turn));
        for watched in turn.databases.iter_mut() {
            let mut out = watched.outbox(turn.out);
            let pace = turn.paces.verify;
            watched
                .verification
                .advance(pace, turn.jitter, turn.now, &mut out);
        }
        let mut is_busy = verifies(turn.databases);
        for watched in turn.databases.iter_mut() {
            if can_verify && !is_busy && watched.has_grounds() {
                let moment = Moment::of(turn.phase, watched.id());
                let mut out = watched.outbox(turn.out);
                let verification = &mut watched.verification;
                verification.take_turn(moment, is_near, turn.now, &mut out);
                is_busy = verification.is_under_way();
            }
        }
    }

    /// A verify that begins now would soon wait for a Litestream that is stopped.
    fn stop_is_near(&self, turn: &Turn<'_>) -> bool {
        let now = turn.now;
        let left = self
            .process
            .term
            .map_or(Duration::ZERO, |term| term.ends.since(now));
        let near = now + NEAR.min(left / 4);
        !self.process.refreshes() && turn.renewal.is_none_or(|due| due <= near)
    }

    /// Litestream runs, and goes on running.
    fn can_plan(&self) -> bool {
        matches!(self.process.phase, Phase::Running) && self.leaving.is_none()
    }

    /// The same, and nothing is spared: a verify downloads the whole database.
    fn can_verify(&self) -> bool {
        self.can_plan() && self.thrift.held_back().is_none()
    }

    /// When a new snapshot is made.
    pub(super) fn mended_at(&self, databases: &Databases) -> BootTime {
        let all = databases.iter().map(Watched::mends_at);
        match self.can_plan() {
            true => all.min().unwrap_or(BootTime::NEVER),
            false => BootTime::NEVER,
        }
    }

    /// When a restore has to be planned or a replica verified, or that is late.
    pub(super) fn looked_at(&self, databases: &Databases) -> BootTime {
        let (can_plan, can_verify) = (self.can_plan(), self.can_verify());
        let all = databases.iter();
        let is_busy = verifies(databases);
        let looks = all.map(|w| {
            let has_grounds = w.has_grounds();
            let verify = w
                .verification
                .deadline(has_grounds && can_verify && !is_busy);
            w.restorable.deadline(has_grounds && can_plan).min(verify)
        });
        looks.min().unwrap_or(BootTime::NEVER)
    }

    /// A new snapshot of a database was uploaded, or could not be.
    pub(in crate::agent) fn snapshotted(
        &mut self,
        database: Database,
        result: Result<(), String>,
        turn: &mut Turn<'_>,
    ) {
        if !matches!(self.process.phase, Phase::Resetting { .. }) {
            return;
        }
        if let Some(watched) = turn.databases.get_mut(database) {
            let mut out = watched.outbox(turn.out);
            match &result {
                Ok(()) => out.info("Litestream has uploaded a new snapshot".to_owned()),
                Err(cause) => out.warn(format!("a new snapshot could not be uploaded: {cause}")),
            }
            watched.snapshotted(result, turn.now);
        }
        self.go_on_reset(turn);
    }
}

/// One of them is verified.
fn verifies(databases: &Databases) -> bool {
    databases.iter().any(|w| w.verification.is_under_way())
}
