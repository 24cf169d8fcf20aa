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

/// Ten rows a second: in any longer time without an upload there was something to upload.
const HEARTBEAT: &str = "\"100ms\"";

pub(super) struct Way<'a> {
    mode: &'static str,
    lab: &'a Lab,
    site: Site,
    daemon: Daemon,
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
    /// The longest time between two uploads, from the first time that the replica followed on.
    pub(super) silence: Duration,
    /// From Litestream's stop until its replica was seen to follow again; the shortest first.
    pub(super) gaps: Vec<Duration>,
    pub(super) comparison: Comparison,
}

impl<'a> Way<'a> {
    /// Starts edgerepl on a new device.
    pub(super) fn start(
        mode: &'static str,
        lab: &'a Lab,
        program: &Path,
    ) -> Result<Self, edgerepl_lab::Error> {
        let device = lab.provision_token(KeyKind::EcdsaP256, &format!("demo-{mode}"))?;
        let mut site = Site::new(lab, device, program)?;
        site.set("replication", "rotation", format!("{mode:?}"));
        site.set("heartbeat", "interval", HEARTBEAT);
        Ok(Self {
            mode,
            lab,
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
        let upload = self.uploads().last().map(Instant::elapsed);
        let ago = upload.map_or("none".to_owned(), |ago| {
            format!("{:.1} s ago", ago.as_secs_f32())
        });
        in_columns([
            self.mode,
            &number(&self.status["heartbeat"], "rows").to_string(),
            &ago,
            &format!("for {:.0} s", left.unwrap_or_default()),
            &self.rotations.to_string(),
            &number(&self.status["replication"], "starts").to_string(),
        ])
    }

    /// Whether it has had so many rotations, and Litestream uses what the last one brought.
    pub(super) fn has_rotated(&self, rotations: u64) -> bool {
        let uses = |session: &Session| {
            let keys = self.requests().into_iter().map(|r| r.access_key_id);
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

    /// Ends edgerepl, restores the replica and compares.
    pub(super) fn end(mut self) -> Result<Figures, Box<dyn Error>> {
        let mut uploads = self.uploads();
        uploads.retain(|at| Some(*at) >= self.followed);
        let silences = uploads.windows(2).map(|pair| pair[1] - pair[0]);
        let silence = silences.max().unwrap_or_default();

        self.daemon.signal(Signal::SIGTERM);
        let ended = self.daemon.wait_for_exit()?;
        if !ended.success() {
            return Err(format!("edgerepl ended badly: {ended}").into());
        }
        let refused = self.requests().iter().filter(|r| r.error.is_some()).count();
        self.gaps.sort_unstable();
        Ok(Figures {
            rotations: self.rotations,
            starts: number(&self.status["replication"], "starts"),
            sessions: self.sessions().len(),
            refused,
            silence,
            comparison: self.site.compare(self.lab)?,
            gaps: self.gaps,
        })
    }

    fn uploads(&self) -> Vec<Instant> {
        let requests = self.requests().into_iter();
        let uploads = requests.filter(S3Request::is_upload);
        uploads.map(|upload| upload.at).collect()
    }

    /// What S3 was asked for this device.
    fn requests(&self) -> Vec<S3Request> {
        let prefix = format!("{}/", self.site.device.thing_name);
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
    pub(super) fn median_gap(&self) -> Option<Duration> {
        self.gaps.get(self.gaps.len() / 2).copied()
    }
}

/// What stands over the [lines](Way::line).
pub(super) fn heading() -> String {
    in_columns([
        "",
        "rows",
        "last upload",
        "credentials",
        "rotations",
        "starts",
    ])
}

fn in_columns([mode, rows, upload, credentials, rotations, starts]: [&str; 6]) -> String {
    format!("{mode:<8}{rows:>6}{upload:>13}{credentials:>13}{rotations:>11}{starts:>8}")
}

fn number(section: &Value, key: &str) -> u64 {
    section[key].as_u64().unwrap_or_default()
}
