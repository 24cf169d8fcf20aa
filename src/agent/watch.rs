//! A database, as the agent calls it, and the place for what is to be done about it.
//!
//! Owns the number, the name, and what is configured. Never knows how the database fares.

use std::rc::Rc;

use log::Level;

use super::{Action, Actions};
use crate::config::WAL_LIMIT;

/// A database, by the number that stands for its path as long as edgerepl runs.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Database(pub u16);

/// How a database is watched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Watch {
    /// Its number.
    pub database: Database,
    /// Its path, for people.
    pub name: Rc<str>,
    /// Heartbeat rows are written to it.
    pub rows: bool,
    /// The WAL is held while Litestream is down, up to so many bytes; `None`: it is not.
    pub wal_guard: Option<u64>,
}

impl Watch {
    /// A WAL that has grown by so many bytes waits for no upload that is put off.
    pub(super) fn wal_limit(&self) -> u64 {
        self.wal_guard.unwrap_or(WAL_LIMIT)
    }
}

/// Where the actions about one database gather.
#[derive(Debug)]
pub(super) struct Outbox<'a> {
    pub(super) database: Database,
    name: Option<Rc<str>>,
    actions: &'a mut Actions,
}

impl<'a> Outbox<'a> {
    pub(super) fn new(database: Database, name: Option<Rc<str>>, actions: &'a mut Actions) -> Self {
        Self {
            database,
            name,
            actions,
        }
    }

    pub(super) fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn info(&mut self, text: String) {
        self.log(Level::Info, text);
    }

    pub(super) fn warn(&mut self, text: String) {
        self.log(Level::Warn, text);
    }

    /// A sentence about it, with its name where it is one of several.
    pub(super) fn named(&self, text: String) -> String {
        match &self.name {
            Some(name) => format!("{name}: {text}"),
            None => text,
        }
    }

    fn log(&mut self, level: Level, text: String) {
        let text = self.named(text);
        self.push(Action::Log(level, text));
    }
}
