//! Rotations without a restart: Litestream asks `edgerepl credential-process` by itself.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use edgerepl_lab::{Lab, Site, tools};
use nix::unistd::Uid;
use serde_json::Value;

use crate::support::{
    Application, LIMIT, Result, SHORT, assert_nothing_lost, assert_one_full_upload, fill,
    has_problem, number, site, used_keys, wait_until_replicating,
};

const ROTATIONS: u64 = 10;

#[test]
fn ten_rotations_without_a_restart_or_a_gap() -> Result {
    let (lab, mut site) = site("thing-refresh", SHORT)?;
    site.set("replication", "rotation", "\"refresh\"");
    fill(&site)?;
    let application = Application::writing(&site, Duration::from_millis(100))?;
    let mut daemon = site.start()?;
    let status = daemon.wait_for("ten rotations", LIMIT, |status| {
        number(status, "replication", "rotations") >= ROTATIONS
            && lab.provider().issued().pop().is_some_and(|last| {
                // Litestream asks for the last ones, too.
                used_keys(&lab).contains(&last.access_key_id)
            })
    })?;
    assert_eq!(number(&status, "replication", "starts"), 1, "{status:#}");
    assert_eq!(status["replication"]["rotation"], "refresh", "{status:#}");
    let wrote = application.stop()?;
    assert!(daemon.terminate()?.success());

    assert_nothing_lost(&lab, &site)?;
    assert_one_full_upload(&lab);
    let requests = lab.s3().requests();
    let refused: Vec<_> = requests.iter().filter(|r| r.error.is_some()).collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(
        used_keys(&lab).len() as u64,
        number(&status, "credentials", "granted")
    );
    println!(
        "refresh, Litestream 0.5.17: {ROTATIONS} rotations, {wrote} rows, longest time without an \
         upload {} ms",
        longest_silence(&lab).as_millis()
    );
    Ok(())
}

#[test]
fn auto_restarts_only_what_can_not_ask() -> Result {
    for (version, rotation) in [("0.5.17", "refresh"), ("0.3.13", "restart")] {
        let (lab, mut site) = site(&format!("thing-auto-{}", &version[2..3]), SHORT)?;
        site.set("replication", "rotation", "\"auto\"");
        site.use_litestream(&lab, version)?;
        fill(&site)?;
        let mut daemon = site.start()?;
        let restarts = u64::from(rotation == "restart");
        let status = daemon.wait_for("rotations", LIMIT, |status| {
            let rotations = number(status, "replication", "rotations");
            let starts = number(status, "replication", "starts");
            rotations >= 3 && starts == 1 + restarts * rotations
        })?;
        assert_eq!(status["replication"]["rotation"], rotation, "{status:#}");
        let log = fs::read_to_string(site.root().join("log"))?;
        assert!(log.contains(&format!("Litestream {version} ")), "{log}");
        assert!(daemon.terminate()?.success());
        assert_nothing_lost(&lab, &site)?;
    }
    Ok(())
}

#[test]
fn keys_in_litestreams_own_file_are_named_and_never_used_instead() -> Result {
    let (lab, mut site) = site("thing-keys", Duration::from_secs(900))?;
    let file = site.root().join("litestream.yml");
    let sound = fs::read_to_string(&file)?;
    let key = "access-key-id: AKIAIOSFODNN7EXAMPLE\n";
    fs::write(&file, format!("{key}{sound}"))?;
    site.set("replication", "rotation", "\"refresh\"");
    let mut daemon = site.start()?;
    let status = daemon.wait_for("refusal", LIMIT, |status| {
        has_problem(status, "litestream.yml holds access-key-id")
    })?;
    assert_eq!(number(&status, "replication", "starts"), 0, "{status:#}");
    let check = site.run(&["check"])?;
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("it holds access-key-id"), "{said}");
    // Mended, it needs nobody's word.
    fs::write(&file, sound)?;
    wait_until_replicating(&mut daemon)?;
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)
}

#[test]
fn an_outage_of_the_provider_ends_in_replication_without_a_restart() -> Result {
    let (lab, mut site) = site("thing-refresh-outage", SHORT)?;
    site.set("replication", "rotation", "\"refresh\"");
    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    lab.provider().set_listening(false)?;
    daemon.wait_for("the end of the credentials", LIMIT, |status| {
        status["credentials"]["valid"] == false && has_problem(status, "")
    })?;
    // Nobody is given what has ended.
    let refused = site.run(&["credential-process"])?;
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        refused.stdout.is_empty() && said.contains("no valid credentials"),
        "{said}"
    );
    lab.provider().set_listening(true)?;
    let status = daemon.wait_for("recovery", LIMIT, |status| {
        status["state"] == "healthy" && status["replication"]["activity"] == "replicating"
    })?;
    assert_eq!(number(&status, "replication", "starts"), 1, "{status:#}");
    assert!(daemon.terminate()?.success());
    assert_nothing_lost(&lab, &site)
}

#[test]
fn credentials_are_given_by_the_daemon_and_fetched_where_there_is_none() -> Result {
    let (lab, mut site) = site("thing-process", Duration::from_secs(900))?;
    site.set("replication", "rotation", "\"refresh\"");
    let alone = printed(&site)?;
    assert_eq!(lab.provider().issued().len(), 1);
    assert_eq!(alone["Version"], 1);

    let mut daemon = site.start()?;
    wait_until_replicating(&mut daemon)?;
    let begun = Instant::now();
    let given = printed(&site)?;
    println!(
        "credential-process answers in {} ms",
        begun.elapsed().as_millis()
    );
    let last = lab.provider().issued().pop().ok_or("nothing was granted")?;
    assert_eq!(given["AccessKeyId"], *last.access_key_id);
    assert_eq!(lab.provider().issued().len(), 2);
    let socket = fs::metadata(site.runtime_file("credentials.sock"))?;
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
    // The file that names the process holds no secret, nor does the environment.
    let file = fs::read_to_string(site.runtime_file("aws-config"))?;
    let status = daemon.status().ok_or("no status")?;
    let environment = fs::read(format!("/proc/{}/environ", status["replication"]["pid"]))?;
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(environment.contains("AWS_CONFIG_FILE="), "{environment}");
    for session in lab.provider().issued() {
        for secret in [Some(session.secret_access_key), session.session_token] {
            let secret = secret.unwrap_or_default();
            assert!(!file.contains(&secret) && !environment.contains(&secret));
        }
    }
    if Uid::effective().is_root() {
        told_to_a_stranger(&site)?;
    }
    assert!(daemon.terminate()?.success());
    Ok(())
}

/// Whoever is not of edgerepl's is told nothing, even where the socket lets him in.
fn told_to_a_stranger(site: &Site) -> Result {
    for (path, mode) in [("", 0o755), ("credentials.sock", 0o666)] {
        fs::set_permissions(site.runtime_file(path), Permissions::from_mode(mode))?;
    }
    let folder = tempfile::tempdir()?;
    fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
    let program = folder.path().join("edgerepl");
    fs::copy(tools::edgerepl()?, &program)?;
    let output = Command::new(program)
        .arg("credential-process")
        .env("RUNTIME_DIRECTORY", site.runtime_file(""))
        .current_dir("/")
        .uid(65_534)
        .gid(65_534)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        output.stdout.is_empty() && said.contains("user 65534"),
        "{said}"
    );
    Ok(())
}

fn printed(site: &Site) -> Result<Value> {
    let output = site.run(&["credential-process"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The longest time between two uploads that were accepted.
fn longest_silence(lab: &Lab) -> Duration {
    let requests = lab.s3().requests();
    let uploads: Vec<Instant> = requests
        .iter()
        .filter(|r| r.is_upload() && r.error.is_none())
        .map(|r| r.at)
        .collect();
    let pairs = uploads.windows(2).map(|pair| pair[1] - pair[0]);
    pairs.max().unwrap_or_default()
}
