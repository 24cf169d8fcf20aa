//! What nobody at the device can help: a clock that is wrong, a network that is not there.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::evidence::{Chance, ensure, rows, same_daemon, took};
use super::{Bench, Failure, Figures, SHORT};
use crate::qemu::machine::Power;
use crate::qemu::rig::{LIMIT, Running};

/// As it comes, where Litestream can: it asks for credentials by itself, and counts by the device's
/// clock when they end.
const REFRESH: &str = "replication.rotation = \"refresh\"";

pub(super) fn no_clock(bench: &Bench) -> Result<Figures, Failure> {
    let mut rig = bench.rig("no-clock", SHORT)?;
    rig.set(REFRESH);
    rig.format()?;
    let power = Power {
        clock: "1970-01-01T00:00:00",
        ..Power::default()
    };
    let mut device = rig.boot(&power)?;
    // systemd itself sets the clock to the date of its own build; back to where the hardware was.
    device.shell.run("date --set=@60")?;
    let status = device.wait_for("a daemon", LIMIT, |status| status["state"].is_string())?;
    ensure(status["state"] != "healthy", || {
        format!("healthy in 1970: {status:#}")
    })?;
    thread::sleep(Duration::from_secs(40));
    let status = device.status()?;
    ensure(status["state"] != "healthy", || {
        format!("healthy in 1970: {status:#}")
    })?;
    let pid = status["pid"].clone();
    let skewed = rig.lab.s3().requests().into_iter();
    let skewed = skewed.filter(|r| r.error.as_deref() == Some("RequestTimeTooSkewed"));
    let refused = skewed.count();

    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let begun = Instant::now();
    device.shell.run(&format!("date --set=@{now}"))?;
    device.wait_for("credentials", LIMIT, |status| {
        status["credentials"]["valid"] == true
    })?;
    let credentials = begun.elapsed();
    device.wait_until_healthy()?;
    let healthy = begun.elapsed();
    let log = device.log()?;
    ensure(log.contains("the clock was set: it is 20"), || log.clone())?;

    let starts = |status: &Value| status["replication"]["starts"].as_u64();
    let before = starts(&device.status()?);
    step_clock(&mut device, 6)?;
    let status = await_renewals(&mut device)?;
    ensure(starts(&status) == before, || status.to_string())?;
    // A Litestream whose clock went back does not ask for hours: it is restarted, and but once.
    step_clock(&mut device, -6)?;
    device.wait_for("a restart", LIMIT, |status| starts(status) > before)?;
    let status = await_renewals(&mut device)?;
    let once = before.map(|starts| starts + 1);
    ensure(starts(&status) == once, || status.to_string())?;
    device.wait_until_healthy()?;
    same_daemon(&status, &pid)?;
    device.shut_down()?;
    Ok(vec![
        ("requests that S3 refused by date", refused.to_string()),
        ("from the clock to credentials", took(credentials)),
        ("from the clock to health", took(healthy)),
        rows(&rig)?,
    ])
}

fn step_clock(device: &mut Running, hours: i32) -> Result<(), Failure> {
    device
        .shell
        .run(&format!("date --set=@$(( $(date +%s) + {hours} * 3600 ))"))
        .map(drop)
}

/// Waits for two: they go by a clock that nobody sets. Health does not: a clock that is hours off is a
/// problem of its own.
fn await_renewals(device: &mut Running) -> Result<Value, Failure> {
    let granted = |status: &Value| status["credentials"]["granted"].as_u64();
    let before = granted(&device.status()?);
    device.wait_for("renewals", LIMIT, |status| {
        granted(status) > before.map(|n| n + 1)
            && status["replication"]["activity"] == "replicating"
    })
}

pub(super) fn network(bench: &Bench) -> Result<Figures, Failure> {
    let mut rig = bench.rig("network", SHORT * 2)?;
    rig.set(REFRESH);
    rig.format()?;
    let unplugged = Power {
        network: false,
        ..Power::default()
    };
    let mut device = rig.boot(&unplugged)?;
    let status = device.wait_for("rows", LIMIT, |status| {
        status["heartbeat"]["rows"].as_u64() > Some(5)
    })?;
    ensure(status["credentials"]["granted"] == 0, || status.to_string())?;
    let pid = status["pid"].clone();
    thread::sleep(SHORT);
    let begun = Instant::now();
    device.machine.plug(true)?;
    device.wait_until_healthy()?;
    let first = begun.elapsed();

    // For longer than the credentials live.
    device.machine.plug(false)?;
    device.wait_for("their end", LIMIT, |status| {
        status["credentials"]["valid"] == false
    })?;
    thread::sleep(SHORT);
    let begun = Instant::now();
    device.machine.plug(true)?;
    device.wait_until_healthy()?;
    let again = begun.elapsed();

    let mut chance = Chance(7);
    for turn in 0..20 {
        device.machine.plug(turn % 2 == 1)?;
        thread::sleep(Duration::from_millis(500 + chance.below(3000)));
    }
    let status = device.wait_until_healthy()?;
    same_daemon(&status, &pid)?;
    // Neither an outage nor a cable ends Litestream.
    ensure(status["replication"]["starts"] == 1, || status.to_string())?;
    device.shut_down()?;
    Ok(vec![
        ("from the first network to health", took(first)),
        ("from its return to health", took(again)),
        rows(&rig)?,
    ])
}
