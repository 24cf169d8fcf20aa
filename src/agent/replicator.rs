//! Litestream's life: started with fresh credentials, handed newer ones, brought back when it dies.
//!
//! Owns the hand-over and its order. By a restart: new credentials first, then a row, the guard and
//! a last sync, then the stop, the start, and a sync that shows that the replica follows; one
//! restart a rotation, never two. By a refresh: Litestream asks for the new ones by itself, so that
//! only the row and the sync are left. One that does not follow, however often it is asked, is
//! restarted once. Knows nothing of how credentials come about, nor how Litestream is run.
//!
//! Its parts, a phase each: `preparation` (before a stop), `stop`, `catch_up` (after a start).
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
use super::proof::{self, Ledger};
use super::renewal::Term;
use super::{Action, Actions, Answer, Delivery, Policy, SupervisorKind};
use crate::clock::BootTime;
use crate::config::Rotation;

mod catch_up;
mod preparation;
mod stop;

use catch_up::{Asker, CatchUp, SOCKET_LIMIT, Socket, Verdict};
pub use catch_up::{BEGINNING_MISSED, SyncFailure};
use preparation::{Preparation, Progress};
use stop::{LastSync, Stop, Then};

/// How long the row and the last sync before a stop may hold the stop up, each; and the row after a
/// start.
const PREPARATION_LIMIT: Duration = Duration::from_secs(2);

/// How often a row that a locked database delayed is tried again during a hand-over.
const ROW_PACE: Duration = Duration::from_millis(100);

/// A daemon that is told to end in the middle of a hand-over finishes it first, where only that can
/// bring the last rows out, and takes so long for it at the most.
const LEAVE_LIMIT: Duration = Duration::from_secs(15);

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

/// Litestream that was asked for so long, again and again, and has shown nothing, is restarted: a little
/// later than its own longest back-off, so that what mends itself is left alone. A start without S3 costs
/// it its hold on the WAL.
const RESCUE_LIMIT: Duration = Duration::from_secs(360);

/// The same where it does not even say who it is: nothing mends that.
const HUNG_RESCUE_LIMIT: Duration = Duration::from_secs(90);

/// One that does not answer within this what costs it nothing hangs.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// What a restart did not mend is not tried again sooner than this, and twice as late each time: it is
/// S3, most often, or an upload that takes its time, and has to begin again with each restart.
const RESCUE_PACE: Duration = Duration::from_secs(3600);

/// No later than this: the longest session's life.
const LONGEST_RESCUE_PACE: Duration = Duration::from_secs(43_200);

/// What is said of one that can't be asked.
const NO_SOCKET: &str = "it has no control socket, so that nothing shows whether it replicates; use \
                         Litestream 0.5 or later with `socket: {enabled: true, path: …}` in its \
                         configuration, and name the path in [replication] control_socket";

/// What is said of one that answers nothing.
const HANGS: &str = "it does not answer, and hangs";

/// What is said where Litestream says nothing.
pub(super) const NO_REASON: &str = "Litestream gives no reason; see its log";

/// Local state that breaks again sooner than this is not mended by dropping it; twice as late each time,
/// for the whole database may have to be uploaded.
const RESET_PACE: Duration = Duration::from_secs(180);
const LONGEST_RESET_PACE: Duration = Duration::from_secs(43_200);

/// A reset that failed is tried again after this; where the WAL could not be emptied, twice as late each
/// time.
const RESET_RETRY: Duration = Duration::from_secs(300);
const LONGEST_RESET_RETRY: Duration = Duration::from_secs(1800);

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

#[derive(Debug)]
pub(super) struct Replicator {
    supervisor: SupervisorKind,
    /// How the next start delivers credentials; `None` where a probe has to tell.
    next_delivery: Option<Delivery>,
    /// How the last one did.
    delivery: Option<Delivery>,
    /// The clock by which its SDK counts went back since: it takes what it has for good too long, and
    /// does not ask in time.
    clock_went_back: bool,
    phase: Phase,
    since: BootTime,
    /// The newest credentials' term, and the term of those that Litestream was started with.
    term: Option<Term>,
    running: Option<Term>,
    deaths: u32,
    last_trouble: Option<String>,
    reset_allowed: BootTime,
    resets: u32,
    /// How often in a row the WAL could not be emptied.
    unemptied: u32,
    /// Since when the Litestream that runs has been up.
    up_since: BootTime,
    rescue_allowed: BootTime,
    rescues: u32,
    /// Until when it is to say that it does not hang.
    greeted_by: Option<BootTime>,
    hangs: bool,
    /// Since when nothing listens on its control socket.
    deaf_since: Option<BootTime>,
    socket: Socket,
    /// Litestream was seen to have opened the database: its own lock holds the WAL.
    holds_wal: bool,
    /// That the Litestream that runs replicates stands in the log; it told what.
    announced: bool,
    introduced: bool,
    stop_began: Option<BootTime>,
    /// The daemon ends once Litestream has caught up, or then.
    leaving: Option<BootTime>,
    pub(super) ledger: Ledger,
    pub(super) starts: u64,
    pub(super) rotations: u64,
    pub(super) last_gap: Option<Duration>,
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
    /// Running still, and about to be stopped.
    Preparing(Preparation),
    /// Asked to end.
    Stopping(Stop),
    /// Not running; its local state is being dropped.
    Resetting { deadline: BootTime },
    /// The daemon ends, and Litestream is down, or left to systemd.
    Down,
}

impl Replicator {
    pub(super) fn new(policy: &Policy, now: BootTime) -> Self {
        Self {
            supervisor: policy.supervisor,
            next_delivery: delivery_of(policy.rotation),
            delivery: None,
            clock_went_back: false,
            phase: Phase::Idle,
            since: now,
            term: None,
            running: None,
            deaths: 0,
            last_trouble: None,
            reset_allowed: now,
            resets: 0,
            unemptied: 0,
            up_since: now,
            rescue_allowed: now,
            rescues: 0,
            greeted_by: None,
            hangs: false,
            deaf_since: None,
            socket: Socket::Unknown,
            holds_wal: false,
            announced: false,
            introduced: false,
            stop_began: None,
            leaving: None,
            ledger: Ledger::new(now),
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
            Phase::Running(_) if self.refreshes() => {
                if !self.runs_with_credentials(now) {
                    self.ledger.excuse(now);
                }
                self.running = self.term;
                self.last_gap = None;
                self.enter(Phase::Running(CatchUp::begin(now)), now);
            }
            Phase::Running(_) => self.prepare(now),
            // Whatever is under way ends in a start, and a start takes the newest.
            Phase::Starting { .. } | Phase::Preparing(_) | Phase::Stopping(_) => {}
            Phase::Resetting { .. } | Phase::Down => {}
        }
    }

    /// The next credentials take a restart, which is time enough: those that it has are good until
    /// then.
    pub(super) fn clock_went_back(&mut self) {
        self.clock_went_back = true;
    }

    /// The configuration was read anew: from the next hand-over on it holds. Of another database nothing is
    /// proved yet.
    pub(super) fn reloaded(&mut self, policy: &Policy, is_another: bool, now: BootTime) {
        if is_another {
            self.ledger = Ledger::new(now);
        }
        self.next_delivery = match delivery_of(policy.rotation) {
            None if self.delivery.is_some() => self.next_delivery,
            named => named,
        };
    }

    /// It is known how Litestream can be given credentials, or not; then the safe way is taken.
    pub(super) fn probed(
        &mut self,
        result: Result<Delivery, String>,
        now: BootTime,
        out: &mut Actions,
    ) {
        if !matches!(self.phase, Phase::Starting { .. }) {
            return;
        }
        let delivery = match result {
            Ok(delivery) => {
                self.next_delivery = Some(delivery);
                delivery
            }
            Err(cause) => {
                out.warn(format!(
                    "Litestream is restarted at each rotation, for nobody knows whether it can do \
                     without: {cause}"
                ));
                Delivery::Environment
            }
        };
        self.start_with(delivery, now, out);
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
                self.up_since = now;
                // What was told since it was stopped was told by the one before.
                self.introduced = false;
                self.enter(Phase::Running(CatchUp::begin(now)), now);
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
        match &self.phase {
            Phase::Stopping(stop) => match stop.then {
                Then::Start => self.start_or_idle(now, out),
                Then::Reset => self.drop_state(now, out),
                Then::Exit => self.enter(Phase::Down, now),
            },
            Phase::Running(_) if self.leaving.is_some() => self.enter(Phase::Down, now),
            Phase::Running(_) | Phase::Preparing(_) | Phase::Starting { .. } => {
                if now.since(self.since) >= STEADY {
                    self.deaths = 0;
                }
                self.stop_began = Some(now);
                let cause = format!("Litestream ended by itself ({how})");
                self.wait_to_start(cause, jitter, now, out);
            }
            Phase::Idle | Phase::Waiting { .. } | Phase::Resetting { .. } | Phase::Down => {}
        }
    }

    pub(super) fn synced(
        &mut self,
        result: Result<Answer, SyncFailure>,
        heartbeat: bool,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Actions,
    ) {
        self.deaf_since = match result {
            Err(SyncFailure::NoSocket) => self.deaf_since.or(Some(now)),
            _ => None,
        };
        // One that can't be asked any more is as good as one that does not answer.
        self.hangs = self
            .deaf_since
            .is_some_and(|since| self.hangs || now.since(since) >= SOCKET_LIMIT);
        if result.is_ok() {
            // What has read the database holds its WAL.
            self.holds_wal = true;
            // An answer may get lost: it is asked again beside each sync, until it has told.
            if !self.introduced {
                out.push(Action::List);
            }
        }
        if result == Err(SyncFailure::BeginningMissed) {
            self.ledger.breaks(BEGINNING_MISSED);
        }
        let finding = result.map(|answer| self.ledger.judge(answer, heartbeat, now));
        let asker = Asker {
            age: now.since(self.since),
            heartbeat,
            wanted: self.ledger.has_unproved_row(),
        };
        match &mut self.phase {
            Phase::Preparing(preparation) if preparation.awaits_sync() => {
                let then = match self.ledger.is_broken() && self.may_reset(now) {
                    true => Then::Reset,
                    false => Then::Start,
                };
                self.stop_to(then, now, out);
            }
            Phase::Running(catch_up) => {
                let followed = catch_up.is_done();
                let verdict = catch_up.answered(finding, asker, &mut self.socket, jitter, now);
                if let Some(verdict) = verdict {
                    self.judge(verdict, followed, now, out);
                }
            }
            _ => {}
        }
    }

    /// Litestream told what it replicates.
    pub(super) fn listed(&mut self) {
        self.introduced = true;
    }

    /// Litestream does not hang.
    pub(super) fn greeted(&mut self) {
        self.greeted_by = None;
        self.hangs = false;
        self.deaf_since = None;
    }

    /// A heartbeat row was committed, or could not be.
    pub(super) fn row(&mut self, committed: Option<&i64>, now: BootTime) {
        if let Some(id) = committed {
            self.ledger.row(*id, now);
        }
        let committed = committed.is_some();
        match &mut self.phase {
            Phase::Preparing(preparation) => preparation.row(committed, now),
            Phase::Running(catch_up) => catch_up.row(committed, now),
            _ => {}
        }
    }

    pub(super) fn reset(&mut self, result: Result<bool, String>, now: BootTime, out: &mut Actions) {
        if matches!(self.phase, Phase::Resetting { .. }) {
            match result {
                Ok(true) => {}
                Ok(false) => self.ledger.breaks(proof::LOST),
                Err(cause) => {
                    out.warn(format!(
                        "Litestream's local state could not be reset: {cause}"
                    ));
                    self.reset_allowed = now + RESET_RETRY;
                }
            }
            self.start_or_idle(now, out);
        }
    }

    /// The WAL was emptied before a start, or could not be: a replica that misses something is better
    /// than none, and the next start tries again.
    pub(super) fn emptied(&mut self, result: Result<(), String>, now: BootTime, out: &mut Actions) {
        match result {
            Ok(()) => {
                self.unemptied = 0;
                self.ledger.begins_anew();
            }
            Err(why) => {
                let wait = RESET_RETRY.saturating_mul(2_u32.saturating_pow(self.unemptied));
                self.unemptied = self.unemptied.saturating_add(1);
                self.reset_allowed = now + wait.min(LONGEST_RESET_RETRY);
                self.resets = self.resets.saturating_sub(1);
                out.warn(format!(
                    "Litestream has to upload the whole database, and does not yet: {why}"
                ));
            }
        }
    }

    /// Something changed that may let a failing sync succeed.
    pub(super) fn hasten(&mut self, now: BootTime) {
        if let Phase::Running(catch_up) = &mut self.phase {
            catch_up.hasten(now);
        }
    }

    /// The daemon ends; asked a second time, it ends sooner.
    pub(super) fn stop(&mut self, now: BootTime, out: &mut Actions) {
        let is_child = self.supervisor == SupervisorKind::Child;
        let may_wait = is_child && self.leaving.is_none();
        let rescue = !self.runs_with_credentials(now) && self.has_credentials(now);
        match &mut self.phase {
            // Litestream that has not opened the database yet ends without a last sync.
            Phase::Running(catch_up)
                if may_wait && !catch_up.is_done() && now.since(self.since) < LEAVE_LIMIT =>
            {
                self.leaving = Some(self.since + LEAVE_LIMIT);
            }
            // Its credentials have ended: only those that it was about to get bring the last rows out.
            Phase::Preparing(_) if may_wait && rescue => self.leaving = Some(now + LEAVE_LIMIT),
            Phase::Stopping(stop) if stop.then == Then::Start && may_wait && rescue => {
                self.leaving = Some(now + LEAVE_LIMIT);
            }
            Phase::Running(_) | Phase::Preparing(_) | Phase::Starting { .. } if is_child => {
                self.stop_to(Then::Exit, now, out);
            }
            Phase::Stopping(stop) => stop.leave(now),
            _ => self.enter(Phase::Down, now),
        }
    }

    pub(super) fn advance(&mut self, heartbeat: bool, now: BootTime, out: &mut Actions) {
        if let Some(limit) = self.leaving {
            match &self.phase {
                Phase::Running(catch_up) if catch_up.is_done() || limit <= now => {
                    self.stop_to(Then::Exit, now, out);
                }
                Phase::Idle | Phase::Waiting { .. } => self.enter(Phase::Down, now),
                _ => {}
            }
        }
        if self.rescue_at() <= now {
            self.rescue(now, out);
        }
        if let Phase::Running(catch_up) = &mut self.phase {
            let followed = catch_up.is_done();
            if let Some(verdict) = catch_up.expire(now) {
                if !self.hangs {
                    self.judge(verdict, followed, now, out);
                }
                self.greeted_by.get_or_insert(now + GREETING_LIMIT);
                out.push(Action::Greet);
            }
            if self.greeted_by.take_if(|limit| *limit <= now).is_some() {
                self.hangs = true;
                self.troubled(HANGS.to_owned(), out);
            }
        }
        match &mut self.phase {
            Phase::Waiting { until } if *until <= now => self.start_or_idle(now, out),
            Phase::Starting { deadline } if *deadline <= now => {
                out.push(Action::AbandonStart);
                let wait = RESTART.longest;
                out.warn(format!(
                    "systemd has not restarted Litestream's unit within {} s; look into it with \
                     `systemctl status`; tried again in {} s",
                    START_LIMIT.as_secs(),
                    wait.as_secs()
                ));
                let until = now + wait;
                self.enter(Phase::Waiting { until }, now);
            }
            Phase::Running(catch_up) => {
                let action = catch_up.advance(heartbeat, now);
                if action == Some(Action::Sync) {
                    self.ledger.ask(now);
                }
                out.extend(action);
            }
            Phase::Preparing(preparation) => match preparation.advance(heartbeat, now) {
                Progress::Waits => {}
                Progress::Does(action) => {
                    if action == Action::Sync {
                        self.ledger.ask(now);
                    }
                    out.push(action);
                }
                Progress::Over => self.stop_to(Then::Start, now, out),
            },
            Phase::Stopping(stop) => out.extend(stop.advance(now)),
            Phase::Resetting { deadline } if *deadline <= now => {
                self.reset_allowed = now + RESET_RETRY;
                self.start_or_idle(now, out);
            }
            _ => {}
        }
    }

    pub(super) fn deadline(&self) -> BootTime {
        match &self.phase {
            Phase::Idle | Phase::Down => BootTime::NEVER,
            Phase::Waiting { until: at }
            | Phase::Starting { deadline: at }
            | Phase::Resetting { deadline: at } => *at,
            Phase::Running(catch_up) => {
                let limit = self.leaving.unwrap_or(BootTime::NEVER);
                let greeting = self.greeted_by.unwrap_or(BootTime::NEVER);
                limit
                    .min(catch_up.deadline())
                    .min(self.rescue_at())
                    .min(greeting)
            }
            Phase::Preparing(preparation) => preparation.deadline(),
            Phase::Stopping(stop) => stop.deadline(),
        }
    }

    /// Nobody but the guard keeps the WAL from being reset before Litestream has read it.
    pub(super) fn leaves_wal_open(&self) -> bool {
        match &self.phase {
            Phase::Running(_) => !self.holds_wal,
            Phase::Preparing(preparation) => !preparation.holds_wal(),
            Phase::Down => false,
            _ => true,
        }
    }

    /// It runs, or is about to be stopped.
    pub(super) fn runs(&self) -> bool {
        matches!(
            self.phase,
            Phase::Running(_) | Phase::Preparing(_) | Phase::Stopping(_)
        )
    }

    /// Nothing is left to stop.
    pub(super) fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Down)
    }

    /// What it does, since when, and what troubles it.
    pub(super) fn activity(&self) -> (Activity, BootTime, Option<&str>) {
        let activity = match &self.phase {
            Phase::Idle => Activity::WaitingForCredentials,
            Phase::Waiting { .. } => Activity::WaitingToRestart,
            Phase::Starting { .. } => Activity::Starting,
            Phase::Running(catch_up) if catch_up.is_done() => Activity::Replicating,
            Phase::Running(_) => Activity::CatchingUp,
            Phase::Preparing(_) | Phase::Stopping(_) => Activity::Stopping,
            Phase::Resetting { .. } => Activity::Resetting,
            Phase::Down => Activity::Stopped,
        };
        (activity, self.since, self.last_trouble.as_deref())
    }

    /// When the Litestream that runs is restarted, for it does not follow; never, where the credentials
    /// at hand would not outlast the start.
    fn rescue_at(&self) -> BootTime {
        match (&self.phase, self.term) {
            (Phase::Running(catch_up), Some(term)) if !catch_up.is_done() => {
                let waits = self.ledger.waits_since();
                let since = waits.unwrap_or(BootTime::NEVER).max(self.up_since);
                let limit = match self.hangs {
                    true => HUNG_RESCUE_LIMIT,
                    false => RESCUE_LIMIT,
                };
                let at = (since + limit).max(self.rescue_allowed);
                let in_time = at + LEAST_TERM < term.ends && self.leaving.is_none();
                if in_time { at } else { BootTime::NEVER }
            }
            _ => BootTime::NEVER,
        }
    }

    fn rescue(&mut self, now: BootTime, out: &mut Actions) {
        if !self.has_credentials(now) {
            // The device slept through what was left of their life.
            self.rescue_allowed = now + LEAST_TERM;
            return;
        }
        let pace = RESCUE_PACE.saturating_mul(2_u32.saturating_pow(self.rescues));
        self.rescue_allowed = now + pace.min(LONGEST_RESCUE_PACE);
        self.rescues = self.rescues.saturating_add(1);
        out.warn(format!(
            "Litestream has not shown for {} s that its replica follows, however often it was asked; it \
             is restarted once: {}",
            now.since(self.ledger.waits_since().unwrap_or(now))
                .as_secs(),
            self.last_trouble.as_deref().unwrap_or(NO_REASON)
        ));
        self.prepare(now);
    }

    fn prepare(&mut self, now: BootTime) {
        let preparation = Preparation::begin(self.holds_wal, now);
        self.enter(Phase::Preparing(preparation), now);
    }

    fn stop_to(&mut self, then: Then, now: BootTime, out: &mut Actions) {
        if then == Then::Start && !self.has_credentials(now) {
            // The device slept through their life. What runs is better than nothing.
            self.phase = Phase::Running(CatchUp::due(now));
            return;
        }
        self.stop_began = Some(now);
        match (self.supervisor, then) {
            (SupervisorKind::Systemd, Then::Start) => self.start(now, out),
            (SupervisorKind::Systemd, Then::Reset) => self.drop_state(now, out),
            (SupervisorKind::Systemd, Then::Exit) => self.enter(Phase::Down, now),
            (SupervisorKind::Child, _) => {
                let last_sync = match then {
                    _ if !self.runs_with_credentials(now) => LastSync::Hopeless,
                    Then::Exit if self.leaving.is_none() => LastSync::Final,
                    Then::Exit | Then::Start | Then::Reset => LastSync::Repeated,
                };
                self.enter(Phase::Stopping(Stop::begin(then, last_sync, now)), now);
                out.push(Action::Terminate);
            }
        }
    }

    fn drop_state(&mut self, now: BootTime, out: &mut Actions) {
        let deadline = now + START_LIMIT;
        self.enter(Phase::Resetting { deadline }, now);
        self.ledger.forget();
        out.push(Action::ResetState);
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
        if let Some(delivery) = self.next_delivery {
            return self.start_with(delivery, now, out);
        }
        let deadline = now + START_LIMIT;
        self.enter(Phase::Starting { deadline }, now);
        out.push(Action::Probe);
    }

    fn start_with(&mut self, delivery: Delivery, now: BootTime, out: &mut Actions) {
        self.running = self.term;
        self.delivery = Some(delivery);
        self.clock_went_back = false;
        self.holds_wal = false;
        self.announced = false;
        self.greeted();
        self.ledger.started();
        let deadline = now + START_LIMIT;
        self.enter(Phase::Starting { deadline }, now);
        if self.ledger.is_broken() {
            out.push(Action::EmptyWal);
        }
        out.push(Action::Start(delivery));
    }

    /// Whether the Litestream that runs gets new credentials without a restart, and is to.
    fn refreshes(&self) -> bool {
        self.delivery == Some(Delivery::Process)
            && self.next_delivery == self.delivery
            && !self.clock_went_back
    }

    pub(super) fn delivery(&self) -> Option<Delivery> {
        self.delivery
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

    /// Acts on what is newly known of a replica that `followed` until now, or did not.
    fn judge(&mut self, verdict: Verdict, followed: bool, now: BootTime, out: &mut Actions) {
        if followed && !matches!(verdict, Verdict::CaughtUp | Verdict::Unmeasured) {
            self.since = now;
        }
        match verdict {
            Verdict::CaughtUp => self.caught_up(now, out),
            Verdict::Unmeasured => {
                self.holds_wal = true;
                self.stop_began = None;
                self.troubled(NO_SOCKET.to_owned(), out);
            }
            Verdict::StateUseless(cause) => self.useless(cause, now, out),
            Verdict::Behind(Some(cause)) => self.troubled(cause, out),
            Verdict::Behind(None) => {}
        }
    }

    /// A daemon that ends leaves that to the next one: a reset may take longer than the end has.
    fn may_reset(&self, now: BootTime) -> bool {
        self.reset_allowed <= now && self.leaving.is_none()
    }

    /// Its local state is dropped, unless that was done lately, and was no help.
    fn useless(&mut self, cause: String, now: BootTime, out: &mut Actions) {
        if !self.may_reset(now) {
            return self.troubled(cause, out);
        }
        out.warn(format!(
            "{cause}; its local state is dropped, and replication goes on from the replica"
        ));
        self.last_trouble = Some(cause);
        let pace = RESET_PACE.saturating_mul(2_u32.saturating_pow(self.resets));
        self.reset_allowed = now + pace.min(LONGEST_RESET_PACE);
        self.resets = self.resets.saturating_add(1);
        self.stop_to(Then::Reset, now, out);
    }

    fn troubled(&mut self, cause: String, out: &mut Actions) {
        if self.last_trouble.as_ref() != Some(&cause) {
            out.warn(format!("Litestream has not caught up: {cause}"));
        }
        self.last_trouble = Some(cause);
    }

    /// Its replica was shown to hold all that there was.
    fn caught_up(&mut self, now: BootTime, out: &mut Actions) {
        let gap = self.stop_began.take().map(|began| now.since(began));
        self.last_gap = gap.or(self.last_gap);
        self.rescue_allowed = now;
        self.rescues = 0;
        if self.reset_allowed <= now {
            self.resets = 0;
        }
        let mended = self.last_trouble.take().is_some();
        if mended || !std::mem::replace(&mut self.announced, true) {
            let gap = gap.map_or(String::new(), |gap| {
                format!(" after a gap of {} ms", gap.as_millis())
            });
            let txid = self.ledger.last_seen().unwrap_or_default();
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

/// How it is told to be; `None` where it is to be found out.
fn delivery_of(rotation: Rotation) -> Option<Delivery> {
    match rotation {
        Rotation::Auto => None,
        Rotation::Restart => Some(Delivery::Environment),
        Rotation::Refresh => Some(Delivery::Process),
    }
}
