//! What a careless parent leaves behind: edgerepl works all the same, hands none of it on, and makes
//! each file with the mode that it should have.
//!
//! The parent is a script that does its harm to itself and then becomes the real edgerepl.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{LIMIT, Outcome, lab, replicates};
use edgerepl_lab::{KeyKind, Lab, Site, tools};
use nix::sys::signal::Signal;

/// What a parent does, in Perl.
const IGNORED: &str = "$SIG{$_} = 'IGNORE' for grep { !/^(KILL|STOP|NUM|RT|__)/ } keys %SIG;";
const CHILDREN_IGNORED: &str = "$SIG{CHLD} = 'IGNORE';";
const BLOCKED: &str = "
    $all = POSIX::SigSet->new; $all->fillset; POSIX::sigprocmask(SIG_BLOCK, $all);
    # These wait for whoever unblocks them.
    kill $_, $$ for qw(ALRM HUP USR1 USR2 VTALRM PROF XFSZ);";
const CLOSED: &str = "POSIX::close($_) for 0, 1, 2;";
const ALARM: &str = "
    alarm 2;
    Time::HiRes::setitimer($_, 0.05, 0.05) for ITIMER_PROF, ITIMER_VIRTUAL;";
const GONE: &str = "
    mkdir \"$root/gone\"; chdir \"$root/gone\"; rmdir \"$root/gone\";";
const OPEN: &str = "
    $^F = 1000; open $kept[$_], '>>', \"$root/left-open\" for 1 .. 20;";
const ENVIRONMENT: &str = "
    $ENV{\"NAME\\xff\"} = \"value\\xfe\"; $ENV{STATE_DIRECTORY} = \"/nowhere/\\xff\";
    $ENV{JOURNAL_STREAM} = \"\\xff\"; $ENV{RUST_LOG} = \"\\xff\"; $ENV{''} = 'no name';";
const LIMITS: &str = "
    @limits = ('prlimit', '--nofile=16:4096', '--fsize=16384:unlimited', '--cpu=2:unlimited',
               '--stack=131072:unlimited', '--data=100000000:unlimited', '--as=200000000:unlimited');";

#[test]
fn ignored_children() -> Outcome {
    lives_through("children", CHILDREN_IGNORED)
}

#[test]
fn ignored_signals() -> Outcome {
    lives_through("ignored", IGNORED)
}

#[test]
fn blocked_signals() -> Outcome {
    lives_through("blocked", BLOCKED)
}

#[test]
fn closed_descriptors() -> Outcome {
    lives_through("closed", CLOSED)
}

#[test]
fn a_pending_alarm() -> Outcome {
    lives_through("alarm", ALARM)
}

#[test]
fn a_folder_that_is_gone() -> Outcome {
    lives_through("gone", GONE)
}

#[test]
fn open_files() -> Outcome {
    lives_through("open", OPEN)
}

#[test]
fn an_odd_environment() -> Outcome {
    lives_through("environment", ENVIRONMENT)
}

#[test]
fn low_limits() -> Outcome {
    lives_through("limits", LIMITS)
}

#[test]
fn all_at_once() -> Outcome {
    let all = [
        IGNORED,
        GONE,
        OPEN,
        ENVIRONMENT,
        LIMITS,
        "umask 0777;",
        BLOCKED,
        ALARM,
        CLOSED,
    ];
    lives_through("all", &all.concat())
}

/// The daemon replicates and ends; its Litestream has inherited nothing; the commands work too.
fn lives_through(name: &str, harm: &str) -> Outcome {
    let lab = lab(900)?;
    let site = careless(&lab, name, harm)?;
    let begun = Instant::now();
    let mut daemon = site.start()?;
    daemon.wait_for("health", LIMIT, |s| {
        s["state"] == "healthy" && replicates(s)
    })?;
    let noted = |file: &str| fs::read_to_string(site.root().join("notes").join(file));
    let daemons = fs::read_to_string(format!("/proc/{}/limits", daemon.pid()))?;
    for limits in [daemons, noted("limits-replicate")?] {
        for (limit, soft) in [
            ("Max open files", 1024),
            ("Max stack size", 8 << 20),
            ("Max file size", u64::MAX),
            ("Max cpu time", u64::MAX),
            ("Max data size", u64::MAX),
            ("Max address space", u64::MAX),
        ] {
            let found = limits.lines().find_map(|line| line.strip_prefix(limit));
            let found = found.and_then(|line| line.split_whitespace().next());
            let found = found.ok_or("no such limit")?;
            let found: u64 = found.parse().unwrap_or(u64::MAX);
            assert!(found >= soft, "{limit}: {found}");
        }
    }
    // What the daemon reads in its own time, and what nothing may end it by.
    let own = [1, 2, 15, 17, 25, 26, 27].map(|number| 1_u64 << (number - 1));
    let daemons = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let blocked = u64::from_str_radix(&value(&daemons, "SigBlk")?, 16)?;
    assert_eq!(blocked & 0x7fff_ffff, own.iter().sum::<u64>());
    for command in [
        "status",
        "check",
        "credential-process",
        "verify",
        "restore",
        "csr",
    ] {
        let output = site.run(&[command])?;
        assert!(output.status.success(), "{command}: {output:?}");
    }
    // What a command has it do as well.
    for part in ["replicate", "version", "restore"] {
        let status = noted(&format!("status-{part}"))?;
        // What a person's shell ignores, a command of that person's goes on to ignore.
        let masks = ["SigBlk", "SigIgn"].into_iter();
        for mask in masks.take(if part == "restore" { 1 } else { 2 }) {
            let bits = u64::from_str_radix(&value(&status, mask)?, 16)?;
            // Perl ignores SIGFPE by itself.
            assert_eq!(bits & 0x7fff_ff7f, 0, "{part}: {mask}");
        }
        let open = noted(&format!("open-{part}"))?;
        assert!(
            !open.contains("left-open"),
            "{part}: it was handed on: {open}"
        );
        assert!(!open.contains("(deleted)"), "{part}: {open}");
    }
    // The alarm is for the third second.
    std::thread::sleep(Duration::from_secs(3).saturating_sub(begun.elapsed()));
    let ended = daemon.terminate()?;
    assert!(
        ended.success(),
        "{ended}: {:?}",
        fs::read_to_string(site.root().join("log"))
    );
    let compared = site.compare(&lab)?;
    assert!(compared.is_equal() && compared.live > 0, "{compared:?}");
    Ok(())
}

/// Nothing that edgerepl makes, or has made, is anybody's to write; and its owner can use it.
#[test]
fn each_file_has_its_mode_whatever_the_umask() -> Outcome {
    let lab = lab(900)?;
    let usual = modes_under(&lab, "0022")?;
    assert_eq!(usual[Path::new("lock")], 0o600, "{usual:#?}");
    assert_eq!(usual[Path::new("status.sock")], 0o666, "{usual:#?}");
    assert!(
        usual.keys().any(|file| file.ends_with("litestream.lock")),
        "{usual:#?}"
    );
    let strict = modes_under(&lab, "0077")?;
    let (careless, blind) = (modes_under(&lab, "0000")?, modes_under(&lab, "0777")?);
    assert_eq!(careless, usual);
    assert_eq!(blind, strict);
    // What has a mode of its own has it under each of them.
    for (file, mode) in &usual {
        let is_sqlites = file.to_string_lossy().contains("app.db");
        if !is_sqlites && file != Path::new("restored") && !file.ends_with("litestream.sock") {
            assert_eq!(strict.get(file), Some(mode), "{}", file.display());
        }
        let is_socket = file.extension().is_some_and(|kind| kind == "sock");
        assert!(
            is_socket || mode & 0o022 == 0,
            "{}: {mode:o}",
            file.display()
        );
    }
    Ok(())
}

/// The modes of all that is there after a start, and after a restore.
fn modes_under(lab: &Lab, umask: &str) -> Outcome<BTreeMap<PathBuf, u32>> {
    let site = careless(lab, &format!("umask-{umask}"), &format!("umask {umask};"))?;
    let mut daemon = site.start()?;
    daemon.wait_for("health", LIMIT, |s| {
        s["state"] == "healthy" && replicates(s)
    })?;
    let mut modes = BTreeMap::new();
    note_modes(&site.runtime_file(""), &site.runtime_file(""), &mut modes)?;
    note_modes(site.root(), site.root(), &mut modes)?;
    let umask = u32::from_str_radix(umask, 8)?;
    let status = fs::read_to_string(site.root().join("notes/status-replicate"))?;
    let handed_on = u32::from_str_radix(&value(&status, "Umask")?, 8)?;
    assert_eq!(handed_on, (umask | 0o022) & !0o700);
    assert!(daemon.terminate()?.success());

    for file in ["app.db", "app.db-wal", "app.db-shm"] {
        let _ = fs::remove_file(site.root().join(file));
    }
    let restored = site.run(&["restore"])?;
    assert!(restored.status.success(), "{restored:?}");
    modes.insert(
        "restored".into(),
        site.database().metadata()?.mode() & 0o7777,
    );

    // A runtime directory of edgerepl's own making, and what that is in.
    let made = site.root().join("run/edgerepl");
    let mut command = site.command(&["run"]);
    let mut child = command.env("RUNTIME_DIRECTORY", &made).spawn()?;
    let deadline = Instant::now() + LIMIT;
    while !made.join("status.sock").exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let folders = ["run", "run/edgerepl"].map(|folder| site.root().join(folder).metadata());
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id().try_into()?),
        Signal::SIGTERM,
    )?;
    child.wait()?;
    for folder in folders {
        assert_eq!(folder?.mode() & 0o7777, 0o755);
    }
    Ok(modes)
}

fn note_modes(root: &Path, folder: &Path, modes: &mut BTreeMap<PathBuf, u32>) -> Outcome {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = path.strip_prefix(root)?.to_owned();
        // The test's and the lab's, and Litestream's copies of transactions, whose names differ.
        let is_ours = ![
            "edgerepl.toml",
            "log",
            "litestream.yml",
            "litestream.pl",
            "notes",
        ]
        .iter()
        .any(|n| name.ends_with(n));
        if kind.is_dir() && is_ours && !name.ends_with("ltx") {
            note_modes(root, &path, modes)?;
        }
        // Litestream or edgerepl may remove it meanwhile.
        let Ok(found) = path.symlink_metadata() else {
            continue;
        };
        if is_ours && (kind.is_file() || kind.is_dir() || kind.is_socket()) {
            modes.insert(name, found.mode() & 0o7777);
        }
    }
    Ok(())
}

/// Too few files, and nothing that a soft limit could change.
#[test]
fn a_hard_limit_that_is_too_low_is_told() -> Outcome {
    let lab = lab(900)?;
    let harm = "@limits = ('prlimit', '--nofile=64:64');";
    let site = careless(&lab, "hard", harm)?;
    let output = site.run(&["check"])?;
    let said = String::from_utf8(output.stderr)?;
    assert!(
        said.contains("no more than 64 files may be open at once"),
        "{said}"
    );
    assert!(said.contains("RLIMIT_NOFILE"), "{said}");
    Ok(())
}

/// A hang-up that the user has asked not to hear (nohup) ends no command.
#[test]
fn nohup_stays_in_force_for_a_command_of_a_person() -> Outcome {
    let lab = lab(900)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "nohup")?;
    lab.provider().set_behaviour(edgerepl_lab::Behaviour::Hang);
    let script = lab.root().join("nohup.sh");
    let edgerepl = tools::edgerepl()?.display().to_string();
    fs::write(
        &script,
        format!("#!/bin/sh\ntrap '' HUP\nexec {edgerepl} \"$@\"\n"),
    )?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    let site = Site::new(&lab, device, script)?;
    site.write_config()?;
    let mut child = site.command(&["credential-process"]).spawn()?;
    let pid = child.id();
    let ready =
        || fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("edgerepl"));
    let deadline = Instant::now() + LIMIT;
    while !ready() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(500));
    let target = nix::unistd::Pid::from_raw(pid.try_into()?);
    nix::sys::signal::kill(target, Signal::SIGHUP)?;
    std::thread::sleep(Duration::from_millis(300));
    let alive = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    assert!(alive, "it was ended by a hang-up that is ignored");
    Ok(())
}

/// A site where edgerepl's parent has done `harm` to itself before.
fn careless(lab: &Lab, name: &str, harm: &str) -> Outcome<Site> {
    let device = lab.provision_pem(KeyKind::EcdsaP256, &format!("careless-{name}"))?;
    let script = lab.root().join(format!("careless-{name}"));
    let text = format!(
        "#!/usr/bin/perl\nuse POSIX; use Time::HiRes qw(ITIMER_PROF ITIMER_VIRTUAL);\n\
         $root = {root:?};\n{harm}\nexec @limits, {edgerepl:?}, @ARGV;\n",
        root = lab.root().display().to_string(),
        edgerepl = tools::edgerepl()?,
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    let mut site = Site::new(lab, device, script)?;
    // As Litestream finds it, before Go sets what it wants; a shell would set the mask, too.
    let (litestream, notes) = (
        tools::litestream("0.5.17")?,
        site.root().join("litestream.pl"),
    );
    let noted = site.root().join("notes");
    fs::create_dir(&noted)?;
    let text = format!(
        "#!/usr/bin/perl\nsub note {{ open F, '>', {noted:?} . \"/$_[0]-$ARGV[0]\"; print F $_[1] }}\n\
         sub kernel {{ open K, '<', \"/proc/self/$_[0]\"; join '', <K> }}\n\
         note $_, kernel $_ for qw(status limits);\n\
         note 'open', join \"\\n\", map {{ readlink }} '/proc/self/cwd', glob '/proc/self/fd/*';\n\
         exec {litestream:?}, @ARGV;\n"
    );
    fs::write(&notes, text)?;
    fs::set_permissions(&notes, Permissions::from_mode(0o755))?;
    let config = site.root().join("litestream.yml");
    let command = format!("[{notes:?}, \"replicate\", \"-config\", {config:?}]");
    site.set("replication", "command", command);
    Ok(site)
}

/// A line of the kernel's status of a process.
fn value(status: &str, name: &str) -> Outcome<String> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.strip_prefix(':'));
    Ok(value.ok_or("no such line")?.trim().to_owned())
}
