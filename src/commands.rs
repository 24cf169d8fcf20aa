//! What each command does: one file a command.
//!
//! Owns what may block: each runs in a process of its own, for somebody who waits. Never the daemon's
//! work, which is the reactor's.

pub(crate) mod access;
pub(crate) mod check;
pub(crate) mod credential_process;
pub(crate) mod csr;
pub(crate) mod output;
mod patience;
pub(crate) mod restore;
pub(crate) mod status;
pub(crate) mod verify;
