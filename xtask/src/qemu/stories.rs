//! The tests: what a device lives through, and what must hold afterwards.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use edgerepl_lab::Comparison;

use super::machine::Power;
use super::rig::{LIMIT, Rig, Running};
use super::{Bench, Failure, Figures, Story};

/// Credentials that outlive a test.
const LONG: Duration = Duration::from_secs(900);

/// Credentials that are renewed every 20 s: what an hour brings, in two minutes.
const SHORT: Duration = Duration::from_secs(30);

pub(crate) const STORIES: &[Story] = &[
    Story {
        name: "boot",
        shows: "from power to the first replicated row, on a root that is read-only",
        in_gate: true,
        on_armv7: true,
        run: boot,
    },
    Story {
        name: "rotations",
        shows: "six rotations, and the replica holds every row",
        in_gate: true,
        on_armv7: true,
        run: rotations,
    },
    Story {
        name: "watchdog",
        shows: "a daemon that stands still is killed, a stuck child is not its death",
        in_gate: true,
        on_armv7: false,
        run: watchdog,
    },
    Story {
        name: "hardware-watchdog",
        shows: "systemd feeds the hardware's watchdog, which resets a machine without it",
        in_gate: false,
        on_armv7: false,
        run: hardware_watchdog,
    },
    Story {
        name: "flash",
        shows: "an hour's work writes to /data alone, and never a secret",
        in_gate: false,
        on_armv7: false,
        run: flash,
    },
    Story {
        name: "power-cuts",
        shows: "twenty power cuts lose no committed row, and replication goes on",
        in_gate: false,
        on_armv7: false,
        run: power_cuts,
    },
    Story {
        name: "no-clock",
        shows: "a clock that is not set, then set, then steps both ways",
        in_gate: false,
        on_armv7: false,
        run: no_clock,
    },
    Story {
        name: "network",
        shows: "no network at boot, for longer than credentials live, and one that flaps",
        in_gate: false,
        on_armv7: false,
        run: network,
    },
    Story {
        name: "systemd-supervisor",
        shows: "Litestream in a unit, restarted for an unprivileged edgerepl by the path unit",
        in_gate: true,
        on_armv7: false,
        run: systemd_supervisor,
    },
    Story {
        name: "token-trouble",
        shows: "a PKCS#11 module that is missing, then one that hangs",
        in_gate: false,
        on_armv7: false,
        run: token_trouble,
    },
    Story {
        name: "late-data",
        shows: "a data partition that is not there at the start, and is mounted later",
        in_gate: false,
        on_armv7: false,
        run: late_data,
    },
    Story {
        name: "stop-and-reboot",
        shows: "a stop in time with the last row replicated, and a clean reboot",
        in_gate: false,
        on_armv7: false,
        run: stop_and_reboot,
    },
    Story {
        name: "footprint",
        shows: "what the idle daemon costs",
        in_gate: false,
        on_armv7: true,
        run: footprint,
    },
];

fn boot(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("boot", LONG)?;
    rig.format()?;
    let mut device = rig.boot(&Power::default())?;
    let mut figures = Figures::new();
    if bench.has_litestream() {
        device.wait_until_healthy()?;
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
    let root = device.shell.run("findmnt -no FSTYPE,OPTIONS /")?;
    ensure(root.starts_with("squashfs ro"), || root.clone())?;
    no_failed_units(&mut device)?;

    let ready = device.property("edgerepl.service", "ActiveEnterTimestampMonotonic")?;
    let seconds = |s: f64| format!("{s:.1} s after the kernel's start");
    figures.push(("READY=1", seconds(ready.parse::<f64>()? / 1e6)));
    let log = device.log()?;
    for (what, words) in [
        ("first credentials", "credentials granted for"),
        ("first row on the replica", "its replica holds transaction"),
    ] {
        if let Some(at) = moment(&log, words) {
            figures.push((what, seconds(at)));
        }
    }
    let (user, caps) = (
        device
            .shell
            .run("ps -o user= -p $(systemctl show -P MainPID edgerepl)")?,
        device
            .shell
            .run("grep CapEff /proc/$(systemctl show -P MainPID edgerepl)/status")?,
    );
    ensure(
        user.trim() == "edgerepl" && caps.trim().ends_with("0000000000000000"),
        || format!("it runs as {user} with {caps}"),
    )?;
    device.shut_down()?;
    if bench.has_litestream() {
        figures.push(rows(&rig)?);
    }
    Ok(figures)
}

fn rotations(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("rotations", SHORT)?;
    rig.format()?;
    let mut device = rig.boot(&Power::default())?;
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
    let status = device.wait_for_rotations(6)?;
    let gap = status["replication"]["last_gap_s"].to_string();
    device.shut_down()?;
    Ok(vec![
        ("rotations", status["replication"]["rotations"].to_string()),
        ("last gap, seconds", gap),
        rows(&rig)?,
    ])
}

fn watchdog(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("watchdog", LONG)?;
    rig.format()?;
    let mut device = rig.boot(&Power::default())?;
    let before = device.wait_until_healthy()?;

    // A child that is stuck: the daemon is fed by its own progress, and kills the child.
    let limit: f64 = device
        .property("edgerepl.service", "WatchdogUSec")
        .map(|text| seconds(&text))?;
    device.shell.run(HANG)?;
    device.shell.run("systemctl reload edgerepl.service")?;
    thread::sleep(Duration::from_secs_f64(limit + 5.0));
    let status = device.wait_for("a killed child", LIMIT, |status| {
        status["credentials"]["failures"]["key"].as_u64() >= Some(1)
    })?;
    let message = status["credentials"]["last_failure"]["message"]
        .as_str()
        .unwrap_or_default();
    ensure(
        message.contains("was killed, for it had not answered in time"),
        || status.to_string(),
    )?;
    ensure(status["pid"] == before["pid"], || {
        "the watchdog killed the daemon".to_owned()
    })?;
    device.shell.run(LET_GO)?;
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
        (
            "from SIGSTOP to the next daemon",
            format!("{:.1} s", killed.as_secs_f32()),
        ),
        rows(&rig)?,
    ])
}

fn hardware_watchdog(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("hardware-watchdog", LONG)?;
    rig.format()?;
    let mut device = rig.boot(&Power::default())?;
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
        (
            "from systemd's death to the reset",
            format!("{:.1} s", reset.as_secs_f32()),
        ),
        rows(&rig)?,
    ])
}

fn flash(bench: &Bench) -> Result<Figures, Failure> {
    let mut rig = bench.rig("flash", SHORT)?;
    rig.set("heartbeat.interval = \"150ms\"");
    rig.format()?;
    let mut device = rig.boot(&Power::default())?;
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
    let certificate = std::fs::read_to_string(&rig.device.certificate)?;
    let known = certificate.lines().nth(2).unwrap_or_default().to_owned();
    let mut texts = secrets.clone();
    texts.push(known.clone());
    let found = found_in(&rig.data(), &texts)?;
    // What is known to be there shows that whatever else is there would have been found.
    ensure(found == BTreeSet::from([known]), || {
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

fn power_cuts(bench: &Bench) -> Result<Figures, Failure> {
    const CUTS: u32 = 20;
    let seed = match std::env::var("EDGEREPL_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    println!("  EDGEREPL_SEED={seed}");
    let mut chance = Chance(seed | 1);
    let rig = bench.rig("power-cuts", SHORT)?;
    rig.format()?;
    let (mut last, mut in_rotation) = (0, 0);
    for cut in 1..=CUTS {
        let mut device = rig.boot(&Power::default())?;
        ensure_kept(&mut device, last)?;
        device.wait_for("replication", LIMIT, |status| {
            status["replication"]["activity"] == "replicating"
        })?;
        // One rotation is due every 20 s.
        let moment = Duration::from_millis(chance.below(20_000));
        thread::sleep(moment);
        let status = device.status()?;
        last = status["heartbeat"]["last_id"].as_i64().unwrap_or(last);
        let activity = status["replication"]["activity"]
            .as_str()
            .unwrap_or("nothing");
        in_rotation += u32::from(activity != "replicating");
        println!("  cut {cut}: {:.1} s on, {activity}", moment.as_secs_f32());
        device.machine.cut_power()?;
    }
    let mut device = rig.boot(&Power::default())?;
    ensure_kept(&mut device, last)?;
    device.wait_until_healthy()?;
    device.shut_down()?;
    Ok(vec![
        (
            "cuts",
            format!("{CUTS}, {in_rotation} of them in a rotation"),
        ),
        rows(&rig)?,
    ])
}

/// The live database is whole, and holds the row that edgerepl said it had committed.
fn ensure_kept(device: &mut Running, row: i64) -> Result<(), Failure> {
    let begun = Instant::now();
    while device.shell.try_run("test -e /data/app/app.db")?.0 != 0 {
        if row == 0 && begun.elapsed() > Duration::from_secs(5) {
            return Ok(());
        }
        ensure(begun.elapsed() < LIMIT, || {
            "the database is gone".to_owned()
        })?;
        thread::sleep(Duration::from_millis(300));
    }
    let ask =
        |question: &str| format!("sqlite3 -cmd '.timeout 20000' /data/app/app.db '{question}'");
    let whole = device.shell.run(&ask("PRAGMA integrity_check"))?;
    ensure(whole.trim() == "ok", || {
        format!("the live database is damaged: {whole}")
    })?;
    if row != 0 {
        let question = format!("SELECT count(*) FROM HealthCheck WHERE id = {row}");
        let count = device.shell.run(&ask(&question))?;
        ensure(count.trim() == "1", || {
            format!("row {row} was committed and is lost")
        })?;
    }
    Ok(())
}

fn no_clock(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("no-clock", SHORT)?;
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

    for hours in [6, -6] {
        let granted = device.status()?["credentials"]["granted"].as_u64();
        device
            .shell
            .run(&format!("date --set=@$(( $(date +%s) + {hours} * 3600 ))"))?;
        // It is renewed by a clock that nobody sets.
        device.wait_for("a renewal", LIMIT, |status| {
            status["credentials"]["granted"].as_u64() > granted
        })?;
    }
    let status = device.wait_until_healthy()?;
    ensure(status["pid"] == pid, || {
        "the daemon was restarted".to_owned()
    })?;
    device.shut_down()?;
    Ok(vec![
        ("requests that S3 refused by date", refused.to_string()),
        (
            "from the clock to credentials",
            format!("{:.1} s", credentials.as_secs_f32()),
        ),
        (
            "from the clock to health",
            format!("{:.1} s", healthy.as_secs_f32()),
        ),
        rows(&rig)?,
    ])
}

fn network(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("network", SHORT * 2)?;
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
    ensure(status["pid"] == pid, || {
        "the daemon was restarted".to_owned()
    })?;
    device.shut_down()?;
    Ok(vec![
        (
            "from the first network to health",
            format!("{:.1} s", first.as_secs_f32()),
        ),
        (
            "from its return to health",
            format!("{:.1} s", again.as_secs_f32()),
        ),
        rows(&rig)?,
    ])
}

fn systemd_supervisor(bench: &Bench) -> Result<Figures, Failure> {
    let mut rig = bench.rig("systemd-supervisor", SHORT)?;
    rig.set("replication.supervisor = \"systemd\"");
    rig.format()?;
    let mut device = rig.boot(&Power::default())?;
    let status = device.wait_for_rotations(3)?;
    let user = device
        .shell
        .run("ps -o user= -p $(systemctl show -P MainPID edgerepl)")?;
    ensure(user.trim() == "edgerepl", || format!("it runs as {user}"))?;
    let file = "/run/edgerepl/litestream.env";
    let seen = device.shell.run(&format!(
        "stat -c '%a %U' {file}; findmnt -no FSTYPE -T {file}"
    ))?;
    ensure(
        seen.split_whitespace().eq(["600", "edgerepl", "tmpfs"]),
        || seen.clone(),
    )?;
    let running = device.property("litestream.service", "ActiveState")?;
    ensure(running == "active", || {
        format!("litestream.service is {running}")
    })?;
    no_failed_units(&mut device)?;
    device.shut_down()?;
    Ok(vec![
        ("rotations", status["replication"]["rotations"].to_string()),
        (
            "last gap, seconds",
            status["replication"]["last_gap_s"].to_string(),
        ),
        rows(&rig)?,
    ])
}

fn token_trouble(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("token-trouble", LONG)?;
    rig.format()?;
    // The module is not where the configuration says; nobody is there to mend it at once.
    let mut device = rig.boot(&Power::default())?;
    device.wait_until_healthy()?;
    let layer = "/data/edgerepl/edgerepl.toml.d/50-bench.toml";
    device
        .shell
        .run(&format!("sed -i 's/libsofthsm2.so/missing.so/' {layer}"))?;
    device.shell.run("systemctl restart edgerepl.service")?;
    let status = device.wait_for("a problem", LIMIT, |status| {
        status["problems"][0]
            .as_str()
            .is_some_and(|problem| problem.contains("missing.so"))
    })?;
    let problem = status["problems"][0]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let (code, check) = device.shell.try_run("edgerepl check")?;
    ensure(code == 1 && check.contains("missing.so"), || {
        format!("check ({code}): {check}")
    })?;
    device
        .shell
        .run(&format!("sed -i 's/missing.so/libsofthsm2.so/' {layer}"))?;
    device.shell.run("systemctl reload edgerepl.service")?;
    device.wait_until_healthy()?;

    // It hangs from the very start.
    device.shell.run(HANG)?;
    device.shell.run("systemctl restart edgerepl.service")?;
    let status = device.wait_for("a killed child", LIMIT, |status| {
        status["credentials"]["failures"]["key"].as_u64() >= Some(1)
    })?;
    let rows_written = status["heartbeat"]["rows"].as_u64();
    ensure(rows_written > Some(10), || {
        format!("rows waited for the key: {status:#}")
    })?;
    device.shell.run(LET_GO)?;
    let after = device.wait_until_healthy()?;
    ensure(after["pid"] == status["pid"], || {
        "the daemon was restarted".to_owned()
    })?;
    device.shut_down()?;
    Ok(vec![("a missing module", problem), rows(&rig)?])
}

fn late_data(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("late-data", LONG)?;
    rig.format()?;
    let mut device = rig.boot(&Power::default())?;
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
        (
            "from the mount to health",
            format!("{:.1} s", healthy.as_secs_f32()),
        ),
        rows(&rig)?,
    ])
}

fn stop_and_reboot(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("stop-and-reboot", LONG)?;
    rig.format()?;
    let mut device = rig.boot(&Power::default())?;
    device.wait_until_healthy()?;
    let begun = Instant::now();
    device.shell.run("systemctl stop edgerepl.service")?;
    let stopped = begun.elapsed();
    let result = device.property("edgerepl.service", "Result")?;
    ensure(result == "success", || {
        format!("the stop ended with {result}")
    })?;
    // Copied before anything can be written: this is what the replica must hold already.
    device.shell.run("sync; systemctl --no-block reboot")?;
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
    Ok(vec![
        ("systemctl stop", format!("{:.1} s", stopped.as_secs_f32())),
        first,
        rows(&rig)?,
    ])
}

/// As on a device: credentials for 15 min, a row every 5 s.
fn footprint(bench: &Bench) -> Result<Figures, Failure> {
    const WATCHED: Duration = Duration::from_secs(120);
    let mut rig = bench.rig("footprint", LONG)?;
    rig.set("heartbeat.interval = \"5s\"");
    rig.format()?;
    let mut device = rig.boot(&Power::default())?;
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
    let program = device.shell.run("stat -c %s /usr/bin/edgerepl")?;
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

/// The token's object becomes a pipe that nobody writes to, so that whoever opens it hangs.
const HANG: &str = "(cd /data/edgerepl/tokens/*/ && mv token.object /data/edgerepl/aside && \
                    mkfifo token.object && chown edgerepl: token.object)";

const LET_GO: &str = "mv /data/edgerepl/aside $(echo /data/edgerepl/tokens/*/)token.object";

/// The replica of a device that is off, beside its database: equal, or this fails.
fn rows(rig: &Rig) -> Result<(&'static str, String), Failure> {
    let comparison: Comparison = rig.compare()?;
    ensure(comparison.is_equal() && comparison.live > 0, || {
        format!("{comparison:?}")
    })?;
    let Comparison { live, restored, .. } = comparison;
    Ok((
        "rows, live and in the replica",
        format!("{live} = {restored}"),
    ))
}

fn no_failed_units(device: &mut Running) -> Result<(), Failure> {
    let failed = device.shell.run("systemctl --failed --plain --no-legend")?;
    ensure(failed.trim().is_empty(), || {
        format!("units have failed: {failed}")
    })
}

/// When the journal first says these words, in seconds since the kernel's start.
fn moment(log: &str, words: &str) -> Option<f64> {
    let line = log.lines().find(|line| line.contains(words))?;
    let (time, _) = line.strip_prefix('[')?.split_once(']')?;
    time.trim().parse().ok()
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

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(otherwise().into())
    }
}

/// Numbers from a seed (xorshift): the same for the same.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
