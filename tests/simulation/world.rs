//! The world around one agent: a device, its network, AWS, and the people who own it.
//!
//! Owns true time, and the order in which things happen. Performs the agent's actions as the reactor
//! would, each by the part of the world that it is for, and tells the agent what came of them. Never
//! judges what the agent does: that is for the laws, which are shown each step.
//!
//! Its parts: `device` (power and clocks), `weather` (what fails by itself, and for how long), `cloud`
//! (AWS and the key), `litestream`, `replica` (Litestream's files and what they are worth), `database`
//! (the application's side), `operator` (who reloads, ends and starts edgerepl).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use edgerepl::agent::{Action, Agent, Event, Now, Policy, SupervisorKind};
use edgerepl::clock::{BootTime, WallTime};
use edgerepl::config::Rotation;

use crate::chance::Chance;
use crate::coverage::{Coverage, Happening};
use crate::faults::{Fault, Faults};
use crate::laws::{Laws, Sight, Step};

mod cloud;
mod database;
mod device;
mod litestream;
mod operator;
mod replica;
mod weather;

use cloud::Cloud;
use database::Database;
use device::Device;
use litestream::Litestream;
use operator::Configuration;
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
    Weather(Part),
    ClockStep,
    ClockMended,
    Checkpoint,
    /// The application commits something.
    Write,
    /// The guard's look at the WAL's size.
    GuardLook,
    /// Something happens to Litestream's local state.
    Hurt,
    PowerCut,
    Sleep,
    Reload,
    PlannedReload,
    /// And so many more.
    ReloadStorm(u32),
    /// Somebody restores the database of that number.
    Restored(usize),
    Shutdown,
    DaemonKilled,
    DaemonStarts,
}

/// What came of a life.
pub(crate) struct Life {
    pub(crate) lived: Time,
    pub(crate) coverage: Coverage,
    pub(crate) laws: Laws,
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
    configuration: Configuration,
    /// A configuration named another database since Litestream was started.
    may_have_neighbour: bool,
    databases: [Database; 2],
    /// The number of the one that edgerepl watches.
    watched: usize,
    guard: bool,
    /// There is a folder in which edgerepl can leave something for the next boot.
    keeps_state: bool,
    /// The WAL was to be emptied, and could not be.
    wal_stays: bool,
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
    laws: Laws,
    coverage: Coverage,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults, loud: bool) -> Self {
        let mut chance = Chance::new(seed);
        let policy = operator::policy(&mut chance);
        let lives_briefly = operator::is_busy(&policy);
        let days = match lives_briefly {
            true => 1,
            false => chance.pick(&[30, 100, 365, 1000]),
        };
        let lifetime = chance.pick(&[900 * SECOND, HOUR, HOUR, 6 * HOUR, 12 * HOUR, 12 * HOUR]);
        // A device that is new has none, and where nobody else makes it edgerepl does.
        let is_there = policy.heartbeat.is_none() || chance.one_in(2);
        let mut world = Self {
            cloud: Cloud::new(lifetime, chance.next() as u16),
            understands: match policy.rotation {
                Some(Rotation::Refresh) => Rotation::Refresh,
                _ => chance.pick(&[Rotation::Restart, Rotation::Refresh]),
            },
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
            configuration: Configuration::Plain,
            may_have_neighbour: false,
            databases: [Database::new(is_there), Database::new(chance.one_in(2))],
            watched: 0,
            guard: false,
            keeps_state: !chance.one_in(4),
            wal_stays: false,
            agent: Agent::new(policy.clone(), 0, AT_FIRST),
            runs: false,
            news: VecDeque::new(),
            processes: 0,
            coming: BinaryHeap::new(),
            order: 0,
            looks: 0,
            laws: Laws::new(),
            coverage: Coverage::new(),
            policy,
            chance,
        };
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
        self.expect_sometime(Coming::Checkpoint, SECOND, DAY);
        self.expect_sometime(Coming::Write, SECOND, DAY);
    }

    /// Lives to the end, or until a law is broken.
    pub(crate) fn live(mut self) -> Life {
        while let Some(Reverse((time, _, coming))) = self.coming.pop() {
            if time >= self.end || self.laws.violation().is_some() {
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
            Coming::Weather(part) => self.change_weather(part),
            Coming::ClockStep => self.step_clock(),
            Coming::ClockMended => self.set_clock(0),
            Coming::Checkpoint => self.checkpoint(),
            Coming::Write => self.write(),
            Coming::GuardLook => self.look_at_wal(),
            Coming::Hurt => self.hurt(),
            Coming::PowerCut => self.cut_power(),
            Coming::Sleep => self.sleep(),
            Coming::Reload => self.reload(),
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
            self.observe(&Step::Event(&event));
            let actions = self.agent.handle(event, now);
            for action in actions {
                if self.loud {
                    println!("{:>14.3}     {action:?}", self.time.as_secs_f64());
                }
                self.coverage.action(&action);
                if !matches!(action, Action::Log(..) | Action::Remember(..)) {
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
        match action {
            Action::Fetch => self.start_fetch(),
            Action::KillFetch => self.kill_fetch(),
            Action::AbandonFetch => self.cloud.fetch = None,
            Action::Probe => self.probe(),
            Action::Start(rotation) => self.start(rotation),
            Action::AbandonStart => {
                self.litestream.process = self.new_process();
                self.litestream.abandons_start();
            }
            Action::Survey => self.start_survey(),
            Action::AskRowBefore(_) => {
                let before = self.row_before();
                self.news.extend(before);
            }
            Action::Terminate => self.terminate_litestream(),
            Action::Kill => self.kill_litestream(),
            Action::Sync => self.start_sync(),
            Action::Greet => self.greet(),
            Action::List => self.list(),
            Action::EmptyWal => self.start_emptying(),
            Action::ResetState => self.start_reset(),
            Action::WriteRow => {
                let event = if !self.weather.disk {
                    Event::Row(Err("it is locked".to_owned()))
                } else if !self.watched().there {
                    Event::DatabaseMissing
                } else {
                    self.written()
                };
                self.news.push_back(event);
            }
            Action::WriteFirstRow => {
                let event = if self.weather.disk {
                    if !std::mem::replace(&mut self.watched_mut().there, true) {
                        self.coverage.happened(Happening::DatabaseMade);
                    }
                    self.written()
                } else {
                    Event::Row(Err("it is locked".to_owned()))
                };
                self.news.push_back(event);
            }
            Action::LookForReplica => self.start_look(),
            Action::AbandonLook => self.cloud.look = None,
            Action::TakeGuard => {
                let there = self.watched().there;
                let taken = there && (self.weather.disk || self.chance.one_in(2));
                self.guard = taken;
                if taken {
                    self.expect(Coming::GuardLook, SECOND);
                }
                let result = taken.then_some(()).ok_or("the disk is gone".to_owned());
                self.news.push_back(Event::GuardTaken(result));
            }
            Action::ReleaseGuard => self.guard = false,
            Action::AbandonGuard => {
                self.guard = false;
                self.start_emptying();
            }
            Action::Remember(path, legacy) => self.remember(&path, legacy),
            Action::Exit => self.daemon_is_gone(),
            Action::Prune | Action::Log(..) => {}
        }
    }

    fn written(&mut self) -> Event {
        Event::Row(Ok(self.write_row()))
    }

    /// At any time, whether something happened or not.
    fn look_in(&mut self) {
        if !self.runs {
            return;
        }
        let now = self.now();
        let glance = self.agent.glance(now);
        self.observe(&Step::Look(glance));
        self.looks += 1;
        if self.looks.is_multiple_of(REPORTS) {
            let report = self.agent.report(now);
            self.observe(&Step::Report(&report));
        }
    }

    fn observe(&mut self, step: &Step<'_>) {
        let sight = self.sight();
        self.laws.observe(step, sight, self.time);
    }

    fn observe_begin(&mut self) {
        self.observe(&Step::Begins);
    }

    fn observe_wal_reset(&mut self) {
        self.observe(&Step::WalReset);
    }

    fn sight(&self) -> Sight {
        let litestream = &self.litestream;
        let database = self.watched();
        let rows = self.policy.heartbeat.is_some();
        let is_there = database.there;
        let is_new = database.replica.is_empty();
        Sight {
            watched: self.watched,
            heartbeat: self.policy.heartbeat,
            wants_guard: self.policy.wal_guard,
            litestream_is_child: self.policy.supervisor == SupervisorKind::Child,
            litestream_is_up: litestream.up,
            litestream_asks: litestream.asks() && self.policy.rotation != Some(Rotation::Restart),
            litestream_is_stuck: litestream.stuck,
            litestream_serves_it: litestream.serves == self.watched,
            litestream_has_neighbour: litestream.up && litestream.has_neighbour,
            may_have_neighbour: self.may_have_neighbour,
            stop_was_asked: litestream.terminated > 0,
            state_is_corrupt: litestream.corrupt,
            wal_stays: self.wal_stays,
            files_are_hurt: database.replica.is_hurt
                || self.wal_stays
                || self.litestream.empties_wal(),
            wal_is_passed_over: litestream.serves == self.watched && database.replica.passes_over(),
            guard_is_held: self.guard,
            disk_is_well: self.weather.disk && is_there,
            clock_is_right: self.device.wall_offset.unsigned_abs() < 300,
            clock_is_doubted: self.cloud.clock_is_doubted,
            is_fine: self.weather.is_fine() && (is_there || is_new && rows),
            fetch_is_in_flight: self.cloud.fetch.is_some(),
            granted_until: self.cloud.granted_until,
            database_is_there: is_there,
            replica_is_there: !is_new,
            oldest_missing: database.oldest_missing(rows),
            restorable_row: database.restorable_row,
            is_blind: database.is_blind,
            damage_is_remembered: database.begins_anew,
            remembered: database
                .remembered
                .map(|since| since.map(|since| self.device.booted + since.since_boot())),
        }
    }

    fn watched(&self) -> &Database {
        &self.databases[self.watched]
    }

    fn watched_mut(&mut self) -> &mut Database {
        &mut self.databases[self.watched]
    }

    /// The database that Litestream replicates.
    fn served(&self) -> &Database {
        &self.databases[self.litestream.serves]
    }

    fn served_mut(&mut self) -> &mut Database {
        &mut self.databases[self.litestream.serves]
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

const AT_FIRST: Now = Now {
    boot: BootTime::new(Duration::ZERO),
    wall: WallTime::from_unix(0),
};
