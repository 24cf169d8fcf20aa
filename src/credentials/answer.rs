//! The credential provider's answers: what each status and body means.
//!
//! Owns that judgement, and the one rule for valid credentials. An answer is untrusted until it is
//! checked: a message or a log never contains anything of a body but AWS's own `message`, bounded
//! and escaped.

use std::time::Duration;

use serde_json::Value;

use super::json::{parse_strictly, text};
use super::{Credentials, FailureClass, FetchFailure, Grant, LONGEST_WAIT};
use crate::clock::WallTime;

/// The longest body that is read, in bytes. AWS answers with little more than 1 KiB.
pub(super) const MAX_BODY: u64 = 64 * 1024;

/// The longest lifetime that is believed. AWS grants 12 hours at most.
const MAX_LIFETIME: Duration = Duration::from_secs(13 * 3600);

/// What came back, as far as it matters.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) date: Option<String>,
    pub(super) retry_after: Option<String>,
    pub(super) error_type: Option<String>,
    pub(super) request_id: Option<String>,
    pub(super) body: Vec<u8>,
}

/// What was asked, to name it in messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) host: &'a str,
    pub(super) role_alias: &'a str,
    pub(super) thing_name: &'a str,
}

/// Turns an answer into credentials or into the reason why there are none. `now` is the device's
/// clock, which counts only where the answer has no date.
pub(super) fn judge(
    answer: &Answer,
    asked: Asked<'_>,
    now: WallTime,
) -> Result<Grant, FetchFailure> {
    let server_time = answer.date.as_deref().and_then(WallTime::from_http_date);
    let now = server_time.unwrap_or(now);
    let status = answer.status;
    let host = asked.host;
    let transient = |message| Err(FetchFailure::new(FailureClass::Transient, message));
    match status {
        200 => read_grant(&answer.body, asked, server_time, now)
            .or_else(|why| transient(format!("{host} answered without usable credentials: {why}"))),
        400 | 403 | 404 => Err(refusal(answer, asked)),
        429 | 500..=599 => {
            let said = Words::of(&answer.body)
                .map(|said| said.quoted())
                .unwrap_or_default();
            let message = format!("{host} answered {status}{said}");
            let retry_after = answer
                .retry_after
                .as_deref()
                .and_then(|text| wait(text, now));
            Err(FetchFailure {
                class: FailureClass::Transient,
                message,
                retry_after,
            })
        }
        300..=399 => transient(format!(
            "{host} answered with a redirect ({status}), which is never followed"
        )),
        _ => transient(format!(
            "{host} answered with the unexpected status {status}"
        )),
    }
}

fn read_grant(
    body: &[u8],
    asked: Asked<'_>,
    server_time: Option<WallTime>,
    now: WallTime,
) -> Result<Grant, String> {
    let answer = parse_strictly(body)?;
    let given = answer.get("credentials").and_then(Value::as_object);
    let given = given.ok_or("there is no object \"credentials\" in it")?;
    let credentials = Credentials::checked(
        text(given, "accessKeyId")?,
        text(given, "secretAccessKey")?,
        text(given, "sessionToken")?,
    )?;
    let expiration: WallTime = text(given, "expiration")?
        .parse()
        .map_err(|_| "its expiration is not a time in the form 2023-02-06T05:54:46Z")?;
    let lifetime = expiration - now;
    check_lifetime(lifetime)?;
    let thing_name = asked.thing_name.to_owned();
    Ok(Grant {
        credentials,
        expiration,
        lifetime,
        server_time,
        thing_name,
    })
}

impl Credentials {
    /// Credentials, if these can be some: the access key ID as STS specifies it, the others any
    /// text that is safe in an environment, a file of `NAME=value` lines and JSON. Long ones are
    /// refused: 256 bytes for the secret key and 16 KiB for the token are several times what AWS
    /// issues.
    ///
    /// # Errors
    /// A sentence that names the part, and never its content.
    pub(crate) fn checked(id: &str, secret: &str, token: &str) -> Result<Self, String> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if !(16..=128).contains(&id.len()) || !id.bytes().all(word) {
            return Err("its accessKeyId is not 16 to 128 letters and digits".to_owned());
        }
        let opaque = |b: u8| b.is_ascii_graphic() && !b"'\"\\`$".contains(&b);
        for (name, value, limit) in [
            ("secretAccessKey", secret, 256),
            ("sessionToken", token, 16 * 1024),
        ] {
            if value.is_empty() || value.len() > limit {
                return Err(format!("its {name} is not 1 to {limit} bytes long"));
            }
            if !value.bytes().all(opaque) {
                return Err(format!(
                    "its {name} has a character that is not valid there"
                ));
            }
        }
        Ok(Self {
            access_key_id: id.to_owned(),
            secret_access_key: secret.to_owned(),
            session_token: token.to_owned(),
        })
    }
}

/// Whether anything may live so long.
pub(super) fn check_lifetime(lifetime: Duration) -> Result<(), String> {
    match lifetime {
        Duration::ZERO => Err("they have already expired".to_owned()),
        longer if longer > MAX_LIFETIME => Err(format!(
            "they would live for {} s, longer than AWS grants",
            longer.as_secs()
        )),
        _ => Ok(()),
    }
}

/// Retry-After: seconds, or a date (RFC 9110, 10.2.3).
fn wait(text: &str, now: WallTime) -> Option<Duration> {
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => WallTime::from_http_date(text)? - now,
    };
    Some(wait.min(LONGEST_WAIT))
}

fn refusal(answer: &Answer, asked: Asked<'_>) -> FetchFailure {
    let Asked {
        host,
        role_alias,
        thing_name,
    } = asked;
    let words = Words::of(&answer.body);
    let said = words.as_ref().map(Words::quoted).unwrap_or_default();
    let known = words
        .as_ref()
        .map(|w| w.message.as_str())
        .unwrap_or_default();
    let step = match (answer.status, known) {
        (_, "Invalid thing name passed") => format!(
            "attach the thing {thing_name:?} to this device's certificate \
             (aws iot attach-thing-principal), or correct identity.thing_name"
        ),
        (_, "Certificate is invalid on this endpoint") => {
            "register and activate this device's certificate in the account and region of \
             credentials.endpoint"
                .to_owned()
        }
        (403, "Access Denied") => format!(
            "attach a policy to the certificate that allows iot:AssumeRoleWithCertificate on the \
             role alias {role_alias:?}"
        ),
        (_, "Role alias does not exist") => format!(
            "create the role alias {role_alias:?} in the account and region of \
             credentials.endpoint, or correct credentials.role_alias"
        ),
        (_, "Unable to assume the role, or the role to assume does not exist") => format!(
            "allow credentials.iot.amazonaws.com to assume (sts:AssumeRole) the role of the role \
             alias {role_alias:?}, in the role's trust policy"
        ),
        (_, known) if known.contains("CredentialDurationSeconds exceeds") => format!(
            "lower the role alias {role_alias:?}'s duration or raise the role's \
             MaxSessionDuration"
        ),
        (404, "Not Found") if words.as_ref().is_some_and(|w| w.has_trace) => {
            "this is the endpoint for data: take credentials.endpoint from \
             aws iot describe-endpoint --endpoint-type iot:CredentialProvider"
                .to_owned()
        }
        (404, _) => "check credentials.endpoint and credentials.role_alias".to_owned(),
        (403, _) => "check the certificate, its policy and its thing".to_owned(),
        _ => "check the role alias and its role".to_owned(),
    };
    let mut source = String::new();
    for (name, value) in [
        ("type", &answer.error_type),
        ("request", &answer.request_id),
    ] {
        if let Some(value) = value.as_deref().filter(|v| is_plain(v)) {
            source.push_str(&format!(", {name} {value}"));
        }
    }
    let message = format!("{host} refused ({}{source}){said}: {step}", answer.status);
    FetchFailure::new(FailureClass::Refused, message)
}

fn is_plain(header: &str) -> bool {
    (1..=128).contains(&header.len()) && header.bytes().all(|b| b.is_ascii_graphic())
}

/// What AWS says in the body of a refusal.
struct Words {
    message: String,
    has_trace: bool,
}

impl Words {
    fn of(body: &[u8]) -> Option<Self> {
        let body = parse_strictly(body).ok()?;
        let object = body.as_object()?;
        let message = object
            .get("message")
            .or_else(|| object.get("Message"))?
            .as_str()?;
        let message = message.chars().take(200).collect();
        Some(Self {
            message,
            has_trace: object.contains_key("traceId"),
        })
    }

    /// With control characters escaped.
    fn quoted(&self) -> String {
        format!(" {:?}", self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked<'_> = Asked {
        host: "c.example",
        role_alias: "edgerepl",
        thing_name: "thing-1",
    };
    const DATE: &str = "Mon, 06 Feb 2023 04:54:46 GMT";
    const GOOD: &str = r#"{"credentials":{"accessKeyId":"ASIAIOSFODNN7EXAMPLE",
        "secretAccessKey":"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY=",
        "sessionToken":"FwoGZXIvYXdzEEMaDIC//=","expiration":"2023-02-06T05:54:46Z"}}"#;

    fn answer(status: u16, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref().to_vec();
        Answer {
            status,
            date: Some(DATE.to_owned()),
            body,
            ..Answer::default()
        }
    }

    fn judged(answer: &Answer) -> Result<Grant, FetchFailure> {
        judge(answer, ASKED, WallTime::from_unix(0))
    }

    #[test]
    fn takes_good_credentials() {
        let grant = judged(&answer(200, GOOD)).expect("good");
        assert_eq!(grant.credentials.access_key_id, "ASIAIOSFODNN7EXAMPLE");
        assert_eq!(grant.lifetime, Duration::from_secs(3600));
        assert_eq!(grant.expiration, WallTime::from_unix(1_675_662_886));
        assert_eq!(grant.server_time, Some(WallTime::from_unix(1_675_659_286)));
        assert_eq!(grant.thing_name, "thing-1");
        assert_eq!(format!("{:?}", grant.credentials), "Credentials(secret)");

        // More members than are known do no harm, nor does a colon in text.
        let more = GOOD.replacen('{', r#"{"note":"a\":b","list":[{"x":1},{"x":2}],"#, 1);
        assert!(judged(&answer(200, more)).is_ok());
    }

    #[test]
    fn takes_the_lifetime_from_the_server_and_else_from_the_device() {
        for date in [None, Some("today".to_owned())] {
            let undated = Answer {
                date,
                ..answer(200, GOOD)
            };
            let grant = judge(&undated, ASKED, WallTime::from_unix(1_675_662_826)).expect("good");
            assert_eq!(grant.lifetime, Duration::from_secs(60));
            assert_eq!(grant.server_time, None);
            // A device in 1970 can't tell how long they last.
            let failure = judged(&undated).expect_err("no clock");
            assert!(
                failure.message.contains("longer than AWS grants"),
                "{}",
                failure.message
            );
        }
    }

    #[test]
    fn refuses_what_cannot_be_credentials() {
        let with = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            GOOD.replace(from, to).into_bytes()
        };
        let key = "ASIAIOSFODNN7EXAMPLE";
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY=";
        let token = "FwoGZXIvYXdzEEMaDIC//=";
        let time = "2023-02-06T05:54:46Z";
        let deep = "[".repeat(200);
        for (body, why) in [
            (b"".to_vec(), "not JSON"),
            (b"null".to_vec(), "no object"),
            (b"[]".to_vec(), "no object"),
            (b"{}".to_vec(), "no object"),
            (b"1e999".to_vec(), "not JSON"),
            (deep.into_bytes(), "not JSON"),
            ([b"\xef\xbb\xbf", GOOD.as_bytes()].concat(), "not JSON"),
            ([GOOD.as_bytes(), b"{}"].concat(), "not JSON"),
            (GOOD.as_bytes()[..GOOD.len() - 1].to_vec(), "not JSON"),
            (with(token, "\u{1}"), "not JSON"),
            ([b"{\"a\":\"\xff\"}".as_slice()].concat(), "not JSON"),
            (with(token, "\\ud800"), "not JSON"),
            (b"\x1f\x8b\x08\x00".to_vec(), "not JSON"),
            (with(&format!("\"{key}\""), "1"), "no text \"accessKeyId\""),
            (
                with("\"sessionToken\"", "\"session\""),
                "no text \"sessionToken\"",
            ),
            (with("\"credentials\"", "\"credential\""), "no object"),
            (with(key, "ASIA"), "accessKeyId"),
            (with(key, &"A".repeat(129)), "accessKeyId"),
            (with(key, "ASIAIOSFODNN7EXAMPLÉ"), "accessKeyId"),
            (with(key, "ASIAIOSFODNN7EXA-PLE"), "accessKeyId"),
            (with(secret, ""), "secretAccessKey"),
            (with(secret, &"k".repeat(257)), "secretAccessKey"),
            (with(secret, "x\\nAWS_PROFILE=evil"), "secretAccessKey"),
            (with(secret, "a b"), "secretAccessKey"),
            (with(secret, "a'b"), "secretAccessKey"),
            (with(secret, "a\\\"b"), "secretAccessKey"),
            (with(secret, "a\\\\b"), "secretAccessKey"),
            (with(secret, "a`b"), "secretAccessKey"),
            (with(secret, "a$b"), "secretAccessKey"),
            (with(token, "\\u0000"), "sessionToken"),
            (with(token, "\\u007f"), "sessionToken"),
            (with(token, &"t".repeat(16 * 1024 + 1)), "sessionToken"),
            (with(token, "tökén"), "sessionToken"),
            (with(time, "2023-02-06"), "expiration"),
            (with(time, "2023-02-06T05:54:46+09:00"), "expiration"),
            (with(time, "2023-02-06T04:54:46Z"), "already expired"),
            (with(time, "1970-01-01T00:00:00Z"), "already expired"),
            (with(time, "2023-02-06T17:54:47Z"), "longer than AWS grants"),
            (with(time, "2123-02-06T05:54:46Z"), "longer than AWS grants"),
            (
                with("\"accessKeyId\"", "\"expiration\":\"x\",\"accessKeyId\""),
                "twice",
            ),
            (
                with("{\"credentials\"", "{\"credentials\":{},\"credentials\""),
                "twice",
            ),
            (
                with(
                    "\"accessKeyId\"",
                    "\"expir\\u0061tion\":\"x\",\"accessKeyId\"",
                ),
                "twice",
            ),
        ] {
            let failure = judged(&answer(200, &body)).expect_err(why);
            let body = String::from_utf8_lossy(&body);
            assert_eq!(failure.class, FailureClass::Transient, "{body}");
            assert!(failure.message.contains(why), "{body}: {}", failure.message);
            assert!(!failure.message.contains("wJal"), "{}", failure.message);
            assert!(!failure.message.contains("evil"), "{}", failure.message);
        }
    }

    #[test]
    fn tells_the_operator_the_next_step() {
        for (status, message, step) in [
            (
                403,
                "Invalid thing name passed",
                "attach the thing \"thing-1\"",
            ),
            (
                403,
                "Access Denied",
                "iot:AssumeRoleWithCertificate on the role alias \"edgerepl\"",
            ),
            (
                403,
                "Certificate is invalid on this endpoint",
                "register and activate",
            ),
            (
                404,
                "Role alias does not exist",
                "create the role alias \"edgerepl\"",
            ),
            (
                400,
                "Unable to assume the role, or the role to assume does not exist",
                "credentials.iot.amazonaws.com",
            ),
            (
                400,
                "The requested CredentialDurationSeconds exceeds the MaxSessionDuration set for \
                 the role",
                "MaxSessionDuration",
            ),
            (403, "Something new", "check the certificate"),
        ] {
            let body = format!("{{\"message\":\"{message}\"}}");
            let refused = Answer {
                error_type: Some("AccessDeniedException".to_owned()),
                request_id: Some("4ac6\n".to_owned()),
                ..answer(status, body)
            };
            let failure = judged(&refused).expect_err(message);
            assert_eq!(failure.class, FailureClass::Refused);
            assert!(failure.message.contains(step), "{}", failure.message);
            assert!(failure.message.contains(message), "{}", failure.message);
            assert!(
                failure.message.contains("type AccessDeniedException"),
                "{}",
                failure.message
            );
            assert!(!failure.message.contains("4ac6"), "{}", failure.message);
        }
        let data = answer(404, r#"{"message":"Not Found","traceId":"1-2"}"#);
        assert!(
            judged(&data)
                .expect_err("data")
                .message
                .contains("endpoint for data")
        );
    }

    #[test]
    fn bounds_and_escapes_what_a_server_says() {
        let body = format!("{{\"message\":\"a\\n\\u001b[2J{}\"}}", "x".repeat(5000));
        let failure = judged(&answer(403, body)).expect_err("refused");
        assert!(
            failure.message.contains(r"a\n\u{1b}[2J"),
            "{}",
            failure.message
        );
        assert!(failure.message.len() < 600);
        for body in ["", "<html>", "{\"message\":5}", "[]"] {
            let failure = judged(&answer(403, body)).expect_err("refused");
            assert_eq!(failure.class, FailureClass::Refused);
            assert!(!failure.message.contains("html"));
        }
    }

    #[test]
    fn waits_as_long_as_it_is_asked_within_bounds() {
        for (retry_after, expected) in [
            (None, None),
            (Some("7"), Some(7)),
            (Some("0"), Some(0)),
            (Some("86400"), Some(900)),
            (Some("Mon, 06 Feb 2023 04:55:46 GMT"), Some(60)),
            (Some("Mon, 06 Feb 2023 03:55:46 GMT"), Some(0)),
            (Some("soon"), None),
            (Some("-1"), None),
            (Some("99999999999999999999999"), None),
        ] {
            for status in [429, 500, 503] {
                let retry_after = retry_after.map(str::to_owned);
                let busy = Answer {
                    retry_after,
                    ..answer(status, "")
                };
                let failure = judged(&busy).expect_err("busy");
                assert_eq!(failure.class, FailureClass::Transient);
                assert_eq!(failure.retry_after, expected.map(Duration::from_secs));
            }
        }
    }

    #[test]
    fn takes_no_other_status_for_an_answer() {
        for status in [100, 201, 204, 301, 302, 307, 401, 407, 418, 999] {
            let failure = judged(&answer(status, GOOD)).expect_err("unexpected");
            assert_eq!(failure.class, FailureClass::Transient, "{status}");
            assert!(
                failure.message.contains(&status.to_string()),
                "{}",
                failure.message
            );
        }
    }
}
