//! A Rust toolchain and C compilers that build for the devices.
//!
//! The user's own toolchain comes first. Where it lacks a device's standard library (`rustup` can
//! add it, where its servers are within reach) Debian's compiler does it, with a standard library put
//! beside it. Never touches the user's toolchains, and leaves no link in rustup.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use edgerepl_tools as tools;

use super::{AGAIN, SetupError, about, packages, program, standard_library};
use crate::{setup::packages::Package, target::Target};

/// A cargo and the compiler that it is to use.
pub struct Toolchain {
    cargo: PathBuf,
    rustc: Option<PathBuf>,
}

impl Toolchain {
    /// Cargo, for the workspace of what ships.
    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo.args(arguments).current_dir(edgerepl_tools::root());
        edgerepl_tools::as_if_by_hand(&mut cargo);
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
        cargo
    }

    fn of_user() -> Self {
        Self {
            cargo: env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from),
            rustc: None,
        }
    }
}

/// Makes sure of all that it takes to build for these machines.
pub(super) fn install(targets: &[&Target]) -> Result<Toolchain, SetupError> {
    let own = targets.iter().all(|target| own_library_is_there(target));
    let mut needed: Vec<Package> = targets.iter().flat_map(|target| compiler(target)).collect();
    if !own {
        needed
            .extend(DEBIAN_RUST.map(|name| Package::new(name, packages::version(name).is_some())));
    }
    packages::install(&needed)?;
    if own {
        return Ok(Toolchain::of_user());
    }
    Ok(Toolchain {
        cargo: "/usr/bin/cargo".into(),
        rustc: Some(debian_compiler(targets)?),
    })
}

/// Whether the user's own compiler has the standard library for these machines.
fn own_library_is_there(target: &Target) -> bool {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let rustc = rustc.args(["--print", "target-libdir", "--target", target.triple]);
    let output = rustc.current_dir(edgerepl_tools::root()).output();
    output.is_ok_and(|output| {
        let directory = String::from_utf8_lossy(&output.stdout);
        output.status.success() && holds_library(Path::new(directory.trim()))
    })
}

fn holds_library(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| {
        entries.any(|entry| {
            let name = entry.map(|entry| entry.file_name()).unwrap_or_default();
            let name = name.to_string_lossy();
            name.starts_with("libstd-") && name.ends_with(".rlib")
        })
    })
}

/// GCC for the device, with its C library: it links, and compiles SQLite and ring.
fn compiler(target: &Target) -> [Package; 2] {
    let gnu = target.gnu;
    let gcc = program(&format!("{gnu}-gcc")).is_some();
    [
        Package::new(format!("gcc-{gnu}"), gcc),
        Package::new(format!("libc6-dev-{}-cross", target.debian), gcc),
    ]
}

/// Debian's newer Rust; its package `rustc` is years old.
const DEBIAN_RUST: [&str; 2] = ["rustc-web", "cargo-web"];

/// A system root for Debian's compiler that has the devices' standard libraries too. Its path names
/// the version, so that another compiler gets another root.
fn debian_compiler(targets: &[&Target]) -> Result<PathBuf, SetupError> {
    let version = packages::version("rustc-web").ok_or_else(|| {
        let cause = "dpkg does not know its version".to_owned();
        SetupError::new(&"rustc-web", cause, AGAIN)
    })?;
    let upstream = standard_library::upstream(&version);
    let root = tools::directory().join(format!("rust-{upstream}"));
    let libraries = root.join("lib").join("rustlib");
    for target in targets {
        if !holds_library(&libraries.join(target.triple).join("lib")) {
            standard_library::install(target, &version, &libraries)?;
        }
    }
    let host = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let link = libraries.join(&host);
    if !link.exists() {
        symlink(Path::new("/usr/lib/rustlib").join(&host), &link).map_err(about(&link))?;
    }
    // A compiler knows its root by its own path, and Debian's is in /usr: it has to be told. Wherever
    // the workspace is moved to, the root is the script's own folder.
    let script = root.join("rustc");
    if !script.exists() {
        let text = "#!/bin/sh\nexec /usr/bin/rustc --sysroot \"${0%/*}\" \"$@\"\n";
        fs::write(&script, text).map_err(about(&script))?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&script, mode).map_err(about(&script))?;
    }
    script.canonicalize().map_err(about(&script))
}
