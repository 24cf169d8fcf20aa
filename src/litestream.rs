//! Litestream from outside: its command line, configuration, control socket and unit.
//!
//! Owns the knowledge of Litestream's behaviour. Never keeps state, never decides, and never makes
//! the loop wait: it returns commands for the reactor to run, and a connection for the reactor to
//! poll.

pub mod answer;
pub(crate) mod bucket;
pub mod chain;
pub mod command;
pub mod config_file;
pub mod control;
pub(crate) mod cost;
pub mod leash;
pub(crate) mod lineage;
pub mod moment;
pub(crate) mod own_config;
pub(crate) mod restore;
mod trouble;
pub mod unit;
pub(crate) mod uploads;
