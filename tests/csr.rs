//! Certificate requests by the device's own key: what openssl says of them, and what is refused.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::{Outcome, lab, site};
use edgerepl_lab::KeyKind;

#[test]
fn openssl_accepts_a_request_by_each_key_in_each_place() -> Outcome {
    let lab = lab(900)?;
    for (number, kind) in [KeyKind::EcdsaP256, KeyKind::Rsa2048]
        .into_iter()
        .enumerate()
    {
        let pem = lab.provision_pem(kind, &format!("pem-{number}"))?;
        let token = lab.provision_token(kind, &format!("token-{number}"))?;
        for device in [pem, token] {
            let site = site(&lab, &device)?;
            let request = requested(&site.run(&["csr"])?)?;
            let judged = openssl(site.root(), &request)?;
            assert!(
                judged.contains(&format!("CN = {}", device.thing_name)),
                "{judged}"
            );
        }
    }
    // One that asks for no PIN, and whose public key is no object's value but computed.
    let (device, token) = lab.provision_faulty("faulty")?;
    token.ask_for_no_pin()?;
    let site = site(&lab, &device)?;
    openssl(site.root(), &requested(&site.run(&["csr"])?)?)?;
    Ok(())
}

#[test]
fn a_token_makes_a_key_where_it_has_none_of_that_name() -> Outcome {
    let lab = lab(900)?;
    let mut device = lab.provision_token(KeyKind::EcdsaP256, "generate")?;
    for (label, option) in [("new", "--generate"), ("new-rsa", "--generate=rsa2048")] {
        device.private_key = device
            .private_key
            .replace("object=device", &format!("object={label}"));
        let site = site(&lab, &device)?;
        let none = site.run(&["csr"])?;
        assert_eq!(none.status.code(), Some(1));
        assert!(
            said(&none).contains("has no private key"),
            "{}",
            said(&none)
        );

        let first = requested(&site.run(&["csr", option, "--subject", "CN=made,O=Lab"])?)?;
        let judged = openssl(site.root(), &first)?;
        assert!(
            judged.contains("CN = made, O = Lab") || judged.contains("O = Lab, CN = made"),
            "{judged}"
        );
        let strength = if label == "new" {
            "prime256v1"
        } else {
            "(2048 bit)"
        };
        assert!(judged.contains(strength), "{judged}");

        // The key is used from now on, and never replaced.
        let again = site.run(&["csr", option])?;
        assert_eq!(again.status.code(), Some(1));
        assert!(said(&again).contains("already"), "{}", said(&again));
        let second = openssl(site.root(), &requested(&site.run(&["csr"])?)?)?;
        assert_eq!(public_part(&judged), public_part(&second));
        device.private_key = device
            .private_key
            .replace(&format!("object={label}"), "object=device");
    }
    Ok(())
}

#[test]
fn what_can_not_work_is_refused_in_a_sentence() -> Outcome {
    let lab = lab(900)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "refused")?;
    let site = site(&lab, &device)?;
    for (arguments, words) in [
        (
            &["csr", "--generate"][..],
            "edgerepl generates keys in tokens only",
        ),
        (&["csr", "--subject", "no name"], "not a distinguished name"),
        (&["csr", "--subject", ""], "not a distinguished name"),
    ] {
        let output = site.run(arguments)?;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(output.stdout.is_empty());
        assert!(
            said(&output).contains(words),
            "{arguments:?}: {}",
            said(&output)
        );
    }
    for arguments in [
        &["csr", "--generate=dsa"][..],
        &["csr", "--subject"],
        &["status", "--generate"],
    ] {
        assert_eq!(
            site.run(arguments)?.status.code(),
            Some(64),
            "{arguments:?}"
        );
    }
    // A new device has no certificate yet.
    fs::remove_file(&device.certificate)?;
    let output = site.run(&["csr"])?;
    assert!(said(&output).contains("--subject"), "{}", said(&output));
    requested(&site.run(&["csr", "--subject=CN=new"])?)?;
    Ok(())
}

/// The PEM on standard output.
fn requested(output: &Output) -> Outcome<String> {
    if !output.status.success() {
        return Err(said(output).into());
    }
    Ok(String::from_utf8(output.stdout.clone())?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The request as openssl shows it, once it has verified the signature.
fn openssl(folder: &Path, request: &str) -> Outcome<String> {
    let file = folder.join("request.pem");
    fs::write(&file, request)?;
    let output = Command::new("openssl")
        .args(["req", "-verify", "-noout", "-text", "-in"])
        .arg(&file)
        .output()?;
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("verify OK"), "{}", said(&output));
    Ok(String::from_utf8(output.stdout)?)
}

fn public_part(text: &str) -> &str {
    let begin = text.find("Subject Public Key Info").unwrap_or_default();
    let end = text.find("Signature Algorithm").unwrap_or(text.len());
    &text[begin..end]
}
