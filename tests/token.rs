//! A running daemon whose key's token hangs, goes away or refuses the PIN: the token takes the fetch
//! child with it and nothing else, and what can mend itself does.

mod common;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use common::{LIMIT, Outcome, failures, granted, lab, replicates, site};
use edgerepl_lab::{Device, KeyKind};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

#[test]
fn a_token_that_hangs_takes_only_the_child_with_it() -> Outcome {
    let lab = lab(900)?;
    let device = lab.provision_token(KeyKind::EcdsaP256, "hung")?;
    let site = site(&lab, &device)?;
    let mut daemon = site.start()?;
    let before = daemon.wait_for("health", LIMIT, |s| {
        s["state"] == "healthy" && replicates(s)
    })?;
    let rows = |s: &Value| s["heartbeat"]["rows"].as_u64().unwrap_or_default();

    let hung = Hung::hang(&device)?;
    daemon.signal(Signal::SIGHUP);
    let hangs = daemon.wait_for("fetch under way", LIMIT, |s| {
        s["credentials"]["renewal_in_s"].is_null()
    })?;
    // The loop goes on as if nothing were: it answers at once, writes rows, runs Litestream.
    let began = Instant::now();
    let after = loop {
        let asked = Instant::now();
        let status = daemon.status().ok_or("no status")?;
        assert!(asked.elapsed() < Duration::from_secs(1), "{status:#}");
        if failures(&status, "key") > 0 {
            break status;
        }
        assert!(began.elapsed() < LIMIT, "{status:#}");
        thread::sleep(Duration::from_millis(100));
    };
    assert!(began.elapsed() > Duration::from_secs(20), "{after:#}");
    assert!(rows(&after) > rows(&hangs) + 20, "{after:#}");
    assert_eq!(after["replication"]["pid"], before["replication"]["pid"]);
    assert_eq!(after["credentials"]["valid"], true);
    let failure = &after["credentials"]["last_failure"]["message"];
    let words = "timed out and was killed while it opened the private key";
    assert!(
        failure.as_str().unwrap_or_default().contains(words),
        "{after:#}"
    );

    hung.let_go()?;
    // One that hangs already is killed at its own time.
    daemon.wait_for("grant", LIMIT, |s| {
        granted(s) == 2 && s["state"] == "healthy" && replicates(s)
    })?;
    Ok(())
}

#[test]
fn a_token_that_is_pulled_out_is_found_again() -> Outcome {
    let lab = lab(900)?;
    let device = lab.provision_token(KeyKind::EcdsaP256, "loose")?;
    let site = site(&lab, &device)?;
    device.hide_token()?;
    let mut daemon = site.start()?;
    // Absent at the start, and later with credentials in force: it is found again by itself.
    for grants in 1..=2 {
        let status = daemon.wait_for("failure", LIMIT, |s| {
            s["credentials"]["last_failure"]["class"] == "key"
        })?;
        let problem = status["problems"][0].as_str().unwrap_or_default();
        assert!(problem.contains("no token matches"), "{status:#}");
        let litestream = status["replication"]["pid"].is_number();
        assert_eq!(litestream, grants == 2, "{status:#}");
        device.restore_token()?;
        daemon.wait_for("health", LIMIT, |s| {
            granted(s) == grants && s["state"] == "healthy" && replicates(s)
        })?;
        if grants == 1 {
            device.hide_token()?;
            daemon.signal(Signal::SIGHUP);
        }
    }
    Ok(())
}

#[test]
fn a_wrong_pin_that_is_mended_is_found() -> Outcome {
    let lab = lab(900)?;
    let device = lab.provision_token(KeyKind::EcdsaP256, "wrong-pin")?;
    let site = site(&lab, &device)?;
    let pin = pin_file(&device)?;
    let right = fs::read(&pin)?;
    fs::write(&pin, "000000")?;
    let mut daemon = site.start()?;
    let first = daemon.wait_for("refused PIN", LIMIT, |s| failures(s, "wrong_pin") == 1)?;
    let problem = first["problems"][0].as_str().unwrap_or_default();
    assert!(problem.contains("refused the PIN"), "{first:#}");
    let later = daemon.wait_for("another look", LIMIT, |s| failures(s, "wrong_pin") == 2)?;
    let problem = later["problems"][0].as_str().unwrap_or_default();
    assert!(problem.contains("was refused before"), "{later:#}");
    assert!(lab.provider().connections().is_empty());
    // Nobody tells the daemon.
    fs::write(&pin, right)?;
    daemon.wait_for("health", LIMIT, |s| s["state"] == "healthy")?;
    Ok(())
}

#[test]
fn a_pin_file_that_comes_late_is_found() -> Outcome {
    let lab = lab(900)?;
    let device = lab.provision_token(KeyKind::EcdsaP256, "late-pin")?;
    let site = site(&lab, &device)?;
    let pin = pin_file(&device)?;
    let aside = pin.with_extension("aside");
    fs::rename(&pin, &aside)?;
    let mut daemon = site.start()?;
    let status = daemon.wait_for("failure", LIMIT, |s| failures(s, "refused") == 1)?;
    let problem = status["problems"][0].as_str().unwrap_or_default();
    assert!(problem.contains(&*pin.to_string_lossy()), "{status:#}");
    fs::rename(&aside, &pin)?;
    let status = daemon.wait_for("health", LIMIT, |s| s["state"] == "healthy")?;
    assert_eq!(failures(&status, "wrong_pin"), 0, "{status:#}");
    Ok(())
}

/// A token in which one file was replaced by a FIFO: who opens it waits for ever.
struct Hung {
    file: PathBuf,
    aside: PathBuf,
}

impl Hung {
    fn hang(device: &Device) -> Outcome<Self> {
        let store = pin_file(device)?.with_file_name("tokens");
        let token = fs::read_dir(store)?.next().ok_or("no token")??.path();
        let file = token.join("token.object");
        let aside = pin_file(device)?.with_file_name("token.object.aside");
        fs::rename(&file, &aside)?;
        mkfifo(&file, Mode::S_IRUSR | Mode::S_IWUSR)?;
        Ok(Self { file, aside })
    }

    fn let_go(self) -> Outcome {
        Ok(fs::rename(&self.aside, &self.file)?)
    }
}

/// The file that the private key's URI names as the PIN's.
fn pin_file(device: &Device) -> Outcome<PathBuf> {
    let (_, path) = device
        .private_key
        .split_once("pin-source=file:")
        .ok_or("no PIN file")?;
    Ok(PathBuf::from(path))
}
