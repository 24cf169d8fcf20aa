//! Real Litestream against the lab's S3: it replicates while its session lives, and no longer.

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use edgerepl_lab::{Lab, LabOptions, S3Fault, Session, tools};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;
use tempfile::TempDir;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const THING: &str = "thing-1";

#[test]
fn replication_stops_when_the_session_expires() -> Result<()> {
    let lab = Lab::start(LabOptions::default())?;
    let site = Site::new(&lab)?;
    let session = lab.provider().issue(THING, Duration::from_secs(6));
    let end = session.expires_at.ok_or("the session has no end")?;
    let config = lab.litestream_config(&site.path, &lab.root().join("litestream.sock"))?;
    let mut litestream = replicate("0.5.17", &config, &session)?;

    let written = site.write_until(end + Duration::from_secs(3))?;
    litestream.kill()?;
    litestream.wait()?;

    let late = lab.s3().uploads(end);
    assert!(
        late.is_empty(),
        "S3 took uploads of an ended session: {late:?}"
    );
    let refused: Vec<_> = lab
        .s3()
        .requests()
        .into_iter()
        .filter(|request| request.error.as_deref() == Some("ExpiredToken"))
        .collect();
    assert!(
        refused.iter().any(|r| r.operation == "PutObject"),
        "{refused:?}"
    );
    assert!(refused.iter().all(|r| r.status == Some(400)), "{refused:?}");
    // A request is timed by its head, and judged a moment later.
    let early = end - Duration::from_millis(200);
    assert!(refused.iter().all(|r| r.at > early), "{refused:?}");
    assert!(
        refused
            .iter()
            .all(|r| r.access_key_id.as_ref() == Some(&session.access_key_id))
    );

    let restored = site.restored_rows()?;
    assert!(
        0 < restored && restored < written,
        "{restored} of {written} rows"
    );
    Ok(())
}

#[test]
fn a_living_session_replicates_every_row() -> Result<()> {
    let lab = Lab::start(LabOptions::default())?;
    let site = Site::new(&lab)?;
    let session = lab.provider().issue(THING, Duration::from_secs(300));
    let socket = lab.root().join("litestream.sock");
    let config = lab.litestream_config(&site.path, &socket)?;
    let litestream = replicate("0.5.17", &config, &session)?;

    let written = site.write_until(Instant::now() + Duration::from_secs(3))?;
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        std::fs::metadata(&socket)?.permissions().mode() & 0o777,
        0o600
    );
    stop(litestream)?;
    assert_eq!(site.restored_rows()?, written);
    Ok(())
}

#[test]
fn litestream_0_3_replicates_every_row() -> Result<()> {
    let lab = Lab::start(LabOptions::default())?;
    let site = Site::new(&lab)?;
    let session = lab.provider().issue(THING, Duration::from_secs(300));
    let config = lab.litestream_config_0_3(&site.path)?;
    let litestream = replicate("0.3.13", &config, &session)?;

    let written = site.write_until(Instant::now() + Duration::from_secs(4))?;
    stop(litestream)?;
    assert_eq!(site.restored_rows()?, written);
    Ok(())
}

#[test]
fn wrong_credentials_are_refused_by_name() -> Result<()> {
    let lab = Lab::start(LabOptions::default())?;
    let site = Site::new(&lab)?;
    let config = lab.litestream_config(&site.path, &lab.root().join("litestream.sock"))?;
    let right = lab.provider().issue(THING, Duration::from_secs(300));
    let other = lab.provider().issue(THING, Duration::from_secs(300));

    let unknown_key = Session {
        access_key_id: "ASIAAAAAAAAAAAAAAAAA".into(),
        ..right.clone()
    };
    let secret_access_key = other.secret_access_key.clone();
    let wrong_secret = Session {
        secret_access_key,
        ..right.clone()
    };
    let wrong_token = Session {
        session_token: other.session_token,
        ..right.clone()
    };
    let no_token = Session {
        session_token: None,
        ..right
    };
    for (session, error) in [
        (unknown_key, "InvalidAccessKeyId"),
        (wrong_secret, "SignatureDoesNotMatch"),
        (wrong_token, "InvalidToken"),
        (no_token, "InvalidToken"),
    ] {
        let begin = Instant::now();
        let mut litestream = replicate("0.5.17", &config, &session)?;
        let deadline = begin + Duration::from_secs(10);
        let refused = loop {
            site.write_until(Instant::now() + Duration::from_millis(200))?;
            let requests = lab.s3().requests();
            if let Some(last) = requests.into_iter().rfind(|request| request.at >= begin) {
                break last;
            }
            assert!(Instant::now() < deadline, "Litestream asks nothing of S3");
        };
        litestream.kill()?;
        litestream.wait()?;
        assert_eq!(refused.error.as_deref(), Some(error));
    }
    Ok(())
}

#[test]
fn faults_of_s3_end_when_they_are_lifted() -> Result<()> {
    let lab = Lab::start(LabOptions::default())?;
    let site = Site::new(&lab)?;
    let session = lab.provider().issue(THING, Duration::from_secs(300));
    let config = lab.litestream_config(&site.path, &lab.root().join("litestream.sock"))?;
    let litestream = replicate("0.5.17", &config, &session)?;
    let mut written = site.write_until(Instant::now() + Duration::from_secs(2))?;

    for fault in [S3Fault::Refuse, S3Fault::Hang, S3Fault::ConnectionRefused] {
        lab.s3().set_fault(fault)?;
        let begin = Instant::now();
        written = site.write_until(begin + Duration::from_secs(2))?;
        assert!(lab.s3().uploads(begin).is_empty(), "{fault:?}");
    }
    lab.s3().set_fault(S3Fault::None)?;
    stop(litestream)?;
    assert_eq!(site.restored_rows()?, written);
    Ok(())
}

#[test]
fn lists_are_refused_and_nothing_else() -> Result<()> {
    let lab = Lab::start(LabOptions::default())?;
    let site = Site::new(&lab)?;
    let session = lab.provider().issue(THING, Duration::from_secs(300));
    let config = lab.litestream_config(&site.path, &lab.root().join("litestream.sock"))?;
    let litestream = replicate("0.5.17", &config, &session)?;
    site.write_until(Instant::now() + Duration::from_secs(2))?;

    lab.s3().set_fault(S3Fault::RefusesLists)?;
    let begin = Instant::now();
    let written = site.write_until(begin + Duration::from_secs(2))?;
    assert!(!lab.s3().uploads(begin).is_empty());
    let refused = site.restored_rows().expect_err("a restore without lists");
    assert!(refused.to_string().contains("AccessDenied"), "{refused}");
    let requests = lab.s3().requests().into_iter();
    let requests: Vec<_> = requests.filter(|request| request.at >= begin).collect();
    assert!(requests.iter().any(|request| request.is_list()));
    for request in requests {
        let refused = (Some(403), Some("AccessDenied"));
        let answer = (request.status, request.error.as_deref());
        assert_eq!(answer == refused, request.is_list(), "{request:?}");
    }

    lab.s3().set_fault(S3Fault::None)?;
    stop(litestream)?;
    assert_eq!(site.restored_rows()?, written);
    Ok(())
}

#[test]
fn the_buckets_owner_cuts_removes_and_puts_back_objects() -> Result<()> {
    let lab = Lab::start(LabOptions::default())?;
    let site = Site::new(&lab)?;
    let session = lab.provider().issue(THING, Duration::from_secs(300));
    let config = lab.litestream_config(&site.path, &lab.root().join("litestream.sock"))?;
    let litestream = replicate("0.5.17", &config, &session)?;
    let written = site.write_until(Instant::now() + Duration::from_secs(2))?;
    stop(litestream)?;
    assert_eq!(site.restored_rows()?, written);

    let objects = lab.s3().objects(&format!("{THING}/app.db"));
    let keys = objects.keys()?;
    let snapshots: Vec<_> = keys.iter().filter(|key| key.contains("/0009/")).collect();
    let [snapshot] = snapshots[..] else {
        return Err(format!("not one snapshot: {keys:?}").into());
    };
    assert!(objects.folder().join("0000").is_dir(), "{keys:?}");
    let copied = objects.copy()?;
    // S3 keeps the checksum of what it was sent, and would tell it of an object that was cut.
    let checksums = || -> Result<usize> {
        let files = std::fs::read_dir(lab.root().join("s3"))?;
        let names = files.map(|file| Ok(file?.file_name().to_string_lossy().into_owned()));
        let names: Vec<String> = names.collect::<std::io::Result<_>>()?;
        Ok(names
            .iter()
            .filter(|n| n.ends_with("internal.json"))
            .count())
    };
    let before = checksums()?;
    assert!(before >= keys.len());

    objects.halve(snapshot)?;
    assert_eq!(checksums()?, before - 1);
    let cut = site.restored_rows().expect_err("a snapshot that was cut");
    assert!(cut.to_string().contains("EOF"), "{cut}");

    objects.put_back(&copied)?;
    assert_eq!(objects.keys()?, keys);
    assert_eq!(site.restored_rows()?, written);

    objects.remove_all()?;
    objects.remove(snapshot)?;
    assert!(objects.keys()?.is_empty());
    assert_eq!(checksums()?, before - keys.len());
    let gone = site.restored_rows().expect_err("no object is left");
    assert!(gone.to_string().contains("no matching backup"), "{gone}");

    objects.put_back(&copied)?;
    assert_eq!(site.restored_rows()?, written);
    Ok(())
}

/// A database under replication.
struct Site<'a> {
    lab: &'a Lab,
    path: PathBuf,
    database: Connection,
}

impl<'a> Site<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        let path = lab.root().join("app.db");
        let database = Connection::open(&path)?;
        database.busy_timeout(Duration::from_secs(5))?;
        database.execute_batch(
            "PRAGMA journal_mode = wal; CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT);",
        )?;
        Ok(Self {
            lab,
            path,
            database,
        })
    }

    /// A row every 100 ms; how many there are in all.
    fn write_until(&self, end: Instant) -> Result<i64> {
        while Instant::now() < end {
            self.database
                .execute("INSERT INTO row (text) VALUES ('x')", [])?;
            thread::sleep(Duration::from_millis(100));
        }
        count(&self.database)
    }

    fn restored_rows(&self) -> Result<i64> {
        let aside = TempDir::with_prefix_in("restored-", self.lab.root())?;
        let copy = aside.path().join("app.db");
        self.lab.restore(THING, &copy)?;
        count(&Connection::open(copy)?)
    }
}

fn count(database: &Connection) -> Result<i64> {
    Ok(database.query_row("SELECT count(*) FROM row", [], |row| row.get(0))?)
}

fn replicate(version: &str, config: &Path, session: &Session) -> Result<Child> {
    Ok(Command::new(tools::litestream(version)?)
        .args(["replicate", "-config"])
        .arg(config)
        .env_clear()
        .envs(session.env())
        .env("EDGEREPL_THING_NAME", THING)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?)
}

/// With SIGTERM, after which Litestream syncs for the last time.
fn stop(mut litestream: Child) -> Result<()> {
    kill(Pid::from_raw(litestream.id().try_into()?), Signal::SIGTERM)?;
    assert!(litestream.wait()?.success());
    Ok(())
}
