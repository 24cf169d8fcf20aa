//! `cargo xtask cross`: the release binaries for the devices, from a machine that is none.
//!
//! Owns how they are built; what the release profile is stands in Cargo.toml.

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Outcome;
use crate::setup::{self, Toolchain};
use crate::target::{self, Target};

/// Builds for these architectures, or for all; with `--system-sqlite` for SQLite as a library of the
/// device's.
pub fn cross(arguments: &[&str]) -> Outcome {
    const SYSTEM_SQLITE: &str = "--system-sqlite";
    let is_system = arguments.contains(&SYSTEM_SQLITE);
    let arguments: Vec<&str> = arguments
        .iter()
        .copied()
        .filter(|argument| *argument != SYSTEM_SQLITE)
        .collect();
    let targets = targets(&arguments)?;
    let toolchain = setup::cross(&targets)?;
    let mut table = format!("{:<14} {:>9}  binary\n", "architecture", "bytes");
    for target in targets {
        let binary = if is_system {
            build_for_system_sqlite(&toolchain, target)?
        } else {
            build(&toolchain, target)?
        };
        let size = binary.metadata()?.len();
        table += &format!("{:<14} {size:>9}  {}\n", target.arch, binary.display());
    }
    print!("{table}");
    Ok(true)
}

/// Those of `--arch ARCHITECTURE…`, or all.
pub fn targets(arguments: &[&str]) -> Result<Vec<&'static Target>, Box<dyn Error>> {
    let mut chosen = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let ("--arch", Some(arch)) = (*word, words.next()) else {
            return Err(format!("{word:?} is not understood: use --arch ARCHITECTURE").into());
        };
        let target = target::named(arch)?;
        if !chosen.contains(&target) {
            chosen.push(target);
        }
    }
    if chosen.is_empty() {
        chosen.extend(target::ALL);
    }
    Ok(chosen)
}

/// Builds the shipped program, and answers with where it is.
pub fn build(toolchain: &Toolchain, target: &Target) -> Result<PathBuf, Box<dyn Error>> {
    run(command(toolchain, "build", target), target)
}

/// The same, linked with Debian's SQLite.
fn build_for_system_sqlite(
    toolchain: &Toolchain,
    target: &Target,
) -> Result<PathBuf, Box<dyn Error>> {
    let sqlite = setup::sqlite(target)?;
    let mut cargo = command(toolchain, "rustc", target);
    cargo
        .arg("--no-default-features")
        .env("SQLITE3_LIB_DIR", sqlite.join("usr/lib").join(target.gnu))
        .env("SQLITE3_INCLUDE_DIR", sqlite.join("usr/include"))
        // That SQLite wants a newer C library than the cross compiler has, and finds it on its device.
        .args(["--", "-C", "link-arg=-Wl,--allow-shlib-undefined"]);
    run(cargo, target)
}

fn command(toolchain: &Toolchain, verb: &str, target: &Target) -> Command {
    let mut cargo = toolchain.cargo(&[verb, "--locked", "--release", "--package", "edgerepl"]);
    cargo
        .args(["--bin", "edgerepl", "--target", target.triple])
        .args(["--message-format", "json-render-diagnostics"]);
    cargo
}

fn run(mut cargo: Command, target: &Target) -> Result<PathBuf, Box<dyn Error>> {
    let output = cargo.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        let arch = target.arch;
        return Err(format!("edgerepl can't be built for {arch}: see cargo's errors above").into());
    }
    let messages = String::from_utf8(output.stdout)?;
    let binary = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message["executable"].as_str()?))
    });
    Ok(binary.ok_or("cargo names no binary")?)
}

#[cfg(test)]
mod tests {
    use super::targets;

    #[test]
    fn builds_for_whom_it_is_told() {
        let names = |words: &[&str]| -> Option<Vec<&str>> {
            let found = targets(words).ok()?;
            Some(found.into_iter().map(|target| target.arch).collect())
        };
        assert_eq!(names(&[]), Some(vec!["aarch64", "armv7"]));
        assert_eq!(names(&["--arch", "armv7"]), Some(vec!["armv7"]));
        let both = ["--arch", "armv7", "--arch", "aarch64", "--arch", "armv7"];
        assert_eq!(names(&both), Some(vec!["armv7", "aarch64"]));
        for wrong in [&["--arch"][..], &["armv7"], &["--arch", "mips"]] {
            assert_eq!(names(wrong), None, "{wrong:?}");
        }
    }
}
