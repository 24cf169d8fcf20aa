//! What the loop itself has open of each database: a connection for heartbeat rows, and the WAL guard.
//!
//! Owns both for each of them, and turns what comes of them into events. Each access is short, whatever
//! the size of the database. Never decides when one is due.

use std::collections::BTreeMap;

use log::warn;

use super::context::Context;
use crate::agent::{Database, Event};
use crate::clock::WallTime;
use crate::litestream::lineage;
use crate::store::{self, Store, WalGuard};
use crate::system::heap;

#[derive(Debug)]
pub(super) struct Stores {
    started: WallTime,
    stores: BTreeMap<Database, Store>,
    guards: BTreeMap<Database, WalGuard>,
}

impl Stores {
    /// Those of a daemon that started then.
    pub(super) fn new(started: WallTime) -> Self {
        Self {
            started,
            stores: BTreeMap::new(),
            guards: BTreeMap::new(),
        }
    }

    /// Heartbeat rows go elsewhere from now on.
    pub(super) fn forget_rows(&mut self) {
        self.stores.clear();
    }

    pub(super) fn write_row(&mut self, database: Database, context: &Context) -> Option<Event> {
        let store = self.store(database, context)?;
        Some(match store::is_missing(context.path(database)) {
            true => Event::DatabaseMissing(database),
            false => Event::Row(database, store.write_row()),
        })
    }

    pub(super) fn write_first_row(
        &mut self,
        database: Database,
        context: &Context,
    ) -> Option<Event> {
        let store = self.store(database, context)?;
        Some(Event::Row(database, store.write_first_row()))
    }

    pub(super) fn ask_row_before(&self, database: Database, id: i64) -> Option<Event> {
        let age = self.stores.get(&database)?.age_of_row_before(id)?;
        Some(Event::Inherited(database, age))
    }

    pub(super) fn prune(&mut self, database: Database, context: &Context) {
        let heartbeat = context.settings.heartbeat.as_ref();
        if let Some(keep) = heartbeat.and_then(|heartbeat| heartbeat.keep)
            && let Some(store) = self.stores.get_mut(&database)
            && let Err(cause) = store.prune(keep)
        {
            warn!("old heartbeat rows could not be pruned: {cause}");
        }
    }

    /// The last commit in the WAL, where there is a database.
    pub(super) fn last_commit(database: Database, context: &Context) -> Event {
        let path = context.path(database);
        match store::is_missing(path) {
            true => Event::DatabaseMissing(database),
            false => Event::LastCommit(database, lineage::last_commit(path).ok()),
        }
    }

    pub(super) fn take_guard(&mut self, database: Database, context: &Context) -> Event {
        let taken = WalGuard::take(context.path(database));
        let result = taken.map(|guard| {
            self.guards.insert(database, guard);
        });
        Event::GuardTaken(database, result)
    }

    pub(super) fn release_guard(&mut self, database: Database) {
        // At a start of Litestream all databases are held at once.
        if self.guards.remove(&database).is_some() && self.guards.is_empty() {
            heap::give_back();
        }
    }

    /// A WAL is held.
    pub(super) fn guard_any(&self) -> bool {
        !self.guards.is_empty()
    }

    /// The WALs that are held and have reached their bounds.
    pub(super) fn too_large(&self, context: &Context) -> impl Iterator<Item = Event> {
        let large = self.guards.iter().filter(|(database, guard)| {
            let limit = context.wal_limit(**database);
            limit.is_some_and(|limit| guard.wal_size() > limit)
        });
        large.map(|(database, _)| Event::WalTooLarge(*database))
    }

    fn store(&mut self, database: Database, context: &Context) -> Option<&mut Store> {
        let heartbeat = context.settings.heartbeat.as_ref()?;
        let started = self.started;
        let make = || Store::new(context.path(database), &heartbeat.table, started);
        Some(self.stores.entry(database).or_insert_with(make))
    }
}
