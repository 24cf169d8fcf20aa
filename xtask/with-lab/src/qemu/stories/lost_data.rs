//! A data partition that is lost, on a device that has edgerepl-restore.service enabled.

use std::thread;
use std::time::{Duration, Instant};

use super::evidence::{ensure, no_failed_units, rows, took};
use super::{Bench, Failure, Figures, LONG};
use crate::qemu::machine::Power;
use crate::qemu::rig::{LIMIT, RESTORES, Running};

const RESTORE: &str = "edgerepl-restore.service";
const DAEMON: &str = "edgerepl.service";

pub(super) fn lost_data(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("lost-data", LONG)?;
    let mut device = rig.first_boot()?;
    device.wait_until_healthy()?;
    let first = end_of_life(device)?;
    rows(&rig)?;

    // From here on each data partition is as it was provisioned.
    let power = Power {
        kernel: RESTORES,
        ..Power::default()
    };
    rig.format()?;
    let mut device = rig.boot(&power)?;
    device.wait_until_healthy()?;
    ensure_restored(&mut device, &first)?;
    let begun = timestamp(&mut device, RESTORE, "ExecMainStart")?;
    let ended = timestamp(&mut device, RESTORE, "ExecMainExit")?;
    device.shell.run(&format!("systemctl restart {DAEMON}"))?;
    let log = device.log()?;
    ensure(log.contains("exists: nothing to restore"), || {
        format!("{DAEMON} was started without a look at the database: {log}")
    })?;
    device.wait_until_healthy()?;
    let second = end_of_life(device)?;
    let replicated = rows(&rig)?;

    rig.format()?;
    let mut device = rig.boot(&Power {
        network: false,
        ..power
    })?;
    ensure_it_waits(&mut device)?;
    let plugged = Instant::now();
    device.machine.plug(true)?;
    device.wait_until_healthy()?;
    let healthy = plugged.elapsed();
    ensure_restored(&mut device, &second)?;
    device.shut_down()?;
    Ok(vec![
        ("the restore", took(ended - begun)),
        ("rows, before the second loss", replicated.1),
        ("from the network to health", took(healthy)),
        rows(&rig)?,
    ])
}

/// What a database held at the end: its last row, and all of them as text.
struct Held {
    last: i64,
    rows: String,
}

fn end_of_life(mut device: Running) -> Result<Held, Failure> {
    device.shell.run(&format!("systemctl stop {DAEMON}"))?;
    let rows = rows_up_to(&mut device, i64::MAX)?;
    let last = rows.lines().last().and_then(|row| row.split('|').next());
    let last = last.unwrap_or_default().parse()?;
    device.shut_down()?;
    Ok(Held { last, rows })
}

/// The database of an earlier life was there before edgerepl was, whose rows go on after its last one.
fn ensure_restored(device: &mut Running, earlier: &Held) -> Result<(), Failure> {
    let log = device.log()?;
    ensure(log.contains("was restored from its replica"), || {
        log.clone()
    })?;
    let restored = timestamp(device, RESTORE, "ExecMainExit")?;
    let started = timestamp(device, DAEMON, "ExecMainStart")?;
    ensure(!restored.is_zero() && restored <= started, || {
        format!(
            "{DAEMON} was started {started:?} after the kernel, the restore's end: {restored:?}"
        )
    })?;
    let found = rows_up_to(device, earlier.last)?;
    ensure(found == earlier.rows, || {
        format!("before it was lost:\n{}\nrestored:\n{found}", earlier.rows)
    })?;
    let status = device.status()?;
    ensure(
        status["heartbeat"]["last_id"].as_i64() > Some(earlier.last),
        || status.to_string(),
    )?;
    // An application of another user's, in the group that shares the database.
    device.shell.run(
        "setpriv --reuid=65534 --regid=65534 --groups=edgerepl --inh-caps=-all \
         sqlite3 -cmd '.timeout 20000' /data/app/app.db \
         'CREATE TABLE IF NOT EXISTS app (note TEXT); INSERT INTO app VALUES (datetime())'",
    )?;
    no_failed_units(device)
}

/// Without a network nobody knows whether there is a replica: nothing is written meanwhile.
fn ensure_it_waits(device: &mut Running) -> Result<(), Failure> {
    let begun = Instant::now();
    while !device
        .log()?
        .contains("the database is not restored; retry")
    {
        ensure(begun.elapsed() < LIMIT, || "no restore is tried".to_owned())?;
        thread::sleep(Duration::from_millis(300));
    }
    thread::sleep(Duration::from_secs(15));
    for (unit, wanted) in [(RESTORE, "activating"), (DAEMON, "inactive")] {
        let found = device.property(unit, "ActiveState")?;
        ensure(found == wanted, || format!("{unit} is {found}"))?;
    }
    device.shell.run("! test -e /data/app/app.db").map(drop)
}

/// Heartbeat rows, one a line.
fn rows_up_to(device: &mut Running, last: i64) -> Result<String, Failure> {
    device.shell.run(&format!(
        "sqlite3 -cmd '.timeout 20000' /data/app/app.db \
         'SELECT * FROM HealthCheck WHERE id <= {last} ORDER BY id'"
    ))
}

/// When a unit's program did this, since the kernel's start.
fn timestamp(device: &mut Running, unit: &str, event: &str) -> Result<Duration, Failure> {
    let name = format!("{event}TimestampMonotonic");
    let micros = device.property(unit, &name)?.parse()?;
    Ok(Duration::from_micros(micros))
}
