//! Litestream, edgerepl and S3 killed at random moments while applications write to one database, or to
//! five. Once they are let alone everything comes back by itself, and `edgerepl verify` finds every row on
//! the replicas.
//!
//! Litestream and edgerepl die of SIGKILL, and edgerepl is started again as systemd would; where both die at
//! once, as in a power cut, each WAL begins anew before they are back. S3 cuts its connections and listens
//! again later, with what it had on its disk. Sessions are so short that rotations go on all the time. A
//! seed decides who is killed when, and for how long; what that meets is real, so that a seed repeats the
//! blows and not always what came of them.
//!
//! ```text
//! EDGEREPL_CHAOS_SECONDS=300 cargo xtask test chaos    # five minutes
//! EDGEREPL_SEED=7 cargo xtask test chaos               # the same blows again
//! ```

use std::env;
use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use edgerepl_lab::{Daemon, Lab, S3Fault, Site};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;
use serde_json::Value;

use chance::Chance;
use support::{
    Application, Result, SHORT, add_databases, configure_databases, fill, full_uploads,
    litestreams, number, open, site, wait_until, write_row,
};

// Made for the simulation and for tests of replication, which use the rest of them.
#[allow(dead_code)]
#[path = "simulation/chance.rs"]
mod chance;
#[allow(dead_code)]
#[path = "replication/support.rs"]
mod support;

/// For how long things are killed, in seconds, in an ordinary run, and how often at the least.
const SECONDS: u64 = 30;
const BLOWS: u64 = 25;

/// Ten rows a second to one database, and fifty to each of several.
const PACE: Duration = Duration::from_millis(100);
const PACE_OF_SEVERAL: Duration = Duration::from_millis(20);

/// What Litestream replicates beside the first database. edgerepl's configuration names some of them, with
/// heartbeat rows or without, and not the others.
const OTHERS: [&str; 4] = ["second.db", "third.db", "fourth.db", "fifth.db"];
const CONFIGURED: [(&str, bool); 3] = [("app.db", true), ("second.db", true), ("third.db", false)];

/// The time from one blow to the next.
const BETWEEN_BLOWS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long edgerepl is dead; `RestartSec` is 10 s, with which it would die less often.
const DAEMON_DOWN: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(3));

/// How long nobody listens at S3's port.
const S3_DOWN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often the lag is looked at.
const GLANCE: Duration = Duration::from_millis(100);

/// Let alone, all is well within this: Litestream's own back-off, and ours, are parts of it.
const RECOVERY_LIMIT: Duration = Duration::from_secs(180);

#[test]
fn by_refresh() -> Result {
    survives("refresh", &[], PACE)
}

#[test]
fn by_restart() -> Result {
    survives("restart", &[], PACE)
}

#[test]
fn five_databases_by_refresh() -> Result {
    survives("refresh", &OTHERS, PACE_OF_SEVERAL)
}

#[test]
fn five_databases_by_restart() -> Result {
    survives("restart", &OTHERS, PACE_OF_SEVERAL)
}

/// `others`: the databases beside the first one; `pace`: from one row to the next of each.
fn survives(rotation: &str, others: &[&str], pace: Duration) -> Result {
    let seed = variable("EDGEREPL_SEED").unwrap_or_else(seed_of_the_moment);
    let names: Vec<&str> = [&["app.db"], others].concat();
    let story = format!("{rotation}, {} databases, seed {seed}", names.len());
    println!("chaos, {story}: replay it with EDGEREPL_SEED={seed}");
    let time = Duration::from_secs(variable("EDGEREPL_CHAOS_SECONDS").unwrap_or(SECONDS));
    let thing_name = format!("thing-chaos-{rotation}-{}", names.len());
    let (lab, mut site) = site(&thing_name, SHORT)?;
    site.set("replication", "rotation", format!("{rotation:?}"));
    fill(&site)?;
    if !others.is_empty() {
        add_databases(&site, others)?;
        configure_databases(&site, &CONFIGURED)?;
    }
    let began = Instant::now();
    let applications = names.iter().map(|name| Writer::start(&site, name, pace));
    let applications = applications.collect::<Result<Vec<_>>>()?;

    let mut chaos = Chaos::begin(&lab, &site, &names, Chance::new(seed))?;
    chaos.rage(time)?;
    let raged = began.elapsed();
    let recovery = chaos.let_alone()?;
    let calm = Instant::now();
    chaos.watch(time / 5);
    let (daemon, tally) = chaos.end()?;

    // While the daemon and the applications go on.
    assert_verified(&site, &daemon, &names)?;
    let wrote = began.elapsed();
    let rows = applications.into_iter().map(Writer::stop);
    let rows = rows.collect::<Result<Vec<_>>>()?;
    assert!(daemon.terminate()?.success());
    for name in &names {
        assert_equal(&lab, &site, name)?;
    }
    println!(
        "chaos, {story}, {} s: {tally}; rows, of {:.0} s: {rows:?}, {} rotations of {} sessions, {} full \
         uploads of the first database; well again after {:.1} s\n{}",
        raged.as_secs(),
        wrote.as_secs_f32(),
        tally.rotations,
        lab.provider().issued().len(),
        full_uploads(&lab).len(),
        recovery.as_secs_f32(),
        tally.lags(&lab, calm)
    );
    // A chaos in which nothing happens shows nothing.
    assert!(tally.rotations > 0, "nothing was rotated");
    assert!(tally.blows() >= BLOWS);
    Ok(())
}

/// The replica holds exactly what the live database holds.
fn assert_equal(lab: &Lab, site: &Site, name: &str) -> Result {
    let prefix = format!("{}/{name}", site.device.thing_name);
    let comparison = lab.compare_with(&prefix, &site.root().join(name))?;
    let log = fs::read_to_string(site.root().join("log"))?;
    assert!(
        comparison.is_equal() && comparison.live > 0,
        "{name}: {comparison:?}; the log:\n{log}"
    );
    Ok(())
}

/// An application that writes to one database, and knows how many rows it has there.
struct Writer {
    application: Application,
    path: PathBuf,
    before: u64,
}

impl Writer {
    fn start(site: &Site, name: &str, pace: Duration) -> Result<Self> {
        let path = site.root().join(name);
        let database = open(&path)?;
        // SQLite's own checkpoints come every 1,000 pages: often enough to hit when nobody holds the WAL.
        database.pragma_update(None, "wal_autocheckpoint", 50)?;
        // No power is cut here: what a dead process has written stays, and no sync sets the pace.
        database.pragma_update(None, "synchronous", "normal")?;
        let before = rows(&path)?;
        Ok(Self {
            application: Application::with(database, pace, write_row),
            before,
            path,
        })
    }

    /// How many rows it has written, all of which are there.
    fn stop(self) -> Result<u64> {
        let wrote = self.application.stop()?;
        let path = &self.path;
        assert_eq!(rows(path)?, self.before + wrote, "{path:?} lost rows");
        Ok(wrote)
    }
}

fn rows(path: &Path) -> Result<u64> {
    let rows: i64 = open(path)?.query_row("SELECT count(*) FROM row", [], |row| row.get(0))?;
    Ok(rows.try_into()?)
}

/// `edgerepl verify` compares each database, and each replica holds what it should.
fn assert_verified(site: &Site, daemon: &Daemon, names: &[&str]) -> Result {
    let output = site.run(&["verify", "--json"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{why}{}", daemon.log());
    let document: Value = serde_json::from_str(&said)?;
    let holding = document["databases"].as_array().into_iter().flatten();
    let holding = holding.filter(|database| database["holds"] == true);
    let mut paths: Vec<_> = holding.filter_map(|d| d["database"].as_str()).collect();
    paths.sort_unstable();
    let mut wanted: Vec<_> = names.iter().map(|name| site.root().join(name)).collect();
    wanted.sort_unstable();
    assert!(paths.iter().map(Path::new).eq(wanted), "{said}");
    Ok(())
}

fn variable(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn seed_of_the_moment() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    time.map_or(1, |time| u64::from(time.subsec_nanos()))
}

/// Who can be killed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Victim {
    Litestream,
    Daemon,
    /// Both of them, and each WAL begins anew before they are back.
    Both,
    S3,
}

/// One device in a world that kills.
struct Chaos<'a> {
    lab: &'a Lab,
    site: &'a Site,
    /// A connection to each database.
    databases: Vec<Connection>,
    chance: Chance,
    daemon: Option<Daemon>,
    /// When what is dead comes back.
    daemon_back: Instant,
    s3_back: Option<Instant>,
    looked: Instant,
    /// The last status, of the daemon that lives now.
    status: Value,
    tally: Tally,
}

/// What has happened.
#[derive(Default)]
struct Tally {
    litestream: u64,
    daemon: u64,
    both: u64,
    s3: u64,
    /// By all daemons but the one that lives now.
    rotations: u64,
    /// What the status said of the replica's lag, in seconds; nothing where nobody answered, or knew.
    glances: Vec<(Instant, Option<f64>)>,
}

impl<'a> Chaos<'a> {
    fn begin(lab: &'a Lab, site: &'a Site, names: &[&str], chance: Chance) -> Result<Self> {
        let now = Instant::now();
        let databases = names.iter().map(|name| open(&site.root().join(name)));
        Ok(Self {
            lab,
            site,
            databases: databases.collect::<rusqlite::Result<_>>()?,
            chance,
            daemon: Some(site.start()?),
            daemon_back: now,
            s3_back: None,
            looked: now,
            status: Value::Null,
            tally: Tally::default(),
        })
    }

    /// Kills one after the other, each of the four once before any of them again. In between all is well
    /// once, however busy the machine is: what never comes back has nothing to lose.
    fn rage(&mut self, time: Duration) -> Result {
        let end = Instant::now() + time;
        let mut next = Vec::new();
        let mut due = Instant::now();
        while Instant::now() < end || self.tally.blows() < BLOWS {
            if next.is_empty() {
                next = vec![Victim::Litestream, Victim::Daemon, Victim::Both, Victim::S3];
                self.wait_until_well()?;
                due = Instant::now() + self.between(BETWEEN_BLOWS);
            }
            if due <= Instant::now() {
                let chosen = self.chance.below(next.len() as u64) as usize;
                // One that is dead already is waited for.
                while !self.kill(next[chosen])? {
                    self.pass(Duration::from_millis(5))?;
                }
                next.swap_remove(chosen);
                due = Instant::now() + self.between(BETWEEN_BLOWS);
            }
            let left = due.saturating_duration_since(Instant::now());
            self.pass(left.min(GLANCE))?;
        }
        Ok(())
    }

    /// False where there is nobody to be killed.
    fn kill(&mut self, victim: Victim) -> Result<bool> {
        match victim {
            Victim::Litestream => {
                let Some(pid) = litestreams(self.site).pop() else {
                    return Ok(false);
                };
                // It may have ended by itself a moment ago.
                self.tally.litestream +=
                    u64::from(kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok());
            }
            Victim::Daemon if self.daemon.is_none() => return Ok(false),
            Victim::Daemon => {
                self.kill_daemon()?;
                self.tally.daemon += 1;
            }
            Victim::Both if self.daemon.is_none() => return Ok(false),
            Victim::Both => {
                for litestream in litestreams(self.site) {
                    let _ = kill(Pid::from_raw(litestream), Signal::SIGKILL);
                }
                self.kill_daemon()?;
                wait_until("Litestream's end", || litestreams(self.site).is_empty())?;
                self.reset_wals()?;
                self.tally.both += 1;
            }
            Victim::S3 => {
                if self.s3_back.is_some() {
                    return Ok(false);
                }
                self.lab.s3().set_fault(S3Fault::ConnectionRefused)?;
                self.s3_back = Some(Instant::now() + self.between(S3_DOWN));
                self.tally.s3 += 1;
            }
        }
        Ok(true)
    }

    fn kill_daemon(&mut self) -> Result {
        self.daemon.take().ok_or("edgerepl is dead")?.kill()?;
        self.tally.rotations += number(&self.status.take(), "replication", "rotations");
        self.daemon_back = Instant::now() + self.between(DAEMON_DOWN);
        Ok(())
    }

    /// The next row of each application begins a WAL.
    fn reset_wals(&self) -> Result {
        for database in &self.databases {
            let busy = || -> rusqlite::Result<bool> {
                database.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0))
            };
            wait_until("the WAL's end", || busy().is_ok_and(|busy| !busy))?;
        }
        Ok(())
    }

    /// Lets time pass; whoever's time has come is back.
    fn pass(&mut self, time: Duration) -> Result {
        thread::sleep(time);
        let now = Instant::now();
        if self.daemon.is_none() && self.daemon_back <= now {
            self.daemon = Some(self.site.start()?);
        }
        if self.s3_back.is_some_and(|back| back <= now) {
            self.lab.s3().set_fault(S3Fault::None)?;
            self.s3_back = None;
        }
        self.look();
        Ok(())
    }

    fn look(&mut self) {
        if self.looked.elapsed() < GLANCE {
            return;
        }
        self.looked = Instant::now();
        let status = self.daemon.as_ref().and_then(Daemon::status);
        let lag = status
            .as_ref()
            .and_then(|s| s["replication"]["lag"]["s"].as_f64());
        self.tally.glances.push((self.looked, lag));
        if let Some(status) = status {
            self.status = status;
        }
    }

    /// Brings back whoever is dead, and kills no more; how long it takes until all is well.
    fn let_alone(&mut self) -> Result<Duration> {
        self.daemon_back = Instant::now();
        self.s3_back = Some(self.daemon_back);
        self.pass(Duration::ZERO)?;
        // A dead Litestream would come back with the next edgerepl: this last one has to do it itself.
        wait_until("Litestream", || {
            self.kill(Victim::Litestream).unwrap_or_default()
        })?;
        self.wait_until_well()
    }

    /// How long that takes.
    fn wait_until_well(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.status = Value::Null;
        while !self.is_well(begun) {
            if begun.elapsed() > RECOVERY_LIMIT {
                let log = self.daemon.as_ref().map(Daemon::log).unwrap_or_default();
                let status = &self.status;
                return Err(format!("not well yet: {status:#}; the log:\n{log}").into());
            }
            self.pass(GLANCE)?;
        }
        Ok(begun.elapsed())
    }

    /// Healthy, and each replica was seen to follow since then.
    fn is_well(&self, since: Instant) -> bool {
        let all = self.status["databases"].as_array();
        let is_proven = |database: &Value| {
            let age = database["proof"]["age_s"].as_f64();
            age.is_some_and(|age| age < since.elapsed().as_secs_f64())
        };
        self.status["state"] == "healthy"
            && self.status["replication"]["activity"] == "replicating"
            && all.is_some_and(|all| all.len() == self.databases.len() && all.iter().all(is_proven))
    }

    fn watch(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            thread::sleep(GLANCE);
            self.look();
        }
    }

    /// What has happened; and the daemon, with a Litestream that no rotation is going to end soon.
    fn end(mut self) -> Result<(Daemon, Tally)> {
        let mut daemon = self.daemon.take().ok_or("edgerepl is dead")?;
        self.lab.provider().set_lifetime(Duration::from_secs(900));
        let status = daemon.wait_for("credentials that last", RECOVERY_LIMIT, |status| {
            status["credentials"]["expires_in_s"].as_f64() > Some(100.0)
                && status["replication"]["activity"] == "replicating"
        })?;
        self.tally.rotations += number(&status, "replication", "rotations");
        Ok((daemon, self.tally))
    }

    fn between(&mut self, (least, most): (Duration, Duration)) -> Duration {
        self.chance.between(least, most)
    }
}

impl Tally {
    fn blows(&self) -> u64 {
        self.litestream + self.daemon + self.both + self.s3
    }

    /// Two lines: the lag by the status, which knows what was last asked; and by what S3 was sent, which
    /// tells of outages that leave nobody to answer, and nothing of how old those rows were.
    fn lags(&self, lab: &Lab, calm: Instant) -> String {
        let requests = lab.s3().requests();
        let uploads = requests.iter().filter(|request| request.is_upload());
        let mut uploads: Vec<Instant> = uploads.map(|upload| upload.at).collect();
        uploads.sort_unstable();
        let silence = |at: Instant| {
            let last = uploads
                .partition_point(|upload| *upload <= at)
                .checked_sub(1)?;
            Some((at - uploads[last]).as_secs_f64())
        };
        let silences = self.glances.iter().map(|(at, _)| (*at, silence(*at)));
        let silences: Vec<_> = silences.collect();
        let line = |name: &str, glances: &[(Instant, Option<f64>)]| {
            let (before, after) = glances.split_at(glances.partition_point(|(at, _)| *at < calm));
            let (before, after) = (Spread::of(before), Spread::of(after));
            format!("{name}: {before}; in the calm after it {after}\n")
        };
        line("lag by the status", &self.glances) + &line("time since S3's last upload", &silences)
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} blows: Litestream {}, edgerepl {}, both and each WAL {}, S3 {}",
            self.blows(),
            self.litestream,
            self.daemon,
            self.both,
            self.s3
        )
    }
}

/// Seconds, in order, and how often they were looked for.
struct Spread(Vec<f64>, usize);

impl Spread {
    fn of(glances: &[(Instant, Option<f64>)]) -> Self {
        let mut seconds: Vec<f64> = glances.iter().filter_map(|glance| glance.1).collect();
        seconds.sort_by(f64::total_cmp);
        Self(seconds, glances.len())
    }

    /// What so many of a hundred do not exceed.
    fn percentile(&self, percent: usize) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let value = self.0.get(last * percent / 100);
        value.copied().unwrap_or(f64::NAN)
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, most) = (self.percentile(50), self.percentile(99));
        let (known, all) = (self.0.len(), self.1);
        write!(
            f,
            "median {median:.2} s, 99th percentile {most:.2} s (known at {known} of {all} glances)"
        )
    }
}
