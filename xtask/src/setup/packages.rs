//! Packages of the distribution, for the machine that builds.
//!
//! Owns the one place that changes the system; what is there already, from wherever it came, is
//! left alone.

use std::process::Command;

use super::{SetupError, debian::Archive, run};

/// A Debian package, and whether what it brings is there already.
pub(super) struct Package {
    name: String,
    is_there: bool,
}

impl Package {
    pub(super) fn new(name: impl Into<String>, is_there: bool) -> Self {
        let name = name.into();
        Self { name, is_there }
    }
}

/// Installs those that are missing.
pub(super) fn install(packages: &[Package]) -> Result<(), SetupError> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|package| !package.is_there)
        .map(|package| package.name.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    println!("setup: installing the packages {names}");
    let by_hand = format!("install {names} with your distribution's package manager");
    run(
        &mut apt_get(&["update", "--quiet"]),
        "apt-get update",
        &by_hand,
    )?;
    let mut apt = apt_get(&["install", "--quiet", "--yes", "--no-install-recommends"]);
    run(apt.args(missing), "apt-get install", &by_hand).map(drop)
}

/// Installs packages from the release's backports, by the private view of the archive: the machine's
/// own sources need not name them, and stay as they are.
pub(super) fn install_backports(names: &[&str]) -> Result<(), SetupError> {
    let archive = Archive::open()?;
    let release = archive.backports()?;
    let joined = names.join(" ");
    println!("setup: installing the packages {joined} from {release}");
    let by_hand = format!("install {joined} of {release} with apt-get");
    let mut apt = apt_get(&["install", "--quiet", "--yes", "--no-install-recommends"]);
    // The view knows of no installed package by itself.
    apt.arg("--option=Dir::State::Status=/var/lib/dpkg/status")
        .args(names.iter().map(|name| format!("{name}/{release}")));
    run(archive.look_through(&mut apt), "apt-get install", &by_hand).map(drop)
}

/// The version of a package that dpkg installed.
pub(super) fn version(name: &str) -> Option<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${db:Status-Status} ${Version}"]);
    let output = query.arg(name).output().ok()?;
    let shown = String::from_utf8(output.stdout).ok()?;
    Some(shown.strip_prefix("installed ")?.to_owned())
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = if is_root() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["--preserve-env=APT_CONFIG,DEBIAN_FRONTEND", "apt-get"]);
        sudo
    };
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Whether this user may do everything.
pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
