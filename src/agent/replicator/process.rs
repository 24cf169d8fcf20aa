//! Litestream's process: its credentials, its starts and stops, its unexpected exits.
//!
//! Owns its phase, and when it is retried. Never deals with a database, with what answers prove, or
//! with how the process is run.

use std::time::Duration;

use super::start::Start;
use super::stop::{LastSync, Stop, Then};
use crate::agent::backoff::{Backoff, Jitter};
use crate::agent::renewal::Term;
use crate::agent::{Policy, SupervisorKind};
use crate::clock::BootTime;
use crate::config::Rotation;

/// The limit for a reset: systemd first stops the unit, which takes up to its stop time-out.
const RESET_LIMIT: Duration = Duration::from_secs(120);

/// The limit if a whole database has to be uploaded meanwhile.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(3600);

/// The retry after Litestream died or did not start.
const RESTART: Backoff = Backoff {
    first: Duration::from_secs(2),
    longest: Duration::from_secs(60),
    least: Duration::from_secs(1),
};

/// After this uptime Litestream was well: its next death counts as the first.
const STEADY: Duration = Duration::from_secs(60);

/// How long before its credentials end a Litestream is stopped at the latest: its last sync is to succeed.
const HAND_OVER: Duration = Duration::from_secs(30);

/// Credentials that expire sooner are not worth a start.
pub(super) const LEAST_TERM: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(in crate::agent) struct Process {
    supervisor: SupervisorKind,
    /// How the next start delivers credentials: by the configuration, or else by a probe.
    configured: Option<Rotation>,
    pub(super) probed: Option<Rotation>,
    /// How the last start did.
    rotation: Option<Rotation>,
    /// The SDK's clock went back since then: the SDK considers its credentials valid for too long, and
    /// asks too late.
    clock_went_back: bool,
    pub(super) phase: Phase,
    /// Since when the phase has been this one.
    pub(super) since: BootTime,
    /// Whether systemd's unit may run, although it has reported nothing.
    unit_may_run: bool,
    /// The term of the newest credentials, and of those that it was started with.
    pub(super) term: Option<Term>,
    running: Option<Term>,
    deaths: u32,
    /// Since when the running process has been up.
    pub(super) up_since: BootTime,
    pub(in crate::agent) starts: u64,
    pub(in crate::agent) rotations: u64,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Not running: there are no credentials for it.
    Idle,
    /// Not running; started again at `until`.
    Waiting { until: BootTime },
    /// Being started.
    Starting(Start),
    /// Running.
    Running,
    /// Still running, and about to be stopped.
    Preparing,
    /// Asked to end.
    Stopping(Stop),
    /// Not running; its local state is being dropped, or a new snapshot made.
    Resetting { deadline: BootTime },
    /// The daemon ends; Litestream is down, or left to systemd.
    Down,
}

impl Process {
    pub(super) fn new(policy: &Policy, now: BootTime) -> Self {
        Self {
            supervisor: policy.supervisor,
            configured: policy.rotation,
            probed: None,
            rotation: None,
            clock_went_back: false,
            phase: Phase::Idle,
            since: now,
            unit_may_run: policy.supervisor == SupervisorKind::Systemd,
            term: None,
            running: None,
            deaths: 0,
            up_since: now,
            starts: 0,
            rotations: 0,
        }
    }

    pub(super) fn enter(&mut self, phase: Phase, now: BootTime) {
        self.phase = phase;
        self.since = now;
    }

    pub(super) fn is_child(&self) -> bool {
        self.supervisor == SupervisorKind::Child
    }

    /// It may run with credentials of an earlier daemon, or with older ones.
    pub(super) fn may_run_unheard(&self) -> bool {
        self.unit_may_run
    }

    /// This daemon has started it before.
    pub(super) fn is_ours(&self) -> bool {
        self.running.is_some()
    }

    /// New credentials arrived, valid for `term`.
    pub(super) fn renewed(&mut self, term: Term) {
        let first = self.term.replace(term).is_none();
        self.rotations += u64::from(!first);
    }

    /// The next credentials take a restart. That is early enough: the current ones are valid until
    /// then.
    pub(in crate::agent) fn clock_went_back(&mut self) {
        self.clock_went_back = true;
    }

    /// The configuration was reloaded: it applies from the next hand-over on.
    pub(super) fn reloaded(&mut self, rotation: Option<Rotation>) {
        self.configured = rotation;
    }

    /// How the next start delivers credentials; `None` if a probe decides.
    pub(super) fn next_rotation(&self) -> Option<Rotation> {
        self.configured.or(self.probed)
    }

    /// How the last Litestream that was started gets credentials.
    pub(in crate::agent) fn rotation(&self) -> Option<Rotation> {
        self.rotation
    }

    /// Whether the running Litestream can and should get new credentials without a restart.
    pub(super) fn refreshes(&self) -> bool {
        self.rotation == Some(Rotation::Refresh)
            && self.next_rotation() != Some(Rotation::Restart)
            && !self.clock_went_back
    }

    /// It asks for the newest credentials itself.
    pub(super) fn refreshed(&mut self, now: BootTime) {
        self.running = self.term;
        self.since = now;
    }

    /// It is started with the newest credentials.
    pub(super) fn launched(&mut self, rotation: Rotation, now: BootTime) {
        self.running = self.term;
        self.unit_may_run = !self.is_child();
        self.rotation = Some(rotation);
        self.clock_went_back = false;
        self.enter(Phase::Starting(Start::launch(now)), now);
    }

    /// It runs.
    pub(super) fn is_up(&mut self, now: BootTime) {
        self.starts += 1;
        self.up_since = now;
        self.enter(Phase::Running, now);
    }

    /// It ended by itself.
    pub(super) fn ended(&mut self, now: BootTime) {
        if now.since(self.since) >= STEADY {
            self.deaths = 0;
        }
    }

    /// Schedules the next try, ever later; returns the wait.
    pub(super) fn wait_to_start(&mut self, jitter: &mut Jitter, now: BootTime) -> Duration {
        self.deaths = self.deaths.saturating_add(1);
        let wait = RESTART.wait(self.deaths, jitter);
        self.enter(Phase::Waiting { until: now + wait }, now);
        wait
    }

    /// A start took too long: the next try comes as late as after many deaths.
    pub(super) fn start_was_late(&mut self, now: BootTime) -> Duration {
        let wait = RESTART.longest;
        self.enter(Phase::Waiting { until: now + wait }, now);
        wait
    }

    /// A stop begins.
    pub(super) fn stops(&mut self, then: Then, is_last: bool, now: BootTime) {
        let last_sync = match then {
            _ if !self.runs_with_credentials(now) => LastSync::Hopeless,
            Then::Exit if is_last => LastSync::Final,
            Then::Exit | Then::Start | Then::Reset => LastSync::Repeated,
        };
        self.enter(Phase::Stopping(Stop::begin(then, last_sync, now)), now);
    }

    /// The reset of its local state begins, or new snapshots are made; a unit is stopped for that.
    pub(super) fn resets(&mut self, snapshots: bool, now: BootTime) {
        self.unit_may_run = false;
        let limit = match snapshots {
            true => SNAPSHOT_LIMIT,
            false => RESET_LIMIT,
        };
        let deadline = now + limit;
        self.enter(Phase::Resetting { deadline }, now);
    }

    /// It runs, or is about to be stopped.
    pub(in crate::agent) fn runs(&self) -> bool {
        matches!(
            self.phase,
            Phase::Running | Phase::Preparing | Phase::Stopping(_)
        )
    }

    /// Whether the credentials that it was started with are still valid.
    pub(super) fn runs_with_credentials(&self, now: BootTime) -> bool {
        self.running.is_some_and(|term| now < term.ends)
    }

    /// Whether the newest credentials are worth a start at that time.
    pub(super) fn has_credentials(&self, at: BootTime) -> bool {
        self.term.is_some_and(|term| at + LEAST_TERM < term.ends)
    }

    /// What is done while it is stopped moves on.
    pub(super) fn resets_until(&mut self, at_least: BootTime) {
        if let Phase::Resetting { deadline } = &mut self.phase {
            *deadline = (*deadline).max(at_least);
        }
    }

    /// Until when a hand-over may wait: the credentials that it was started with have to outlast it.
    pub(super) fn may_wait_until(&self) -> Option<BootTime> {
        let term = self.running?;
        let lifetime = term.ends.since(term.begins);
        let wait = lifetime.saturating_sub(HAND_OVER.min(lifetime / 10));
        Some(term.begins + wait)
    }

    /// When time alone changes something.
    pub(super) fn deadline(&self) -> BootTime {
        match &self.phase {
            Phase::Idle | Phase::Running | Phase::Preparing | Phase::Down => BootTime::NEVER,
            Phase::Waiting { until: at } | Phase::Resetting { deadline: at } => *at,
            Phase::Starting(start) => start.deadline(),
            Phase::Stopping(stop) => stop.deadline(),
        }
    }
}
