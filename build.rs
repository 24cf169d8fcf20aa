//! Stamps the build time into the program, and refuses to build one whose SQLite ends in 2038.

fn main() {
    stamp_build_time();
    #[cfg(feature = "bundled-sqlite")]
    time_of_sqlite::check();
}

/// The device's clock is never believed to be earlier. `SOURCE_DATE_EPOCH` is honoured
/// (reproducible-builds.org), as Yocto, Buildroot and Debian set it.
fn stamp_build_time() {
    use std::time::{SystemTime, UNIX_EPOCH};

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

/// A C library of a 32-bit machine has two kinds of time. With that of 32 bits SQLite can't even open
/// a database that was written to after January 2038.
#[cfg(feature = "bundled-sqlite")]
mod time_of_sqlite {
    use std::env;
    use std::fs;
    use std::path::Path;

    const PROBE: &str = "#include <time.h>\nchar wide[sizeof(time_t) >= 8 ? 1 : -1];\n";

    pub(super) fn check() {
        println!("cargo::rerun-if-env-changed=LIBSQLITE3_FLAGS");
        if env::var("CARGO_CFG_TARGET_POINTER_WIDTH").as_deref() != Ok("32") {
            return;
        }
        let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
        let probe = Path::new(&out).join("time.c");
        fs::write(&probe, PROBE).expect("the probe cannot be written");
        // The same compiler with the same flags as for SQLite.
        let mut compiler = cc::Build::new();
        compiler.file(probe).warnings(false).cargo_metadata(false);
        let flags = env::var("LIBSQLITE3_FLAGS").unwrap_or_default();
        for flag in flags.split_whitespace().filter(|f| f.starts_with('-')) {
            compiler.flag(flag);
        }
        assert!(
            compiler.try_compile("time").is_ok(),
            "SQLite would be built with a time_t of 32 bits, and would fail from January 2038: \
             set LIBSQLITE3_FLAGS=\"-D_TIME_BITS=64 -D_FILE_OFFSET_BITS=64\" (glibc 2.34 or later)"
        );
    }
}
