//! What each database more costs: idle, and at a restart of Litestream.
//!
//! Owns the devices with 1, 10 and 100 databases, and the budget: idle each database more takes less than
//! one descriptor and less than 20 KiB, and wakes nobody up. How long a gap is, is told and not judged.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use edgerepl_lab::{KeyKind, Lab, LabOptions, Site};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;
use xtask::Outcome;

use super::count::Requests;
use super::kernel::{Process, Starts};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// So many databases each idle device has, and each that works.
const IDLE: [usize; 3] = [1, 10, 100];
const BUSY: [usize; 2] = [1, 10];

/// How long the idle ones are watched, unless `EDGEREPL_BENCH_SECONDS` says otherwise.
const WATCHED: u64 = 60;

/// After all is proved: Litestream's own checkpoint comes after a minute, and commits; that is asked about, too.
/// Each compaction is a line in its log, which edgerepl reads.
const SETTLES: Duration = Duration::from_secs(150);

/// How often a figure that changes is read.
const GLANCE: Duration = Duration::from_secs(5);

/// Idle, no credentials end meanwhile; with the others a rotation is due every 5 to 6 s.
const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_secs(9);

/// So many rotations, and a row of the application's to each database so often.
const ROTATIONS: u64 = 12;
const PACE: Duration = Duration::from_millis(100);

/// Nothing that is waited for takes so long.
const LIMIT: Duration = Duration::from_secs(300);

/// What each database more may cost of descriptors and of KiB.
const DESCRIPTORS: f64 = 1.0;
const KIB: f64 = 20.0;

/// Prints both tables. True where the idle ones are within the budget.
pub(super) fn databases(program: &Path) -> Outcome {
    let watched = match env::var("EDGEREPL_BENCH_SECONDS") {
        Ok(seconds) => seconds.parse()?,
        Err(_) => WATCHED,
    };
    let watched = Duration::from_secs(watched);
    // Of its own, so that nobody else's starts are counted; on a disk, whose pages are nobody's own.
    let folder = TempDir::with_prefix("edgerepl-bench-")?;
    let own = folder.path().join("edgerepl");
    fs::copy(program, &own)?;
    let program = own.as_path();
    let mut idle = Vec::new();
    for count in IDLE {
        println!("{count}: idle, with a heartbeat row every 5 s in the first");
        idle.push(Idle::of(count, program, watched)?);
    }
    let mut busy = Vec::new();
    for count in BUSY {
        println!("{count}: a row every {PACE:?} in each, and restarts of Litestream");
        busy.push(Gaps::of(count, program)?);
    }
    let is_within = print_idle(&idle);
    print_gaps(&busy);
    Ok(is_within)
}

/// What an idle device costs, by its databases.
struct Idle {
    databases: usize,
    pss: f64,
    private_dirty: f64,
    descriptors: f64,
    /// These in a minute.
    wake_ups: f64,
    processes: f64,
    syncs: f64,
    questions: f64,
    processor_ms: f64,
    litestream_pss: f64,
}

impl Idle {
    fn of(databases: usize, program: &Path, watched: Duration) -> Result<Self> {
        // In memory, where a commit waits for no disk: a wait for one would count as a wake-up.
        let root = TempDir::with_prefix_in("edgerepl-lab-", "/dev/shm")?;
        let (_lab, mut site) = device(databases, program, LONG, Some(root.path()))?;
        site.set("replication", "rotation", "\"auto\"");
        site.set("heartbeat", "interval", "\"5s\"");
        let requests = Requests::to_litestream_of(&mut site)?;
        let mut daemon = site.start()?;
        let status = daemon.wait_for("proofs", LIMIT, |status| are_proved(status, databases))?;
        thread::sleep(SETTLES);

        let edgerepl = Process::new(daemon.pid());
        let pid = status["replication"]["pid"].as_u64();
        let litestream = pid.and_then(|pid| u32::try_from(pid).ok());
        let litestream = Process::new(litestream.ok_or("no Litestream runs")?);
        let starts = Starts::of(program)?;
        let counters = || -> Result<[f64; 5]> {
            let (syncs, all) = (requests.count("POST /sync "), requests.count(""));
            Ok([
                edgerepl.wake_ups()? as f64,
                starts.count()? as f64,
                syncs as f64,
                (all - syncs) as f64,
                edgerepl.processor_time()?.as_secs_f64() * 1000.0,
            ])
        };
        let (begun, before) = (Instant::now(), counters()?);
        let mut memory = Vec::new();
        while begun.elapsed() < watched {
            thread::sleep(GLANCE.min(watched - begun.elapsed()));
            memory.push([
                edgerepl.pss()?,
                edgerepl.private_dirty()?,
                edgerepl.descriptors()?,
                litestream.pss()?,
            ]);
        }
        let (after, minutes) = (counters()?, begun.elapsed().as_secs_f64() / 60.0);
        let a_minute = |of: usize| (after[of] - before[of]) / minutes;
        let usual = |of: usize| {
            let mut all: Vec<u64> = memory.iter().map(|each| each[of]).collect();
            all.sort_unstable();
            all[all.len() / 2] as f64
        };
        let figures = Self {
            databases,
            pss: usual(0),
            private_dirty: usual(1),
            descriptors: usual(2),
            wake_ups: a_minute(0),
            // The first question began the count.
            processes: after[1] / minutes,
            syncs: a_minute(2),
            questions: a_minute(3),
            processor_ms: a_minute(4),
            litestream_pss: usual(3),
        };
        daemon.wait_for("health", LIMIT, |status| status["state"] == "healthy")?;
        daemon.terminate()?;
        Ok(figures)
    }
}

/// How long Litestream's restarts held up the replicas of a device that works; the shortest first.
struct Gaps {
    databases: usize,
    seconds: Vec<f64>,
    rows_a_second: f64,
}

impl Gaps {
    fn of(databases: usize, program: &Path) -> Result<Self> {
        let (_lab, site) = device(databases, program, SHORT, None)?;
        let (done, rows) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            let application = scope.spawn(|| write_until(&done, &site, databases, &rows));
            let begun = Instant::now();
            let seconds = rotate(&site);
            done.store(true, Ordering::Relaxed);
            let rows_a_second = rows.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
            application.join().map_err(|_| "the writer panicked")??;
            Ok(Self {
                databases,
                seconds: seconds?,
                rows_a_second,
            })
        })
    }
}

/// The gap of each rotation.
fn rotate(site: &Site) -> Result<Vec<f64>> {
    let mut daemon = site.start()?;
    let mut gaps = Vec::new();
    for rotation in 1..=ROTATIONS {
        let status = daemon.wait_for_rotations(rotation, LIMIT)?;
        let gap = status["replication"]["last_gap_s"].as_f64();
        gaps.push(gap.ok_or("a rotation without a gap")?);
    }
    daemon.terminate()?;
    gaps.sort_unstable_by(f64::total_cmp);
    Ok(gaps)
}

/// An application that writes to each database in its turn.
fn write_until(
    done: &AtomicBool,
    site: &Site,
    databases: usize,
    rows: &AtomicU64,
) -> std::result::Result<(), String> {
    let write = || -> rusqlite::Result<()> {
        let open = |name: String| {
            let database = Connection::open(site.root().join(name))?;
            database.busy_timeout(Duration::from_secs(10))?;
            Ok(database)
        };
        let all = names(databases).map(open);
        let all: Vec<Connection> = all.collect::<rusqlite::Result<_>>()?;
        while !done.load(Ordering::Relaxed) {
            let begun = Instant::now();
            for database in &all {
                database.execute("INSERT INTO row (text) VALUES (hex(randomblob(50)))", [])?;
                rows.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(PACE.saturating_sub(begun.elapsed()));
        }
        Ok(())
    };
    write().map_err(|e| e.to_string())
}

/// A device with so many databases, of which edgerepl's configuration names the first and Litestream's all.
fn device(
    databases: usize,
    program: &Path,
    lifetime: Duration,
    root: Option<&Path>,
) -> Result<(Lab, Site)> {
    let lab = Lab::start(LabOptions {
        lifetime,
        root: root.map(Path::to_owned),
        ..LabOptions::default()
    })?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, &format!("bench-{databases}"))?;
    let site = Site::new(&lab, device, program)?;
    let others: Vec<String> = names(databases).skip(1).collect();
    site.replicate_too(others.iter().map(String::as_str))?;
    for name in names(databases) {
        let database = Connection::open(site.root().join(name))?;
        database.pragma_update(None, "journal_mode", "wal")?;
        database.execute_batch(
            "CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
             INSERT INTO row (text) SELECT hex(randomblob(50)) FROM n;",
        )?;
    }
    Ok((lab, site))
}

/// What the databases are called.
fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| match number {
        0 => "app.db".to_owned(),
        number => format!("measured-{number:02}.db"),
    })
}

fn are_proved(status: &Value, count: usize) -> bool {
    let all = status["databases"].as_array();
    let is_idle = |database: &Value| database["state"] == "idle";
    status["state"] == "healthy"
        && all.is_some_and(|all| all.len() == count && all.iter().skip(1).all(is_idle))
}

/// What one figure is called, how it is read, and its budget for each database more.
type Row = (&'static str, fn(&Idle) -> f64, Option<f64>);

const ROWS: [Row; 9] = [
    ("PSS, KiB", |idle| idle.pss, Some(KIB)),
    (
        "of it private and dirty, KiB",
        |idle| idle.private_dirty,
        None,
    ),
    (
        "file descriptors",
        |idle| idle.descriptors,
        Some(DESCRIPTORS),
    ),
    ("wake-ups a minute", |idle| idle.wake_ups, None),
    ("processes started a minute", |idle| idle.processes, None),
    ("syncs asked for a minute", |idle| idle.syncs, None),
    ("other questions a minute", |idle| idle.questions, None),
    (
        "processor time a minute, ms",
        |idle| idle.processor_ms,
        None,
    ),
    ("Litestream's PSS, KiB", |idle| idle.litestream_pss, None),
];

/// True where all is within the budget.
fn print_idle(idle: &[Idle]) -> bool {
    print!("\n{:<30}", "idle, by databases");
    idle.iter().for_each(|each| print!("{:>9}", each.databases));
    println!("{:>11}  budget", "each more");
    let mut is_within = true;
    for (name, figure, budget) in ROWS {
        print!("{name:<30}");
        idle.iter().for_each(|each| print!("{:>9.0}", figure(each)));
        let more = growth(idle, figure);
        let is_over = budget.is_some_and(|budget| more >= budget);
        let words = match budget {
            Some(budget) if is_over => format!("  < {budget}: EXCEEDED"),
            Some(budget) => format!("  < {budget}"),
            None => String::new(),
        };
        println!("{more:>11.2}{words}");
        is_within &= !is_over;
    }
    is_within
}

/// What each database more costs, from the fewest to the most.
fn growth(idle: &[Idle], figure: fn(&Idle) -> f64) -> f64 {
    match (idle.first(), idle.last()) {
        (Some(few), Some(many)) if many.databases > few.databases => {
            (figure(many) - figure(few)) / (many.databases - few.databases) as f64
        }
        _ => 0.0,
    }
}

fn print_gaps(busy: &[Gaps]) {
    print!("\n{:<30}", "restarts, by databases");
    busy.iter().for_each(|each| print!("{:>9}", each.databases));
    println!();
    let row = |name: &str, figure: fn(&Gaps) -> String| {
        print!("{name:<30}");
        busy.iter().for_each(|each| print!("{:>9}", figure(each)));
        println!();
    };
    row("rows written a second", |each| {
        format!("{:.0}", each.rows_a_second)
    });
    row("restarts", |each| each.seconds.len().to_string());
    row("gap, median, s", |each| {
        seconds(each.seconds.get(each.seconds.len() / 2))
    });
    row("gap, maximum, s", |each| seconds(each.seconds.last()));
}

fn seconds(time: Option<&f64>) -> String {
    time.map_or("none".to_owned(), |time| format!("{time:.2}"))
}
