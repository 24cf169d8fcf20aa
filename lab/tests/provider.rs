//! The credential provider keeps AWS's contract, and breaks it on order.

mod client;

use std::{collections::HashSet, time::Duration};

use client::{Result, fetch, fetch_without_server_name, request};
use edgerepl_lab::{
    Behaviour, ClientSignatures, DateHeader, Door, KeyKind, Lab, LabOptions, ServerCertificate,
    TlsVersions, odd_answers,
};

const PATH: &str = "/role-aliases/edgerepl/credentials";

fn lab() -> Result<Lab> {
    Ok(Lab::start(LabOptions {
        lifetime: Duration::from_secs(900),
        ..Default::default()
    })?)
}

#[test]
fn a_registered_device_gets_credentials_that_are_on_record() -> Result<()> {
    let lab = lab()?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing-1")?;
    for (versions, name) in [
        (TlsVersions::Tls12, "TLSv1_2"),
        (TlsVersions::Tls13, "TLSv1_3"),
    ] {
        lab.provider().set_tls_versions(versions);
        let (head, body) = request(&lab, Some(&device), PATH, Some("thing-1"))?;
        assert!(
            head.starts_with("HTTP/1.1 200 OK") && head.contains("\r\nDate: "),
            "{head}"
        );

        let answer: serde_json::Value = serde_json::from_str(&body)?;
        let issued = lab.provider().issued().pop().ok_or("nothing was issued")?;
        let credentials = &answer["credentials"];
        assert_eq!(credentials["accessKeyId"], issued.access_key_id);
        assert_eq!(credentials["secretAccessKey"], issued.secret_access_key);
        assert_eq!(credentials["expiration"], issued.expiration);
        assert_eq!(
            (issued.access_key_id.len(), issued.secret_access_key.len()),
            (20, 40)
        );

        let log = lab
            .provider()
            .requests()
            .pop()
            .ok_or("nothing was logged")?;
        assert_eq!((log.status, log.tls_version.as_str()), (Some(200), name));
        assert_eq!(log.signature_scheme, "ECDSA_NISTP256_SHA256");
        assert_eq!(
            (log.alias.as_str(), log.certificate_thing.as_str()),
            ("edgerepl", "thing-1")
        );
    }
    Ok(())
}

#[test]
fn an_rsa_device_signs_in_both_paddings() -> Result<()> {
    let lab = lab()?;
    let device = lab.provision_pem(KeyKind::Rsa2048, "thing-1")?;
    fetch(&lab, Some(&device))?;
    lab.provider().set_tls_versions(TlsVersions::Tls12);
    lab.provider()
        .set_client_signatures(ClientSignatures::RsaPkcs1);
    fetch(&lab, Some(&device))?;

    let schemes: Vec<String> = lab
        .provider()
        .requests()
        .into_iter()
        .map(|log| log.signature_scheme)
        .collect();
    assert!(schemes[0].starts_with("RSA_PSS"), "{schemes:?}");
    assert_eq!(schemes[1], "RSA_PKCS1_SHA256");
    Ok(())
}

#[test]
fn strangers_are_refused_in_the_handshake() -> Result<()> {
    let lab = lab()?;
    let elsewhere = Lab::start(LabOptions::default())?;
    let foreign = elsewhere.provision_pem(KeyKind::EcdsaP256, "thing-1")?;
    let revoked = lab.provision_pem(KeyKind::EcdsaP256, "thing-2")?;
    lab.revoke(&revoked);
    let unregistered = lab.provision_pem(KeyKind::EcdsaP256, "thing-3")?;
    lab.forget(&unregistered);

    for (device, alert) in [
        (None, "CertificateRequired"),
        (Some(&foreign), "UnknownCA"),
        (Some(&revoked), "CertificateRevoked"),
        (Some(&unregistered), "AccessDenied"),
    ] {
        let error = fetch(&lab, device).err().ok_or(alert)?.to_string();
        assert!(error.contains(alert), "{alert}: {error}");
    }
    assert!(lab.provider().requests().is_empty() && lab.provider().issued().is_empty());
    assert_eq!(lab.provider().connections().len(), 4);

    lab.register(&revoked);
    fetch(&lab, Some(&revoked))?;
    Ok(())
}

#[test]
fn errors_are_those_of_aws() -> Result<()> {
    let lab = lab()?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing-1")?;

    let (head, body) = request(&lab, Some(&device), PATH, Some("thing-2"))?;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    assert!(
        head.contains("x-amzn-ErrorType: AccessDeniedException"),
        "{head}"
    );
    assert_eq!(body, r#"{"message":"Invalid thing name passed"}"#);

    lab.attach(&device, "thing-2");
    let (head, _) = request(&lab, Some(&device), PATH, Some("thing-2"))?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");

    let (head, body) = request(&lab, Some(&device), "/role-aliases/other/credentials", None)?;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    assert_eq!(body, r#"{"message":"Role alias does not exist"}"#);

    let (head, body) = fetch_without_server_name(&lab, &device)?;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    assert_eq!(
        body,
        r#"{"message":"Certificate is invalid on this endpoint"}"#
    );

    lab.provider().push_once(Behaviour::Status {
        code: 429,
        message: "Rate exceeded".to_owned(),
        retry_after: Some("7".to_owned()),
    });
    let (head, _) = fetch(&lab, Some(&device))?;
    assert!(
        head.starts_with("HTTP/1.1 429") && head.contains("Retry-After: 7"),
        "{head}"
    );
    let (head, _) = fetch(&lab, Some(&device))?;
    assert!(
        head.starts_with("HTTP/1.1 200"),
        "an order for one request holds for one: {head}"
    );
    Ok(())
}

#[test]
fn a_bad_server_certificate_is_recognisable() -> Result<()> {
    let lab = lab()?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing-1")?;
    for (certificate, reason) in [
        (ServerCertificate::WrongName, "not valid for name"),
        (ServerCertificate::WrongCa, "UnknownIssuer"),
        (ServerCertificate::Expired, "certificate expired"),
        (ServerCertificate::NotYetValid, "not valid yet"),
    ] {
        lab.provider().set_server_certificate(certificate);
        let error = fetch(&lab, Some(&device)).err().ok_or(reason)?.to_string();
        assert!(error.contains(reason), "{certificate:?}: {error}");
    }
    lab.provider()
        .set_server_certificate(ServerCertificate::Good);
    fetch(&lab, Some(&device))?;
    Ok(())
}

#[test]
fn the_port_closes_and_opens_again() -> Result<()> {
    let lab = lab()?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing-1")?;
    for _ in 0..3 {
        fetch(&lab, Some(&device))?;
        lab.provider().set_listening(false)?;
        let error = fetch(&lab, Some(&device))
            .err()
            .ok_or("it still listens")?
            .to_string();
        assert!(error.contains("refused"), "{error}");
        lab.provider().set_listening(true)?;
    }
    for door in [Door::Slammed, Door::Silent] {
        lab.provider().set_door(door);
        assert!(fetch(&lab, Some(&device)).is_err(), "{door:?}");
    }
    lab.provider().set_door(Door::Open);
    fetch(&lab, Some(&device))?;
    Ok(())
}

#[test]
fn the_provider_can_live_in_another_time() -> Result<()> {
    let lab = lab()?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing-1")?;
    let year = 365 * 24 * 3600;
    lab.provider().set_clock_offset(3 * year);
    let (head, body) = fetch(&lab, Some(&device))?;
    let date = head.split("\r\nDate: ").nth(1).ok_or("no Date")?;
    let told = body
        .split("\"expiration\":\"")
        .nth(1)
        .ok_or("no expiration")?;
    assert!(
        date.contains(&told[..4]),
        "{date} and {told} are of one clock"
    );
    let here = httpdate::fmt_http_date(std::time::SystemTime::now());
    assert_ne!(date[12..16], here[12..16]);

    lab.provider()
        .push_once(Behaviour::WrongDate(DateHeader::Missing));
    let (head, _) = fetch(&lab, Some(&device))?;
    assert!(!head.contains("Date:"), "{head}");
    Ok(())
}

#[test]
fn every_odd_answer_is_delivered() -> Result<()> {
    let lab = lab()?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing-1")?;
    let mut names = HashSet::new();
    for odd in odd_answers() {
        assert!(names.insert(odd.name), "{} is there twice", odd.name);
        if matches!(odd.behaviour, Behaviour::Drip(_) | Behaviour::Hang) {
            continue;
        }
        lab.provider().push_once(odd.behaviour);
        match fetch(&lab, Some(&device)) {
            Ok((head, _)) if odd.name == "nothing at all" => assert_eq!(head, ""),
            Ok((head, _)) => assert!(!head.is_empty(), "{}", odd.name),
            Err(error) => assert!(
                error.to_string().contains("peer closed"),
                "{}: {error}",
                odd.name
            ),
        }
    }
    assert_eq!(lab.provider().requests().len(), names.len() - 2);
    Ok(())
}
