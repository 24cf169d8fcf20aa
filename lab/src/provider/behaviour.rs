//! How the provider answers: the orders a test can give, and the bytes that follow from each. It
//! knows HTTP's framing and nothing of TLS, things or roles.

use std::time::{Duration, SystemTime};

use crate::sessions::random;

/// How a request is answered.
#[derive(Clone, Debug, Default)]
pub enum Behaviour {
    /// As AWS does.
    #[default]
    Normal,
    /// As AWS reports an error: `{"message": …}` and the error's type in a header.
    Status {
        /// The HTTP status.
        code: u16,
        /// The message in the body.
        message: String,
        /// The value of `Retry-After`, seconds or a date.
        retry_after: Option<String>,
    },
    /// As AWS does, after a delay.
    Slow(Duration),
    /// As AWS does, one byte at a time with this pause after each.
    Drip(Duration),
    /// The request is read and never answered.
    Hang,
    /// The whole head, half of the body, and the end of the connection.
    CloseMidBody,
    /// A 200 with this body, correctly framed.
    Body {
        /// The `Content-Type`.
        content_type: String,
        /// The body.
        body: Vec<u8>,
    },
    /// A 302 to this URL.
    Redirect(String),
    /// As AWS does, but for the `Date` header.
    WrongDate(DateHeader),
    /// These bytes as they are, then the end of the connection.
    Raw(Vec<u8>),
    /// `head`, then `piece` again and again until the client leaves.
    Endless {
        /// What comes first.
        head: Vec<u8>,
        /// What is repeated.
        piece: Vec<u8>,
    },
}

impl Behaviour {
    /// An error as AWS reports it, without `Retry-After`.
    pub fn status(code: u16, message: &str) -> Self {
        Self::Status {
            code,
            message: message.to_owned(),
            retry_after: None,
        }
    }

    /// A 200 with `body` as JSON.
    pub fn json(body: impl Into<Vec<u8>>) -> Self {
        Self::Body {
            content_type: JSON.to_owned(),
            body: body.into(),
        }
    }

    /// What goes out. `normal` gives AWS's answer; it is called only where that is wanted, as it
    /// issues a session.
    pub(super) fn outgoing(self, normal: impl FnOnce(&DateHeader) -> Reply) -> Outgoing {
        let now = SystemTime::now();
        match self {
            Self::Normal | Self::Slow(_) => Outgoing::Reply(normal(&DateHeader::True)),
            Self::WrongDate(date) => Outgoing::Reply(normal(&date)),
            Self::Drip(pause) => Outgoing::Dripping(normal(&DateHeader::True), pause),
            Self::CloseMidBody => Outgoing::CutShort(normal(&DateHeader::True)),
            Self::Status {
                code,
                message,
                retry_after,
            } => {
                let mut reply = Reply::error(code, &message).dated(&DateHeader::True, now);
                if let Some(value) = retry_after {
                    reply.headers.push(("Retry-After", value));
                }
                Outgoing::Reply(reply)
            }
            Self::Body { content_type, body } => {
                Outgoing::Reply(Reply::new(200, &content_type, body).dated(&DateHeader::True, now))
            }
            Self::Redirect(to) => {
                let mut reply = Reply::new(302, "text/html", Vec::new());
                reply.headers.push(("Location", to));
                Outgoing::Reply(reply.dated(&DateHeader::True, now))
            }
            Self::Hang => Outgoing::Nothing,
            Self::Raw(bytes) => Outgoing::Raw(bytes),
            Self::Endless { head, piece } => Outgoing::Endless { head, piece },
        }
    }
}

/// What the `Date` header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DateHeader {
    /// The provider's clock.
    #[default]
    True,
    /// The provider's clock, this many seconds off; `expiration` stays true.
    Off(i64),
    /// There is none.
    Missing,
    /// This text.
    Text(String),
}

/// What is written to the connection.
pub(super) enum Outgoing {
    Reply(Reply),
    CutShort(Reply),
    Dripping(Reply, Duration),
    Raw(Vec<u8>),
    Endless { head: Vec<u8>, piece: Vec<u8> },
    Nothing,
}

impl Outgoing {
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Reply(reply) | Self::CutShort(reply) | Self::Dripping(reply, _) => {
                Some(reply.status)
            }
            Self::Raw(_) | Self::Endless { .. } | Self::Nothing => None,
        }
    }
}

const JSON: &str = "application/json";

/// A well-formed HTTP answer.
pub(super) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, JSON, body.into())
    }

    pub(super) fn error(status: u16, message: &str) -> Self {
        let body = serde_json::json!({ "message": message }).to_string();
        let mut reply = Self::json(status, body);
        reply
            .headers
            .push(("x-amzn-ErrorType", error_type(status).to_owned()));
        reply
    }

    fn new(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        let headers = vec![
            ("Content-Type", content_type.to_owned()),
            ("Content-Length", body.len().to_string()),
            ("x-amzn-RequestId", request_id()),
        ];
        Self {
            status,
            headers,
            body,
        }
    }

    pub(super) fn dated(mut self, date: &DateHeader, clock: SystemTime) -> Self {
        let value = match date {
            DateHeader::True => httpdate::fmt_http_date(clock),
            DateHeader::Off(seconds) => {
                let distance = Duration::from_secs(seconds.unsigned_abs());
                let moved = if *seconds < 0 {
                    clock - distance
                } else {
                    clock + distance
                };
                httpdate::fmt_http_date(moved)
            }
            DateHeader::Text(text) => text.clone(),
            DateHeader::Missing => return self,
        };
        self.headers.push(("Date", value));
        self
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

fn error_type(status: u16) -> &'static str {
    match status {
        400 => "InvalidRequestException",
        403 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        429 => "ThrottlingException",
        503 => "ServiceUnavailableException",
        _ => "InternalFailureException",
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        302 => "Found",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}

fn request_id() -> String {
    let hex: String = random::<16>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
