//! Health that can't be wrong: S3 misbehaves in each known way, and Litestream's local state is hurt in
//! each known way, under the real edgerepl and the real Litestream.
//!
//! One site each, all at once: a bound of two minutes is waited for in each of them. What is said of
//! each is one law. Whenever edgerepl says healthy, a restore of that moment holds every row that is
//! older than the bound.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{LIMIT, Outcome, lab};
use edgerepl_lab::{Daemon, KeyKind, Lab, ProxyWay, S3Proxy, Site, SmallDisk, tools};
use rusqlite::Connection;
use serde_json::Value;

/// How old an unproved row may be on a device that is healthy.
const BOUND: Duration = Duration::from_secs(120);

/// What a busy machine may add to a bound.
const SLACK: Duration = Duration::from_secs(10);

/// How long a fault lasts: past the bound by more than a rotation takes to come.
const FAULT: Duration = Duration::from_secs(170);

/// Within this every row is on the replica, once local state was hurt.
const MENDED: Duration = Duration::from_secs(180);

/// Rotations come every 40 s.
const LIFETIME: u64 = 60;

/// How often a site is looked at.
const PACE: Duration = Duration::from_millis(500);

/// How often what edgerepl says is compared with a restore; each takes Litestream itself.
const RESTORE_PACE: Duration = Duration::from_secs(20);

/// What the application has before anything goes wrong: an upload of all stands out.
const FILLING: u64 = 1 << 20;

/// What a person reads of each, one of them; nothing where replication may limp on.
fn words(way: ProxyWay) -> &'static [&'static str] {
    match way {
        ProxyWay::Pass | ProxyWay::EmptyLists | ProxyWay::Trickle | ProxyWay::ForgetPuts => &[],
        ProxyWay::AccessDenied => &["(AccessDenied)"],
        ProxyWay::RequestTimeTooSkewed => &["(RequestTimeTooSkewed)", LATE],
        ProxyWay::ExpiredToken => &["(ExpiredToken)"],
        ProxyWay::NoSuchBucket => &["does not exist (NoSuchBucket)"],
        ProxyWay::PermanentRedirect => &["in another region"],
        ProxyWay::InternalError => &["(InternalError)", LATE],
        ProxyWay::BadGateway => &["(BadGateway)", LATE],
        ProxyWay::SlowDown => &["(SlowDown)", LATE],
        ProxyWay::Portal => &["such as a captive portal"],
        ProxyWay::Hang => &[LATE],
        ProxyWay::Reset => &["the connection", LATE],
        ProxyWay::Refuse => &["the connection is refused", LATE],
        ProxyWay::Half => &["incomplete", "the connection breaks", LATE],
    }
}

/// Litestream asks S3 ten times before it says a word, which takes about two minutes; where it is restarted
/// sooner, nobody knows more than this.
const LATE: &str = "S3 may be slow or unreachable";

#[test]
fn no_misbehaviour_of_s3_is_called_healthy() -> Outcome {
    let lab = lab(LIFETIME)?;
    let ways = ProxyWay::FAULTS.into_iter();
    let cases = ways
        .filter(|way| *way != ProxyWay::ForgetPuts)
        .flat_map(|way| ["restart", "refresh"].map(|rotation| (way, rotation, "1s")));
    // Where no row of edgerepl's shows anything, the application's transactions have to.
    let without_rows = [ProxyWay::AccessDenied, ProxyWay::Hang, ProxyWay::Portal]
        .map(|way| (way, "refresh", "off"));
    all_at_once(cases.chain(without_rows), |(way, rotation, heartbeat)| {
        let told = |e| format!("{way:?}, {rotation}, heartbeat {heartbeat}: {e}");
        misbehave(&lab, way, rotation, heartbeat).map_err(told)
    })
}

#[test]
#[ignore = "Litestream believes the answer; only a listing of the bucket shows it"]
fn a_put_that_stores_nothing_is_not_called_healthy() -> Outcome {
    let lab = lab(LIFETIME)?;
    all_at_once(["restart", "refresh"].into_iter(), |rotation| {
        let told = |e| format!("{rotation}: {e}");
        misbehave(&lab, ProxyWay::ForgetPuts, rotation, "1s").map_err(told)
    })
}

fn misbehave(lab: &Lab, way: ProxyWay, rotation: &str, heartbeat: &str) -> Outcome {
    let proxy = lab.proxy()?;
    let name = format!("{way:?}-{rotation}-{heartbeat}").to_lowercase();
    let mut device = Device::new(lab, &name, rotation, Some(&proxy))?;
    device
        .site
        .set("heartbeat", "interval", format!("{heartbeat:?}"));
    device.start()?;
    device.wait_for_health(LIMIT)?;

    proxy.order(way)?;
    let begun = Instant::now();
    let mut last_restore = begun;
    while begun.elapsed() < FAULT {
        thread::sleep(PACE);
        let status = device.status()?;
        assert_bound(&status)?;
        let passed = begun.elapsed();
        if status["state"] == "healthy" && last_restore.elapsed() > RESTORE_PACE {
            last_restore = Instant::now();
            device.holds(lab, BOUND + SLACK)?;
        }
        let words = words(way);
        if passed < BOUND + SLACK || words.is_empty() {
            continue;
        }
        if status["state"] != "unhealthy" {
            return Err(format!("after {passed:?}: {status:#}").into());
        }
        let problems = status["problems"].to_string();
        if !words.iter().any(|words| problems.contains(words)) {
            return Err(format!("after {passed:?} none of {words:?}: {problems}").into());
        }
    }
    proxy.order(ProxyWay::Pass)?;
    device.wait_for_health(LIMIT)?;
    device.compare(lab)
}

/// What a Litestream is made to do that runs on and replicates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    /// It is stopped.
    Stopped,
    /// Its control socket is removed: nobody can tell any more.
    Deaf,
}

#[test]
fn a_litestream_that_hangs_is_told_and_restarted() -> Outcome {
    let lab = lab(900)?;
    let cases = [Stall::Stopped, Stall::Deaf]
        .into_iter()
        .flat_map(|stall| ["restart", "refresh"].map(|rotation| (stall, rotation)));
    all_at_once(cases, |(stall, rotation)| {
        let told = |e| format!("{stall:?}, {rotation}: {e}");
        hang(&lab, stall, rotation).map_err(told)
    })
}

fn hang(lab: &Lab, stall: Stall, rotation: &str) -> Outcome {
    let name = format!("{stall:?}-{rotation}").to_lowercase();
    let mut device = Device::new(lab, &name, rotation, None)?;
    device.start()?;
    device.wait_for_health(LIMIT)?;
    let status = device.status()?;
    let pid = status["replication"]["pid"].as_i64().ok_or("no process")?;
    let starts = |status: &Value| status["replication"]["starts"].as_u64();
    let before = starts(&status);
    match stall {
        Stall::Stopped => {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP)?;
        }
        Stall::Deaf => fs::remove_file(device.site.runtime_file("litestream.sock"))?,
    }
    let begun = Instant::now();
    let mut told = false;
    loop {
        thread::sleep(PACE);
        let status = device.status()?;
        assert_bound(&status)?;
        told |= status["problems"]
            .to_string()
            .contains("its control socket does not answer");
        told |= status["problems"].to_string().contains("nothing listens");
        if starts(&status) > before {
            break;
        }
        if begun.elapsed() > MENDED {
            return Err(format!("not restarted: {status:#}").into());
        }
    }
    if !told && !device.log().contains("it is restarted once: ") {
        return Err("nobody was told".into());
    }
    device.wait_for_health(LIMIT)?;
    device.compare(lab)
}

#[test]
fn no_start_of_edgerepl_makes_an_unproved_row_younger() -> Outcome {
    let lab = lab(900)?;
    let proxy = lab.proxy()?;
    let mut device = Device::new(&lab, "started-again", "refresh", Some(&proxy))?;
    device.start()?;
    device.wait_for_health(LIMIT)?;
    proxy.order(ProxyWay::AccessDenied)?;
    let oldest = |status: &Value| status["replication"]["oldest_unproved_s"].as_f64();
    let mut last = Duration::ZERO;
    for kill in [true, false, true] {
        let daemon = device.daemon.as_mut().ok_or("edgerepl does not run")?;
        let wanted = last + SLACK;
        daemon.wait_for("an old row", LIMIT, |status| {
            oldest(status) > Some(wanted.as_secs_f64())
        })?;
        last = wanted;
        match kill {
            true => {
                let daemon = device.daemon.take().ok_or("edgerepl does not run")?;
                daemon.kill()?;
            }
            false => device.end()?,
        }
        device.start()?;
        let status = device.status()?;
        assert_ne!(status["state"], "healthy", "{status:#}");
        // Whole seconds are remembered.
        let least = last - Duration::from_secs(1);
        assert!(oldest(&status) > Some(least.as_secs_f64()), "{status:#}");
    }
    proxy.order(ProxyWay::Pass)?;
    device.wait_for_health(LIMIT)?;
    assert!(oldest(&device.status()?) < Some(60.0));
    device.compare(&lab)
}

/// What happens to Litestream's local state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wound {
    /// `litestream reset`.
    Reset,
    /// Removed with its folder.
    Removed,
    /// All that is in its folder is removed.
    Emptied,
    /// Its files of the lowest level are removed.
    Level0Emptied,
    /// An earlier copy takes its place.
    RolledBack,
    /// An earlier copy of it and of the database take their places.
    ImageRolledBack,
    /// That of another database takes its place.
    Foreign,
    /// Nothing can be written there, for a while.
    ReadOnly,
    /// It has no more room, for a while.
    Full,
}

impl Wound {
    const ALL: [Self; 9] = [
        Self::Reset,
        Self::Removed,
        Self::Emptied,
        Self::Level0Emptied,
        Self::RolledBack,
        Self::ImageRolledBack,
        Self::Foreign,
        Self::ReadOnly,
        Self::Full,
    ];
}

/// Transactions before the wound: fewer than Litestream makes anew while nobody notices, and more.
const POSITIONS: [u32; 2] = [10, 300];

/// How long a disk refuses: past the bound.
const REFUSAL: Duration = Duration::from_secs(140);

#[test]
fn no_wound_of_the_local_state_costs_a_row() -> Outcome {
    let lab = lab(900)?;
    let [few, many] = POSITIONS;
    let cases = Wound::ALL.into_iter().flat_map(|wound| match wound {
        // The image of a disk is put back where nothing runs.
        Wound::ImageRolledBack => vec![(wound, false, few), (wound, false, many)],
        _ => vec![(wound, true, few), (wound, true, many), (wound, false, few)],
    });
    all_at_once(cases, |(wound, running, position)| {
        let told = |e| format!("{wound:?}, running {running}, position {position}: {e}");
        hurt(&lab, wound, running, position).map_err(told)
    })
}

/// What one run of edgerepl found is mended by the next one, also after a boot: the files themselves, once
/// Litestream has gone on with them, tell nobody any more.
#[test]
fn what_was_found_broken_is_mended_by_the_next_run() -> Outcome {
    let lab = lab(900)?;
    let wounds = [Wound::Removed, Wound::Reset];
    all_at_once(wounds.into_iter(), |wound| {
        kill_once_found(&lab, wound).map_err(|e| format!("{wound:?}: {e}"))
    })
}

fn kill_once_found(lab: &Lab, wound: Wound) -> Outcome {
    let name = format!("{wound:?}-found").to_lowercase();
    let mut device = Device::new(lab, &name, "refresh", None)?;
    let memory = device.site.root().join("memory");
    fs::create_dir(&memory)?;
    let folder = memory.display().to_string();
    device.site.set_env("STATE_DIRECTORY", folder);
    let found = memory.join("begin-anew.json");
    let is_found = || fs::read_to_string(&found).is_ok_and(|text| text.contains("app.db"));
    device.start()?;
    device.wait_for_health(LIMIT)?;
    device.advance(POSITIONS[0])?;
    device.wait_for_health(LIMIT)?;

    match wound {
        Wound::Reset => reset(&device)?,
        _ => remove(&device.state())?,
    }
    let hurt = Instant::now();
    while !is_found() {
        if hurt.elapsed() > MENDED {
            return Err(format!("nothing was found: {}", device.log()).into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    let daemon = device.daemon.take().ok_or("edgerepl does not run")?;
    daemon.kill()?;
    // As a boot would.
    fs::remove_file(device.site.runtime_file("unproved.json"))?;

    device.start()?;
    loop {
        thread::sleep(PACE);
        let status = device.status()?;
        assert_bound(&status)?;
        if status["state"] == "healthy" {
            device.holds(lab, SLACK * 2)?;
            break;
        }
        if hurt.elapsed() > MENDED {
            return Err(format!("not mended: {status:#}; {}", device.log()).into());
        }
    }
    if !device
        .log()
        .contains("Litestream has to upload the whole database")
    {
        return Err(format!("it was forgotten: {}", device.log()).into());
    }
    if is_found() {
        return Err("it is remembered for ever".into());
    }
    device.compare(lab)
}

/// A Litestream that lost its local state and was left alone has begun anew behind everybody's back, and
/// emptied the WAL into files that it never uploads. Whoever starts one after it finds a replica that is
/// ahead, and a WAL that looks as if all before it had been read. (Once it has passed the replica by its
/// own numbers, nothing but a restore shows that.)
#[test]
fn an_edgerepl_that_comes_late_mends_it_too() -> Outcome {
    let lab = lab(900)?;
    let lab = &lab;
    let [_, position] = POSITIONS;
    let name = "late";
    let mut device = Device::new(lab, name, "refresh", None)?;
    let config = device.site.root().join("litestream.yml");
    let text = fs::read_to_string(&config)?;
    // The sooner it forgets, the sooner it begins anew: after five minutes, where nothing is set.
    let soon = "l0-retention: 30s\nl0-retention-check-interval: 5s\n";
    fs::write(&config, format!("{soon}{text}"))?;
    let mut alone = Command::new(tools::litestream("0.5.17")?)
        .args(["replicate", "-config"])
        .arg(&config)
        .env_clear()
        .envs(lab.s3().root_credentials().env())
        .env("EDGEREPL_THING_NAME", name)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let begun_anew = || -> Outcome {
        device.wait_until(|| device.site.sync())?;
        device.advance(position)?;
        let before = salts(&device)?;
        reset(&device)?;
        let first = device.state().join("ltx/0").join(FIRST);
        device.wait_until(|| device.site.sync() || first.exists())?;
        // It empties the WAL each minute.
        device.wait_until(|| salts(&device).is_ok_and(|now| now != before))?;
        // Rows that are in the new WAL.
        thread::sleep(SLACK);
        Ok(())
    };
    let done = begun_anew();
    // As a unit's stop would.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(alone.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    alone.wait()?;
    done?;

    let begun = Instant::now();
    device.start()?;
    loop {
        thread::sleep(PACE);
        let status = device.status()?;
        assert_bound(&status)?;
        let held = device.holds(lab, SLACK * 2);
        if status["state"] == "healthy" && begun.elapsed() > SLACK * 3 && held.is_ok() {
            break;
        }
        if begun.elapsed() > MENDED {
            let log = device.log();
            return Err(format!("not mended ({held:?}): {status:#}; the log:\n{log}").into());
        }
    }
    device.compare(lab)
}

/// What tells one beginning of the WAL from the next.
fn salts(device: &Device) -> Outcome<Vec<u8>> {
    let wal = fs::read(device.site.root().join("app.db-wal"))?;
    Ok(wal.get(16..24).ok_or("the WAL is empty")?.to_vec())
}

/// The name of the file of Litestream's first transaction.
const FIRST: &str = "0000000000000001-0000000000000001.ltx";

fn hurt(lab: &Lab, wound: Wound, running: bool, position: u32) -> Outcome {
    let name = format!("{wound:?}-{running}-{position}").to_lowercase();
    // A rotation by a restart would mend it, as no restart does here.
    let mut device = Device::new(lab, &name, "refresh", None)?;
    let state = device.state();
    let disk = match wound {
        Wound::ReadOnly | Wound::Full => match SmallDisk::mount(&state, 6)? {
            Some(disk) => Some(disk),
            None => {
                eprintln!("not tested: {wound:?}, for only root can mount a small disk");
                return Ok(());
            }
        },
        _ => None,
    };
    device.start()?;
    device.wait_for_health(LIMIT)?;
    device.advance(position)?;
    let earlier = device.site.root().join("earlier");
    match wound {
        Wound::RolledBack => copy(&state, &earlier.join(".app.db-litestream"))?,
        Wound::ImageRolledBack => {
            // A disk image is of a quiet moment.
            device.end()?;
            copy_image(&device, &earlier)?;
            device.start()?;
        }
        // One that has come further, and one that has not.
        Wound::Foreign if position == POSITIONS[0] => {
            make_foreign(lab, &name, POSITIONS[0] * 8, &earlier)?;
        }
        Wound::Foreign => make_foreign(lab, &name, POSITIONS[0], &earlier)?,
        _ => {}
    }
    device.wait_for_health(LIMIT)?;
    device.advance(position)?;
    device.wait_for_health(LIMIT)?;
    if !running {
        device.end()?;
    }

    let hurt = Instant::now();
    match (wound, &disk) {
        (Wound::Reset, _) => reset(&device)?,
        (Wound::Removed, _) => remove(&state)?,
        (Wound::Emptied, _) => empty(&state)?,
        (Wound::Level0Emptied, _) if running => empty_files(&state.join("ltx/0"))?,
        (Wound::Level0Emptied, _) => empty(&state.join("ltx/0"))?,
        (Wound::RolledBack | Wound::Foreign, _) => {
            fs::rename(&state, device.site.root().join("newer"))?;
            fs::rename(earlier.join(".app.db-litestream"), &state)?;
        }
        (Wound::ImageRolledBack, _) => device.roll_back(&earlier)?,
        (Wound::ReadOnly, Some(disk)) => disk.set_read_only(true)?,
        (_, Some(disk)) => disk.fill()?,
        (_, None) => return Err("it has no disk".into()),
    }
    if !running {
        device.start()?;
    }
    let mut begun = hurt;
    let mut told = false;
    if let Some(disk) = &disk {
        while hurt.elapsed() < REFUSAL {
            thread::sleep(PACE);
            let status = device.status()?;
            assert_bound(&status)?;
            let problems = status["problems"].to_string();
            told |= problems.contains("disk is full") || problems.contains("is read-only");
        }
        if !told {
            return Err("nobody was told why nothing is written".into());
        }
        match wound {
            Wound::ReadOnly => disk.set_read_only(false)?,
            _ => disk.free()?,
        }
        begun = Instant::now();
    }
    loop {
        thread::sleep(PACE);
        let status = device.status()?;
        assert_bound(&status)?;
        told |= status["state"] == "unhealthy" || device.log().contains("local state");
        let passed = begun.elapsed();
        if status["state"] == "healthy"
            && passed > Duration::from_secs(30)
            && device.holds(lab, SLACK * 2).is_ok()
        {
            break;
        }
        if passed > MENDED {
            let why = device.holds(lab, SLACK * 2);
            let log = device.log();
            return Err(format!("not mended ({why:?}): {status:#}; the log:\n{log}").into());
        }
    }
    // What Litestream mends by itself at its start is no trouble that anybody has to know of.
    if running && !told {
        return Err("nobody was told".into());
    }
    device.compare(lab)?;
    let uploads = full_uploads(lab, &name, hurt);
    match uploads.len() {
        ..=1 => Ok(()),
        // Litestream makes one of its own of what is another database's, before anybody sees it.
        2 if wound == Wound::Foreign => Ok(()),
        _ => Err(format!("more than one new snapshot: {uploads:#?}").into()),
    }
}

/// The bound as edgerepl states it itself: nothing older than it is unproved while it says healthy.
fn assert_bound(status: &Value) -> Outcome {
    let replication = &status["replication"];
    let bound = replication["bound_s"]
        .as_f64()
        .ok_or("bound_s is not there")?;
    let oldest = &replication["oldest_unproved_s"];
    if !oldest.is_null() && !oldest.is_number() {
        return Err(format!("oldest_unproved_s is {oldest}").into());
    }
    let late = oldest.as_f64().is_some_and(|age| age > bound);
    let no_reason = status["problems"].as_array().is_none_or(Vec::is_empty);
    match status["state"].as_str() {
        Some("healthy" | "starting") if late => Err(format!("late: {status:#}").into()),
        Some("unhealthy") if no_reason => Err(format!("no reason: {status:#}").into()),
        _ => Ok(()),
    }
}

/// Runs all cases at once, a thread each; the error tells of all that failed.
fn all_at_once<C: Send + std::fmt::Debug>(
    cases: impl Iterator<Item = C>,
    run: impl Fn(C) -> Result<(), String> + Sync,
) -> Outcome {
    let chosen = std::env::var("EDGEREPL_HEALTH_CASE").unwrap_or_default();
    let cases = cases.filter(|case| format!("{case:?}").contains(&chosen));
    let failed: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = cases
            .map(|case| {
                // They start one after another: what a start costs comes at once in no fleet.
                thread::sleep(Duration::from_millis(300));
                scope.spawn(|| run(case))
            })
            .collect();
        let ended = threads.into_iter().map(|thread| match thread.join() {
            Ok(ended) => ended,
            Err(_) => Err("a case panicked".to_owned()),
        });
        ended.filter_map(Result::err).collect()
    });
    match failed.is_empty() {
        true => Ok(()),
        false => Err(failed.join("\n\n").into()),
    }
}

/// A device, its application, and edgerepl where it runs.
struct Device {
    site: Site,
    daemon: Option<Daemon>,
    application: Application,
}

impl Device {
    fn new(lab: &Lab, name: &str, rotation: &str, proxy: Option<&S3Proxy>) -> Outcome<Self> {
        let device = lab.provision_pem(KeyKind::EcdsaP256, name)?;
        let mut site = Site::new(lab, device, tools::edgerepl()?)?;
        if let Some(proxy) = proxy {
            let socket = site.runtime_file("litestream.sock");
            lab.litestream_config_behind(proxy, &site.database(), &socket)?;
        }
        site.set("replication", "rotation", format!("{rotation:?}"));
        site.set("credentials", "renew_before", "\"20s\"");
        site.set("heartbeat", "interval", "\"1s\"");
        site.connect()?.execute_batch(&format!(
            "CREATE TABLE filling (id INTEGER PRIMARY KEY, data BLOB);
             CREATE TABLE row (id INTEGER PRIMARY KEY, at INTEGER, text TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
             INSERT INTO filling SELECT i, randomblob(4096) FROM n;",
            FILLING / 4096
        ))?;
        let application = Application::start(&site)?;
        Ok(Self {
            site,
            daemon: None,
            application,
        })
    }

    fn start(&mut self) -> Outcome {
        self.daemon = Some(self.site.start()?);
        Ok(())
    }

    fn end(&mut self) -> Outcome {
        let daemon = self.daemon.take().ok_or("edgerepl does not run")?;
        match daemon.terminate()?.success() {
            true => Ok(()),
            false => Err("edgerepl did not end well".into()),
        }
    }

    fn status(&mut self) -> Outcome<Value> {
        let daemon = self.daemon.as_mut().ok_or("edgerepl does not run")?;
        Ok(daemon.wait_for("answer", LIMIT, |_| true)?)
    }

    fn log(&self) -> String {
        self.daemon.as_ref().map_or_else(String::new, Daemon::log)
    }

    fn wait_for_health(&mut self, limit: Duration) -> Outcome {
        let daemon = self.daemon.as_mut().ok_or("edgerepl does not run")?;
        daemon.wait_for("health", limit, |status| {
            status["state"] == "healthy" && status["replication"]["proof"].is_object()
        })?;
        Ok(())
    }

    fn wait_until(&self, wanted: impl Fn() -> bool) -> Outcome {
        let deadline = Instant::now() + LIMIT;
        while !wanted() {
            if Instant::now() > deadline {
                return Err("Litestream alone has not come so far".into());
            }
            thread::sleep(PACE);
        }
        Ok(())
    }

    /// Litestream's local state.
    fn state(&self) -> PathBuf {
        self.site.root().join(".app.db-litestream")
    }

    /// So many transactions, each of them read by Litestream on its own.
    fn advance(&self, transactions: u32) -> Outcome {
        let database = self.site.connect()?;
        for _ in 0..transactions {
            write_row(&database)?;
            self.site.sync();
        }
        Ok(())
    }

    /// A restore of this moment holds every row that is older than `age`.
    fn holds(&self, lab: &Lab, age: Duration) -> Outcome {
        let until = unix_ms().saturating_sub(age.as_millis().try_into()?);
        let aside = tempfile::tempdir_in(lab.root())?;
        let restored = aside.path().join("app.db");
        lab.restore(&self.site.device.thing_name, &restored)?;
        let rows = |database: &Connection| -> rusqlite::Result<i64> {
            let sql = "SELECT count(*) FROM row WHERE at < ?1";
            database.query_row(sql, [until], |row| row.get(0))
        };
        let (live, there) = (
            rows(&self.site.connect()?)?,
            rows(&Connection::open(&restored)?)?,
        );
        match live == there {
            true => Ok(()),
            false => Err(format!(
                "{there} of {live} rows that are older than {age:?} are on the replica"
            )
            .into()),
        }
    }

    /// All ends, edgerepl last, and everything is on the replica.
    fn compare(&mut self, lab: &Lab) -> Outcome {
        self.application.end()?;
        self.end()?;
        let comparison = self.site.compare(lab)?;
        match comparison.is_equal() && comparison.live > 0 {
            true => Ok(()),
            false => Err(format!("{comparison:?}").into()),
        }
    }

    /// Puts an earlier copy of the database and of Litestream's local state in their places.
    fn roll_back(&mut self, earlier: &Path) -> Outcome {
        // An application that went on with the files that are gone would write into nothing.
        self.application.end()?;
        let root = self.site.root();
        fs::remove_dir_all(self.state())?;
        for name in ["app.db-wal", "app.db-shm"] {
            let _ = fs::remove_file(root.join(name));
        }
        for entry in fs::read_dir(earlier)? {
            let from = entry?.path();
            fs::rename(&from, root.join(from.file_name().ok_or("no name")?))?;
        }
        self.application = Application::start(&self.site)?;
        Ok(())
    }
}

/// Local state of another database, after so many transactions, under `folder`.
fn make_foreign(lab: &Lab, name: &str, transactions: u32, folder: &Path) -> Outcome {
    let mut other = Device::new(lab, &format!("{name}-other"), "refresh", None)?;
    other.start()?;
    other.wait_for_health(LIMIT)?;
    other.advance(transactions)?;
    other.end()?;
    copy(&other.state(), &folder.join(".app.db-litestream"))
}

/// The Litestream that runs may put a file there meanwhile: it is done again then.
fn reset(device: &Device) -> Outcome {
    let config = device.site.root().join("litestream.yml");
    for _ in 0..100 {
        let reset = Command::new(tools::litestream("0.5.17")?)
            .args(["reset", "-config"])
            .arg(&config)
            .arg(device.site.database())
            .output()?;
        let why = String::from_utf8_lossy(&reset.stderr);
        match reset.status.success() {
            true => return Ok(()),
            false if why.contains("directory not empty") => {}
            false => return Err(why.into()),
        }
    }
    Err("Litestream's folder fills up again and again".into())
}

fn empty(folder: &Path) -> Outcome {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove(&path)?;
        } else if let Err(e) = fs::remove_file(path)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            return Err(e.into());
        }
    }
    Ok(())
}

/// Removes all of Litestream's files of one level. One that was in the middle of a sync puts the next file
/// there, which goes on from those that are gone: where they had been uploaded nothing is lost, and nothing
/// is to be told. It is done again then.
fn empty_files(folder: &Path) -> Outcome {
    let names = || -> Vec<_> {
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        files.map(|file| file.file_name()).collect()
    };
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        let last = names().into_iter().max();
        empty(folder)?;
        let mut after = names();
        // Where edgerepl has noticed, and drops the whole folder, files come with the next start.
        while after.is_empty() && Instant::now() < deadline {
            thread::sleep(PACE);
            after = names();
        }
        if last.is_some() && after.iter().any(|name| Some(name) <= last.as_ref()) {
            return Ok(());
        }
    }
    Err("Litestream goes on and on from files that are gone".into())
}

/// Removes a folder into which Litestream puts a file meanwhile, perhaps.
fn remove(folder: &Path) -> Outcome {
    for _ in 0..100 {
        match fs::remove_dir_all(folder) {
            Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
            removed => return Ok(removed?),
        }
    }
    Err(format!("{} fills up again and again", folder.display()).into())
}

/// By a process of its own: to close a database file drops the locks that SQLite has on it in this one.
fn copy(from: &Path, to: &Path) -> Outcome {
    let folder = to.parent().ok_or("no folder")?;
    fs::create_dir_all(folder)?;
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    copied.success().then_some(()).ok_or("cp failed".into())
}

/// Whoever closes a database last empties its WAL: somebody stays.
fn copy_image(device: &Device, to: &Path) -> Outcome {
    let _stays = device.site.connect()?;
    device.application.pause_and(|| {
        for name in ["app.db", "app.db-wal", ".app.db-litestream"] {
            let from = device.site.root().join(name);
            if from.exists() {
                copy(&from, &to.join(name))?;
            }
        }
        Ok(())
    })
}

/// The uploads of a thing that held at least half of the filling, compactions left out.
fn full_uploads(lab: &Lab, thing: &str, since: Instant) -> Vec<String> {
    let all = lab.s3().uploads(since).into_iter();
    let of_thing = format!("{thing}/");
    let full = all.filter(|upload| {
        upload.bytes >= FILLING / 2
            && upload.key.starts_with(&of_thing)
            && upload.key.contains("/0000/")
    });
    full.map(|upload| upload.key).collect()
}

/// Large enough that a transaction that is left out is not in the pages of a later one.
fn write_row(database: &Connection) -> rusqlite::Result<()> {
    let sql = "INSERT INTO row (at, text) VALUES (?1, hex(randomblob(400)))";
    database.execute(sql, [unix_ms()]).map(drop)
}

fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis().try_into().unwrap_or(i64::MAX))
}

/// An application that writes a row each second.
struct Application {
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    /// It closes its connection, says so, and waits for the other end to go away.
    Pause(Sender<()>, mpsc::Receiver<()>),
    /// It closes its connection, and is over.
    End(Sender<()>),
}

impl Application {
    fn start(site: &Site) -> Outcome<Self> {
        let mut database = site.connect()?;
        let (orders, ordered) = mpsc::channel();
        let path = site.database();
        let thread = thread::spawn(move || {
            loop {
                // On a full disk a row is lost to the application, too.
                let _ = write_row(&database);
                match ordered.recv_timeout(Duration::from_secs(1)) {
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    Ok(Order::End(told)) => {
                        drop(database);
                        let _ = told.send(());
                        return;
                    }
                    Ok(Order::Pause(told, resume)) => {
                        drop(database);
                        let _ = told.send(());
                        let _ = resume.recv();
                        match Connection::open(&path) {
                            Ok(again) => database = again,
                            Err(_) => return,
                        }
                        let _ = database.busy_timeout(Duration::from_secs(10));
                    }
                }
            }
        });
        Ok(Self {
            orders,
            thread: Some(thread),
        })
    }

    /// Ends it.
    fn end(&mut self) -> Outcome {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let (told, ended) = mpsc::channel();
        self.orders.send(Order::End(told))?;
        ended.recv()?;
        thread.join().map_err(|_| "the application panicked")?;
        Ok(())
    }

    /// While `act` goes on.
    fn pause_and(&self, act: impl FnOnce() -> Outcome) -> Outcome {
        let ((told, paused), (resume, resumed)) = (mpsc::channel(), mpsc::channel());
        self.orders.send(Order::Pause(told, resumed))?;
        paused.recv()?;
        let done = act();
        drop(resume);
        done
    }
}
