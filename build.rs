//! Stamps the build time into the program: the device's clock is never believed to be earlier.
//!
//! `SOURCE_DATE_EPOCH` is honoured (reproducible-builds.org), as Yocto, Buildroot and Debian set it.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=build.rs");
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |t| t.as_secs())
    };
    let built = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(given) => given
            .parse()
            .expect("SOURCE_DATE_EPOCH is not a number of seconds"),
        Err(_) => now(),
    };
    println!("cargo::rustc-env=EDGEREPL_BUILD_TIME={built}");
}
