//! The set of databases that are watched.
//!
//! Owns which ones: those that edgerepl's configuration names, those that Litestream's names, and those
//! that Litestream lists. So there is nothing that Litestream replicates and nobody watches. Never judges
//! one of them: `database` does.

use super::database::Watched;
use super::watch::{Database, Watch};
use super::{Action, Actions, Named};
use crate::clock::BootTime;

#[derive(Debug)]
pub(super) struct Databases {
    /// In the order of edgerepl's configuration, then as they came.
    all: Vec<Watched>,
    configured: Vec<Watch>,
    /// What Litestream's configuration names, until Litestream has listed what it replicates.
    named: Vec<Watch>,
    listed: Vec<Watch>,
    /// Litestream has listed it since its start.
    pub(super) is_told: bool,
    /// Litestream watches a folder: databases come and go.
    pub(super) change: bool,
    /// Why Litestream's configuration can't be read.
    pub(super) unreadable: Option<String>,
}

impl Databases {
    pub(super) fn new(configured: &[Watch], now: BootTime) -> Self {
        let mut databases = Self {
            all: Vec::new(),
            configured: configured.to_vec(),
            named: Vec::new(),
            listed: Vec::new(),
            is_told: false,
            change: false,
            unreadable: None,
        };
        databases.settle(now, &mut Actions::default());
        databases
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Watched> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Watched> {
        self.all.iter_mut()
    }

    pub(super) fn get(&self, database: Database) -> Option<&Watched> {
        self.all.iter().find(|watched| watched.id() == database)
    }

    pub(super) fn get_mut(&mut self, database: Database) -> Option<&mut Watched> {
        self.all.iter_mut().find(|watched| watched.id() == database)
    }

    pub(super) fn has_one(&self) -> bool {
        self.all.len() == 1
    }

    /// Each of them followed at its last answer, or needs nothing.
    pub(super) fn follow(&self) -> bool {
        self.all.iter().all(Watched::follows)
    }

    /// The same, and there is one that Litestream followed.
    pub(super) fn are_replicated(&self) -> bool {
        self.follow() && self.all.iter().any(|watched| watched.replica.follows())
    }

    /// edgerepl's configuration names these now. Returns whether others are watched than before.
    pub(super) fn configured(
        &mut self,
        watches: &[Watch],
        now: BootTime,
        out: &mut Actions,
    ) -> bool {
        self.configured = watches.to_vec();
        self.settle(now, out)
    }

    /// Litestream's configuration names these, or can't be read. While Litestream runs, it goes by what it
    /// read at its start.
    pub(super) fn named(
        &mut self,
        named: Result<Named, String>,
        runs: bool,
        now: BootTime,
        out: &mut Actions,
    ) -> bool {
        if !runs {
            self.named.clear();
        }
        match named {
            Ok(named) => {
                self.unreadable = None;
                self.change = named.change;
                self.named.extend(named.watches);
            }
            Err(cause) => {
                self.unreadable = Some(cause);
                // Nobody knows that they don't.
                self.change = true;
            }
        }
        self.settle(now, out)
    }

    /// Litestream lists these.
    pub(super) fn listed(&mut self, listed: Vec<Watch>, now: BootTime, out: &mut Actions) {
        self.is_told = true;
        self.named.clear();
        self.listed = listed;
        self.settle(now, out);
    }

    /// Adds what is new, and drops what is gone; what was watched stays as it is.
    fn settle(&mut self, now: BootTime, out: &mut Actions) -> bool {
        let mut wanted: Vec<&Watch> = Vec::new();
        for watch in self
            .configured
            .iter()
            .chain(&self.named)
            .chain(&self.listed)
        {
            if wanted.iter().all(|known| known.database != watch.database) {
                wanted.push(watch);
            }
        }
        let before = self.all.len();
        let mut is_other = false;
        let mut old = std::mem::take(&mut self.all);
        for watch in wanted {
            match old
                .iter()
                .position(|watched| watched.id() == watch.database)
            {
                Some(at) => {
                    let mut watched = old.swap_remove(at);
                    watched.watch = watch.clone();
                    self.all.push(watched);
                }
                None => {
                    is_other = true;
                    out.push(Action::Recall(watch.database));
                    self.all.push(Watched::new(watch.clone(), now));
                }
            }
        }
        for mut gone in old {
            gone.goes(out);
        }
        let has_siblings = self.all.len() > 1;
        for watched in &mut self.all {
            watched.has_siblings = has_siblings;
        }
        is_other || self.all.len() != before
    }
}
