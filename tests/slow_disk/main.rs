//! A disk that is slow: what may take long there holds neither the loop nor a rotation up.
//!
//! The real edgerepl and its children have a disk, by a shim that is preloaded into them (`shim.c`), on
//! which each page, each sync and each file of Litestream's takes a moment. Litestream itself and the
//! application have not: what is shown here is edgerepl's.

use std::error::Error;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use edgerepl_lab::{Daemon, KeyKind, Lab, LabOptions, Site, tools};
use rusqlite::Connection;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const LIMIT: Duration = Duration::from_secs(120);

/// What the unit's `WatchdogSec=` would be. All that is slow here takes twice as long, and more.
const WATCHDOG: Duration = Duration::from_secs(6);

/// So many files of Litestream's are opened by the first look at them.
const FILES: u64 = 100;

/// What the application has, in pages of 4 KiB; that of a WAL with all of it in it is moved page by page.
const PAGES: u64 = 1200;

#[test]
fn a_wal_that_has_to_be_emptied_holds_nobody_up() -> Result {
    let (lab, site) = site("thing-slow-wal", Duration::from_secs(60))?;
    let application = site.connect()?;
    application.execute_batch(&format!(
        "CREATE TABLE filling (id INTEGER PRIMARY KEY, data BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {PAGES})
         INSERT INTO filling SELECT i, randomblob(4096) FROM n;"
    ))?;
    let mut daemon = site.start()?;
    daemon.wait_for_rotations(0, LIMIT)?;
    assert!(daemon.terminate()?.success());

    // The WAL is begun anew while Litestream is down, and a long one.
    application.pragma_update(None, "wal_autocheckpoint", 0)?;
    application.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
    for _ in 0..3 {
        application.execute_batch("UPDATE filling SET data = randomblob(4096)")?;
    }
    let manager = Manager::listen(&site)?;
    let mut daemon = site.start()?;
    daemon.wait_for_rotations(1, LIMIT)?;
    let longest = manager.longest_silence()?;
    let log = daemon.log();
    assert!(log.contains("the WAL was emptied"), "{log}");
    ends_well(daemon, &site, &lab, longest)
}

#[test]
fn the_first_look_at_many_files_holds_nobody_up() -> Result {
    let (lab, site) = site("thing-slow-files", Duration::from_secs(60))?;
    let application = site.connect()?;
    application.execute_batch("CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT)")?;
    let mut daemon = site.start()?;
    daemon.wait_for_rotations(0, LIMIT)?;
    // Each sync makes a file, and all are kept for 5 min.
    for _ in 0..FILES {
        write_row(&application)?;
        assert!(site.sync(), "Litestream does not follow");
    }
    assert!(daemon.terminate()?.success());

    let manager = Manager::listen(&site)?;
    let mut daemon = site.start()?;
    daemon.wait_for_rotations(1, LIMIT)?;
    let longest = manager.longest_silence()?;
    ends_well(daemon, &site, &lab, longest)
}

/// The watchdog was fed all along, and no row is lost.
fn ends_well(daemon: Daemon, site: &Site, lab: &Lab, longest: Duration) -> Result {
    let log = daemon.log();
    assert!(
        longest < WATCHDOG,
        "the watchdog starved for {longest:?}: {log}"
    );
    assert!(daemon.terminate()?.success());
    let comparison = site.compare(lab)?;
    assert!(comparison.is_equal(), "{comparison:?}");
    Ok(())
}

fn write_row(application: &Connection) -> rusqlite::Result<()> {
    let sql = "INSERT INTO row (text) VALUES (hex(randomblob(100)))";
    application.execute(sql, []).map(drop)
}

/// A site on a slow disk, with a service manager that is told.
fn site(thing: &str, lifetime: Duration) -> Result<(Lab, Site)> {
    let lab = Lab::start(LabOptions {
        lifetime,
        ..LabOptions::default()
    })?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, thing)?;
    let mut site = Site::new(&lab, device, tools::edgerepl()?)?;
    site.set("heartbeat", "interval", "\"1s\"");
    site.set_env("LD_PRELOAD", shim(thing)?.display().to_string());
    site.set_env("SLOW_DISK", site.root().display().to_string());
    site.set_env(
        "NOTIFY_SOCKET",
        site.runtime_file("notify").display().to_string(),
    );
    site.set_env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    Ok((lab, site))
}

/// The shim, compiled for one test.
fn shim(name: &str) -> Result<PathBuf> {
    let shim = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.so"));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
    compiler.args([&shim, &tools::root().join("tests/slow_disk/shim.c")]);
    let status = compiler.status()?;
    match status.success() {
        true => Ok(shim),
        false => Err(format!("{compiler:?} failed ({status})").into()),
    }
}

/// The service manager's end of the socket, which hears how often the watchdog is fed.
struct Manager {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Manager {
    fn listen(site: &Site) -> Result<Self> {
        let path = site.runtime_file("notify");
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(path)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let (mut fed, mut longest) = (None, Duration::ZERO);
            let mut message = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                let length = socket.recv(&mut message).unwrap_or(0);
                longest = longest.max(fed.map_or(Duration::ZERO, |at: Instant| at.elapsed()));
                let is_told = |what: &[u8]| message[..length].starts_with(what);
                // The watchdog counts from here on.
                if is_told(b"READY=1") || is_told(b"WATCHDOG=1") {
                    fed = Some(Instant::now());
                }
            }
            fed.map_or(Duration::MAX, |_| longest)
        });
        Ok(Self { stop, thread })
    }

    /// For how long the watchdog was not fed, at the most.
    fn longest_silence(self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| "the listener panicked".into())
    }
}
