//! Litestream's life: started with fresh credentials, handed newer ones, brought back when it dies.
//!
//! Owns the hand-over and its order: new credentials first, then a row, the guard and a last sync,
//! then the stop, the start, and a sync that shows that the replica follows. One restart a rotation,
//! never two. Knows nothing of how credentials come about, nor how Litestream is run.
//!
//! ```text
//!            credentials             stopped             started            synced
//!   Idle ───────────────► Starting ◄───────── Stopping ◄──────── Preparing ◄─────── Running
//!     ▲                      │  │                                    ▲ credentials    │ ▲
//!     │ the last ones ended  │  └──────────────────────────────────────────────────────┘
//!     └──────── Waiting ◄────┴──── it could not be started, or it ended by itself ◄────┘
//! ```

use std::time::Duration;

use super::backoff::{Backoff, Jitter};
use super::renewal::Term;
use super::{Action, Actions, Position, SupervisorKind};
use crate::clock::BootTime;

/// How long the row and the last sync before a stop may hold the stop up, each.
const PREPARATION_LIMIT: Duration = Duration::from_secs(2);

/// How long a stop may take before a second SIGTERM cuts Litestream's last sync short: in a rotation,
/// where what is not synced now is synced a moment later,
const ROTATION_GRACE: Duration = Duration::from_secs(10);

/// at the end of the daemon, where it is the last chance (Litestream itself gives up after 30 s),
const EXIT_GRACE: Duration = Duration::from_secs(31);

/// and where its credentials have ended, so that it can't succeed.
const HOPELESS_GRACE: Duration = Duration::from_secs(1);

/// A daemon that is told to end in the middle of a hand-over finishes it first, where only that can
/// bring the last rows out, and takes so long for it at the most.
const LEAVE_LIMIT: Duration = Duration::from_secs(15);

/// What a second SIGTERM gets before SIGKILL.
const ABORT_LIMIT: Duration = Duration::from_secs(5);

/// Within this a start is over: `systemctl restart` waits for the unit's own stop time-out.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Litestream dying, or not starting.
const RESTART: Backoff = Backoff {
    first: Duration::from_secs(2),
    longest: Duration::from_secs(60),
    least: Duration::from_secs(1),
};

/// Litestream that ran so long was well: its next death counts as the first.
const STEADY: Duration = Duration::from_secs(60);

/// Credentials with less left are not worth a start.
const LEAST_TERM: Duration = Duration::from_secs(5);

/// After the start its control socket appears within this, or it has none.
const SOCKET_LIMIT: Duration = Duration::from_secs(10);

/// How often the socket is looked for: each look is a failed connect, and each adds to the gap.
const SOCKET_PACE: Duration = Duration::from_millis(50);

/// Litestream opens the database within its `monitor-interval`, a second unless configured. One that
/// is late has trouble of its own (with S3, most often) and is looked at less often.
const OPEN_LIMIT: Duration = Duration::from_secs(5);

/// How often, then.
const OPEN_PACE: Duration = Duration::from_secs(1);

/// How often a row that a locked database delayed is tried again during a hand-over.
const ROW_PACE: Duration = Duration::from_millis(100);

/// How long one sync after the start may take.
const SYNC_LIMIT: Duration = Duration::from_secs(20);

/// Syncs that fail: each also wakes Litestream from its own back-off, which grows to 5 min.
const SYNC_RETRY: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
    least: Duration::from_millis(500),
};

/// A replica that has not followed for so long is a problem that somebody should see.
pub(super) const PROOF_LIMIT: Duration = Duration::from_secs(60);

/// Local state that breaks again sooner than this is not mended by dropping it.
const RESET_PACE: Duration = Duration::from_secs(3600);

/// A reset that failed is tried again after this.
const RESET_RETRY: Duration = Duration::from_secs(300);

/// What Litestream does, as far as the agent knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Activity {
    /// It is down, for there are no credentials that last.
    WaitingForCredentials,
    /// It ended or could not be started, and is tried again.
    WaitingToRestart,
    /// It is being started.
    Starting,
    /// It runs, and has not shown yet that it follows.
    CatchingUp,
    /// It runs, and followed when last asked.
    Replicating,
    /// It is being stopped.
    Stopping,
    /// Its local state is being dropped.
    Resetting,
    /// It was stopped for good.
    Stopped,
}

impl Activity {
    /// The word for it in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WaitingForCredentials => "waiting_for_credentials",
            Self::WaitingToRestart => "waiting_to_restart",
            Self::Starting => "starting",
            Self::CatchingUp => "catching_up",
            Self::Replicating => "replicating",
            Self::Stopping => "stopping",
            Self::Resetting => "resetting",
            Self::Stopped => "stopped",
        }
    }
}

/// Why Litestream did not confirm a sync.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SyncFailure {
    /// Nothing listens on its control socket.
    NoSocket,
    /// It has not looked at the database yet, and must not be asked to sync before it has.
    NotOpen,
    /// It says that it can't read its own local state (a power cut leaves it so).
    StateCorrupt(String),
    /// It tried and failed, or did not answer in time.
    Failed(String),
}

#[derive(Debug)]
pub(super) struct Replicator {
    supervisor: SupervisorKind,
    phase: Phase,
    since: BootTime,
    /// The newest credentials' term, and the term of those that Litestream was started with.
    term: Option<Term>,
    running: Option<Term>,
    deaths: u32,
    last_trouble: Option<String>,
    reset_allowed: BootTime,
    position: Option<Position>,
    /// A row was committed since the start, so that a confirmed sync shows something.
    row_since_start: bool,
    stop_began: Option<BootTime>,
    /// The daemon ends once Litestream has caught up, or then.
    leaving: Option<BootTime>,
    pub(super) proof: Option<Proof>,
    pub(super) starts: u64,
    pub(super) rotations: u64,
    pub(super) last_gap: Option<Duration>,
}

/// That the replica followed, seen at a moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Proof {
    pub(super) at: BootTime,
    pub(super) position: Position,
}

#[derive(Debug)]
enum Phase {
    /// Not running, and there are no credentials to run it with.
    Idle,
    /// Not running; started again at `until`.
    Waiting { until: BootTime },
    /// Being started.
    Starting { deadline: BootTime },
    /// Running.
    Running(CatchUp),
    /// Running still, and about to be stopped: a row is written, then a sync asked for.
    Preparing {
        step: Preparation,
        deadline: BootTime,
    },
    /// Asked to end.
    Stopping {
        then: Then,
        force: Force,
        deadline: BootTime,
    },
    /// Not running; its local state is being dropped.
    Resetting { deadline: BootTime },
    /// The daemon ends, and Litestream is down, or left to systemd.
    Down,
}

/// How far a Litestream that was just started is known to have come.
#[derive(Debug)]
enum CatchUp {
    /// A row is to be committed first, so that a sync has something to show.
    Row { retry: BootTime, until: BootTime },
    /// A sync is due at that time.
    Due { at: BootTime, failures: u32 },
    /// A sync was asked for.
    Asked { deadline: BootTime, failures: u32 },
    /// It has caught up, as far as it can tell.
    Done,
}

#[derive(Debug)]
enum Preparation {
    /// A row is to be committed, so that the guard pins the WAL; tried again at `retry`. Until then
    /// Litestream's own lock holds the WAL, if it was seen to.
    Row { retry: BootTime, held: bool },
    /// The guard is to be taken, then a sync is to be asked for.
    Guard,
    /// A sync was asked for.
    Sync,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Then {
    Start,
    Reset,
    Exit,
}

/// What the next step of a stop is, should it take too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Force {
    TerminateAgain,
    Kill,
    /// SIGKILL was sent; a process that survives it is stuck in the kernel.
    Wait,
}

impl Replicator {
    pub(super) fn new(supervisor: SupervisorKind, now: BootTime) -> Self {
        Self {
            supervisor,
            phase: Phase::Idle,
            since: now,
            term: None,
            running: None,
            deaths: 0,
            last_trouble: None,
            reset_allowed: now,
            position: None,
            row_since_start: false,
            stop_began: None,
            leaving: None,
            proof: None,
            starts: 0,
            rotations: 0,
            last_gap: None,
        }
    }

    /// Fresh credentials are there, good for `term`.
    pub(super) fn renewed(&mut self, term: Term, now: BootTime, out: &mut Actions) {
        let first = self.term.replace(term).is_none();
        if !first {
            self.rotations += 1;
        }
        match self.phase {
            // What systemd runs may be running already, with credentials of an earlier daemon.
            Phase::Idle if self.supervisor == SupervisorKind::Systemd => self.prepare(now),
            Phase::Idle | Phase::Waiting { .. } => self.start(now, out),
            Phase::Running(_) => self.prepare(now),
            // Whatever is under way ends in a start, and a start takes the newest.
            Phase::Starting { .. } | Phase::Preparing { .. } | Phase::Stopping { .. } => {}
            Phase::Resetting { .. } | Phase::Down => {}
        }
    }

    pub(super) fn started(
        &mut self,
        result: Result<(), String>,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Actions,
    ) {
        if !matches!(self.phase, Phase::Starting { .. }) {
            return;
        }
        match result {
            Ok(()) => {
                self.starts += 1;
                let row = CatchUp::Row {
                    retry: now,
                    until: now + PREPARATION_LIMIT,
                };
                self.enter(Phase::Running(row), now);
            }
            Err(cause) => self.wait_to_start(cause, jitter, now, out),
        }
    }

    pub(super) fn exited(
        &mut self,
        how: &str,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Actions,
    ) {
        match self.phase {
            Phase::Stopping {
                then: Then::Start, ..
            } => self.start_or_idle(now, out),
            Phase::Stopping {
                then: Then::Reset, ..
            } => {
                self.enter(
                    Phase::Resetting {
                        deadline: now + START_LIMIT,
                    },
                    now,
                );
                out.push(Action::ResetState);
            }
            Phase::Stopping {
                then: Then::Exit, ..
            } => self.enter(Phase::Down, now),
            Phase::Running(_) if self.leaving.is_some() => self.enter(Phase::Down, now),
            Phase::Running(_) | Phase::Preparing { .. } | Phase::Starting { .. } => {
                if now.since(self.since) >= STEADY {
                    self.deaths = 0;
                }
                self.stop_began = Some(now);
                self.wait_to_start(
                    format!("Litestream ended by itself ({how})"),
                    jitter,
                    now,
                    out,
                );
            }
            Phase::Idle | Phase::Waiting { .. } | Phase::Resetting { .. } | Phase::Down => {}
        }
    }

    pub(super) fn synced(
        &mut self,
        result: Result<Position, SyncFailure>,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Actions,
    ) {
        match &self.phase {
            Phase::Preparing {
                step: Preparation::Sync,
                ..
            } => {
                if let Ok(position) = result {
                    self.position = Some(position);
                }
                self.stop_to(Then::Start, now, out);
            }
            Phase::Running(CatchUp::Asked { failures, .. }) => {
                let failures = *failures + 1;
                match result {
                    Ok(position) if position.replicated >= position.local => {
                        self.caught_up(Some(position), now, out);
                    }
                    Ok(_) => self.ask_again(failures, SYNC_RETRY.wait(failures, jitter), now),
                    Err(SyncFailure::NoSocket) if now.since(self.since) >= SOCKET_LIMIT => {
                        self.caught_up(None, now, out);
                    }
                    Err(SyncFailure::NoSocket) => self.ask_again(failures - 1, SOCKET_PACE, now),
                    Err(SyncFailure::NotOpen) => {
                        let late = now.since(self.since) >= OPEN_LIMIT;
                        let pace = if late { OPEN_PACE } else { SOCKET_PACE };
                        self.ask_again(failures - 1, pace, now);
                    }
                    Err(SyncFailure::StateCorrupt(cause)) if self.reset_allowed <= now => {
                        out.warn(format!(
                            "Litestream can't read its local state; it is dropped, and replication \
                             goes on from the replica: {cause}"
                        ));
                        self.reset_allowed = now + RESET_PACE;
                        self.stop_to(Then::Reset, now, out);
                    }
                    Err(SyncFailure::StateCorrupt(cause) | SyncFailure::Failed(cause)) => {
                        if self.last_trouble.as_ref() != Some(&cause) {
                            out.warn(format!("Litestream has not caught up: {cause}"));
                        }
                        self.last_trouble = Some(cause);
                        self.ask_again(failures, SYNC_RETRY.wait(failures, jitter), now);
                    }
                }
            }
            _ => {}
        }
    }

    /// A heartbeat row was committed, or could not be.
    pub(super) fn row(&mut self, committed: bool, now: BootTime) {
        match &mut self.phase {
            Phase::Preparing {
                step: Preparation::Row { retry, .. },
                ..
            } => {
                if committed {
                    self.guard_then_sync(now);
                } else {
                    *retry = now + ROW_PACE;
                }
            }
            Phase::Running(catch_up) if committed => {
                self.row_since_start = true;
                if matches!(catch_up, CatchUp::Row { .. }) {
                    *catch_up = CatchUp::Due {
                        at: now,
                        failures: 0,
                    };
                }
            }
            Phase::Running(CatchUp::Row { retry, .. }) => *retry = now + ROW_PACE,
            _ => {}
        }
    }

    pub(super) fn reset(&mut self, result: Result<(), String>, now: BootTime, out: &mut Actions) {
        if matches!(self.phase, Phase::Resetting { .. }) {
            if let Err(cause) = result {
                out.warn(format!(
                    "Litestream's local state could not be reset: {cause}"
                ));
                self.reset_allowed = now + RESET_RETRY;
            }
            self.start_or_idle(now, out);
        }
    }

    /// Something changed that may let a failing sync succeed.
    pub(super) fn hasten(&mut self, now: BootTime) {
        if let Phase::Running(CatchUp::Due { at, .. }) = &mut self.phase {
            *at = (*at).min(now);
        }
    }

    /// The daemon ends; asked a second time, it ends sooner.
    pub(super) fn stop(&mut self, now: BootTime, out: &mut Actions) {
        let may_wait = self.supervisor == SupervisorKind::Child && self.leaving.is_none();
        let rescue = !self.runs_with_credentials(now) && self.has_credentials(now);
        match &mut self.phase {
            // Litestream that has not opened the database yet ends without a last sync.
            Phase::Running(CatchUp::Row { .. } | CatchUp::Due { .. } | CatchUp::Asked { .. })
                if may_wait && now.since(self.since) < OPEN_LIMIT =>
            {
                self.leaving = Some(self.since + OPEN_LIMIT);
            }
            // Its credentials have ended: only those that it was about to get bring the last rows out.
            Phase::Preparing { .. }
            | Phase::Stopping {
                then: Then::Start, ..
            } if may_wait && rescue => {
                self.leaving = Some(now + LEAVE_LIMIT);
            }
            Phase::Running(_) | Phase::Preparing { .. } | Phase::Starting { .. }
                if self.supervisor == SupervisorKind::Child =>
            {
                self.stop_to(Then::Exit, now, out);
            }
            Phase::Stopping {
                then: Then::Exit,
                deadline,
                ..
            } => *deadline = now,
            Phase::Stopping {
                then,
                force,
                deadline,
            } => {
                *then = Then::Exit;
                if *force == Force::TerminateAgain {
                    *deadline = now + EXIT_GRACE;
                }
            }
            _ => self.enter(Phase::Down, now),
        }
    }

    pub(super) fn advance(&mut self, heartbeat: bool, now: BootTime, out: &mut Actions) {
        if let Some(limit) = self.leaving {
            match self.phase {
                Phase::Running(CatchUp::Done) => self.stop_to(Then::Exit, now, out),
                Phase::Running(_) if limit <= now => self.stop_to(Then::Exit, now, out),
                Phase::Idle | Phase::Waiting { .. } => self.enter(Phase::Down, now),
                _ => {}
            }
        }
        match &mut self.phase {
            Phase::Waiting { until } if *until <= now => self.start_or_idle(now, out),
            Phase::Starting { deadline } if *deadline <= now => {
                out.push(Action::AbandonStart);
                out.warn("systemd has not restarted Litestream's unit in time".to_owned());
                self.enter(
                    Phase::Waiting {
                        until: now + RESTART.longest,
                    },
                    now,
                );
            }
            // A database that can't be written to can still be replicated.
            Phase::Running(CatchUp::Row { until, .. }) if !heartbeat || *until <= now => {
                self.ask_again(0, Duration::ZERO, now);
            }
            Phase::Running(CatchUp::Row { retry, .. }) if *retry <= now => {
                *retry = BootTime::NEVER;
                out.push(Action::WriteRow);
            }
            Phase::Running(CatchUp::Due { at, failures }) if *at <= now => {
                let asked = CatchUp::Asked {
                    deadline: now + SYNC_LIMIT + PREPARATION_LIMIT,
                    failures: *failures,
                };
                self.phase = Phase::Running(asked);
                out.push(Action::Sync(SYNC_LIMIT));
            }
            Phase::Running(CatchUp::Asked { deadline, failures }) if *deadline <= now => {
                let failures = *failures + 1;
                self.ask_again(failures, SYNC_RETRY.longest, now);
            }
            Phase::Preparing {
                step: Preparation::Row { .. },
                deadline,
            } if !heartbeat || *deadline <= now => {
                self.guard_then_sync(now);
            }
            Phase::Preparing {
                step: Preparation::Row { retry, .. },
                ..
            } if *retry <= now => {
                *retry = BootTime::NEVER;
                out.push(Action::WriteRow);
            }
            Phase::Preparing {
                step: step @ Preparation::Guard,
                deadline,
            } => {
                *step = Preparation::Sync;
                *deadline = now + PREPARATION_LIMIT;
                out.push(Action::Sync(PREPARATION_LIMIT));
            }
            Phase::Preparing {
                step: Preparation::Sync,
                deadline,
            } if *deadline <= now => {
                self.stop_to(Then::Start, now, out);
            }
            Phase::Stopping {
                force, deadline, ..
            } if *deadline <= now => {
                *deadline = now + ABORT_LIMIT;
                match *force {
                    Force::TerminateAgain => {
                        *force = Force::Kill;
                        out.push(Action::Terminate);
                    }
                    Force::Kill => {
                        *force = Force::Wait;
                        out.push(Action::Kill);
                    }
                    Force::Wait => *deadline = BootTime::NEVER,
                }
            }
            Phase::Resetting { deadline } if *deadline <= now => {
                self.reset_allowed = now + RESET_RETRY;
                self.start_or_idle(now, out);
            }
            _ => {}
        }
    }

    pub(super) fn deadline(&self) -> BootTime {
        let leaving = match (self.leaving, &self.phase) {
            (Some(limit), Phase::Running(_)) => limit,
            _ => BootTime::NEVER,
        };
        leaving.min(self.phase_deadline())
    }

    fn phase_deadline(&self) -> BootTime {
        match &self.phase {
            Phase::Idle | Phase::Down | Phase::Running(CatchUp::Done) => BootTime::NEVER,
            Phase::Waiting { until: at }
            | Phase::Starting { deadline: at }
            | Phase::Running(CatchUp::Due { at, .. } | CatchUp::Asked { deadline: at, .. })
            | Phase::Stopping { deadline: at, .. }
            | Phase::Resetting { deadline: at } => *at,
            Phase::Running(CatchUp::Row {
                retry,
                until: deadline,
            })
            | Phase::Preparing {
                step: Preparation::Row { retry, .. },
                deadline,
            } => (*retry).min(*deadline),
            Phase::Preparing { deadline, .. } => *deadline,
        }
    }

    /// Nobody but the guard keeps the WAL from being reset before Litestream has read it.
    pub(super) fn leaves_wal_open(&self) -> bool {
        !matches!(
            self.phase,
            Phase::Running(CatchUp::Done)
                | Phase::Preparing {
                    step: Preparation::Row { held: true, .. },
                    ..
                }
                | Phase::Down
        )
    }

    /// Nothing is left to stop.
    pub(super) fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Down)
    }

    /// What it does, since when, and what troubles it.
    pub(super) fn activity(&self) -> (Activity, BootTime, Option<&str>) {
        let activity = match self.phase {
            Phase::Idle => Activity::WaitingForCredentials,
            Phase::Waiting { .. } => Activity::WaitingToRestart,
            Phase::Starting { .. } => Activity::Starting,
            Phase::Running(CatchUp::Done) => Activity::Replicating,
            Phase::Running(_) => Activity::CatchingUp,
            Phase::Preparing { .. } | Phase::Stopping { .. } => Activity::Stopping,
            Phase::Resetting { .. } => Activity::Resetting,
            Phase::Down => Activity::Stopped,
        };
        (activity, self.since, self.last_trouble.as_deref())
    }

    fn prepare(&mut self, now: BootTime) {
        let held = matches!(self.phase, Phase::Running(CatchUp::Done));
        let step = Preparation::Row { retry: now, held };
        self.enter(
            Phase::Preparing {
                step,
                deadline: now + PREPARATION_LIMIT,
            },
            now,
        );
    }

    /// In this order, so that nothing is reset between the row and the stop.
    fn guard_then_sync(&mut self, now: BootTime) {
        self.phase = Phase::Preparing {
            step: Preparation::Guard,
            deadline: now,
        };
    }

    fn stop_to(&mut self, then: Then, now: BootTime, out: &mut Actions) {
        if then == Then::Start && !self.has_credentials(now) {
            // The device slept through their life. What runs is better than nothing.
            self.ask_again(0, Duration::ZERO, now);
            return;
        }
        self.stop_began = Some(now);
        if self.supervisor == SupervisorKind::Systemd {
            match then {
                Then::Start => self.start(now, out),
                Then::Reset => {
                    self.enter(
                        Phase::Resetting {
                            deadline: now + START_LIMIT,
                        },
                        now,
                    );
                    out.push(Action::ResetState);
                }
                Then::Exit => self.enter(Phase::Down, now),
            }
            return;
        }
        let grace = match then {
            _ if !self.runs_with_credentials(now) => HOPELESS_GRACE,
            Then::Exit if self.leaving.is_none() => EXIT_GRACE,
            Then::Exit | Then::Start | Then::Reset => ROTATION_GRACE,
        };
        let force = Force::TerminateAgain;
        self.enter(
            Phase::Stopping {
                then,
                force,
                deadline: now + grace,
            },
            now,
        );
        out.push(Action::Terminate);
    }

    fn start_or_idle(&mut self, now: BootTime, out: &mut Actions) {
        if self.has_credentials(now) {
            self.start(now, out);
        } else {
            self.enter(Phase::Idle, now);
        }
    }

    /// Whether the credentials that Litestream was started with are still good.
    pub(super) fn runs_with_credentials(&self, now: BootTime) -> bool {
        self.running.is_some_and(|term| now < term.ends)
    }

    /// The daemon ends, but not before Litestream had a last chance.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Whether the newest credentials are worth a start.
    fn has_credentials(&self, now: BootTime) -> bool {
        self.term.is_some_and(|term| now + LEAST_TERM < term.ends)
    }

    fn start(&mut self, now: BootTime, out: &mut Actions) {
        self.running = self.term;
        self.row_since_start = false;
        self.enter(
            Phase::Starting {
                deadline: now + START_LIMIT,
            },
            now,
        );
        out.push(Action::Start);
    }

    fn wait_to_start(
        &mut self,
        cause: String,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Actions,
    ) {
        self.deaths = self.deaths.saturating_add(1);
        let wait = RESTART.wait(self.deaths, jitter);
        out.warn(format!(
            "{cause}; started again in {:.1} s",
            wait.as_secs_f32()
        ));
        self.last_trouble = Some(cause);
        self.enter(Phase::Waiting { until: now + wait }, now);
    }

    fn ask_again(&mut self, failures: u32, wait: Duration, now: BootTime) {
        self.phase = Phase::Running(CatchUp::Due {
            at: now + wait,
            failures,
        });
    }

    /// Litestream confirmed `position`, or has no way to tell and has had its time.
    fn caught_up(&mut self, position: Option<Position>, now: BootTime, out: &mut Actions) {
        self.phase = Phase::Running(CatchUp::Done);
        self.last_trouble = None;
        self.last_gap = self.stop_began.take().map(|began| now.since(began));
        let Some(position) = position else {
            let text = "Litestream runs; without a control socket nothing shows that it replicates";
            return out.info(text.to_owned());
        };
        // An idle database syncs happily, with credentials that ended long ago: only what is new
        // shows anything.
        let moved = self
            .position
            .is_some_and(|before| before.local < position.local);
        self.position = Some(position);
        if self.row_since_start || moved {
            self.proof = Some(Proof { at: now, position });
            let gap = self.last_gap.map_or(String::new(), |gap| {
                format!(" after a gap of {} ms", gap.as_millis())
            });
            let txid = position.replicated;
            out.info(format!(
                "Litestream replicates{gap}: its replica holds transaction {txid}"
            ));
        }
    }

    fn enter(&mut self, phase: Phase, now: BootTime) {
        self.phase = phase;
        self.since = now;
    }
}
