//! `cargo xtask test`: every suite, one command each, with a count of its own.
//!
//! Owns the list of suites. Judges nothing: what fails is for the tests to say.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::setup::{self, ACCEPT, Clock, LicenceAccepted};
use crate::target::{AARCH64, ARMV7, Target};
use crate::{Outcome, build_programs, cargo};

/// A suite's name, the command that runs it, and on what machine.
struct Suite {
    name: &'static str,
    arguments: &'static [&'static str],
    device: Option<(&'static Target, Clock)>,
}

/// Not one of all: it needs Microchip's module, for whose licence somebody has to answer.
const SECURE_ELEMENT: Suite = suite(
    "secure-element",
    &["--package", "edgerepl", "--test", "secure_element"],
);

/// Quick ones first. Integration tests wait more than they work, so more of them run at once than
/// there are processors.
const SUITES: &[Suite] = &[
    suite("unit", &["--package", "edgerepl", "--lib"]),
    suite("documentation", &["--workspace", "--doc"]),
    suite("tasks", &["--package", "xtask"]),
    suite(
        "dependencies",
        &["--package", "edgerepl", "--test", "dependencies"],
    ),
    suite(
        "configuration",
        &["--package", "edgerepl", "--test", "configuration"],
    ),
    suite("manual", &["--package", "edgerepl", "--test", "manual"]),
    suite("dist", &["--package", "edgerepl", "--test", "dist"]),
    suite("check", &["--package", "edgerepl", "--test", "check"]),
    suite(
        "litestream-view",
        &["--package", "edgerepl", "--test", "litestream_view"],
    ),
    suite("output", &["--package", "edgerepl", "--test", "output"]),
    suite("csr", &["--package", "edgerepl", "--test", "csr"]),
    suite("notify", &["--package", "edgerepl", "--test", "notify"]),
    suite(
        "inherited",
        &["--package", "edgerepl", "--test", "inherited"],
    ),
    suite("lab", &["--package", "edgerepl-lab", "--lib", "--tests"]),
    suite(
        "credentials",
        &["--package", "edgerepl", "--test", "credentials"],
    ),
    suite("provider", &["--package", "edgerepl", "--test", "provider"]),
    suite("token", &["--package", "edgerepl", "--test", "token"]),
    suite(
        "token-faults",
        &["--package", "edgerepl", "--test", "token_faults"],
    ),
    suite("restore", &["--package", "edgerepl", "--test", "restore"]),
    suite("verify", &["--package", "edgerepl", "--test", "verify"]),
    suite("metrics", &["--package", "edgerepl", "--test", "metrics"]),
    suite("sdk", &["--package", "edgerepl", "--test", "sdk"]),
    suite("secrecy", &["--package", "edgerepl", "--test", "secrecy"]),
    suite(
        "simulation",
        &["--package", "edgerepl", "--test", "simulation"],
    ),
    suite(
        "replication",
        &["--package", "edgerepl", "--test", "replication"],
    ),
    suite("health", &["--package", "edgerepl", "--test", "health"]),
    suite("chaos", &["--package", "edgerepl", "--test", "chaos"]),
    emulated("unit-aarch64", &AARCH64, Clock::True),
    emulated("unit-armv7", &ARMV7, Clock::True),
    emulated("year-2040", &ARMV7, Clock::In2040),
];

const fn suite(name: &'static str, arguments: &'static [&'static str]) -> Suite {
    Suite {
        name,
        arguments,
        device: None,
    }
}

/// The unit tests as a device's own processor, C library and clock would run them. Tests that start
/// edgerepl have no place here: the kernel can't start an emulated program's children.
const fn emulated(name: &'static str, target: &'static Target, clock: Clock) -> Suite {
    Suite {
        name,
        arguments: &["--package", "edgerepl", "--lib"],
        device: Some((target, clock)),
    }
}

/// All suites, or those of these names; `secure-element` on its own, and with a word on its licence.
pub(crate) fn test(chosen: &[&str]) -> Outcome {
    if chosen.contains(&SECURE_ELEMENT.name) {
        return secure_element(chosen);
    }
    if let Some(unknown) = chosen
        .iter()
        .find(|name| SUITES.iter().all(|s| s.name != **name))
    {
        let names: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
        return Err(format!(
            "there is no suite {unknown:?}; there are {}",
            names.join(", ")
        )
        .into());
    }
    let is_chosen = |suite: &&Suite| chosen.is_empty() || chosen.contains(&suite.name);
    let suites: Vec<&Suite> = SUITES.iter().filter(is_chosen).collect();
    if suites.iter().any(|suite| suite.device.is_none()) {
        setup::setup()?;
        build_programs()?;
    }
    let includes = |name| suites.iter().any(|suite| suite.name == name);
    if includes("metrics") {
        setup::promtool()?;
    }
    if includes("sdk") {
        setup::aws_sdks()?;
    }
    run_all(&suites)
}

fn secure_element(words: &[&str]) -> Outcome {
    let accepted = LicenceAccepted::among(words).filter(|_| words.len() == 2);
    let accepted = accepted.ok_or_else(|| {
        let words = format!("{} {ACCEPT}", SECURE_ELEMENT.name);
        format!("accept it with `cargo xtask test {words}`, and nothing else")
    })?;
    setup::setup()?;
    setup::cryptoauthlib(accepted)?;
    build_programs()?;
    run_all(&[&SECURE_ELEMENT])
}

fn run_all(suites: &[&Suite]) -> Outcome {
    let mut results = Vec::new();
    for suite in suites {
        println!("== {}", suite.name);
        results.push((suite.name, run(suite)?));
    }
    println!(
        "\n{:<14} {:>6} {:>6} {:>8}",
        "suite", "passed", "failed", "time"
    );
    let mut sum = Count::default();
    for (name, count) in &results {
        let seconds = count.time.as_secs_f32();
        println!(
            "{name:<14} {:>6} {:>6} {seconds:>6.1} s",
            count.passed, count.failed
        );
        sum.passed += count.passed;
        sum.failed += count.failed;
    }
    println!("\n{} passed, {} failed", sum.passed, sum.failed);
    Ok(sum.failed == 0)
}

#[derive(Default)]
struct Count {
    passed: u64,
    failed: u64,
    time: Duration,
}

fn run(suite: &Suite) -> Result<Count, Box<dyn std::error::Error>> {
    let begun = Instant::now();
    let mut command = match suite.device {
        None => cargo(&["test"]),
        Some((target, clock)) => emulated_test(target, clock)?,
    };
    command.arg("--no-fail-fast").args(suite.arguments);
    command.args(["--", "--test-threads", "4", "--nocapture"]);
    if matches!(suite.device, Some((_, Clock::In2040))) {
        // Those that need such a clock are ignored with any other. What fakes the clock takes a time
        // on the boot clock for one on the wall clock, so that no alarm can be set.
        command.args(["--include-ignored", "--skip", "system::timer::tests::rings"]);
    }
    if suite.name == SECURE_ELEMENT.name {
        command.arg("--ignored");
    }
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut count = Count::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line?;
            if let Some((passed, failed)) = result(&line) {
                count.passed += passed;
                count.failed += failed;
            }
            println!("{line}");
        }
    }
    let status = child.wait()?;
    if !status.success() && count.failed == 0 {
        // It did not build, or died before it could count.
        count.failed = 1;
    }
    count.time = begun.elapsed();
    Ok(count)
}

/// `cargo test` for a device, with all that it takes.
fn emulated_test(target: &Target, clock: Clock) -> Result<Command, Box<dyn std::error::Error>> {
    setup::emulation(target, clock)?;
    let mut command = setup::cross(&[target])?.cargo(&["test", "--target", target.triple]);
    if let Some(runner) = clock.runner(target) {
        command.args(["--config", &runner]);
    }
    let mut flags = env::var_os("RUSTFLAGS").unwrap_or_default();
    flags.push(" --cfg without_lab");
    command.env("RUSTFLAGS", flags);
    Ok(command)
}

/// The counts in `test result: ok. 12 passed; 0 failed; …`.
fn result(line: &str) -> Option<(u64, u64)> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut words = counts.split(' ');
    let passed = words.next()?.parse().ok()?;
    let failed = words.nth(1)?.parse().ok()?;
    Some((passed, failed))
}

#[cfg(test)]
mod tests {
    use super::result;

    #[test]
    fn reads_the_counts_of_a_suite() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(result(line), Some((12, 3)));
        assert_eq!(result("test rotation ... ok"), None);
    }
}
