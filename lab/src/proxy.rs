//! A proxy in front of S3 that misbehaves on order, in each way that a device in the field may meet.
//!
//! Owns what is said on its connections: one request each, the `Host` header unchanged, for it is part
//! of a signature. Reads of a request no more than where it ends. What S3 itself does is not its
//! business.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
    sync::Notify,
};

use crate::{
    error::{Error, Result},
    port::Port,
    s3::{BUCKET, S3},
    sync::Shared,
};

/// The region that a redirect names.
const OTHER_REGION: &str = "eu-central-1";

/// A request whose head is longer is none of Litestream's.
const HEAD_LIMIT: usize = 64 * 1024;

/// What the proxy does with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyWay {
    /// It hands the request on, and the answer back.
    #[default]
    Pass,
    /// 403: the role's policy allows nothing.
    AccessDenied,
    /// 403: the device's clock is off.
    RequestTimeTooSkewed,
    /// 400: the session is over.
    ExpiredToken,
    /// 404: the bucket was never made, or deleted.
    NoSuchBucket,
    /// 301 to another region, which the answer names.
    PermanentRedirect,
    /// 500, as AWS writes it.
    InternalError,
    /// 502 with the HTML of something in between.
    BadGateway,
    /// 503: too many requests.
    SlowDown,
    /// 200 with the HTML of a captive portal.
    Portal,
    /// It takes the request and never answers.
    Hang,
    /// It takes the request and resets the connection.
    Reset,
    /// Nobody listens.
    Refuse,
    /// It hands the answer back at a byte a second.
    Trickle,
    /// It hands back the first half of each answer.
    Half,
    /// It shows an empty bucket to who asks for a list; all else passes.
    EmptyLists,
    /// It answers a PUT with 200 and stores nothing; all else passes.
    ForgetPuts,
}

impl ProxyWay {
    /// All that are wrong.
    pub const FAULTS: [Self; 16] = [
        Self::AccessDenied,
        Self::RequestTimeTooSkewed,
        Self::ExpiredToken,
        Self::NoSuchBucket,
        Self::PermanentRedirect,
        Self::InternalError,
        Self::BadGateway,
        Self::SlowDown,
        Self::Portal,
        Self::Hang,
        Self::Reset,
        Self::Refuse,
        Self::Trickle,
        Self::Half,
        Self::EmptyLists,
        Self::ForgetPuts,
    ];
}

/// The running proxy. It stops with the lab.
pub struct S3Proxy {
    shared: Arc<State>,
    port: Port,
    host: String,
}

impl S3Proxy {
    pub(crate) fn start(runtime: Handle, s3: &S3) -> Result<Self> {
        let ip = Ipv4Addr::LOCALHOST;
        let shared = Arc::new(State {
            upstream: s3.address(),
            way: Shared::default(),
            way_changed: Notify::new(),
        });
        let serving = shared.clone();
        let port = Port::open(runtime, (ip, 0).into(), move |stream| {
            let state = serving.clone();
            async move {
                // An error is a connection that ended, which is often what was ordered.
                let _ = state.serve(stream).await;
            }
        })
        .map_err(Error::doing("the proxy before the lab's S3 can't listen"))?;
        Ok(Self {
            shared,
            port,
            host: ip.to_string(),
        })
    }

    /// `http://HOST:PORT`, in the place of S3's own.
    pub fn endpoint(&self) -> String {
        format!("http://{}:{}", self.host, self.port.address().port())
    }

    /// What it does from now on. Requests that it held are cut off.
    pub fn order(&self, way: ProxyWay) -> Result<()> {
        *self.shared.way.lock() = way;
        self.shared.way_changed.notify_waiters();
        self.port
            .set_listening(way != ProxyWay::Refuse)
            .map_err(Error::doing("the proxy's port can't be opened or closed"))
    }
}

struct State {
    upstream: SocketAddr,
    way: Shared<ProxyWay>,
    way_changed: Notify,
}

impl State {
    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        // Before the way is read: a change between the two must not be missed.
        let way_changed = self.way_changed.notified();
        let Some(request) = read_request(&mut client).await? else {
            return Ok(());
        };
        let way = *self.way.lock();
        let answering = async {
            match way {
                ProxyWay::Hang => std::future::pending::<()>().await,
                // Closed as it is then dropped, without a word of its end.
                ProxyWay::Reset => return client.set_zero_linger(),
                ProxyWay::Trickle => {
                    for byte in self.pass(&request).await? {
                        client.write_all(&[byte]).await?;
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
                ProxyWay::Half => {
                    let answer = self.pass(&request).await?;
                    client.write_all(&answer[..answer.len() / 2]).await?;
                }
                _ => {
                    let answer = match own_answer(way, &request) {
                        Some(answer) => answer,
                        None => self.pass(&request).await?,
                    };
                    client.write_all(&answer).await?;
                }
            }
            client.shutdown().await
        };
        tokio::select! {
            answered = answering => answered,
            () = way_changed => Ok(()),
        }
    }

    /// S3's answer, to its last byte.
    async fn pass(&self, request: &Request) -> io::Result<Vec<u8>> {
        let mut upstream = TcpStream::connect(self.upstream).await?;
        upstream.write_all(&request.head).await?;
        // The head's last empty line is still to come: the answer then ends where the connection does.
        upstream.write_all(b"Connection: close\r\n\r\n").await?;
        upstream.write_all(&request.body).await?;
        let mut answer = Vec::new();
        upstream.read_to_end(&mut answer).await?;
        Ok(answer)
    }
}

struct Request {
    method: String,
    target: String,
    /// Without the empty line at its end.
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Request {
    fn is_list(&self) -> bool {
        self.method == "GET" && self.target.contains("list-type=2")
    }
}

/// `None`: the client went away before it asked.
async fn read_request(client: &mut TcpStream) -> io::Result<Option<Request>> {
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if bytes.len() > HEAD_LIMIT {
            return Err(invalid("a head without an end"));
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let mut body = bytes.split_off(end);
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed
        .parse(&bytes)
        .map_err(|_| invalid("a head that is no HTTP"))?;
    let value = |name: &str| {
        let found = parsed.headers.iter();
        let mut found = found.filter(|header| header.name.eq_ignore_ascii_case(name));
        found.next().and_then(|h| std::str::from_utf8(h.value).ok())
    };
    let length: usize = value("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or_default();
    if value("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let (method, target) = (
        parsed.method.unwrap_or_default().to_owned(),
        parsed.path.unwrap_or_default().to_owned(),
    );
    while body.len() < length {
        if client.read_buf(&mut body).await? == 0 {
            return Err(invalid("a body that breaks off"));
        }
    }
    bytes.truncate(end - 2);
    Ok(Some(Request {
        method,
        target,
        head: without_expect(&bytes),
        body,
    }))
}

/// The client was told to go on already, and sends its body in any case.
fn without_expect(head: &[u8]) -> Vec<u8> {
    let lines = head.split_inclusive(|byte| *byte == b'\n');
    let kept = lines.filter(|line| {
        let name = line.get(..7).unwrap_or_default();
        !name.eq_ignore_ascii_case(b"expect:")
    });
    kept.flatten().copied().collect()
}

/// What the proxy says itself; `None` where S3 is to answer.
fn own_answer(way: ProxyWay, request: &Request) -> Option<Vec<u8>> {
    let error =
        |status, code, message, more: &str| Some(error(status, code, message, more, request));
    let now = httpdate::fmt_http_date(SystemTime::now());
    let html = |status, text: &str| {
        let page = format!(
            "<!DOCTYPE html>\n<html><head><title>{text}</title></head><body>{text}</body></html>\n"
        );
        Some(answer(
            status,
            "Content-Type: text/html\r\n",
            &page,
            request,
        ))
    };
    match way {
        ProxyWay::AccessDenied => error(
            "403 Forbidden",
            "AccessDenied",
            "User: arn:aws:sts::123456789012:assumed-role/edgerepl/thing is not authorized to perform: \
             s3:PutObject on resource: \"arn:aws:s3:::edge/app.db\" because no session policy allows the \
             s3:PutObject action",
            "",
        ),
        ProxyWay::RequestTimeTooSkewed => error(
            "403 Forbidden",
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            &format!(
                "<RequestTime>20200101T000000Z</RequestTime><ServerTime>{now}</ServerTime>\
                 <MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>"
            ),
        ),
        ProxyWay::ExpiredToken => error(
            "400 Bad Request",
            "ExpiredToken",
            "The provided token has expired.",
            "<Token-0>on order</Token-0>",
        ),
        ProxyWay::NoSuchBucket => error(
            "404 Not Found",
            "NoSuchBucket",
            "The specified bucket does not exist",
            &format!("<BucketName>{BUCKET}</BucketName>"),
        ),
        ProxyWay::PermanentRedirect => error(
            "301 Moved Permanently",
            "PermanentRedirect",
            "The bucket you are attempting to access must be addressed using the specified endpoint. \
             Please send all future requests to this endpoint.",
            &format!(
                "<Endpoint>{BUCKET}.s3.{OTHER_REGION}.amazonaws.com</Endpoint><Bucket>{BUCKET}</Bucket>"
            ),
        ),
        ProxyWay::InternalError => error(
            "500 Internal Server Error",
            "InternalError",
            "We encountered an internal error. Please try again.",
            "",
        ),
        ProxyWay::SlowDown => error(
            "503 Slow Down",
            "SlowDown",
            "Please reduce your request rate.",
            "",
        ),
        ProxyWay::BadGateway => html("502 Bad Gateway", "502 Bad Gateway"),
        ProxyWay::Portal => html("200 OK", "Welcome! Please log in"),
        ProxyWay::EmptyLists if request.is_list() => Some(answer(
            "200 OK",
            "Content-Type: application/xml\r\n",
            &format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                 <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>{BUCKET}</Name>\
                 <Prefix></Prefix><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys>\
                 <IsTruncated>false</IsTruncated></ListBucketResult>"
            ),
            request,
        )),
        ProxyWay::ForgetPuts if request.method == "PUT" => Some(answer(
            "200 OK",
            "ETag: \"d41d8cd98f00b204e9800998ecf8427e\"\r\n",
            "",
            request,
        )),
        _ => None,
    }
}

/// As AWS writes it.
fn error(status: &str, code: &str, message: &str, more: &str, request: &Request) -> Vec<u8> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Error><Code>{code}</Code><Message>{message}</Message>{more}\
         <RequestId>656c76696e6727732072</RequestId>\
         <HostId>Uuag1LuByRx9e6j5Onimru9pO4ZVKnJ2Qz7/C1NPcfTWAtRPfTaOFg==</HostId></Error>"
    );
    let region = match code {
        "PermanentRedirect" => format!("x-amz-bucket-region: {OTHER_REGION}\r\n"),
        _ => String::new(),
    };
    let headers = format!("Content-Type: application/xml\r\n{region}");
    answer(status, &headers, &body, request)
}

fn answer(status: &str, headers: &str, body: &str, request: &Request) -> Vec<u8> {
    let date = httpdate::fmt_http_date(SystemTime::now());
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nx-amz-request-id: 656c76696e6727732072\r\nDate: {date}\r\n\
         Server: AmazonS3\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if request.method != "HEAD" {
        answer.push_str(body);
    }
    answer.into_bytes()
}
