//! A line on which an upload takes longer than the time between two renewals: it ends all the same, and is
//! begun once. Where no session lasts long enough, somebody is told which one would.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

use edgerepl_lab::{Daemon, Lab, S3Request, Site};
use serde_json::Value;

use crate::support::{
    Application, FILLING, LIMIT, Result, assert_nothing_lost, database_of, fill, has_problem,
    number, site, wait_until, wait_until_replicating,
};

/// Bytes a second: [`FULL`] takes 37 s, for Litestream uploads a snapshot beside it.
const RATE: NonZeroU64 = NonZeroU64::new(400_000).unwrap();

/// Half of it.
const SLOWER: NonZeroU64 = NonZeroU64::new(200_000).unwrap();

/// What is uploaded first, in bytes: more than one part, so that S3 sees when that begins.
const FULL: u64 = FILLING + (3 << 20);

#[test]
fn an_upload_outlasts_the_sessions_that_litestream_asks_for() -> Result {
    let mut test = Test::begin("slow-refresh", Duration::from_secs(12), "refresh")?;
    let told = test.daemon()?.wait_for("an upload", LIMIT, |status| {
        has_problem(status, "an upload is under way") || status["replication"]["upload"].is_object()
    })?;
    assert_ne!(told["state"], "healthy", "{told:#}");
    let status = wait_until_replicating(test.daemon()?)?;
    assert!(
        number(&status, "replication", "rotations") >= 2,
        "{status:#}"
    );
    test.ends_with_one_upload(1)
}

#[test]
fn a_restart_waits_for_an_upload_that_ends_within_the_session() -> Result {
    let mut test = Test::begin("slow-restart", Duration::from_secs(51), "restart")?;
    let status = wait_until_replicating(test.daemon()?)?;
    assert_eq!(number(&status, "replication", "starts"), 1, "{status:#}");
    // The credentials were there before.
    test.daemon()?.wait_for("the restart", LIMIT, |status| {
        number(status, "replication", "starts") == 2
    })?;
    wait_until_replicating(test.daemon()?)?;
    let log = test.daemon()?.log();
    assert!(!log.contains(CUT), "{log}");
    test.ends_with_one_upload(2)
}

#[test]
fn an_upload_that_no_session_outlasts_says_which_one_would() -> Result {
    let mut test = Test::begin("slow-short", Duration::from_secs(40), "restart")?;
    test.lab.s3().set_rate(Some(SLOWER));
    let status = test.daemon()?.wait_for("a cut", LIMIT, |status| {
        !status["replication"]["upload_cut"].is_null()
    })?;
    let told = status["replication"]["upload_cut"]
        .as_str()
        .unwrap_or_default();
    assert!(
        told.contains(CUT) && told.contains("rotation = \"refresh\""),
        "{told}"
    );
    let session = told.split_once("sessions of ").map_or("", |(_, rest)| rest);
    let mut words = session.split_whitespace();
    let amount: u64 = words.next().ok_or(told)?.parse()?;
    let session = match words.next() {
        Some("min") => amount * 60,
        _ => amount,
    };
    // The upload alone takes 73 s.
    assert!((73..400).contains(&session), "{told}");
    let log = test.daemon()?.log();
    assert_eq!(log.matches(CUT).count(), 1, "{log}");

    // In one that is long enough it ends, and is no trouble any more.
    test.lab.s3().set_rate(None);
    let status = wait_until_replicating(test.daemon()?)?;
    assert!(status["replication"]["upload_cut"].is_null(), "{status:#}");
    test.ends()
}

#[test]
fn a_new_snapshot_outlasts_the_sessions_that_it_asks_for() -> Result {
    const SESSION: Duration = Duration::from_secs(12);
    let mut test = Test::prepare("slow-snapshot", SESSION, "refresh")?;
    test.site.set("proof", "restorable", "\"4s\"");
    test.start(None)?;
    // What Litestream makes at its start by itself would be whole again.
    for made in ["snapshot complete", "compaction complete"] {
        let daemon = test.daemon()?;
        wait_until(made, || daemon.log().contains(made))?;
    }
    let is_restorable =
        |status: &Value| database_of(status, "app.db")["restorable"]["state"] == "restorable";
    test.daemon()?.wait_for("a plan", LIMIT, is_restorable)?;
    // Nothing is left of it, and the line has become slow.
    test.lab.s3().set_rate(Some(RATE));
    let prefix = format!("{}/app.db", test.site.device.thing_name);
    test.lab.s3().objects(&prefix).remove_all()?;
    test.daemon()?
        .wait_for("the harm", LIMIT, |status| !is_restorable(status))?;
    let harmed = Instant::now();
    test.daemon()?
        .wait_for("a new snapshot", LIMIT, is_restorable)?;
    assert!(harmed.elapsed() > SESSION, "it was sent within one session");
    let whole = test.lab.s3().uploads(harmed);
    let whole = whole.iter().filter(|part| part.key.contains("/0009/"));
    let sent: u64 = whole.map(|part| part.bytes).sum();
    assert!(
        (FULL..FULL * 2).contains(&sent),
        "{sent} bytes of snapshots"
    );
    test.ends()
}

/// What is said of an upload that was cut.
const CUT: &str = "a restart for new credentials has cut an upload";

/// A device at the end of a slow line, whose application writes all along.
struct Test {
    lab: Lab,
    site: Site,
    application: Application,
    daemon: Option<Daemon>,
}

impl Test {
    fn begin(name: &str, lifetime: Duration, rotation: &str) -> Result<Self> {
        let mut test = Self::prepare(name, lifetime, rotation)?;
        test.start(Some(RATE))?;
        Ok(test)
    }

    fn prepare(name: &str, lifetime: Duration, rotation: &str) -> Result<Self> {
        let (lab, mut site) = site(name, lifetime)?;
        site.set("replication", "rotation", format!("{rotation:?}"));
        site.use_one_file(&lab)?;
        fill(&site)?;
        site.connect()?.execute_batch(&format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
             INSERT INTO filling (data) SELECT randomblob(4096) FROM n;",
            (FULL - FILLING) / 4096
        ))?;
        let application = Application::writing(&site, Duration::from_millis(200))?;
        Ok(Self {
            lab,
            site,
            application,
            daemon: None,
        })
    }

    fn start(&mut self, rate: Option<NonZeroU64>) -> Result {
        self.lab.s3().set_rate(rate);
        self.daemon = Some(self.site.start()?);
        Ok(())
    }

    fn daemon(&mut self) -> Result<&mut Daemon> {
        Ok(self.daemon.as_mut().ok_or("no daemon")?)
    }

    /// The whole database was uploaded once, by one Litestream or some, and no row is missing.
    fn ends_with_one_upload(mut self, starts: u64) -> Result {
        let status = self.daemon()?.status().ok_or("no status")?;
        assert_eq!(
            number(&status, "replication", "starts"),
            starts,
            "{status:#}"
        );
        let requests = self.lab.s3().requests();
        let is_begin =
            |r: &&S3Request| r.operation == "CreateMultipartUpload" && r.key.contains("/0000/");
        let begun: Vec<_> = requests.iter().filter(is_begin).collect();
        assert_eq!(begun.len(), 1, "{begun:#?}");
        self.ends()
    }

    fn ends(self) -> Result {
        self.lab.s3().set_rate(None);
        let daemon = self.daemon.ok_or("no daemon")?;
        assert!(self.application.stop()? > 100);
        assert!(daemon.terminate()?.success());
        assert_nothing_lost(&self.lab, &self.site)
    }
}
