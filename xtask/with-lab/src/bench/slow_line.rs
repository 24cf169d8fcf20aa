//! The first upload of a database over a line of 64 kbit/s, with sessions that are shorter than it.
//!
//! Owns the device, its line, and an application that writes a row each second all along. It counts how often
//! the upload was begun, and what went over the line until every row was proved. `EDGEREPL_BENCH_RATE` is
//! another line's bytes a second.

use std::env;
use std::num::NonZeroU64;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use edgerepl_lab::{Daemon, S3Request};
use rusqlite::Connection;
use serde_json::Value;
use xtask::Outcome;

use super::device::device;

/// 64 kbit/s.
const RATE: u64 = 8000;

/// What is in the database when it is uploaded first, in pages of 4096 bytes that can't be compressed.
const PAGES: u64 = 4882;

/// AWS's shortest.
const LIFETIME: Duration = Duration::from_secs(900);

/// The first upload takes an hour and a half; what takes so long has not ended.
const LIMIT: Duration = Duration::from_secs(2 * 3600);

/// How often it is looked how far it is.
const PACE: Duration = Duration::from_secs(1);

/// Prints what was counted. True where the upload was begun once, and every row is restored.
pub(super) fn slow_line(program: &Path) -> Outcome {
    let rate = match env::var("EDGEREPL_BENCH_RATE") {
        Ok(rate) => rate.parse()?,
        Err(_) => RATE,
    };
    let (lab, mut site) =
        device(program, LIFETIME, "\"1m\"", "\"1m\"").map_err(|e| e.to_string())?;
    site.set("replication", "rotation", "\"refresh\"");
    site.use_one_file(&lab)?;
    let application = site.connect()?;
    application.execute_batch(&format!(
        "CREATE TABLE filling (id INTEGER PRIMARY KEY, data BLOB);
         CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {PAGES})
         INSERT INTO filling SELECT i, randomblob(4096) FROM n;"
    ))?;
    lab.s3().set_rate(NonZeroU64::new(rate));
    let begun = Instant::now();
    let daemon = site.start()?;

    let first = wait(&daemon, &application, begun, |status| {
        !status["replication"]["proof"].is_null()
    })?;
    let proved = begun.elapsed();
    let until_proved = lab.s3().requests();
    let healthy = wait(&daemon, &application, begun, |status| {
        status["state"] == "healthy"
    })?;
    let followed = begun.elapsed();
    lab.s3().set_rate(None);
    daemon.terminate()?;
    let comparison = site.compare(&lab)?;

    let begins = whole_uploads(&until_proved);
    let bytes: u64 = until_proved.iter().map(|request| request.bytes).sum();
    println!(
        "{rate} bytes a second, sessions of {} s",
        LIFETIME.as_secs()
    );
    println!(
        "the first proof after {} s, healthy after {} s",
        proved.as_secs(),
        followed.as_secs()
    );
    println!("{bytes} bytes of bodies until then; the upload was begun {begins} times");
    for (when, status) in [("at the proof", first), ("in the end", healthy)] {
        let replication = &status["replication"];
        println!(
            "{when}: {} starts, {} rotations, the WAL {} bytes",
            replication["starts"], replication["rotations"], status["databases"][0]["wal_bytes"]
        );
    }
    println!("{comparison:?}");
    Ok(comparison.is_equal() && begins == 1)
}

/// How often the first upload was begun: it is in parts.
fn whole_uploads(requests: &[S3Request]) -> usize {
    let begun = |r: &&S3Request| r.operation == "CreateMultipartUpload" && r.key.contains("/0000/");
    requests.iter().filter(begun).count()
}

/// Writes a row each second until the status is as wanted, and tells once a minute how far it is.
fn wait(
    daemon: &Daemon,
    application: &Connection,
    begun: Instant,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value, Box<dyn std::error::Error>> {
    let mut told = begun.elapsed().as_secs() / 60;
    loop {
        application.execute("INSERT INTO row (text) VALUES (hex(randomblob(50)))", [])?;
        let status = daemon.status().unwrap_or_default();
        if wanted(&status) {
            return Ok(status);
        }
        if begun.elapsed() > LIMIT {
            return Err(format!("not within {LIMIT:?}: {status:#}; {}", daemon.log()).into());
        }
        let minutes = begun.elapsed().as_secs() / 60;
        if std::mem::replace(&mut told, minutes) != minutes {
            println!("{minutes} min: {}", status["replication"]["upload"]);
        }
        thread::sleep(PACE);
    }
}
