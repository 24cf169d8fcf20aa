//! Whatever becomes of a command's output, the command ends by its exit code; and whatever a process
//! of edgerepl's dies of, it leaves no core file.

mod common;

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{LIMIT, Outcome, lab, replicates, site};
use edgerepl_lab::{KeyKind, Site, tools};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Every command, with whether it prints its answer while the daemon runs.
const COMMANDS: [(&[&str], bool); 14] = [
    (&["--help"], true),
    (&["--version"], true),
    (&["check", "--help"], true),
    (&["no-such-command"], false),
    (&["status", "--no-such-option"], false),
    (&["check"], true),
    (&["check", "--json"], true),
    (&["status"], true),
    (&["status", "--json"], true),
    (&["verify"], true),
    (&["verify", "--json"], true),
    (&["csr"], true),
    (&["credential-process"], true),
    (&["restore"], false),
];

#[test]
fn each_command_ends_by_its_exit_code_whatever_its_output_is() -> Outcome {
    let lab = lab(600)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "output")?;
    let site = site(&lab, &device)?;
    for daemon_runs in [false, true] {
        let mut daemon = None;
        if daemon_runs {
            let mut started = site.start()?;
            started.wait_for("replication", LIMIT, replicates)?;
            daemon = Some(started);
        }
        for (words, answers) in COMMANDS {
            let case = format!("{words:?}, daemon: {daemon_runs}");
            let usual = site.run(words)?;
            let code = usual.status.code();
            assert!(code.is_some(), "{case}: {usual:?}");
            let answers = match daemon_runs {
                true => answers,
                // Without one some tell only why there is no answer.
                false => !usual.stdout.is_empty(),
            };
            assert_eq!(!usual.stdout.is_empty(), answers, "{case}: {usual:?}");

            // Whose reader has gone: the verdict stands.
            let gone = command(&site, words)?
                .stdout(without_reader()?)
                .stderr(without_reader()?)
                .status()?;
            assert_eq!(gone.code(), code, "{case}: without a reader: {gone}");

            // As a shell's `>&- 2>&-` has it.
            let closed = command(&site, words)?;
            let closed = Command::new("sh")
                .args(["-c", "exec \"$0\" \"$@\" >&- 2>&-"])
                .arg(closed.get_program())
                .args(closed.get_args())
                .envs(closed.get_envs().filter_map(|(n, v)| Some((n, v?))))
                .status()?;
            assert!(closed.code().is_some(), "{case}: closed: {closed}");

            // On a full disk: a failure that is told.
            let full = command(&site, words)?.stdout(full_disk()?).output()?;
            let said = String::from_utf8_lossy(&full.stderr);
            match answers {
                true => {
                    assert_eq!(full.status.code(), Some(1), "{case}: {full:?}");
                    assert!(said.contains("No space left"), "{case}: {said}");
                }
                false => assert_eq!(full.status.code(), code, "{case}: {full:?}"),
            }
            let both = command(&site, words)?
                .stdout(full_disk()?)
                .stderr(full_disk()?)
                .status()?;
            assert!(both.code().is_some(), "{case}: both on a full disk: {both}");
        }
        drop(daemon);
    }
    Ok(())
}

#[test]
fn the_daemon_goes_on_when_nobody_reads_its_log() -> Outcome {
    let lab = lab(9)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "unread")?;
    let site = site(&lab, &device)?;
    site.write_config()?;
    for stream in [without_reader()?, full_disk()?] {
        let other = stream.try_clone()?;
        let mut daemon = command(&site, &["run"])?
            .stdin(Stdio::null())
            .stdout(stream)
            .stderr(other)
            .spawn()?;
        let deadline = Instant::now() + LIMIT;
        let rotated = loop {
            let status = site.command(&["status", "--json"]).output()?;
            let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
            let rotations = status["replication"]["rotations"].as_u64();
            if rotations >= Some(2) || Instant::now() > deadline || daemon.try_wait()?.is_some() {
                break rotations;
            }
            thread::sleep(Duration::from_millis(50));
        };
        kill(Pid::from_raw(daemon.id().try_into()?), Signal::SIGTERM)?;
        let ended = daemon.wait()?;
        assert!(
            rotated >= Some(2) && ended.success(),
            "{rotated:?}, {ended}"
        );
    }
    Ok(())
}

/// As systemd's watchdog ends one that hangs: with the signal that makes a core file.
#[test]
fn no_process_leaves_a_core_file() -> Outcome {
    let lab = lab(600)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "core")?;
    let site = site(&lab, &device)?;
    site.write_config()?;
    let allows = "ulimit -c unlimited && exec \"$0\" \"$@\"";
    // A child of the daemon's own holds the key and the PIN; it waits to be told what to fetch.
    for words in [&["run"][..], &["fetch"]] {
        let wanted = site.command(words);
        let words = match words {
            ["fetch"] => vec!["fetch".as_ref()],
            _ => wanted.get_args().collect(),
        };
        let mut child = Command::new("sh")
            .args(["-c", allows])
            .arg(tools::edgerepl()?)
            .args(&words)
            .envs(wanted.get_envs().filter_map(|(n, v)| Some((n, v?))))
            .current_dir(site.root())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let pid = Pid::from_raw(child.id().try_into()?);
        // Until it waits for something: then it has begun.
        let deadline = Instant::now() + LIMIT;
        let state = || fs::read_to_string(format!("/proc/{pid}/stat"));
        while !state()?.contains("(edgerepl) S") && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(Duration::from_millis(200));
        kill(pid, Signal::SIGABRT)?;
        let ended = child.wait()?;
        if ended.signal() == Some(Signal::SIGABRT as i32) {
            assert!(!ended.core_dumped(), "{words:?} left a core file");
        } else {
            // Where no core file is allowed at all, the shell ends.
            assert!(
                ended.code().is_some_and(|code| code != 0),
                "{words:?}: {ended}"
            );
        }
    }
    Ok(())
}

/// It is told credentials, and what is executed can be dumped again.
#[test]
fn litestream_leaves_no_core_file_either() -> Outcome {
    let lab = lab(600)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "core-litestream")?;
    let site = site(&lab, &device)?;
    let mut daemon = site.start()?;
    daemon.wait_for("replication", LIMIT, replicates)?;
    let pid = daemon.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let mut seen = 0;
    for child in children.split_whitespace() {
        let line = fs::read_to_string(format!("/proc/{child}/cmdline"))?;
        if line.contains("litestream\0replicate") {
            let limits = fs::read_to_string(format!("/proc/{child}/limits"))?;
            let core = limits
                .lines()
                .find(|line| line.starts_with("Max core file size"));
            let core: Vec<_> = core.unwrap_or_default().split_whitespace().collect();
            assert_eq!(core[4..6], ["1", "1"], "{limits}");
            seen += 1;
        }
    }
    assert_eq!(seen, 1, "{children}");
    Ok(())
}

fn command(site: &Site, words: &[&str]) -> Outcome<Command> {
    match words {
        // These read no configuration.
        ["--help" | "--version" | "no-such-command"] => {
            let mut command = Command::new(tools::edgerepl()?);
            command.args(words);
            Ok(command)
        }
        _ => Ok(site.command(words)),
    }
}

/// A pipe that nobody reads.
fn without_reader() -> io::Result<File> {
    let (reader, writer) = io::pipe()?;
    drop(reader);
    Ok(File::from(std::os::fd::OwnedFd::from(writer)))
}

fn full_disk() -> io::Result<File> {
    File::options().write(true).open("/dev/full")
}
