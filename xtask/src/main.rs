//! The project's own tasks: `cargo xtask TASK`.
//!
//! Owns what a developer or the gate runs. It is built without the lab: a task that needs the lab is a
//! program of its own (`with-lab`), which cargo builds when such a task is asked for.

use std::env;
use std::process::ExitCode;

use xtask::{cross, image, setup};

mod deb;
mod layers;
mod suites;
mod with_lab;

const HELP: &str = "\
Usage: cargo xtask TASK

Tasks:
  bench [NAME...]     what edgerepl costs on this machine, in a release build: all benchmarks, or
                      these
  demo [--real-time]  shows the main job on real parts: six rotations by refresh and by restart,
                      side by side, what each has cost, and that no row is lost
  test [SUITE...]     all tests, or these suites of them
  test secure-element --accept-microchip-licence
                      edgerepl with Microchip's own PKCS#11 module, built here, and a simulated
                      ATECC608; for those who may use that module
  test earlier        the release before this one and this one by turns on one data partition, as
                      an update over the air and its way back leave it
  cross [--arch aarch64|armv7]... [--system-sqlite]
                      the release binaries for devices; with the device's own SQLite if so told
  image [--slots] [--arch aarch64|armv7]...
                      the firmware that the QEMU tests boot; with two slots too, if so told
  deb [--arch arm64|armhf|amd64]
                      Debian packages, judged by lintian
  layers [--buildroot FOLDER]
                      checks the Yocto layer and the Buildroot tree; with Buildroot's own tools
                      where its tree is given
  qemu [--arch aarch64|armv7] [--image FILE] [--all | TEST...]
                      boots that firmware in QEMU: the gate's tests, all, or these; or one that
                      Yocto or Buildroot made, with its kernel beside it
  qemu update [--arch aarch64|armv7] [TEST...]
                      boots the firmware with slots, by U-Boot: the tests of updates, all or these
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
        ["bench", ..] | ["demo"] | ["demo", "--real-time"] | ["qemu", ..] => with_lab::run(&words),
        ["image", arguments @ ..] => image::image(arguments),
        ["layers", arguments @ ..] => layers::layers(arguments),
        ["setup"] => setup::setup().map(|()| true).map_err(Into::into),
        ["test", suites @ ..] => suites::test(suites),
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(64);
        }
    };
    xtask::exit_code(done)
}
