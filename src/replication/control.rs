//! Litestream's control socket (0.5 and later): HTTP over a unix socket.
//!
//! Owns one request at a time, which is written at once and answered when Litestream has done what
//! was asked; the reactor polls the connection meanwhile. Trusts nothing in the answer but what it
//! checks, and reads no more than `ANSWER_LIMIT` of it.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, socket};
use serde_json::{Value, json};

use crate::agent::{Position, SyncFailure};

/// No answer that is worth reading is longer.
const ANSWER_LIMIT: usize = 64 * 1024;

/// A sync that was asked for and not answered yet.
///
/// Litestream is asked three things, one after the other. The first two see to it that the sync
/// never comes before Litestream has opened the database by itself: its lock on the WAL would belong
/// to our request then, and end with it. An application that checkpoints makes such a Litestream lose
/// rows, and it never notices (0.5.17).
#[derive(Debug)]
pub struct SyncRequest {
    socket: PathBuf,
    database: PathBuf,
    limit: Duration,
    question: Question,
    stream: UnixStream,
    answer: Vec<u8>,
}

/// What Litestream is being asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Question {
    /// Where it stands by its local state: what it can't read it names here, without opening anything.
    Position,
    /// Which databases it has, and when it last looked at each.
    Databases,
    /// To replicate now.
    Sync,
}

impl SyncRequest {
    /// Asks for `database` to be replicated up to now; Litestream gives up after `limit`.
    ///
    /// # Errors
    /// [`SyncFailure::NoSocket`] where nobody listens.
    pub fn send(socket: &Path, database: &Path, limit: Duration) -> Result<Self, SyncFailure> {
        let question = Question::Position;
        let stream = question.ask(socket, database, limit);
        Ok(Self {
            socket: socket.to_owned(),
            database: database.to_owned(),
            limit,
            question,
            stream: stream.map_err(|e| no_connection(&e))?,
            answer: Vec::new(),
        })
    }

    /// Reads what has arrived; answers once it is complete.
    pub fn poll(&mut self) -> Option<Result<Position, SyncFailure>> {
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => match self.follow() {
                    Ok(None) => {}
                    Ok(Some(position)) => return Some(Ok(position)),
                    Err(failure) => return Some(Err(failure)),
                },
                Ok(n) if self.answer.len() + n > ANSWER_LIMIT => {
                    let cause = "its control socket's answer has no end";
                    return Some(Err(SyncFailure::Failed(cause.to_owned())));
                }
                Ok(n) => self.answer.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return None,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Some(Err(no_connection(&e))),
            }
        }
    }

    /// Takes a complete answer in: the next question follows, or it was the last.
    fn follow(&mut self) -> Result<Option<Position>, SyncFailure> {
        let body = parse(&self.answer)?;
        self.question = match self.question {
            Question::Position => Question::Databases,
            Question::Databases if is_open(&body, &self.database) => Question::Sync,
            Question::Databases => return Err(SyncFailure::NotOpen),
            Question::Sync => return position(&body).map(Some),
        };
        self.stream = self
            .question
            .ask(&self.socket, &self.database, self.limit)
            .map_err(|e| no_connection(&e))?;
        self.answer.clear();
        Ok(None)
    }
}

impl Question {
    fn ask(self, socket: &Path, database: &Path, limit: Duration) -> io::Result<UnixStream> {
        let (line, body) = match self {
            Self::Position => (format!("GET /txid?path={}", escaped(database)), None),
            Self::Databases => ("GET /list".to_owned(), None),
            Self::Sync => (
                "POST /sync".to_owned(),
                Some(json!({"path": database, "wait": true, "timeout": limit.as_secs().max(1)})),
            ),
        };
        let body = body.map_or(String::new(), |body| body.to_string());
        let mut stream = connect(socket)?;
        // HTTP/1.0: the answer ends where the connection does.
        let head = "HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json";
        let length = body.len();
        let request = format!("{line} {head}\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes())?;
        Ok(stream)
    }
}

/// Connects without waiting: a Litestream that stands still, with a full queue, is an error at once.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

impl AsFd for SyncRequest {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn no_connection(error: &std::io::Error) -> SyncFailure {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => {
            SyncFailure::NoSocket
        }
        _ => SyncFailure::Failed(format!("its control socket can't be used: {error}")),
    }
}

/// A path as a part of a query.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                text.push(char::from(*byte));
            }
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}

/// Whether Litestream has looked at `database` since it started. One that it does not name is left to
/// the sync, whose answer says so.
fn is_open(list: &Value, database: &Path) -> bool {
    let databases = list["databases"].as_array().into_iter().flatten();
    databases
        .filter(|entry| entry["path"].as_str().map(Path::new) == Some(database))
        .all(|entry| entry["last_sync_at"].is_string())
}

/// Where a sync has led.
fn position(body: &Value) -> Result<Position, SyncFailure> {
    let number = |key: &str| body.get(key).and_then(Value::as_u64);
    match (number("txid"), number("replicated_txid")) {
        (Some(local), Some(replicated)) => Ok(Position { local, replicated }),
        _ => Err(SyncFailure::Failed(
            "its control socket's answer names no transactions".to_owned(),
        )),
    }
}

/// An answer's content, or the failure that it tells of.
fn parse(answer: &[u8]) -> Result<Value, SyncFailure> {
    let failed = |cause: String| Err(SyncFailure::Failed(cause));
    if answer.is_empty() {
        // It died before it answered.
        return Err(SyncFailure::NoSocket);
    }
    let text = String::from_utf8_lossy(answer);
    let parts = text
        .split_once("\r\n\r\n")
        .zip(text.get("HTTP/1.0 ".len().."HTTP/1.0 200".len()));
    let Some(((_, body), status)) = parts else {
        return failed("its control socket does not speak HTTP".to_owned());
    };
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    if status == "200" {
        return Ok(body);
    }
    let error = body
        .get("error")
        .and_then(Value::as_str)
        .unwrap_or("without a reason");
    let error: String = error
        .chars()
        .filter(|c| !c.is_control())
        .take(500)
        .collect();
    if error.contains("ltx file corrupted") {
        return Err(SyncFailure::StateCorrupt(error));
    }
    failed(format!(
        "its control socket answered with {status}: {error}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_litestream_answers() {
        let ok = |body: &str| {
            parse(format!("HTTP/1.0 200 OK\r\nDate: x\r\n\r\n{body}").as_bytes())
                .and_then(|body| position(&body))
        };
        assert_eq!(
            ok(r#"{"status":"synced","path":"/d","txid":7,"replicated_txid":6}"#),
            Ok(Position {
                local: 7,
                replicated: 6
            })
        );
        for odd in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"txid":"7","replicated_txid":6}"#,
            r#"{"txid":-7}"#,
        ] {
            assert!(matches!(ok(odd), Err(SyncFailure::Failed(_))), "{odd}");
        }
    }

    #[test]
    fn tells_failures_apart() {
        let answer = |text: &str| parse(text.as_bytes()).expect_err("a failure");
        let wedged = r#"{"error":"check database behind replica: get database position: verify ltx file /d: ltx file corrupted: decode header: EOF"}"#;
        let wedged = answer(&format!(
            "HTTP/1.0 500 Internal Server Error\r\n\r\n{wedged}"
        ));
        assert!(matches!(wedged, SyncFailure::StateCorrupt(_)), "{wedged:?}");
        let expired = answer("HTTP/1.0 500 E\r\n\r\n{\"error\":\"ExpiredToken\\n\"}");
        let wanted = "its control socket answered with 500: ExpiredToken";
        assert_eq!(expired, SyncFailure::Failed(wanted.to_owned()));
        assert_eq!(answer(""), SyncFailure::NoSocket);
        for odd in ["HTTP/1.0", "\r\n\r\n", "é\r\n\r\n{}", "HTTP/1.0 20"] {
            assert!(matches!(answer(odd), SyncFailure::Failed(_)), "{odd}");
        }
    }

    #[test]
    fn a_database_is_open_once_litestream_has_looked_at_it() {
        let open = |list: &str| {
            let list = serde_json::from_str(list).expect("JSON");
            is_open(&list, Path::new("/d"))
        };
        assert!(!open(
            r#"{"databases":[{"path":"/d","status":"replicating"}]}"#
        ));
        assert!(open(
            r#"{"databases":[{"path":"/d","last_sync_at":"2026-11-22T23:45:01Z"}]}"#
        ));
        assert!(open(r#"{"databases":[{"path":"/other"}]}"#));
        assert_eq!(escaped(Path::new("/data/a b&c.db")), "/data/a%20b%26c.db");
    }

    #[test]
    fn a_litestream_that_stands_still_does_not_hold_the_loop_up() {
        let path = std::env::temp_dir().join(format!("edgerepl-full-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let address = UnixAddr::new(&path).expect("an address");
        let listener = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::empty(),
            None,
        )
        .expect("a socket");
        socket::bind(listener.as_raw_fd(), &address).expect("its name");
        socket::listen(&listener, socket::Backlog::new(1).expect("a short queue"))
            .expect("a queue");
        // Nobody accepts: the queue fills, and the next is an error instead of a wait.
        let asked: Vec<_> = (0..8)
            .map(|_| SyncRequest::send(&path, &path, Duration::from_secs(1)))
            .collect();
        assert!(
            matches!(asked.last(), Some(Err(SyncFailure::Failed(_)))),
            "{asked:?}"
        );
        std::fs::remove_file(&path).expect("the socket's file");
    }
}
