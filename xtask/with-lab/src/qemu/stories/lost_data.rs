//! A data partition that is lost, on a device that has edgerepl-restore.service enabled.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::evidence::{ensure, no_failed_units, rows, took};
use super::{Bench, Failure, Figures, LARGE_MIB, LONG};
use crate::qemu::application::{self, SETTINGS};
use crate::qemu::machine::Power;
use crate::qemu::rig::{DATABASE, LIMIT, RESTORES, Rig, Running};

const RESTORE: &str = "edgerepl-restore.service";
const DAEMON: &str = "edgerepl.service";

pub(super) fn lost_data(bench: &Bench) -> Result<Figures, Failure> {
    let mut rig = bench.rig("lost-data", LONG)?;
    rig.share_with_application(LARGE_MIB)?;
    let mut device = rig.first_boot()?;
    application::work(&mut device, &rig)?;
    let uploaded = device.machine.age();
    let first = end_of_life(&rig, device)?;

    // From here on each data partition is as it was provisioned, without a database.
    let power = Power {
        kernel: RESTORES,
        ..Power::default()
    };
    rig.format()?;
    let mut device = rig.boot(&power)?;
    device.wait_until_healthy()?;
    ensure_restored(&rig, &mut device, &first)?;
    let begun = timestamp(&mut device, RESTORE, "ExecMainStart")?;
    let ended = timestamp(&mut device, RESTORE, "ExecMainExit")?;
    ensure_alone_restored(&rig, &mut device, SETTINGS)?;
    application::work(&mut device, &rig)?;
    let second = end_of_life(&rig, device)?;
    ensure_goes_on(&first, &second)?;

    rig.format()?;
    let mut device = rig.boot(&Power {
        network: false,
        ..power
    })?;
    ensure_it_waits(&rig, &mut device)?;
    let plugged = Instant::now();
    device.machine.plug(true)?;
    device.wait_until_healthy()?;
    let healthy = plugged.elapsed();
    ensure_restored(&rig, &mut device, &second)?;
    application::work(&mut device, &rig)?;
    let third = end_of_life(&rig, device)?;
    ensure_goes_on(&second, &third)?;
    Ok(vec![
        ("from power to the first proofs", took(uploaded)),
        ("the restore", took(ended - begun)),
        ("rows, before the second loss", second.compared),
        ("from the network to health", took(healthy)),
        ("rows, live and in the replica", third.compared),
    ])
}

/// What a device's databases held at the end of a life: equal to their replicas.
struct Held {
    /// Copies of them.
    copies: Vec<PathBuf>,
    /// Of edgerepl's rows the last one, and all of them as text.
    last: i64,
    rows: String,
    compared: String,
}

fn end_of_life(rig: &Rig, mut device: Running) -> Result<Held, Failure> {
    application::end(&mut device)?;
    device.shell.run(&format!("systemctl stop {DAEMON}"))?;
    let own = rows_up_to(&mut device, i64::MAX)?;
    let last = own.lines().last().and_then(|row| row.split('|').next());
    let last = last.unwrap_or_default().parse()?;
    device.shut_down()?;
    let (_, compared) = rows(rig)?;
    let keep = rig.live().with_file_name(format!("held-{last}"));
    let _ = fs::remove_dir_all(&keep);
    fs::rename(rig.live(), &keep)?;
    Ok(Held {
        copies: rig
            .databases()
            .into_iter()
            .map(|name| keep.join(name))
            .collect(),
        last,
        rows: own,
        compared,
    })
}

/// The databases of an earlier life were there before edgerepl was, whose rows go on after its last one.
fn ensure_restored(rig: &Rig, device: &mut Running, earlier: &Held) -> Result<(), Failure> {
    let log = device.log()?;
    let of = |name: &str| log.find(&format!("/{name} was restored from its replica"));
    let restores: Vec<_> = rig.databases().into_iter().map(of).collect();
    ensure(
        restores.iter().all(Option::is_some) && restores.is_sorted(),
        || format!("not restored one after the other: {log}"),
    )?;
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

/// Where one database is lost between two starts of edgerepl, that one is restored, and no other.
fn ensure_alone_restored(rig: &Rig, device: &mut Running, lost: &str) -> Result<(), Failure> {
    let earlier = device.log()?.len();
    let file = format!("/data/app/{lost}");
    device.shell.run(&format!(
        "systemctl stop {DAEMON} && rm {file} && rm -f {file}-wal {file}-shm && \
         systemctl start {DAEMON}"
    ))?;
    let log = device.log()?;
    let since = log.get(earlier..).unwrap_or(&log);
    for name in rig.databases() {
        let words = match name == lost {
            true => format!("/{name} was restored from its replica"),
            false => format!("/{name} exists: nothing to restore"),
        };
        ensure(since.contains(&words), || {
            format!("{DAEMON} was started without a look at {name}: {since}")
        })?;
    }
    Ok(())
}

/// Each row of the earlier life is in the later one's databases, and the application's go on.
fn ensure_goes_on(earlier: &Held, later: &Held) -> Result<(), Failure> {
    for (before, after) in earlier.copies.iter().zip(&later.copies) {
        let name = before.file_name().unwrap_or_default().display();
        let own = before.ends_with(DATABASE);
        let (missing, new) = difference(before, after, if own { "HealthCheck" } else { "row" })?;
        ensure(missing == 0 && new > 0, || {
            format!("{missing} rows of {name} are lost, and {new} are new")
        })?;
    }
    Ok(())
}

/// How many rows of the table are no longer there, or are others, and how many are new.
fn difference(before: &Path, after: &Path, table: &str) -> Result<(i64, i64), Failure> {
    let both = Connection::open(after)?;
    both.execute("ATTACH ?1 AS before", [before.display().to_string()])?;
    let count = |sql: String| both.query_row(&sql, [], |row| row.get::<_, i64>(0));
    let missing = count(format!(
        "SELECT count(*) FROM (SELECT * FROM before.{table} EXCEPT SELECT * FROM main.{table})"
    ))?;
    let more = count(format!(
        "SELECT (SELECT count(*) FROM main.{table}) - (SELECT count(*) FROM before.{table})"
    ))?;
    Ok((missing, more))
}

/// Without a network nobody knows whether there is a replica: nothing is written meanwhile.
fn ensure_it_waits(rig: &Rig, device: &mut Running) -> Result<(), Failure> {
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
    for name in rig.databases() {
        device.shell.run(&format!("! test -e /data/app/{name}"))?;
    }
    Ok(())
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
