//! What every device does: it boots, renews its credentials, is stopped, and costs something.

use std::thread;
use std::time::{Duration, Instant};

use super::evidence::{ensure, no_failed_units, rows, took};
use super::{Bench, Failure, Figures, LONG, SHORT};
use crate::qemu::application;
use crate::qemu::machine::Power;
use crate::qemu::rig::LIMIT;

pub(super) fn boot(bench: &Bench) -> Result<Figures, Failure> {
    let mut rig = bench.rig("boot", LONG)?;
    // As it comes: Litestream asks for credentials by itself where it can.
    rig.set("replication.rotation = \"auto\"");
    let mut device = rig.first_boot()?;
    let mut figures = Figures::new();
    if bench.has_litestream() {
        let status = device.wait_until_healthy()?;
        let rotation = &status["replication"]["rotation"];
        ensure(rotation == "refresh", || status.to_string())?;
        let verified = device.shell.run(
            "setpriv --reuid=edgerepl --regid=edgerepl --clear-groups --inh-caps=-all \
             edgerepl verify",
        )?;
        ensure(verified.contains("holds all that it should"), || {
            verified.clone()
        })?;
    } else {
        let status = device.wait_for("credentials", LIMIT, |status| {
            status["credentials"]["valid"] == true && status["problems"][0].is_string()
        })?;
        let problem = status["problems"][0].as_str().unwrap_or_default();
        ensure(problem.contains("litestream isn't there"), || {
            status.to_string()
        })?;
        figures.push(("without Litestream it says", problem.to_owned()));
    }
    device
        .shell
        .run("! touch /written && ! touch /usr/written && ! touch /etc/written")?;
    let options = device.shell.run("findmnt -no OPTIONS /")?;
    ensure(options.starts_with("ro,"), || options.clone())?;
    no_failed_units(&mut device)?;

    let ready = device.property("edgerepl.service", "ActiveEnterTimestampMonotonic")?;
    let seconds = |s: f64| format!("{s:.1} s after the kernel's start");
    figures.push(("READY=1", seconds(ready.parse::<f64>()? / 1e6)));
    let log = device.log()?;
    for (what, words) in [
        ("first credentials", "credentials are valid for"),
        ("first row on the replica", "its replica holds transaction"),
    ] {
        if let Some(at) = moment(&log, words) {
            figures.push((what, seconds(at)));
        }
    }
    let pid = device.property("edgerepl.service", "MainPID")?;
    let (_, user) = device.owner(&format!("/proc/{pid}"))?;
    let caps = device
        .shell
        .run(&format!("grep CapEff /proc/{pid}/status"))?;
    ensure(
        user == "edgerepl" && caps.trim().ends_with("0000000000000000"),
        || format!("it runs as {user} with {caps}"),
    )?;
    device.shut_down()?;
    if bench.has_litestream() {
        figures.push(rows(&rig)?);
    }
    Ok(figures)
}

pub(super) fn rotations(bench: &Bench) -> Result<Figures, Failure> {
    /// An upload of more takes an emulated machine longer than from one renewal to the next.
    const MIB: u32 = 2;
    let mut rig = bench.rig("rotations", SHORT)?;
    if bench.has_litestream() {
        rig.share_with_application(MIB)?;
    }
    let mut device = rig.first_boot()?;
    if !bench.has_litestream() {
        let status = device.wait_for("grants", LIMIT, |status| {
            status["credentials"]["granted"].as_u64() > Some(6)
        })?;
        device.shut_down()?;
        return Ok(vec![(
            "renewals",
            status["credentials"]["granted"].to_string(),
        )]);
    }
    application::start(&mut device)?;
    let status = device.wait_for_rotations(6)?;
    let gap = status["replication"]["last_gap_s"].to_string();
    application::wait_for_rows(&mut device)?;
    device.wait_for_proofs(rig.databases().len())?;
    application::end(&mut device)?;
    device.shut_down()?;
    Ok(vec![
        ("rotations", status["replication"]["rotations"].to_string()),
        ("last gap, seconds", gap),
        rows(&rig)?,
    ])
}

pub(super) fn stop_and_reboot(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("stop-and-reboot", LONG)?;
    let mut device = rig.first_boot()?;
    device.wait_until_healthy()?;
    let begun = Instant::now();
    device.shell.run("systemctl stop edgerepl.service")?;
    let stopped = begun.elapsed();
    let result = device.property("edgerepl.service", "Result")?;
    ensure(result == "success", || {
        format!("the stop ended with {result}")
    })?;
    // Copied before anything can be written: this is what the replica must hold already.
    device.shell.run("sync")?;
    device.shell.send("systemctl --no-block reboot")?;
    device.machine.wait_until_off(LIMIT)?;
    let first = rows(&rig)?;

    let mut device = rig.boot(&Power::default())?;
    device.wait_until_healthy()?;
    let kernel = device.shell.run("dmesg")?;
    ensure(!kernel.contains("recovery complete"), || {
        "the reboot left the data partition to be recovered".to_owned()
    })?;
    no_failed_units(&mut device)?;
    // The whole system goes down with edgerepl running.
    device.power_off()?;
    Ok(vec![("systemctl stop", took(stopped)), first, rows(&rig)?])
}

/// As on a device: credentials for 15 min, a row every 5 s.
pub(super) fn footprint(bench: &Bench) -> Result<Figures, Failure> {
    const WATCHED: Duration = Duration::from_secs(120);
    let mut rig = bench.rig("footprint", LONG)?;
    rig.set("heartbeat.interval = \"5s\"");
    let mut device = rig.first_boot()?;
    device.wait_for("credentials", LIMIT, |status| {
        status["credentials"]["valid"] == true
    })?;
    thread::sleep(Duration::from_secs(30));
    let pid = device.property("edgerepl.service", "MainPID")?;
    let mut read = |file: &str| device.shell.run(&format!("cat /proc/{pid}/{file}"));
    let before = read("status")?;
    thread::sleep(WATCHED);
    let (after, memory) = (read("status")?, read("smaps_rollup")?);
    let descriptors = device.shell.run(&format!("ls /proc/{pid}/fd | wc -l"))?;
    let switches = |text: &str| {
        number(text, "voluntary_ctxt_switches:") + number(text, "nonvoluntary_ctxt_switches:")
    };
    let minutes = WATCHED.as_secs_f64() / 60.0;
    let per_minute = (switches(&after) - switches(&before)) as f64 / minutes;
    let program = device.shell.run("wc -c </usr/bin/edgerepl")?;
    device.shut_down()?;
    let kib = |name| format!("{} KiB", number(&memory, name));
    Ok(vec![
        ("PSS", kib("Pss:")),
        ("RSS", kib("Rss:")),
        ("private, dirty", kib("Private_Dirty:")),
        ("threads", number(&after, "Threads:").to_string()),
        ("file descriptors", descriptors.trim().to_owned()),
        ("context switches a minute", format!("{per_minute:.0}")),
        ("stripped binary", format!("{} bytes", program.trim())),
    ])
}

/// The number in the line of a `/proc` file that begins with `name`.
fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// When the journal first says these words, in seconds since the kernel's start.
fn moment(log: &str, words: &str) -> Option<f64> {
    let line = log.lines().find(|line| line.contains(words))?;
    let (time, _) = line.strip_prefix('[')?.split_once(']')?;
    time.trim().parse().ok()
}
