//! Sockets in the runtime directory, by which one edgerepl process asks another.
//!
//! Owns both ends of each socket, in one file: what is sent, who may ask, and how. Never waits for
//! a client; a process that asks waits no longer than `socket::PATIENCE`.

pub(crate) mod credentials;
pub(crate) mod socket;
pub(crate) mod status;
pub(crate) mod wish;
