//! Microchip's own PKCS#11 module, unmodified, in front of a simulated ATECC608.
//!
//! Needs the module, which is for those who accept its licence:
//! `cargo xtask test secure-element --accept-microchip-licence`. One test at a time: the module reads
//! one place, and there is one chip.

mod common;

use std::fs;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{LIMIT, Outcome, failures, granted, lab, replicates, site};
use edgerepl_lab::{ChipFaults, ModuleFolder, Site, TlsVersions};
use serde_json::Value;

/// Held by the test that has the chip.
fn alone() -> MutexGuard<'static, ()> {
    static CHIP: Mutex<()> = Mutex::new(());
    CHIP.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
#[ignore = "needs cryptoauthlib"]
fn check_and_csr_and_a_fetch_by_each_tls() -> Outcome {
    let _alone = alone();
    let lab = lab(900)?;
    let (device, bus) = lab.provision_chip("chip", &ModuleFolder::of_this_machine())?;
    let site = site(&lab, &device)?;
    for (number, versions) in [TlsVersions::Tls12, TlsVersions::Tls13]
        .into_iter()
        .enumerate()
    {
        lab.provider().set_tls_versions(versions);
        let before = bus.counts();
        let output = site.run(&["check", "--online", "--json"])?;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let checks = report["checks"].as_array().cloned().unwrap_or_default();
        for name in ["token", "slot", "bus", "key", "fetch"] {
            let check = checks.iter().find(|check| check["name"] == name);
            let outcome = check.map_or(&Value::Null, |check| &check["outcome"]);
            assert_eq!(outcome, "pass", "{name}: {report:#}");
        }
        let token = checks.iter().find(|check| check["name"] == "token");
        let said = token
            .map(|token| token["detail"].to_string())
            .unwrap_or_default();
        assert!(said.contains("asks for no PIN"), "{said}");
        assert_eq!(lab.provider().issued().len(), number + 1);
        // One for the check of the key, one for the handshake.
        assert_eq!(bus.counts().signatures - before.signatures, 2);
    }

    let file = site.root().join("request.pem");
    fs::write(&file, requested(&site, &["csr"])?)?;
    let mut openssl = Command::new("openssl");
    let judged = openssl
        .args(["req", "-verify", "-noout", "-in"])
        .arg(&file)
        .output()?;
    let said = String::from_utf8_lossy(&judged.stderr).into_owned();
    assert!(
        judged.status.success() && said.contains("verify OK"),
        "{said}"
    );
    Ok(())
}

#[test]
#[ignore = "needs cryptoauthlib"]
fn the_chip_makes_a_key_that_gets_credentials() -> Outcome {
    let _alone = alone();
    let lab = lab(900)?;
    let (mut device, _bus) = lab.provision_chip("generate", &ModuleFolder::of_this_machine())?;
    device.private_key = device.private_key.replace("object=device", "object=new");
    let made = requested(&site(&lab, &device)?, &["csr", "--generate"])?;
    let again = site(&lab, &device)?.run(&["csr", "--generate"])?;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(again.status.code(), Some(1));
    assert!(said.contains("already"), "{said}");

    lab.certify(&mut device, &made)?;
    let site = site(&lab, &device)?;
    let output = site.run(&["check", "--online"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(lab.provider().issued().len(), 1);
    Ok(())
}

#[test]
#[ignore = "needs cryptoauthlib"]
fn each_fault_of_the_chip_ends_in_credentials_once_it_is_over() -> Outcome {
    let _alone = alone();
    let lab = lab(900)?;
    let (device, bus) = lab.provision_chip("faults", &ModuleFolder::of_this_machine())?;
    let well = ChipFaults::default();
    // What the whole chip has until it is over, and what a fetch gets past by itself.
    let faults = [
        (
            "absent",
            ChipFaults {
                absent: true,
                ..well.clone()
            },
            false,
        ),
        (
            "busy",
            ChipFaults {
                busy: true,
                ..well.clone()
            },
            false,
        ),
        (
            "garbled",
            ChipFaults {
                garble_every: Some(1),
                ..well.clone()
            },
            false,
        ),
        (
            "asleep",
            ChipFaults {
                doze_every: Some(1),
                ..well.clone()
            },
            false,
        ),
        (
            "garbled at times",
            ChipFaults {
                garble_every: Some(12),
                ..well.clone()
            },
            true,
        ),
        (
            "slow",
            ChipFaults {
                sign_time: Duration::from_millis(665),
                ..well.clone()
            },
            true,
        ),
    ];
    let mut waits = Vec::new();
    for (name, fault, is_got_past) in faults {
        let site = site(&lab, &device)?;
        bus.order(fault);
        let mut daemon = site.start()?;
        if !is_got_past {
            let status = daemon.wait_for("failure", LIMIT, |s| failures(s, "key") > 0)?;
            assert_eq!(granted(&status), 0, "{name}: {status:#}");
            bus.order(well.clone());
        }
        let begun = Instant::now();
        let status = daemon.wait_for("credentials", LIMIT, |s| granted(s) == 1)?;
        if !is_got_past {
            waits.push(begun.elapsed());
        }
        println!(
            "{name}: {:.1} s, failures {}",
            begun.elapsed().as_secs_f32(),
            status["credentials"]["failures"]
        );
        bus.order(well.clone());
    }
    waits.sort_unstable();
    let seconds = |wait: Option<&Duration>| wait.map_or(0.0, Duration::as_secs_f32);
    println!(
        "from the end of a fault to credentials: median {:.1} s, maximum {:.1} s",
        seconds(waits.get(waits.len() / 2)),
        seconds(waits.last())
    );
    Ok(())
}

#[test]
#[ignore = "needs cryptoauthlib"]
fn fifty_rotations_with_a_bus_that_loses_bytes_lose_no_row() -> Outcome {
    const ROTATIONS: u64 = 50;
    let _alone = alone();
    let lab = lab(12)?;
    let (device, bus) = lab.provision_chip("rotations", &ModuleFolder::of_this_machine())?;
    bus.order(ChipFaults {
        nack_every: Some(29),
        ..ChipFaults::default()
    });
    let site = site(&lab, &device)?;
    let mut daemon = site.start()?;
    let status = daemon.wait_for("rotations", Duration::from_secs(1200), |s| {
        s["replication"]["rotations"].as_u64() >= Some(ROTATIONS) && replicates(s)
    })?;
    let (counts, grants) = (bus.counts(), granted(&status));
    daemon.terminate()?;
    let compared = site.compare(&lab)?;
    println!(
        "{ROTATIONS} rotations, {} commands not acknowledged, failures {}: {} chip commands and {:.2} \
         signatures a grant; {compared:?}",
        counts.faults,
        status["credentials"]["failures"],
        u64::from(counts.commands) / grants,
        f64::from(counts.signatures) / grants as f64
    );
    assert!(counts.faults > 10, "{counts:?}");
    assert!(compared.is_equal(), "{compared:?}");
    Ok(())
}

/// The request that edgerepl prints.
fn requested(site: &Site, arguments: &[&str]) -> Outcome<String> {
    let output = site.run(arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}
