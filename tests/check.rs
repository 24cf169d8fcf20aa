//! `edgerepl check` names what is wrong, says what to do next, and changes nothing.

use std::error::Error;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use edgerepl_lab::{KeyKind, Lab, LabOptions, Site, tools};
use serde_json::Value;

type Outcome = Result<(), Box<dyn Error>>;

#[test]
fn all_pass_on_a_sound_device_and_nothing_is_changed() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    for (thing, device) in [
        ("pem", lab.provision_pem(KeyKind::EcdsaP256, "check-pem")?),
        (
            "token",
            lab.provision_token(KeyKind::Rsa2048, "check-token")?,
        ),
    ] {
        let site = Site::new(&lab, device, env!("CARGO_BIN_EXE_edgerepl"))?;
        let output = site.run(&["check", "--json", "--online"])?;
        let report = report(&output)?;
        assert!(output.status.success(), "{thing}: {report:#}");
        assert_eq!(report["passed"], true);
        let names: Vec<_> = checks(&report).map(|check| check["name"].clone()).collect();
        let mut wanted = vec![
            "configuration",
            "modes",
            "certificate",
            "key",
            "ca_bundle",
            "litestream",
            "litestream_config",
            "sqlite",
            "database",
        ];
        wanted.extend((thing == "token").then_some("token"));
        wanted.push("fetch");
        assert_eq!(names, wanted);
        assert!(!site.database().exists(), "a check made the database");
    }
    // One fetch each, and only where it was asked for.
    assert_eq!(lab.provider().issued().len(), 2);
    Ok(())
}

#[test]
fn each_failure_is_named_with_a_next_step() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let stranger = lab.provision_pem(KeyKind::EcdsaP256, "check-stranger")?;
    let quoted = |text: &str| format!("{text:?}");
    let nowhere = quoted("/nowhere/at/all");
    let cases: [(&str, &str, String, &str); 9] = [
        ("identity", "certificate", nowhere.clone(), "certificate"),
        ("identity", "private_key", nowhere.clone(), "key"),
        (
            "identity",
            "private_key",
            quoted(&stranger.private_key),
            "key",
        ),
        ("credentials", "ca_file", nowhere.clone(), "ca_bundle"),
        (
            "credentials",
            "ca_file",
            quoted(&stranger.private_key),
            "ca_bundle",
        ),
        (
            "replication",
            "command",
            "[\"/nowhere/litestream\", \"replicate\"]".to_owned(),
            "litestream",
        ),
        ("database", "path", quoted("/nowhere/app.db"), "database"),
        (
            "replication",
            "control_socket",
            quoted("/nowhere/litestream.sock"),
            "litestream_config",
        ),
        (
            "credentials",
            "role_alias",
            quoted("no-such-alias"),
            "fetch",
        ),
    ];
    for (turn, (section, key, value, failing)) in cases.into_iter().enumerate() {
        let device = lab.provision_pem(KeyKind::EcdsaP256, &format!("check-{turn}"))?;
        let mut site = Site::new(&lab, device, env!("CARGO_BIN_EXE_edgerepl"))?;
        site.set(section, key, value);
        let output = site.run(&["check", "--json", "--online"])?;
        let report = report(&output)?;
        assert_eq!(output.status.code(), Some(1), "{key}: {report:#}");
        let failed = checks(&report).find(|check| check["name"] == failing);
        let failed = failed.ok_or(format!("{key}: there is no check {failing}"))?;
        assert_eq!(failed["outcome"], "fail", "{key}: {report:#}");
        assert!(
            failed["next_step"]
                .as_str()
                .is_some_and(|step| !step.is_empty()),
            "{failed}"
        );
    }
    Ok(())
}

#[test]
fn a_secret_that_others_may_read_fails() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "check-mode")?;
    fs::set_permissions(&device.private_key, Permissions::from_mode(0o644))?;
    let site = Site::new(&lab, device, env!("CARGO_BIN_EXE_edgerepl"))?;
    let report = report(&site.run(&["check", "--json"])?)?;
    let modes = checks(&report)
        .find(|check| check["name"] == "modes")
        .ok_or("no check of modes")?;
    assert_eq!(modes["outcome"], "fail");
    let step = modes["next_step"].as_str().unwrap_or_default();
    assert!(step.starts_with("chmod 600 /"), "{step}");
    Ok(())
}

#[test]
fn a_wrong_pin_is_said_to_be_one() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_token(KeyKind::EcdsaP256, "check-pin")?;
    let (_, pin_file) = device
        .private_key
        .split_once("pin-source=file:")
        .ok_or("no PIN file")?;
    fs::write(pin_file, "not the PIN")?;
    let site = Site::new(&lab, device, env!("CARGO_BIN_EXE_edgerepl"))?;
    let report = report(&site.run(&["check", "--json"])?)?;
    let key = checks(&report)
        .find(|check| check["name"] == "key")
        .ok_or("no check of the key")?;
    assert_eq!(key["outcome"], "fail");
    let step = key["next_step"].as_str().unwrap_or_default();
    assert!(step.contains("tokens lock"), "{key}");
    assert!(!report.to_string().contains("not the PIN"));
    Ok(())
}

#[test]
fn an_old_litestream_and_a_database_without_wal_are_worth_a_warning() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "check-old")?;
    let mut site = Site::new(&lab, device, env!("CARGO_BIN_EXE_edgerepl"))?;
    site.use_litestream(&lab, "0.3.13")?;
    let connection = site.connect()?;
    connection.execute_batch("CREATE TABLE a (b); PRAGMA journal_mode = delete")?;
    drop(connection);
    let output = site.run(&["check", "--json"])?;
    let report = report(&output)?;
    for name in ["litestream", "database"] {
        let check = checks(&report)
            .find(|check| check["name"] == name)
            .ok_or("no such check")?;
        assert_eq!(check["outcome"], "warn", "{check}");
    }
    assert!(output.status.success(), "a warning is no failure");
    assert!(tools::litestream("0.3.13")?.exists());
    Ok(())
}

#[test]
fn the_last_thing_that_litestream_says_is_in_the_sentence() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "check-said")?;
    let mut site = Site::new(&lab, device, env!("CARGO_BIN_EXE_edgerepl"))?;
    let detail = |site: &Site, name: &str| -> Result<String, Box<dyn Error>> {
        let report = report(&site.run(&["check", "--json"])?)?;
        let found = checks(&report).find(|check| check["name"] == name);
        let found = found.ok_or("no such check")?;
        assert_eq!(found["outcome"], "fail", "{found}");
        Ok(found["detail"].as_str().unwrap_or_default().to_owned())
    };
    // More than a pipe holds, and then what matters.
    let script = site.root().join("litestream.sh");
    let talk = "i=0; while [ $i -lt 4000 ]; do echo 'a line of sixty characters or thereabouts, on \
                both pipes' | tee /dev/stderr; i=$((i+1)); done";
    let text = format!("#!/bin/sh\n{talk}\nprintf 'it \\033[31mbroke\\n\\n' >&2; exit 3\n");
    fs::write(&script, text)?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    site.set(
        "replication",
        "command",
        format!("[{script:?}, \"replicate\"]"),
    );
    let said = detail(&site, "litestream")?;
    assert!(said.ends_with("fails: it [31mbroke"), "{said}");

    let refused = site.root().join("refused.yml");
    fs::write(&refused, "dbs:\n  - path: /a\n    monitor-interval: soon\n")?;
    let program = tools::litestream("0.5.17")?;
    let command = format!("[{program:?}, \"replicate\", \"-config\", {refused:?}]");
    site.set("replication", "command", command);
    let said = detail(&site, "litestream_config")?;
    assert!(
        said.contains("does not accept") && said.contains("soon"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_configuration_that_cannot_be_read_is_exit_code_78() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "check-config")?;
    let mut site = Site::new(&lab, device, env!("CARGO_BIN_EXE_edgerepl"))?;
    site.set("identity", "thing_nam", "\"x\"");
    let output = site.run(&["check"])?;
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stdout)?;
    assert!(
        text.contains("the nearest known one is \"thing_name\""),
        "{text}"
    );
    Ok(())
}

fn report(output: &Output) -> Result<Value, Box<dyn Error>> {
    let parsed = serde_json::from_slice(&output.stdout);
    parsed.map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

fn checks(report: &Value) -> impl Iterator<Item = &Value> {
    report["checks"].as_array().into_iter().flatten()
}
