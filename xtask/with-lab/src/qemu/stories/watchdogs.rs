//! Two watchdogs: systemd's over the daemon, and the hardware's over systemd.

use std::thread;
use std::time::{Duration, Instant};

use super::evidence::{ensure, rows, took};
use super::{Bench, Failure, Figures, LONG};
use crate::qemu::machine::Power;
use crate::qemu::rig::LIMIT;

pub(super) fn watchdog(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("watchdog", LONG)?;
    let mut device = rig.first_boot()?;
    let before = device.wait_until_healthy()?;

    // A child that is stuck: the daemon is fed by its own progress, and kills the child.
    let limit: f64 = device
        .property("edgerepl.service", "WatchdogUSec")
        .map(|text| seconds(&text))?;
    device.hang_token()?;
    device.shell.run("systemctl reload edgerepl.service")?;
    thread::sleep(Duration::from_secs_f64(limit + 5.0));
    let status = device.wait_for("a killed child", LIMIT, |status| {
        status["credentials"]["failures"]["key"].as_u64() >= Some(1)
    })?;
    let message = status["credentials"]["last_failure"]["message"]
        .as_str()
        .unwrap_or_default();
    ensure(message.contains("timed out and was killed"), || {
        status.to_string()
    })?;
    ensure(status["pid"] == before["pid"], || {
        "the watchdog killed the daemon".to_owned()
    })?;
    device.let_go_of_token()?;
    device.wait_for("a grant", LIMIT, |status| {
        status["credentials"]["granted"].as_u64() >= Some(2)
    })?;

    // A daemon that stands still.
    let begun = Instant::now();
    device
        .shell
        .run("kill -STOP $(systemctl show -P MainPID edgerepl)")?;
    let after = device.wait_for("another daemon", LIMIT, |status| {
        status["pid"].is_u64() && status["pid"] != before["pid"]
    })?;
    let killed = begun.elapsed();
    let log = device.log()?;
    ensure(log.contains("Watchdog timeout"), || log.clone())?;
    ensure(
        device.property("edgerepl.service", "NRestarts")? == "1",
        || after.to_string(),
    )?;
    device.wait_until_healthy()?;
    device.shut_down()?;
    Ok(vec![
        ("WatchdogSec", format!("{limit:.0} s")),
        ("from SIGSTOP to the next daemon", took(killed)),
        rows(&rig)?,
    ])
}

pub(super) fn hardware_watchdog(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("hardware-watchdog", LONG)?;
    let mut device = rig.first_boot()?;
    let name = device
        .shell
        .run("cat /sys/class/watchdog/watchdog0/identity")?;
    let limit = device
        .shell
        .run("cat /sys/class/watchdog/watchdog0/timeout")?;
    let state = device
        .shell
        .run("cat /sys/class/watchdog/watchdog0/state")?;
    ensure(state.trim() == "active", || {
        format!("the watchdog {name} is {state}")
    })?;
    device.wait_until_healthy()?;
    // Twice its time and more: it is fed.
    let limit: u64 = limit.trim().parse()?;
    thread::sleep(Duration::from_secs(2 * limit + 5));
    ensure(device.machine.is_on(), || {
        "the machine was reset without a reason".to_owned()
    })?;
    // systemd itself dies: it catches the signal, and stays as it is.
    let begun = Instant::now();
    device.shell.send("kill -SEGV 1")?;
    device.machine.wait_until_off(LIMIT)?;
    let reset = begun.elapsed();
    let mut device = rig.boot(&Power::default())?;
    device.wait_until_healthy()?;
    device.shut_down()?;
    Ok(vec![
        ("watchdog", format!("{}, {limit} s", name.trim())),
        ("from systemd's death to the reset", took(reset)),
        rows(&rig)?,
    ])
}

/// systemd's way to write a time span, as far as units use it here: `1min`, `30s`, `1min 30s`.
fn seconds(text: &str) -> f64 {
    let words = text.split_whitespace();
    words
        .map(|word| match word.split_once("min") {
            Some((minutes, _)) => minutes.parse::<f64>().unwrap_or_default() * 60.0,
            None => word.trim_end_matches('s').parse().unwrap_or_default(),
        })
        .sum()
}
