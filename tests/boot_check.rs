//! `boot-check`: whether an image that was updated over the air may stay. What it looks at is real: a daemon, its
//! status, the servers of the lab. Only which image this is, is said by the test: a machine that boots others is in
//! `cargo xtask qemu update`.

mod common;

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use common::{LIMIT, Outcome, lab, replicates, site};
use edgerepl_lab::{Daemon, KeyKind, Lab, Site};
use serde_json::{Value, json};

/// A device with a data partition.
struct Device {
    lab: Lab,
    site: Site,
}

impl Device {
    fn new(name: &str) -> Outcome<Self> {
        let lab = lab(900)?;
        let device = lab.provision_pem(KeyKind::EcdsaP256, name)?;
        let mut site = site(&lab, &device)?;
        let state = site.root().join("state");
        fs::create_dir(&state)?;
        site.set_env("STATE_DIRECTORY", state.display().to_string());
        Ok(Self { lab, site })
    }

    fn record(&self) -> PathBuf {
        self.site.root().join("state/boot-check.json")
    }

    fn read_record(&self) -> Outcome<Value> {
        Ok(serde_json::from_str(&fs::read_to_string(self.record())?)?)
    }

    /// Asks in the slot of that name, where an image may take so many seconds.
    fn ask(&self, slot: &str, limit: u32) -> Outcome<(i32, String)> {
        let limit = limit.to_string();
        let words = ["boot-check", "--slot", slot, "--limit", &limit];
        Ok(outcome(&self.site.run(&words)?))
    }

    /// Asks until it is known.
    fn await_verdict(&self, slot: &str, limit: u32) -> Outcome<(i32, String)> {
        let limit = limit.to_string();
        let words = ["boot-check", "--wait", "--slot", slot, "--limit", &limit];
        Ok(outcome(&self.site.run(&words)?))
    }

    fn healthy(&self) -> Outcome<Daemon> {
        let mut daemon = self.site.start()?;
        daemon.wait_for("health", LIMIT, |status| {
            status["state"] == "healthy" && replicates(status)
        })?;
        Ok(daemon)
    }

    /// A device on which slot A was healthy.
    fn with_good_slot_a(name: &str) -> Outcome<Self> {
        let device = Self::new(name)?;
        let daemon = device.healthy()?;
        assert_eq!(device.ask("A", 900)?.0, 0);
        daemon.terminate()?;
        Ok(device)
    }
}

fn outcome(output: &Output) -> (i32, String) {
    let text =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    (output.status.code().unwrap_or(-1), text.concat())
}

#[test]
fn an_image_stays_once_the_device_is_healthy_on_it_and_from_then_on() -> Outcome {
    let device = Device::new("stays")?;
    // Nothing is known, and nothing runs: not even a reboot would help.
    let (code, said) = device.ask("A", 0)?;
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains("no image is known on which the device was healthy"),
        "{said}"
    );
    assert!(!device.record().exists());

    let daemon = device.healthy()?;
    let (code, said) = device.ask("A", 900)?;
    assert_eq!(code, 0, "{said}");
    let record = device.read_record()?;
    let servers = [
        device.lab.provider().endpoint(),
        device.lab.s3().endpoint().replace("http://", ""),
    ];
    assert_eq!(record["endpoints"], json!(servers));
    daemon.terminate()?;

    // An ordinary boot: whatever is wrong now, there is nothing better to go back to.
    for limit in [0, 900] {
        let (code, said) = device.ask("A", limit)?;
        assert_eq!(code, 0, "{said}");
    }
    // A new image is healthy in its turn, and the old one is the new one then.
    let daemon = device.healthy()?;
    assert_eq!(device.ask("B", 0)?.0, 0);
    daemon.terminate()?;
    assert_eq!(device.ask("B", 0)?.0, 0);
    assert_ne!(device.ask("A", 900)?.0, 0);
    Ok(())
}

#[test]
fn an_image_whose_daemon_does_not_run_may_not_stay() -> Outcome {
    let device = Device::with_good_slot_a("silent")?;
    let (code, said) = device.ask("B", 900)?;
    assert_eq!(code, 3, "{said}");
    let (code, said) = device.await_verdict("B", 5)?;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no daemon has answered"), "{said}");
    assert_eq!(device.read_record()?["refused"]["boots"], 1);
    // The boot loader goes back, and that image was good.
    assert_eq!(device.ask("A", 0)?.0, 0);
    Ok(())
}

#[test]
fn an_image_that_can_not_do_what_the_one_before_it_did_may_not_stay() -> Outcome {
    let mut device = Device::with_good_slot_a("wrong")?;
    // As an image has it whose own configuration is wrong: there is such a server, and it is another's.
    let nobody = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("\"localhost:{}\"", nobody.local_addr()?.port());
    device.site.set("credentials", "endpoint", endpoint);
    device.site.write_config()?;
    let mut daemon = device.site.start()?;
    daemon.wait_for("a failure", LIMIT, |status| {
        status["credentials"]["last_failure"].is_object()
    })?;
    let (code, said) = device.await_verdict("B", 5)?;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("can be reached"), "{said}");
    daemon.terminate()?;
    Ok(())
}

#[test]
fn an_image_without_a_network_goes_on_with_its_trial() -> Outcome {
    let device = Device::with_good_slot_a("offline")?;
    device.lab.provider().set_listening(false)?;
    let mut daemon = device.site.start()?;
    daemon.wait_for("a failure", LIMIT, |status| {
        status["credentials"]["last_failure"].is_object()
    })?;
    for _ in 0..3 {
        let (code, said) = device.ask("B", 0)?;
        assert_eq!(code, 3, "{said}");
        assert!(said.contains("can't be reached now"), "{said}");
        std::thread::sleep(Duration::from_secs(1));
    }
    device.lab.provider().set_listening(true)?;
    // It has all its time again, and uses it.
    let (code, said) = device.await_verdict("B", 600)?;
    assert_eq!(code, 0, "{said}");
    daemon.terminate()?;
    Ok(())
}

#[test]
fn less_is_asked_of_it_where_the_one_before_was_ill_in_the_end() -> Outcome {
    let device = Device::with_good_slot_a("ailing")?;
    // Another slot's health is not noted as this one's.
    let note = |slot: &str| {
        device
            .site
            .run(&["boot-check", "--before-reboot", "--slot", slot])
    };
    let (code, said) = outcome(&note("B")?);
    assert_eq!(
        (code, said.contains("nothing is noted")),
        (0, true),
        "{said}"
    );
    // Nor is one that was stopped first.
    note("A")?;
    assert_eq!(device.read_record()?["healthy_to_its_end"], true);

    device
        .lab
        .provider()
        .set_behaviour(edgerepl_lab::Behaviour::status(403, "Access Denied"));
    let mut daemon = device.site.start()?;
    daemon.wait_for("a failure", LIMIT, |status| status["state"] == "unhealthy")?;
    let (code, said) = outcome(&note("A")?);
    assert_eq!((code, said.contains("is not healthy")), (0, true), "{said}");
    // All can be reached, and nothing of it is this image's fault.
    device.ask("B", 0)?;
    let (code, said) = device.ask("B", 0)?;
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("neither was the image before it"), "{said}");
    daemon.terminate()?;
    // That its daemon runs is asked of each.
    assert_eq!(device.await_verdict("B", 2)?.0, 1);
    Ok(())
}

#[test]
fn what_is_noted_before_a_reboot_is_what_was_seen() -> Outcome {
    let device = Device::with_good_slot_a("noted")?;
    let mut record = device.read_record()?;
    record["refused"] = json!({"boots": 3, "last": "another boot"});
    record["endpoints"] = json!(["gone.example.invalid:443"]);
    fs::write(device.record(), record.to_string())?;
    let note = || {
        device
            .site
            .run(&["boot-check", "--before-reboot", "--slot", "A"])
    };

    // Without a network nobody knows whose fault it is, and what was given up stays given up.
    device.lab.provider().set_listening(false)?;
    let mut daemon = device.site.start()?;
    daemon.wait_for("a failure", LIMIT, |status| {
        status["credentials"]["last_failure"].is_object()
    })?;
    assert_eq!(outcome(&note()?).0, 0);
    assert_eq!(device.read_record()?, record);

    // A device that moved to other servers needs those.
    device.lab.provider().set_listening(true)?;
    daemon.wait_for("health", LIMIT, |status| status["state"] == "healthy")?;
    assert_eq!(outcome(&note()?).0, 0);
    let noted = device.read_record()?;
    assert_eq!(noted["endpoints"][0], device.lab.provider().endpoint());
    assert_eq!(noted["refused"]["boots"], 0);
    daemon.terminate()?;
    Ok(())
}

#[test]
fn a_verdict_that_nobody_can_read_is_the_same_one() -> Outcome {
    let device = Device::with_good_slot_a("unread")?;
    for (slot, code) in [("A", 0), ("B", 3)] {
        let full = File::options().write(true).open("/dev/full")?;
        let words = ["boot-check", "--slot", slot];
        let status = device.site.command(&words).stdout(full).status()?;
        assert_eq!(status.code(), Some(code), "{slot}");
    }
    Ok(())
}

#[test]
fn a_data_partition_that_is_mounted_late_is_heeded() -> Outcome {
    let device = Device::with_good_slot_a("late")?;
    let (there, away) = (
        device.site.root().join("state"),
        device.site.root().join("away"),
    );
    fs::rename(&there, &away)?;
    let words = ["boot-check", "--wait", "--slot", "A", "--limit", "5"];
    let mut waits = device.site.command(&words).spawn()?;
    std::thread::sleep(Duration::from_secs(2));
    assert!(waits.try_wait()?.is_none(), "nothing is known yet");
    fs::rename(&away, &there)?;
    assert_eq!(waits.wait()?.code(), Some(0));

    // Nor is health on record where no boot would find it.
    fs::rename(&there, &away)?;
    let daemon = device.healthy()?;
    let (code, said) = device.ask("B", 900)?;
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("can't be written"), "{said}");
    fs::rename(&away, &there)?;
    assert_eq!(device.ask("B", 900)?.0, 0);
    daemon.terminate()?;
    Ok(())
}

#[test]
fn what_can_not_be_read_or_written_reboots_nobody() -> Outcome {
    let device = Device::with_good_slot_a("odd")?;
    let good = fs::read_to_string(device.record())?;
    for odd in [
        "",
        "{",
        "null",
        "[7]",
        r#"{"form":2,"image":{"slot":"A","release":""}}"#,
    ] {
        fs::write(device.record(), odd)?;
        let (code, said) = device.ask("B", 0)?;
        assert_eq!(code, 3, "{odd}: {said}");
        assert!(
            said.contains("of a form that this edgerepl can't read"),
            "{said}"
        );
        assert_eq!(
            fs::read_to_string(device.record())?,
            odd,
            "what it may mean to others stays"
        );
    }
    // Without a place for the count the device could reboot for ever.
    fs::write(device.record(), &good)?;
    let beside = device.record().with_file_name(".boot-check.json.new");
    fs::create_dir(&beside)?;
    device.ask("B", 0)?;
    let (code, said) = device.ask("B", 0)?;
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("can't be written"), "{said}");
    fs::remove_dir(&beside)?;
    // And after ten boots that ended so there is nothing better.
    let mut record: Value = serde_json::from_str(&good)?;
    record["refused"] = json!({"boots": 10, "last": "another boot"});
    fs::write(device.record(), record.to_string())?;
    let (code, said) = device.ask("B", 0)?;
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("stays for want of another one"), "{said}");
    Ok(())
}
