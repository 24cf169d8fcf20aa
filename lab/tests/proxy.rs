//! The proxy in front of S3: it misbehaves as ordered, at once, and is out of the way otherwise.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use edgerepl_lab::{Lab, LabOptions, ProxyWay, S3Proxy};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const LIST: &str = "GET /edge?list-type=2&prefix=a HTTP/1.1";
const PUT: &str = "PUT /edge/a HTTP/1.1";

#[test]
fn passes_all_and_leaves_the_host_as_it_is() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let proxy = lab.proxy()?;
    let answer = ask(&proxy, PUT, "Expect: 100-continue\r\n")?;
    // S3's own refusal of who does not sign, after the proxy's word to go on.
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n"), "{answer}");
    assert!(answer.contains("<Code>AccessDenied</Code>"), "{answer}");
    assert!(!answer.contains("no session policy"), "{answer}");
    let seen = lab.s3().requests().pop().ok_or("no request")?;
    assert_eq!(
        (seen.operation, seen.key.as_str(), seen.bytes),
        ("PutObject", "a", 5)
    );
    Ok(())
}

#[test]
fn answers_in_the_place_of_s3() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let proxy = lab.proxy()?;
    for (way, status, word) in [
        (ProxyWay::AccessDenied, 403, "<Code>AccessDenied</Code>"),
        (
            ProxyWay::RequestTimeTooSkewed,
            403,
            "<Code>RequestTimeTooSkewed</Code>",
        ),
        (ProxyWay::ExpiredToken, 400, "<Code>ExpiredToken</Code>"),
        (ProxyWay::NoSuchBucket, 404, "<BucketName>edge</BucketName>"),
        (
            ProxyWay::PermanentRedirect,
            301,
            "x-amz-bucket-region: eu-central-1\r\n",
        ),
        (ProxyWay::InternalError, 500, "<Code>InternalError</Code>"),
        (ProxyWay::BadGateway, 502, "<html>"),
        (ProxyWay::SlowDown, 503, "<Code>SlowDown</Code>"),
        (ProxyWay::Portal, 200, "<html>"),
    ] {
        proxy.order(way)?;
        for request in [LIST, PUT] {
            let answer = ask(&proxy, request, "")?;
            let status = format!("HTTP/1.1 {status} ");
            assert!(
                answer.starts_with(&status) && answer.contains(word),
                "{way:?}: {answer}"
            );
        }
    }
    proxy.order(ProxyWay::EmptyLists)?;
    assert!(ask(&proxy, LIST, "")?.contains("<KeyCount>0</KeyCount>"));
    assert!(ask(&proxy, PUT, "")?.contains("<Code>AccessDenied</Code>"));
    proxy.order(ProxyWay::ForgetPuts)?;
    assert!(ask(&proxy, PUT, "")?.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(ask(&proxy, LIST, "")?.contains("<Code>AccessDenied</Code>"));
    // Of all that, S3 saw what was to pass.
    assert_eq!(lab.s3().requests().len(), 2);
    Ok(())
}

#[test]
fn leaves_a_client_without_an_answer() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let proxy = lab.proxy()?;
    let whole = ask(&proxy, LIST, "")?;
    proxy.order(ProxyWay::Half)?;
    let half = ask(&proxy, LIST, "")?;
    assert!(
        whole.starts_with(&half[..100]) && half.len() < whole.len(),
        "{half}"
    );
    proxy.order(ProxyWay::Reset)?;
    let reset = ask(&proxy, LIST, "").map_err(|e| e.kind());
    assert_eq!(reset, Err(ErrorKind::ConnectionReset));
    proxy.order(ProxyWay::Refuse)?;
    let refused = ask(&proxy, LIST, "").map_err(|e| e.kind());
    assert_eq!(refused, Err(ErrorKind::ConnectionRefused));

    for way in [ProxyWay::Hang, ProxyWay::Trickle] {
        proxy.order(way)?;
        let mut client = send(&proxy, LIST, "")?;
        thread::sleep(Duration::from_millis(1500));
        client.set_nonblocking(true)?;
        let mut answer = Vec::new();
        let cause = client.read_to_end(&mut answer).map_err(|e| e.kind());
        assert_eq!(cause, Err(ErrorKind::WouldBlock), "{way:?}");
        assert!(answer.len() < 10, "{way:?}: {answer:?}");
        assert_eq!(answer.is_empty(), way == ProxyWay::Hang, "{answer:?}");
        // Who was held is let go when that changes, and not answered.
        proxy.order(ProxyWay::Pass)?;
        client.set_nonblocking(false)?;
        let rest = client.read_to_end(&mut answer);
        assert!(
            answer.len() < 10 && rest.is_ok_and(|n| n < 10),
            "{way:?}: {answer:?}"
        );
    }
    assert_eq!(ask(&proxy, LIST, "")?.len(), whole.len());
    Ok(())
}

fn ask(proxy: &S3Proxy, request: &str, header: &str) -> io::Result<String> {
    let mut client = send(proxy, request, header)?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    Ok(answer)
}

fn send(proxy: &S3Proxy, request: &str, header: &str) -> io::Result<TcpStream> {
    let host = proxy.endpoint().replace("http://", "");
    let mut client = TcpStream::connect(&host)?;
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    let body = if request == PUT { "12345" } else { "" };
    let length = body.len();
    write!(
        client,
        "{request}\r\nHost: {host}\r\n{header}Content-Length: {length}\r\n\r\n{body}"
    )?;
    Ok(client)
}
