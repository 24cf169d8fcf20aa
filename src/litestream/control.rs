//! Litestream's control socket (0.5 and later): HTTP over a unix socket.
//!
//! Owns one request at a time. It is sent at once, and answered when Litestream has done the work; the
//! reactor polls the connection meanwhile. Never trusts an answer before it is checked, never reads
//! more than `ANSWER_LIMIT` of it, and has no time limit: the caller has one.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockType, UnixAddr, getsockopt, socket, sockopt::PeerCredentials,
};
use serde_json::{Value, json};

use super::answer::{Position, SyncFailure};
use super::trouble;

/// No valid answer is longer, in bytes: a list of a thousand databases is some hundred thousand long.
const ANSWER_LIMIT: usize = 1 << 20;

/// One per microsecond for 285 years; JSON readers are exact up to here.
const LAST_TRANSACTION: u64 = 1 << 53;

/// No time limit, in Litestream's terms: its requests have one unless they give a negative number.
///
/// If a request has a time limit, everything that Litestream starts in it ends with it, including its
/// read lock on the WAL if it takes that anew: when it opens the database, and at each checkpoint. It
/// does not notice. An application's checkpoint then resets a WAL that was not read to its end, and
/// rows are on no replica, without an error (0.5.17).
const NO_TIMEOUT: i32 = -1;

/// A sync request without an answer yet.
#[derive(Debug)]
pub struct SyncRequest {
    exchange: Exchange,
    bucket: Option<String>,
}

impl SyncRequest {
    /// Asks Litestream to replicate `database` up to now. The process that listens is asked only if
    /// `may_answer` accepts its id, which is zero if the kernel does not know it here.
    ///
    /// # Errors
    /// [`SyncFailure::NoSocket`] if no process listens, `Failed` if another process does.
    pub fn send(
        socket: &Path,
        database: &Path,
        may_answer: impl FnOnce(u32) -> bool,
    ) -> Result<Self, SyncFailure> {
        let body = json!({"path": database, "wait": true, "timeout": NO_TIMEOUT}).to_string();
        // HTTP/1.0: the answer ends with the connection.
        let request = format!(
            "POST /sync HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Ok(Self {
            exchange: Exchange::begin(socket, &request, may_answer)?,
            bucket: None,
        })
    }

    /// Adds the bucket's name for error messages: Litestream itself seldom gives it.
    #[must_use]
    pub fn to_bucket(mut self, bucket: Option<String>) -> Self {
        self.bucket = bucket;
        self
    }

    /// Reads what has arrived; returns the answer once it is complete.
    pub fn poll(&mut self) -> Option<Result<Position, SyncFailure>> {
        let answer = self.exchange.poll()?;
        Some(answer.and_then(|answer| position(answer, self.bucket.as_deref())))
    }
}

impl AsFd for SyncRequest {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.exchange.stream.as_fd()
    }
}

/// A request that needs no request to S3.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Question {
    /// Who it is: it answers while it waits for S3, but not while it hangs.
    Who,
    /// What it replicates. It may answer only after it has opened its databases.
    What,
}

/// A request to Litestream without an answer yet.
#[derive(Debug)]
pub struct Asked {
    question: Question,
    exchange: Exchange,
}

/// What Litestream answered.
#[derive(Debug, Eq, PartialEq)]
pub enum Told {
    /// It does not hang.
    Here,
    /// It replicates these.
    Replicates(Vec<PathBuf>),
    /// No usable answer.
    Nothing,
}

impl Asked {
    /// Asks the process that listens, if `may_answer` accepts its id.
    ///
    /// # Errors
    /// As for [`SyncRequest::send`].
    pub fn send(
        question: Question,
        socket: &Path,
        may_answer: impl FnOnce(u32) -> bool,
    ) -> Result<Self, SyncFailure> {
        let path = match question {
            Question::Who => "/info",
            Question::What => "/list",
        };
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        Ok(Self {
            question,
            exchange: Exchange::begin(socket, &request, may_answer)?,
        })
    }

    /// The answer, once it is complete.
    pub fn poll(&mut self) -> Option<Told> {
        let answer = self.exchange.poll()?;
        Some(answer.map_or(Told::Nothing, |answer| told(self.question, answer)))
    }
}

impl AsFd for Asked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.exchange.stream.as_fd()
    }
}

fn told(question: Question, answer: &[u8]) -> Told {
    match question {
        _ if answer.is_empty() => Told::Nothing,
        // Any text counts: a Litestream that hangs sends none.
        Question::Who => Told::Here,
        Question::What => databases(answer).map_or(Told::Nothing, Told::Replicates),
    }
}

/// The databases in a list.
fn databases(answer: &[u8]) -> Option<Vec<PathBuf>> {
    let body = parse(answer, None).ok()?;
    let databases = body.get("databases")?.as_array()?.iter();
    databases
        .map(|database| database.get("path")?.as_str().map(PathBuf::from))
        .collect()
}

/// One request to Litestream, and the part of its answer that has arrived.
#[derive(Debug)]
struct Exchange {
    stream: UnixStream,
    answer: Vec<u8>,
}

impl Exchange {
    fn begin(
        socket: &Path,
        request: &str,
        may_answer: impl FnOnce(u32) -> bool,
    ) -> Result<Self, SyncFailure> {
        let mut stream = connect(socket).map_err(|e| no_connection(&e))?;
        let listener = getsockopt(&stream, PeerCredentials).map_or(0, |peer| peer.pid());
        if !may_answer(u32::try_from(listener).unwrap_or(0)) {
            return Err(SyncFailure::Failed(format!(
                "process {listener} listens on its control socket {}, and is not the Litestream \
                 that was started; stop that process, or give each its own socket",
                socket.display()
            )));
        }
        stream
            .write_all(request.as_bytes())
            .map_err(|e| no_connection(&e))?;
        Ok(Self {
            stream,
            answer: Vec::new(),
        })
    }

    /// The answer, once it is complete.
    fn poll(&mut self) -> Option<Result<&[u8], SyncFailure>> {
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Some(Ok(&self.answer)),
                Ok(n) if self.answer.len() + n > ANSWER_LIMIT => {
                    let cause = "its control socket's answer is too long";
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

/// Connects without waiting: if Litestream is stopped, with a full queue, this is an error at once.
fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

fn no_connection(error: &std::io::Error) -> SyncFailure {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => {
            SyncFailure::NoSocket
        }
        _ => SyncFailure::Failed(format!("its control socket can't be used: {error}")),
    }
}

/// The position in the answer to a sync.
fn position(answer: &[u8], bucket: Option<&str>) -> Result<Position, SyncFailure> {
    let body = parse(answer, bucket)?;
    let number = |key: &str| body.get(key)?.as_u64().filter(|n| *n <= LAST_TRANSACTION);
    match (number("txid"), number("replicated_txid")) {
        (Some(local), Some(replicated)) => Ok(Position { local, replicated }),
        _ => Err(SyncFailure::Failed(
            "its control socket's answer names no transactions".to_owned(),
        )),
    }
}

/// The content of an answer, or the failure in it.
fn parse(answer: &[u8], bucket: Option<&str>) -> Result<Value, SyncFailure> {
    let failed = |cause: String| Err(SyncFailure::Failed(cause));
    if answer.is_empty() {
        // It died before it answered.
        return Err(SyncFailure::NoSocket);
    }
    let text = String::from_utf8_lossy(answer);
    let status = text
        .get("HTTP/1.0 ".len().."HTTP/1.0 200".len())
        .filter(|status| text.starts_with("HTTP/1.") && status.bytes().all(|b| b.is_ascii_digit()));
    let Some(((_, body), status)) = text.split_once("\r\n\r\n").zip(status) else {
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
    let has = |words: &str| error.contains(words);
    // A file is damaged or missing: Litestream can't recover from either by itself.
    if has("ltx file corrupted") || has("ltx file") && has("no such file or directory") {
        return Err(SyncFailure::StateCorrupt(trouble::verbatim(error)));
    }
    // It looks in the database file for pages that are in the part of the WAL that it skipped.
    if error.contains("read database page") && error.trim_end().ends_with(": EOF") {
        return Err(SyncFailure::BeginningMissed);
    }
    let cause = trouble::explain(error, bucket).unwrap_or_else(|| {
        let error = trouble::verbatim(error);
        format!("its control socket answered with {status}: {error}")
    });
    match trouble::is_end_of_session(error) {
        true => Err(SyncFailure::SessionEnded(cause)),
        false => failed(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_litestream_answers() {
        let ok = |body: &str| {
            position(
                format!("HTTP/1.0 200 OK\r\nDate: x\r\n\r\n{body}").as_bytes(),
                None,
            )
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
            r#"{"txid":18446744073709551615,"replicated_txid":18446744073709551615}"#,
            r#"{"txid":1,"replicated_txid":9007199254740993}"#,
        ] {
            assert!(matches!(ok(odd), Err(SyncFailure::Failed(_))), "{odd}");
        }
    }

    #[test]
    fn reads_what_litestream_replicates() {
        let told = |question, body: &str| told(question, body.as_bytes());
        let list = |body: &str| told(Question::What, &format!("HTTP/1.0 200 OK\r\n\r\n{body}"));
        let two = r#"{"databases":[{"path":"/a.db","status":"replicating"},{"path":"/b.db"}]}"#;
        let paths = ["/a.db", "/b.db"].map(PathBuf::from).to_vec();
        assert_eq!(list(two), Told::Replicates(paths));
        assert_eq!(list(r#"{"databases":[]}"#), Told::Replicates(Vec::new()));
        for odd in [
            "",
            "{}",
            "[]",
            r#"{"databases":{}}"#,
            r#"{"databases":[{"path":7}]}"#,
        ] {
            assert_eq!(list(odd), Told::Nothing, "{odd}");
        }
        assert_eq!(
            told(Question::What, "HTTP/1.0 404 Not Found\r\n\r\n"),
            Told::Nothing
        );
        assert_eq!(
            told(Question::Who, "HTTP/1.0 404 Not Found\r\n\r\n"),
            Told::Here
        );
        assert_eq!(told(Question::Who, ""), Told::Nothing);
    }

    #[test]
    fn a_list_of_many_databases_is_read_to_its_end() {
        let path = std::env::temp_dir().join(format!("edgerepl-list-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let names: Vec<_> = (0..1000).map(|n| format!("/data/{n:0200}.db")).collect();
        let entries: Vec<_> = names.iter().map(|name| json!({"path": name})).collect();
        let body = json!({"databases": entries});
        let litestream = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            let _ = client.read(&mut [0; 256]).expect("a request");
            let answer = format!("HTTP/1.0 200 OK\r\n\r\n{body}");
            client.write_all(answer.as_bytes()).expect("it is read");
        });
        let mut asked = Asked::send(Question::What, &path, |_| true).expect("it listens");
        let told = loop {
            match asked.poll() {
                Some(told) => break told,
                None => std::thread::yield_now(),
            }
        };
        drop(asked);
        litestream.join().expect("it wrote all");
        assert_eq!(
            told,
            Told::Replicates(names.iter().map(PathBuf::from).collect())
        );
        std::fs::remove_file(&path).expect("the socket's file");
    }

    #[test]
    fn tells_failures_apart() {
        let answer = |text: &str| position(text.as_bytes(), Some("edge")).expect_err("a failure");
        let wedged = r#"{"error":"check database behind replica: get database position: verify ltx file /d: ltx file corrupted: decode header: EOF"}"#;
        let wedged = answer(&format!(
            "HTTP/1.0 500 Internal Server Error\r\n\r\n{wedged}"
        ));
        assert!(matches!(wedged, SyncFailure::StateCorrupt(_)), "{wedged:?}");
        let gone = r#"{"error":"sync database: db sync: cannot verify wal state: open ltx file /d/ltx/0/19a.ltx: open /d/ltx/0/19a.ltx: no such file or directory"}"#;
        let gone = answer(&format!("HTTP/1.0 500 E\r\n\r\n{gone}"));
        assert!(matches!(gone, SyncFailure::StateCorrupt(_)), "{gone:?}");
        let missed = r#"{"error":"sync database: db sync: sync: write ltx from db: read database page 78: EOF"}"#;
        let missed = answer(&format!("HTTP/1.0 500 E\r\n\r\n{missed}"));
        assert_eq!(missed, SyncFailure::BeginningMissed);
        let expired = "replica sync: api error ExpiredToken: The provided token has expired.";
        let expired = answer(&format!(
            "HTTP/1.0 500 E\r\n\r\n{{\"error\":\"{expired}\"}}"
        ));
        assert!(
            matches!(expired, SyncFailure::SessionEnded(_)),
            "{expired:?}"
        );
        let refused = answer("HTTP/1.0 500 E\r\n\r\n{\"error\":\"api error NoSuchBucket: x\"}");
        let SyncFailure::Failed(refused) = refused else {
            panic!("{refused:?}");
        };
        assert!(
            refused.starts_with("the bucket edge does not exist"),
            "{refused}"
        );
        let strange = answer("HTTP/1.0 500 E\r\n\r\n{\"error\":\"no such thing\\n\"}");
        let wanted = "its control socket answered with 500: no such thing";
        assert_eq!(strange, SyncFailure::Failed(wanted.to_owned()));
        assert_eq!(answer(""), SyncFailure::NoSocket);
        for odd in [
            "HTTP/1.0",
            "\r\n\r\n",
            "é\r\n\r\n{}",
            "HTTP/1.0 20",
            "HTTP/1.0 \u{1b}[2 x\r\n\r\n{}",
            "SMTP/1.0 500 x\r\n\r\n{}",
        ] {
            let SyncFailure::Failed(said) = answer(odd) else {
                panic!("{odd}");
            };
            assert_eq!(said, "its control socket does not speak HTTP", "{odd}");
        }
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
        // No process accepts: the queue fills, and the next connection is an error, not a wait.
        let asked: Vec<_> = (0..8)
            .map(|_| SyncRequest::send(&path, &path, |_| true))
            .collect();
        assert!(
            matches!(asked.last(), Some(Err(SyncFailure::Failed(_)))),
            "{asked:?}"
        );
        std::fs::remove_file(&path).expect("the socket's file");
    }
}
