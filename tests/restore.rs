//! `edgerepl restore`: a database that was lost comes back whole, or not at all.

mod common;

use std::error::Error;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    LIMIT, Outcome, damage_restores, lab, replicates, restores_of, site, with_databases,
    with_folder,
};
use edgerepl_lab::{KeyKind, Lab, Site, tools};
use rusqlite::Connection;

const KILLS: u32 = 50;

#[test]
fn what_was_lost_comes_back_and_replication_goes_on() -> Outcome {
    let (lab, site) = lost("restore")?;
    // What an earlier database leaves would be taken for the new one's.
    fs::write(with_end(&site, "-wal"), "stale")?;
    fs::write(with_end(&site, "-shm"), "stale")?;
    let lost = rows(&site.root().join("lost.db"))?;
    let restored = site.run(&["restore"])?;
    let said = String::from_utf8_lossy(&restored.stderr).into_owned();
    assert!(restored.status.success(), "{said}");
    assert!(said.contains("was restored from its replica"), "{said}");
    for left in ["-wal", "-shm"] {
        assert!(!with_end(&site, left).exists(), "{left} is still there");
    }
    assert_eq!(rows(&site.database())?, lost);
    assert!(!site.root().join(".app.db-restore").exists());

    // Another one finds nothing to do, and changes nothing.
    let before = fs::read(site.database())?;
    assert!(site.run(&["restore"])?.status.success());
    assert!(fs::read(site.database())? == before);

    let mut daemon = site.start()?;
    daemon.wait_for("replication", LIMIT, replicates)?;
    assert!(daemon.terminate()?.success());
    assert!(site.compare(&lab)?.is_equal());
    Ok(())
}

#[test]
fn a_position_that_is_kept_elsewhere_goes_with_the_database_it_was_of() -> Outcome {
    let lab = lab(900)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "restore-elsewhere")?;
    let site = site(&lab, &device)?;
    let elsewhere = site.root().join("elsewhere");
    let config = site.root().join("litestream.yml");
    let text = fs::read_to_string(&config)?;
    let path = format!("path: {}\n", site.database().display());
    assert!(text.contains(&path), "{text}");
    let state = format!("{path}    meta-path: {}\n", elsewhere.display());
    fs::write(&config, text.replace(&path, &state))?;
    let mut daemon = site.start()?;
    daemon.wait_for("replication", LIMIT, replicates)?;
    assert!(daemon.terminate()?.success());
    assert!(elsewhere.join("ltx/0").exists(), "it is kept elsewhere");
    fs::write(elsewhere.join("theirs"), "somebody else's")?;
    fs::remove_file(site.database())?;
    let restored = site.run(&["restore"])?;
    let said = String::from_utf8_lossy(&restored.stderr).into_owned();
    assert!(restored.status.success(), "{said}");
    assert!(!elsewhere.join("ltx").exists(), "a stale position is left");
    assert_eq!(
        fs::read_to_string(elsewhere.join("theirs"))?,
        "somebody else's"
    );
    let mut daemon = site.start()?;
    daemon.wait_for("replication", LIMIT, replicates)?;
    assert!(daemon.terminate()?.success());
    assert!(site.compare(&lab)?.is_equal());
    Ok(())
}

#[test]
fn without_a_replica_there_is_nothing_to_do() -> Outcome {
    let lab = lab(900)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "restore-new")?;
    let site = site(&lab, &device)?;
    let nothing = site.run(&["restore"])?;
    let said = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(nothing.status.success(), "{said}");
    assert!(said.contains("holds no replica"), "{said}");
    assert!(!site.database().exists());
    Ok(())
}

#[test]
fn what_only_the_application_can_judge_is_no_damage() -> Outcome {
    let lab = lab(900)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "restore-own")?;
    let site = site(&lab, &device)?;
    let database = site.connect()?;
    database.execute_batch(
        "CREATE TABLE names (name TEXT, CHECK (length(name) > 0));
         CREATE INDEX by_name ON names (name COLLATE NOCASE);
         CREATE INDEX folded ON names (lower(name));
         INSERT INTO names VALUES ('Ärger'), ('zwei'), ('Drei');
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(replace(replace(sql, 'NOCASE', 'UNI'),
         'lower', 'own_fold'), 'length', 'own_length');",
    )?;
    let mut daemon = site.start()?;
    daemon.wait_for("replication", LIMIT, replicates)?;
    assert!(daemon.terminate()?.success());
    database.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    drop(database);
    let lost = fs::read(site.database())?;
    fs::remove_file(site.database())?;
    let restored = site.run(&["restore"])?;
    let said = String::from_utf8_lossy(&restored.stderr).into_owned();
    assert!(restored.status.success(), "{said}");
    assert!(
        said.contains("without the application's code: table names: "),
        "{said}"
    );
    assert!(fs::read(site.database())? == lost);
    Ok(())
}

/// The folder is an application's user's, who has put a link where the command makes its own folder.
#[test]
fn a_folder_of_somebody_elses_leads_nowhere_and_gets_its_database() -> Outcome {
    let (_lab, site) = lost("restore-others")?;
    let (others, aside) = (
        site.root().join("others"),
        site.root().join(".app.db-restore"),
    );
    fs::create_dir(&others)?;
    for name in ["lock", "litestream.lock", "kept"] {
        fs::write(others.join(name), "another's")?;
    }
    symlink(&others, &aside)?;
    let refused = site.run(&["restore"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("it is a link or no folder; remove it"),
        "{said}"
    );
    for name in ["lock", "litestream.lock", "kept"] {
        assert_eq!(fs::read_to_string(others.join(name))?, "another's");
    }
    assert!(!site.database().exists());
    fs::remove_file(&aside)?;

    // Only root can give the folder away.
    let owner = match chown(site.root(), Some(65_534), Some(65_533)) {
        Ok(()) => (65_534, 65_533),
        Err(_) => (
            fs::metadata(site.root())?.uid(),
            fs::metadata(site.root())?.gid(),
        ),
    };
    for (umask, mode) in [("000", 0o644), ("022", 0o644), ("077", 0o600)] {
        let _ = fs::remove_file(site.database());
        let restore = site.command(&["restore"]);
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("umask {umask}; exec \"$0\" \"$@\""));
        shell
            .arg(restore.get_program())
            .args(restore.get_args())
            .env_clear();
        for (name, value) in restore.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        let restored = shell.output()?;
        let said = String::from_utf8_lossy(&restored.stderr).into_owned();
        assert!(restored.status.success(), "{said}");
        let made = fs::symlink_metadata(site.database())?;
        assert_eq!(made.mode() & 0o777, mode, "umask {umask}");
        assert_eq!((made.uid(), made.gid()), owner);
        assert!(aside.symlink_metadata().is_err());
    }
    Ok(())
}

#[test]
fn a_damaged_replica_is_not_put_in_the_databases_place() -> Outcome {
    let (_lab, mut site) = lost("restore-damaged")?;
    damage_restores(&mut site)?;
    let refused = site.run(&["restore"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("the replica is damaged"), "{said}");
    assert!(!site.database().exists());
    Ok(())
}

#[test]
fn a_failure_leaves_no_database_and_waiting_ends_in_one() -> Outcome {
    let (lab, site) = lost("restore-wait")?;
    lab.provider().set_listening(false)?;
    let failed = site.run(&["restore"])?;
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("the database is not restored: "), "{said}");
    assert!(!site.database().exists());
    let mut waiting = command(&site).arg("--wait").spawn()?;
    thread::sleep(Duration::from_secs(1));
    lab.provider().set_listening(true)?;
    assert!(waiting.wait()?.success());
    rows(&site.database())?;
    Ok(())
}

#[test]
fn two_at_once_and_fifty_kills_leave_no_database_or_a_whole_one() -> Outcome {
    let (_lab, site) = lost("restore-kills")?;
    let lost = rows(&site.root().join("lost.db"))?;
    let begun = Instant::now();
    assert!(site.run(&["restore"])?.status.success());
    // What a restore takes differs from one to the next: the kills find out.
    let mut whole = begun.elapsed();
    let (mut done, mut none) = (0, 0);
    let mut seed = 20_261_123_u64;
    for _ in 0..KILLS {
        let _ = fs::remove_file(site.database());
        let mut running = command(&site).spawn()?;
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        thread::sleep(whole.mul_f64((seed >> 33) as f64 / f64::from(1u32 << 31)));
        running.kill()?;
        running.wait()?;
        if site.database().exists() {
            assert_eq!(rows(&site.database())?, lost);
            whole = whole.mul_f64(0.8);
            done += 1;
        } else {
            whole = whole.mul_f64(1.2);
            none += 1;
        }
    }
    println!("{KILLS} kills: {none} times no database, {done} times a whole one");
    assert!(none > 5, "{none}");

    let _ = fs::remove_file(site.database());
    let both = [command(&site).spawn()?, command(&site).spawn()?];
    for mut one in both {
        assert!(one.wait()?.success());
    }
    assert_eq!(rows(&site.database())?, lost);
    assert!(!site.root().join(".app.db-restore").exists());
    Ok(())
}

/// Four that were replicated are gone: the third one's replica is damaged, and the fourth one is of a
/// folder whose databases Litestream finds itself.
#[test]
fn each_database_comes_back_or_is_named_and_one_that_is_there_is_left() -> Outcome {
    let (_lab, mut site, lost) = lost_together("restore-several")?;
    let root = site.root().to_owned();
    let broken = root.join("broken");
    fs::write(&broken, "")?;
    let damage = format!("litestream \"$@\" || exit; [ ! -e {broken:?} ] || echo no >$o");
    restores_of(&mut site, "second.db", &damage)?;
    fs::copy(root.join("lost-third.db"), root.join("third.db"))?;
    Connection::open(root.join("third.db"))?.execute_batch("DELETE FROM t")?;
    let (third, before) = (root.join("third.db"), fs::read(root.join("third.db"))?);

    let restored = site.run(&["restore"])?;
    let said = String::from_utf8_lossy(&restored.stderr).into_owned();
    assert_eq!(restored.status.code(), Some(1), "{said}");
    let place = |words: &str| said.find(words).ok_or(format!("no {words:?} in {said}"));
    let in_order = [
        place("/app.db was restored from its replica")?,
        place("the database is not restored: ")?,
        place("/third.db exists: nothing to restore")?,
    ];
    assert!(in_order.is_sorted(), "{said}");
    assert!(
        said.contains("/second.db: the replica is damaged"),
        "{said}"
    );
    assert_eq!(count(&site.database())?, lost);
    assert!(!root.join("second.db").exists());
    assert!(fs::read(&third)? == before, "one that is there was changed");
    // One that only its folder names comes back where somebody names it.
    let fourth = root.join("more/fourth.db");
    let restored = site.run(&["restore", fourth.to_str().ok_or("a path")?])?;
    let said = String::from_utf8_lossy(&restored.stderr).into_owned();
    assert!(restored.status.success(), "{said}");
    assert_eq!(count(&fourth)?, lost);
    // By name no other one is touched; an unknown name restores nothing.
    fs::remove_file(site.database())?;
    assert!(site.run(&["restore", "third.db"])?.status.success());
    let refused = site.run(&["restore", "app.db", "nobody.db"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("second.db") && said.contains("nobody.db is no"),
        "{said}"
    );
    assert!(!site.database().exists());

    // Waiting ends once all are there.
    let mut waiting = command(&site).arg("--wait").spawn()?;
    let begun = Instant::now();
    while !site.database().exists() && begun.elapsed() < LIMIT {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(
        waiting.try_wait()?.is_none(),
        "it did not wait for the second one"
    );
    fs::remove_file(broken)?;
    assert!(waiting.wait()?.success());
    for name in ["app.db", "second.db"] {
        assert_eq!(count(&root.join(name))?, lost, "{name}");
    }
    nothing_aside(&site)
}

#[test]
fn a_kill_in_the_second_restore_leaves_the_first_whole_and_no_second() -> Outcome {
    let (_lab, mut site, lost) = lost_together("restore-second-kill")?;
    let root = site.root().to_owned();
    let (before, after) = (root.join("before"), root.join("after"));
    for at in [&before, &after] {
        for name in ["app.db", "second.db", "third.db"] {
            let _ = fs::remove_file(root.join(name));
        }
        let [began, waits] = ["began", "waits"].map(|name| root.join(name));
        let _ = fs::remove_file(&began);
        fs::write(&waits, "")?;
        let stop = format!("touch {began:?}; [ ! -e {waits:?} ] || exec sleep 600");
        let script = match *at == before {
            true => format!("{stop}; litestream \"$@\""),
            false => format!("litestream \"$@\" || exit; {stop}"),
        };
        restores_of(&mut site, "second.db", &script)?;
        site.write_config()?;
        let mut running = command(&site).spawn()?;
        let begun = Instant::now();
        while !began.exists() && begun.elapsed() < LIMIT {
            thread::sleep(Duration::from_millis(10));
        }
        running.kill()?;
        running.wait()?;
        assert_eq!(count(&site.database())?, lost, "the first one");
        assert!(!root.join("second.db").exists() && !root.join("third.db").exists());
        fs::remove_file(waits)?;
        let restored = site.run(&["restore"])?;
        let said = String::from_utf8_lossy(&restored.stderr).into_owned();
        assert!(restored.status.success(), "{said}");
        for name in ["app.db", "second.db", "third.db"] {
            assert_eq!(count(&root.join(name))?, lost, "{name}: {said}");
        }
        nothing_aside(&site)?;
    }
    Ok(())
}

#[test]
fn an_earlier_state_comes_back_by_its_time() -> Outcome {
    let lab = lab(900)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "restore-moment")?;
    let site = site(&lab, &device)?;
    let database = site.connect()?;
    database.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1), (2), (3)")?;
    let mut daemon = site.start()?;
    daemon.wait_for("replication", LIMIT, replicates)?;
    assert!(site.sync());
    // A state is dated by when Litestream read it.
    let now = || -> Outcome<String> {
        thread::sleep(Duration::from_millis(1100));
        let date = Command::new("date")
            .args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])
            .output()?;
        Ok(String::from_utf8(date.stdout)?.trim().to_owned())
    };
    let then = now()?;
    database.execute_batch("DELETE FROM t; CREATE TABLE u (y)")?;
    assert!(site.sync());
    assert!(daemon.terminate()?.success());
    drop(database);

    let there = site.run(&["restore", "--timestamp", &then])?;
    let said = String::from_utf8_lossy(&there.stderr).into_owned();
    assert!(there.status.success(), "{said}");
    assert!(said.contains("exists, and stays as it is"), "{said}");
    assert_eq!(count(&site.database())?, 0);

    fs::remove_file(site.database())?;
    let early = site.run(&[
        "restore",
        "--wait",
        "--timestamp",
        "2020-01-01T00:00:00+01:00",
    ])?;
    let said = String::from_utf8_lossy(&early.stderr).into_owned();
    assert_eq!(early.status.code(), Some(1), "{said}");
    assert!(
        said.contains("S3 holds no state of it at 2020-01-01T00"),
        "{said}"
    );
    assert!(!site.database().exists());
    let odd = site.run(&["restore", "--timestamp", "yesterday"])?;
    let said = String::from_utf8_lossy(&odd.stderr).into_owned();
    assert_eq!(odd.status.code(), Some(64), "{said}");
    assert!(said.contains("no time by RFC 3339"), "{said}");

    let restored = site.run(&["restore", "--timestamp", &then])?;
    let said = String::from_utf8_lossy(&restored.stderr).into_owned();
    assert!(restored.status.success(), "{said}");
    assert!(said.contains(&format!("as of {then}")), "{said}");
    assert_eq!(count(&site.database())?, 3);
    // What is written from then on is replicated.
    let mut daemon = site.start()?;
    site.connect()?.execute_batch("INSERT INTO t VALUES (4)")?;
    daemon.wait_for("replication", LIMIT, replicates)?;
    assert!(daemon.terminate()?.success());
    assert!(site.compare(&lab)?.is_equal());
    Ok(())
}

/// A device of several databases that were replicated, and are lost: `app.db`, `second.db`, `third.db`
/// by their paths, and one of a folder. What they were is beside them; the number is how many rows
/// `t` has in each.
fn lost_together(thing_name: &str) -> Result<(Lab, Site, i64), Box<dyn Error>> {
    const ROWS: i64 = 300;
    let lab = lab(900)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, thing_name)?;
    let site = site(&lab, &device)?;
    with_databases(&site, &["second.db", "third.db"])?;
    with_folder(&site, "more")?;
    let names = ["app.db", "second.db", "third.db", "more/fourth.db"];
    for name in names {
        let database = Connection::open(site.root().join(name))?;
        database.execute_batch(&format!(
            "PRAGMA journal_mode = wal; CREATE TABLE t (x); WITH RECURSIVE n(i) AS (SELECT 1 UNION \
             ALL SELECT i + 1 FROM n WHERE i < {ROWS}) INSERT INTO t SELECT hex(randomblob(40)) FROM n",
        ))?;
    }
    let mut daemon = site.start()?;
    daemon.wait_for("all of them in the bucket", LIMIT, |status| {
        let requests = lab.s3().requests();
        let is_there = |name: &&str| {
            let mut uploads = requests.iter().filter(|request| request.is_upload());
            uploads.any(|upload| upload.key.contains(name))
        };
        replicates(status) && names.iter().all(is_there)
    })?;
    assert!(daemon.terminate()?.success());
    for name in names {
        let path = site.root().join(name);
        Connection::open(&path)?.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        fs::rename(&path, site.root().join(format!("lost-{file}")))?;
    }
    Ok((lab, site, ROWS))
}

/// How many rows `t` has in a database that is whole.
fn count(database: &Path) -> Result<i64, Box<dyn Error>> {
    assert!(database.exists(), "{} is missing", database.display());
    let connection = Connection::open(database)?;
    let said: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    assert_eq!(said, "ok");
    Ok(connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?)
}

fn nothing_aside(site: &Site) -> Outcome {
    for entry in fs::read_dir(site.root())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        assert!(!name.ends_with("-restore"), "{name} was left behind");
    }
    Ok(())
}

/// A device whose database was replicated, and is lost: what it was is in `lost.db`.
fn lost(thing_name: &str) -> Result<(Lab, Site), Box<dyn Error>> {
    let lab = lab(900)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, thing_name)?;
    let site = site(&lab, &device)?;
    let database = site.connect()?;
    database.execute_batch(
        "CREATE TABLE filling (id INTEGER PRIMARY KEY, data BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 512)
         INSERT INTO filling SELECT i, randomblob(4096) FROM n;",
    )?;
    let mut daemon = site.start()?;
    daemon.wait_for("replication", LIMIT, replicates)?;
    assert!(daemon.terminate()?.success());
    database.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    drop(database);
    fs::rename(site.database(), site.root().join("lost.db"))?;
    Ok((lab, site))
}

/// The number of rows in a database that is whole.
fn rows(database: &PathBuf) -> Result<(i64, i64), Box<dyn Error>> {
    let connection = Connection::open(database)?;
    let said: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    assert_eq!(said, "ok");
    let count = |table: &str| {
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
            row.get(0)
        })
    };
    Ok((count("filling")?, count("HealthCheck")?))
}

fn with_end(site: &Site, end: &str) -> PathBuf {
    let mut path = site.database().into_os_string();
    path.push(end);
    path.into()
}

fn command(site: &Site) -> Command {
    let mut command = site.command(&["restore"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// As the unit does: a process that holds credentials is closed to all others of its user, Litestream
/// among them.
#[test]
fn a_user_without_privilege_restores_and_verifies() -> Outcome {
    const USER: u32 = 61_234;
    let (lab, mut site) = lost("restore-unprivileged")?;
    let (program, litestream) = (lab.root().join("edgerepl"), lab.root().join("litestream"));
    fs::copy(tools::edgerepl()?, &program)?;
    fs::copy(edgerepl_lab::tools::litestream("0.5.17")?, &litestream)?;
    let config = site.root().join("litestream.yml");
    let command = format!("[{litestream:?}, \"replicate\", \"-config\", {config:?}]");
    site.set("replication", "command", command);
    site.write_config()?;
    let runtime = site.runtime_file("");
    let mut given = Command::new("chown");
    given
        .args(["-R", &format!("{USER}:{USER}")])
        .args([lab.root(), &runtime]);
    if !given.stderr(Stdio::null()).status()?.success() {
        println!("skipped: only root can become another user");
        return Ok(());
    }
    let run = |arguments: &[&str]| {
        let command = site.command(arguments);
        Command::new("setpriv")
            .args(["--reuid", &USER.to_string(), "--regid", &USER.to_string()])
            .arg("--clear-groups")
            .arg(&program)
            .args(command.get_args())
            .env_clear()
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .output()
    };
    let restored = run(&["restore"])?;
    let said = String::from_utf8_lossy(&restored.stderr).into_owned();
    assert!(restored.status.success(), "{said}");
    assert_eq!(fs::metadata(site.database())?.uid(), USER);
    rows(&site.database())?;
    // Without a daemon that could be asked for the moment heartbeat rows are the proof.
    let verified = run(&["verify"])?;
    let said = [verified.stdout, verified.stderr].map(|t| String::from_utf8_lossy(&t).into_owned());
    assert!(verified.status.success(), "{}", said.concat());
    Ok(())
}
