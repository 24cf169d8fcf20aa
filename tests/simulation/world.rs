//! The world around one agent: a device, its network, AWS, and the people who own it.
//!
//! Owns true time, and the order in which things happen. Performs the agent's actions as the reactor
//! would, each by the part of the world that it is for, and tells the agent what came of them. Never
//! judges what the agent does: that is for the laws, which are shown each step.
//!
//! Its parts: `device` (power and clocks), `weather` (what fails by itself, and for how long), `cloud`
//! (AWS and the key), `bucket` (what a restore would find), `line` (uploads that take hours), `litestream`, `replica` (Litestream's files and what they are worth), `database`
//! (the application's side), `verification` (what a verify shows), `operator` (who reloads, ends and starts
//! edgerepl).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use edgerepl::agent::{Action, Agent, Database as Id, Event, Now, Policy, SupervisorKind, Watch};
use edgerepl::clock::{BootTime, WallTime};
use edgerepl::config::Rotation;
use edgerepl::litestream::answer::Commit;

use crate::chance::Chance;
use crate::coverage::{Coverage, Happening};
use crate::faults::{Fault, Faults};
use crate::laws::{Laws, Record, Sight, Step, Violation, follows};

mod bucket;
mod cloud;
mod database;
mod device;
mod line;
mod litestream;
mod operator;
mod replica;
mod verification;
mod weather;

use cloud::Cloud;
use database::Database;
use device::Device;
use litestream::Litestream;
use weather::{Part, Weather};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// True time: since the world began.
pub(crate) type Time = Duration;

/// One look in so many asks for the words, too.
const REPORTS: u64 = 64;

/// What the world has coming. Where a process is meant, the number says which: news of one that is
/// gone is no news.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Coming {
    Wake,
    FetchEnds(u64),
    LookEnds(u64),
    LitestreamDies(u64),
    LitestreamExits(u64),
    LitestreamHangs(u64),
    UnitRestarted(u64),
    SyncEnds(u64),
    ResetEnds(u64),
    SurveyEnds(u64),
    EmptyingEnds(u64),
    LookAheadEnds(u64),
    PlanEnds(u64),
    SnapshotEnds(u64),
    VerifyEnds(u64),
    Weather(Part),
    ClockStep,
    ClockMended,
    /// The application of the database of that number checkpoints,
    Checkpoint(usize),
    /// or commits something.
    Write(usize),
    /// The guard's look at the WAL's size.
    GuardLook(usize),
    /// Something happens to Litestream's local state.
    Hurt,
    /// or in the bucket of the database of that number,
    BucketHurt(usize),
    /// Litestream can't compact what is in it.
    Complains(usize),
    RuleDeletes(usize),
    ListsAllowed(usize),
    StrangerGoes(usize),
    PowerCut,
    Sleep,
    Reload,
    PlannedReload,
    /// Somebody wants everything to be uploaded.
    SyncWanted,
    /// Somebody wants uploads to wait, or not to.
    PauseWanted(bool),
    /// And so many more.
    ReloadStorm(u32),
    /// Somebody restores the database of that number.
    Restored(usize),
    Shutdown,
    DaemonKilled,
    DaemonStarts,
}

/// How many databases a device has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Crowd {
    One,
    Several,
}

/// What came of a life.
pub(crate) struct Life {
    pub(crate) lived: Time,
    pub(crate) coverage: Coverage,
    laws: Vec<Laws>,
}

pub(crate) struct World {
    chance: Chance,
    faults: Faults,
    loud: bool,
    time: Time,
    end: Time,
    lives_briefly: bool,
    device: Device,
    weather: Weather,
    cloud: Cloud,
    litestream: Litestream,
    /// What this device's Litestream understands, and what it is told.
    understands: Rotation,
    plans_restores: bool,
    yaml_is_unreadable: bool,
    /// The databases that the agent was told of by edgerepl's configuration.
    told: Vec<Watch>,
    databases: Vec<Database>,
    /// When others were last named than before, by whatever configuration.
    set_changed: Time,
    /// The daemon starts, and is told of databases that are not new to it.
    starts: bool,
    /// There is a folder in which edgerepl can leave something for the next boot.
    keeps_state: bool,
    /// edgerepl is told whether its line is metered.
    knows_line: bool,
    policy: Policy,
    agent: Agent,
    /// There is a daemon.
    runs: bool,
    /// What the agent is about to be told.
    news: VecDeque<Event>,
    processes: u64,
    coming: BinaryHeap<Reverse<(Time, u64, Coming)>>,
    order: u64,
    looks: u64,
    /// Of each database: each obeys them as if it were alone.
    laws: Vec<Laws>,
    coverage: Coverage,
}

impl Life {
    /// The first law that was broken.
    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.laws.iter().find_map(Laws::violation)
    }

    /// For how long databases were watched, added up.
    pub(crate) fn watched(&self) -> Time {
        self.laws.iter().map(Laws::watched).sum()
    }

    /// Of each law, in their order.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut sum: Vec<Record> = Vec::new();
        for records in self.laws.iter().map(Laws::records) {
            match sum.is_empty() {
                true => sum = records,
                false => sum.iter_mut().zip(&records).for_each(|(sum, more)| {
                    sum.applied += more.applied;
                    sum.tests += more.tests;
                }),
            }
        }
        sum
    }
}

/// The number of a database, for the agent.
fn id(number: usize) -> Id {
    Id(number as u16)
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults, crowd: Crowd, loud: bool) -> Self {
        let mut chance = Chance::new(seed);
        let policy = operator::policy(&mut chance);
        let count = match crowd {
            Crowd::One => 1,
            Crowd::Several => chance.pick(&[2, 3, 4, 5]),
        };
        let lives_briefly = operator::is_busy(&policy);
        // Those without rows are looked at each half minute.
        let days = match (lives_briefly, count) {
            (true, _) => 1,
            (false, 1) => chance.pick(&[30, 100, 365, 1000]),
            (false, _) => chance.pick(&[1, 3]),
        };
        let lifetime = chance.pick(&[900 * SECOND, HOUR, HOUR, 6 * HOUR, 12 * HOUR, 12 * HOUR]);
        let mut world = Self {
            cloud: Cloud::new(lifetime, chance.next() as u16),
            understands: match policy.rotation {
                Some(Rotation::Refresh) => Rotation::Refresh,
                _ => chance.pick(&[Rotation::Restart, Rotation::Refresh]),
            },
            plans_restores: !chance.one_in(16),
            faults,
            loud,
            time: Duration::ZERO,
            end: DAY * days,
            lives_briefly,
            device: Device {
                booted: Duration::ZERO,
                awake_at: Duration::ZERO,
                wall_offset: 0,
            },
            weather: Weather::FINE,
            litestream: Litestream::new(),
            yaml_is_unreadable: false,
            told: Vec::new(),
            databases: (0..count).map(|_| Database::new(false)).collect(),
            set_changed: Duration::ZERO,
            starts: false,
            keeps_state: !chance.one_in(4),
            knows_line: chance.one_in(2),
            agent: Agent::new(policy.clone(), 0, AT_FIRST),
            runs: false,
            news: VecDeque::new(),
            processes: 0,
            coming: BinaryHeap::new(),
            order: 0,
            looks: 0,
            laws: (0..count).map(|_| Laws::new()).collect(),
            coverage: Coverage::new(),
            policy,
            chance,
        };
        world.furnish();
        world.expect_faults();
        world.boot();
        world
    }

    fn expect_faults(&mut self) {
        for (part, fault) in Part::ALL {
            if self.faults.has(fault) {
                self.expect_weather(part, true);
            }
        }
        for (fault, coming, least, most) in [
            (Fault::ClockSteps, Coming::ClockStep, DAY, 60 * DAY),
            (Fault::PowerCuts, Coming::PowerCut, HOUR, 60 * DAY),
            (Fault::Sleeps, Coming::Sleep, HOUR, 60 * DAY),
            (Fault::Reloads, Coming::PlannedReload, HOUR, 90 * DAY),
            (Fault::Wounds, Coming::Hurt, HOUR, 60 * DAY),
        ] {
            if self.faults.has(fault) {
                self.expect_sometime(coming, least, most);
            }
        }
        self.expect_sometime(Coming::SyncWanted, MINUTE, 30 * DAY);
        self.expect_sometime(Coming::PauseWanted(true), MINUTE, 60 * DAY);
        for number in 0..self.databases.len() {
            self.expect_sometime(Coming::Checkpoint(number), SECOND, DAY);
            self.expect_sometime(Coming::Write(number), SECOND, DAY);
            if self.faults.has(Fault::Bucket) {
                self.expect_sometime(Coming::BucketHurt(number), HOUR, 60 * DAY);
            }
        }
    }

    /// What there is on the device, and who knows of it.
    fn furnish(&mut self) {
        for number in 0..self.databases.len() {
            let (is_first, is_listed) = (number == 0, self.chance.one_in(2));
            let is_replicated = self.chance.one_in(4);
            let is_there = self.chance.one_in(2);
            let takes_rows = self.chance.one_in(4);
            let database = &mut self.databases[number];
            database.is_configured = is_first || is_listed;
            database.is_in_yaml = database.is_configured || is_replicated;
            database.takes_rows = is_first || takes_rows;
            // A device that is new has none: edgerepl makes it where it takes rows, or its application.
            database.there = is_there;
        }
        self.configure();
    }

    /// Lives to the end, or until a law is broken.
    pub(crate) fn live(mut self) -> Life {
        while let Some(Reverse((time, _, coming))) = self.coming.pop() {
            if time >= self.end || self.laws.iter().any(|laws| laws.violation().is_some()) {
                break;
            }
            // What would have happened while the device slept happens when it wakes.
            self.time = time.max(self.device.awake_at);
            self.happen(coming);
        }
        Life {
            lived: self.time,
            coverage: self.coverage,
            laws: self.laws,
        }
    }

    fn happen(&mut self, coming: Coming) {
        match coming {
            Coming::Wake => {
                let is_due = self.now().boot >= self.agent.deadline();
                if is_due {
                    self.tell(Event::Tick);
                }
            }
            Coming::FetchEnds(process) if self.cloud.fetch == Some(process) => self.end_fetch(),
            Coming::LookEnds(process) => self.end_look(process),
            Coming::LitestreamDies(process) if self.child_is_up(process) => {
                self.coverage.happened(Happening::Death);
                self.litestream_exits();
            }
            Coming::LitestreamExits(process) if self.child_is_up(process) => {
                self.litestream_exits();
            }
            Coming::LitestreamHangs(process) if self.litestream.process == process => {
                self.coverage.happened(Happening::Hang);
                self.litestream.stuck = true;
            }
            Coming::UnitRestarted(process) if self.litestream.process == process => {
                self.unit_restarted();
            }
            Coming::SyncEnds(request) => self.end_sync(request),
            Coming::ResetEnds(process) => self.end_reset(process),
            Coming::SurveyEnds(process) => self.end_survey(process),
            Coming::EmptyingEnds(process) => self.end_emptying(process),
            Coming::LookAheadEnds(process) => self.end_look_ahead(process),
            Coming::PlanEnds(process) => self.end_plan(process),
            Coming::SnapshotEnds(process) => self.end_snapshot(process),
            Coming::VerifyEnds(process) => self.end_verify(process),
            Coming::Weather(part) => self.change_weather(part),
            Coming::ClockStep => self.step_clock(),
            Coming::ClockMended => self.set_clock(0),
            Coming::Checkpoint(number) => self.checkpoint(number),
            Coming::Write(number) => self.write(number),
            Coming::GuardLook(number) => self.look_at_wal(number),
            Coming::Hurt => self.hurt(),
            Coming::BucketHurt(number) => self.hurt_bucket(number),
            Coming::Complains(number) => self.complains(number),
            Coming::RuleDeletes(number) => self.delete_by_rule(number),
            Coming::ListsAllowed(number) => self.allow_lists(number),
            Coming::StrangerGoes(number) => self.stranger_goes(number),
            Coming::PowerCut => self.cut_power(),
            Coming::Sleep => self.sleep(),
            Coming::Reload => self.reload(),
            Coming::SyncWanted => {
                self.tell(Event::SyncWanted);
                self.expect_sometime(Coming::SyncWanted, MINUTE, 30 * DAY);
            }
            Coming::PauseWanted(is_wanted) => {
                self.tell(Event::PauseWanted(is_wanted));
                let longest = match is_wanted {
                    true => 2 * DAY,
                    false => 60 * DAY,
                };
                self.expect_sometime(Coming::PauseWanted(!is_wanted), MINUTE, longest);
            }
            Coming::PlannedReload => self.reload_by_plan(),
            Coming::ReloadStorm(more) => self.reload_in_a_storm(more),
            Coming::Restored(number) => {
                self.coverage.happened(Happening::DatabaseRestored);
                self.databases[number].there = true;
                self.look_in();
            }
            Coming::Shutdown => self.end_daemon(),
            Coming::DaemonKilled => self.kill_daemon(),
            Coming::DaemonStarts => self.start_daemon_again(),
            // Of a process or a request that is gone.
            _ => {}
        }
    }

    /// Tells the agent something, does what it says, tells it what came of that at once.
    fn tell(&mut self, event: Event) {
        self.news.push_back(event);
        let now = self.now();
        while let Some(event) = self.news.pop_front().filter(|_| self.runs) {
            if self.loud {
                println!("{:>14.3} {event:?}", self.time.as_secs_f64());
            }
            self.coverage.event(&event);
            if let Event::Reloaded(policy) = &event {
                self.told.clone_from(&policy.databases);
            }
            self.observe(&Step::Event(&event));
            let actions = self.agent.handle(event, now);
            for action in actions {
                if self.loud {
                    println!("{:>14.3}     {action:?}", self.time.as_secs_f64());
                }
                self.coverage.action(&action);
                if is_judged(&action) {
                    self.observe(&Step::Action(&action));
                }
                self.may_interrupt(&action);
                self.perform(action);
            }
        }
        self.news.clear();
        if !self.runs {
            return;
        }
        let deadline = self.agent.deadline();
        let is_due = deadline <= now.boot;
        self.observe(&Step::Turned { is_due });
        self.look_in();
        if deadline != BootTime::NEVER {
            let when = self.device.booted + deadline.since_boot();
            self.push(when, Coming::Wake);
        }
    }

    fn perform(&mut self, action: Action) {
        let number = |id: Id| usize::from(id.0);
        match action {
            Action::Fetch => self.start_fetch(),
            Action::KillFetch => self.kill_fetch(),
            Action::AbandonFetch => self.cloud.fetch = None,
            Action::Probe => self.probe(),
            Action::Understand => self.understand(),
            Action::Start(rotation) => self.start(rotation),
            Action::AbandonStart => {
                self.litestream.process = self.new_process();
                self.litestream.restarts = false;
                self.abandon_snapshots();
                self.databases.iter_mut().for_each(Database::abandons_start);
            }
            Action::Survey(of) => self.start_survey(number(of)),
            Action::AskRowBefore(of, _) => {
                let before = self.row_before(number(of));
                self.news.extend(before);
            }
            Action::Terminate => self.terminate_litestream(),
            Action::Kill => self.kill_litestream(),
            Action::Sync(of) => self.start_sync(number(of)),
            Action::Greet => self.greet(),
            Action::List => self.list(),
            Action::EmptyWal(of) => self.start_emptying(number(of)),
            Action::ResetState(of) => self.start_reset(number(of)),
            Action::LookAhead(of) => self.start_look_ahead(number(of)),
            Action::AbandonLookAhead(of) => self.databases[number(of)].bucket.ahead = None,
            Action::PlanRestore(of) => self.start_plan(number(of)),
            Action::AbandonPlan(of) => self.databases[number(of)].bucket.plan = None,
            Action::MeasureUpload => self.measure_upload(),
            Action::MakeSnapshot(of, _) => self.start_snapshot(number(of)),
            Action::Verify(of) => self.start_verify(number(of)),
            Action::AbandonVerify(of) => self.databases[number(of)].verify = None,
            Action::WriteRow(to) => {
                let event = if !self.weather.disk {
                    Event::Row(to, Err("it is locked".to_owned()))
                } else if !self.databases[number(to)].there {
                    Event::DatabaseMissing(to)
                } else {
                    self.written(to)
                };
                self.news.push_back(event);
            }
            Action::WriteFirstRow(to) => {
                let event = if self.weather.disk {
                    if !std::mem::replace(&mut self.databases[number(to)].there, true) {
                        self.coverage.happened(Happening::DatabaseMade);
                    }
                    self.written(to)
                } else {
                    Event::Row(to, Err("it is locked".to_owned()))
                };
                self.news.push_back(event);
            }
            Action::LookForCommit(of) => {
                let commits = self.databases[number(of)].commits;
                let is_read = self.weather.disk || self.chance.one_in(2);
                self.news.push_back(match self.databases[number(of)].there {
                    false if self.weather.disk => Event::DatabaseMissing(of),
                    _ => Event::LastCommit(of, is_read.then(|| last_commit(commits))),
                });
            }
            Action::LookForReplica(of) => self.start_look(number(of)),
            Action::AbandonLook(of) => self.databases[number(of)].look = None,
            Action::TakeGuard(of) => {
                let there = self.databases[number(of)].there;
                let taken = there && (self.weather.disk || self.chance.one_in(2));
                self.databases[number(of)].guard = taken;
                let is_all_in_database = self.chance.one_in(8);
                let database = &mut self.databases[number(of)];
                database.guard_pins = database.has_just_a_row(self.time) || !is_all_in_database;
                if taken {
                    self.expect(Coming::GuardLook(number(of)), SECOND);
                }
                let result = taken.then_some(()).ok_or("the disk is gone".to_owned());
                self.news.push_back(Event::GuardTaken(of, result));
            }
            Action::ReleaseGuard(of) => self.databases[number(of)].guard = false,
            Action::AbandonGuard(of) => {
                self.databases[number(of)].guard = false;
                self.start_emptying(number(of));
            }
            Action::Recall(of) => self.recall(number(of)),
            Action::Remember(of, legacy) => self.remember(number(of), legacy),
            Action::Exit => self.daemon_is_gone(),
            Action::Prune(_) | Action::Log(..) => {}
        }
    }

    fn written(&mut self, to: Id) -> Event {
        Event::Row(to, Ok(self.write_row(usize::from(to.0))))
    }

    /// At any time, whether something happened or not.
    fn look_in(&mut self) {
        if !self.runs {
            return;
        }
        let now = self.now();
        let device_is_healthy = self.agent.glance(now).is_healthy;
        for number in 0..self.databases.len() {
            let step = match self.agent.glance_at(id(number), now) {
                Some(glance) => Step::Look(glance),
                None if self.databases[number].is_listed && self.litestream.up => Step::Ignored,
                None => continue,
            };
            if let Step::Look(glance) = &step {
                let proved = glance.proof.map(|proof| proof.age);
                let shown = match self.shows_rows(number) {
                    true => proved,
                    false => proved.and(glance.unproved_for),
                };
                let followed = &mut self.databases[number].followed;
                *followed = (*followed).max(self.time.saturating_sub(shown.unwrap_or(self.time)));
            }
            self.observe_at(number, &step, device_is_healthy);
        }
        self.looks += 1;
        if self.looks.is_multiple_of(REPORTS) {
            let report = self.agent.report(now);
            let first = report
                .first()
                .map_or(0, |first| usize::from(first.database.0));
            self.observe_at(first, &Step::Report(&report), device_is_healthy);
        }
    }

    /// Shows a step to the laws of each database that it concerns.
    fn observe(&mut self, step: &Step<'_>) {
        let about = step.about();
        for number in 0..self.databases.len() {
            let concerns = about.is_none_or(|database| database == id(number));
            let begins = matches!(step, Step::Begins);
            if concerns && (begins || self.agent.watches(id(number))) {
                // What the agent says of itself counts at a look alone.
                self.observe_at(number, step, false);
            } else if concerns {
                let sight = self.sight(number, false);
                self.laws[number].overhear(step, sight, self.time);
            }
        }
    }

    fn observe_at(&mut self, number: usize, step: &Step<'_>, device_is_healthy: bool) {
        let mut sight = self.sight(number, device_is_healthy);
        if let Step::Action(Action::Terminate | Action::Survey(_)) = step {
            // It is about to be stopped for what the agent alone knows.
            sight.any_is_hurt |= self.agent.glance(self.now()).is_broken;
        }
        if let Step::Action(Action::Verify(of)) = step {
            let glance = self.agent.glance_at(*of, self.now());
            sight.is_followed = glance.is_some_and(|glance| follows(&glance));
        }
        self.laws[number].observe(step, sight, self.time);
    }

    fn observe_begin(&mut self) {
        self.observe(&Step::Begins);
    }

    fn observe_wal_reset(&mut self, number: usize) {
        if self.agent.watches(id(number)) {
            self.observe_at(number, &Step::WalReset, false);
        }
    }

    fn sight(&self, number: usize, device_is_healthy: bool) -> Sight {
        let litestream = &self.litestream;
        let database = &self.databases[number];
        let rows = self.shows_rows(number);
        let is_there = database.there;
        let is_new = database.replica.is_empty();
        let watched = || {
            let all = self.databases.iter().enumerate();
            all.filter(|(number, _)| self.agent.watches(id(*number)))
        };
        Sight {
            generation: database.generation,
            device_is_healthy,
            rpo: Some((self.policy.rpo, self.policy.rpo_metered)),
            heartbeat: self.policy.heartbeat.filter(|_| rows),
            wants_guard: self
                .told
                .iter()
                .find(|watch| watch.database == id(number))
                .is_none_or(|watch| watch.wal_guard.is_some()),
            litestream_is_child: self.policy.supervisor == SupervisorKind::Child,
            litestream_is_up: litestream.up,
            litestream_asks: litestream.asks() && self.policy.rotation != Some(Rotation::Restart),
            litestream_is_stuck: litestream.stuck,
            litestream_serves_it: database.is_served,
            stop_was_asked: litestream.terminated > 0,
            state_is_corrupt: database.corrupt,
            wal_stays: database.wal_stays,
            files_are_hurt: database.is_hurt(),
            has_siblings: watched().count() > 1,
            any_is_hurt: watched().any(|(_, other)| other.corrupt || other.is_hurt()),
            least_followed: watched()
                .map(|(_, other)| other.followed)
                .min()
                .unwrap_or_default(),
            set_changed: self.set_changed,
            wal_is_passed_over: database.is_in_yaml && database.replica.passes_over(),
            guard_is_held: database.guard,
            disk_is_well: self.weather.disk && is_there,
            clock_is_right: self.device.wall_offset.unsigned_abs() < 300,
            clock_is_doubted: self.cloud.clock_is_doubted,
            is_fine: self.weather.is_fine()
                && (is_there || is_new && rows)
                && litestream.upload.is_none(),
            is_fine_beside_upload: self.weather.is_fine() && is_there,
            upload_moves_since: self.moving_since(),
            upload_stands: self.upload_stands(),
            litestream_credentials_end: litestream.credentials_end(),
            fetch_is_in_flight: self.cloud.fetch.is_some(),
            granted_until: self.cloud.granted_until,
            database_is_there: is_there,
            replica_is_there: !is_new,
            oldest_missing: database.oldest_missing(rows),
            oldest_lost: database.oldest_missing(false),
            restorable_row: database.restorable_row,
            is_blind: database.is_blind,
            damage_is_remembered: database.begins_anew,
            pace: self.policy.restorable,
            chain_is_broken: database.bucket.is_broken(),
            stranger_came: database.bucket.stranger_came,
            lists_work: self.plans_restores && !database.bucket.refuses_lists,
            plan_is_under_way: database.bucket.plan.is_some(),
            snapshot_is_under_way: database.bucket.snapshot.is_some(),
            any_snapshot_is_under_way: self.databases.iter().any(|d| d.bucket.snapshot.is_some()),
            any_awaits_snapshot: watched().any(|(number, _)| self.laws[number].awaits_snapshot()),
            unit_restarts: litestream.restarts,
            loss_is_remembered: database.is_unrestorable,
            verify_pace: self.policy.verify,
            verify_is_under_way: database.verify.is_some(),
            any_verify_is_under_way: self.databases.iter().any(|d| d.verify.is_some()),
            is_followed: false,
            difference_is_remembered: database.differs,
            remembered: database
                .remembered
                .map(|since| since.map(|since| self.device.booted + since.since_boot())),
        }
    }

    /// The database for which `process` is under way, and not any more.
    fn number_of(
        &mut self,
        field: impl Fn(&mut Database) -> &mut Option<u64>,
        process: u64,
    ) -> Option<usize> {
        self.databases
            .iter_mut()
            .position(|database| field(database).take_if(|known| *known == process).is_some())
    }

    /// Whether a fault strikes that this life has.
    fn strikes(&mut self, fault: Fault, one_in: u64) -> bool {
        self.faults.has(fault) && self.chance.one_in(one_in)
    }

    fn new_process(&mut self) -> u64 {
        self.processes += 1;
        self.processes
    }

    fn expect(&mut self, coming: Coming, wait: Duration) {
        self.push(self.time + wait, coming);
    }

    fn expect_sometime(&mut self, coming: Coming, least: Duration, most: Duration) {
        let wait = self.chance.scale(least, most);
        self.expect(coming, wait);
    }

    fn push(&mut self, when: Time, coming: Coming) {
        self.order += 1;
        self.coming.push(Reverse((when, self.order, coming)));
    }
}

/// Of the others no law speaks, and most of what a device does is one of them.
fn is_judged(action: &Action) -> bool {
    !matches!(
        action,
        Action::Log(..)
            | Action::Remember(..)
            | Action::Recall(_)
            | Action::WriteRow(_)
            | Action::Sync(_)
            | Action::LookForCommit(_)
            | Action::MeasureUpload
            | Action::List
    )
}

const AT_FIRST: Now = Now {
    boot: BootTime::new(Duration::ZERO),
    wall: WallTime::from_unix(0),
};

/// The last one of so many commits, each a mebibyte of the WAL.
fn last_commit(commits: u64) -> Commit {
    Commit {
        mark: commits,
        wal: 0,
        bytes: commits << 20,
    }
}
