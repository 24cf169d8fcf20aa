//! Litestream behind a wrapper, and Litestream's voice: what a wrapper leaves behind is ended before
//! another one starts, an answer counts only from the one that was started, and nobody has to read the
//! log.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use edgerepl_lab::{Site, tools};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{
    Application, LIMIT, Result, SHORT, assert_nothing_lost, assert_one_full_upload, fill,
    has_problem, litestreams, script, site, use_script, wait_until, wait_until_replicating,
};

/// Wrappers that people write, none of which passes a signal on as it should.
fn wrappers(site: &Site) -> Result<Vec<(&'static str, PathBuf)>> {
    let litestream = tools::litestream("0.5.17")?;
    Ok(vec![
        (
            "a shell that waits for it",
            script(site, "waits", &format!("{litestream:?} \"$@\"\nexit $?\n"))?,
        ),
        (
            "a shell that has it in the background",
            script(
                site,
                "background",
                &format!("{litestream:?} \"$@\" &\nwait\n"),
            )?,
        ),
        (
            "a session of its own",
            script(
                site,
                "session",
                &format!("setsid -w {litestream:?} \"$@\"\nexit $?\n"),
            )?,
        ),
        (
            "one that keeps no descriptor",
            script(
                site,
                "closes",
                &format!(
                    "for n in 3 4 5 6 7 8 9; do eval \"exec $n>&-\"; done\n\
                     {litestream:?} \"$@\"\nexit $?\n"
                ),
            )?,
        ),
        (
            "one that passes the signal on",
            script(
                site,
                "forwards",
                &format!(
                    "trap 'kill -TERM $p; wait $p' TERM\n{litestream:?} \"$@\" & p=$!\nwait $p\n"
                ),
            )?,
        ),
    ])
}

#[test]
fn whatever_wraps_it_a_rotation_leaves_one_litestream_and_a_stop_none() -> Result {
    let (_lab, first) = site("thing-wrappers", SHORT)?;
    for (number, (what, _)) in wrappers(&first)?.into_iter().enumerate() {
        let (lab, mut site) = site(&format!("thing-wrapped-{number}"), SHORT)?;
        fill(&site)?;
        let (_, wrapper) = wrappers(&site)?.swap_remove(number);
        use_script(&mut site, &wrapper);
        let mut daemon = site.start()?;
        let application = Application::writing(&site, Duration::from_millis(50))?;
        daemon.wait_for_rotations(3, LIMIT)?;
        assert_eq!(litestreams(&site).len(), 1, "{what}");
        application.stop()?;
        assert!(daemon.terminate()?.success(), "{what}");
        assert!(litestreams(&site).is_empty(), "{what} left one running");
        assert_nothing_lost(&lab, &site)?;
        assert_one_full_upload(&lab);
    }
    Ok(())
}

#[test]
fn what_a_killed_edgerepl_left_behind_a_wrapper_is_ended_by_the_next() -> Result {
    for number in 0..4 {
        let (lab, mut site) = site(&format!("thing-orphan-{number}"), Duration::from_secs(60))?;
        fill(&site)?;
        let (what, wrapper) = wrappers(&site)?.swap_remove(number);
        use_script(&mut site, &wrapper);
        let mut daemon = site.start()?;
        wait_until_replicating(&mut daemon)?;
        let before = litestreams(&site);
        daemon.kill()?;
        let mut daemon = site.start()?;
        wait_until_replicating(&mut daemon)?;
        let after = litestreams(&site);
        assert_eq!(after.len(), 1, "{what}: {before:?}, then {after:?}");
        assert_ne!(before, after, "{what}");
        assert!(daemon.terminate()?.success(), "{what}");
        assert!(litestreams(&site).is_empty(), "{what} left one running");
        assert_nothing_lost(&lab, &site)?;
    }
    Ok(())
}

/// Somebody else's Litestream that answers "synced" to everything.
#[test]
fn an_answer_of_a_stranger_proves_nothing() -> Result {
    let (_lab, site) = site("thing-stranger", Duration::from_secs(900))?;
    fill(&site)?;
    // Litestream's own socket is elsewhere.
    let config = site.root().join("litestream.yml");
    let text = fs::read_to_string(&config)?.replace("litestream.sock", "other.sock");
    fs::write(&config, text)?;
    let listener = UnixListener::bind(site.runtime_file("litestream.sock"))?;
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = client.read(&mut request);
            let body = r#"{"status":"synced","txid":7777,"replicated_txid":7777}"#;
            let _ = write!(client, "HTTP/1.0 200 OK\r\n\r\n{body}");
        }
    });
    let mut daemon = site.start()?;
    let status = daemon.wait_for("complaint", LIMIT * 2, |status| {
        has_problem(status, "is not the Litestream that was started")
    })?;
    assert_ne!(status["state"], "healthy");
    assert!(status["replication"]["proof"].is_null(), "{status:#}");
    daemon.terminate()?;
    Ok(())
}

/// The end of whoever reads edgerepl's log, and one who stops reading it, cost lines and nothing else.
#[test]
fn nobody_has_to_read_the_log() -> Result {
    for closes in [true, false] {
        let (lab, mut site) = site(&format!("thing-unread-{closes}"), SHORT)?;
        fill(&site)?;
        // What the reader of a log sees much of, and all children of a rotation that restarts.
        let litestream = tools::litestream("0.5.17")?;
        let text = format!(
            "head -c 200000 /dev/zero | tr '\\0' 'x' | fold >&2\nexec {litestream:?} \"$@\"\n"
        );
        let chatty = script(&site, "chatty", &text)?;
        use_script(&mut site, &chatty);
        site.set_env("RUST_LOG", "debug");
        site.write_config()?;
        let mut daemon = site
            .command(&["run"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let reader = daemon.stderr.take();
        let kept = if closes {
            drop(reader);
            None
        } else {
            reader
        };
        let seen = wait_until("three rotations that replicate", || {
            let status = site.run(&["status", "--json"]).ok();
            let status: Option<serde_json::Value> =
                status.and_then(|output| serde_json::from_slice(&output.stdout).ok());
            status.is_some_and(|status| {
                status["replication"]["rotations"].as_u64() >= Some(3)
                    && status["replication"]["activity"] == "replicating"
            })
        });
        kill(Pid::from_raw(i32::try_from(daemon.id())?), Signal::SIGTERM)?;
        let ended = daemon.wait()?;
        seen.map_err(|e| format!("closed: {closes}: {e}"))?;
        assert!(ended.success(), "{ended}");
        drop(kept);
        let comparison = site.compare(&lab)?;
        assert!(comparison.is_equal(), "closed: {closes}: {comparison:?}");
    }
    Ok(())
}

#[test]
fn the_last_line_that_it_said_stands_in_the_status_and_the_log() -> Result {
    let (_lab, mut site) = site("thing-said", Duration::from_secs(60))?;
    fill(&site)?;
    let text = "echo 'one thing' >&2\necho \"the key is $AWS_SECRET_ACCESS_KEY, and it broke\" >&2\n\
                echo >&2\nexit 7\n";
    let says = script(&site, "says", text)?;
    use_script(&mut site, &says);
    let mut daemon = site.start()?;
    daemon.wait_for("problem", LIMIT, |status| {
        has_problem(
            status,
            "(exit status: 7; it said last: the key is (secret), and it broke)",
        )
    })?;
    let log = daemon.log();
    assert!(log.contains("one thing"), "{log}");
    assert!(log.contains("it said last: the key is (secret)"), "{log}");
    daemon.terminate()?;
    Ok(())
}

/// What connects to its sockets over and over, and what it is told by signals, holds up neither the loop
/// nor its end.
#[test]
fn those_who_ask_without_end_do_not_stop_it() -> Result {
    let (_lab, site) = site("thing-asked", Duration::from_secs(60))?;
    fill(&site)?;
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    let ask = "while (1) {\n\
               for (@ARGV[0, 1]) { IO::Socket::UNIX->new(Peer => $_, Blocking => 0) }\n\
               kill(HUP => $ARGV[2]) or exit }";
    let mut clients = Vec::new();
    for _ in 0..2 {
        let client = Command::new("perl")
            .args(["-MIO::Socket::UNIX", "-e", ask])
            .arg(site.runtime_file("status.sock"))
            .arg(site.runtime_file("credentials.sock"))
            .arg(daemon.pid().to_string())
            .stdout(Stdio::null())
            .spawn()?;
        clients.push(client);
    }
    thread::sleep(Duration::from_secs(3));
    let rows = |daemon: &edgerepl_lab::Daemon| {
        let status = daemon.status()?;
        status["heartbeat"]["rows"].as_u64()
    };
    let begun = Instant::now();
    let mut seen = None;
    while seen.is_none() && begun.elapsed() < LIMIT {
        seen = rows(&daemon);
    }
    let first = seen;
    let goes_on = wait_until("more rows", || {
        rows(&daemon).is_some_and(|rows| Some(rows) > first)
    });
    let ended = daemon.terminate();
    for mut client in clients {
        client.kill()?;
        client.wait()?;
    }
    goes_on?;
    assert!(ended?.success());
    Ok(())
}
