//! Abandoned children: ended by themselves, killed, or stuck in the kernel.
//!
//! Owns their processes until they are collected. Never starts one, and reads none of their output.

use std::time::Duration;

use crate::clock::BootTime;
use crate::system::process::Process;

/// Children that nothing waits for.
#[derive(Debug, Default)]
pub(super) struct Leftovers(Vec<(Process, BootTime)>);

impl Leftovers {
    /// How long such a child has to end by itself.
    const GRACE: Duration = Duration::from_secs(3);

    /// If this many survive SIGKILL, stuck in the kernel, no child is added.
    const MOST: usize = 4;

    pub(super) fn add(&mut self, child: Process) {
        self.0.push((child, BootTime::now() + Self::GRACE));
    }

    /// Whether a child may be started that might end up here.
    pub(super) fn has_room(&self) -> Result<(), String> {
        if self.0.len() < Self::MOST {
            return Ok(());
        }
        Err(
            "too many earlier children are stuck in the kernel; check the secure element's bus"
                .to_owned(),
        )
    }

    /// When the next one is to be killed.
    pub(super) fn deadline(&self) -> BootTime {
        self.0
            .iter()
            .map(|(_, deadline)| *deadline)
            .min()
            .unwrap_or(BootTime::NEVER)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|(child, _)| child.id())
    }

    /// Forgets those that have ended, and kills those past their deadline.
    pub(super) fn reap(&mut self) {
        let now = BootTime::now();
        self.0.retain_mut(|(child, deadline)| {
            let alive = child.ended().is_none();
            if alive && *deadline <= now {
                child.kill();
                *deadline = BootTime::NEVER;
            }
            alive
        });
    }

    pub(super) fn kill_all(&self) {
        for (child, _) in &self.0 {
            child.kill();
        }
    }
}
