//! Thrift: uploads that wait, because the line is metered or somebody asked for it.
//!
//! Owns the two reasons, how much may be lost meanwhile, and what is healthy then; and what a network that comes
//! back is good for. Never holds an upload back itself: the pace of the proofs follows from it.

use std::time::Duration;

use super::{Paces, Replicator, Turn};
use crate::agent::{Policy, Rpo};
use crate::clock::BootTime;

/// What is known of the line, and what was asked for.
#[derive(Debug, Default)]
pub(in crate::agent) struct Thrift {
    is_metered: bool,
    is_paused: bool,
    /// When uploads waited last.
    ended: Option<BootTime>,
}

/// Why uploads wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeldBack {
    /// Somebody asked for it, and has not asked for the end of it.
    Paused,
    /// The line is metered.
    Metered,
}

impl HeldBack {
    /// The word for it in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Metered => "metered",
        }
    }
}

impl Thrift {
    /// Why uploads wait, if they do.
    pub(in crate::agent) fn held_back(&self) -> Option<HeldBack> {
        match (self.is_paused, self.is_metered) {
            (true, _) => Some(HeldBack::Paused),
            (false, true) => Some(HeldBack::Metered),
            (false, false) => None,
        }
    }

    /// How much may be lost now.
    pub(in crate::agent) fn rpo(&self, policy: &Policy) -> Rpo {
        match self.held_back() {
            Some(_) => policy.rpo_metered,
            None => policy.rpo,
        }
    }

    /// A device is healthy while nothing that is older is unproved. What has waited is uploaded once that is
    /// over, which takes no longer than any other upload.
    pub(in crate::agent) fn bound(&self, policy: &Policy, now: BootTime) -> Duration {
        let bound = self.rpo(policy).bound();
        match self.ended {
            Some(ended) if now.since(ended) < bound => bound.max(policy.rpo_metered.bound()),
            _ => bound,
        }
    }
}

impl Replicator {
    /// The line is metered, or is not any more. Returns whether uploads cease to wait by that.
    pub(in crate::agent) fn metered(
        &mut self,
        is_metered: bool,
        policy: &Policy,
        turn: &mut Turn<'_>,
    ) -> bool {
        self.change(policy, turn, |thrift| thrift.is_metered = is_metered)
    }

    /// Somebody asked for a pause, or for its end. Returns the same.
    pub(in crate::agent) fn pause(
        &mut self,
        is_wanted: bool,
        policy: &Policy,
        turn: &mut Turn<'_>,
    ) -> bool {
        self.change(policy, turn, |thrift| thrift.is_paused = is_wanted)
    }

    /// What failed may succeed now.
    pub(in crate::agent) fn network_changed(&mut self, turn: &mut Turn<'_>) {
        let soon = at_a_sites_pace(turn);
        for watched in turn.databases.iter_mut() {
            watched.replica.hasten(soon);
        }
    }

    /// There is a way out again: what is there to be uploaded is, unless uploads wait. Returns whether they do
    /// not.
    pub(in crate::agent) fn network_is_back(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.thrift.held_back().is_some() {
            return false;
        }
        let soon = at_a_sites_pace(turn);
        for watched in turn.databases.iter_mut() {
            watched.replica.hurry(soon);
        }
        true
    }

    fn change(
        &mut self,
        policy: &Policy,
        turn: &mut Turn<'_>,
        change: impl FnOnce(&mut Thrift),
    ) -> bool {
        let before = self.thrift.held_back();
        change(&mut self.thrift);
        let after = self.thrift.held_back();
        if before == after {
            return false;
        }
        let most = self.thrift.rpo(policy).most().as_secs();
        turn.out.info(match after {
            Some(HeldBack::Paused) => {
                format!(
                    "uploads wait, for {most} s at the most, because somebody asked for a pause"
                )
            }
            Some(HeldBack::Metered) => {
                format!("uploads wait, for {most} s at the most, because the line is metered")
            }
            None => "uploads do not wait any more".to_owned(),
        });
        if after.is_none() {
            self.thrift.ended = Some(turn.now);
        }
        turn.paces = Paces::of(policy, &self.thrift);
        turn.keep_pace();
        after.is_none()
    }
}

/// A site comes back all at once.
fn at_a_sites_pace(turn: &mut Turn<'_>) -> BootTime {
    turn.now + turn.jitter.between(Duration::ZERO, Duration::from_secs(1))
}
