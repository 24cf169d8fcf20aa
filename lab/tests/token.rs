//! A device whose key was generated in a token and stays there.

use std::{error::Error, fs, process::Command};

use edgerepl_lab::{Device, KeyKind, Lab, LabOptions};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[test]
fn a_token_holds_the_key_of_the_certificate() -> Result<()> {
    let lab = Lab::start(LabOptions::default())?;
    for (kind, thing_name) in [(KeyKind::EcdsaP256, "ec"), (KeyKind::Rsa2048, "rsa")] {
        // The certificate was issued from a request that the token signed, and whose signature the
        // CA verified.
        let device = lab.provision_token(kind, thing_name)?;
        assert!(
            device
                .private_key
                .starts_with("pkcs11:token=edge;object=device;type=private?")
        );
        assert!(fs::read_to_string(&device.certificate)?.contains("BEGIN CERTIFICATE"));
        assert!(shows_token(&device)?);

        device.hide_token()?;
        assert!(!shows_token(&device)?);
        device.restore_token()?;
        assert!(shows_token(&device)?);
    }
    Ok(())
}

#[test]
fn a_device_without_a_token_says_so() -> Result<()> {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing-1")?;
    let error = device
        .hide_token()
        .err()
        .ok_or("there was a token to hide")?
        .to_string();
    assert!(error.contains("thing-1"), "{error}");
    Ok(())
}

fn shows_token(device: &Device) -> Result<bool> {
    let output = Command::new("softhsm2-util")
        .arg("--show-slots")
        .envs(device.env.clone())
        .output()?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let slots = String::from_utf8(output.stdout)?;
    Ok(slots
        .lines()
        .any(|line| line.split_whitespace().eq(["Label:", "edge"])))
}
