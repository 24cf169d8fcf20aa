//! Sockets in the runtime directory, by which one edgerepl asks another.
//!
//! Owns how such a socket is made and asked. What is said over it is for its two ends to know.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// A daemon answers in the turn in which it is asked; one that does not is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens at `path` with that mode, and never waits. The caller holds the runtime directory's lock, so
/// that what lies there is dead.
///
/// # Errors
/// Where the directory can't be written to.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(listener)
}

/// All that whoever listens at `path` has to say.
///
/// # Errors
/// `NotFound` and `ConnectionRefused` where nobody listens; `WouldBlock` where somebody does and does
/// not answer within 10 s.
pub fn ask(path: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
