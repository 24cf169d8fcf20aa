//! Litestream's own troubles: killed, missing, ending at once, unable to read its own state. It is
//! brought back at a pace that wears nothing out, and goes on where it was.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use edgerepl_lab::tools;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{
    Application, LIMIT, Result, SHORT, assert_nothing_lost, assert_one_full_upload, fill,
    full_uploads, has_problem, litestreams, number, script, site, use_script,
    wait_until_replicating,
};

#[test]
fn killed_it_is_started_again() -> Result {
    // No rotation comes in between: an end in a rotation is no trouble, and is not named as one.
    let (lab, site) = site("thing-killed", Duration::from_secs(900))?;
    fill(&site)?;
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    let application = Application::writing(&site, Duration::from_millis(20))?;
    for (starts, signal) in [
        (2, Signal::SIGKILL),
        (3, Signal::SIGTERM),
        // Not SIGHUP: under nohup it is ignored, by whatever is started there.
        (4, Signal::SIGINT),
    ] {
        let [pid] = litestreams(&site)[..] else {
            return Err("there is not one Litestream".into());
        };
        kill(Pid::from_raw(pid), signal)?;
        daemon.wait_for("problem", LIMIT, |status| {
            has_problem(status, "Litestream exited (")
        })?;
        let status = wait_until_replicating(&mut daemon)?;
        assert_eq!(number(&status, "replication", "starts"), starts);
    }
    application.stop()?;
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)?;
    assert_one_full_upload(&lab);
    Ok(())
}

#[test]
fn missing_it_is_named_and_started_when_it_is_there() -> Result {
    let (lab, mut site) = site("thing-missing", Duration::from_secs(60))?;
    fill(&site)?;
    let program = site.root().join("bin-litestream");
    use_script(&mut site, &program);
    let mut daemon = site.start()?;
    daemon.wait_for("problem", LIMIT, |status| {
        has_problem(status, "bin-litestream isn't there or can't be run")
    })?;
    symlink(tools::litestream("0.5.17")?, &program)?;
    wait_until_replicating(&mut daemon)?;
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)
}

/// What ends at once is started at growing distances, and renewal does not care.
#[test]
fn ending_at_once_it_is_not_started_without_end() -> Result {
    const WATCHED: Duration = Duration::from_secs(30);
    let (lab, mut site) = site("thing-ending", SHORT)?;
    fill(&site)?;
    let (starts, works) = (site.root().join("starts"), site.root().join("works"));
    let litestream = tools::litestream("0.5.17")?;
    let text =
        format!("echo >> {starts:?}\n[ -e {works:?} ] && exec {litestream:?} \"$@\"\nexit 1\n");
    let script = script(&site, "ends", &text)?;
    use_script(&mut site, &script);
    let begin = Instant::now();
    let mut daemon = site.start()?;
    daemon.wait_for("problem", LIMIT, |status| {
        has_problem(status, "Litestream exited (exit status: 1)")
    })?;
    thread::sleep(WATCHED.saturating_sub(begin.elapsed()));
    let status = daemon.status().ok_or("edgerepl does not answer")?;
    // One for each set of credentials, and one for each wait: of a second at least, and of up to a
    // minute soon.
    let starts = fs::read_to_string(starts)?.lines().count() as u64;
    let granted = number(&status, "credentials", "granted");
    assert!(granted >= 4, "renewal was held up: {status:#}");
    assert!(
        (granted..granted + 9).contains(&starts),
        "{starts} starts, {granted} grants"
    );

    fs::write(works, "")?;
    wait_until_replicating(&mut daemon)?;
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)
}

/// What a power cut does to the file that was written last.
#[test]
fn with_a_corrupt_local_state_it_goes_on_from_the_replica() -> Result {
    for (name, garbage) in [
        ("thing-empty", &b""[..]),
        ("thing-garbage", &[0x5a; 300][..]),
    ] {
        let (lab, site) = site(name, Duration::from_secs(60))?;
        fill(&site)?;
        let mut daemon = site.start()?;
        wait_until_replicating(&mut daemon)?;
        assert!(daemon.terminate()?.success());
        let newest = newest_local_file(&site.root().join(".app.db-litestream/ltx/0"))?;
        fs::write(&newest, garbage)?;

        let mut daemon = site.start()?;
        wait_until_replicating(&mut daemon)?;
        let log = daemon.log();
        assert!(daemon.terminate()?.success());
        let resets = log.matches("its local state is deleted").count();
        assert_eq!(resets, 1, "{name}: {log}");
        assert_nothing_lost(&lab, &site)?;
        assert_eq!(
            full_uploads(&lab).len(),
            1,
            "{name}: {:#?}",
            full_uploads(&lab)
        );
    }
    Ok(())
}

fn newest_local_file(folder: &std::path::Path) -> Result<PathBuf> {
    let mut files = Vec::new();
    for file in fs::read_dir(folder)? {
        files.push(file?.path());
    }
    files.retain(|path| path.extension().is_some_and(|e| e == "ltx"));
    // Their names are numbers that grow.
    files.sort();
    files
        .pop()
        .ok_or_else(|| "Litestream has no local state".into())
}
