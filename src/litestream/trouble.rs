//! Litestream's error messages, translated to the thing, the cause and the operator's next step.
//!
//! Owns the known errors and their sentences, for the messages of Litestream 0.5, its SDKs, S3 and
//! S3-compatible stores. Reads text only: it never looks at the device, and never decides anything.
//! An unknown message stays in Litestream's own words, with a bounded length.

use std::borrow::Cow;

#[cfg(test)]
mod tests;

/// The longest message that is passed on, in characters.
const LONGEST: usize = 500;

/// The longest name that is taken from a message: a bucket, a host, a path.
const LONGEST_NAME: usize = 255;

/// The error codes of AWS and compatible stores for an expired session.
const SESSION_ENDED: [&str; 3] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
];

/// The meaning of `said`, the error of a sync; `None` if it is not known. `bucket` is the bucket's
/// name, which Litestream's messages rarely contain.
pub(super) fn explain(said: &str, bucket: Option<&str>) -> Option<String> {
    let said: String = said.chars().filter(|c| !c.is_control()).collect();
    let words = Words::of(&said, bucket);
    let code = words.code();
    let known = code.and_then(|code| of_code(code, &words));
    known
        .or_else(|| of_disk(&words))
        .or_else(|| of_answer(&words))
        .or_else(|| of_network(&words))
        .or_else(|| of_status(&words))
}

/// Whether S3 refuses the session because it has expired.
pub(super) fn is_end_of_session(said: &str) -> bool {
    let words = Words::of(said, None);
    words
        .code()
        .is_some_and(|code| SESSION_ENDED.contains(&code))
}

/// Litestream's own words, cut to a length that fits a log line.
pub(super) fn verbatim(said: &str) -> String {
    let shown = said.chars().filter(|c| !c.is_control());
    shown.take(LONGEST).collect()
}

/// Errors with a code of S3.
fn of_code(code: &str, words: &Words) -> Option<String> {
    let (bucket, request) = (words.bucket(), words.request());
    Some(match code {
        "AccessDenied" | "AllAccessDisabled" | "Forbidden" | "UnauthorizedAccess" => format!(
            "S3 refuses {request} in {bucket} ({code}); allow s3:ListBucket, s3:GetObject, \
             s3:PutObject and s3:DeleteObject there in the role's policy"
        ),
        "NoSuchBucket" => format!(
            "{bucket} does not exist ({code}); create it, or correct its name and the endpoint in \
             Litestream's configuration"
        ),
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "Redirect"
        | "BucketRegionError"
        | "IllegalLocationConstraintException"
        | "AuthorizationHeaderMalformed" => {
            let region = match words.between("expecting '", "'") {
                Some(region) => format!("in the region {region}"),
                None => "in another region".to_owned(),
            };
            format!(
                "{bucket} is {region}, or at another endpoint ({code}); correct the region and the \
                 endpoint in Litestream's configuration"
            )
        }
        "RequestTimeTooSkewed" | "RequestExpired" | "InvalidSignatureDate" => format!(
            "S3 refuses every request because the device's clock is more than 15 min off ({code}); \
             check time synchronisation"
        ),
        code if SESSION_ENDED.contains(&code) => format!(
            "S3 says that Litestream's session has expired ({code}); edgerepl hands it a newer \
             one; if this persists, check the clock and the renewal of credentials"
        ),
        "InvalidToken" | "InvalidClientTokenId" | "UnrecognizedClientException" => format!(
            "S3 does not accept the session token ({code}); check that the role alias, the region \
             and the endpoint belong to one account and partition"
        ),
        "InvalidAccessKeyId" | "NotSignedUp" | "SignatureDoesNotMatch" => format!(
            "S3 does not accept the access key or its signature ({code}); check that the endpoint \
             in Litestream's configuration belongs to the account that issues the credentials, and \
             that no other keys are set"
        ),
        "SlowDown"
        | "ServiceUnavailable"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded" => format!(
            "S3 is overloaded, or asks for fewer requests in {bucket} ({code}); wait; if this \
             persists, check how many devices use the bucket"
        ),
        "InternalError"
        | "InternalServerError"
        | "InternalFailure"
        | "BadGateway"
        | "GatewayTimeout" => format!(
            "S3 fails at {request} with an internal error ({code}); wait; if this persists, check \
             the status of S3"
        ),
        "RequestTimeout" | "RequestTimeoutException" => format!(
            "the connection to S3 is too slow or breaks: a request did not arrive in time \
             ({code}); check the device's uplink"
        ),
        "QuotaExceeded" | "EntityTooLarge" | "XMinioStorageFull" | "InsufficientStorage" => {
            format!(
                "S3 has no room for {request} in {bucket} ({code}); free some space there, or \
                 raise the limit"
            )
        }
        _ => return None,
    })
}

/// Errors of the device's own disk.
fn of_disk(words: &Words) -> Option<String> {
    let place = words.place();
    if words.has(&[
        "no space left on device",
        "disk quota exceeded",
        "disk is full",
        "disk full",
        "(SQLITE_FULL)",
    ]) {
        return Some(format!(
            "Litestream has no room to write {place}: the disk is full; free some space"
        ));
    }
    if words.has(&["attempt to write a readonly database"]) {
        return Some(
            "Litestream can't write the database: it is read-only for Litestream; check its owner \
             and mode, and those of its folder, and that the file system is mounted writable"
                .to_owned(),
        );
    }
    if words.has(&["read-only file system"]) {
        return Some(format!(
            "Litestream can't write {place}: the file system is read-only; mount it writable, and \
             check the disk"
        ));
    }
    // SQLite's codes where it can't find the file's state, or finds less in it than a page.
    if words.has(&["disk I/O error (1802)", "disk I/O error (522)"]) {
        return Some(
            "the database's file is missing or too short, or another one took its place while \
             Litestream had it open; restore it if it is missing, and restart Litestream"
                .to_owned(),
        );
    }
    if words.has(&[
        "input/output error",
        "structure needs cleaning",
        "disk I/O error",
    ]) {
        return Some(format!(
            "Litestream can't use {place}: the disk fails; check the disk and the kernel's log"
        ));
    }
    // A firewall causes the same error.
    if !words.is_of_network() && words.has(&["permission denied", "operation not permitted"]) {
        return Some(format!(
            "Litestream may not use {place}: permission is denied; give Litestream's user access \
             to it"
        ));
    }
    let of_state = words.said.contains(".ltx") || words.said.contains("-litestream/");
    if of_state && words.has(&["no such file or directory", "file does not exist"]) {
        return Some(format!(
            "Litestream misses {place} of its local state: it was removed or replaced while \
             Litestream ran; let no other program change that folder, and restart Litestream"
        ));
    }
    None
}

/// An answer that does not come from S3, or is incomplete.
fn of_answer(words: &Words) -> Option<String> {
    let is_page = ["<html", "<!doctype", "text/html", "no ETag returned"];
    let lower = words.said.to_lowercase();
    let is_page = is_page
        .iter()
        .any(|sign| lower.contains(&sign.to_lowercase()));
    if is_page || words.has(&["expected element type <", "invalid character '<'"]) {
        let at = words.at_host();
        return Some(format!(
            "another server answers in place of S3{at}, such as a captive portal or a proxy; log \
             in there, or make it let requests through"
        ));
    }
    if words.has(&[
        "deserialization failed",
        "failed to decode response body",
        "unexpected EOF",
        "XML syntax error",
    ]) {
        let at = words.at_host();
        return Some(format!(
            "the answers{at} are incomplete or do not come from S3; check the connection, and any \
             proxy on the way"
        ));
    }
    if words.has(&["x509:", "tls: failed to verify", "tls: handshake failure"]) {
        let at = words.at_host();
        let why = words.after("x509: ").unwrap_or("TLS fails");
        return Some(format!(
            "Litestream does not trust the server{at} ({why}); check the clock, the device's root \
             certificates, and any proxy on the way"
        ));
    }
    None
}

/// S3 is not reachable, or does not answer.
fn of_network(words: &Words) -> Option<String> {
    const UNREACHABLE: [(&str, &str); 14] = [
        ("connection refused", "the connection is refused"),
        ("no route to host", "there is no route to it"),
        ("network is unreachable", "the network is unreachable"),
        ("host is down", "the host is down"),
        ("no such host", "the host name is unknown"),
        ("server misbehaving", "the name server does not answer"),
        ("name resolution", "the name server does not answer"),
        ("connection reset by peer", "the connection is reset"),
        ("broken pipe", "the connection breaks"),
        (": EOF", "the connection breaks"),
        ("use of closed network connection", "the connection breaks"),
        (
            "transport connection broken",
            "its answers are malformed or incomplete",
        ),
        ("permission denied", "a firewall forbids it"),
        ("operation not permitted", "a firewall forbids it"),
    ];
    const LATE: [&str; 6] = [
        "context deadline exceeded",
        "i/o timeout",
        "timeout awaiting response headers",
        "TLS handshake timeout",
        "Client.Timeout",
        "connection timed out",
    ];
    // Litestream's messages about files contain some of these words, too.
    if !words.is_of_network() {
        return None;
    }
    let at = words.at_host();
    if let Some((_, why)) = UNREACHABLE
        .iter()
        .find(|(sign, _)| words.said.contains(sign))
    {
        return Some(format!(
            "S3 can't be reached{at}: {why}; check the network, the firewall and the endpoint in \
             Litestream's configuration"
        ));
    }
    words.has(&LATE).then(|| {
        format!(
            "S3 does not answer in time{at}; check the network, and any proxy or firewall on the \
             way"
        )
    })
}

/// An HTTP status without a known error code.
fn of_status(words: &Words) -> Option<String> {
    let status = words.status()?;
    let code = words
        .code()
        .map_or(String::new(), |code| format!("{code}, "));
    let (bucket, request) = (words.bucket(), words.request());
    Some(match status {
        301 | 302 | 307 | 308 => format!(
            "S3 redirects {request} ({code}{status}): {bucket} is in another region, or a proxy \
             answers; correct the region and the endpoint in Litestream's configuration"
        ),
        401 | 403 => format!(
            "S3 refuses {request} in {bucket} ({code}{status}); check the policies of the role and \
             of the bucket, and the endpoint in Litestream's configuration"
        ),
        404 if words.code().is_none_or(|code| code == "NotFound") => format!(
            "S3 does not find {bucket} or an object in it ({code}{status}); correct the bucket and \
             the endpoint in Litestream's configuration"
        ),
        407 => format!(
            "a proxy between the device and S3 requires a login ({code}{status}); set the proxy in \
             Litestream's environment"
        ),
        429 => format!(
            "S3 asks for fewer requests in {bucket} ({code}{status}); wait; if this persists, \
             check how many devices use the bucket"
        ),
        500..=599 => format!(
            "S3, or a proxy before it, fails at {request} ({code}{status}); wait; if this \
             persists, check the status of S3"
        ),
        _ => return None,
    })
}

/// A message, and the names that it contains.
struct Words<'a> {
    said: &'a str,
    bucket: Option<Cow<'a, str>>,
}

impl<'a> Words<'a> {
    fn of(said: &'a str, bucket: Option<&'a str>) -> Self {
        let mut words = Self { said, bucket: None };
        let named = || {
            let arn = words.after("arn:aws:s3:::")?;
            Some(arn.split(['/', '"', ' ', '\\']).next()?.to_owned())
        };
        let named = bucket
            .map(Cow::Borrowed)
            .or_else(|| named().map(Cow::Owned));
        words.bucket = named.filter(|name| is_name(name));
        words
    }

    fn has(&self, signs: &[&str]) -> bool {
        signs.iter().any(|sign| self.said.contains(sign))
    }

    /// Everything after `sign`.
    fn after(&self, sign: &str) -> Option<&'a str> {
        Some(self.said.split_once(sign)?.1).filter(|rest| !rest.is_empty())
    }

    fn between(&self, begin: &str, end: &str) -> Option<&'a str> {
        let (inner, _) = self.after(begin)?.split_once(end)?;
        Some(inner).filter(|name| is_name(name))
    }

    /// The error code: where today's SDK writes it, else where other SDKs do.
    fn code(&self) -> Option<&'a str> {
        if let Some((_, rest)) = self.said.rsplit_once("api error ") {
            return rest
                .split([':', ' ', ','])
                .next()
                .filter(|code| is_code(code));
        }
        // `…, HostID: …, NoSuchBucket: The specified bucket does not exist`, and `AccessDenied:
        // Access Denied status code: 403, request id: …`. A key or a path with such a word in it
        // has no space before it and no colon after.
        let ends = self
            .said
            .match_indices(": ")
            .map(|(end, _)| &self.said[..end]);
        let names = ends.filter_map(|head| head.rsplit([' ', ':', ',', '"']).next());
        let known = names.filter(|name| is_code(name));
        let by_name = known
            .filter(|name| of_code(name, &Words::nameless()).is_some())
            .last();
        by_name.or_else(|| self.has(&["token has expired"]).then_some(SESSION_ENDED[0]))
    }

    fn nameless() -> Self {
        Self {
            said: "",
            bucket: None,
        }
    }

    /// The HTTP status.
    fn status(&self) -> Option<u16> {
        let text = self
            .after("StatusCode: ")
            .or_else(|| self.after("status code: "))?;
        text.split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    }

    /// The operation that was requested from S3.
    fn request(&self) -> &'a str {
        let named = self.after("operation error S3: ");
        let named = named.and_then(|rest| rest.split([',', ':', ' ']).next());
        named.filter(|name| is_code(name)).unwrap_or("requests")
    }

    fn bucket(&self) -> String {
        match &self.bucket {
            Some(name) => format!("the bucket {name}"),
            None => "the bucket".to_owned(),
        }
    }

    /// The host of S3 as ` at HOST`; empty if the message does not name it.
    fn at_host(&self) -> String {
        let url = ["https://", "http://"]
            .into_iter()
            .find_map(|scheme| self.after(scheme)?.split(['/', '"', '?', ' ']).next());
        let dialled = self.after("dial tcp ");
        let dialled = dialled.map(|rest| rest.strip_prefix("lookup ").unwrap_or(rest));
        let dialled = dialled.and_then(|rest| rest.split([' ']).next());
        let host = url.or(dialled.map(|host| host.trim_end_matches(':')));
        host.filter(|host| is_name(host))
            .map_or(String::new(), |host| format!(" at {host}"))
    }

    /// The file that the message names, or a general word for it.
    fn place(&self) -> &'a str {
        let verbs = [
            "open ", "mkdir ", "rename ", "write ", "create ", "stat ", "remove ",
        ];
        let paths = verbs.iter().filter_map(|verb| {
            let rest = self.said.rsplit_once(&format!("{verb}/"))?.1;
            let begin = self.said.len() - rest.len() - 1;
            let path = self.said[begin..].split(": ").next()?;
            Some(path.split(' ').next().unwrap_or(path))
        });
        let mut paths = paths.filter(|path| path.len() <= LONGEST_NAME);
        paths.next().unwrap_or("its local state or the database")
    }

    fn is_of_network(&self) -> bool {
        self.has(&[
            "operation error",
            "http://",
            "https://",
            "dial ",
            "lookup ",
            "RequestError",
            "request send failed",
            "context deadline exceeded",
        ])
    }
}

/// Whether it is made of letters and digits, as error codes and operations of S3 are.
fn is_code(text: &str) -> bool {
    (3..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Whether it may be the name of a bucket, a region or a host.
fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]%".contains(&b);
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(fits)
}
