//! What Litestream says when it fails, told as the thing, the cause and the operator's next step.
//!
//! Owns the known causes and their words, by what Litestream 0.5, the SDKs below it and S3's kin are
//! known to say. Reads words alone: it looks at nothing, and decides nothing. What it does not know
//! it leaves in Litestream's own words, bounded.

use std::borrow::Cow;

#[cfg(test)]
mod tests;

/// Nothing that is worth reading is longer, in characters.
const LONGEST: usize = 500;

/// The longest name that is taken over from what was said: a bucket, a host, a path.
const LONGEST_NAME: usize = 255;

/// What AWS, and stores like it, call a session whose time is over.
const SESSION_ENDED: [&str; 3] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
];

/// What `said`, the error of a sync, means; nothing where that is not known. `bucket` is the bucket's
/// name, which Litestream itself seldom says.
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

/// Whether S3 refuses the session, as one whose time is over.
pub(super) fn is_end_of_session(said: &str) -> bool {
    let words = Words::of(said, None);
    words
        .code()
        .is_some_and(|code| SESSION_ENDED.contains(&code))
}

/// Litestream's own words, of a length that a log and a status can bear.
pub(super) fn verbatim(said: &str) -> String {
    let shown = said.chars().filter(|c| !c.is_control());
    shown.take(LONGEST).collect()
}

/// What S3 calls by its name.
fn of_code(code: &str, words: &Words) -> Option<String> {
    let (bucket, request) = (words.bucket(), words.request());
    Some(match code {
        "AccessDenied" | "AllAccessDisabled" | "Forbidden" | "UnauthorizedAccess" => format!(
            "S3 refuses {request} in {bucket} ({code}); let the policy of the role allow \
             s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject there"
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
            "S3 refuses every request, as the device's clock is more than 15 min off ({code}); check \
             time synchronisation"
        ),
        code if SESSION_ENDED.contains(&code) => format!(
            "S3 says that the session of Litestream has ended ({code}); edgerepl hands it a newer one, \
             so check the clock and the renewal of credentials if this stays"
        ),
        "InvalidToken" | "InvalidClientTokenId" | "UnrecognizedClientException" => format!(
            "S3 does not take the session token ({code}); check that the role alias, the region and \
             the endpoint belong to one account and partition"
        ),
        "InvalidAccessKeyId" | "NotSignedUp" | "SignatureDoesNotMatch" => format!(
            "S3 does not know the access key that signs ({code}); check that the endpoint in \
             Litestream's configuration is of the account that issues the credentials, and that no other \
             keys are set"
        ),
        "SlowDown"
        | "ServiceUnavailable"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded" => format!(
            "S3 is overloaded, or asks for fewer requests in {bucket} ({code}); wait, and look at how \
             many devices use the bucket if this stays"
        ),
        "InternalError"
        | "InternalServerError"
        | "InternalFailure"
        | "BadGateway"
        | "GatewayTimeout" => format!(
            "S3 fails at {request} with an error of its own ({code}); wait, and look at the state of \
             S3 if this stays"
        ),
        "RequestTimeout" | "RequestTimeoutException" => format!(
            "the line to S3 is too slow or breaks: a request did not arrive in time ({code}); check \
             the device's uplink"
        ),
        "QuotaExceeded" | "EntityTooLarge" | "XMinioStorageFull" | "InsufficientStorage" => {
            format!(
                "S3 has no room for {request} in {bucket} ({code}); free some space there or raise the limit"
            )
        }
        _ => return None,
    })
}

/// What the device's own disk refuses.
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
    if words.has(&[
        "read-only file system",
        "attempt to write a readonly database",
    ]) {
        return Some(format!(
            "Litestream can't write {place}: the file system is read-only; mount it writable and check \
             the disk"
        ));
    }
    if words.has(&[
        "input/output error",
        "structure needs cleaning",
        "disk I/O error",
    ]) {
        return Some(format!(
            "Litestream can't use {place}: the disk fails; check it, and the kernel's log"
        ));
    }
    // A firewall says so, too.
    if !words.is_of_network() && words.has(&["permission denied", "operation not permitted"]) {
        return Some(format!(
            "Litestream may not use {place}: permission is denied; give that to the user that \
             Litestream runs as"
        ));
    }
    let of_state = words.said.contains(".ltx") || words.said.contains("-litestream/");
    if of_state && words.has(&["no such file or directory", "file does not exist"]) {
        return Some(format!(
            "Litestream misses {place} of its local state: it was removed or replaced while Litestream \
             ran; leave that folder to Litestream, and let it be restarted"
        ));
    }
    None
}

/// An answer that is none of S3's, or that breaks off.
fn of_answer(words: &Words) -> Option<String> {
    let is_page = ["<html", "<!doctype", "text/html", "no ETag returned"];
    let lower = words.said.to_lowercase();
    let is_page = is_page
        .iter()
        .any(|sign| lower.contains(&sign.to_lowercase()));
    if is_page || words.has(&["expected element type <", "invalid character '<'"]) {
        let at = words.at_host();
        return Some(format!(
            "something in between answers in the place of S3{at}, such as a captive portal or a proxy; \
             log in there, or have it let requests through"
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
            "S3's answers{at} break off or are none of S3's; check the line and whatever is in between, \
             such as a proxy"
        ));
    }
    if words.has(&["x509:", "tls: failed to verify", "tls: handshake failure"]) {
        let at = words.at_host();
        let why = words.after("x509: ").unwrap_or("TLS fails");
        return Some(format!(
            "Litestream does not trust the server{at} ({why}); check the clock, the roots on the device \
             and what is in between"
        ));
    }
    None
}

/// No way there, or no answer.
fn of_network(words: &Words) -> Option<String> {
    const UNREACHABLE: [(&str, &str); 14] = [
        ("connection refused", "the connection is refused"),
        ("no route to host", "there is no route to it"),
        ("network is unreachable", "the network is unreachable"),
        ("host is down", "the host is down"),
        ("no such host", "its name is not known"),
        ("server misbehaving", "the name server does not answer"),
        ("name resolution", "the name server does not answer"),
        ("connection reset by peer", "the connection is reset"),
        ("broken pipe", "the connection breaks"),
        (": EOF", "the connection breaks"),
        ("use of closed network connection", "the connection breaks"),
        ("transport connection broken", "its answers break off"),
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
    // Litestream speaks of files, too, with some of these words.
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
            "S3 does not answer in time{at}; check the network, and what is between the device and S3"
        )
    })
}

/// An HTTP status without a name that is known.
fn of_status(words: &Words) -> Option<String> {
    let status = words.status()?;
    let code = words
        .code()
        .map_or(String::new(), |code| format!("{code}, "));
    let (bucket, request) = (words.bucket(), words.request());
    Some(match status {
        301 | 302 | 307 | 308 => format!(
            "S3 redirects {request} ({code}{status}): {bucket} is in another region, or something in \
             between answers; correct the region and the endpoint in Litestream's configuration"
        ),
        401 | 403 => format!(
            "S3 refuses {request} in {bucket} ({code}{status}); check the policies of the role and of the \
             bucket, and the endpoint in Litestream's configuration"
        ),
        404 if words.code().is_none_or(|code| code == "NotFound") => format!(
            "S3 does not find {bucket} or what is in it ({code}{status}); correct the bucket and the \
             endpoint in Litestream's configuration"
        ),
        407 => format!(
            "a proxy between the device and S3 wants a log-in ({code}{status}); set the proxy in \
             Litestream's environment"
        ),
        429 => format!(
            "S3 asks for fewer requests in {bucket} ({code}{status}); wait, and look at how many devices \
             use it if this stays"
        ),
        500..=599 => format!(
            "S3, or a proxy before it, fails at {request} ({code}{status}); wait, and look at the state \
             of S3 if this stays"
        ),
        _ => return None,
    })
}

/// What was said, and what can be taken out of it.
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

    /// All that follows a sign.
    fn after(&self, sign: &str) -> Option<&'a str> {
        Some(self.said.split_once(sign)?.1).filter(|rest| !rest.is_empty())
    }

    fn between(&self, begin: &str, end: &str) -> Option<&'a str> {
        let (inner, _) = self.after(begin)?.split_once(end)?;
        Some(inner).filter(|name| is_name(name))
    }

    /// The error's name: where the SDK of today writes it, else where others do.
    fn code(&self) -> Option<&'a str> {
        if let Some((_, rest)) = self.said.rsplit_once("api error ") {
            return rest
                .split([':', ' ', ','])
                .next()
                .filter(|code| is_code(code));
        }
        // `…, HostID: …, NoSuchBucket: The specified bucket does not exist`, and `AccessDenied: Access
        // Denied status code: 403, request id: …`. A key or a path with such a word in it has no space
        // before it and no colon after.
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

    /// What was asked of S3.
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

    /// Where S3 was looked for: ` at HOST`, nothing where that is not said.
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

    /// The file that it is about, where one is named.
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

/// Letters and digits, as S3's names of errors and operations are.
fn is_code(text: &str) -> bool {
    (3..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// What a bucket, a region or a host may be called.
fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]%".contains(&b);
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(fits)
}
