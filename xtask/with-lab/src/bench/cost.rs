//! What S3 is asked for, by how much may be lost and by what the application writes.
//!
//! Owns the devices, which run side by side against an S3 each that counts, and the kill at the end: what is
//! older than the RPO is on the replica then. Prices are those of `check`; bytes are all on the line, without TLS.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use edgerepl_lab::{S3Fault, S3Request, Site};
use edgerepl_tools as tools;
use rusqlite::Connection;
use serde_json::Value;
use xtask::Outcome;

use super::device::{LIFETIME, Result, SETTLES, device, side_by_side};

mod picture;

/// How long each is counted, unless `EDGEREPL_BENCH_SECONDS` says otherwise: an hour begins in it, at which
/// levels are compacted and objects of the level 0 go.
const COUNTED: u64 = 3600;

/// Nothing that is waited for takes so long.
const LIMIT: Duration = Duration::from_secs(120);

/// A month.
const MINUTES: f64 = 30.0 * 24.0 * 60.0;

/// A device.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// `[replication] rpo`, and its duration.
    rpo: (&'static str, Duration),
    /// `[heartbeat] interval`, where it is not the RPO.
    heartbeat: Option<&'static str>,
    /// edgerepl writes Litestream's configuration, or Litestream has its defaults.
    one_file: bool,
    /// Between two rows of the application.
    row_each: Option<Duration>,
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: (&str, Duration) = ("\"1m\"", Duration::from_secs(60));

const CASES: [Case; 6] = [
    Case {
        name: "Litestream's defaults, a heartbeat each 5 s",
        rpo: ("\"36s\"", Duration::from_secs(36)),
        heartbeat: Some("\"5s\""),
        one_file: false,
        row_each: None,
    },
    Case {
        name: "the same, and a row each second",
        rpo: ("\"36s\"", Duration::from_secs(36)),
        heartbeat: Some("\"5s\""),
        one_file: false,
        row_each: Some(SECOND),
    },
    Case {
        name: "rpo = \"1m\"",
        rpo: MINUTE,
        heartbeat: None,
        one_file: true,
        row_each: None,
    },
    Case {
        name: "rpo = \"1m\", a row each second",
        rpo: MINUTE,
        heartbeat: None,
        one_file: true,
        row_each: Some(SECOND),
    },
    Case {
        name: "rpo = \"5m\", a row each second",
        rpo: ("\"5m\"", Duration::from_secs(300)),
        heartbeat: None,
        one_file: true,
        row_each: Some(SECOND),
    },
    Case {
        name: "rpo = \"10s\", a row each second",
        rpo: ("\"10s\"", Duration::from_secs(10)),
        heartbeat: None,
        one_file: true,
        row_each: Some(SECOND),
    },
];

/// Prints the table. True where each replica held what it had to when its device was killed.
pub(super) fn cost(program: &Path) -> Outcome {
    let count = |case, counted| Bill::of(case, program, counted);
    let bills = side_by_side(CASES, COUNTED, count).map_err(|e| e.to_string())?;
    let table = table(&bills);
    println!("\n{table}");
    if env::var_os("EDGEREPL_WRITE").is_some() {
        write(&table, &bills)?;
    }
    Ok(bills.iter().all(|bill| bill.lost <= bill.young))
}

/// What a device's requests cost.
struct Bill {
    case: Case,
    minutes: f64,
    requests: BTreeMap<&'static str, u64>,
    /// What `check` told before.
    told: Told,
    bytes: u64,
    /// Rows that were not on the replica when the device was killed, and those that were younger than its RPO.
    lost: i64,
    young: i64,
}

impl Bill {
    fn of(case: Case, program: &Path, counted: Duration) -> Result<Self> {
        let interval = case.heartbeat.unwrap_or(case.rpo.0);
        let (lab, mut site) = device(program, LIFETIME, case.rpo.0, interval)?;
        site.set("replication", "rotation", "\"auto\"");
        if case.one_file {
            site.use_one_file(&lab)?;
        }
        let told = Told::before(&case, &site)?;
        let database = site.connect()?;
        database.execute_batch("CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT)")?;
        let mut daemon = site.start()?;
        daemon.wait_for("health", LIMIT, |status| status["state"] == "healthy")?;
        let mut written = write_for(SETTLES, &case, &database)?;
        let begun = Instant::now();
        written.extend(write_for(counted, &case, &database)?);
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        let requests = lab.s3().requests();
        let requests: Vec<&S3Request> = requests.iter().filter(|r| r.at >= begun).collect();

        lab.s3().set_fault(S3Fault::ConnectionRefused)?;
        let ended = Instant::now();
        daemon.kill()?;
        thread::sleep(5 * SECOND);
        lab.s3().set_fault(S3Fault::None)?;
        let comparison = site.compare(&lab)?;
        let young = written.iter().filter(|at| ended - **at < case.rpo.1);
        let mut by_operation = BTreeMap::new();
        for request in &requests {
            *by_operation.entry(request.operation).or_default() += 1;
        }
        Ok(Self {
            case,
            minutes,
            requests: by_operation,
            told,
            bytes: requests.iter().map(|r| r.bytes + r.overhead).sum(),
            lost: comparison.live - comparison.restored,
            // The heartbeat's row may be one of them.
            young: i64::try_from(young.count())? + 1,
        })
    }

    fn count(&self, operations: &[&str]) -> f64 {
        let all = self.requests.iter();
        let own = all.filter(|(operation, _)| operations.contains(*operation));
        own.map(|(_, count)| *count).sum::<u64>() as f64 / self.minutes
    }

    fn tier_1(&self) -> f64 {
        self.count(&TIER_1_OPERATIONS)
    }

    fn dollars(&self) -> f64 {
        let gets = self.count(&["GetObject", "HeadObject"]);
        (self.tier_1() * self.told.put_million + gets * self.told.get_million) * MINUTES / 1e6
    }
}

const TIER_1_OPERATIONS: [&str; 6] = [
    "PutObject",
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "CopyObject",
    "ListObjectsV2",
];

/// What `edgerepl check` tells.
struct Told {
    /// PUT and LIST in a minute, and bytes.
    requests: f64,
    bytes: f64,
    /// US dollars.
    put_million: f64,
    get_million: f64,
}

impl Told {
    fn before(case: &Case, site: &Site) -> Result<Self> {
        let checked = site.run(&["check", "--json"])?;
        let document: Value = serde_json::from_slice(&checked.stdout)?;
        let mut checks = document["checks"].as_array().into_iter().flatten();
        let cost = checks.find(|check| check["name"] == "cost");
        let figures = &cost.ok_or("check says nothing of the cost")?["figures"];
        let load = match case.row_each {
            Some(_) => "busy",
            None => "idle",
        };
        let month = |group: &str, class: &str| {
            let figure = figures[group][load][class].as_f64();
            figure.ok_or_else(|| format!("{group}.{load}.{class} is missing"))
        };
        let price = |key: &str| {
            figures["us_dollars"][key]
                .as_f64()
                .ok_or("a price is missing")
        };
        let mut bytes = 0.0;
        for class in ["put", "list", "get"] {
            bytes += month("bytes_a_month", class)?;
        }
        Ok(Self {
            requests: (month(NEW, "put")? + month(NEW, "list")?) / MINUTES,
            bytes: bytes / MINUTES,
            put_million: price("put_million")?,
            get_million: price("get_million")?,
        })
    }
}

/// Writes as the application does, for so long; when each row was committed.
fn write_for(span: Duration, case: &Case, database: &Connection) -> Result<Vec<Instant>> {
    let begun = Instant::now();
    let mut written = Vec::new();
    while begun.elapsed() < span {
        let Some(pace) = case.row_each else {
            thread::sleep(span - begun.elapsed());
            break;
        };
        let sql = "INSERT INTO row (text) VALUES (hex(randomblob(50)))";
        database.execute(sql, [])?;
        written.push(Instant::now());
        thread::sleep(pace);
    }
    Ok(written)
}

/// Puts both into the documentation.
fn write(table: &str, bills: &[Bill]) -> std::io::Result<()> {
    let docs = tools::root().join("docs");
    let page = docs.join("cost.md");
    let text = fs::read_to_string(&page)?;
    let (before, rest) = text.split_once(BEGINS).unwrap_or((&text, ""));
    let (_, after) = rest.split_once(ENDS).unwrap_or(("", rest));
    fs::write(page, format!("{before}{BEGINS}{table}{ENDS}{after}"))?;
    let bars: Vec<_> = bills
        .iter()
        .map(|bill| (bill.case.name, bill.dollars()))
        .collect();
    fs::write(docs.join("cost.svg"), picture::of(&bars))
}

/// What `check` tells of a bucket such as the devices of this benchmark have.
const NEW: &str = "requests_a_month_in_new_bucket";

/// Where the table is in docs/cost.md.
const BEGINS: &str = "<!-- table: counted -->\n\n";
const ENDS: &str = "\n<!-- end -->\n";

/// As docs/cost.md has it.
fn table(bills: &[Bill]) -> String {
    let mut text = "| a minute | PUT | LIST | GET | told by `check` | KiB on the line | told for a month | US dollars a month | times fewer | \
                    lost / younger |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for bill in bills {
        let base = bills.iter().find(|other| {
            !other.case.one_file && other.case.row_each.is_some() == bill.case.row_each.is_some()
        });
        let ratio = base.map_or(1.0, |base| base.tier_1() / bill.tier_1());
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.2} | {:.2} | {:.2}, {:+.0} % | {:.0} | {:.0} | {:.2} | {:.1} | {} / {} |",
            bill.case.name,
            bill.tier_1() - bill.count(&["ListObjectsV2"]),
            bill.count(&["ListObjectsV2"]),
            bill.count(&["GetObject", "HeadObject"]),
            bill.told.requests,
            (bill.told.requests / bill.tier_1() - 1.0) * 100.0,
            bill.bytes as f64 / 1024.0 / bill.minutes,
            bill.told.bytes / 1024.0,
            bill.dollars(),
            ratio,
            bill.lost,
            bill.young,
        );
    }
    text
}
