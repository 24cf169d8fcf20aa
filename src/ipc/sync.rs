//! The wish that everything is uploaded now, over a socket.
//!
//! Owns both ends. A connection is the wish; the answer is the process that has taken it. What comes of it is
//! in that one's status.

use std::io::{self, Write};
use std::process;

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

    /// Whether somebody wishes it. The status that they ask for afterwards is of the turn that begins with
    /// this, or of a later one.
    pub(crate) fn is_wanted(&mut self) -> bool {
        let clients = self.0.clients();
        for mut client in &clients {
            if let Err(e) = writeln!(client, "{}", process::id()) {
                log::debug!("a client asked for a sync and did not read the answer: {e}");
            }
        }
        !clients.is_empty()
    }
}

/// Wishes it; returns the process that has taken the wish.
///
/// # Errors
/// Why no daemon takes it, in one sentence.
pub(crate) fn ask(runtime: &RuntimeDirectory) -> Result<u32, String> {
    let path = runtime.file(SOCKET);
    let text = socket::ask(&path).map_err(|e| socket::unanswered(&path, &e))?;
    let id = text.trim_end().parse();
    id.map_err(|_| "edgerepl does not say that it syncs".to_owned())
}
