//! One of three databases of a device is hurt: it alone is named, the other two go on being proved
//! meanwhile, and it is mended, by itself or by what only a person can do.
//!
//! Owns the wounds. Nothing but what is tested restarts Litestream here: a rotation would mend much of it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edgerepl_lab::{Daemon, Lab, Site, SmallDisk};
use rusqlite::Connection;
use serde_json::Value;

use crate::support::{
    Application, LIMIT, Result, add_databases, all_at_once, assert_one_full_upload,
    configure_databases, create, fill, lengthen_wal, litestreams, local_state, open, reset_wal,
    site, wait_until, write_row,
};
use crate::writer::{be_killed_in, update, wait_until_read};

/// The databases: that which is hurt is on a disk of its own.
const FIRST: &str = "app.db";
const HURT: &str = "disk/second.db";
const THIRD: &str = "third.db";
const NAMES: [&str; 3] = [FIRST, HURT, THIRD];
/// Those that stay whole.
const OTHERS: [&str; 2] = [FIRST, THIRD];

/// No rotation comes.
const LIFETIME: Duration = Duration::from_secs(900);

/// A row of each application.
const PACE: Duration = Duration::from_millis(200);

/// What the application has in the database before it is hurt.
const ROWS: i64 = 20;

/// What becomes of a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wound {
    /// Its WAL begins anew while edgerepl and Litestream are dead.
    WalReset,
    /// A writer is killed in a commit, and the next one writes over it.
    KilledInCommit,
    /// Litestream's local state of it is removed.
    StateRemoved,
    /// It is deleted, and another one is made.
    MadeAnew,
    /// Another one takes its place by a rename.
    Replaced,
    /// It is deleted.
    Deleted,
    /// Half of it is gone when edgerepl starts.
    Halved,
    /// Its header is garbage when edgerepl starts.
    Garbage,
    /// An application does not end its transaction.
    Locked,
    /// Its disk is full.
    DiskFull,
    /// No file can be made on its disk.
    DiskReadOnly,
}

/// Where it is said what is wrong, with the database's name.
enum Told {
    Status(&'static str),
    Log(&'static str),
}

impl Wound {
    /// Nobody has to look where it is mended by itself.
    fn told(self) -> Told {
        match self {
            Self::WalReset => Told::Log("the WAL was reset while Litestream did not hold it"),
            Self::KilledInCommit => Told::Log("has to upload the whole database; the WAL was empt"),
            Self::StateRemoved => Told::Log("its local state is deleted"),
            Self::MadeAnew | Self::Replaced => Told::Log("the database's file or Litestream's"),
            Self::Deleted => Told::Status("S3 holds a replica of it"),
            Self::Halved => Told::Status("is damaged (database disk image is malformed); restore"),
            Self::Garbage => Told::Status("is damaged (file is not a database); restore it"),
            Self::Locked => Told::Status("is locked by another writer"),
            Self::DiskFull => Told::Status("is on a full disk; free some space"),
            Self::DiskReadOnly => Told::Log("the file system is read-only"),
        }
    }

    /// Heartbeat rows would come in between.
    fn has_rows(self) -> bool {
        self != Self::KilledInCommit
    }

    /// It is dead when edgerepl comes back.
    fn is_found_at_start(self) -> bool {
        matches!(self, Self::WalReset | Self::Halved | Self::Garbage)
    }

    fn needs_disk(self) -> bool {
        matches!(self, Self::DiskFull | Self::DiskReadOnly)
    }

    /// What was replicated has to be restored.
    fn needs_restore(self) -> bool {
        matches!(self, Self::Deleted | Self::Halved | Self::Garbage)
    }
}

#[test]
fn what_is_broken_of_one_database_is_mended_while_the_others_are_proved() -> Result {
    suffer_all(&[
        Wound::WalReset,
        Wound::KilledInCommit,
        Wound::StateRemoved,
        Wound::MadeAnew,
        Wound::Replaced,
    ])
}

#[test]
fn one_database_that_a_person_has_to_restore_is_named_while_the_others_are_proved() -> Result {
    suffer_all(&[Wound::Deleted, Wound::Halved, Wound::Garbage])
}

#[test]
fn one_database_that_nobody_can_write_to_is_named_while_the_others_are_proved() -> Result {
    suffer_all(&[Wound::Locked, Wound::DiskFull, Wound::DiskReadOnly])
}

fn suffer_all(wounds: &[Wound]) -> Result {
    all_at_once(wounds, |wound| suffer(*wound))
}

fn suffer(wound: Wound) -> Result {
    let Some(mut device) = Device::start(wound)? else {
        eprintln!("not tested: {wound:?}, for only root can mount a small disk");
        return Ok(());
    };
    device.wait_for_health(&NAMES, Instant::now())?;
    let hurt = device.hurt(wound)?;
    device.wait_until_told(&wound.told())?;
    let told = device.wait_for("proofs of the others", |status| {
        OTHERS.iter().all(|name| is_proved(status, name, hurt))
    })?;
    println!("{wound:?}: {}, {}", told["state"], told["problems"]);
    device.mend(wound)?;
    device.wait_for_health(&[HURT], Instant::now())?;
    device.end()
}

struct Device {
    daemon: Option<Daemon>,
    /// An application's transaction that does not end.
    transaction: Option<Connection>,
    applications: Vec<Application>,
    /// The application's connection to the database that is hurt.
    database: Option<Connection>,
    disk: Option<SmallDisk>,
    site: Site,
    lab: Lab,
}

impl Device {
    /// `None` where it can't have the disk that it needs.
    fn start(wound: Wound) -> Result<Option<Self>> {
        let name = format!("wound-{wound:?}").to_lowercase();
        let (lab, mut site) = site(&name, LIFETIME)?;
        site.set("replication", "rotation", "\"refresh\"");
        fill(&site)?;
        let folder = site.root().join("disk");
        fs::create_dir(&folder)?;
        let disk = match wound.needs_disk() {
            true => SmallDisk::mount(&folder, 24)?,
            false => None,
        };
        if wound.needs_disk() && disk.is_none() {
            return Ok(None);
        }
        add_databases(&site, &[HURT, THIRD])?;
        configure_databases(&site, &[(FIRST, true), (HURT, wound.has_rows())])?;
        let database = open(&site.root().join(HURT))?;
        database.execute_batch(
            // With them, all that Litestream needs is in the database's file.
            "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER);
             CREATE TABLE _litestream_lock (id INTEGER);
             CREATE TABLE filling (id INTEGER PRIMARY KEY, data BLOB);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
             INSERT INTO filling SELECT i, randomblob(4096) FROM n;",
        )?;
        (1..ROWS).try_for_each(|_| write_row(&database))?;
        database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        let write = |name: &&str| -> Result<Application> {
            let database = open(&site.root().join(name))?;
            Ok(Application::with(database, PACE, write_row))
        };
        Ok(Some(Self {
            daemon: Some(site.start()?),
            transaction: None,
            applications: OTHERS.iter().map(write).collect::<Result<_>>()?,
            database: Some(database),
            disk,
            site,
            lab,
        }))
    }

    fn path(&self) -> PathBuf {
        self.site.root().join(HURT)
    }

    fn database(&self) -> Result<&Connection> {
        Ok(self.database.as_ref().ok_or("it is closed")?)
    }

    fn disk(&self) -> Result<&SmallDisk> {
        Ok(self.disk.as_ref().ok_or("it has no disk")?)
    }

    /// Returns when it was hurt.
    fn hurt(&mut self, wound: Wound) -> Result<Instant> {
        let path = self.path();
        if wound.is_found_at_start() {
            lengthen_wal(self.database()?)?;
            self.kill()?;
        }
        let hurt = Instant::now();
        match wound {
            Wound::WalReset => {
                let database = self.database()?;
                (0..20).try_for_each(|_| write_row(database))?;
                reset_wal(database)?;
            }
            Wound::KilledInCommit => self.be_killed()?,
            // Litestream may put a file into it meanwhile.
            Wound::StateRemoved => wait_until("the end of the local state", || {
                fs::remove_dir_all(local_state(&path)).is_ok()
            })?,
            Wound::MadeAnew => {
                self.delete()?;
                self.make(&path)?;
            }
            Wound::Replaced => {
                let other = path.with_file_name("other.db");
                self.make(&other)?;
                self.database = None;
                delete(&path)?;
                fs::rename(other, &path)?;
            }
            Wound::Deleted => self.delete()?,
            Wound::Halved => {
                self.empty_wal()?;
                let file = File::options().write(true).open(path)?;
                file.set_len(file.metadata()?.len() / 2)?;
            }
            Wound::Garbage => {
                self.empty_wal()?;
                let file = File::options().write(true).open(path)?;
                file.write_all_at(&[0x5a; 100], 0)?;
            }
            Wound::Locked => {
                let transaction = open(&path)?;
                transaction.execute_batch("BEGIN EXCLUSIVE")?;
                write_row(&transaction)?;
                self.transaction = Some(transaction);
            }
            Wound::DiskFull => self.disk()?.fill()?,
            Wound::DiskReadOnly => {
                self.disk()?.set_read_only(true)?;
                write_row(self.database()?)?;
            }
        }
        if wound.is_found_at_start() {
            self.daemon = Some(self.site.start()?);
        }
        Ok(hurt)
    }

    /// edgerepl and Litestream die.
    fn kill(&mut self) -> Result {
        self.daemon.take().ok_or("edgerepl is dead")?.kill()?;
        wait_until("Litestream's end", || litestreams(&self.site).is_empty())
    }

    fn be_killed(&self) -> Result {
        let (path, database) = (self.path(), self.database()?);
        for id in 1..=50 {
            database.execute_batch(&update(id))?;
        }
        wait_until_read(&path)?;
        be_killed_in(&path, || Ok(database.execute_batch(&update(51))?))?;
        wait_until_read(&path)?;
        Ok(open(&path)?.execute_batch(&update(52))?)
    }

    /// Makes a database with more rows than that which is hurt.
    fn make(&self, path: &Path) -> Result {
        create(path)?;
        let database = open(path)?;
        Ok((0..ROWS * 2).try_for_each(|_| write_row(&database))?)
    }

    fn delete(&mut self) -> Result {
        self.database = None;
        delete(&self.path())
    }

    /// All of the database is in its file, and nobody has it open.
    fn empty_wal(&mut self) -> Result {
        let emptied = "PRAGMA wal_checkpoint(TRUNCATE)";
        self.database()?.query_row(emptied, [], |_| Ok(()))?;
        self.database = None;
        Ok(())
    }

    /// What an operator does, where it is not mended by itself.
    fn mend(&mut self, wound: Wound) -> Result {
        match wound {
            Wound::Locked => {
                let transaction = self.transaction.take().ok_or("it is not locked")?;
                transaction.execute_batch("COMMIT")?;
            }
            Wound::DiskFull => self.disk()?.free()?,
            Wound::DiskReadOnly => self.disk()?.set_read_only(false)?,
            _ if wound.needs_restore() => {
                self.delete()?;
                let restored = self
                    .site
                    .run(&["restore", &self.path().to_string_lossy()])?;
                assert!(restored.status.success(), "{restored:?}");
                let rows = "SELECT count(*) FROM row";
                let rows: i64 = open(&self.path())?.query_row(rows, [], |row| row.get(0))?;
                assert!(rows >= ROWS, "{wound:?}: {rows} rows were restored");
            }
            _ => {}
        }
        Ok(())
    }

    fn wait_until_told(&mut self, told: &Told) -> Result {
        let path = self.path().display().to_string();
        let says = |line: &str, words: &str| line.contains(&path) && line.contains(words);
        match told {
            Told::Status(words) => {
                self.wait_for(words, |status| {
                    let problems = status["problems"].as_array().into_iter().flatten();
                    let mut problems = problems.filter_map(Value::as_str);
                    state(status, HURT) == Some("unhealthy") && problems.any(|p| says(p, words))
                })?;
            }
            Told::Log(words) => {
                let log = self.site.root().join("log");
                self.wait_for(words, |_| {
                    fs::read_to_string(&log).is_ok_and(|log| log.lines().any(|l| says(l, words)))
                })?;
            }
        }
        Ok(())
    }

    /// Healthy, and these were proved since then.
    fn wait_for_health(&mut self, names: &[&str], since: Instant) -> Result {
        self.wait_for("health", |status| {
            status["state"] == "healthy" && names.iter().all(|name| is_proved(status, name, since))
        })?;
        Ok(())
    }

    /// Waits for a status, and holds each one against what has to be said of those that are whole.
    fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let daemon = self.daemon.as_mut().ok_or("edgerepl is dead")?;
        let status = daemon.wait_for(what, LIMIT, |status| {
            !others_are_well(status) || wanted(status)
        })?;
        match others_are_well(&status) {
            true => Ok(status),
            false => Err(format!("the others suffer: {status:#}; {}", daemon.log()).into()),
        }
    }

    /// Each replica holds what its database holds, and the first database was never uploaded anew.
    fn end(mut self) -> Result {
        let verified = self.site.run(&["verify"])?;
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert_eq!(verified.status.code(), Some(0), "{said}");
        for application in self.applications.drain(..) {
            application.stop()?;
        }
        let daemon = self.daemon.take().ok_or("edgerepl is dead")?;
        assert!(daemon.terminate()?.success());
        for name in NAMES {
            assert!(said.contains(name), "{said}");
            let prefix = format!("{}/{name}", self.site.device.thing_name);
            let live = self.site.root().join(name);
            let comparison = self.lab.compare_with(&prefix, &live)?;
            assert!(comparison.is_equal(), "{name}: {comparison:?}");
        }
        assert_one_full_upload(&self.lab);
        Ok(())
    }
}

fn delete(path: &Path) -> Result {
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{end}", path.display()));
    }
    Ok(())
}

fn of<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    let databases = status["databases"].as_array()?;
    databases
        .iter()
        .find(|database| database["path"].as_str().is_some_and(|p| p.ends_with(name)))
}

fn state<'a>(status: &'a Value, name: &str) -> Option<&'a str> {
    of(status, name)?["state"].as_str()
}

/// Its last proof is younger than that.
fn is_proved(status: &Value, name: &str, since: Instant) -> bool {
    let age = of(status, name).and_then(|database| database["proof"]["age_s"].as_f64());
    age.is_some_and(|age| age < since.elapsed().as_secs_f64())
}

/// Nothing is said to be wrong with those that are whole; after a start nothing is proved yet.
fn others_are_well(status: &Value) -> bool {
    let problems = status["problems"].as_array().into_iter().flatten();
    let mut problems = problems.filter_map(Value::as_str);
    let is_named = |p: &str| OTHERS.iter().any(|name| p.contains(name));
    let is_wrong = status["state"] == "unhealthy" && problems.any(is_named);
    !is_wrong
        && OTHERS
            .iter()
            .all(|name| state(status, name) != Some("unhealthy"))
}
