//! One of the demo's devices: its Litestream comes by new credentials in one of the two ways.
//!
//! Owns what is seen of it from the outside: edgerepl's status, and what S3 was sent under the thing's
//! own prefix. It asks Litestream for nothing, and so changes nothing of what it measures.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use edgerepl_lab::{Comparison, Daemon, KeyKind, Lab, S3Request, Session, Site};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::application::{self, Application};

pub(super) struct Way<'a> {
    mode: &'static str,
    lab: &'a Lab,
    site: Site,
    daemon: Daemon,
    application: Application,
    /// As it was last seen.
    status: Value,
    followed: Option<Instant>,
    rotations: u64,
    gaps: Vec<Duration>,
}

/// What has come of it.
pub(super) struct Figures {
    pub(super) rotations: u64,
    pub(super) starts: u64,
    pub(super) sessions: usize,
    pub(super) refused: usize,
    /// The longest time between two uploads of one database, from the first time that the replica
    /// followed on.
    pub(super) silence: Duration,
    /// From Litestream's stop until its replica was seen to follow again; the shortest first.
    pub(super) gaps: Vec<Duration>,
    /// Databases that edgerepl had proved to be on their replicas.
    pub(super) proved: usize,
    /// In the order of [`DATABASES`].
    pub(super) comparisons: [Comparison; DATABASES.len()],
}

/// What Litestream replicates of a device: edgerepl's configuration names both, and needs no other file.
pub(super) const DATABASES: [&str; 2] = ["app.db", application::DATABASE];

impl<'a> Way<'a> {
    /// Starts an application, and edgerepl, on a new device.
    pub(super) fn start(
        mode: &'static str,
        lab: &'a Lab,
        program: &Path,
        heartbeat: &str,
    ) -> Result<Self, Box<dyn Error>> {
        let device = lab.provision_token(KeyKind::EcdsaP256, &format!("demo-{mode}"))?;
        let mut site = Site::new(lab, device, program)?;
        site.set("replication", "rotation", format!("{mode:?}"));
        site.set("replication", "rpo", "\"1s\"");
        site.set("heartbeat", "interval", format!("{heartbeat:?}"));
        site.use_one_file(lab)?;
        let tables = DATABASES.map(|name| {
            let path = site.root().join(name);
            format!("[[database]]\npath = {path:?}\n")
        });
        site.add_layer("databases.toml", &tables.concat())?;
        Ok(Self {
            mode,
            lab,
            application: Application::start(site.root())?,
            daemon: site.start()?,
            site,
            status: Value::Null,
            followed: None,
            rotations: 0,
            gaps: Vec::new(),
        })
    }

    /// Looks at it; what has happened, where something has.
    pub(super) fn look(&mut self) -> Option<String> {
        self.status = self.daemon.status()?;
        let replication = &self.status["replication"];
        if replication["activity"] != "replicating" {
            return None;
        }
        let first = self.followed.is_none();
        self.followed.get_or_insert_with(Instant::now);
        let rotations = number(replication, "rotations");
        let rotated = rotations > std::mem::replace(&mut self.rotations, rotations);
        let gap = replication["last_gap_s"].as_f64();
        let news = match (rotated, gap.map(Duration::from_secs_f64)) {
            (true, Some(gap)) => {
                self.gaps.push(gap);
                let gap = gap.as_millis();
                format!("rotation {rotations}: Litestream restarted, a gap of {gap} ms")
            }
            (true, None) => format!("rotation {rotations}: without a restart, no gap"),
            (false, _) if first => "Litestream replicates".to_owned(),
            (false, _) => return None,
        };
        Some(format!("{}  {news}", self.mode))
    }

    /// How it is, in one line under the [`heading`].
    pub(super) fn line(&self) -> String {
        let left = self.status["credentials"]["expires_in_s"].as_f64();
        let uploads = DATABASES.map(|name| self.uploads_of(name).last().copied());
        // Of the database whose last one is longer ago.
        let upload = uploads.into_iter().min().flatten();
        let ago = upload.map_or("none".to_owned(), |at| {
            format!("{:.1} s ago", at.elapsed().as_secs_f32())
        });
        let rows = |rows: u64| format!("{rows} rows");
        in_columns([
            self.mode,
            &rows(number(&self.status["heartbeat"], "rows")),
            &rows(self.application.rows()),
            &ago,
            &format!("for {:.0} s", left.unwrap_or_default()),
            &self.rotations.to_string(),
            &number(&self.status["replication"], "starts").to_string(),
        ])
    }

    /// Whether it has had so many rotations, and Litestream uses what the last one brought.
    pub(super) fn has_rotated(&self, rotations: u64) -> bool {
        let uses = |session: &Session| {
            let keys = self.requests("").into_iter().map(|r| r.access_key_id);
            keys.flatten().any(|key| key == session.access_key_id)
        };
        self.rotations >= rotations
            && self.status["replication"]["activity"] == "replicating"
            && self.sessions().last().is_some_and(uses)
    }

    /// What edgerepl and Litestream said.
    pub(super) fn log(&self) -> String {
        self.daemon.log()
    }

    /// Ends the application and edgerepl, restores the replicas and compares.
    pub(super) fn end(mut self) -> Result<Figures, Box<dyn Error>> {
        let silences = DATABASES.map(|name| self.silence_of(name));
        let silence = silences.into_iter().max().unwrap_or_default();

        self.application.end()?;
        self.daemon.signal(Signal::SIGTERM);
        let ended = self.daemon.wait_for_exit()?;
        if !ended.success() {
            return Err(format!("edgerepl ended badly: {ended}").into());
        }
        let refused = self
            .requests("")
            .iter()
            .filter(|r| r.error.is_some())
            .count();
        self.gaps.sort_unstable();
        let [first, second] = DATABASES.map(|name| self.compare(name));
        Ok(Figures {
            rotations: self.rotations,
            starts: number(&self.status["replication"], "starts"),
            sessions: self.sessions().len(),
            refused,
            silence,
            proved: proved(&self.status),
            comparisons: [first?, second?],
            gaps: self.gaps,
        })
    }

    fn compare(&self, name: &str) -> Result<Comparison, edgerepl_lab::Error> {
        let replica = format!("{}/{name}", self.site.device.thing_name);
        let live = self.site.root().join(name);
        self.lab.compare_with(&replica, &live)
    }

    fn silence_of(&self, name: &str) -> Duration {
        let mut uploads = self.uploads_of(name);
        uploads.retain(|at| Some(*at) >= self.followed);
        let silences = uploads.windows(2).map(|pair| pair[1] - pair[0]);
        silences.max().unwrap_or_default()
    }

    fn uploads_of(&self, name: &str) -> Vec<Instant> {
        let requests = self.requests(name).into_iter();
        let uploads = requests.filter(S3Request::is_upload);
        uploads.map(|upload| upload.at).collect()
    }

    /// What S3 was asked for this device, and this replica of it.
    fn requests(&self, name: &str) -> Vec<S3Request> {
        let prefix = format!("{}/{name}", self.site.device.thing_name);
        let mut requests = self.lab.s3().requests();
        requests.retain(|request| request.key.starts_with(&prefix));
        requests
    }

    fn sessions(&self) -> Vec<Session> {
        let mut sessions = self.lab.provider().issued();
        sessions.retain(|session| session.thing_name == self.site.device.thing_name);
        sessions
    }
}

impl Figures {
    /// Whether edgerepl saw each database on its replica, and each replica holds all of it.
    pub(super) fn kept_all(&self) -> bool {
        let whole = |of: &Comparison| of.is_equal() && of.live > 0;
        self.proved == DATABASES.len() && self.comparisons.iter().all(whole)
    }

    pub(super) fn median_gap(&self) -> Option<Duration> {
        self.gaps.get(self.gaps.len() / 2).copied()
    }
}

/// What stands over the [lines](Way::line).
pub(super) fn heading() -> String {
    let [own, applications] = DATABASES;
    in_columns([
        "",
        own,
        applications,
        "uploaded",
        "credentials",
        "rotations",
        "starts",
    ])
}

/// With the time before it, no wider than 80 columns after an hour.
fn in_columns([mode, own, applications, upload, left, rotations, starts]: [&str; 7]) -> String {
    format!("{mode:<7}{own:>11}{applications:>11}{upload:>11}{left:>12}{rotations:>10}{starts:>7}")
}

/// How many databases edgerepl has seen on their replicas.
fn proved(status: &Value) -> usize {
    let databases = status["databases"].as_array().into_iter().flatten();
    databases
        .filter(|database| database["proof"].is_object())
        .count()
}

fn number(section: &Value, key: &str) -> u64 {
    section[key].as_u64().unwrap_or_default()
}
