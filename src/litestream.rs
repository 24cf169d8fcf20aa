//! Litestream, from the outside: its command line, its configuration, its control socket, its unit.
//!
//! Owns what is known about Litestream's ways. Keeps no state and decides nothing; the loop waits for
//! none of it: it hands out commands for the reactor to run, and a connection for the reactor to poll.

pub mod answer;
pub mod command;
pub mod config_file;
pub mod control;
pub mod leash;
pub(crate) mod lineage;
pub(crate) mod restore;
mod trouble;
pub mod unit;
