//! `cargo xtask deb`: Debian packages, for those who start on Raspberry Pi OS.
//!
//! Owns what the package is built from and what it depends on. What is in it, `dist/install.sh`
//! says; how packages behave, debhelper; whether it is a good one, lintian.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use edgerepl_tools::{Workspace, root};
use xtask::target::{self, Target};
use xtask::{Outcome, cross, process, setup};

/// Builds packages for these machines, named as Debian names them: for all devices where none is.
pub(crate) fn deb(arguments: &[&str]) -> Outcome {
    let machines = machines(arguments)?;
    setup::packaging()?;
    let mut packages = Vec::new();
    for machine in machines {
        packages.push(package(machine)?);
    }
    let judged = process::run(
        Command::new("lintian")
            .args(["--fail-on", "error", "--tag-display-limit", "0"])
            // Whoever builds packages as root means to.
            .arg("--allow-root")
            .args(&packages),
    );
    for package in &packages {
        println!(
            "{:>9} bytes  {}",
            package.metadata()?.len(),
            package.display()
        );
    }
    Ok(judged.map(|()| true)?)
}

/// For whom a package is built.
#[derive(Debug, Eq, PartialEq)]
enum Machine {
    /// The one that builds.
    Own,
    Device(&'static Target),
}

impl Machine {
    fn debian(&self) -> &'static str {
        match self {
            Self::Own => "amd64",
            Self::Device(target) => target.debian,
        }
    }
}

fn machines(arguments: &[&str]) -> Result<Vec<Machine>, Box<dyn Error>> {
    let all = || target::ALL.into_iter().map(Machine::Device);
    match arguments {
        [] => Ok(all().collect()),
        ["--arch", arch] => {
            let own = (env::consts::ARCH == "x86_64").then_some(Machine::Own);
            let known: Vec<Machine> = all().chain(own).collect();
            let names: Vec<&str> = known.iter().map(Machine::debian).collect();
            let unknown = format!(
                "there is no package for {arch:?}; there are {}",
                names.join(", ")
            );
            let found = known.into_iter().find(|m| m.debian() == *arch);
            Ok(vec![found.ok_or(unknown)?])
        }
        _ => Err("use --arch ARCHITECTURE, or nothing for all devices".into()),
    }
}

fn package(machine: Machine) -> Result<PathBuf, Box<dyn Error>> {
    let binary = match machine {
        Machine::Own => own_binary()?,
        Machine::Device(target) => cross::build(&setup::cross(&[target])?, target)?,
    };
    let arch = machine.debian();
    // debhelper wants a folder of its own with `debian` in it, and leaves the package beside it.
    let beside = root().join("target/deb").join(arch);
    let source = beside.join("source");
    if source.exists() {
        fs::remove_dir_all(&source)?;
    }
    fs::create_dir_all(&source)?;
    process::run(
        Command::new("cp")
            .arg("--recursive")
            .arg(root().join("dist"))
            .arg(&source),
    )?;
    fs::rename(source.join("dist/debian"), source.join("debian"))?;
    let version = process::output(
        Command::new("dpkg-parsechangelog")
            .args(["--show-field", "Version"])
            .current_dir(&source),
    )?;
    let version = version.trim();
    if version != env!("CARGO_PKG_VERSION") {
        let cause = format!("dist/debian/changelog is about {version}");
        return Err(format!(
            "{cause}, and Cargo.toml about {}",
            env!("CARGO_PKG_VERSION")
        )
        .into());
    }
    fs::copy(&binary, source.join("edgerepl"))?;
    let depends = depends(&process::output(
        Command::new("readelf")
            .args(["--wide", "--dynamic", "--version-info"])
            .arg(&binary),
    )?)?;
    fs::write(
        source.join("libraries.substvars"),
        format!("shlibs:Depends={depends}\n"),
    )?;
    process::run(
        Command::new("dpkg-buildpackage")
            .args(["--build=binary", "--no-sign", "--no-check-builddeps"])
            .arg(format!("--host-arch={arch}"))
            // Nothing is built there that could be tested.
            .env("DEB_BUILD_OPTIONS", "nocheck")
            .current_dir(&source),
    )?;
    Ok(beside.join(format!("edgerepl_{version}_{arch}.deb")))
}

/// The release binary for this machine.
fn own_binary() -> Result<PathBuf, Box<dyn Error>> {
    process::run(
        Workspace::Shipped
            .cargo("build")
            .args(["--locked", "--release"]),
    )?;
    // xtask was built by the same cargo, into the folder beside.
    let folder = env::current_exe()?.ancestors().nth(2).map(Path::to_owned);
    Ok(folder
        .ok_or("xtask has no folder")?
        .join("release/edgerepl"))
}

/// The packages that the program's libraries come from, from what `readelf` prints of it.
///
/// Not by `dpkg-shlibdeps`, which looks for libraries of the device's architecture on the machine
/// that builds. The newest symbol of glibc that is used decides, as it does there.
fn depends(dynamic: &str) -> Result<String, String> {
    let mut packages = Vec::new();
    for library in dynamic.lines().filter(|l| l.contains("(NEEDED)")) {
        let name = library.split(['[', ']']).nth(1).unwrap_or_default();
        let package = match name {
            "libc.so.6" | "libm.so.6" => format!("libc6 (>= 2.{})", newest_glibc(dynamic)?),
            "libgcc_s.so.1" => "libgcc-s1".to_owned(),
            _ if name.starts_with("ld-linux") => continue,
            _ => return Err(format!("nobody knows which package brings {name:?}")),
        };
        if !packages.contains(&package) {
            packages.push(package);
        }
    }
    packages.sort();
    if packages.is_empty() {
        return Err("the program is linked to nothing: PKCS#11 modules need glibc".to_owned());
    }
    Ok(packages.join(", "))
}

/// `34` of `GLIBC_2.34`, the highest.
fn newest_glibc(dynamic: &str) -> Result<u32, String> {
    let versions = dynamic.split("GLIBC_2.").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit());
        rest[..end.unwrap_or(rest.len())].parse().ok()
    });
    versions
        .max()
        .ok_or_else(|| "no version of glibc is asked for".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{depends, machines};

    const DYNAMIC: &str = "
 0x0000000000000001 (NEEDED)             Shared library: [libgcc_s.so.1]
 0x0000000000000001 (NEEDED)             Shared library: [libm.so.6]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
 0x0000000000000001 (NEEDED)             Shared library: [ld-linux-aarch64.so.1]
  0x0020:   Name: GLIBC_2.17  Flags: none  Version: 9
  0x0030:   Name: GLIBC_2.34  Flags: none  Version: 5
  0x0040:   Name: GLIBC_2.4  Flags: none  Version: 3
";

    #[test]
    fn depends_on_what_the_program_is_linked_to() {
        assert_eq!(
            depends(DYNAMIC).as_deref(),
            Ok("libc6 (>= 2.34), libgcc-s1")
        );
        let strange = DYNAMIC.replace("libm.so.6", "libsqlite3.so.0");
        assert!(depends(&strange).is_err_and(|e| e.contains("libsqlite3.so.0")));
        assert!(depends("There is no dynamic section in this file.").is_err());
    }

    #[test]
    fn packages_for_whom_it_is_told() {
        let names = |words: &[&str]| -> Option<Vec<&str>> {
            let found = machines(words).ok()?;
            Some(found.iter().map(|machine| machine.debian()).collect())
        };
        assert_eq!(names(&[]), Some(vec!["arm64", "armhf"]));
        assert_eq!(names(&["--arch", "armhf"]), Some(vec!["armhf"]));
        assert_eq!(names(&["--arch", "aarch64"]), None);
        assert_eq!(names(&["arm64"]), None);
    }
}
