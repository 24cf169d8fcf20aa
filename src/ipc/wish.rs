//! What operators wish of the daemon, each wish by a socket of its own.
//!
//! Owns both ends. A connection is the wish; the answer is the process that has taken it. What comes of it is
//! in that one's status.

use std::io::{self, Write};
use std::process;

use super::socket::{self, Door};
use crate::config::RuntimeDirectory;

/// What somebody wishes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wish {
    /// Everything is uploaded now.
    Sync,
    /// Uploads wait.
    Pause,
    /// They do not wait any more.
    Resume,
}

impl Wish {
    /// All, in the order in which those of one turn are taken: who goes on loses nothing.
    const ALL: [Self; 3] = [Self::Pause, Self::Resume, Self::Sync];

    /// The socket's name in the runtime directory.
    const fn socket(self) -> &'static str {
        match self {
            Self::Sync => "sync.sock",
            Self::Pause => "pause.sock",
            Self::Resume => "resume.sock",
        }
    }
}

/// The daemon's ends of the sockets.
#[derive(Debug)]
pub(crate) struct WishServer([(Wish, Door); 3]);

impl WishServer {
    /// Opens them. The caller holds the runtime directory's lock, so that what lies there is dead.
    ///
    /// # Errors
    /// Where the directory can't be written to.
    pub(crate) fn bind(runtime: &RuntimeDirectory) -> io::Result<Self> {
        // Each costs requests, bytes or rows: they are for edgerepl's user and group.
        let open =
            |wish: Wish| io::Result::Ok((wish, Door::open(&runtime.file(wish.socket()), 0o660)?));
        let [first, second, third] = Wish::ALL;
        Ok(Self([open(first)?, open(second)?, open(third)?]))
    }

    /// Where they wait.
    pub(crate) fn doors(&self) -> impl Iterator<Item = &Door> {
        self.0.iter().map(|(_, door)| door)
    }

    /// What somebody wishes. The status that they ask for afterwards is of the turn that begins with this, or
    /// of a later one.
    pub(crate) fn wishes(&mut self) -> Vec<Wish> {
        let wishes = self.0.iter_mut().filter_map(|(wish, door)| {
            let clients = door.clients();
            for mut client in &clients {
                if let Err(e) = writeln!(client, "{}", process::id()) {
                    log::debug!("a client did not read that its wish was taken: {e}");
                }
            }
            (!clients.is_empty()).then_some(*wish)
        });
        wishes.collect()
    }
}

/// Wishes it; returns the process that has taken the wish.
///
/// # Errors
/// Why no daemon takes it, in one sentence.
pub(crate) fn ask(runtime: &RuntimeDirectory, wish: Wish) -> Result<u32, String> {
    let path = runtime.file(wish.socket());
    let text = socket::ask(&path).map_err(|e| socket::unanswered(&path, &e))?;
    let id = text.trim_end().parse();
    id.map_err(|_| "edgerepl does not say that it has taken the wish".to_owned())
}
