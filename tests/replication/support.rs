//! What the tests share: a device in a lab, an application that writes, a look at the machine's
//! processes and at what S3 was sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt::Debug,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use edgerepl_lab::{Daemon, KeyKind, Lab, LabOptions, S3Request, Site, tools};
use rusqlite::Connection;
use serde_json::Value;

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Nothing that is waited for takes so long on a machine that is only busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// The shortest lifetime with which rotations have room: one every 5 to 6 s.
pub(crate) const SHORT: Duration = Duration::from_secs(9);

/// What [`fill`] puts into the database: a full upload stands out against rows.
pub(crate) const FILLING: u64 = 4 << 20;

/// A lab whose sessions live for `lifetime`, and a device's site in it.
pub(crate) fn site(thing_name: &str, lifetime: Duration) -> Result<(Lab, Site)> {
    let lab = Lab::start(LabOptions {
        lifetime,
        ..LabOptions::default()
    })?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, thing_name)?;
    let site = Site::new(&lab, device, tools::edgerepl()?)?;
    Ok((lab, site))
}

/// Makes the application's table, and fills another with [`FILLING`] bytes that can't be compressed.
pub(crate) fn fill(site: &Site) -> Result {
    let database = site.connect()?;
    database.execute_batch(&format!(
        "CREATE TABLE filling (id INTEGER PRIMARY KEY, data BLOB);
         CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
         INSERT INTO filling SELECT i, randomblob(4096) FROM n;",
        FILLING / 4096
    ))?;
    Ok(())
}

/// Has Litestream replicate these databases beside the site's, each to a prefix of its own, and makes
/// them with the application's table.
pub(crate) fn add_databases(site: &Site, names: &[&str]) -> Result {
    site.replicate_too(names.iter().copied())?;
    names
        .iter()
        .try_for_each(|name| create(&site.root().join(name)))
}

/// Has edgerepl's configuration name these databases, with heartbeat rows or without. It watches what
/// Litestream replicates beside them all the same.
pub(crate) fn configure_databases(site: &Site, databases: &[(&str, bool)]) -> Result {
    let table = |(name, rows): &(&str, bool)| {
        let path = site.root().join(name);
        format!("[[database]]\npath = {path:?}\nheartbeat = {rows}\n")
    };
    let tables: String = databases.iter().map(table).collect();
    Ok(site.add_layer("databases.toml", &tables)?)
}

/// Adds a section to Litestream's configuration, once all databases are in it.
pub(crate) fn tune_litestream(site: &Site, section: &str) -> Result {
    let path = site.root().join("litestream.yml");
    let config = fs::read_to_string(&path)?;
    Ok(fs::write(path, config + section)?)
}

/// Makes a database with the application's table and a row.
pub(crate) fn create(path: &Path) -> Result {
    let database = open(path)?;
    database.execute_batch("CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT)")?;
    write_row(&database)?;
    Ok(())
}

/// A connection of the application's to one of several databases.
pub(crate) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let database = Connection::open(path)?;
    database.busy_timeout(Duration::from_secs(10))?;
    database.pragma_update(None, "journal_mode", "wal")?;
    Ok(database)
}

/// Where Litestream keeps what it knows of a database.
pub(crate) fn local_state(database: &Path) -> PathBuf {
    let name = database.file_name().unwrap_or_default();
    database.with_file_name(format!(".{}-litestream", name.display()))
}

/// One row of the application's.
pub(crate) fn write_row(database: &Connection) -> rusqlite::Result<()> {
    let sql = "INSERT INTO row (text) VALUES (hex(randomblob(100)))";
    database.execute(sql, []).map(drop)
}

/// Shows that the replica holds exactly what the live database holds.
pub(crate) fn assert_nothing_lost(lab: &Lab, site: &Site) -> Result {
    let comparison = site.compare(lab)?;
    let log = fs::read_to_string(site.root().join("log"))?;
    assert!(comparison.is_equal(), "{comparison:?}; the log:\n{log}");
    assert!(comparison.live > 0, "there was nothing to lose");
    Ok(())
}

/// The uploads that held three quarters of the filling at least, compactions (which only rearrange what S3 has
/// already) left out: the first one, and any that Litestream started over with.
pub(crate) fn full_uploads(lab: &Lab) -> Vec<String> {
    let mut sizes = BTreeMap::<String, u64>::new();
    for upload in lab.s3().uploads(lab_start()) {
        *sizes.entry(upload.key).or_default() += upload.bytes;
    }
    let compacted = ["/0001/", "/0002/", "/0003/", "/0009/"];
    sizes.retain(|key, bytes| {
        *bytes >= FILLING / 4 * 3 && !compacted.iter().any(|level| key.contains(level))
    });
    sizes.into_keys().collect()
}

/// The snapshots that were uploaded since then: one that is uploaded again is there twice.
pub(crate) fn snapshots(lab: &Lab, since: Instant) -> Vec<String> {
    let requests = lab.s3().requests().into_iter();
    let is_stored = |request: &S3Request| {
        matches!(request.operation, "PutObject" | "CompleteMultipartUpload")
            && request.status == Some(200)
    };
    requests
        .filter(|request| request.at >= since && is_stored(request))
        .map(|request| request.key)
        .filter(|key| key.contains("/0009/"))
        .collect()
}

/// Before any of them.
fn lab_start() -> Instant {
    Instant::now() - Duration::from_secs(600)
}

/// Shows that Litestream never started over.
pub(crate) fn assert_one_full_upload(lab: &Lab) {
    let full = full_uploads(lab);
    assert_eq!(full.len(), 1, "{full:#?}");
}

/// Puts so much into the WAL that what Litestream read last stays in its place after a reset.
pub(crate) fn lengthen_wal(database: &Connection) -> rusqlite::Result<()> {
    (0..100).try_for_each(|_| write_row(database))
}

/// The application begins the WAL anew, and writes less than there was.
pub(crate) fn reset_wal(database: &Connection) -> rusqlite::Result<()> {
    database.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
    write_row(database)
}

/// Shows that a replica that follows again was uploaded whole, and misses nothing.
pub(crate) fn assert_begun_anew(
    lab: &Lab,
    site: &Site,
    mut daemon: Daemon,
    database: &Connection,
) -> Result {
    wait_until_replicating(&mut daemon)?;
    write_row(database)?;
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(lab, site)?;
    assert_eq!(full_uploads(lab).len(), 2, "{:#?}", full_uploads(lab));
    Ok(())
}

/// The access keys that a device used at S3.
pub(crate) fn used_keys(lab: &Lab) -> BTreeSet<String> {
    let root = lab.s3().root_credentials().access_key_id.clone();
    let keys = lab.s3().requests().into_iter();
    keys.filter_map(|request| request.access_key_id)
        .filter(|key| *key != root)
        .collect()
}

/// A number in a status; nothing where it has none there.
pub(crate) fn number(status: &Value, section: &str, key: &str) -> u64 {
    status[section][key].as_u64().unwrap_or_default()
}

/// Whether one of the problems says `text`.
pub(crate) fn has_problem(status: &Value, text: &str) -> bool {
    let problems = status["problems"].as_array().into_iter().flatten();
    problems.filter_map(Value::as_str).any(|p| p.contains(text))
}

/// What a status says of one of the databases; null where it names none of this name.
pub(crate) fn database_of<'a>(status: &'a Value, name: &str) -> &'a Value {
    let is_named = |database: &&Value| {
        let path = database["path"].as_str();
        path.is_some_and(|path| path.ends_with(name))
    };
    let mut databases = status["databases"].as_array().into_iter().flatten();
    databases.find(is_named).unwrap_or(&Value::Null)
}

/// Waits until Litestream is seen to replicate.
pub(crate) fn wait_until_replicating(daemon: &mut Daemon) -> Result<Value> {
    Ok(daemon.wait_for("replication", LIMIT, |status| {
        status["replication"]["activity"] == "replicating"
    })?)
}

/// Waits until `wanted`; `what` names it where that never comes.
pub(crate) fn wait_until(what: &str, mut wanted: impl FnMut() -> bool) -> Result {
    let deadline = Instant::now() + LIMIT;
    while !wanted() {
        if Instant::now() >= deadline {
            return Err(format!("{what} has not come within {LIMIT:?}").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The Litestreams that replicate the site's database at this moment.
pub(crate) fn litestreams(site: &Site) -> Vec<i32> {
    let folder = site.root().display().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let line = fs::read_to_string(process.path().join("cmdline")).ok()?;
            let mut words = line.split('\0');
            // One that plans a restore replicates nothing.
            let is_litestream = words.next()?.ends_with("/litestream");
            let replicates = is_litestream && words.next()? == "replicate";
            (replicates && words.any(|word| word.starts_with(&folder))).then_some(pid)
        })
        .collect()
}

/// An executable script in the site's folder.
pub(crate) fn script(site: &Site, name: &str, text: &str) -> Result<PathBuf> {
    let path = site.root().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}"))?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Has edgerepl run `script` for Litestream, with Litestream's own words after it.
pub(crate) fn use_script(site: &mut Site, script: &Path) {
    let config = site.root().join("litestream.yml");
    let command = format!("[{script:?}, \"replicate\", \"-config\", {config:?}]");
    site.set("replication", "command", command);
}

/// Has each case suffered on a device of its own, all at once: most of the time they wait.
pub(crate) fn all_at_once<C: Debug + Sync>(
    cases: &[C],
    suffer: impl Fn(&C) -> Result + Sync,
) -> Result {
    let told = |case: &C| suffer(case).map_err(|e| format!("{case:?}: {e}"));
    let failed: Vec<String> = thread::scope(|scope| {
        let told = &told;
        let threads: Vec<_> = cases.iter().map(|c| scope.spawn(move || told(c))).collect();
        let ended = threads.into_iter().zip(cases).map(|(thread, case)| {
            let panicked = |_| Err(format!("{case:?} panicked"));
            thread.join().unwrap_or_else(panicked)
        });
        ended.filter_map(std::result::Result::err).collect()
    });
    match failed.is_empty() {
        true => Ok(()),
        false => Err(failed.join("\n\n").into()),
    }
}

/// Something that an application does over and over, on a thread and a connection of its own.
pub(crate) struct Application {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<rusqlite::Result<u64>>>,
}

impl Application {
    /// Writes a row every `pace`.
    pub(crate) fn writing(site: &Site, pace: Duration) -> Result<Self> {
        Self::doing(site, pace, write_row)
    }

    /// Does `what` every `pace`, and ends at its first error.
    pub(crate) fn doing(
        site: &Site,
        pace: Duration,
        what: impl FnMut(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<Self> {
        Ok(Self::with(site.connect()?, pace, what))
    }

    /// The same with a connection that it is given.
    pub(crate) fn with(
        database: Connection,
        pace: Duration,
        mut what: impl FnMut(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut times = 0;
            while !stopped.load(Ordering::Relaxed) {
                let next = Instant::now() + pace;
                what(&database)?;
                times += 1;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok(times)
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it; how often it did what it does.
    pub(crate) fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or("it was stopped before")?;
        Ok(thread.join().map_err(|_| "the application panicked")??)
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
