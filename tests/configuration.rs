//! What edgerepl tells who starts it: a configuration that can't work ends `run` with 78 and one
//! sentence that names the file and the key; `status` ends with 3, 1 or 0.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use common::{LIMIT, Outcome, lab, site};
use edgerepl_lab::{KeyKind, tools};

/// A configuration that would work, as lines to be changed.
const GOOD: &[&str] = &[
    "[identity]",
    "certificate = '/data/device.crt'",
    "private_key = '/data/device.key'",
    "[credentials]",
    "endpoint = 'c.example:8443'",
    "role_alias = 'edgerepl'",
    "region = 'us-east-1'",
    "[database]",
    "path = '/data/app.db'",
];

#[test]
fn a_configuration_that_cannot_work_is_refused_in_one_sentence() -> Outcome {
    let pin = "private_key = 'pkcs11:token=edge;object=device?module-path=/m.so&pin-value=648219'";
    for (name, line, with, sentence) in [
        (
            "unknown-key",
            "role_alias = 'edgerepl'",
            "role_allias = 'edgerepl'",
            "unknown key in [credentials]: \"role_allias\"; the nearest known one is \"role_alias\"",
        ),
        (
            "unknown-section",
            "[database]",
            "[databse]",
            "unknown section: \"databse\"; the nearest known one is \"database\"",
        ),
        (
            "missing-key",
            "region = 'us-east-1'",
            "",
            "[credentials] region is missing",
        ),
        (
            "wrong-type",
            "path = '/data/app.db'",
            "path = 5",
            "[database] path must be a string in quotes, not integer",
        ),
        (
            "plain-http",
            "endpoint = 'c.example:8443'",
            "endpoint = 'http://c.example'",
            "[credentials] endpoint must be reached by https, not http",
        ),
        (
            "relative-path",
            "certificate = '/data/device.crt'",
            "certificate = 'device.crt'",
            "[identity] certificate must be a path that begins with \"/\", not \"device.crt\"",
        ),
        (
            "relative-key",
            "private_key = '/data/device.key'",
            "private_key = 'device.key'",
            "[identity] private_key must be a path that begins with \"/\", or a PKCS#11 URI, not",
        ),
        (
            "pin-in-uri",
            "private_key = '/data/device.key'",
            pin,
            "[identity] private_key",
        ),
        (
            "key-instead-of-its-path",
            "private_key = '/data/device.key'",
            r#"private_key = "-----BEGIN PRIVATE KEY-----\n648219\n-----END PRIVATE KEY-----""#,
            "not a PEM block: put it into a file, and name that",
        ),
        (
            "pin-in-uri-of-another-spelling",
            "private_key = '/data/device.key'",
            "private_key = ' PKCS11:object=device?module-path=/m.so&pin=648219'",
            "a URI that does not begin with",
        ),
        ("not-toml", "[database]", "[database", "is not TOML"),
    ] {
        let file = folder(name)?.join("edgerepl.toml");
        let lines: Vec<_> = GOOD
            .iter()
            .map(|l| if *l == line { with } else { l })
            .collect();
        assert!(GOOD.contains(&line), "{name}");
        fs::write(&file, lines.join("\n"))?;
        let output = edgerepl(&["run", "--config", &file.display().to_string()], name)?;
        assert_eq!(output.status.code(), Some(78), "{name}: {output:?}");
        let said = String::from_utf8(output.stderr)?;
        assert_eq!(said.lines().count(), 1, "{name}: {said}");
        assert!(said.contains(&*file.to_string_lossy()), "{name}: {said}");
        assert!(said.contains(sentence), "{name}: {said}");
        assert!(!said.contains("648219"), "{name}: {said}");
        assert!(output.stdout.is_empty(), "{name}");
    }
    Ok(())
}

/// In each command, and by `check` with its own words.
#[test]
fn a_number_that_nobody_meant_is_refused_with_its_bounds() -> Outcome {
    for (name, section, key, value, bounds) in [
        ("interval-0", "heartbeat", "interval", "99ms", "100ms to 1d"),
        (
            "interval-1",
            "heartbeat",
            "interval",
            "18446744073709551615s",
            "100ms to 1d",
        ),
        ("interval-2", "heartbeat", "interval", "2d", "100ms to 1d"),
        ("keep-0", "heartbeat", "keep", "999ms", "1s to 3650d"),
        (
            "keep-1",
            "heartbeat",
            "keep",
            "213503982334602d",
            "1s to 3650d",
        ),
        (
            "guard-0",
            "database",
            "wal_guard",
            "1023KiB",
            "1MiB to 64GiB",
        ),
        (
            "guard-1",
            "database",
            "wal_guard",
            "17179869185GiB",
            "1MiB to 64GiB",
        ),
        (
            "before-0",
            "credentials",
            "renew_before",
            "999ms",
            "1s to 12h",
        ),
        (
            "before-1",
            "credentials",
            "renew_before",
            "18446744073709551616ms",
            "1s to 12h",
        ),
    ] {
        let folder = folder(name)?;
        let (main, drop_ins) = (folder.join("edgerepl.toml"), folder.join("edgerepl.toml.d"));
        fs::write(&main, GOOD.join("\n"))?;
        fs::create_dir_all(&drop_ins)?;
        let own = drop_ins.join("10-device.toml");
        fs::write(&own, format!("[{section}]\n{key} = '{value}'\n"))?;
        let sentence = format!(
            "{}: [{section}] {key} must be from {bounds}, not \"{value}\"",
            own.display()
        );
        for command in ["check", "verify", "run"] {
            let main = main.display().to_string();
            let output = edgerepl(&[command, "--config", &main], name)?;
            assert_eq!(output.status.code(), Some(78), "{name}: {output:?}");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8(said)?;
            assert!(said.contains(&sentence), "{command}: {said}");
        }
    }
    Ok(())
}

#[test]
fn a_configuration_that_is_not_there_is_refused_too() -> Outcome {
    let output = edgerepl(&["run", "--config", "/nonexistent/edgerepl.toml"], "absent")?;
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let said = String::from_utf8(output.stderr)?;
    assert!(said.contains("/nonexistent/edgerepl.toml"), "{said}");
    Ok(())
}

#[test]
fn a_fault_in_a_devices_own_fragment_is_named_with_that_file() -> Outcome {
    let folder = folder("fragment")?;
    let (main, drop_ins) = (folder.join("edgerepl.toml"), folder.join("edgerepl.toml.d"));
    fs::write(&main, GOOD.join("\n"))?;
    fs::create_dir_all(&drop_ins)?;
    let own = drop_ins.join("10-device.toml");
    fs::write(&own, "[heartbeat]\ninterval = '5 parsecs'\n")?;
    let output = edgerepl(
        &["run", "--config", &main.display().to_string()],
        "fragment",
    )?;
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let said = String::from_utf8(output.stderr)?;
    let named = format!("{}: [heartbeat] interval", own.display());
    assert!(said.contains(&named), "{said}");
    Ok(())
}

#[test]
fn a_runtime_directory_that_no_socket_fits_into_is_named_by_run_and_check() -> Outcome {
    let lab = lab(900)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "deep")?;
    let site = site(&lab, &device)?;
    site.write_config()?;
    let within = |bytes: usize, arguments: &[&str]| -> Outcome<Output> {
        let folder = site.root().join("x");
        let folder = folder.with_file_name("x".repeat(bytes + 1 - folder.as_os_str().len()));
        let mut command = site.command(arguments);
        Ok(command.env("RUNTIME_DIRECTORY", folder).output()?)
    };
    // With the slash and "credentials.sock" that is one more than fits.
    let ran = within(91, &["run"])?;
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    let said = String::from_utf8(ran.stderr)?;
    let sentence = "its sockets' paths would have 108 bytes, but the kernel's limit is 107";
    assert!(said.contains(sentence), "{said}");
    let checked = within(91, &["check"])?;
    let told = String::from_utf8(checked.stdout)?;
    assert!(told.contains(sentence), "{told}");
    let checked = within(90, &["check"])?;
    let told = String::from_utf8(checked.stdout)?;
    assert!(!told.contains("sockets' paths"), "{told}");
    Ok(())
}

#[test]
fn a_command_line_that_is_not_understood_is_no_configuration_fault() -> Outcome {
    for arguments in [
        &[][..],
        &["rum"],
        &["run", "--confg", "/x"],
        &["run", "--config"],
    ] {
        let output = edgerepl(arguments, "usage")?;
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {output:?}");
    }
    Ok(())
}

#[test]
fn status_says_by_its_exit_whether_the_daemon_runs_and_is_healthy() -> Outcome {
    let lab = lab(900)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "asked")?;
    let site = site(&lab, &device)?;
    let code = |arguments: &[&str]| -> Outcome<_> { Ok(site.run(arguments)?.status.code()) };
    assert_eq!(code(&["status"])?, Some(3));
    assert_eq!(code(&["status", "--json"])?, Some(3));

    lab.provider().set_listening(false)?;
    let mut daemon = site.start()?;
    daemon.wait_for("first problem", LIMIT, |s| s["state"] == "unhealthy")?;
    assert_eq!(code(&["status"])?, Some(1));
    lab.provider().set_listening(true)?;
    daemon.wait_for("health", LIMIT, |s| s["state"] == "healthy")?;
    assert_eq!(code(&["status"])?, Some(0));
    let output = site.run(&["status", "--json"])?;
    assert_eq!(output.status.code(), Some(0));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(document["thing_name"], "asked");

    // A second daemon would ruin what the first one replicates.
    let second = site.run(&["run"])?;
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let said = String::from_utf8(second.stderr)?;
    assert!(said.contains("another edgerepl runs"), "{said}");

    let ended = daemon.terminate()?;
    assert!(ended.success(), "{ended}");
    assert_eq!(code(&["status"])?, Some(3));
    Ok(())
}

fn edgerepl(arguments: &[&str], name: &str) -> Outcome<Output> {
    Ok(Command::new(tools::edgerepl()?)
        .args(arguments)
        .env_clear()
        .env("RUNTIME_DIRECTORY", folder(name)?)
        .output()?)
}

/// A folder of this test's own.
fn folder(name: &str) -> Outcome<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join("configuration")
        .join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
