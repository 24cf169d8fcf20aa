//! Credentials from the daemon, over a socket, for another edgerepl process.
//!
//! Owns the document that AWS SDKs read (`credential_process`, Version 1), both ends of the socket,
//! and the rule who may ask. The document is a secret: only root, edgerepl's user and its group can
//! use the socket, and no part of it is ever written to a file.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{UnixCredentials, getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Gid, Uid};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::socket::{self, Door};
use crate::agent::Report;
use crate::clock::WallTime;
use crate::config::RuntimeDirectory;
use crate::credentials::{Credentials, Document, Grant};

/// The socket's name in the runtime directory.
const SOCKET: &str = "credentials.sock";

/// The member that holds the reason in an answer without credentials.
const ERROR: &str = "error";

/// The daemon's answer. Without credentials it holds the reason.
pub(crate) fn document(report: &Report, grant: Option<&Grant>) -> Document {
    match (grant, report.told_term) {
        (Some(grant), Some(term)) => of(&grant.credentials, term),
        _ => {
            let why = report.state.problems().next();
            let why = why.unwrap_or("the first fetch has not ended yet");
            json!({ ERROR: format!("edgerepl has no valid credentials: {why}") }).into()
        }
    }
}

/// What an SDK reads. The time to ask again is told by this device's clock, which is the one that
/// the SDK will look at.
pub(crate) fn of(credentials: &Credentials, term: Duration) -> Document {
    let ends = WallTime::now().unix() + i64::try_from(term.as_secs().max(1)).unwrap_or(i64::MAX);
    json!({
        "Version": 1,
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key,
        "SessionToken": credentials.session_token,
        "Expiration": WallTime::from_unix(ends).to_string(),
    })
    .into()
}

/// The daemon's end of the socket.
#[derive(Debug)]
pub(crate) struct CredentialServer {
    door: Door,
    /// The user that was refused last: repeated requests are logged once.
    refused: Option<u32>,
}

impl CredentialServer {
    /// Opens it. The caller holds the runtime directory's lock, so that an existing socket is dead.
    ///
    /// # Errors
    /// Where the directory can't be written to.
    pub(crate) fn bind(runtime: &RuntimeDirectory) -> io::Result<Self> {
        let door = Door::open(&runtime.file(SOCKET), 0o660)?;
        Ok(Self {
            door,
            refused: None,
        })
    }

    /// The socket, for the loop to poll.
    pub(crate) fn door(&self) -> &Door {
        &self.door
    }

    /// Answers the clients that wait and may have credentials.
    pub(crate) fn answer(&mut self, document: impl Fn() -> Document) {
        for mut client in self.door.clients() {
            let answer = match self.refusal(&client) {
                None => document(),
                Some(why) => json!({ ERROR: why }).into(),
            };
            // It fits the socket's buffer; a client that does not read never blocks the loop.
            if let Err(e) = client.write_all(&answer.text()) {
                log::debug!("a client asked for credentials and did not read them: {e}");
            }
        }
    }

    /// Why the process at the other end may not have credentials.
    fn refusal(&mut self, client: &UnixStream) -> Option<String> {
        let peer = match getsockopt(client, PeerCredentials) {
            Ok(peer) => peer,
            Err(e) => return Some(format!("the kernel does not identify the client: {e}")),
        };
        let own = Uid::effective().as_raw();
        // The socket's mode keeps others out; where somebody changed that, it is looked at who
        // asks.
        if peer.uid() == 0
            || peer.uid() == own
            || self.door.is_as_made()
            || is_in_group(&peer, Gid::effective().as_raw())
        {
            return None;
        }
        let why = format!(
            "user {} (process {}) is neither root, nor edgerepl's user, nor in its group",
            peer.uid(),
            peer.pid()
        );
        if self.refused.replace(peer.uid()) != Some(peer.uid()) {
            log::warn!("a request for credentials was refused: {why}");
        }
        Some(why)
    }
}

/// Whether a process is in `group`, by its own group or by a supplementary one. Those of a process
/// that is invisible here are not known.
fn is_in_group(peer: &UnixCredentials, group: u32) -> bool {
    let supplementary = || {
        let status = fs::read_to_string(format!("/proc/{}/status", peer.pid())).ok()?;
        let groups = status
            .lines()
            .find_map(|line| line.strip_prefix("Groups:"))?;
        let mut groups = groups.split_ascii_whitespace();
        Some(groups.any(|other| other.parse() == Ok(group)))
    };
    peer.gid() == group || supplementary() == Some(true)
}

/// The daemon's answer: the document, or why it has no credentials.
///
/// # Errors
/// Why no daemon answers.
pub(crate) fn ask(runtime: &RuntimeDirectory) -> Result<Result<Document, String>, String> {
    let path = runtime.file(SOCKET);
    let text = socket::ask(&path)
        .map_err(|e| format!("no edgerepl answers at {}: {e}", path.display()))?;
    let answer: Result<Value, _> = serde_json::from_str(&Zeroizing::new(text));
    let answer = answer
        .map(Document::from)
        .map_err(|_| "edgerepl ended before it answered".to_owned())?;
    Ok(match answer[ERROR].as_str() {
        Some(why) => Err(why.to_owned()),
        None => Ok(answer),
    })
}

/// The credentials in a document.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn read(document: &Document) -> Result<Credentials, String> {
    let text = |key: &str| document[key].as_str().unwrap_or_default();
    Credentials::checked(
        text("AccessKeyId"),
        text("SecretAccessKey"),
        text("SessionToken"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_sdks_what_they_read_and_when_to_ask_again() {
        let secret = Credentials {
            access_key_id: "ASIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+=".to_owned(),
            session_token: "FwoGZXIvYXdzEEMa//=".to_owned(),
        };
        let before = WallTime::now();
        let document = of(&secret, Duration::from_secs(600));
        assert_eq!(document["Version"], 1);
        assert_eq!(document["SessionToken"], "FwoGZXIvYXdzEEMa//=");
        let ends: WallTime = document["Expiration"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("a time");
        assert!((600..=601).contains(&ends.distance(before).as_secs()));
    }
}
