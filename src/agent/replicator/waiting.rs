//! What waits for an upload that is under way: a restart for new credentials, for other databases, for a
//! replica that does not follow; and the end of a new snapshot.
//!
//! Owns how long each waits. Never judges whether an upload moves: `upload` does.

use std::time::Duration;

use super::process::Phase;
use super::upload::PATIENCE;
use super::{Replicator, Turn};
use crate::agent::Sent;
use crate::agent::database::Watched;
use crate::agent::databases::Databases;
use crate::clock::BootTime;

/// What is uploaded while Litestream is stopped is given so long after it last moved.
const STANDSTILL: Duration = Duration::from_secs(360);

impl Replicator {
    /// Litestream is to be restarted, which would cut an upload: it waits for one, as long as the credentials
    /// last that Litestream has.
    pub(super) fn hand_over(&mut self, turn: &mut Turn<'_>) {
        let until = self.process.may_wait_until();
        match until.filter(|until| *until > turn.now) {
            Some(until) => {
                self.waits_until.get_or_insert(until);
                self.upload.look_now();
            }
            None => self.prepare(turn),
        }
    }

    /// It was looked at what Litestream has sent.
    pub(in crate::agent) fn measured(&mut self, sent: Option<Sent>, turn: &mut Turn<'_>) {
        self.upload.measured(sent, turn.now);
        match &self.process.phase {
            Phase::Running if self.waits_until.is_some() && !self.upload.is_under_way() => {
                self.upload.is_not_cut();
                self.prepare(turn);
            }
            Phase::Resetting { .. } => {
                if let Some(moved) = self.upload.moved() {
                    self.process.resets_until(moved + STANDSTILL);
                }
            }
            _ => {}
        }
    }

    /// Looks at it where something waits for it, and ends the wait where that is over.
    pub(super) fn look_at_upload(&mut self, turn: &mut Turn<'_>) {
        let is_running = matches!(self.process.phase, Phase::Running);
        if is_running && self.waits_until.is_some_and(|until| until <= turn.now) {
            return self.cut_upload(turn);
        }
        let since = self.awaits_upload(turn.databases);
        turn.out.extend(self.upload.advance(since, turn.now));
    }

    /// When that is due.
    pub(super) fn upload_at(&self, databases: &Databases) -> BootTime {
        let look = self.upload.due(self.awaits_upload(databases));
        match self.process.phase {
            Phase::Running => look.min(self.waits_until.unwrap_or(BootTime::NEVER)),
            _ => look,
        }
    }

    /// Since when something waits for an upload, perhaps.
    fn awaits_upload(&self, databases: &Databases) -> Option<BootTime> {
        match &self.process.phase {
            Phase::Running if self.waits_until.is_some() => Some(BootTime::default()),
            Phase::Running => {
                let behind = databases.iter().filter(|w| !w.is_away() && !w.follows());
                let waits = behind.filter_map(|w| w.replica.ledger.waits_since());
                Some(waits.min()?.max(self.process.up_since) + PATIENCE)
            }
            Phase::Resetting { .. } => {
                let is_making = |w: &Watched| w.restorable.is_making_snapshot();
                let is_any = databases.iter().any(is_making);
                is_any.then_some(self.process.since + PATIENCE)
            }
            _ => None,
        }
    }

    /// The credentials end: the upload has had all the time that there is.
    fn cut_upload(&mut self, turn: &mut Turn<'_>) {
        if self.process.refreshes() {
            turn.out.warn(
                "a restart for a configuration that was changed has cut an upload, which begins again"
                    .to_owned(),
            );
        } else if let Some(term) = self.process.term {
            let lifetime = term.ends.since(term.begins);
            // The next session is younger by as much when Litestream gets it, too.
            let unused = turn.now.since(term.begins);
            let was_behind = !turn.databases.follow();
            let text = self.upload.is_cut(lifetime, unused, was_behind);
            turn.out.warn(text);
        }
        self.prepare(turn);
    }
}
