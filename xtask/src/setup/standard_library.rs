//! Rust's standard library for a device, in the system root of Debian's compiler.
//!
//! Owns where it comes from: Debian's archive, built; or, where a mirror has no good list for the
//! device's architecture (one in the middle of its own update has none), the sources of the same
//! version, which every architecture's list names. Either way apt has checked them by Debian's keys.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{AGAIN, SetupError, about, debian::Archive, run};
use crate::target::Target;

/// Puts it in its place below `libraries`, the system root's `lib/rustlib`, for the compiler of this
/// version of Debian's package.
pub(super) fn install(target: &Target, version: &str, libraries: &Path) -> Result<(), SetupError> {
    let archive = Archive::open()?;
    let scratch = libraries.join(format!(".unpack.{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(about(&scratch))?;
    let name = format!("libstd-rust-web-dev:{}", target.debian);
    let found = match offered(&archive, &name, version)? {
        Some(built) => archive
            .unpack(&[&format!("{name}={built}")], &scratch)
            .map(|()| scratch.join("usr/lib/rustlib").join(target.triple)),
        None => build(target, version, &archive, &scratch),
    };
    let placed = found.and_then(|found| {
        // One rename: what is in its place is whole.
        fs::rename(&found, libraries.join(target.triple)).map_err(about(&found))
    });
    let cleared = fs::remove_dir_all(&scratch).map_err(about(&scratch));
    placed.and(cleared)
}

/// A compiler reads the library of its own upstream version, from whichever release of Debian: the
/// same build comes first.
fn offered(archive: &Archive, name: &str, version: &str) -> Result<Option<String>, SetupError> {
    let versions = archive.versions(name)?;
    let is_same_upstream = |offer: &&String| upstream(offer) == upstream(version);
    let same_build = versions.iter().find(|offer| *offer == version);
    let chosen = same_build.or_else(|| versions.iter().find(is_same_upstream));
    Ok(chosen.cloned())
}

/// A version of Debian's package without Debian's own revision.
pub(super) fn upstream(version: &str) -> &str {
    version.rsplit_once('-').map_or(version, |parts| parts.0)
}

/// Builds it as Rust's own build does: all that a program may link, to be optimised with the program.
fn build(
    target: &Target,
    version: &str,
    archive: &Archive,
    scratch: &Path,
) -> Result<PathBuf, SetupError> {
    const SOURCES: &str = "rust-web-src";
    let triple = target.triple;
    let sources = offered(archive, SOURCES, version)?.ok_or_else(|| {
        let cause = format!("the archive has neither it nor its sources in version {version}");
        let next = "bring rustc-web up to date with apt-get, and run it again";
        SetupError::new(
            &format!("Rust's standard library for {triple}"),
            cause,
            next,
        )
    })?;
    archive.unpack(&[&format!("{SOURCES}={sources}")], scratch)?;
    println!("setup: building Rust's standard library for {triple}, which takes a minute or two");
    let unpacked = scratch.join("usr/src");
    let entries = fs::read_dir(&unpacked).map_err(about(&unpacked))?;
    let mut folders = entries.filter_map(|entry| Some(entry.ok()?.path().join("library")));
    let library = folders.find(|folder| folder.is_dir()).ok_or_else(|| {
        let cause = "the package has no folder of that name".to_owned();
        SetupError::new(&unpacked.join("*/library").display(), cause, AGAIN)
    })?;

    let built = scratch.join("built");
    let mut cargo = Command::new("/usr/bin/cargo");
    edgerepl_tools::as_if_by_hand(&mut cargo);
    cargo
        .args(["build", "--quiet", "--locked", "--release"])
        .args(["--features", "panic-unwind backtrace", "--target", triple])
        .arg("--manifest-path")
        .arg(library.join("sysroot/Cargo.toml"))
        .arg("--target-dir")
        .arg(&built)
        .current_dir(edgerepl_tools::root())
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTC_BOOTSTRAP", "1")
        // As the name of any other library, that of std then tells what it was built from.
        .env("__CARGO_DEFAULT_LIB_METADATA", "edgerepl")
        .env(
            "RUSTFLAGS",
            "-Zforce-unstable-if-unmarked -Cembed-bitcode=yes",
        );
    let next = "see that this machine reaches a registry of crates, and run it again";
    run(&mut cargo, "Rust's standard library", next)?;

    // Cargo leaves them among files of its own.
    let output = built.join(triple).join("release/deps");
    let whole = scratch.join(triple);
    let into = whole.join("lib");
    fs::create_dir_all(&into).map_err(about(&into))?;
    for entry in fs::read_dir(&output).map_err(about(&output))? {
        let entry = entry.map_err(about(&output))?;
        let path = entry.path();
        if path.extension().is_some_and(|end| end == "rlib") {
            fs::rename(&path, into.join(entry.file_name())).map_err(about(&path))?;
        }
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::upstream;

    #[test]
    fn a_revision_of_debians_is_not_of_the_library() {
        assert_eq!(upstream("1.96.0+dfsg1-1~deb12u2"), "1.96.0+dfsg1");
        assert_eq!(upstream("1.96.0+dfsg1-1~deb13u1+b1"), "1.96.0+dfsg1");
        assert_eq!(upstream("1.96.0"), "1.96.0");
    }
}
