//! The sockets in the runtime directory themselves.
//!
//! Owns how such a socket is made and asked. Never knows what is sent over it: its two ends do.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid};

use crate::clock::BootTime;
use crate::system::file;

/// A daemon answers in the turn in which it is asked; one that does not is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// No answer that is worth reading is longer, in bytes.
const LONGEST_ANSWER: u64 = 1024 * 1024;

/// The most clients that one turn of the loop answers: repeated connections never delay others.
const CLIENTS_AT_ONCE: usize = 8;

/// A listener that the kernel gives no client for want of descriptors is looked at again after
/// this.
const PAUSE: Duration = Duration::from_secs(1);

/// Where others ask. A client is answered in the turn in which it comes, or not at all: one that
/// sends nothing, or reads nothing, is not waited for.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    path: PathBuf,
    mode: u32,
    closed_until: BootTime,
}

impl Door {
    /// Listens at `path` with that mode, and never waits. The caller holds the runtime directory's
    /// lock, so that what lies there is dead.
    ///
    /// # Errors
    /// Where the directory can't be written to.
    pub(crate) fn open(path: &Path, mode: u32) -> io::Result<Self> {
        file::remove(path)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        // The file gets the mode that the socket has: nobody else comes in before it has its own.
        fchmod(&socket, Mode::from_bits_truncate(mode))?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        // The umask may have removed bits. No client connects before it listens.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        listen(&socket, Backlog::MAXCONN)?;
        let listener = UnixListener::from(socket);
        Ok(Self {
            listener,
            path: path.to_owned(),
            mode,
            closed_until: BootTime::default(),
        })
    }

    /// What to watch; nothing where a look would be in vain for now.
    pub(crate) fn source(&self) -> Option<BorrowedFd<'_>> {
        (self.closed_until <= BootTime::now()).then(|| self.listener.as_fd())
    }

    /// When there is something to watch again, where there is not.
    pub(crate) fn deadline(&self) -> BootTime {
        match self.source() {
            Some(_) => BootTime::NEVER,
            None => self.closed_until,
        }
    }

    /// Those who wait, a few of them; writing to one never waits.
    pub(crate) fn clients(&mut self) -> Vec<UnixStream> {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS_AT_ONCE {
            match self.listener.accept() {
                Ok((client, _)) if client.set_nonblocking(true).is_ok() => clients.push(client),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    log::warn!("no client can be accepted at {}: {e}", self.path.display());
                    self.closed_until = BootTime::now() + PAUSE;
                    break;
                }
            }
        }
        clients
    }

    /// Whether the socket still has the mode and the owner that it was made with: then the kernel
    /// let in only whom these let in, members of the group by a supplementary group among them.
    pub(crate) fn is_as_made(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|socket| {
            socket.mode() & 0o777 == self.mode
                && socket.uid() == Uid::effective().as_raw()
                && socket.gid() == Gid::effective().as_raw()
        })
    }
}

/// The whole answer of the process that listens at `path`.
///
/// # Errors
/// `NotFound` and `ConnectionRefused` where nobody listens; `WouldBlock` where somebody does and
/// does not answer within 10 s.
pub(crate) fn ask(path: &Path) -> io::Result<String> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.take(LONGEST_ANSWER).read_to_string(&mut text)?;
    Ok(text)
}

/// Why there is no answer from the process that listens at `path`, in one sentence.
pub(crate) fn unanswered(path: &Path, e: &io::Error) -> String {
    match e.kind() {
        ErrorKind::PermissionDenied => format!("{} may not be used: {e}", path.display()),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            format!("no edgerepl runs here ({}: {e})", path.display())
        }
        _ => format!("edgerepl runs and does not answer: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_answers_a_few_of_those_who_wait_and_forgets_none() {
        let path = std::env::temp_dir().join(format!("edgerepl-door-{}", std::process::id()));
        let mut door = Door::open(&path, 0o640).expect("a door");
        assert!(door.clients().is_empty());
        let waiting: Vec<_> = (0..20)
            .map(|_| UnixStream::connect(&path).expect("a client"))
            .collect();
        let mut taken = Vec::new();
        for _ in 0..3 {
            let clients = door.clients();
            assert!((1..=CLIENTS_AT_ONCE).contains(&clients.len()));
            taken.extend(clients);
        }
        assert_eq!(taken.len(), waiting.len());
        assert!(door.clients().is_empty());
        assert!(door.source().is_some() && door.is_as_made());
        fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("another mode");
        assert!(!door.is_as_made());
        fs::remove_file(path).expect("removed");
    }
}
