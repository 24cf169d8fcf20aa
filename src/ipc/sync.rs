//! The wish that everything is uploaded now, over a socket.
//!
//! Owns both ends. A connection is the wish, and carries nothing: what comes of it is in the status.

use std::io;

use super::socket::{self, Door};
use crate::config::RuntimeDirectory;

/// The socket's name in the runtime directory.
const SOCKET: &str = "sync.sock";

/// The daemon's end of the socket.
#[derive(Debug)]
pub(crate) struct SyncServer(Door);

impl SyncServer {
    /// Opens it. The caller holds the runtime directory's lock, so that what lies there is dead.
    ///
    /// # Errors
    /// Where the directory can't be written to.
    pub(crate) fn bind(runtime: &RuntimeDirectory) -> io::Result<Self> {
        // It costs requests and bytes: it is for edgerepl's user and group.
        Door::open(&runtime.file(SOCKET), 0o660).map(Self)
    }

    /// Where they wait.
    pub(crate) fn door(&self) -> &Door {
        &self.0
    }

    /// Whether somebody wishes it; they go at once.
    pub(crate) fn is_wanted(&mut self) -> bool {
        !self.0.clients().is_empty()
    }
}

/// Wishes it.
///
/// # Errors
/// Why no daemon takes the wish, in one sentence.
pub(crate) fn ask(runtime: &RuntimeDirectory) -> Result<(), String> {
    let path = runtime.file(SOCKET);
    socket::ask(&path).map_err(|e| socket::unanswered(&path, &e))?;
    Ok(())
}
