//! The hand-over: Litestream is started with credentials, given newer ones, and restarted when it dies.
//!
//! Owns its order. By a restart: new credentials, then a row, the guard and a last sync, then the stop,
//! the start, and a sync that shows that the replica follows; exactly one restart per rotation. By a
//! refresh: Litestream asks for the new ones itself, so only the row and the sync remain. Never deals
//! with how credentials are fetched, nor with how Litestream is run.
//!
//! Its parts: the `process`, with its `start` and `stop`; the `rescue` of a Litestream that does not
//! follow; the `upload` that it has under way; the `introduction` of one that was started. None of them knows
//! the others. `starting` decides what follows each step of a start, `restoring` when it is looked at what a
//! restore would give, `waiting` what waits for an upload, `thrift` when uploads wait.
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
use super::database::Watched;
use super::databases::Databases;
use super::renewal::Term;
use super::replica::{Asker, Replica, Request, Socket, Verdict};
use super::watch::{Database, Outbox};
use super::{Action, Actions, Policy};
use crate::clock::BootTime;
use crate::config::Rotation;
use crate::litestream::answer::{Answer, SyncFailure};

mod introduction;
mod process;
mod rescue;
mod restoring;
mod start;
mod starting;
mod stop;
mod thrift;
mod upload;
mod waiting;

use introduction::Introduction;
use process::{LEAST_TERM, Phase, Process};
use rescue::Rescue;
pub(super) use restoring::Paces;
use stop::Then;
pub use thrift::HeldBack;
use thrift::Thrift;
use upload::Upload;
pub use upload::UploadReport;

/// How long after one database's turn in a hand-over the next one's comes, and after all of them.
const STAGGER: Duration = Duration::from_millis(10);
const LONGEST_STAGGER: Duration = Duration::from_secs(1);

/// A daemon that is told to end during a hand-over finishes it first, if only that can upload the last
/// rows, and takes at most this long.
const LEAVE_LIMIT: Duration = Duration::from_secs(15);

/// No session is shorter, by AWS's rules: where uploads are rarer, none is made for new credentials alone.
const SHORTEST_SESSION: Duration = Duration::from_secs(900);

/// The problem of a Litestream without a control socket.
const NO_SOCKET: &str = "it has no control socket, so nothing proves that it replicates; use Litestream \
                         0.5 or later with `socket: {enabled: true, path: …}` in its configuration, and \
                         set [replication] control_socket to that path";

/// The problem of a Litestream that answers nothing.
const HANGS: &str = "it hangs: its control socket does not answer";

/// The problem if Litestream gives no reason.
pub(super) const NO_REASON: &str = "Litestream gives no reason; see its log";

/// What an event is handled with: all that the process and its databases share.
pub(super) struct Turn<'a> {
    pub(super) databases: &'a mut Databases,
    /// Whether heartbeat rows are written at all.
    pub(super) has_rows: bool,
    pub(super) paces: Paces,
    /// The thing's place in its fleet.
    pub(super) phase: u16,
    /// When credentials are renewed; `None` while that is under way.
    pub(super) renewal: Option<BootTime>,
    pub(super) jitter: &'a mut Jitter,
    pub(super) now: BootTime,
    pub(super) out: &'a mut Actions,
}

impl Turn<'_> {
    /// Each has to show that it follows, one shortly after the other.
    fn catch_up(&mut self) {
        self.one_by_one(|watched, now| watched.replica.catch_up(now));
    }

    /// Litestream is stopped: no answer counts any more.
    fn stop_all(&mut self) {
        for watched in self.databases.iter_mut() {
            watched.replica.stops();
            watched.claim.interrupt();
        }
    }

    /// Does something about a database, if it is watched still.
    pub(super) fn of(&mut self, database: Database, act: impl FnOnce(&mut Watched, &mut Actions)) {
        if let Some(watched) = self.databases.get_mut(database) {
            act(watched, self.out);
        }
    }

    /// Tells a database, if it is watched still, what came of something that is tried again by chance.
    pub(super) fn tell(
        &mut self,
        database: Database,
        tell: impl FnOnce(&mut Watched, &mut Jitter, BootTime, &mut Outbox<'_>),
    ) {
        if let Some(watched) = self.databases.get_mut(database) {
            let mut out = watched.outbox(self.out);
            tell(watched, self.jitter, self.now, &mut out);
        }
    }

    /// All are proved at the pace that holds now.
    pub(super) fn keep_pace(&mut self) {
        let pace = self.paces.proof;
        self.one_by_one(|watched, now| watched.replica.keep_pace(pace, now));
    }

    fn one_by_one(&mut self, act: impl Fn(&mut Watched, BootTime)) {
        let mut wait = Duration::ZERO;
        for watched in self.databases.iter_mut() {
            act(watched, self.now + wait);
            wait = (wait + STAGGER).min(LONGEST_STAGGER);
        }
    }
}

#[derive(Debug)]
pub(super) struct Replicator {
    pub(super) process: Process,
    pub(super) thrift: Thrift,
    rescue: Rescue,
    socket: Socket,
    introduction: Introduction,
    pub(super) upload: Upload,
    /// A hand-over waits for the upload, until then.
    waits_until: Option<BootTime>,
    /// What is wrong with the process, or with all databases.
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
            thrift: Thrift::default(),
            rescue: Rescue::new(now),
            socket: Socket::Unknown,
            introduction: Introduction::Unmet,
            upload: Upload::default(),
            waits_until: None,
            last_trouble: None,
            stop_began: None,
            leaving: None,
            last_gap: None,
        }
    }

    /// New credentials arrived, valid for `term`.
    pub(super) fn renewed(&mut self, term: Term, turn: &mut Turn<'_>) {
        self.process.renewed(term);
        match self.process.phase {
            Phase::Idle if self.process.may_run_unheard() => self.prepare(turn),
            Phase::Idle | Phase::Waiting { .. } => self.start_or_idle(turn),
            Phase::Running if self.process.refreshes() => {
                let has_expired = !self.process.runs_with_credentials(turn.now);
                if has_expired {
                    for watched in turn.databases.iter_mut() {
                        watched.replica.ledger.excuse(turn.now);
                    }
                }
                self.process.refreshed(turn.now);
                self.last_gap = None;
                // What shows that they work is an upload: one more, unless that is more than the RPO asks for.
                let is_due = turn.paces.proof <= SHORTEST_SESSION || !turn.databases.follow();
                if has_expired || is_due && self.thrift.held_back().is_none() {
                    turn.catch_up();
                }
            }
            Phase::Running => self.hand_over(turn),
            // Every step that is under way leads to a start, and a start takes the newest credentials.
            Phase::Starting(_) | Phase::Preparing | Phase::Stopping(_) => {}
            Phase::Resetting { .. } | Phase::Down => {}
        }
    }

    /// The configuration was reloaded: it applies from the next hand-over on. If it names other databases
    /// than before, Litestream is restarted, which reads its configuration only at a start.
    pub(super) fn reloaded(&mut self, policy: &Policy, are_others: bool, turn: &mut Turn<'_>) {
        self.process.reloaded(policy.rotation);
        turn.keep_pace();
        if !are_others {
            return;
        }
        match &self.process.phase {
            Phase::Running if self.leaving.is_none() => self.hand_over(turn),
            // The steps under way are about the previous databases.
            Phase::Starting(start) if !start.is_launched() => {
                turn.out.push(Action::AbandonStart);
                turn.stop_all();
                self.start_or_idle(turn);
            }
            _ => {}
        }
    }

    pub(super) fn exited(&mut self, how: &str, turn: &mut Turn<'_>) {
        match &self.process.phase {
            Phase::Stopping(stop) => match stop.then {
                Then::Start => self.start_or_idle(turn),
                Then::Reset => self.drop_state(turn),
                Then::Exit => self.process.enter(Phase::Down, turn.now),
            },
            Phase::Running if self.leaving.is_some() => self.process.enter(Phase::Down, turn.now),
            Phase::Running | Phase::Preparing | Phase::Starting(_) => {
                self.process.ended(turn.now);
                self.waits_until = None;
                self.stop_began = Some(turn.now);
                for watched in turn.databases.iter_mut() {
                    watched.puts_snapshot_off(turn.now);
                }
                self.wait_to_start(format!("Litestream exited ({how})"), turn);
            }
            Phase::Idle | Phase::Waiting { .. } | Phase::Resetting { .. } | Phase::Down => {}
        }
    }

    pub(super) fn synced(
        &mut self,
        database: Database,
        result: Result<Answer, SyncFailure>,
        turn: &mut Turn<'_>,
    ) {
        let is_deaf = result == Err(SyncFailure::NoSocket);
        self.rescue.answered(is_deaf, turn.now);
        if result.is_ok() {
            self.introduction.meets(turn.now);
        }
        let followed = turn.databases.follow();
        let age = turn.now.since(self.process.since);
        let Some(watched) = turn.databases.get_mut(database) else {
            return;
        };
        let rows = watched.shows_rows(turn.has_rows);
        let socket = &mut self.socket;
        let asker = Asker {
            age,
            rows,
            pace: turn.paces.proof,
        };
        let verdict = watched
            .replica
            .answered(result, asker, socket, turn.jitter, turn.now);
        if let Some(verdict) = verdict {
            self.judge(database, verdict, followed, turn);
        }
        self.go_on_prepared(turn);
    }

    /// Litestream listed what it replicates.
    pub(super) fn listed(&mut self, turn: &mut Turn<'_>) {
        self.introduction.done(turn.databases.change, turn.now);
        // What it has begun to replicate by itself has to show that it follows, too.
        if matches!(self.process.phase, Phase::Running) {
            for watched in turn.databases.iter_mut() {
                watched.replica.joins(turn.now);
            }
        }
    }

    /// Litestream does not hang, and has a control socket.
    pub(super) fn greeted(&mut self) {
        self.socket = Socket::Seen;
        self.rescue.hears();
    }

    /// The local state of a database was dropped, or could not be.
    pub(super) fn reset(
        &mut self,
        database: Database,
        result: Result<bool, String>,
        turn: &mut Turn<'_>,
    ) {
        if !matches!(self.process.phase, Phase::Resetting { .. }) {
            return;
        }
        if let Some(watched) = turn.databases.get_mut(database) {
            match result {
                Ok(is_one_wal) => watched.replica.dropped(is_one_wal),
                Err(cause) => {
                    let mut out = watched.outbox(turn.out);
                    out.warn(format!(
                        "Litestream's local state could not be reset: {cause}"
                    ));
                    watched.replica.reset_failed(turn.now);
                }
            }
        }
        self.go_on_reset(turn);
    }

    /// The daemon ends; a second request shortens that.
    pub(super) fn stop(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        self.waits_until = None;
        let is_child = self.process.is_child();
        let may_wait = is_child && self.leaving.is_none();
        let has_credentials = self.process.has_credentials(now);
        let rescue = !self.process.runs_with_credentials(now) && has_credentials;
        let since = self.process.since;
        match &mut self.process.phase {
            // A Litestream that has not opened a database yet would end without a last sync of it.
            Phase::Running
                if may_wait && !turn.databases.follow() && now.since(since) < LEAVE_LIMIT =>
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
                false => self.abandon_to_end(turn),
            },
            Phase::Running | Phase::Preparing | Phase::Starting(_) if is_child => {
                self.stop_to(Then::Exit, turn);
            }
            Phase::Stopping(stop) => stop.leave(now),
            _ => self.process.enter(Phase::Down, now),
        }
    }

    /// Does what is due.
    pub(super) fn advance(&mut self, turn: &mut Turn<'_>) {
        self.leave(turn);
        if self.rescue_at(turn.databases) <= turn.now {
            self.begin_rescue(turn);
        }
        self.look_at_upload(turn);
        self.look_at_restores(turn);
        if matches!(self.process.phase, Phase::Running) {
            self.expire(turn);
            if self.introduced_at(turn.databases) <= turn.now {
                turn.out.extend(self.introduction.advance(turn.now));
            }
        }
        match &mut self.process.phase {
            Phase::Waiting { until } if *until <= turn.now => self.start_or_idle(turn),
            Phase::Starting(start) if start.deadline() <= turn.now => self.start_is_late(turn),
            Phase::Starting(_) => {
                self.look_ahead(turn);
                self.go_on_emptied(turn);
            }
            phase @ (Phase::Running | Phase::Preparing) => {
                let is_running = matches!(phase, Phase::Running);
                let asked = turn.databases.iter_mut();
                for watched in asked.filter(|w| !(is_running && w.is_away())) {
                    let rows = watched.shows_rows(turn.has_rows);
                    let request = watched.replica.advance(rows, turn.now);
                    turn.out.extend(request.map(|request| match request {
                        Request::Row => Action::WriteRow(watched.id()),
                        Request::Sync => Action::Sync(watched.id()),
                    }));
                }
                self.go_on_prepared(turn);
            }
            Phase::Stopping(stop) => turn.out.extend(stop.advance(turn.now)),
            Phase::Resetting { deadline } if *deadline <= turn.now => {
                turn.out.push(Action::AbandonStart);
                for watched in turn.databases.iter_mut() {
                    if watched.replica.is_dropping() {
                        watched.replica.reset_failed(turn.now);
                    }
                    if watched.restorable.is_making_snapshot() {
                        let late = Err("it took too long".to_owned());
                        watched.snapshotted(late, turn.now);
                    }
                }
                self.start_or_idle(turn);
            }
            _ => {}
        }
    }

    pub(super) fn deadline(&self, databases: &Databases) -> BootTime {
        let at = self.process.deadline();
        let limit = self.leaving.unwrap_or(BootTime::NEVER);
        let planned = self.looked_at(databases);
        let earliest = |of: &dyn Fn(&&Watched) -> bool| {
            let deadlines = databases.iter().filter(of).map(|w| w.replica.deadline());
            deadlines.min().unwrap_or(BootTime::NEVER)
        };
        let at_phase = match &self.process.phase {
            Phase::Running => earliest(&|w| !w.is_away())
                .min(self.mended_at(databases))
                .min(self.rescue_at(databases))
                .min(self.rescue.deadline())
                .min(self.introduced_at(databases))
                .min(self.upload_at(databases))
                .min(limit),
            Phase::Preparing => earliest(&|_| true),
            Phase::Starting(start) if self.process.is_child() && start.is_launched() => at,
            Phase::Starting(_) => at.min(limit).min(Self::goes_on_at(databases)),
            Phase::Resetting { .. } => at.min(limit).min(self.upload_at(databases)),
            // There is nothing to wait for.
            Phase::Idle | Phase::Waiting { .. } if self.is_leaving() => BootTime::default(),
            Phase::Idle | Phase::Waiting { .. } | Phase::Stopping(_) => at,
            Phase::Down => return at,
        };
        at_phase.min(planned)
    }

    /// Only the guard can keep the WAL from a reset before Litestream has read it.
    pub(super) fn leaves_wal_open(&self, replica: &Replica) -> bool {
        match &self.process.phase {
            Phase::Running | Phase::Preparing | Phase::Starting(_) => replica.leaves_wal_open(),
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

    /// The activity, beside the databases that it is judged by (`follow`), since when, and its trouble.
    pub(super) fn activity(&self, follow: bool) -> (Activity, BootTime, Option<&str>) {
        let activity = match &self.process.phase {
            Phase::Idle => Activity::WaitingForCredentials,
            Phase::Waiting { .. } => Activity::WaitingToRestart,
            Phase::Starting(_) => Activity::Starting,
            Phase::Running if follow => Activity::Replicating,
            Phase::Running => Activity::CatchingUp,
            Phase::Preparing | Phase::Stopping(_) => Activity::Stopping,
            Phase::Resetting { .. } => Activity::Resetting,
            Phase::Down => Activity::Stopped,
        };
        (activity, self.process.since, self.last_trouble.as_deref())
    }

    /// Ends the daemon as soon as Litestream has caught up, or when its last chance is over.
    fn leave(&mut self, turn: &mut Turn<'_>) {
        let Some(limit) = self.leaving else { return };
        match &self.process.phase {
            Phase::Running if turn.databases.follow() || limit <= turn.now => {
                self.stop_to(Then::Exit, turn);
            }
            Phase::Idle | Phase::Waiting { .. } => self.process.enter(Phase::Down, turn.now),
            // A child that was launched has to be stopped first: its start is confirmed at once.
            Phase::Starting(start) if self.process.is_child() && start.is_launched() => {}
            Phase::Starting(_) | Phase::Resetting { .. } if limit <= turn.now => {
                self.abandon_to_end(turn);
            }
            _ => {}
        }
    }

    /// Handles late answers.
    fn expire(&mut self, turn: &mut Turn<'_>) {
        let followed = turn.databases.follow();
        let late: Vec<_> = turn
            .databases
            .iter_mut()
            .filter(|watched| !watched.is_away())
            .filter_map(|watched| Some((watched.id(), watched.replica.expire(turn.now)?)))
            .collect();
        let is_late = !late.is_empty();
        for (database, verdict) in late {
            if !self.rescue.hangs() {
                self.judge(database, verdict, followed, turn);
            }
        }
        if is_late {
            self.rescue.ask(turn.now);
            turn.out.push(Action::Greet);
        }
        if self.rescue.expire(turn.now) {
            troubled(&mut self.last_trouble, HANGS.to_owned(), |text| {
                turn.out.warn(text);
            });
        }
    }

    /// The database that has waited longest for Litestream to follow, and since when.
    fn waits<'a>(&self, databases: &'a Databases) -> Option<(&'a Watched, BootTime)> {
        let behind = databases.iter().filter(|w| !w.follows());
        let since = behind.filter_map(|w| Some((w, w.replica.ledger.waits_since()?)));
        since.min_by_key(|(_, since)| *since)
    }

    /// When a Litestream that does not follow is restarted; never, if the credentials would expire
    /// before the start is over.
    fn rescue_at(&self, databases: &Databases) -> BootTime {
        if !matches!(self.process.phase, Phase::Running) || self.leaving.is_some() {
            return BootTime::NEVER;
        }
        let Some((_, since)) = self.waits(databases) else {
            return BootTime::NEVER;
        };
        let since = since.max(self.process.up_since);
        let at = self.rescue.due(since, &self.upload);
        match self.process.has_credentials(at) {
            true => at,
            false => BootTime::NEVER,
        }
    }

    /// When Litestream is asked what it replicates. It takes one such question at a time, and one that
    /// hangs, perhaps, has another one to answer.
    pub(super) fn introduced_at(&self, databases: &Databases) -> BootTime {
        let may_ask = !self.rescue.asks() && databases.iter().any(|w| w.replica.follows());
        match may_ask {
            true => self.introduction.deadline(),
            false => BootTime::NEVER,
        }
    }

    fn begin_rescue(&mut self, turn: &mut Turn<'_>) {
        if !self.process.has_credentials(turn.now) {
            // The device slept until they expired.
            return self.rescue.put_off(turn.now + LEAST_TERM);
        }
        let Some((watched, since)) = self.waits(turn.databases) else {
            return;
        };
        let trouble = watched.trouble.as_deref().or(self.last_trouble.as_deref());
        let text = format!(
            "Litestream has not confirmed for {} s that its replica follows; it is restarted once: {}",
            turn.now.since(since).as_secs(),
            trouble.unwrap_or(NO_REASON)
        );
        watched.outbox(turn.out).warn(text);
        self.rescue.begin(turn.now);
        self.prepare(turn);
    }

    fn prepare(&mut self, turn: &mut Turn<'_>) {
        self.waits_until = None;
        turn.one_by_one(Watched::prepare);
        // What has come since the last look is to be held, too.
        for watched in turn.databases.iter().filter(|w| w.is_away()) {
            turn.out.push(Action::LookForCommit(watched.id()));
        }
        self.process.enter(Phase::Preparing, turn.now);
    }

    /// Stops Litestream once each database is prepared for that.
    fn go_on_prepared(&mut self, turn: &mut Turn<'_>) {
        let is_due = matches!(self.process.phase, Phase::Preparing)
            && turn.databases.iter().all(|w| w.replica.is_prepared());
        if !is_due {
            return;
        }
        let may_reset = self.leaving.is_none();
        for watched in turn.databases.iter_mut() {
            if may_reset && watched.replica.ledger.is_broken() {
                watched.want_reset(turn.now);
            }
        }
        let stays_down = |w: &Watched| w.replica.wants_reset() || w.restorable.wants_snapshot();
        let resets = turn.databases.iter().any(stays_down);
        let then = match resets && may_reset {
            true => Then::Reset,
            false => Then::Start,
        };
        self.stop_to(then, turn);
    }

    fn stop_to(&mut self, then: Then, turn: &mut Turn<'_>) {
        let now = turn.now;
        self.waits_until = None;
        turn.stop_all();
        if then == Then::Start && !self.process.has_credentials(now) {
            // The device slept until they expired.
            if !self.process.is_ours() {
                return self.process.enter(Phase::Idle, now);
            }
            // The running Litestream is better than none.
            self.process.phase = Phase::Running;
            return turn.one_by_one(|watched, now| watched.replica.ask_now(now));
        }
        self.stop_began = Some(now);
        match (self.process.is_child(), then) {
            (true, _) => {
                self.process.stops(then, self.leaving.is_none(), now);
                turn.out.push(Action::Terminate);
            }
            (false, Then::Start) => self.start(turn),
            (false, Then::Reset) => self.drop_state(turn),
            (false, Then::Exit) => self.process.enter(Phase::Down, now),
        }
    }

    /// Has the local state dropped that is useless, and new snapshots made that are missing.
    fn drop_state(&mut self, turn: &mut Turn<'_>) {
        let snapshots = turn.databases.iter().any(|w| w.restorable.wants_snapshot());
        self.process.resets(snapshots, turn.now);
        // One that asks for them outlasts a session, as an upload over a slow line may.
        let rotation = self.process.rotation().unwrap_or(Rotation::Restart);
        for watched in turn.databases.iter_mut() {
            watched.replica.stops();
            let resets = watched.replica.wants_reset();
            if resets {
                watched.replica.drops_state();
                turn.out.push(Action::ResetState(watched.id()));
            }
            if watched.restorable.wants_snapshot() {
                // Dropped local state begins anew by itself, and a plan comes after that.
                watched.restorable.makes_snapshot(!resets);
                if resets {
                    watched.verification.begins_anew(turn.now);
                } else {
                    watched.begin_snapshot();
                    turn.out.push(Action::MakeSnapshot(watched.id(), rotation));
                }
            }
        }
    }

    /// Starts Litestream once nothing is left to do while it is stopped.
    fn go_on_reset(&mut self, turn: &mut Turn<'_>) {
        let is_busy = |w: &Watched| w.replica.is_dropping() || w.restorable.is_making_snapshot();
        if !turn.databases.iter().any(is_busy) {
            self.start_or_idle(turn);
        }
    }

    /// The daemon ends, and no process has to be stopped.
    fn abandon_to_end(&mut self, turn: &mut Turn<'_>) {
        turn.out.push(Action::AbandonStart);
        self.process.enter(Phase::Down, turn.now);
    }

    /// Acts on a verdict about a replica, when all of them `followed` until now, or not.
    fn judge(&mut self, database: Database, verdict: Verdict, followed: bool, turn: &mut Turn<'_>) {
        if followed && !matches!(verdict, Verdict::CaughtUp | Verdict::Unmeasured) {
            self.process.since = turn.now;
        }
        match verdict {
            Verdict::CaughtUp => self.caught_up(database, turn),
            Verdict::Unmeasured => {
                self.stop_began = None;
                self.trouble(database, NO_SOCKET.to_owned(), turn);
            }
            Verdict::StateUseless(cause) => self.useless(database, cause, turn),
            Verdict::Behind(Some(cause)) => self.trouble(database, cause, turn),
            Verdict::Behind(None) => {}
        }
    }

    /// Drops the local state of one database, unless that was tried lately without success, or the daemon
    /// ends: a reset may take longer than the end has. The others are prepared for the stop first.
    fn useless(&mut self, database: Database, cause: String, turn: &mut Turn<'_>) {
        let is_alone = turn.databases.has_one();
        let Some(watched) = turn.databases.get_mut(database) else {
            return;
        };
        if self.leaving.is_some() || !watched.want_reset(turn.now) {
            return self.trouble(database, cause, turn);
        }
        watched.outbox(turn.out).warn(format!(
            "{cause}; its local state is deleted, and replication continues from the replica"
        ));
        watched.trouble = Some(cause);
        match is_alone {
            true => self.stop_to(Then::Reset, turn),
            false => self.prepare(turn),
        }
    }

    fn trouble(&mut self, database: Database, cause: String, turn: &mut Turn<'_>) {
        if let Some(watched) = turn.databases.get_mut(database) {
            let mut out = watched.outbox(turn.out);
            troubled(&mut watched.trouble, cause, |text| out.warn(text));
        }
    }

    /// The replica was proved to hold everything.
    fn caught_up(&mut self, database: Database, turn: &mut Turn<'_>) {
        self.rescue.works(turn.now);
        let mut gap = None;
        if turn.databases.follow() {
            gap = self.stop_began.take().map(|began| turn.now.since(began));
            self.last_gap = gap.or(self.last_gap);
            self.rescue.mended(turn.now);
            self.upload.is_over();
        }
        let Some(watched) = turn.databases.get_mut(database) else {
            return;
        };
        let mended = watched.trouble.take().is_some() | self.last_trouble.take().is_some();
        if watched.replica.caught_up(turn.now) || mended {
            let gap = gap.map_or(String::new(), |gap| {
                format!(" after a gap of {} ms", gap.as_millis())
            });
            let txid = watched.replica.ledger.known().last.unwrap_or_default();
            watched.outbox(turn.out).info(format!(
                "Litestream replicates{gap}: its replica holds transaction {txid}"
            ));
        }
    }
}

/// Keeps what is wrong, and tells it where it is news.
fn troubled(known: &mut Option<String>, cause: String, mut tell: impl FnMut(String)) {
    if known.as_ref() != Some(&cause) {
        tell(format!("Litestream has not caught up: {cause}"));
    }
    *known = Some(cause);
}
