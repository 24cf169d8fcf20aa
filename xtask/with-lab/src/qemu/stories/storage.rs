//! The data partition: what reaches it, what a power cut leaves on it, and a day on which it is late.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::evidence::{Chance, await_grant, ensure, rows, seed, took};
use super::{Bench, Failure, Figures, LARGE_MIB, LONG, SHORT};
use crate::qemu::application;
use crate::qemu::machine::Power;
use crate::qemu::rig::{DATABASE, LIMIT, Rig, Running};

pub(super) fn flash(bench: &Bench) -> Result<Figures, Failure> {
    let mut rig = bench.rig("flash", SHORT)?;
    rig.set("heartbeat.interval = \"150ms\"");
    let mut device = rig.first_boot()?;
    device.wait_until_healthy()?;
    device.shell.run("touch /run/hour")?;
    // Six renewals and a row every 5 s: an hour's.
    let status = device.wait_for("an hour's work", LIMIT * 2, |status| {
        status["heartbeat"]["rows"].as_u64() >= Some(720)
            && status["replication"]["rotations"].as_u64() >= Some(6)
    })?;
    // One file system at a time: what a mount hides is looked at through the mount.
    let written = device.shell.run(
        "findmnt -rno TARGET,FSTYPE | while read -r place kind; do case $place in \
         /data|/data/*|/run|/run/*|/tmp|/tmp/*|/proc|/proc/*|/sys|/sys/*|/dev|/dev/*) ;; \
         *) find \"$place\" -xdev -newer /run/hour -type f ;; esac; done",
    )?;
    ensure(written.trim().is_empty(), || {
        format!("written outside /data: {written}")
    })?;
    let log = device.shell.run("journalctl --no-pager --output=cat")?;
    device.machine.cut_power()?;

    let secrets = rig.secrets();
    ensure(secrets.len() >= 12, || {
        format!("{} secrets only", secrets.len())
    })?;
    for secret in &secrets {
        ensure(!log.contains(secret), || {
            "the journal holds a secret".to_owned()
        })?;
    }
    let certificate = fs::read_to_string(&rig.device.certificate)?;
    let known = certificate.lines().nth(2).unwrap_or_default().to_owned();
    let mut texts = secrets.clone();
    texts.push(known.clone());
    let found = found_in(&rig.data(), &texts)?;
    // What is known to be there shows that whatever else is there would have been found.
    ensure(found.contains(&known), || {
        "the certificate is not found where it is".to_owned()
    })?;
    ensure(found.len() == 1, || {
        format!("{} secrets on flash", found.len() - 1)
    })?;
    Ok(vec![
        ("rows", status["heartbeat"]["rows"].to_string()),
        ("rotations", status["replication"]["rotations"].to_string()),
        (
            "secrets looked for on the raw disk",
            secrets.len().to_string(),
        ),
    ])
}

pub(super) fn power_cuts(bench: &Bench) -> Result<Figures, Failure> {
    const CUTS: u32 = 20;
    /// Milliseconds from the start of replication, and about what a rotation takes on an emulated machine.
    const QUIET: u64 = 20_000;
    const HAND_OVER: u64 = 3_000;
    let mut chance = Chance(seed()? | 1);
    // A rotation comes when it is asked for. A cut may have the large database uploaded anew, which on an
    // emulated machine takes longer than from one short renewal to the next.
    let mut rig = bench.rig("power-cuts", LONG)?;
    rig.share_with_application(LARGE_MIB)?;
    let mut device = rig.first_boot()?;
    application::work(&mut device, &rig)?;
    let uploaded = device.machine.age();
    let mut last = Last::new();
    ask_for_last(&mut device, &mut last)?;
    ensure(last.len() == rig.databases().len(), || format!("{last:?}"))?;
    device.machine.cut_power()?;
    let mut in_rotation = 0;
    for cut in 1..=CUTS {
        let mut device = rig.boot(&Power::default())?;
        application::start(&mut device)?;
        device.wait_for("replication", LIMIT, |status| {
            status["replication"]["activity"] == "replicating"
        })?;
        let moment = if cut % 2 == 0 {
            let granted = rig.lab.provider().issued().len();
            device.shell.run("systemctl reload edgerepl.service")?;
            await_grant(&rig, granted)?;
            chance.below(HAND_OVER)
        } else {
            chance.below(QUIET)
        };
        thread::sleep(Duration::from_millis(moment));
        ask_for_last(&mut device, &mut last)?;
        let open = hand_over_is_open(&rig);
        in_rotation += u32::from(open);
        let place = if open { ", in a rotation" } else { "" };
        let rows = last.iter().map(|(name, row)| format!("{name} {row}"));
        let rows = rows.collect::<Vec<_>>().join(", ");
        println!("  cut {cut}: {moment} ms on, after {rows}{place}");
        device.machine.cut_power()?;
        ensure_kept(&rig, &last)?;
    }
    let mut device = rig.boot(&Power::default())?;
    application::work(&mut device, &rig)?;
    application::end(&mut device)?;
    device.shut_down()?;
    Ok(vec![
        (
            "cuts",
            format!("{CUTS}, {in_rotation} of them in a rotation"),
        ),
        ("from power to the first proofs", took(uploaded)),
        rows(&rig)?,
    ])
}

pub(super) fn late_data(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("late-data", LONG)?;
    let mut device = rig.first_boot()?;
    device.wait_until_healthy()?;
    device.shell.run("systemctl stop edgerepl.service")?;
    // systemd mounts it again by itself, where it may.
    device
        .shell
        .run("systemctl mask --runtime data.mount && umount /data && ! mountpoint -q /data")?;
    // The device's own configuration is there too, so that it can't even begin.
    device
        .shell
        .run("systemctl start --no-block edgerepl.service")?;
    thread::sleep(Duration::from_secs(30));
    let log = device.log()?;
    ensure(device.status()?.is_null(), || log.clone())?;
    let begun = Instant::now();
    device
        .shell
        .run("systemctl unmask --runtime data.mount && mount /data")?;
    device.wait_until_healthy()?;
    let healthy = begun.elapsed();
    device.shut_down()?;
    ensure(log.contains("status=78"), || log.clone())?;
    Ok(vec![
        ("from the mount to health", took(healthy)),
        rows(&rig)?,
    ])
}

/// Whether nothing was uploaded yet with the newest credentials.
fn hand_over_is_open(rig: &Rig) -> bool {
    let newest = rig.lab.provider().issued().pop();
    let newest = newest.map(|session| session.access_key_id);
    let requests = rig.lab.s3().requests();
    let mut uploads = requests.iter().filter(|request| request.is_upload());
    uploads.all(|upload| upload.access_key_id != newest)
}

/// The last row of each database that was said to be committed.
type Last = BTreeMap<&'static str, i64>;

/// As edgerepl says it of its own rows, and the application of its.
fn ask_for_last(device: &mut Running, last: &mut Last) -> Result<(), Failure> {
    last.extend(application::committed(device)?);
    let status = device.status()?;
    let own = status["heartbeat"]["last_id"].as_i64();
    last.extend(own.map(|row| (DATABASE, row)));
    Ok(())
}

/// After a cut each database is whole, and holds the row that was said to be committed.
fn ensure_kept(rig: &Rig, last: &Last) -> Result<(), Failure> {
    rig.copy_after_cut()?;
    for (name, row) in last {
        let database = Connection::open(rig.live().join(name))?;
        let whole: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        ensure(whole == "ok", || format!("{name} is damaged: {whole}"))?;
        let table = match *name {
            DATABASE => "HealthCheck",
            _ => "row",
        };
        let question = format!("SELECT count(*) FROM {table} WHERE id = ?1");
        let count: i64 = database.query_row(&question, [row], |row| row.get(0))?;
        ensure(count == 1, || {
            format!("row {row} of {name} was committed and is lost")
        })?;
    }
    Ok(())
}

/// Which of the texts are somewhere in the file.
fn found_in(path: &Path, texts: &[String]) -> Result<BTreeSet<String>, Failure> {
    let longest = texts.iter().map(String::len).max().unwrap_or_default();
    let mut file = File::open(path)?;
    let mut found = BTreeSet::new();
    let (mut window, mut piece) = (Vec::new(), vec![0; 1 << 22]);
    loop {
        let n = file.read(&mut piece)?;
        if n == 0 {
            return Ok(found);
        }
        window.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&window);
        let new = texts.iter().filter(|wanted| text.contains(wanted.as_str()));
        found.extend(new.cloned());
        // What lies across two pieces is seen with the next one.
        window.drain(..window.len().saturating_sub(longest));
    }
}
