use super::*;

/// Where S3 answers with an error of its own. What Litestream 0.5.17 said behind a proxy.
const PUT: &str = "sync database: replica sync: write ltx file: s3: put object \
                   thing/app.db/0000/0000000000000005-0000000000000005.ltx: operation error S3: \
                   PutObject, ";
const LIST: &str = "sync database: db sync: check database behind replica: get replica position: \
                        operation error S3: ListObjectsV2, ";
const IDS: &str =
    "RequestID: 656c76696e6727732072, HostID: Uuag1LuByRx9e6j5Onimru9pO4ZVKnJ2Qz7/C1NP==, ";
const TEN: &str = "exceeded maximum number of attempts, 10, ";

fn answered(before: &str, status: u16, error: &str) -> String {
    format!("{before}https response error StatusCode: {status}, {IDS}{error}")
}

/// What it means, or nothing, with the bucket `edge`.
fn meaning(said: &str) -> String {
    explain(said, Some("edge")).unwrap_or_default()
}

#[test]
fn names_what_s3_refuses() {
    let denied = "api error AccessDenied: User: \
                  arn:aws:sts::123456789012:assumed-role/edgerepl/thing is not authorized to \
                  perform: s3:PutObject on resource: \"arn:aws:s3:::edge/app.db\" because no \
                  session policy allows the s3:PutObject action";
    let missing = "NoSuchBucket: The specified bucket does not exist";
    let moved = "api error PermanentRedirect: The bucket you are attempting to access must be \
                 addressed using the specified endpoint. Please send all future requests to this \
                 endpoint.";
    let ended = "api error ExpiredToken: The provided token has expired.";
    let skewed = "api error RequestTimeTooSkewed: The difference between the request time and the \
                      current time is too large.";
    let skewed_list = format!("{LIST}{TEN}Probable clock skew error: ");
    let failed = "api error InternalError: We encountered an internal error. Please try again.";
    let slow = "api error SlowDown: Please reduce your request rate.";
    for (said, wanted) in [
        (
            answered(PUT, 403, denied),
            "S3 refuses PutObject in the bucket edge (AccessDenied); allow s3:ListBucket",
        ),
        (
            answered(LIST, 403, denied),
            "S3 refuses ListObjectsV2 in the bucket edge (AccessDenied); ",
        ),
        (
            answered(PUT, 404, &format!("api error {missing}")),
            "the bucket edge does not exist (NoSuchBucket); ",
        ),
        // For a list the SDK knows the error's type, and writes it otherwise.
        (
            answered(LIST, 404, missing),
            "the bucket edge does not exist (NoSuchBucket); ",
        ),
        (
            answered(PUT, 301, moved),
            "the bucket edge is in another region, or at another endpoint (PermanentRedirect); ",
        ),
        (
            answered(LIST, 400, ended),
            "S3 says that Litestream's session has expired (ExpiredToken); ",
        ),
        (
            answered(&skewed_list, 403, skewed),
            "the device's clock is more than 15 min off (RequestTimeTooSkewed); ",
        ),
        (
            answered(&format!("{PUT}{TEN}"), 500, failed),
            "S3 fails at PutObject with an internal error (InternalError); ",
        ),
        (
            answered(
                &format!("{PUT}{TEN}"),
                502,
                "api error BadGateway: Bad Gateway",
            ),
            "(BadGateway); ",
        ),
        (
            answered(&format!("{LIST}{TEN}"), 503, slow),
            "fewer requests in the bucket edge (SlowDown); ",
        ),
    ] {
        let meaning = meaning(&said);
        assert!(meaning.contains(wanted), "{said}\n{meaning}");
    }
    let unnamed = explain(&answered(LIST, 404, missing), None);
    let wanted = "the bucket does not exist (NoSuchBucket); ";
    assert!(unnamed.is_some_and(|meaning| meaning.starts_with(wanted)));
    let named = explain(&answered(LIST, 403, denied), None);
    assert!(named.is_some_and(|meaning| meaning.contains("the bucket edge ")));
}

#[test]
fn names_what_is_in_between() {
    let put = "Put \"http://s3.example:9000/edge/thing/app.db/0000/5.ltx?x-id=PutObject\": ";
    let sent = |error: &str| {
        format!(
            "{PUT}{TEN}https response error StatusCode: 0, RequestID: , HostID: , request send failed, {put}{error}"
        )
    };
    let broken = "https response error StatusCode: 200, RequestID: , HostID: , deserialization \
                  failed, failed to decode response body, unexpected EOF";
    for (said, wanted) in [
        (
            "sync database: replica sync: write ltx file: s3: upload failed: no ETag returned"
                .to_owned(),
            "another server answers in place of S3, such as a captive portal",
        ),
        (
            format!("{LIST}{broken}"),
            "the answers are incomplete or do not come from S3",
        ),
        (
            sent("EOF"),
            "S3 can't be reached at s3.example:9000: the connection breaks; ",
        ),
        (
            sent("dial tcp 127.0.0.1:41193: connect: connection refused"),
            "S3 can't be reached at s3.example:9000: the connection is refused; ",
        ),
        (
            sent("dial tcp: lookup s3.example on 10.0.0.1:53: no such host"),
            "S3 can't be reached at s3.example:9000: the host name is unknown; ",
        ),
        (
            sent("dial tcp 192.0.2.1:443: connect: no route to host"),
            "there is no route to it",
        ),
        (
            sent("dial tcp 192.0.2.1:443: connect: permission denied"),
            "a firewall forbids it",
        ),
        (
            sent("read tcp 10.0.0.2:40000->192.0.2.1:443: read: connection reset by peer"),
            "the connection is reset",
        ),
        (
            sent("dial tcp 192.0.2.1:443: i/o timeout"),
            "S3 does not answer in time at s3.example:9000; ",
        ),
        (
            sent(
                "net/http: HTTP/1.x transport connection broken: malformed MIME header: missing colon: \"connectio\"",
            ),
            "S3 can't be reached at s3.example:9000: its answers are malformed or incomplete",
        ),
        (
            sent(
                "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            ),
            "does not trust the server at s3.example:9000 (certificate signed by unknown authority); ",
        ),
    ] {
        let meaning = meaning(&said);
        assert!(meaning.contains(wanted), "{said}\n{meaning}");
    }
}

#[test]
fn names_what_the_disk_refuses() {
    let file = "/data/.app.db-litestream/ltx/0/0000000000000008-0000000000000008.ltx";
    let sync = "sync database: db sync: sync: ";
    for (said, wanted) in [
        (
            format!("{sync}open temp ltx file: open {file}.tmp: read-only file system"),
            format!("can't write {file}.tmp: the file system is read-only; "),
        ),
        (
            format!(
                "{sync}stage-write ltx file {file}.tmp: disk full: write header: write {file}.tmp: \
                 no space left on device"
            ),
            format!("has no room to write {file}.tmp: the disk is full; "),
        ),
        (
            format!("{sync}open temp ltx file: open {file}.tmp: permission denied"),
            format!("may not use {file}.tmp: permission is denied; "),
        ),
        (
            format!(
                "sync database: db sync: cannot verify wal state: open ltx file {file}: open \
                 {file}: no such file or directory"
            ),
            format!("Litestream misses {file} of its local state: "),
        ),
        (
            "sync database: db sync: database or disk is full (13)".to_owned(),
            "no room to write its local state or the database: the disk is full".to_owned(),
        ),
        (
            "sync database: db sync: attempt to write a readonly database (8)".to_owned(),
            "can't write the database: it is read-only for Litestream; check its owner and mode"
                .to_owned(),
        ),
    ] {
        let meaning = meaning(&said);
        assert!(meaning.contains(&wanted), "{said}\n{meaning}");
    }
}

/// Other stores, other SDKs, other versions.
#[test]
fn knows_other_wordings() {
    for (said, wanted) in [
        (
            "AccessDenied: Access Denied\n\tstatus code: 403, request id: 1, host id: 2",
            "S3 refuses requests in the bucket edge (AccessDenied); ",
        ),
        (
            "cannot lookup bucket region: BucketRegionError: incorrect region, the bucket is not \
             in 'us-east-1' region at endpoint 's3.us-east-1.amazonaws.com'",
            "the bucket edge is in another region",
        ),
        (
            "api error AuthorizationHeaderMalformed: The authorization header is malformed; the \
             region 'us-east-1' is wrong; expecting 'eu-west-1'",
            "in the region eu-west-1, or at another endpoint (AuthorizationHeaderMalformed); ",
        ),
        (
            "api error InvalidAccessKeyId: The key does not exist",
            "the access key or its signature (InvalidAccessKeyId); ",
        ),
        (
            "api error InvalidToken: malformed",
            "the session token (InvalidToken); ",
        ),
        (
            "sts: the security token has expired, so there",
            "Litestream's session has expired (ExpiredToken); ",
        ),
        (
            "operation error S3: HeadObject, StatusCode: 403, RequestID: 1",
            "S3 refuses HeadObject in the bucket edge (403); ",
        ),
        (
            "operation error S3: GetObject, StatusCode: 418, api error Teapot: x",
            "",
        ),
        (
            "operation error S3: PutObject, StatusCode: 599, api error Odd: x",
            "fails at PutObject (Odd, 599); ",
        ),
        (
            "StatusCode: 404, api error NoSuchKey: The specified key does not exist.",
            "",
        ),
        (
            "expected element type <Error> but have <html>",
            "such as a captive portal",
        ),
    ] {
        let meaning = meaning(said);
        assert!(meaning.contains(wanted), "{said}\n{meaning}");
        assert_eq!(meaning.is_empty(), wanted.is_empty(), "{said}\n{meaning}");
    }
}

#[test]
fn believes_no_name_of_a_file_and_leaves_the_unknown_alone() {
    for said in [
        "",
        "database not open",
        "sync database: db sync: get position: odd file /data/AccessDenied/app.db: wrong",
        "write ltx file: s3: put object NoSuchBucket/app.db/0000/5.ltx: odd",
        "api error : odd",
        "StatusCode: 99999999999999999999, odd",
        "\u{1b}[2J\u{0}\n",
        "open /data/app.db: no such file or directory",
        "sync database: db sync: read wal header: EOF",
    ] {
        assert_eq!(explain(said, Some("edge")), None, "{said}");
    }
    // Nor a bucket that can be none.
    let bare = explain("api error NoSuchBucket: x", Some("\u{1b}[2J"));
    assert!(bare.is_some_and(|meaning| meaning.starts_with("the bucket does not exist")));
    let long = "ä".repeat(1000);
    assert_eq!(verbatim(&long).chars().count(), LONGEST);
    assert_eq!(verbatim("a\u{1b}[2Jb\n"), "a[2Jb");
    let path = format!("open /{long}.ltx: no space left on device");
    assert!(meaning(&path).len() < LONGEST, "{}", meaning(&path));
    let path = meaning("open /data/\u{1b}[2J.ltx: no space left on device");
    assert!(path.contains(" /data/[2J.ltx: the disk is full"), "{path}");
    let code = format!("StatusCode: 500, api error {}: x", "A".repeat(1000));
    assert!(meaning(&code).starts_with("S3, or a proxy before it, fails at requests (500); "));
    let host = "Put \"http://a(b)\": dial tcp: connection refused";
    assert!(meaning(host).starts_with("S3 can't be reached: the connection is refused; "));
}

/// What Litestream 0.5.17 said of a database that was deleted, and of one that was made anew.
#[test]
fn names_a_database_that_is_not_there_any_more() {
    let said = "sync database: db sync: ensure wal exists: disk I/O error";
    for code in ["1802", "522"] {
        let meaning = meaning(&format!("{said} ({code})"));
        assert!(
            meaning.starts_with("the database's file is missing or too short"),
            "{code}: {meaning}"
        );
    }
    // The disk could not read what is there.
    let failed = meaning(&format!("{said} (266)"));
    assert!(failed.contains("the disk fails"), "{failed}");
}
