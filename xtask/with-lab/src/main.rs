//! The tasks that need the lab; `cargo xtask` starts them here.
//!
//! Owns which task is which. For people they are tasks like any other, and explained there.

use std::env;
use std::process::ExitCode;

mod bench;
mod demo;
mod qemu;
mod supervised;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["bench", names @ ..] => bench::bench(names),
        [bench::count::COMMAND, paths @ ..] => bench::count::run(paths),
        ["demo"] => demo::demo(&demo::Pace::SHORT),
        ["demo", "--real-time"] => demo::demo(&demo::Pace::REAL),
        ["qemu", arguments @ ..] => qemu::qemu(arguments),
        ["supervised"] => supervised::without_systemd(),
        _ => Err(format!("{words:?} is no task of these: use `cargo xtask`").into()),
    };
    xtask::exit_code(done)
}
