//! The project's own tasks: `cargo xtask TASK`.
//!
//! Owns what a developer or the gate runs. Each task sets up what it needs by itself, so that the
//! first command on a fresh machine is also the only one.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

mod cross;
mod deb;
mod demo;
mod image;
mod layers;
mod process;
mod qemu;
mod setup;
mod suites;
mod target;

const HELP: &str = "\
Usage: cargo xtask TASK

Tasks:
  demo [--real-time]  shows the main job on real parts: six rotations by refresh and by restart,
                      side by side, what each has cost, and that no row is lost
  test [SUITE...]     all tests, or these suites of them
  test secure-element --accept-microchip-licence
                      edgerepl with Microchip's own PKCS#11 module, built here, and a simulated
                      ATECC608; for those who may use that module
  cross [--arch aarch64|armv7]... [--system-sqlite]
                      the release binaries for devices; with the device's own SQLite if so told
  image [--arch aarch64|armv7]...
                      the firmware that the QEMU tests boot
  deb [--arch arm64|armhf|amd64]
                      Debian packages, judged by lintian
  layers [--buildroot FOLDER]
                      checks the Yocto layer and the Buildroot tree; with Buildroot's own tools
                      where its tree is given
  qemu [--arch aarch64|armv7] [--image FILE] [--all | TEST...]
                      boots that firmware in QEMU: the gate's tests, all, or these; or one that
                      Yocto or Buildroot made, with its kernel beside it
  qemu secure-element --accept-microchip-licence
                      that module and that chip there, on a bus of the device's kernel
  setup               installs what demo and test need; each task does so itself
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["cross", arguments @ ..] => cross::cross(arguments),
        ["deb", arguments @ ..] => deb::deb(arguments),
        ["demo"] => demo::demo(&demo::Pace::SHORT),
        ["demo", "--real-time"] => demo::demo(&demo::Pace::REAL),
        ["image", arguments @ ..] => image::image(arguments),
        ["layers", arguments @ ..] => layers::layers(arguments),
        ["qemu", arguments @ ..] => qemu::qemu(arguments),
        ["setup"] => setup::setup().map(|()| true).map_err(Into::into),
        ["test", suites @ ..] => suites::test(suites),
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(64);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// True where the task's question was answered with yes.
type Outcome = Result<bool, Box<dyn Error>>;

/// Cargo, in the workspace's root.
fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).current_dir(root());
    as_if_by_hand(&mut cargo);
    cargo
}

/// Takes from a cargo's environment what this task's own cargo says there of the task. Build scripts
/// that look at it (ring's does) would be run again, and all that depends on them built anew, with
/// each change between a cargo started by a task and one started by hand.
fn as_if_by_hand(cargo: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
}

/// The workspace's root.
fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Builds the programs that tests and the demo start, and answers with the folder they are in.
fn build_programs() -> Result<PathBuf, Box<dyn Error>> {
    let built = cargo(&[
        "build",
        "--package",
        "edgerepl",
        "--package",
        "edgerepl-lab",
        "--package",
        "edgerepl-lab-faulty-module",
        "--package",
        "edgerepl-lab-i2c-shim",
        "--bins",
        "--lib",
    ])
    .status()?;
    if !built.success() {
        return Err("the programs can't be built: see cargo's errors above".into());
    }
    // xtask was built by the same cargo, into the same folder.
    let folder = env::current_exe()?.parent().map(PathBuf::from);
    Ok(folder.ok_or("xtask has no folder")?)
}
