//! The devices that benchmarks count: each with a lab of its own, side by side.
//!
//! Owns how such a device is made, and for how long it is counted. Counts nothing.

use std::env;
use std::error::Error;
use std::path::Path;
use std::thread;
use std::time::Duration;

use edgerepl_lab::{KeyKind, Lab, LabOptions, Site};

pub(super) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The first minutes are a start's.
pub(super) const SETTLES: Duration = Duration::from_secs(120);

/// A session as most devices have one.
pub(super) const LIFETIME: Duration = Duration::from_secs(3600);

/// A device with a database, before its first start. `rpo` and `heartbeat` are as TOML has them.
pub(super) fn device(
    program: &Path,
    lifetime: Duration,
    rpo: &str,
    heartbeat: &str,
) -> Result<(Lab, Site)> {
    let lab = Lab::start(LabOptions {
        lifetime,
        ..LabOptions::default()
    })?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing")?;
    let mut site = Site::new(&lab, device, program)?;
    site.set("replication", "rpo", rpo);
    site.set("heartbeat", "interval", heartbeat);
    Ok((lab, site))
}

/// Has a device of each case counted for so many seconds, unless `EDGEREPL_BENCH_SECONDS` says otherwise.
pub(super) fn side_by_side<Case: Copy + Send, Count: Send, const N: usize>(
    cases: [Case; N],
    seconds: u64,
    count: impl Fn(Case, Duration) -> Result<Count> + Sync,
) -> Result<Vec<Count>> {
    let seconds = match env::var("EDGEREPL_BENCH_SECONDS") {
        Ok(seconds) => seconds.parse()?,
        Err(_) => seconds,
    };
    let counted = Duration::from_secs(seconds);
    let minutes = (SETTLES + counted).as_secs() / 60;
    println!("{N} devices side by side, for {minutes} min");
    let count = &count;
    let counts = thread::scope(|scope| {
        let devices = cases.map(|case| scope.spawn(move || count(case, counted)));
        devices.map(|device| match device.join() {
            Ok(count) => count,
            Err(_) => Err("a device panicked".into()),
        })
    });
    counts.into_iter().collect()
}
