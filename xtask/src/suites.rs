//! `cargo xtask test`: every suite, one command each, with a count of its own.
//!
//! Owns the list of suites. Judges nothing: what fails is for the tests to say.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use edgerepl_tools::{self as tools, Workspace};
use xtask::Outcome;
use xtask::setup::{self, ACCEPT, Clock, LicenceAccepted};
use xtask::target::{AARCH64, ARMV7, Target};

mod earlier;

/// A suite's name, the command that runs it, and on what machine.
struct Suite {
    name: &'static str,
    workspace: Workspace,
    arguments: &'static [&'static str],
    device: Option<(&'static Target, Clock)>,
}

/// Not one of all: it needs Microchip's module, for whose licence somebody has to answer.
const SECURE_ELEMENT: Suite = with_lab(
    "secure-element",
    &["--package=edgerepl-tests", "--test=secure_element"],
);

/// Not one of all: it needs the release before this one, which is built for it.
const EARLIER: Suite = with_lab("earlier", &["--package=edgerepl-tests", "--test=earlier"]);

/// Those that are asked for by name alone.
const BY_NAME: [&Suite; 2] = [&SECURE_ELEMENT, &EARLIER];

/// Quick ones first. Integration tests wait more than they work, so more of them run at once than
/// there are processors; from [`MOSTLY_WAITS`] on what is emulated runs beside them.
const SUITES: &[Suite] = &[
    shipped("unit", &["--lib"]),
    shipped("documentation", &["--doc"]),
    with_lab(
        "tasks",
        &[
            "--package=xtask",
            "--package=xtask-with-lab",
            "--package=edgerepl-tools",
        ],
    ),
    with_lab(
        "dependencies",
        &["--package=edgerepl-tests", "--test=dependencies"],
    ),
    with_lab("house", &["--package=edgerepl-tests", "--test=house"]),
    with_lab(
        "configuration",
        &["--package=edgerepl-tests", "--test=configuration"],
    ),
    with_lab("papers", &["--package=edgerepl-tests", "--test=papers"]),
    with_lab("manual", &["--package=edgerepl-tests", "--test=manual"]),
    with_lab("dist", &["--package=edgerepl-tests", "--test=dist"]),
    with_lab("check", &["--package=edgerepl-tests", "--test=check"]),
    with_lab(
        "litestream-view",
        &["--package=edgerepl-tests", "--test=litestream_view"],
    ),
    with_lab(
        "documented",
        &["--package=edgerepl-tests", "--test=documented"],
    ),
    with_lab("output", &["--package=edgerepl-tests", "--test=output"]),
    with_lab("csr", &["--package=edgerepl-tests", "--test=csr"]),
    with_lab("init", &["--package=edgerepl-tests", "--test=init"]),
    with_lab(
        "boot-check",
        &["--package=edgerepl-tests", "--test=boot_check"],
    ),
    with_lab("notify", &["--package=edgerepl-tests", "--test=notify"]),
    with_lab(
        "slow-disk",
        &["--package=edgerepl-tests", "--test=slow_disk"],
    ),
    with_lab(
        "inherited",
        &["--package=edgerepl-tests", "--test=inherited"],
    ),
    with_lab("lab", &["--package=edgerepl-lab"]),
    with_lab(
        "credentials",
        &["--package=edgerepl-tests", "--test=credentials"],
    ),
    with_lab("provider", &["--package=edgerepl-tests", "--test=provider"]),
    with_lab("token", &["--package=edgerepl-tests", "--test=token"]),
    with_lab(
        "token-faults",
        &["--package=edgerepl-tests", "--test=token_faults"],
    ),
    with_lab("restore", &["--package=edgerepl-tests", "--test=restore"]),
    with_lab("verify", &["--package=edgerepl-tests", "--test=verify"]),
    with_lab("metrics", &["--package=edgerepl-tests", "--test=metrics"]),
    with_lab("sdk", &["--package=edgerepl-tests", "--test=sdk"]),
    with_lab("secrecy", &["--package=edgerepl-tests", "--test=secrecy"]),
    with_lab("simulation", &["--package=edgerepl-simulation"]),
    with_lab(
        "replication",
        &["--package=edgerepl-tests", "--test=replication"],
    ),
    with_lab("health", &["--package=edgerepl-tests", "--test=health"]),
    with_lab("chaos", &["--package=edgerepl-tests", "--test=chaos"]),
    emulated("unit-aarch64", &AARCH64, Clock::True),
    emulated("unit-armv7", &ARMV7, Clock::True),
    emulated("year-2040", &ARMV7, Clock::In2040),
];

/// From this suite on the others wait for most of their time, and processors are idle.
const MOSTLY_WAITS: &str = "provider";

/// Tests of edgerepl alone.
const fn shipped(name: &'static str, arguments: &'static [&'static str]) -> Suite {
    Suite {
        name,
        workspace: Workspace::Shipped,
        arguments,
        device: None,
    }
}

/// Tests of what never ships, or of edgerepl against the lab.
const fn with_lab(name: &'static str, arguments: &'static [&'static str]) -> Suite {
    Suite {
        name,
        workspace: Workspace::Lab,
        arguments,
        device: None,
    }
}

/// The unit tests as a device's own processor, C library and clock would run them. Tests that start
/// edgerepl have no place here: the kernel can't start an emulated program's children.
const fn emulated(name: &'static str, target: &'static Target, clock: Clock) -> Suite {
    Suite {
        name,
        workspace: Workspace::Shipped,
        arguments: &["--lib"],
        device: Some((target, clock)),
    }
}

/// All suites, or those of these names; `secure-element` on its own, and with a word on its licence; `earlier` on its
/// own.
pub(crate) fn test(chosen: &[&str]) -> Outcome {
    if chosen.contains(&SECURE_ELEMENT.name) {
        return secure_element(chosen);
    }
    if chosen == [EARLIER.name] {
        setup::setup()?;
        earlier::build()?;
        return run_all(&[&EARLIER]);
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
        // Here, and not in the middle of a test, it is told what can't be compiled.
        tools::edgerepl()?;
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
    run_all(&[&SECURE_ELEMENT])
}

fn run_all(suites: &[&Suite]) -> Outcome {
    let (emulated, native): (Vec<&Suite>, Vec<&Suite>) =
        suites.iter().partition(|suite| suite.device.is_some());
    let run_emulated = || -> Result<Vec<_>, String> {
        let run = |suite: &&Suite| Ok((suite.name, run(suite, Some(suite.name))?));
        let results: Result<Vec<_>, Box<dyn std::error::Error>> =
            emulated.iter().map(run).collect();
        results.map_err(|e| e.to_string())
    };
    let mut results = Vec::new();
    thread::scope(|scope| -> Result<(), Box<dyn std::error::Error>> {
        let mut beside = None;
        for suite in &native {
            if suite.name == MOSTLY_WAITS {
                beside = Some(scope.spawn(run_emulated));
            }
            println!("== {}", suite.name);
            results.push((suite.name, run(suite, None)?));
        }
        let emulated = match beside {
            Some(beside) => beside.join().map_err(|_| "the emulated suites panicked")?,
            None => run_emulated(),
        };
        results.extend(emulated?);
        Ok(())
    })?;
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

/// Runs one; each line of one that runs beside others begins with its name.
fn run(suite: &Suite, beside: Option<&str>) -> Result<Count, Box<dyn std::error::Error>> {
    let begun = Instant::now();
    let mut command = match suite.device {
        None => suite.workspace.cargo("test"),
        Some((target, clock)) => emulated_test(target, clock)?,
    };
    command.arg("--no-fail-fast").args(suite.arguments);
    command.args(["--", "--test-threads", "4", "--nocapture"]);
    if matches!(suite.device, Some((_, Clock::In2040))) {
        // Those that need such a clock are ignored with any other. What fakes the clock takes a time
        // on the boot clock for one on the wall clock, so that no alarm can be set.
        command.args(["--include-ignored", "--skip", "system::timer::tests::rings"]);
    }
    if BY_NAME.iter().any(|by_name| by_name.name == suite.name) {
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
            match beside {
                Some(name) => println!("{name}: {line}"),
                None => println!("{line}"),
            }
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
    // Nobody debugs it there.
    command.args(["--config", "profile.dev.debug=false"]);
    if let Some(runner) = clock.runner(target) {
        command.args(["--config", &runner]);
    }
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
    use std::fs;

    use toml::Table;

    use super::{BY_NAME, SUITES, Suite, result};

    #[test]
    fn reads_the_counts_of_a_suite() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(result(line), Some((12, 3)));
        assert_eq!(result("test rotation ... ok"), None);
    }

    #[test]
    fn runs_each_test_program_that_there_is() {
        let tests = edgerepl_tools::root().join("tests");
        let manifest = fs::read_to_string(tests.join("Cargo.toml")).expect("a manifest");
        let manifest: Table = manifest.parse().expect("TOML");
        let programs = manifest["test"].as_array().expect("tests").iter();
        let named: Vec<&str> = programs.filter_map(|test| test["name"].as_str()).collect();
        for name in &named {
            let argument = format!("--test={name}");
            let runs = |suite: &Suite| suite.arguments.contains(&&*argument);
            let is_run = SUITES.iter().chain(BY_NAME).any(runs);
            assert!(is_run, "no suite runs {name}");
        }
        // Cargo looks for none by itself.
        for entry in fs::read_dir(&tests).expect("tests") {
            let path = entry.expect("an entry").path();
            let is_file = path.extension().is_some_and(|end| end == "rs");
            let is_package = path.join("Cargo.toml").is_file();
            if is_file || path.join("main.rs").is_file() && !is_package {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                assert!(named.contains(&&*name), "tests/Cargo.toml lacks {name}");
            }
        }
    }
}
