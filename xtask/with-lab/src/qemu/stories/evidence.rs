//! What shows that a story ended well, in words of the tests.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use edgerepl_lab::Comparison;
use serde_json::Value;

use super::Failure;
use crate::qemu::rig::{LIMIT, Rig, Running};

pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(otherwise().into())
    }
}

/// The replicas of a device that is off, beside its databases: equal, or this fails.
pub(super) fn rows(rig: &Rig) -> Result<(&'static str, String), Failure> {
    let comparisons = rig.compare()?;
    let mut figures = Vec::new();
    for (name, comparison) in &comparisons {
        ensure(comparison.is_equal() && comparison.live > 0, || {
            format!("{name}: {comparison:?}")
        })?;
        let Comparison { live, restored, .. } = comparison;
        figures.push(match comparisons.len() {
            1 => format!("{live} = {restored}"),
            _ => format!("{name} {live} = {restored}"),
        });
    }
    Ok(("rows, live and in the replica", figures.join(", ")))
}

/// What was uploaded to begin a replica: so many times, or this fails.
pub(super) fn snapshots(rig: &Rig, wanted: usize) -> Result<(&'static str, String), Failure> {
    let requests = rig.lab.s3().requests().into_iter();
    let stored = requests.filter(|request| {
        matches!(request.operation, "PutObject" | "CompleteMultipartUpload")
            && request.status == Some(200)
            && request.key.contains(SNAPSHOTS)
    });
    let keys: Vec<String> = stored.map(|request| request.key).collect();
    ensure(keys.len() == wanted, || format!("snapshots: {keys:?}"))?;
    Ok(("snapshots", keys.len().to_string()))
}

/// How Litestream files them.
const SNAPSHOTS: &str = "/0009/";

/// Nobody had to start the daemon again.
pub(super) fn same_daemon(status: &Value, pid: &Value) -> Result<(), Failure> {
    ensure(status["pid"] == *pid, || {
        "the daemon was restarted".to_owned()
    })
}

pub(super) fn no_failed_units(device: &mut Running) -> Result<(), Failure> {
    let failed = device.shell.run("systemctl --failed --plain --no-legend")?;
    ensure(failed.trim().is_empty(), || {
        format!("units have failed: {failed}")
    })
}

/// Waits until the device was granted more credentials than so many.
pub(super) fn await_grant(rig: &Rig, before: usize) -> Result<(), Failure> {
    let begun = Instant::now();
    while rig.lab.provider().issued().len() <= before {
        ensure(begun.elapsed() < LIMIT, || "no next credentials".to_owned())?;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The seed of a story with chance: one that was given, or the time. It is told, so that it can be given.
pub(super) fn seed() -> Result<u64, Failure> {
    let seed = match std::env::var("EDGEREPL_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    println!("  EDGEREPL_SEED={seed}");
    Ok(seed)
}

/// For people.
pub(super) fn took(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f32())
}

/// Numbers from a seed (xorshift): the same for the same.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
