//! Secrets touch neither flash nor log: through rotations and faults, with everything logged that
//! can be, none that was ever issued shows in the log, the status, a command line or a file.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::{LIMIT, Outcome, failures, granted, lab, site};
use edgerepl_lab::{Behaviour, Daemon, KeyKind, Lab, ServerCertificate, odd_answers};

/// The lab's PIN of every token.
const PIN: &str = "648219";

#[test]
fn no_secret_shows_anywhere_with_restarts() -> Outcome {
    no_secret_shows_anywhere("restart")
}

#[test]
fn no_secret_shows_anywhere_with_refreshes() -> Outcome {
    no_secret_shows_anywhere("refresh")
}

#[test]
fn no_secret_of_an_earlier_rotation_stays_in_memory_with_restarts() -> Outcome {
    no_earlier_secret_stays_in_memory("restart")
}

#[test]
fn no_secret_of_an_earlier_rotation_stays_in_memory_with_refreshes() -> Outcome {
    no_earlier_secret_stays_in_memory("refresh")
}

/// Of those that were issued, the daemon's memory holds the last ones at the most.
fn no_earlier_secret_stays_in_memory(rotation: &str) -> Outcome {
    let lab = lab(9)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, &format!("forgetful-{rotation}"))?;
    let mut site = site(&lab, &device)?;
    site.set("replication", "rotation", format!("{rotation:?}"));
    let mut daemon = site.start()?;
    daemon.wait_for_rotations(4, LIMIT)?;
    let begun = Instant::now();
    let (memory, issued) = loop {
        let Some(memory) = memory(daemon.pid())? else {
            eprintln!("not tested: only root can read the memory of another process");
            return Ok(());
        };
        let issued = lab.provider().issued();
        let mut last = issued.iter().rev().take(2);
        if last.any(|session| holds(&memory, &session.secret_access_key)) {
            break (memory, issued);
        }
        // On a busy machine one may have ended before the next came, and the heap may have moved meanwhile.
        assert!(
            begun.elapsed() < LIMIT,
            "what is in use was not found: the memory was not read"
        );
        thread::sleep(Duration::from_millis(100));
    };
    // The last one may be on its way while the one before is in use.
    let (earlier, _) = issued.split_at(issued.len() - 2);
    assert!(earlier.len() >= 3, "{} sessions only", issued.len());
    for (turn, session) in earlier.iter().enumerate() {
        let token = session.session_token.as_deref().unwrap_or_default();
        for part in [session.secret_access_key.as_str(), token] {
            // The allocator writes over the first bytes of what is freed.
            let rest = &part[part.len() / 2..];
            assert!(
                !holds(&memory, rest),
                "session {turn} of {}: {rest}",
                issued.len()
            );
        }
    }
    assert!(daemon.terminate()?.success());
    Ok(())
}

fn holds(memory: &[Vec<u8>], part: &str) -> bool {
    let mut regions = memory.iter();
    regions.any(|region| find(region, part.as_bytes()).is_some())
}

/// All that a process can write to; nothing where that may not be read.
fn memory(pid: u32) -> Outcome<Option<Vec<Vec<u8>>>> {
    let Ok(memory) = fs::File::open(format!("/proc/{pid}/mem")) else {
        return Ok(None);
    };
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut regions = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line
            .split_once(' ')
            .and_then(|(range, _)| range.split_once('-'));
        let (start, end) = range.ok_or("a line without a range")?;
        let (start, end) = (
            u64::from_str_radix(start, 16)?,
            u64::from_str_radix(end, 16)?,
        );
        let mut region = vec![0; usize::try_from(end - start)?];
        // A mapping of a file may end before its pages do.
        if memory.read_exact_at(&mut region, start).is_ok() {
            regions.push(region);
        }
    }
    Ok(Some(regions))
}

fn no_secret_shows_anywhere(rotation: &str) -> Outcome {
    let lab = lab(9)?;
    let device = lab.provision_token(KeyKind::EcdsaP256, &format!("discreet-{rotation}"))?;
    let mut site = site(&lab, &device)?;
    site.set("replication", "rotation", format!("{rotation:?}"));
    site.set_env("RUST_LOG", "trace");
    let mut daemon = site.start()?;
    let pid = daemon.pid();

    // What is there only for a moment is looked for all the time.
    let mut seen = String::new();
    let mut statuses = String::new();
    let mut rotations = 0;
    let began = Instant::now();
    while rotations < 2 {
        let status = daemon.status().unwrap_or_default();
        rotations = status["replication"]["rotations"]
            .as_u64()
            .unwrap_or_default();
        statuses.push_str(&status.to_string());
        command_lines(pid, &mut seen);
        assert!(began.elapsed() < LIMIT, "{status:#}");
        thread::sleep(Duration::from_millis(3));
    }
    assert!(seen.contains("litestream") && seen.contains("edgerepl\0fetch"));

    // Answers with secrets in them that are not believed, and messages of every kind of failure: each in
    // place of a renewal.
    let rows = [
        "secret with a line of its own",
        "cut-off JSON",
        "invalid UTF-8",
        "gzip",
    ];
    let rows = odd_answers().into_iter().filter(|r| rows.contains(&r.name));
    let mut fails = |daemon: &mut Daemon| -> Outcome {
        let count = failures(&daemon.status().unwrap_or_default(), "transient");
        let status = daemon.wait_for("failure", LIMIT, |s| failures(s, "transient") > count)?;
        statuses.push_str(&status.to_string());
        lab.provider().set_behaviour(Behaviour::Normal);
        lab.provider()
            .set_server_certificate(ServerCertificate::Good);
        let grants = granted(&status);
        daemon.wait_for("lease", LIMIT, |s| granted(s) > grants)?;
        Ok(())
    };
    for behaviour in rows.map(|r| r.behaviour).chain([Behaviour::CloseMidBody]) {
        lab.provider().set_behaviour(behaviour);
        fails(&mut daemon)?;
    }
    lab.provider().set_lifetime(Duration::from_secs(600));
    lab.provider()
        .set_server_certificate(ServerCertificate::WrongCa);
    fails(&mut daemon)?;

    let table = String::from_utf8(site.run(&["status"])?.stdout)?;
    let verify = site.run(&["verify"])?;
    let verify = [verify.stdout, verify.stderr].concat();
    // What it prints is for the SDK; what it logs is for everybody.
    let process = site.run(&["credential-process"])?.stderr;
    let environment = fs::read(format!("/proc/{pid}/environ"))?;
    // One who asks and goes away is worth a line to a debugger: so RUST_LOG is in force.
    let asked = Instant::now();
    while !daemon.log().contains("debug: ") {
        drop(UnixStream::connect(site.runtime_file("status.sock"))?);
        assert!(asked.elapsed() < LIMIT, "{}", daemon.log());
    }
    let log = daemon.log();
    let secrets = secrets(&lab);
    assert!(secrets.len() >= 9, "{} secrets only", secrets.len());
    for (place, text) in [
        ("a command line", seen.as_bytes()),
        ("a status", statuses.as_bytes()),
        ("the status for people", table.as_bytes()),
        ("verify", &verify),
        ("the log of credential-process", &process),
        ("the daemon's environment", &environment),
        ("the log", log.as_bytes()),
    ] {
        assert_discreet(place, text, &secrets);
    }
    let runtime = site.runtime_file("");
    let mut files = 0;
    for folder in [site.root(), &runtime] {
        files += scan(folder, &secrets)?;
    }
    assert!(files > 5, "{files} files only");
    let ended = daemon.terminate()?;
    assert!(ended.success(), "{ended}");
    for folder in [site.root(), &runtime] {
        scan(folder, &secrets)?;
    }
    Ok(())
}

/// All that was ever issued, and what the odd answers hold in its place.
fn secrets(lab: &Lab) -> BTreeSet<String> {
    let issued = lab.provider().issued().into_iter();
    let parts = issued.flat_map(|session| {
        [session.access_key_id, session.secret_access_key]
            .into_iter()
            .chain(session.session_token)
    });
    let odd = [
        "ASIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI",
        "IQoJb3JpZ2luX2VjEXAMPLE",
    ];
    parts.chain(odd.map(str::to_owned)).collect()
}

fn assert_discreet(place: &str, text: &[u8], secrets: &BTreeSet<String>) {
    for secret in secrets {
        // A piece of one is still too much.
        let piece = &secret.as_bytes()[..secret.len().div_ceil(2).min(30)];
        let name = String::from_utf8_lossy(piece);
        assert!(find(text, piece).is_none(), "{place} holds {name}");
    }
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'.';
    let mut from = 0;
    while let Some(at) = find(&text[from..], PIN.as_bytes()) {
        let (start, end) = (from + at, from + at + PIN.len());
        // A part of a longer number is none.
        let alone = !text[..start].last().is_some_and(word) && !text.get(end).is_some_and(word);
        assert!(!alone, "{place} holds the PIN");
        from = end;
    }
}

/// Looks into every file below `folder`; answers with how many there are.
fn scan(folder: &Path, secrets: &BTreeSet<String>) -> Outcome<usize> {
    let mut files = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            files += scan(&path, secrets)?;
        } else if kind.is_file() {
            // Litestream's files come and go.
            let text = fs::read(&path).unwrap_or_default();
            assert_discreet(&path.display().to_string(), &text, secrets);
            files += 1;
        }
    }
    Ok(files)
}

/// Adds the command lines of a process and of all below it.
fn command_lines(pid: u32, seen: &mut String) {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    if !seen.contains(&*line) {
        seen.push_str(&line);
    }
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    for child in children.unwrap_or_default().split_whitespace() {
        if let Ok(child) = child.parse() {
            command_lines(child, seen);
        }
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
