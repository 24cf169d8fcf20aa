//! Litestream's control socket (0.5 and later): HTTP over a unix socket.
//!
//! Owns one request at a time, which is written at once and answered when Litestream has done what
//! was asked; the reactor polls the connection meanwhile. Trusts nothing in the answer but what it
//! checks, and reads no more than [`ANSWER_LIMIT`] of it.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::{Position, SyncFailure};

/// No answer that is worth reading is longer.
const ANSWER_LIMIT: usize = 64 * 1024;

/// A sync that was asked for and not answered yet.
#[derive(Debug)]
pub struct SyncRequest {
    stream: UnixStream,
    answer: Vec<u8>,
}

impl SyncRequest {
    /// Asks for `database` to be replicated up to now; Litestream gives up after `limit`.
    ///
    /// # Errors
    /// [`SyncFailure::NoSocket`] where nobody listens.
    pub fn send(socket: &Path, database: &Path, limit: Duration) -> Result<Self, SyncFailure> {
        let asked = || {
            // A unix socket's connect does not wait: it is refused where the queue is full.
            let mut stream = UnixStream::connect(socket)?;
            stream.set_nonblocking(true)?;
            let body = json!({"path": database, "wait": true, "timeout": limit.as_secs().max(1)});
            let body = body.to_string();
            // HTTP/1.0: the answer ends where the connection does.
            let head = "POST /sync HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json";
            let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(request.as_bytes())?;
            Ok(stream)
        };
        match asked() {
            Ok(stream) => Ok(Self {
                stream,
                answer: Vec::new(),
            }),
            Err(e) => Err(no_connection(&e)),
        }
    }

    /// Reads what has arrived; answers once it is complete.
    pub fn poll(&mut self) -> Option<Result<Position, SyncFailure>> {
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Some(parse(&self.answer)),
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

/// The answer to a sync: a position, or why there is none.
fn parse(answer: &[u8]) -> Result<Position, SyncFailure> {
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
        let number = |key: &str| body.get(key).and_then(Value::as_u64);
        return match (number("txid"), number("replicated_txid")) {
            (Some(local), Some(replicated)) => Ok(Position { local, replicated }),
            _ => failed("its control socket's answer names no transactions".to_owned()),
        };
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
    failed(format!("it answered a sync with {status}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_litestream_answers() {
        let ok = |body: &str| parse(format!("HTTP/1.0 200 OK\r\nDate: x\r\n\r\n{body}").as_bytes());
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
        let wanted = "it answered a sync with 500: ExpiredToken";
        assert_eq!(expired, SyncFailure::Failed(wanted.to_owned()));
        assert_eq!(answer(""), SyncFailure::NoSocket);
        for odd in ["HTTP/1.0", "\r\n\r\n", "é\r\n\r\n{}", "HTTP/1.0 20"] {
            assert!(matches!(answer(odd), SyncFailure::Failed(_)), "{odd}");
        }
    }
}
