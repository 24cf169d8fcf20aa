//! What a heartbeat row costs the flash: durable writes and bytes a day, by its pace.
//!
//! Owns the devices, each with a file system of its own for its database, and the count: calls by strace, bytes
//! by the file system's device, its journal included. It needs root, who alone may mount. Judges nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{major, minor};
use nix::unistd::Pid;
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;
use xtask::Outcome;

use super::device::{LIFETIME, Result, SETTLES, device, side_by_side};

/// How long each is counted, unless `EDGEREPL_BENCH_SECONDS` says otherwise.
const COUNTED: u64 = 900;

/// Nothing that is waited for takes so long.
const LIMIT: Duration = Duration::from_secs(120);

const DAY: f64 = 86_400.0;

/// A device without an application that writes.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    rpo: &'static str,
    heartbeat: &'static str,
    /// edgerepl writes Litestream's configuration, or Litestream has its defaults.
    one_file: bool,
}

const CASES: [Case; 5] = [
    Case {
        name: "Litestream's defaults, a row each 5 s",
        rpo: "\"36s\"",
        heartbeat: "\"5s\"",
        one_file: false,
    },
    Case {
        name: "rpo = \"1m\", a row each 5 s",
        rpo: "\"1m\"",
        heartbeat: "\"5s\"",
        one_file: true,
    },
    Case {
        name: "rpo = \"10s\"",
        rpo: "\"10s\"",
        heartbeat: "\"10s\"",
        one_file: true,
    },
    Case {
        name: "rpo = \"1m\"",
        rpo: "\"1m\"",
        heartbeat: "\"1m\"",
        one_file: true,
    },
    Case {
        name: "rpo = \"1m\", no rows",
        rpo: "\"1m\"",
        heartbeat: "\"off\"",
        one_file: true,
    },
];

/// Prints the table.
pub(super) fn flash(program: &Path) -> Outcome {
    let count = |case, counted| Wear::of(case, program, counted);
    let wear = side_by_side(CASES, COUNTED, count).map_err(|e| e.to_string())?;
    println!(
        "\n| a day | rows | fsync of SQLite's files | fsync of Litestream's | MiB written to files | \
         MiB on the device |\n| --- | --- | --- | --- | --- | --- |"
    );
    for wear in wear {
        println!("{}", wear.line());
    }
    Ok(true)
}

/// What a device has written.
struct Wear {
    name: &'static str,
    days: f64,
    rows: i64,
    calls: Calls,
    device: u64,
}

impl Wear {
    fn of(case: Case, program: &Path, counted: Duration) -> Result<Self> {
        let (lab, mut site) = device(program, LIFETIME, case.rpo, case.heartbeat)?;
        let disk = Disk::mounted_at(&site.root().join("data"))?;
        let database = disk.folder.join("app.db");
        site.set("database", "path", format!("{database:?}"));
        site.set("replication", "rotation", "\"auto\"");
        if case.one_file {
            site.use_one_file(&lab)?;
        } else {
            let file = site.root().join("litestream.yml");
            let text = fs::read_to_string(&file)?;
            let named = site.database().display().to_string();
            fs::write(&file, text.replace(&named, &database.display().to_string()))?;
        }
        let application = Connection::open(&database)?;
        application.pragma_update(None, "journal_mode", "wal")?;
        application.execute_batch(
            "CREATE TABLE HealthCheck (id INTEGER PRIMARY KEY, time TEXT);
             DROP TABLE HealthCheck; CREATE TABLE row (id INTEGER PRIMARY KEY)",
        )?;
        let mut daemon = site.start()?;
        let status = daemon.wait_for("health", LIMIT, |status| status["state"] == "healthy")?;
        let litestream = status["replication"]["pid"].as_u64();
        let litestream = u32::try_from(litestream.ok_or("no Litestream runs")?)?;
        let traced = Traced::of([daemon.pid(), litestream], site.root().join("calls"))?;
        thread::sleep(SETTLES);

        let rows = |status: Option<Value>| {
            let count = status.as_ref().map(|s| s["heartbeat"]["rows"].as_i64());
            count.flatten().unwrap_or_default()
        };
        let (begun, before, first) = (now()?, disk.written()?, rows(daemon.status()));
        thread::sleep(counted);
        let (ended, after, last) = (now()?, disk.written()?, rows(daemon.status()));
        let text = traced.ended()?;
        drop(application);
        daemon.terminate()?;
        Ok(Self {
            name: case.name,
            days: (ended - begun) / DAY,
            rows: last - first,
            calls: Calls::between(begun, ended, &text, &disk.folder),
            device: after - before,
        })
    }

    fn line(&self) -> String {
        let a_day = |count: f64| count / self.days;
        let mib = |bytes: u64| a_day(bytes as f64) / f64::from(1 << 20);
        format!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} |",
            self.name,
            a_day(self.rows as f64),
            a_day(self.calls.of_sqlite as f64),
            a_day(self.calls.of_litestream as f64),
            mib(self.calls.bytes),
            mib(self.device),
        )
    }
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// A file system in a file, for the data of one device.
struct Disk {
    folder: PathBuf,
    _image: TempDir,
}

impl Disk {
    fn mounted_at(folder: &Path) -> Result<Self> {
        let image = TempDir::with_prefix("edgerepl-flash-")?;
        let file = image.path().join("ext4");
        fs::File::create(&file)?.set_len(256 << 20)?;
        fs::create_dir_all(folder)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file))?;
        run(Command::new("mount")
            .args(["-o", "loop,noatime"])
            .args([&file, folder]))?;
        Ok(Self {
            folder: folder.to_owned(),
            _image: image,
        })
    }

    /// So many bytes have reached the device.
    fn written(&self) -> Result<u64> {
        run(Command::new("sync").arg("-f").arg(&self.folder))?;
        let device = fs::metadata(&self.folder)?.dev();
        let name = format!("/sys/dev/block/{}:{}/stat", major(device), minor(device));
        let text = fs::read_to_string(name)?;
        let sectors = text.split_whitespace().nth(6);
        Ok(sectors.ok_or("no count of sectors")?.parse::<u64>()? * 512)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(&self.folder));
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// An strace that has both processes.
struct Traced {
    strace: Child,
    calls: PathBuf,
}

impl Traced {
    fn of(processes: [u32; 2], calls: PathBuf) -> Result<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-ttt", "-s", "0", "-e", "signal=none"]);
        command.args(["-e", "trace=fsync,fdatasync,write,pwrite64", "-o"]);
        command.arg(&calls).stderr(Stdio::null());
        for process in processes {
            command.arg("-p").arg(process.to_string());
        }
        let strace = command.spawn().map_err(|e| format!("strace: {e}"))?;
        Ok(Self { strace, calls })
    }

    fn ended(mut self) -> Result<String> {
        kill(Pid::from_raw(self.strace.id().try_into()?), Signal::SIGINT)?;
        self.strace.wait()?;
        Ok(fs::read_to_string(&self.calls)?)
    }
}

/// What was asked of the file system.
#[derive(Debug, Default)]
struct Calls {
    /// Those that wait for the disk: of the database and its WAL, to which Litestream commits, too; and of what
    /// Litestream keeps beside them.
    of_sqlite: u64,
    of_litestream: u64,
    bytes: u64,
}

impl Calls {
    /// Of lines such as `4711 1796085600.25 pwrite64(5</data/app.db-wal>, ""..., 4096, 32) = 4096`; one that
    /// another thread interrupts has its arguments all the same.
    fn between(begun: f64, ended: f64, text: &str, folder: &Path) -> Self {
        let folder = folder.display().to_string();
        let mut calls = Self::default();
        for line in text.lines() {
            let mut words = line.splitn(3, ' ');
            let (_, at, call) = (words.next(), words.next(), words.next().unwrap_or_default());
            let at = at.and_then(|at| at.parse::<f64>().ok()).unwrap_or_default();
            if !(begun..=ended).contains(&at) || !call.contains(&folder) {
                continue;
            }
            if call.starts_with("fsync(") || call.starts_with("fdatasync(") {
                match call.contains("-litestream") {
                    true => calls.of_litestream += 1,
                    false => calls.of_sqlite += 1,
                }
            } else if let Some((_, rest)) = call.split_once("..., ") {
                let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
                let length = digits.and_then(|digits| digits.parse::<u64>().ok());
                calls.bytes += length.unwrap_or_default();
            }
        }
        calls
    }
}
