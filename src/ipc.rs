//! Sockets in the runtime directory, by which one edgerepl asks another.
//!
//! Owns both ends of each socket, in one file: what is said over it, who may ask, and how. Never waits
//! for a client; a process that asks is waited for no longer than `socket::PATIENCE`.

pub(crate) mod credentials;
pub(crate) mod socket;
pub(crate) mod status;
