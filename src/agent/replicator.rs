//! The hand-over: Litestream is started with credentials, given newer ones, and restarted when it dies.
//!
//! Owns its order. By a restart: new credentials, then a row, the guard and a last sync, then the stop,
//! the start, and a sync that shows that the replica follows; exactly one restart per rotation. By a
//! refresh: Litestream asks for the new ones itself, so only the row and the sync remain. Never deals
//! with how credentials are fetched, nor with how Litestream is run.
//!
//! Its parts: the `process`, with its `start` and `stop`; the `replica`, with its `preparation` (before
//! a stop) and `catch_up` (after a start); the `rescue` of a Litestream that does not follow; the
//! `introduction` of one that was started. None of them knows the others. `starting` decides what
//! follows each step of a start.
//!
//! ```text
//!            credentials             stopped             started            synced
//!   Idle ───────────────► Starting ◄───────── Stopping ◄──────── Preparing ◄─────── Running
//!     ▲                      │  │                                    ▲ credentials    │ ▲
//!     │ the last ones ended  │  └──────────────────────────────────────────────────────┘
//!     └──────── Waiting ◄────┴──── it could not be started, or it ended by itself ◄────┘
//! ```

use std::time::Duration;

use super::activity::Activity;
use super::backoff::Jitter;
use super::proof;
use super::renewal::Term;
use super::{Action, Actions, Policy};
use crate::clock::BootTime;
use crate::litestream::answer::{Answer, SyncFailure};

mod catch_up;
mod introduction;
mod preparation;
mod process;
mod replica;
mod rescue;
mod start;
mod starting;
mod stop;

use catch_up::{Socket, Verdict};
use introduction::Introduction;
use preparation::Progress;
use process::{LEAST_TERM, Phase, Process};
use replica::Replica;
use rescue::Rescue;
use stop::Then;

/// How long the row and the last sync may each delay a stop; and the row after a start.
const PREPARATION_LIMIT: Duration = Duration::from_secs(2);

/// The retry of a row in a hand-over, if a lock delayed it.
const ROW_PACE: Duration = Duration::from_millis(100);

/// A daemon that is asked to end during a hand-over finishes it first if only that can upload the last
/// rows; this is the limit.
const LEAVE_LIMIT: Duration = Duration::from_secs(15);

/// The problem of a Litestream that can't be asked.
const NO_SOCKET: &str = "it has no control socket, so nothing proves that it replicates; use Litestream 0.5 or later with `socket: {enabled: true, path: …}` in its configuration, and set [replication] control_socket to that path";

/// The problem of a Litestream that answers nothing.
const HANGS: &str = "it hangs: its control socket does not answer";

/// The problem if Litestream gives no reason.
pub(super) const NO_REASON: &str = "Litestream gives no reason; see its log";

#[derive(Debug)]
pub(super) struct Replicator {
    pub(super) process: Process,
    pub(super) replica: Replica,
    rescue: Rescue,
    socket: Socket,
    introduction: Introduction,
    last_trouble: Option<String>,
    stop_began: Option<BootTime>,
    /// The daemon ends once Litestream has caught up, at this time at the latest.
    leaving: Option<BootTime>,
    pub(super) last_gap: Option<Duration>,
}

impl Replicator {
    pub(super) fn new(policy: &Policy, now: BootTime) -> Self {
        Self {
            process: Process::new(policy, now),
            replica: Replica::new(now),
            rescue: Rescue::new(now),
            socket: Socket::Unknown,
            introduction: Introduction::Unmet,
            last_trouble: None,
            stop_began: None,
            leaving: None,
            last_gap: None,
        }
    }

    /// New credentials arrived, valid for `term`.
    pub(super) fn renewed(&mut self, term: Term, now: BootTime, out: &mut Actions) {
        self.process.renewed(term);
        match self.process.phase {
            Phase::Idle if self.process.may_run_unheard() => self.prepare(now),
            Phase::Idle | Phase::Waiting { .. } => self.start_or_idle(now, out),
            Phase::Running if self.process.refreshes() => {
                if !self.process.runs_with_credentials(now) {
                    self.replica.ledger.excuse(now);
                }
                self.process.refreshed(now);
                self.last_gap = None;
                self.replica.catch_up(now);
            }
            Phase::Running => self.prepare(now),
            // Every step that is under way leads to a start, and a start takes the newest credentials.
            Phase::Starting(_) | Phase::Preparing | Phase::Stopping(_) => {}
            Phase::Resetting { .. } | Phase::Down => {}
        }
    }

    /// The configuration was reloaded: it applies from the next hand-over on. Nothing is proved of
    /// another database; Litestream reads its configuration only at a start, so it is restarted.
    pub(super) fn reloaded(
        &mut self,
        policy: &Policy,
        is_another: bool,
        now: BootTime,
        out: &mut Actions,
    ) {
        self.process.reloaded(policy.rotation);
        if !is_another {
            return;
        }
        self.replica.is_another(now);
        match &self.process.phase {
            Phase::Running if self.leaving.is_none() => self.prepare(now),
            // The steps under way are about the previous database.
            Phase::Starting(start) if !start.is_launched() => {
                out.push(Action::AbandonStart);
                self.start_or_idle(now, out);
            }
            _ => {}
        }
    }

    pub(super) fn exited(
        &mut self,
        how: &str,
        jitter: &mut Jitter,
        now: BootTime,
        out: &mut Actions,
    ) {
        match &self.process.phase {
            Phase::Stopping(stop) => match stop.then {
                Then::Start => self.start_or_idle(now, out),
                Then::Reset => self.drop_state(now, out),
                Then::Exit => self.process.enter(Phase::Down, now),
            },
            Phase::Running if self.leaving.is_some() => self.process.enter(Phase::Down, now),
            Phase::Running | Phase::Preparing | Phase::Starting(_) => {
                self.process.ended(now);
                self.replica.stops();
                self.stop_began = Some(now);
                let cause = format!("Litestream exited ({how})");
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
        let is_deaf = result == Err(SyncFailure::NoSocket);
        self.rescue.answered(is_deaf, now);
        if result.is_ok() {
            self.introduction.meets(now);
        }
        let followed = self.replica.follows();
        let age = now.since(self.process.since);
        let socket = &mut self.socket;
        let verdict = self
            .replica
            .answered(result, heartbeat, age, socket, jitter, now);
        if self.replica.awaits_last_sync() {
            let is_reset = self.replica.ledger.is_broken() && self.may_reset(now);
            let then = match is_reset {
                true => Then::Reset,
                false => Then::Start,
            };
            self.stop_to(then, now, out);
        } else if let Some(verdict) = verdict {
            self.judge(verdict, followed, now, out);
        }
    }

    /// Litestream listed what it replicates.
    pub(super) fn listed(&mut self) {
        self.introduction = Introduction::Done;
    }

    /// Litestream does not hang.
    pub(super) fn greeted(&mut self) {
        self.rescue.hears();
    }

    pub(super) fn reset(&mut self, result: Result<bool, String>, now: BootTime, out: &mut Actions) {
        if matches!(self.process.phase, Phase::Resetting { .. }) {
            match result {
                Ok(true) => {}
                Ok(false) => self.replica.ledger.breaks(proof::LOST),
                Err(cause) => {
                    out.warn(format!(
                        "Litestream's local state could not be reset: {cause}"
                    ));
                    self.replica.reset_failed(now);
                }
            }
            self.start_or_idle(now, out);
        }
    }

    /// The daemon ends; a second request shortens that.
    pub(super) fn stop(&mut self, now: BootTime, out: &mut Actions) {
        let is_child = self.process.is_child();
        let may_wait = is_child && self.leaving.is_none();
        let has_credentials = self.process.has_credentials(now);
        let rescue = !self.process.runs_with_credentials(now) && has_credentials;
        let since = self.process.since;
        match &mut self.process.phase {
            // A Litestream that has not opened the database yet would end without a last sync.
            Phase::Running
                if may_wait && !self.replica.follows() && now.since(since) < LEAVE_LIMIT =>
            {
                self.leaving = Some(since + LEAVE_LIMIT);
            }
            // Its credentials have expired: only the new ones let it upload the last rows.
            Phase::Preparing if may_wait && rescue => self.leaving = Some(now + LEAVE_LIMIT),
            Phase::Stopping(stop) if stop.then == Then::Start && may_wait && rescue => {
                self.leaving = Some(now + LEAVE_LIMIT);
            }
            // Only a start uploads what was written since the stop.
            Phase::Starting(start) if !start.is_launched() => match may_wait && has_credentials {
                true => self.leaving = Some(now + LEAVE_LIMIT),
                false => self.abandon_to_end(now, out),
            },
            Phase::Running | Phase::Preparing | Phase::Starting(_) if is_child => {
                self.stop_to(Then::Exit, now, out);
            }
            Phase::Stopping(stop) => stop.leave(now),
            _ => self.process.enter(Phase::Down, now),
        }
    }

    /// Does what is due. `is_guarded`: the guard holds the WAL, or is about to.
    pub(super) fn advance(
        &mut self,
        heartbeat: bool,
        is_guarded: bool,
        now: BootTime,
        out: &mut Actions,
    ) {
        self.leave(now, out);
        if self.rescue_at() <= now {
            self.begin_rescue(now, out);
        }
        if matches!(self.process.phase, Phase::Running) {
            self.expire(now, out);
            // Until it follows, Litestream has syncs to answer, and it answers one request at a time.
            if self.replica.follows() {
                out.extend(self.introduction.advance(now));
            }
        }
        match &mut self.process.phase {
            Phase::Waiting { until } if *until <= now => self.start_or_idle(now, out),
            Phase::Starting(start) if start.deadline() <= now => {
                let trouble = start.trouble();
                let wait = self.process.start_was_late(now);
                out.push(Action::AbandonStart);
                out.warn(format!("{trouble}; retrying in {} s", wait.as_secs()));
                self.last_trouble = Some(trouble);
            }
            Phase::Starting(start) => out.extend(start.advance(is_guarded)),
            Phase::Running | Phase::Preparing => match self.replica.advance(heartbeat, now) {
                Progress::Waits => {}
                Progress::Does(action) => out.push(action),
                Progress::Over => self.stop_to(Then::Start, now, out),
            },
            Phase::Stopping(stop) => out.extend(stop.advance(now)),
            Phase::Resetting { deadline } if *deadline <= now => {
                out.push(Action::AbandonStart);
                self.replica.reset_failed(now);
                self.start_or_idle(now, out);
            }
            _ => {}
        }
    }

    pub(super) fn deadline(&self) -> BootTime {
        let at = self.process.deadline();
        let limit = self.leaving.unwrap_or(BootTime::NEVER);
        match &self.process.phase {
            Phase::Running => self
                .replica
                .deadline()
                .min(self.rescue_at())
                .min(self.rescue.deadline())
                .min(self.introduced_at())
                .min(limit),
            Phase::Preparing => self.replica.deadline(),
            Phase::Starting(start) if self.process.is_child() && start.is_launched() => at,
            Phase::Starting(_) | Phase::Resetting { .. } => at.min(limit),
            Phase::Idle | Phase::Waiting { .. } | Phase::Stopping(_) | Phase::Down => at,
        }
    }

    /// Only the guard can keep the WAL from a reset before Litestream has read it.
    pub(super) fn leaves_wal_open(&self) -> bool {
        match &self.process.phase {
            Phase::Running | Phase::Preparing => self.replica.leaves_wal_open(),
            Phase::Starting(start) => !start.empties_wal(),
            Phase::Down => false,
            _ => true,
        }
    }

    /// Nothing is left to stop.
    pub(super) fn is_down(&self) -> bool {
        matches!(self.process.phase, Phase::Down)
    }

    /// The daemon ends, but waits for Litestream's last chance to upload.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// The activity, since when, and its trouble.
    pub(super) fn activity(&self) -> (Activity, BootTime, Option<&str>) {
        let activity = match &self.process.phase {
            Phase::Idle => Activity::WaitingForCredentials,
            Phase::Waiting { .. } => Activity::WaitingToRestart,
            Phase::Starting(_) => Activity::Starting,
            Phase::Running if self.replica.follows() => Activity::Replicating,
            Phase::Running => Activity::CatchingUp,
            Phase::Preparing | Phase::Stopping(_) => Activity::Stopping,
            Phase::Resetting { .. } => Activity::Resetting,
            Phase::Down => Activity::Stopped,
        };
        (activity, self.process.since, self.last_trouble.as_deref())
    }

    /// Ends the daemon as soon as Litestream has caught up, or when its last chance is over.
    fn leave(&mut self, now: BootTime, out: &mut Actions) {
        let Some(limit) = self.leaving else { return };
        match self.process.phase {
            Phase::Running if self.replica.follows() || limit <= now => {
                self.stop_to(Then::Exit, now, out);
            }
            Phase::Idle | Phase::Waiting { .. } => self.process.enter(Phase::Down, now),
            // A child that was launched has to be stopped first: its start is confirmed at once.
            Phase::Starting(ref start) if self.process.is_child() && start.is_launched() => {}
            Phase::Starting(_) | Phase::Resetting { .. } if limit <= now => {
                self.abandon_to_end(now, out);
            }
            _ => {}
        }
    }

    /// Handles a late answer.
    fn expire(&mut self, now: BootTime, out: &mut Actions) {
        let followed = self.replica.follows();
        if let Some(verdict) = self.replica.expire(now) {
            if !self.rescue.hangs() {
                self.judge(verdict, followed, now, out);
            }
            self.rescue.ask(now);
            out.push(Action::Greet);
        }
        if self.rescue.expire(now) {
            self.troubled(HANGS.to_owned(), out);
        }
    }

    /// When a Litestream that does not follow is restarted; never, if the credentials would expire
    /// before the start is over.
    fn rescue_at(&self) -> BootTime {
        let is_due = matches!(self.process.phase, Phase::Running)
            && !self.replica.follows()
            && self.leaving.is_none();
        let Some(since) = self.replica.ledger.waits_since().filter(|_| is_due) else {
            return BootTime::NEVER;
        };
        let at = self.rescue.due(since.max(self.process.up_since));
        match self.process.has_credentials(at) {
            true => at,
            false => BootTime::NEVER,
        }
    }

    /// When Litestream is asked what it replicates.
    pub(super) fn introduced_at(&self) -> BootTime {
        match self.replica.follows() {
            true => self.introduction.deadline(),
            false => BootTime::NEVER,
        }
    }

    fn begin_rescue(&mut self, now: BootTime, out: &mut Actions) {
        if !self.process.has_credentials(now) {
            // The device slept until they expired.
            return self.rescue.put_off(now + LEAST_TERM);
        }
        self.rescue.begin(now);
        let waits = self.replica.ledger.waits_since().unwrap_or(now);
        out.warn(format!(
            "Litestream has not confirmed for {} s that its replica follows; it is restarted once: {}",
            now.since(waits).as_secs(),
            self.last_trouble.as_deref().unwrap_or(NO_REASON)
        ));
        self.prepare(now);
    }

    fn prepare(&mut self, now: BootTime) {
        self.replica.prepare(now);
        self.process.enter(Phase::Preparing, now);
    }

    fn stop_to(&mut self, then: Then, now: BootTime, out: &mut Actions) {
        if then == Then::Start && !self.process.has_credentials(now) {
            // The device slept until they expired.
            if !self.process.is_ours() {
                self.replica.stops();
                return self.process.enter(Phase::Idle, now);
            }
            // A Litestream that runs is better than none.
            self.process.phase = Phase::Running;
            return self.replica.ask_now(now);
        }
        self.replica.stops();
        self.stop_began = Some(now);
        match (self.process.is_child(), then) {
            (true, _) => {
                self.process.stops(then, self.leaving.is_none(), now);
                out.push(Action::Terminate);
            }
            (false, Then::Start) => self.start(now, out),
            (false, Then::Reset) => self.drop_state(now, out),
            (false, Then::Exit) => self.process.enter(Phase::Down, now),
        }
    }

    fn drop_state(&mut self, now: BootTime, out: &mut Actions) {
        self.process.resets(now);
        self.replica.drops_state();
        out.push(Action::ResetState);
    }

    /// Ends the daemon: no process has to be stopped.
    fn abandon_to_end(&mut self, now: BootTime, out: &mut Actions) {
        out.push(Action::AbandonStart);
        self.process.enter(Phase::Down, now);
    }

    /// Acts on a verdict; `followed`: the replica followed before it.
    fn judge(&mut self, verdict: Verdict, followed: bool, now: BootTime, out: &mut Actions) {
        if followed && !matches!(verdict, Verdict::CaughtUp | Verdict::Unmeasured) {
            self.process.since = now;
        }
        match verdict {
            Verdict::CaughtUp => self.caught_up(now, out),
            Verdict::Unmeasured => {
                self.stop_began = None;
                self.troubled(NO_SOCKET.to_owned(), out);
            }
            Verdict::StateUseless(cause) => self.useless(cause, now, out),
            Verdict::Behind(Some(cause)) => self.troubled(cause, out),
            Verdict::Behind(None) => {}
        }
    }

    /// A daemon that ends leaves the reset to the next run: a reset may take too long.
    fn may_reset(&self, now: BootTime) -> bool {
        self.replica.may_be_reset(now) && self.leaving.is_none()
    }

    /// Drops the local state, unless a recent reset did not help.
    fn useless(&mut self, cause: String, now: BootTime, out: &mut Actions) {
        if !self.may_reset(now) {
            return self.troubled(cause, out);
        }
        out.warn(format!(
            "{cause}; its local state is deleted, and replication continues from the replica"
        ));
        self.last_trouble = Some(cause);
        self.replica.begins_reset(now);
        self.stop_to(Then::Reset, now, out);
    }

    fn troubled(&mut self, cause: String, out: &mut Actions) {
        if self.last_trouble.as_ref() != Some(&cause) {
            out.warn(format!("Litestream has not caught up: {cause}"));
        }
        self.last_trouble = Some(cause);
    }

    /// The replica was proved to hold everything.
    fn caught_up(&mut self, now: BootTime, out: &mut Actions) {
        let gap = self.stop_began.take().map(|began| now.since(began));
        self.last_gap = gap.or(self.last_gap);
        self.rescue.mended(now);
        let mended = self.last_trouble.take().is_some();
        if self.replica.caught_up(now) || mended {
            let gap = gap.map_or(String::new(), |gap| {
                format!(" after a gap of {} ms", gap.as_millis())
            });
            let txid = self.replica.ledger.last_seen().unwrap_or_default();
            out.info(format!(
                "Litestream replicates{gap}: its replica holds transaction {txid}"
            ));
        }
    }
}
