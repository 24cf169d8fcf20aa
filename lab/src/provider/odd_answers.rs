//! Every answer that a credential provider, a captive portal or an attacker may give instead of the
//! right one, each with what a careful client does about it. One test walks the whole table.

use std::{fmt::Display, time::Duration};

use time::OffsetDateTime;

use super::behaviour::Behaviour;
use crate::sessions::rfc3339;

/// What a careful client does with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It uses the credentials.
    Accepted,
    /// It hands over nothing, keeps what it had, follows nowhere and tries again later.
    Rejected,
    /// As rejected, after its own time limit: the answer never ends by itself.
    TimedOut,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct OddAnswer {
    /// A short name, unique in the table.
    pub name: &'static str,
    /// The order for the provider.
    pub behaviour: Behaviour,
    /// What a careful client does.
    pub expected: Expected,
}

/// The table. Expirations in it are relative to the moment of the call.
pub fn odd_answers() -> Vec<OddAnswer> {
    use Expected::{Accepted, Rejected, TimedOut};

    let mut table = Table(Vec::new());
    redirects(&mut table);
    framing(&mut table);

    // Bodies that are not the answer's JSON.
    table.json("empty body", Rejected, "");
    table.add(
        "no content",
        Rejected,
        Behaviour::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
    );
    table.json("null", Rejected, "null");
    table.json("array", Rejected, "[]");
    table.json("number", Rejected, "42");
    table.json("empty object", Rejected, "{}");
    table.json(
        "number out of range",
        Rejected,
        answer(&[(EXPIRATION, "1e999")]),
    );
    table.json(
        "byte order mark",
        Rejected,
        format!("\u{feff}{}", answer(&[])),
    );
    table.json("trailing data", Rejected, format!("{}x", answer(&[])));
    table.json("two answers", Rejected, format!("{0}{0}", answer(&[])));
    table.json("trailing newline", Accepted, format!("{}\n", answer(&[])));
    table.json("cut-off JSON", Rejected, &answer(&[])[..200]);
    table.json("nested too deep", Rejected, "[".repeat(10_000));
    table.json("invalid UTF-8", Rejected, invalid_utf8());
    table.json(
        "lone surrogate",
        Rejected,
        answer(&[(TOKEN, "\"\\ud800\"")]),
    );
    table.json(
        "raw control character",
        Rejected,
        answer(&[(TOKEN, "\"a\u{1}b\"")]),
    );
    table.add("gzip", Rejected, gzip());
    table.add(
        "captive portal",
        Rejected,
        Behaviour::Body {
            content_type: "text/html".to_owned(),
            body: b"<html><body>Please log in</body></html>".to_vec(),
        },
    );
    table.json("100 KiB body", Rejected, padded(100 * 1024));
    table.json(
        "unknown fields",
        Accepted,
        format!("{{\"x\":[1,{{}}],{}", &answer(&[])[1..]),
    );
    table.json(
        "wrong data endpoint",
        Rejected,
        r#"{"message":"Not Found","traceId":"0f0f"}"#,
    );

    // Fields of the wrong shape.
    table.json("credentials is null", Rejected, r#"{"credentials":null}"#);
    table.json("credentials is a list", Rejected, r#"{"credentials":[]}"#);
    for (field, names) in FIELDS {
        table.json(names.missing, Rejected, answer(&[(field, ABSENT)]));
        table.json(names.null, Rejected, answer(&[(field, "null")]));
        table.json(names.number, Rejected, answer(&[(field, "7")]));
        table.json(names.empty, Rejected, answer(&[(field, "\"\"")]));
        table.json(
            names.newline,
            Rejected,
            answer(&[(field, r#""x\nAWS_PROFILE=evil""#)]),
        );
        table.json(names.nul, Rejected, answer(&[(field, r#""x\u0000y""#)]));
    }
    table.json(
        "key id with a quote",
        Rejected,
        answer(&[(KEY_ID, r#""ASIA\"$(reboot)ABCDEFG""#)]),
    );
    table.json(
        "key id of 200 characters",
        Rejected,
        answer(&[(KEY_ID, &quoted("A".repeat(200)))]),
    );
    table.json(
        "secret with a carriage return",
        Rejected,
        answer(&[(SECRET, r#""abc\rdef""#)]),
    );
    table.json(
        "token with a space",
        Rejected,
        answer(&[(TOKEN, r#""abc def""#)]),
    );
    table.json(
        "duplicate field",
        Rejected,
        answer(&[(TOKEN, "\"a\",\"sessionToken\":\"b\"")]),
    );
    let twice = format!("{{\"credentials\":{{}},{}", &answer(&[])[1..]);
    table.json("duplicate credentials", Rejected, twice);

    expirations(&mut table);

    table.add(
        "slow body",
        TimedOut,
        Behaviour::Drip(Duration::from_secs(2)),
    );
    table.add("no answer", TimedOut, Behaviour::Hang);
    table.0
}

fn redirects(table: &mut Table) {
    let redirect = |to: &str| Behaviour::Redirect(to.to_owned());
    table.add(
        "redirect to http",
        Expected::Rejected,
        redirect("http://localhost:9/"),
    );
    table.add(
        "redirect to another host",
        Expected::Rejected,
        redirect("https://other.invalid/"),
    );
}

/// Answers that break HTTP, or use a rare part of it.
fn framing(table: &mut Table) {
    use Expected::{Accepted, Rejected};

    let ok = answer(&[]);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    let raw = |text: String| Behaviour::Raw(text.into_bytes());

    table.add("body cut short", Rejected, Behaviour::CloseMidBody);
    let short = format!("{head}Content-Length: {}\r\n\r\n{ok}", ok.len() + 10);
    table.add("content length too long", Rejected, raw(short));
    let cut = format!(
        "{head}Date: {date}\r\nConnection: close\r\n\r\n{}",
        &ok[..ok.len() / 2]
    );
    table.add("read until close, cut short", Rejected, raw(cut));
    let whole = format!("{head}Date: {date}\r\nConnection: close\r\n\r\n{ok}");
    table.add("read until close, whole", Accepted, raw(whole));
    let chunked = format!(
        "{head}Date: {date}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{ok}\r\n0\r\n\r\n",
        ok.len()
    );
    table.add("chunked body", Accepted, raw(chunked));
    table.add(
        "endless chunked body",
        Rejected,
        Behaviour::Endless {
            head: format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes(),
            piece: format!("400\r\n{}\r\n", " ".repeat(1024)).into_bytes(),
        },
    );
    table.add(
        "endless headers",
        Rejected,
        Behaviour::Endless {
            head: head.as_bytes().to_vec(),
            piece: format!("X-Padding: {}\r\n", "x".repeat(1024)).into_bytes(),
        },
    );
    table.add(
        "not HTTP",
        Rejected,
        raw("SSH-2.0-OpenSSH_9.2\r\n".to_owned()),
    );
    table.add("nothing at all", Rejected, Behaviour::Raw(Vec::new()));
    let continued = format!(
        "{}{head}Date: {date}\r\nContent-Length: {}\r\n\r\n{ok}",
        "HTTP/1.1 100 Continue\r\n\r\n".repeat(50),
        ok.len()
    );
    table.add("fifty times 100 Continue", Accepted, raw(continued));
}

fn expirations(table: &mut Table) {
    use Expected::{Accepted, Rejected};

    let now = OffsetDateTime::now_utc();
    let told = |seconds: i64| rfc3339(now + time::Duration::seconds(seconds));
    let good = told(900);
    let second = good.trim_end_matches('Z');
    let mut row = |name, expected, text: &str| {
        table.json(name, expected, answer(&[(EXPIRATION, &quoted(text))]));
    };
    row("expired an hour ago", Rejected, &told(-3600));
    row("expires now", Rejected, &told(0));
    row("expires in 14 hours", Rejected, &told(14 * 3600));
    row("expires in the year 9999", Rejected, "9999-12-31T23:59:59Z");
    row("expiration in words", Rejected, "tomorrow");
    row("expiration without a zone", Rejected, second);
    row("expiration without a time", Rejected, &good[..10]);
    row("expiration in month 13", Rejected, "2026-13-01T00:00:00Z");
    row(
        "expiration on 30 February",
        Rejected,
        "2026-02-30T00:00:00Z",
    );
    row("expiration at 25 o'clock", Rejected, "2026-01-01T25:00:00Z");
    row("expiration with a sign", Rejected, "+2026-01-01T00:00:00Z");
    row("expiration with a tail", Rejected, &format!("{good}Z"));
    row(
        "expiration with milliseconds",
        Accepted,
        &format!("{second}.123Z"),
    );
    row(
        "expiration with a zero offset",
        Accepted,
        &format!("{second}+00:00"),
    );
    row("expiration in a leap second", Accepted, &leap_second(now));
    table.json(
        "expiration in seconds",
        Rejected,
        answer(&[(EXPIRATION, "1795000000")]),
    );
}

/// The next end of an hour that is at least a quarter of an hour away, at second 60.
fn leap_second(now: OffsetDateTime) -> String {
    let later = now + time::Duration::minutes(15);
    let told = rfc3339(later);
    format!("{}59:60Z", &told[..14])
}

const KEY_ID: &str = "accessKeyId";
const SECRET: &str = "secretAccessKey";
const TOKEN: &str = "sessionToken";
const EXPIRATION: &str = "expiration";

/// In place of a value: the field is left out.
const ABSENT: &str = "";

/// The names of the rows that exist for every field.
struct Names {
    missing: &'static str,
    null: &'static str,
    number: &'static str,
    empty: &'static str,
    newline: &'static str,
    nul: &'static str,
}

macro_rules! names {
    ($field:literal) => {
        Names {
            missing: concat!($field, " missing"),
            null: concat!($field, " is null"),
            number: concat!($field, " is a number"),
            empty: concat!($field, " is empty"),
            newline: concat!($field, " with a line of its own"),
            nul: concat!($field, " with a NUL"),
        }
    };
}

const FIELDS: [(&str, Names); 4] = [
    (KEY_ID, names!("key id")),
    (SECRET, names!("secret")),
    (TOKEN, names!("token")),
    (EXPIRATION, names!("expiration")),
];

/// A right answer, but for the fields in `changed`, which take the given JSON text.
fn answer(changed: &[(&str, &str)]) -> String {
    let expiration = quoted(rfc3339(
        OffsetDateTime::now_utc() + time::Duration::minutes(15),
    ));
    let right = [
        (KEY_ID, "\"ASIAIOSFODNN7EXAMPLE\""),
        (SECRET, "\"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY\""),
        (TOKEN, "\"IQoJb3JpZ2luX2VjEXAMPLE/Token+ForTheLab==\""),
        (EXPIRATION, &expiration),
    ];
    let fields: Vec<String> = right
        .into_iter()
        .map(|(name, value)| {
            let value = changed
                .iter()
                .find(|(n, _)| *n == name)
                .map_or(value, |(_, v)| v);
            (name, value)
        })
        .filter(|(_, value)| *value != ABSENT)
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{\"credentials\":{{{}}}}}", fields.join(","))
}

fn quoted(text: impl Display) -> String {
    format!("\"{text}\"")
}

/// A right answer that is too large to be one.
fn padded(length: usize) -> String {
    format!(
        "{{\"padding\":\"{}\",{}",
        "x".repeat(length),
        &answer(&[])[1..]
    )
}

/// A right answer, but for one byte of its token that is no text.
fn invalid_utf8() -> Vec<u8> {
    answer(&[(TOKEN, "\"abc~def\"")])
        .bytes()
        .map(|byte| if byte == b'~' { 0xff } else { byte })
        .collect()
}

/// A right answer inside gzip, for which nobody asked. It is stored, not compressed: the point is
/// that the bytes are not text.
fn gzip() -> Behaviour {
    let body = answer(&[]).into_bytes();
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1];
    bytes.extend(length.to_le_bytes());
    bytes.extend((!length).to_le_bytes());
    bytes.extend(&body);
    bytes.extend(crc32(&body).to_le_bytes());
    bytes.extend(u32::from(length).to_le_bytes());
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\
         Content-Length: {}\r\n\r\n",
        bytes.len()
    );
    Behaviour::Raw([head.into_bytes(), bytes].concat())
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}

struct Table(Vec<OddAnswer>);

impl Table {
    fn add(&mut self, name: &'static str, expected: Expected, behaviour: Behaviour) {
        self.0.push(OddAnswer {
            name,
            behaviour,
            expected,
        });
    }

    fn json(&mut self, name: &'static str, expected: Expected, body: impl Into<Vec<u8>>) {
        self.add(name, expected, Behaviour::json(body));
    }
}
