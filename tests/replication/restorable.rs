//! What is broken in the bucket behind the back of edgerepl and Litestream: it is named, one new
//! snapshot mends it, and no more than that one is uploaded.
//!
//! Owns the harm to the bucket's objects, and what is waited for in a status. A second device in the
//! prefix is in `restorable/shared.rs`, what a plan costs in `restorable/cost.rs`. Nothing but what is
//! tested restarts Litestream here: a rotation would mend some of it.

mod cost;
mod shared;

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use edgerepl_lab::{Daemon, Lab, Objects, S3Fault, Site};
use serde_json::Value;

use crate::support::{
    Application, LIMIT, Result, add_databases, all_at_once, assert_nothing_lost,
    configure_databases, database_of, fill, has_problem, local_state, open, site, snapshots,
    tune_litestream, wait_until, write_row,
};

/// A restore is planned so often.
const PACE: &str = "4s";

/// For so many paces what was mended has to stay as it is.
const PACES: u32 = 10;

/// No rotation comes.
const LIFETIME: Duration = Duration::from_secs(900);

/// A row of the application.
const ROW: Duration = Duration::from_millis(200);

/// The database with heartbeat rows and an application.
const FIRST: &str = "app.db";

/// The one that nobody writes to.
const IDLE: &str = "idle.db";

/// By itself Litestream makes a snapshot at its start and none later: one that is due at midnight is
/// none of the harm's.
const ONE_SNAPSHOT: &str = "snapshot:\n  interval: 8760h\n  retention: 8760h\n";

/// After its start Litestream asks nothing of S3 but uploads, and what it uploads stays as it is.
const NO_COMPACTION: &str = "\
l0-retention-check-interval: 8760h
levels:
  - interval: 8760h
  - interval: 17520h
";

/// Litestream compacts often, and what it compacted only once.
const COMPACTION: &str = "\
levels:
  - interval: 10s
  - interval: 8760h
";

/// Snapshots are files of this level.
const SNAPSHOT: u8 = 9;

const ROTATIONS: [&str; 2] = ["refresh", "restart"];

/// What becomes of the bucket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Harm {
    /// All objects of the prefix are gone.
    AllGone,
    /// The snapshot is gone, and all that begins with the first transaction.
    BeginningGone,
    /// A transaction in the middle is gone, and all that holds it.
    MiddleGone,
    /// Half of the snapshot is left.
    SnapshotHalved,
    /// Half of a transaction is left, which Litestream has whole.
    TransactionHalved,
    /// The same of two, as if another device had uploaded them, which does so no more.
    TransactionsHalved,
    /// The prefix holds what it held once, and transactions follow.
    RolledBack,
    /// The same, with a database that nobody writes to afterwards.
    RolledBackIdle,
    /// A rule expires what is old, and nobody writes to the database.
    ExpiredIdle,
    /// Nobody may list.
    ListsRefused,
}

impl Harm {
    /// Words of the cause; any of them names it.
    fn told(self) -> &'static [&'static str] {
        match self {
            Self::AllGone | Self::BeginningGone | Self::ExpiredIdle => &["holds no snapshot"],
            Self::MiddleGone => &["is missing in the bucket"],
            Self::SnapshotHalved | Self::TransactionHalved => &["has another size"],
            Self::TransactionsHalved => &["not of Litestream's files here"],
            // As it is seen: until the next transaction there is no hole.
            Self::RolledBack => &["is missing in the bucket", "was proved to be there"],
            Self::RolledBackIdle => &["was proved to be there"],
            Self::ListsRefused => &["could not be planned", "AccessDenied"],
        }
    }

    fn database(self) -> &'static str {
        match self {
            Self::RolledBackIdle | Self::ExpiredIdle => IDLE,
            _ => FIRST,
        }
    }

    /// It is done to what was compacted, or to a Litestream that compacts.
    fn needs_compaction(self) -> bool {
        matches!(self, Self::MiddleGone | Self::ListsRefused)
    }

    /// So many mend it.
    fn snapshots(self) -> usize {
        usize::from(self != Self::ListsRefused)
    }
}

#[test]
fn what_is_gone_from_the_bucket_is_named_and_one_snapshot_mends_it() -> Result {
    suffer_all(&[
        Harm::AllGone,
        Harm::BeginningGone,
        Harm::MiddleGone,
        Harm::ExpiredIdle,
    ])
}

#[test]
fn what_is_altered_in_the_bucket_is_named_and_one_snapshot_mends_it() -> Result {
    suffer_all(&[
        Harm::SnapshotHalved,
        Harm::TransactionHalved,
        Harm::TransactionsHalved,
        Harm::RolledBack,
        Harm::RolledBackIdle,
    ])
}

#[test]
fn lists_that_are_refused_are_named_and_cost_no_snapshot() -> Result {
    suffer_all(&[Harm::ListsRefused])
}

fn suffer_all(harms: &[Harm]) -> Result {
    let with = |harm: &Harm| ROTATIONS.map(|rotation| (*harm, rotation));
    let cases: Vec<_> = harms.iter().flat_map(with).collect();
    all_at_once(&cases, |(harm, rotation)| suffer(*harm, rotation))
}

fn suffer(harm: Harm, rotation: &str) -> Result {
    let name = format!("restorable-{harm:?}-{rotation}").to_lowercase();
    let mut device = Device::start(&name, rotation, harm)?;
    device.wait_until_restorable()?;
    device.wait_until_settled()?;
    // One plan at least has begun since: what was altered before any has seen it can't be told.
    plans(&mut device.daemon, harm.database(), 2, |_| true)?;
    let since = Instant::now();
    device.hurt(harm)?;
    let hurt = Instant::now();
    let told = device.wait_until_told(harm)?;
    let named = hurt.elapsed().as_secs_f32();
    device.lab.s3().set_fault(S3Fault::None)?;
    device.wait_until_restorable()?;
    let well = hurt.elapsed().as_secs_f32();
    println!(
        "{harm:?}, {rotation}: named after {named:.1} s, well after {well:.1} s: {}",
        told["problems"]
    );
    device.watch(harm.database())?;
    let made = snapshots(&device.lab, since);
    let log = device.daemon.log();
    assert_eq!(made.len(), harm.snapshots(), "{made:#?}; the log:\n{log}");
    let harmed = device.prefix(harm.database());
    assert!(made.iter().all(|key| key.starts_with(&harmed)), "{made:#?}");
    device.end()
}

/// A device with one database, or with an idle one beside it.
struct Device {
    daemon: Daemon,
    application: Application,
    databases: Vec<&'static str>,
    site: Site,
    lab: Lab,
}

impl Device {
    fn start(name: &str, rotation: &str, harm: Harm) -> Result<Self> {
        let (lab, site) = prepared(name, rotation)?;
        let mut databases = vec![FIRST];
        if harm.database() == IDLE {
            databases.push(IDLE);
            add_databases(&site, &[IDLE])?;
            configure_databases(&site, &[(FIRST, true), (IDLE, false)])?;
        }
        tune_litestream(&site, ONE_SNAPSHOT)?;
        // Else one that is under way may put back what is harmed, from Litestream's own files.
        let compaction = match harm.needs_compaction() {
            true => COMPACTION,
            false => NO_COMPACTION,
        };
        tune_litestream(&site, compaction)?;
        Ok(Self {
            daemon: site.start()?,
            application: Application::writing(&site, ROW)?,
            databases,
            site,
            lab,
        })
    }

    fn path(&self, database: &str) -> PathBuf {
        self.site.root().join(database)
    }

    fn prefix(&self, database: &str) -> String {
        format!("{}/{database}", self.site.device.thing_name)
    }

    fn hurt(&mut self, harm: Harm) -> Result {
        let database = harm.database();
        let objects = self.lab.s3().objects(&self.prefix(database));
        match harm {
            Harm::AllGone | Harm::ExpiredIdle => objects.remove_all()?,
            Harm::BeginningGone => {
                remove(&objects, |file| file.level == SNAPSHOT || file.first == 1)?;
            }
            Harm::MiddleGone => {
                let gone = compacted(&objects)?;
                let holds_it = |file: &File| {
                    file.level != SNAPSHOT && (file.first..=file.last).contains(&gone)
                };
                remove(&objects, holds_it)?;
            }
            Harm::SnapshotHalved => objects.halve(&newest(&objects, SNAPSHOT)?.key)?,
            Harm::TransactionHalved => self.halve_newest(&objects, 1)?,
            Harm::TransactionsHalved => self.halve_newest(&objects, 2)?,
            Harm::RolledBack | Harm::RolledBackIdle => {
                let copied = objects.copy()?;
                let application = open(&self.path(database))?;
                (0..10).try_for_each(|_| write_row(&application))?;
                let written = Instant::now();
                self.daemon.wait_for("proof of the rows", LIMIT, |status| {
                    let age = database_of(status, database)["proof"]["age_s"].as_f64();
                    age.is_some_and(|age| age < written.elapsed().as_secs_f64())
                })?;
                objects.put_back(&copied)?;
            }
            Harm::ListsRefused => self.lab.s3().set_fault(S3Fault::RefusesLists)?,
        }
        Ok(())
    }

    /// Halves so many of the newest transactions of the first database.
    fn halve_newest(&self, objects: &Objects, number: usize) -> Result {
        let own = local_state(&self.path(FIRST)).join("ltx/0");
        let mut singles = files(objects)?;
        singles.retain(|file| file.level == 0);
        singles.sort_by_key(|file| file.last);
        for file in singles.iter().rev().take(number) {
            let name = file.key.rsplit('/').next().unwrap_or_default();
            assert!(own.join(name).is_file(), "Litestream has no {name}");
            objects.halve(&file.key)?;
        }
        Ok(())
    }

    fn wait_until_told(&mut self, harm: Harm) -> Result<Value> {
        let what = format!("word of {harm:?}");
        Ok(self.daemon.wait_for(&what, LIMIT, |status| {
            let database = database_of(status, harm.database());
            let is_named = harm.told().iter().any(|words| has_problem(status, words));
            let is_cause = |cause: &str| harm.told().iter().any(|words| cause.contains(words));
            let is_broken = database["restorable"]["state"] == "broken"
                && database["restorable"]["cause"]
                    .as_str()
                    .is_some_and(is_cause);
            // It is not known to be broken where nobody may look.
            let is_judged = harm == Harm::ListsRefused || is_broken;
            database["state"] == "unhealthy" && is_named && is_judged
        })?)
    }

    /// Each database is healthy, and S3 holds a snapshot of it and whatever has to follow.
    fn wait_until_restorable(&mut self) -> Result {
        let (lab, site, databases) = (&self.lab, &self.site, &self.databases);
        let has_snapshot = |name: &&str| {
            let prefix = format!("{}/{name}", site.device.thing_name);
            newest(&lab.s3().objects(&prefix), SNAPSHOT).is_ok()
        };
        // Foreign transactions are watched for 70 s first.
        self.daemon.wait_for("health", LIMIT * 2, |status| {
            status["state"] == "healthy"
                && databases.iter().all(|name| is_restorable(status, name))
                && databases.iter().all(has_snapshot)
        })?;
        Ok(())
    }

    /// What Litestream does at its start is done: transactions follow that no compaction took.
    fn wait_until_settled(&self) -> Result {
        let objects = self.lab.s3().objects(&self.prefix(FIRST));
        wait_until("transactions", || {
            let of_level = |level| newest(&objects, level).map_or(0, |file| file.last);
            of_level(0) > of_level(SNAPSHOT).max(of_level(1)) + 5
        })
    }

    /// Nothing is found to be wrong with any database while that one is looked at.
    fn watch(&mut self, harmed: &str) -> Result {
        let databases = &self.databases;
        watch(&mut self.daemon, harmed, |status| {
            databases.iter().all(|name| {
                is_restorable(status, name) && database_of(status, name)["state"] != "unhealthy"
            })
        })
    }

    fn end(self) -> Result {
        self.application.stop()?;
        assert!(self.daemon.terminate()?.success());
        assert_nothing_lost(&self.lab, &self.site)?;
        for name in self.databases {
            let prefix = format!("{}/{name}", self.site.device.thing_name);
            let live = self.site.root().join(name);
            let comparison = self.lab.compare_with(&prefix, &live)?;
            assert!(comparison.is_equal(), "{name}: {comparison:?}");
        }
        Ok(())
    }
}

/// A site with a filled database, whose restore is planned at [`PACE`].
fn prepared(thing_name: &str, rotation: &str) -> Result<(Lab, Site)> {
    let (lab, mut site) = site(thing_name, LIFETIME)?;
    site.set("replication", "rotation", format!("{rotation:?}"));
    site.set("proof", "restorable", format!("{PACE:?}"));
    fill(&site)?;
    Ok((lab, site))
}

fn is_restorable(status: &Value, database: &str) -> bool {
    database_of(status, database)["restorable"]["state"] == "restorable"
}

/// Holds each status against `is_well` for [`PACES`].
fn watch(daemon: &mut Daemon, database: &str, is_well: impl Fn(&Value) -> bool) -> Result {
    plans(daemon, database, PACES, is_well)
}

/// Waits until a restore was planned so often, and holds each status against `is_well` meanwhile.
fn plans(
    daemon: &mut Daemon,
    database: &str,
    wanted: u32,
    is_well: impl Fn(&Value) -> bool,
) -> Result {
    let (age, planned) = (Cell::new(0.0), Cell::new(0));
    let status = daemon.wait_for("plan of a restore", LIMIT * 3, |status| {
        // A plan begins the age of the last one anew.
        if let Some(now) = database_of(status, database)["restorable"]["checked_s"].as_f64() {
            planned.set(planned.get() + u32::from(now < age.get()));
            age.set(now);
        }
        !is_well(status) || planned.get() >= wanted
    })?;
    match is_well(&status) {
        true => Ok(()),
        false => Err(format!("it changed: {status:#}; {}", daemon.log()).into()),
    }
}

/// A file of Litestream's in the bucket, with the transactions that it holds.
#[derive(Clone, Debug)]
struct File {
    key: String,
    level: u8,
    first: u64,
    last: u64,
}

impl File {
    /// `PREFIX/0001/0000000000000001-00000000000000a7.ltx`
    fn parse(key: &str) -> Option<Self> {
        let (folder, name) = key.rsplit_once('/')?;
        let (first, last) = name.strip_suffix(".ltx")?.split_once('-')?;
        Some(Self {
            key: key.to_owned(),
            level: u8::from_str_radix(folder.rsplit('/').next()?, 16).ok()?,
            first: u64::from_str_radix(first, 16).ok()?,
            last: u64::from_str_radix(last, 16).ok()?,
        })
    }
}

fn files(objects: &Objects) -> Result<Vec<File>> {
    let keys = objects.keys()?;
    let parse = |key: &String| File::parse(key).ok_or(format!("{key} is no file of Litestream's"));
    Ok(keys
        .iter()
        .map(parse)
        .collect::<std::result::Result<_, _>>()?)
}

/// The last one of a level.
fn newest(objects: &Objects, level: u8) -> Result<File> {
    let files = files(objects)?.into_iter();
    let of_level = files.filter(|file| file.level == level);
    let newest = of_level.max_by_key(|file| file.last);
    Ok(newest.ok_or(format!("there is no file of level {level}"))?)
}

fn remove(objects: &Objects, which: impl Fn(&File) -> bool) -> Result {
    let gone: Vec<File> = files(objects)?
        .into_iter()
        .filter(|file| which(file))
        .collect();
    assert!(!gone.is_empty(), "there is nothing to remove");
    Ok(gone.iter().try_for_each(|file| objects.remove(&file.key))?)
}

/// A transaction behind the snapshot that was compacted: no compaction takes it once more.
fn compacted(objects: &Objects) -> Result<u64> {
    let snapshot = newest(objects, SNAPSHOT)?.last;
    let found = Cell::new(0);
    wait_until("a compaction", || {
        let compacted = newest(objects, 1).ok();
        let later = compacted.filter(|file| file.last > snapshot + 1);
        found.set(later.map_or(0, |file| (file.first.max(snapshot) + file.last) / 2));
        found.get() > 0
    })?;
    Ok(found.get())
}
