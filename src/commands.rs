//! The commands, one file each.
//!
//! Owns work that may block: each command runs in a process of its own, and its caller waits for
//! it. Never does the daemon's work, which is the reactor's.

pub(crate) mod access;
pub(crate) mod boot_check;
pub(crate) mod check;
pub(crate) mod credential_process;
pub(crate) mod csr;
mod databases;
pub(crate) mod init;
pub(crate) mod output;
mod patience;
pub(crate) mod pause;
pub(crate) mod restore;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod verify;
