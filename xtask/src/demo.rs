//! `cargo xtask demo`: the main job, on real parts, as one watches.
//!
//! Real Litestream replicates a real SQLite database to an S3 server that refuses each session from
//! the second it ends, through six rotations, with the private key in a PKCS#11 token. Then the
//! replica is restored and every row is compared.

use std::io::{IsTerminal, Write, stdout};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use edgerepl_lab::{Daemon, KeyKind, Lab, LabOptions, Site, tools};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{Outcome, build_programs, setup};

const THING: &str = "demo-device";

const LITESTREAM: &str = "0.5.17";

/// How often the screen is brought up to date.
const GLANCE: Duration = Duration::from_millis(200);

/// How long things take.
pub(crate) struct Pace {
    lifetime: Duration,
    heartbeat: &'static str,
    rotations: u64,
    /// It goes on at least so long,
    least: Duration,
    /// and by then something is wrong.
    most: Duration,
}

impl Pace {
    /// Six rotations in a minute and a half.
    pub(crate) const SHORT: Self = Self {
        lifetime: Duration::from_secs(20),
        heartbeat: "\"1s\"",
        rotations: 6,
        least: Duration::ZERO,
        most: Duration::from_secs(115),
    };

    /// As on a device: AWS's shortest session, renewed 5 min ahead, a row each 5 s, for 65 min.
    pub(crate) const REAL: Self = Self {
        lifetime: Duration::from_secs(900),
        heartbeat: "\"5s\"",
        rotations: 6,
        least: Duration::from_secs(65 * 60),
        most: Duration::from_secs(70 * 60),
    };
}

/// Runs it; true where the replica holds exactly what the live database holds.
pub(crate) fn demo(pace: &Pace) -> Outcome {
    setup::setup()?;
    let programs = build_programs()?;

    println!("The lab: a credential provider with mutual TLS, S3 that refuses ended sessions.");
    let lab = Lab::start(LabOptions {
        lifetime: pace.lifetime,
        ..LabOptions::default()
    })?;
    println!("The device: a P-256 key, made in a SoftHSM token, which it never leaves.");
    let device = lab.provision_token(KeyKind::EcdsaP256, THING)?;
    let mut site = Site::new(&lab, device, programs.join("edgerepl"))?;
    site.set("heartbeat", "interval", pace.heartbeat);
    let seconds = pace.lifetime.as_secs();
    println!("Credentials live for {seconds} s. edgerepl runs Litestream {LITESTREAM}.\n");

    let begun = Instant::now();
    let mut screen = Screen::new(begun);
    let daemon = site.start()?;
    watch(&site, &daemon, pace, &mut screen)?;
    screen.say("stopping: SIGTERM to edgerepl, which lets Litestream sync once more");
    let status = daemon.terminate()?;
    if !status.success() {
        return Err(format!("edgerepl ended badly: {status}").into());
    }
    screen.say("restoring the replica with `litestream restore`, comparing every row");
    let comparison = site.compare(&lab)?;
    let (stop, start) = litestream_alone(&lab, &site)?;

    let refused = lab
        .s3()
        .requests()
        .iter()
        .filter(|r| r.error.is_some())
        .count();
    let sessions = lab.provider().issued().len();
    println!();
    for (name, value) in [
        ("rotations", screen.rotations.to_string()),
        ("sessions granted", sessions.to_string()),
        ("requests refused by S3", refused.to_string()),
        ("restart gap", spread(&mut screen.gaps)),
        ("Litestream alone, stop", spread(&mut stop.clone())),
        ("Litestream alone, start", spread(&mut start.clone())),
        ("integrity_check", comparison.integrity.clone()),
        ("rows that differ", comparison.different.to_string()),
        ("rows in the live database", comparison.live.to_string()),
        ("rows in the replica", comparison.restored.to_string()),
    ] {
        println!("{name:<26} {value}");
    }
    let equal = comparison.is_equal() && screen.rotations >= pace.rotations;
    println!(
        "\n{}",
        if equal {
            "EQUAL: no row was lost"
        } else {
            "NOT EQUAL"
        }
    );
    Ok(equal)
}

/// Shows what happens until there were rotations enough.
fn watch(site: &Site, daemon: &Daemon, pace: &Pace, screen: &mut Screen) -> Result<(), String> {
    let begun = Instant::now();
    let mut replicated = 0;
    let mut shown = Value::Null;
    loop {
        let status = daemon.status().unwrap_or_default();
        let replication = &status["replication"];
        let rotations = replication["rotations"].as_u64().unwrap_or_default();
        let replicates = replication["activity"] == "replicating";
        if replication["activity"] != shown["activity"] || replication["starts"] != shown["starts"]
        {
            screen.activity(replication);
            shown = replication.clone();
        }
        let written = status["heartbeat"]["rows"].as_u64().unwrap_or_default();
        // Asked of Litestream itself, after the rows were counted: they at least are there.
        if replicates && site.sync() {
            replicated = written;
        }
        let left = status["credentials"]["expires_in_s"]
            .as_f64()
            .unwrap_or_default();
        screen.glance(&format!(
            "{written} rows written, {replicated} replicated; credentials for {left:.0} s; \
             {rotations} rotations"
        ));
        let enough = rotations >= pace.rotations && replicates && begun.elapsed() >= pace.least;
        if enough && replication["last_gap_s"].is_number() {
            return Ok(());
        }
        if begun.elapsed() >= pace.most {
            return Err(format!(
                "this takes too long; the log says:\n{}",
                daemon.log()
            ));
        }
        thread::sleep(GLANCE);
    }
}

/// What Litestream needs by itself: from SIGTERM to its exit, and from its start to its first
/// confirmed sync.
fn litestream_alone(
    lab: &Lab,
    site: &Site,
) -> Result<(Vec<Duration>, Vec<Duration>), Box<dyn std::error::Error>> {
    let session = lab.provider().issue(THING, Duration::from_secs(600));
    let (mut stops, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let begun = Instant::now();
        let mut litestream = Command::new(tools::litestream(LITESTREAM)?)
            .args(["replicate", "-config"])
            .arg(site.root().join("litestream.yml"))
            .env_clear()
            .envs(session.env())
            .env("EDGEREPL_THING_NAME", THING)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        while !site.sync() && begun.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(2));
        }
        starts.push(begun.elapsed());
        let begun = Instant::now();
        kill(Pid::from_raw(litestream.id().try_into()?), Signal::SIGTERM)?;
        litestream.wait()?;
        stops.push(begun.elapsed());
    }
    Ok((stops, starts))
}

fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    match (times.get(times.len() / 2), times.last()) {
        (Some(median), Some(most)) => {
            format!(
                "median {} ms, maximum {} ms",
                median.as_millis(),
                most.as_millis()
            )
        }
        _ => "not measured".to_owned(),
    }
}

/// The terminal: a line for each thing that happens, and, where somebody looks, one that changes.
struct Screen {
    begun: Instant,
    live: bool,
    last_plain: Instant,
    rotations: u64,
    gaps: Vec<Duration>,
}

impl Screen {
    /// Where nobody looks, a line like the changing one comes this often.
    const PLAIN_PACE: Duration = Duration::from_secs(10);

    fn new(begun: Instant) -> Self {
        let live = stdout().is_terminal();
        Self {
            begun,
            live,
            last_plain: begun,
            rotations: 0,
            gaps: Vec::new(),
        }
    }

    /// Litestream does something else than before.
    fn activity(&mut self, replication: &Value) {
        let rotations = replication["rotations"].as_u64().unwrap_or_default();
        let gap = replication["last_gap_s"].as_f64();
        match replication["activity"].as_str().unwrap_or("not there yet") {
            "replicating" if rotations > self.rotations => {
                self.rotations = rotations;
                let gap = Duration::from_secs_f64(gap.unwrap_or_default());
                self.gaps.push(gap);
                let text = format!(
                    "rotation {rotations}: restarted, a gap of {} ms",
                    gap.as_millis()
                );
                self.say(&text);
            }
            "replicating" => self.say("Litestream replicates"),
            other => self.say(&format!("Litestream: {}", other.replace('_', " "))),
        }
    }

    fn glance(&mut self, text: &str) {
        if self.live {
            print!(
                "\r\x1b[2K\x1b[36m{:>6.1} s\x1b[0m  {text}",
                self.begun.elapsed().as_secs_f32()
            );
            let _ = stdout().flush();
        } else if self.last_plain.elapsed() >= Self::PLAIN_PACE {
            self.last_plain = Instant::now();
            self.say(text);
        }
    }

    fn say(&self, text: &str) {
        let clear = if self.live { "\r\x1b[2K" } else { "" };
        println!(
            "{clear}{:>6.1} s  {text}",
            self.begun.elapsed().as_secs_f32()
        );
    }
}
