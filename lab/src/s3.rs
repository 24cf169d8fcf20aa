//! S3 with one bucket in a directory: SigV4 and session tokens are verified, a session that ended is
//! refused with AWS's own `ExpiredToken`, a clock that is off with `RequestTimeTooSkewed`. It takes
//! credentials from the sessions' table and never makes any but the lab's own.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU64,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use hyper::{Method, Request, StatusCode, body::Incoming, header::HeaderMap, service::service_fn};
use hyper_util::rt::TokioIo;
use s3s::{
    Body, HttpResponse, S3Result,
    access::{S3Access, S3AccessContext},
    auth::{S3Auth, SecretKey},
    s3_error,
    service::{S3Service, S3ServiceBuilder},
};
use time::{Date, Month, OffsetDateTime};
use tokio::{net::TcpStream, runtime::Handle, sync::Notify};

use crate::{
    bucket::Objects,
    error::{Error, Result},
    line::Line,
    parts::Parts,
    port::Port,
    sessions::{Session, Sessions},
    sync::Shared,
};

/// The one bucket.
pub(crate) const BUCKET: &str = "edge";

/// How far a client's clock may be off, as AWS has it.
const TOLERATED_SKEW: time::Duration = time::Duration::minutes(15);

/// How S3 fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum S3Fault {
    /// It works.
    #[default]
    None,
    /// Every request gets 503 `SlowDown`.
    Refuse,
    /// Requests are taken and not answered; they are cut off when the fault changes.
    Hang,
    /// Nobody listens.
    ConnectionRefused,
    /// A list gets 403 `AccessDenied`, as where s3:ListBucket is not allowed; all else works.
    RefusesLists,
}

/// One request that S3 answered, or held without an answer.
#[derive(Clone, Debug)]
pub struct S3Request {
    /// When its head had been read.
    pub at: Instant,
    /// `PutObject`, `ListObjectsV2`, …, by the names of the S3 API.
    pub operation: &'static str,
    /// The object's key; for a list the prefix.
    pub key: String,
    /// The status in the answer; `None` where there is none.
    pub status: Option<u16>,
    /// The error's code, such as `ExpiredToken`.
    pub error: Option<String>,
    /// The request's body, in bytes.
    pub bytes: u64,
    /// What else went over the line in both directions: both heads, and the answer's body where its length is
    /// known.
    pub overhead: u64,
    /// Who signed it.
    pub access_key_id: Option<String>,
}

impl S3Request {
    /// Whether it stored something.
    pub fn is_upload(&self) -> bool {
        matches!(self.operation, "PutObject" | "UploadPart") && self.status == Some(200)
    }

    /// Whether it asks what there is below a prefix.
    pub fn is_list(&self) -> bool {
        matches!(self.operation, "ListObjectsV2" | "ListObjects")
    }
}

/// The running S3.
pub struct S3 {
    shared: Arc<State>,
    port: Port,
    host: String,
    root: Session,
    directory: PathBuf,
}

impl S3 {
    pub(crate) fn start(
        runtime: Handle,
        bind: IpAddr,
        server_name: &str,
        directory: &Path,
        sessions: Arc<Sessions>,
    ) -> Result<Self> {
        let bucket = directory.join(BUCKET);
        std::fs::create_dir_all(&bucket).map_err(Error::doing(bucket.display()))?;
        let files = s3s_fs::FileSystem::new(directory)
            .map_err(|cause| Error::new(format!("{}: {cause:?}", directory.display())))?;
        let root = sessions.issue_root();
        let mut builder = S3ServiceBuilder::new(Parts(files));
        builder.set_auth(Gate(sessions.clone()));
        builder.set_access(Gate(sessions));

        let shared = Arc::new(State {
            service: builder.build(),
            fault: Shared::default(),
            fault_changed: Notify::new(),
            line: Arc::default(),
            requests: Shared::default(),
        });
        let serving = shared.clone();
        let port = Port::open(runtime, SocketAddr::new(bind, 0), move |stream| {
            serving.clone().serve(stream)
        })
        .map_err(Error::doing("the lab's S3 can't listen"))?;
        let host = if bind.is_unspecified() {
            server_name.to_owned()
        } else {
            bind.to_string()
        };
        Ok(Self {
            shared,
            port,
            host,
            root,
            directory: directory.to_owned(),
        })
    }

    /// `http://HOST:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}:{}", self.host, self.port.address().port())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The name of the one bucket.
    pub fn bucket(&self) -> &str {
        BUCKET
    }

    /// What lies in the bucket below a prefix, for its owner.
    pub fn objects(&self, prefix: &str) -> Objects {
        Objects::new(&self.directory, prefix)
    }

    /// Credentials that never end, for restoring.
    pub fn root_credentials(&self) -> &Session {
        &self.root
    }

    /// How S3 fails from now on.
    pub fn set_fault(&self, fault: S3Fault) -> Result<()> {
        *self.shared.fault.lock() = fault;
        self.shared.fault_changed.notify_waiters();
        self.port
            .set_listening(fault != S3Fault::ConnectionRefused)
            .map_err(Error::doing(
                "the port of the lab's S3 can't be opened or closed",
            ))
    }

    /// How many bytes a second go over its line, each way, over all connections together; `None`: as fast as
    /// it goes.
    pub fn set_rate(&self, bytes_a_second: Option<NonZeroU64>) {
        self.shared.line.set_rate(bytes_a_second);
    }

    /// Every request so far, oldest first.
    pub fn requests(&self) -> Vec<S3Request> {
        self.shared.requests.lock().clone()
    }

    /// What was stored since `since`, oldest first.
    pub fn uploads(&self, since: Instant) -> Vec<S3Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.at >= since && request.is_upload());
        requests
    }
}

struct State {
    service: S3Service,
    fault: Shared<S3Fault>,
    fault_changed: Notify,
    line: Arc<Line>,
    requests: Shared<Vec<S3Request>>,
}

impl State {
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let stream = self.line.carry(stream);
        let service = service_fn(move |request| {
            let state = self.clone();
            async move { state.answer(request).await }
        });
        // An error here means that the client went away, which is its right.
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    /// An error cuts the connection.
    async fn answer(&self, request: Request<Incoming>) -> io::Result<HttpResponse> {
        let mut log = described(&request);
        // Before the fault is read: a change between the two must not be missed.
        let fault_changed = self.fault_changed.notified();
        let fault = *self.fault.lock();
        let response = match fault {
            S3Fault::Hang => {
                self.requests.lock().push(log);
                fault_changed.await;
                return Err(io::Error::other("left without an answer on order"));
            }
            S3Fault::Refuse => refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
            S3Fault::RefusesLists if log.is_list() => {
                refusal(StatusCode::FORBIDDEN, "AccessDenied")
            }
            S3Fault::None | S3Fault::ConnectionRefused | S3Fault::RefusesLists => {
                match self.service.call(request.map(Body::from)).await {
                    Ok(response) => response,
                    Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
                }
            }
        };
        log.status = Some(response.status().as_u16());
        let answer = response.body().bytes().map_or(0, |body| body.len() as u64);
        log.overhead += head_length("HTTP/1.1 200 OK".len(), response.headers())
            + answer.max(body_length(response.headers()));
        log.error = error_code(&response);
        self.requests.lock().push(log);
        Ok(response)
    }
}

/// Knows who may do what: any session that the lab issued and that has not ended, everything.
struct Gate(Arc<Sessions>);

#[async_trait::async_trait]
impl S3Auth for Gate {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let session = self
            .0
            .find(access_key)
            .ok_or_else(|| s3_error!(InvalidAccessKeyId))?;
        if !session.is_alive(Instant::now()) {
            return Err(s3_error!(ExpiredToken, "The provided token has expired."));
        }
        Ok(SecretKey::from(session.secret_access_key))
    }
}

#[async_trait::async_trait]
impl S3Access for Gate {
    /// The signature is right when this is called; the token is not part of it.
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let signer = cx.credentials().ok_or_else(|| s3_error!(AccessDenied))?;
        let session = self
            .0
            .find(&signer.access_key)
            .ok_or_else(|| s3_error!(InvalidAccessKeyId))?;
        let token = cx
            .headers()
            .get("x-amz-security-token")
            .map(|token| token.as_bytes());
        if token != session.session_token.as_deref().map(str::as_bytes) {
            return Err(s3_error!(
                InvalidToken,
                "The provided token is malformed or invalid."
            ));
        }
        let date = cx.headers().get("x-amz-date");
        let date = date.and_then(|date| signed_at(date.to_str().ok()?));
        if date.is_none_or(|date| (OffsetDateTime::now_utc() - date).abs() > TOLERATED_SKEW) {
            return Err(s3_error!(
                RequestTimeTooSkewed,
                "The difference between the request time and the current time is too large."
            ));
        }
        Ok(())
    }
}

/// The time in `20261123T031900Z`.
fn signed_at(text: &str) -> Option<OffsetDateTime> {
    let number = |range: Range<usize>| text.get(range)?.parse::<u16>().ok();
    let small = |range| u8::try_from(number(range)?).ok();
    let month = Month::try_from(small(4..6)?).ok()?;
    let date = Date::from_calendar_date(number(0..4)?.into(), month, small(6..8)?).ok()?;
    let time = date.with_hms(small(9..11)?, small(11..13)?, small(13..15)?);
    Some(time.ok()?.assume_utc())
}

/// What a request asks, as far as its head tells. It is read here and not taken from the S3
/// service, which names the operations of accepted requests only.
fn described<B>(request: &Request<B>) -> S3Request {
    let path = request.uri().path().trim_start_matches('/');
    let key = path.split_once('/').map_or("", |(_, key)| key);
    let query = request.uri().query().unwrap_or_default();
    let value = |name: &str| {
        query
            .split('&')
            .find_map(|pair| match pair.split_once('=').unwrap_or((pair, "")) {
                (found, value) if found == name => Some(value),
                _ => None,
            })
    };
    let has = |name: &str| value(name).is_some();
    let operation = match (request.method(), key.is_empty()) {
        (&Method::PUT, false) if has("uploadId") => "UploadPart",
        (&Method::PUT, false) => "PutObject",
        (&Method::GET, false) => "GetObject",
        (&Method::HEAD, false) => "HeadObject",
        (&Method::DELETE, false) if has("uploadId") => "AbortMultipartUpload",
        (&Method::DELETE, false) => "DeleteObject",
        (&Method::POST, false) if has("uploads") => "CreateMultipartUpload",
        (&Method::POST, false) if has("uploadId") => "CompleteMultipartUpload",
        (&Method::POST, true) if has("delete") => "DeleteObjects",
        (&Method::GET, true) if has("list-type") => "ListObjectsV2",
        (&Method::GET, true) if has("location") => "GetBucketLocation",
        (&Method::GET, true) => "ListObjects",
        (&Method::HEAD, true) => "HeadBucket",
        _ => "Other",
    };
    let key = if key.is_empty() {
        value("prefix").unwrap_or_default()
    } else {
        key
    };
    S3Request {
        at: Instant::now(),
        operation,
        key: key.replace("%2F", "/"),
        status: None,
        error: None,
        bytes: body_length(request.headers()),
        overhead: head_length(
            request.uri().to_string().len() + "GET  HTTP/1.1".len(),
            request.headers(),
        ),
        access_key_id: signer(request.headers()),
    }
}

/// The length of a head with a first line of this length.
fn head_length(first: usize, headers: &HeaderMap) -> u64 {
    let lines = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    (first + "\r\n\r\n".len() + lines.sum::<usize>()) as u64
}

/// The length of what is stored, not of its transfer encoding.
fn body_length(headers: &HeaderMap) -> u64 {
    ["x-amz-decoded-content-length", "content-length"]
        .into_iter()
        .find_map(|name| headers.get(name)?.to_str().ok()?.parse().ok())
        .unwrap_or_default()
}

fn signer(headers: &HeaderMap) -> Option<String> {
    let authorization = headers.get("authorization")?.to_str().ok()?;
    let (_, credential) = authorization.split_once("Credential=")?;
    Some(credential.split('/').next()?.to_owned())
}

fn refusal(status: StatusCode, code: &str) -> HttpResponse {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code>\
         <Message>on order</Message></Error>"
    );
    let mut response = HttpResponse::new(Body::from(xml));
    *response.status_mut() = status;
    response
}

fn error_code(response: &HttpResponse) -> Option<String> {
    if response.status().is_success() {
        return None;
    }
    let body = response.body().bytes()?;
    let text = std::str::from_utf8(&body).ok()?;
    let (_, rest) = text.split_once("<Code>")?;
    Some(rest.split_once("</Code>")?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::signed_at;

    #[test]
    fn reads_the_date_of_a_signature() {
        let seconds = |text| Some(signed_at(text)?.unix_timestamp());
        assert_eq!(seconds("20261123T031900Z"), Some(1_795_403_940));
        assert_eq!(seconds("19700101T000000Z"), Some(0));
        assert_eq!(seconds("20261323T031900Z"), None);
        assert_eq!(seconds("today"), None);
    }
}
