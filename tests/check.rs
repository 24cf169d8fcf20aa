//! `edgerepl check` names what is wrong, says what to do next, and changes nothing.

mod common;
#[path = "check/cost.rs"]
mod cost;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Command, Output};

use common::{LIMIT, Outcome, with_databases, with_folder};
use edgerepl_lab::{KeyKind, Lab, LabOptions, S3Fault, Site, tools};
use serde_json::Value;

#[test]
fn all_pass_on_a_sound_device_and_nothing_is_changed() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    for (thing, device) in [
        ("pem", lab.provision_pem(KeyKind::EcdsaP256, "check-pem")?),
        (
            "token",
            lab.provision_token(KeyKind::Rsa2048, "check-token")?,
        ),
    ] {
        let site = Site::new(&lab, device, tools::edgerepl()?)?;
        let output = site.run(&["check", "--json", "--online"])?;
        let report = report(&output)?;
        assert!(output.status.success(), "{thing}: {report:#}");
        assert_eq!(report["passed"], true);
        let names: Vec<_> = checks(&report).map(|check| check["name"].clone()).collect();
        let mut wanted = vec![
            "configuration",
            "modes",
            "certificate",
            "key",
            "ca_bundle",
            "litestream",
            "litestream_config",
            "sqlite",
            "restorable",
            "cost",
            "database",
        ];
        wanted.extend((thing == "token").then_some("token"));
        wanted.extend(["fetch", "bucket"]);
        assert_eq!(names, wanted);
        assert!(!site.database().exists(), "a check made the database");
    }
    // One fetch each, and only where it was asked for.
    assert_eq!(lab.provider().issued().len(), 2);
    Ok(())
}

#[test]
fn online_it_says_what_the_bucket_holds_and_what_is_wrong_with_that() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "check-bucket")?;
    let mut site = Site::new(&lab, device, tools::edgerepl()?)?;
    site.set("proof", "restorable", "\"off\"");
    let bucket = |wanted: &str| -> Outcome<Value> {
        let report = report(&site.run(&["check", "--json", "--online"])?)?;
        let found = checks(&report).find(|check| check["name"] == "bucket");
        let found = found.ok_or("no such check")?.clone();
        assert_eq!(found["outcome"], wanted, "{found}");
        Ok(found)
    };
    let mut daemon = site.start()?;
    daemon.wait_for("health", LIMIT, |status| status["state"] == "healthy")?;
    daemon.terminate()?;
    let whole = bucket("pass")?.to_string();
    assert!(whole.contains("a restore takes"), "{whole}");
    let objects = lab.s3().objects("check-bucket/app.db");
    let first = objects.keys()?.into_iter().min().ok_or("no object")?;
    objects.halve(&first)?;
    bucket("fail")?;
    objects.remove_all()?;
    let nothing = bucket("pass")?.to_string();
    assert!(nothing.contains("no snapshot of it yet"), "{nothing}");
    lab.s3().set_fault(S3Fault::RefusesLists)?;
    let denied = bucket("fail")?.to_string();
    assert!(denied.contains("AccessDenied"), "{denied}");

    let report = report(&site.run(&["check", "--json"])?)?;
    let off = checks(&report).find(|check| check["name"] == "restorable");
    assert_eq!(off.ok_or("no such check")?["outcome"], "warn");
    Ok(())
}

#[test]
fn each_failure_is_named_with_a_next_step() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let stranger = lab.provision_pem(KeyKind::EcdsaP256, "check-stranger")?;
    let quoted = |text: &str| format!("{text:?}");
    let nowhere = quoted("/nowhere/at/all");
    let cases: [(&str, &str, String, &str); 9] = [
        ("identity", "certificate", nowhere.clone(), "certificate"),
        ("identity", "private_key", nowhere.clone(), "key"),
        (
            "identity",
            "private_key",
            quoted(&stranger.private_key),
            "key",
        ),
        ("credentials", "ca_file", nowhere.clone(), "ca_bundle"),
        (
            "credentials",
            "ca_file",
            quoted(&stranger.private_key),
            "ca_bundle",
        ),
        (
            "replication",
            "command",
            "[\"/nowhere/litestream\", \"replicate\"]".to_owned(),
            "litestream",
        ),
        // Beside the one that Litestream's configuration names.
        (
            "database",
            "path",
            quoted("/nowhere/app.db"),
            "database /nowhere/app.db",
        ),
        (
            "replication",
            "control_socket",
            quoted("/nowhere/litestream.sock"),
            "litestream_config",
        ),
        (
            "credentials",
            "role_alias",
            quoted("no-such-alias"),
            "fetch",
        ),
    ];
    for (turn, (section, key, value, failing)) in cases.into_iter().enumerate() {
        let device = lab.provision_pem(KeyKind::EcdsaP256, &format!("check-{turn}"))?;
        let mut site = Site::new(&lab, device, tools::edgerepl()?)?;
        site.set(section, key, value);
        let output = site.run(&["check", "--json", "--online"])?;
        let report = report(&output)?;
        assert_eq!(output.status.code(), Some(1), "{key}: {report:#}");
        let failed = checks(&report).find(|check| check["name"] == failing);
        let failed = failed.ok_or(format!("{key}: there is no check {failing}"))?;
        assert_eq!(failed["outcome"], "fail", "{key}: {report:#}");
        assert!(
            failed["next_step"]
                .as_str()
                .is_some_and(|step| !step.is_empty()),
            "{failed}"
        );
    }
    Ok(())
}

#[test]
fn a_secret_that_others_may_read_fails() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "check-mode")?;
    fs::set_permissions(&device.private_key, Permissions::from_mode(0o644))?;
    let site = Site::new(&lab, device, tools::edgerepl()?)?;
    let report = report(&site.run(&["check", "--json"])?)?;
    let modes = checks(&report)
        .find(|check| check["name"] == "modes")
        .ok_or("no check of modes")?;
    assert_eq!(modes["outcome"], "fail");
    let step = modes["next_step"].as_str().unwrap_or_default();
    assert!(step.starts_with("chmod 600 /"), "{step}");
    Ok(())
}

#[test]
fn a_wrong_pin_is_said_to_be_one() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_token(KeyKind::EcdsaP256, "check-pin")?;
    let (_, pin_file) = device
        .private_key
        .split_once("pin-source=file:")
        .ok_or("no PIN file")?;
    fs::write(pin_file, "not the PIN")?;
    let site = Site::new(&lab, device, tools::edgerepl()?)?;
    let report = report(&site.run(&["check", "--json"])?)?;
    let key = checks(&report)
        .find(|check| check["name"] == "key")
        .ok_or("no check of the key")?;
    assert_eq!(key["outcome"], "fail");
    let step = key["next_step"].as_str().unwrap_or_default();
    assert!(step.contains("tokens lock"), "{key}");
    assert!(!report.to_string().contains("not the PIN"));
    Ok(())
}

#[test]
fn an_old_litestream_and_a_database_without_wal_are_worth_a_warning() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "check-old")?;
    let mut site = Site::new(&lab, device, tools::edgerepl()?)?;
    site.use_litestream(&lab, "0.3.13")?;
    let connection = site.connect()?;
    connection.execute_batch("CREATE TABLE a (b); PRAGMA journal_mode = delete")?;
    drop(connection);
    let output = site.run(&["check", "--json"])?;
    let report = report(&output)?;
    for name in ["litestream", "restorable", "database"] {
        let check = checks(&report)
            .find(|check| check["name"] == name)
            .ok_or("no such check")?;
        assert_eq!(check["outcome"], "warn", "{check}");
    }
    assert!(output.status.success(), "a warning is no failure");
    assert!(tools::litestream("0.3.13")?.exists());
    Ok(())
}

#[test]
fn the_last_thing_that_litestream_says_is_in_the_sentence() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "check-said")?;
    let mut site = Site::new(&lab, device, tools::edgerepl()?)?;
    let detail = |site: &Site, name: &str| -> Result<String, Box<dyn Error>> {
        let report = report(&site.run(&["check", "--json"])?)?;
        let found = checks(&report).find(|check| check["name"] == name);
        let found = found.ok_or("no such check")?;
        assert_eq!(found["outcome"], "fail", "{found}");
        Ok(found["detail"].as_str().unwrap_or_default().to_owned())
    };
    // More than a pipe holds, and then what matters.
    let script = site.root().join("litestream.sh");
    let talk = "i=0; while [ $i -lt 4000 ]; do echo 'a line of sixty characters or thereabouts, on \
                both pipes' | tee /dev/stderr; i=$((i+1)); done";
    let text = format!("#!/bin/sh\n{talk}\nprintf 'it \\033[31mbroke\\n\\n' >&2; exit 3\n");
    fs::write(&script, text)?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    site.set(
        "replication",
        "command",
        format!("[{script:?}, \"replicate\"]"),
    );
    let said = detail(&site, "litestream")?;
    assert!(said.ends_with("fails: it [31mbroke"), "{said}");

    let refused = site.root().join("refused.yml");
    fs::write(&refused, "dbs:\n  - path: /a\n    monitor-interval: soon\n")?;
    let program = tools::litestream("0.5.17")?;
    let command = format!("[{program:?}, \"replicate\", \"-config\", {refused:?}]");
    site.set("replication", "command", command);
    let said = detail(&site, "litestream_config")?;
    assert!(
        said.contains("does not accept") && said.contains("soon"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_configuration_that_cannot_be_read_is_exit_code_78() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "check-config")?;
    let mut site = Site::new(&lab, device, tools::edgerepl()?)?;
    site.set("identity", "thing_nam", "\"x\"");
    let output = site.run(&["check"])?;
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stdout)?;
    assert!(
        text.contains("the nearest known one is \"thing_name\""),
        "{text}"
    );
    Ok(())
}

/// The user that the daemon would have, where root runs the check.
const NOBODY: u32 = 65_534;

#[test]
fn a_table_that_edgerepl_did_not_make_fails_by_name() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let cases = [
        (
            "CREATE TABLE healthcheck (id INTEGER PRIMARY KEY, created_at, result)",
            "HealthCheck is a table that edgerepl did not make",
        ),
        (
            "CREATE VIEW HealthCheck AS SELECT 1 AS id, NULL AS created_at",
            "HealthCheck is a view",
        ),
    ];
    for (turn, (schema, says)) in cases.into_iter().enumerate() {
        let device = lab.provision_pem(KeyKind::EcdsaP256, &format!("check-table-{turn}"))?;
        let site = Site::new(&lab, device, tools::edgerepl()?)?;
        site.connect()?.execute_batch(schema)?;
        let check = database(&site)?;
        assert_eq!(check["outcome"], "fail", "{check}");
        assert!(
            check["detail"].as_str().is_some_and(|d| d.contains(says)),
            "{check}"
        );
        assert_eq!(
            check["next_step"], "set [heartbeat] table = \"edgerepl_heartbeat\"",
            "{check}"
        );
    }
    Ok(())
}

/// Put there while the daemon runs: no row can be written then, or none that is only a row. Who checks is
/// told, and so is who asks the daemon, until it is gone.
#[test]
fn what_hangs_on_the_heartbeat_table_is_named_by_check_and_status() -> Outcome {
    const TABLE: &str = "DROP TABLE HealthCheck";
    let cases = [
        (
            "CREATE TRIGGER aborts BEFORE INSERT ON HealthCheck BEGIN SELECT raise(ABORT, 'no'); END",
            "DROP TRIGGER aborts",
            "the trigger \"aborts\"",
        ),
        (
            "CREATE TRIGGER ignores BEFORE INSERT ON HealthCheck BEGIN SELECT raise(IGNORE); END",
            "DROP TRIGGER ignores",
            "the trigger \"ignores\"",
        ),
        (
            "CREATE TRIGGER \"calls it\" AFTER INSERT ON healthcheck BEGIN SELECT its_own(new.id); END",
            "DROP TRIGGER \"calls it\"",
            "the trigger \"calls it\"",
        ),
        (
            "CREATE TRIGGER misses AFTER INSERT ON HealthCheck BEGIN INSERT INTO nowhere VALUES (1); END",
            "DROP TRIGGER misses",
            "the trigger \"misses\"",
        ),
        (
            "CREATE TRIGGER keeps BEFORE DELETE ON HealthCheck BEGIN SELECT raise(ABORT, 'no'); END",
            "DROP TRIGGER keeps",
            "the trigger \"keeps\"",
        ),
        (
            "CREATE UNIQUE INDEX once ON HealthCheck (id, created_at)",
            "DROP INDEX once",
            "the index \"once\"",
        ),
        (
            "CREATE TABLE guests (at REFERENCES HealthCheck)",
            "DROP TABLE guests",
            "\"guests\" refers to",
        ),
        (
            "ALTER TABLE HealthCheck ADD COLUMN good INTEGER CHECK (good > id)",
            TABLE,
            "a table that edgerepl did not make",
        ),
        (
            "ALTER TABLE HealthCheck ADD COLUMN twice AS (id * 2)",
            TABLE,
            "a table that edgerepl did not make",
        ),
        (
            "ALTER TABLE HealthCheck RENAME TO kept; \
             CREATE VIEW HealthCheck AS SELECT id, created_at FROM kept; \
             CREATE TRIGGER into_it INSTEAD OF INSERT ON HealthCheck BEGIN \
             INSERT INTO kept VALUES (new.id, new.created_at); END",
            "DROP VIEW HealthCheck",
            "is a view",
        ),
    ];
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "check-hangs")?;
    let site = Site::new(&lab, device, tools::edgerepl()?)?;
    let mut daemon = site.start()?;
    let problem = |status: &Value, says: &str| {
        let mut problems = status["problems"].as_array().into_iter().flatten();
        problems.any(|problem| problem.as_str().is_some_and(|text| text.contains(says)))
    };
    let rows = |status: &Value| status["heartbeat"]["rows"].as_u64();
    daemon.wait_for("a row", LIMIT, |status| rows(status) > Some(0))?;
    let application = site.connect()?;
    for (change, back, says) in cases {
        application.execute_batch(change)?;
        // The status has some patience with rows that are late: a few kinds of all.
        let is_asked = ["aborts", "calls it", "once", "view"]
            .iter()
            .any(|part| says.contains(part));
        if is_asked {
            let status = daemon.wait_for(says, LIMIT, |status| problem(status, says))?;
            assert!(problem(&status, "set [heartbeat] table"), "{status:#}");
        }
        let check = database(&site)?;
        assert_eq!(check["outcome"], "fail", "{change}: {check}");
        let detail = check["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(says), "{change}: {check}");
        let next = check["next_step"].as_str().unwrap_or_default();
        assert!(next.starts_with("set [heartbeat] table"), "{check}");
        application.execute_batch(back)?;
        let before = rows(&daemon.status().unwrap_or_default());
        daemon.wait_for(back, LIMIT, |status| {
            rows(status) > before && !problem(status, says)
        })?;
        assert_eq!(database(&site)?["outcome"], "pass", "{back}");
    }
    assert!(daemon.terminate()?.success());
    Ok(())
}

#[test]
fn a_database_that_is_a_link_fails_by_name() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "check-link")?;
    let site = Site::new(&lab, device, tools::edgerepl()?)?;
    let real = site.root().join("real.db");
    std::os::unix::fs::symlink(&real, site.database())?;
    for exists in [false, true] {
        if exists {
            site.connect()?.execute_batch("CREATE TABLE a (b)")?;
        }
        let check = database(&site)?;
        assert_eq!(check["outcome"], "fail", "{check}");
        let detail = check["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("is a symbolic link"), "{check}");
        let next = check["next_step"].as_str().unwrap_or_default();
        assert!(next.contains(&real.display().to_string()), "{check}");
    }
    Ok(())
}

#[test]
fn what_is_no_database_fails_by_name() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "check-kind")?;
    let site = Site::new(&lab, device, tools::edgerepl()?)?;
    let fails = |says: &str| -> Outcome {
        let check = database(&site)?;
        assert_eq!(check["outcome"], "fail", "{check}");
        let detail = check["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(says), "{check}");
        Ok(())
    };
    nix::unistd::mkfifo(&site.database(), nix::sys::stat::Mode::S_IRWXU)?;
    fails("app.db is not a regular file")?;
    fs::remove_file(site.database())?;
    fs::create_dir(site.database())?;
    fails("app.db is not a regular file")?;
    fs::remove_dir(site.database())?;
    fs::write(site.database(), "a text that is longer than a header")?;
    fails("app.db is not a SQLite database")
}

/// Nine of edgerepl's and of Litestream's, most of which can't be replicated, and some in a folder.
#[test]
fn each_database_is_tried_and_what_is_wrong_with_one_is_said_by_its_name() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "check-several")?;
    let site = Site::new(&lab, device, tools::edgerepl()?)?;
    let root = site.root().to_owned();
    let others = [
        "rollback.db",
        "empty.db",
        "text.db",
        "secret.db",
        "newer.db",
        "missing.db",
        "named-by-litestream.db",
    ];
    with_databases(&site, &others)?;
    with_folder(&site, "more")?;
    let ours = root.join("edgerepl.toml.d/databases.toml");
    let listed = fs::read_to_string(&ours)?;
    fs::write(
        &ours,
        listed.replace("named-by-litestream.db", "nobodys.db"),
    )?;
    let made = [
        "app.db",
        "nobodys.db",
        "named-by-litestream.db",
        "more/in.db",
    ];
    for name in made.into_iter().chain(["rollback.db", "newer.db"]) {
        let database = rusqlite::Connection::open(root.join(name))?;
        let mode = if name == "rollback.db" {
            "delete"
        } else {
            "wal"
        };
        database.execute_batch(&format!("PRAGMA journal_mode = {mode}; CREATE TABLE t (x)"))?;
    }
    let mut newer = fs::read(root.join("newer.db"))?;
    newer[18..20].copy_from_slice(&[3, 3]);
    fs::write(root.join("newer.db"), newer)?;
    fs::write(root.join("empty.db"), "")?;
    fs::write(root.join("text.db"), "a text that is longer than a header")?;
    // As SQLCipher leaves it: nothing but random bytes.
    let mut random = Vec::new();
    fs::File::open("/dev/urandom")?
        .take(8192)
        .read_to_end(&mut random)?;
    for name in ["secret.db", "more/secret.db"] {
        fs::write(root.join(name), &random)?;
    }
    let output = site.run(&["check", "--json"])?;
    let report = report(&output)?;
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    let in_folder = root.join("more/secret.db").display().to_string();
    let wanted = [
        ("app.db", "pass", "in WAL mode", ""),
        (
            "rollback.db",
            "warn",
            "is not in WAL mode",
            "keep the application",
        ),
        ("empty.db", "warn", "is empty", "create its tables"),
        (
            "text.db",
            "fail",
            "is not a SQLite database",
            "check [database] path",
        ),
        ("secret.db", "fail", "looks encrypted", "encrypt values"),
        (
            "newer.db",
            "fail",
            "written by a newer SQLite, in file format 3",
            "update edgerepl",
        ),
        ("missing.db", "warn", "does not exist", "`edgerepl restore`"),
        ("nobodys.db", "pass", "in WAL mode", ""),
        ("named-by-litestream.db", "pass", "in WAL mode", ""),
        ("in.db", "pass", "in WAL mode", ""),
        (
            in_folder.as_str(),
            "warn",
            "Litestream passes it over",
            "encrypt values",
        ),
    ];
    let tried: Vec<&Value> = checks(&report)
        .filter(|check| {
            check["name"]
                .as_str()
                .is_some_and(|n| n.starts_with("database"))
        })
        .collect();
    assert_eq!(tried.len(), wanted.len(), "{report:#}");
    for (check, (name, outcome, says, next)) in tried.iter().zip(wanted) {
        assert_eq!(check["name"], format!("database {name}"), "{report:#}");
        assert_eq!(check["outcome"], outcome, "{check}");
        let [detail, step] = ["detail", "next_step"].map(|key| check[key].as_str().unwrap_or(""));
        assert!(detail.contains(says) && detail.contains(name), "{check}");
        assert!(
            step.contains(next) && step.is_empty() == next.is_empty(),
            "{check}"
        );
    }
    let config = checks(&report).find(|check| check["name"] == "litestream_config");
    let config = config.ok_or("no check of it")?;
    assert_eq!(config["outcome"], "fail", "{config}");
    let detail = config["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("does not name the database") && detail.contains("nobodys.db"),
        "{config}"
    );

    // The same file once more, by a link.
    let file = root.join("litestream.yml");
    let text = fs::read_to_string(&file)?;
    std::os::unix::fs::symlink(&root, root.join("link"))?;
    let twice = text.replace("/named-by-litestream.db", "/link/app.db");
    fs::write(&file, twice)?;
    let again = self::report(&site.run(&["check", "--json"])?)?;
    let config = checks(&again).find(|check| check["name"] == "litestream_config");
    let config = config.ok_or("no check of it")?;
    let detail = config["detail"].as_str().unwrap_or_default();
    assert_eq!(config["outcome"], "fail", "{config}");
    assert!(
        detail.contains("dbs[0] names ") && detail.contains("dbs[7] names "),
        "{config}"
    );
    assert!(detail.contains("which are one file"), "{config}");
    Ok(())
}

/// Whatever the state of the database: a check writes nothing, and leaves no file.
#[test]
fn a_trial_leaves_the_database_and_its_folder_as_they_were() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    for case in ["delete", "wal, closed", "wal, left behind", "wal, open"] {
        let device = lab.provision_pem(KeyKind::EcdsaP256, &format!("check-{}", case.len()))?;
        let site = Site::new(&lab, device, tools::edgerepl()?)?;
        let application = site.connect()?;
        application.execute_batch("CREATE TABLE a (b); INSERT INTO a VALUES (1)")?;
        let mut open = None;
        match case {
            "delete" => application.execute_batch("PRAGMA journal_mode = delete")?,
            "wal, closed" => drop(application),
            "wal, left behind" => {
                // As a power cut leaves it.
                let files = ["app.db", "app.db-wal", "app.db-shm"].map(|n| site.root().join(n));
                let kept = files.each_ref().map(fs::read);
                drop(application);
                for (file, content) in files.iter().zip(kept) {
                    fs::write(file, content?)?;
                }
                open = Some(None);
            }
            _ => open = Some(Some(application)),
        }
        let before = files(&site)?;
        assert_eq!(before.contains_key("app.db-wal"), open.is_some(), "{case}");
        let check = database(&site)?;
        assert_ne!(check["outcome"], "fail", "{case}: {check}");
        assert!(
            files(&site)? == before,
            "{case}: {:?}",
            files(&site)?.keys()
        );
    }
    Ok(())
}

/// Root may do what the daemon's user may not.
#[test]
fn the_database_is_tried_as_the_daemons_user() -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not tested: only root can become another user");
        return Ok(());
    }
    let lab = Lab::start(LabOptions::default())?;
    fs::set_permissions(lab.root(), Permissions::from_mode(0o711))?;
    let cases = [
        ("root's folder", 0, NOBODY, 0o600, "the folder"),
        ("root's database", NOBODY, 0, 0o644, "can't be written to"),
        ("root's secret database", NOBODY, 0, 0o600, "can't be read"),
        ("its own", NOBODY, NOBODY, 0o600, ""),
    ];
    for (turn, (case, folder, file, mode, says)) in cases.into_iter().enumerate() {
        let device = lab.provision_pem(KeyKind::EcdsaP256, &format!("check-user-{turn}"))?;
        let site = Site::new(&lab, device, tools::edgerepl()?)?;
        let connection = site.connect()?;
        connection.execute_batch("CREATE TABLE a (b)")?;
        drop(connection);
        chown(site.database(), Some(file), Some(file))?;
        fs::set_permissions(site.database(), Permissions::from_mode(mode))?;
        fs::set_permissions(site.root(), Permissions::from_mode(0o755))?;
        fs::set_permissions(lab.root().join("sites"), Permissions::from_mode(0o711))?;
        // As root all can be done,
        assert_eq!(database(&site)?["outcome"], "pass", "{case}");
        chown(site.root(), Some(folder), Some(folder))?;
        chown(site.runtime_file(""), Some(NOBODY), Some(NOBODY))?;
        // and as the owner of the daemon's directory what its user can do.
        let before = files(&site)?;
        let check = database(&site)?;
        let detail = check["detail"].as_str().unwrap_or_default();
        match says {
            "" => assert_eq!(check["outcome"], "pass", "{case}: {check}"),
            says => {
                assert_eq!(check["outcome"], "fail", "{case}: {check}");
                assert!(detail.contains(says), "{case}: {check}");
                let next = check["next_step"].as_str().unwrap_or_default();
                assert!(next.starts_with("check its owner"), "{case}: {check}");
            }
        }
        assert!(
            files(&site)? == before,
            "{case}: {:?}",
            files(&site)?.keys()
        );
        // The folder may be there, and that of Litestream's memory be somebody else's.
        if says.is_empty() {
            fs::create_dir(site.root().join(".app.db-litestream"))?;
            let check = database(&site)?;
            let detail = check["detail"].as_str().unwrap_or_default();
            assert_eq!(check["outcome"], "fail", "{check}");
            assert!(detail.contains(".app.db-litestream can't be"), "{check}");
        }
    }
    Ok(())
}

#[test]
fn a_data_partition_that_is_read_only_fails_by_name() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "check-read-only")?;
    let site = Site::new(&lab, device, tools::edgerepl()?)?;
    site.connect()?.execute_batch("CREATE TABLE a (b)")?;
    let mount = |options: &str| {
        Command::new("mount")
            .args(["-o", options])
            .args([site.root(), site.root()])
            .output()
    };
    if !mount("bind")?.status.success() {
        eprintln!("not tested: only root can mount");
        return Ok(());
    }
    let mounted = site.write_config().map(|()| mount("remount,bind,ro"));
    let output = site.command(&["check", "--json"]).output();
    let unmounted = Command::new("umount").arg("-l").arg(site.root()).output()?;
    assert!(mounted??.status.success() && unmounted.status.success());
    let report = report(&output?)?;
    let check = checks(&report).find(|check| check["name"] == "database");
    let check = check.ok_or("no check of the database")?;
    assert_eq!(check["outcome"], "fail", "{check}");
    let detail = check["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("Read-only file system"), "{check}");
    Ok(())
}

/// The outcome of the check of the database.
fn database(site: &Site) -> Result<Value, Box<dyn Error>> {
    let report = report(&site.run(&["check", "--json"])?)?;
    let check = checks(&report).find(|check| check["name"] == "database");
    Ok(check.ok_or("no check of the database")?.clone())
}

type Files = BTreeMap<String, (u32, Vec<u8>)>;

/// The database's files, with owner and content; SQLite's shared memory without it.
fn files(site: &Site) -> Result<Files, Box<dyn Error>> {
    let mut files = BTreeMap::new();
    for file in fs::read_dir(site.root())? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        if name.contains("app.db") {
            let content = match name.as_str() {
                "app.db" | "app.db-wal" => fs::read(file.path())?,
                _ => Vec::new(),
            };
            files.insert(name, (file.metadata()?.uid(), content));
        }
    }
    Ok(files)
}

fn report(output: &Output) -> Result<Value, Box<dyn Error>> {
    let parsed = serde_json::from_slice(&output.stdout);
    parsed.map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

fn checks(report: &Value) -> impl Iterator<Item = &Value> {
    report["checks"].as_array().into_iter().flatten()
}
