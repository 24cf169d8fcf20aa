//! What Litestream is led by: its own configuration, and the environment that edgerepl gives it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;

use crate::support::{
    LIMIT, Result, assert_nothing_lost, site, wait_until, wait_until_replicating, write_row,
};
use crate::unit::Unit;

/// Each of them would end Litestream, sign with something else or send requests elsewhere.
const STRANGERS: [(&str, &str); 16] = [
    ("AWS_ACCESS_KEY", "AKIAOLD"),
    ("AWS_SECRET_KEY", "old"),
    ("AWS_ACCESS_KEY_ID", "AKIAOLD"),
    ("AWS_SECRET_ACCESS_KEY", "old"),
    ("AWS_PROFILE", "stranger"),
    ("AWS_CA_BUNDLE", "/nowhere/ca.pem"),
    ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
    ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9"),
    (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "http://127.0.0.1:9/keys",
    ),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token"),
    ("AWS_ROLE_ARN", "arn:aws:iam::1:role/stranger"),
    ("AWS_USE_FIPS_ENDPOINT", "maybe"),
    ("AWS_RETRY_MODE", "sometimes"),
    ("AWS_NOT_YET_INVENTED", "x"),
    ("LITESTREAM_ACCESS_KEY_ID", "AKIAOLD"),
    ("LITESTREAM_SECRET_ACCESS_KEY", "old"),
];

#[test]
fn nothing_in_the_environment_or_at_home_leads_litestream_elsewhere() -> Result {
    for way in ["restart", "refresh", "systemd"] {
        let (lab, mut site) = site(&format!("thing-{way}"), Duration::from_secs(900))?;
        let _unit = match way {
            "systemd" => Some(Unit::install(&lab, &mut site)?),
            _ => {
                site.set("replication", "rotation", format!("{way:?}"));
                None
            }
        };
        let home = site.root().join("home");
        fs::create_dir_all(home.join(".aws"))?;
        let keys = "[default]\naws_access_key_id = AKIAHOME\naws_secret_access_key = old\n";
        fs::write(home.join(".aws/credentials"), keys)?;
        let elsewhere = "[default]\nendpoint_url = http://127.0.0.1:9\nca_bundle = /nowhere\n";
        fs::write(home.join(".aws/config"), elsewhere)?;
        site.set_env("HOME", home.display().to_string());
        for (name, value) in STRANGERS {
            site.set_env(name, value);
        }
        let mut daemon = site.start()?;
        wait_until_replicating(&mut daemon)?;
        if way != "systemd" {
            let status = daemon.status().ok_or("no status")?;
            let environment = fs::read(format!("/proc/{}/environ", status["replication"]["pid"]))?;
            let environment = String::from_utf8(environment)?;
            for stranger in STRANGERS.map(|(name, value)| format!("{name}={value}")) {
                let mut variables = environment.split('\0');
                assert!(
                    !variables.any(|variable| variable == stranger),
                    "{way}: {stranger}"
                );
            }
        }
        assert!(daemon.terminate()?.success());
        assert_nothing_lost(&lab, &site)?;
    }
    Ok(())
}

#[test]
fn a_database_that_litestream_alone_names_is_watched() -> Result {
    let (lab, mut site) = site("thing-second", Duration::from_secs(900))?;
    site.set("replication", "rotation", "\"refresh\"");
    let file = lab.litestream_config(&site.database(), &site.runtime_file("litestream.sock"))?;
    let one = fs::read_to_string(&file)?;
    let second = site.root().join("second.db");
    let replica = format!("{{ type: file, path: {:?} }}", site.root().join("replica"));
    let entry = format!("dbs:\n  - {{ path: {second:?}, replica: {replica} }}\n");
    fs::write(&file, one.replacen("dbs:\n", &entry, 1))?;
    let application = Connection::open(&second)?;
    application.pragma_update(None, "journal_mode", "wal")?;
    application.execute_batch("CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT)")?;
    let checked = String::from_utf8(site.run(&["check"])?.stdout)?;
    assert!(
        checked.contains("ok    litestream_config") && checked.contains("second.db"),
        "{checked}"
    );
    let mut daemon = site.start()?;
    let transaction = |status: &Value| status["databases"][1]["proof"]["transaction"].as_u64();
    let before = daemon.wait_for("both", LIMIT, |status| {
        status["state"] == "healthy"
            && status["databases"]
                .as_array()
                .is_some_and(|all| all.len() == 2)
            && status["databases"][1]["state"] == "idle"
    })?;
    assert_eq!(before["databases"][1]["path"], second.display().to_string());
    write_row(&application)?;
    daemon.wait_for("the row's proof", LIMIT, |status| {
        transaction(status) > transaction(&before)
    })?;
    // The Litestream that runs goes on by the file that it read.
    fs::write(&file, &one)?;
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("the reload", || daemon.log().contains("was reloaded"))?;
    thread::sleep(Duration::from_secs(1));
    let status = daemon.status().ok_or("it does not answer")?;
    assert_eq!(status["databases"].as_array().map(Vec::len), Some(2));
    assert!(daemon.terminate()?.success());
    let mut daemon = site.start()?;
    daemon.wait_for("its end", LIMIT, |status| {
        status["state"] == "healthy"
            && status["databases"]
                .as_array()
                .is_some_and(|all| all.len() == 1)
    })?;
    assert!(daemon.terminate()?.success());
    Ok(())
}

#[test]
fn what_litestream_replicates_it_tells_itself_where_its_command_says_nothing() -> Result {
    let (lab, mut site) = site("thing-unknown", Duration::from_secs(900))?;
    let file = lab.litestream_config(&site.database(), &site.runtime_file("litestream.sock"))?;
    let one = fs::read_to_string(&file)?;
    let program = edgerepl_lab::tools::litestream("0.5.17")?;
    let script = site.root().join("wrapper");
    fs::write(
        &script,
        format!("#!/bin/sh\nexec {program:?} replicate -config {file:?}\n"),
    )?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    site.set("replication", "command", format!("[{script:?}]"));
    // No plan of a restore is to be had of such a command, and no database is made without one.
    Connection::open(site.database())?.pragma_update(None, "journal_mode", "wal")?;
    let mut daemon = site.start()?;
    daemon.wait_for("health", LIMIT, |status| status["state"] == "healthy")?;
    assert!(daemon.terminate()?.success());

    let second = site.root().join("second.db");
    let replica = format!("{{ type: file, path: {:?} }}", site.root().join("replica"));
    let entry = format!("dbs:\n  - {{ path: {second:?}, replica: {replica} }}\n");
    fs::write(&file, one.replacen("dbs:\n", &entry, 1))?;
    Connection::open(&second)?.pragma_update(None, "journal_mode", "wal")?;
    let mut daemon = site.start()?;
    daemon.wait_for("both", LIMIT, |status| {
        status["state"] == "healthy"
            && status["databases"]
                .as_array()
                .is_some_and(|all| all.len() == 2)
    })?;
    assert!(daemon.terminate()?.success());
    Ok(())
}
