//! The world around one agent: a device, its network, AWS, and the people who own it.
//!
//! Owns true time and everything that is so, whether the agent knows or not. Performs the agent's
//! actions as the reactor would, and answers with what such a world answers. Each part of the world
//! has weather: it is well for a while, then it fails in one of its ways for a while.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::AddAssign;
use std::time::Duration;

use edgerepl::agent::{Action, Agent, Delivery, Event, Lease, Now, Policy, SupervisorKind};
use edgerepl::clock::{BootTime, WallTime};
use edgerepl::config::Rotation;
use edgerepl::credentials::{FailureClass, FetchFailure};
use edgerepl::litestream::answer::{Answer, Position, SyncFailure};

use crate::chance::Chance;
use crate::laws::Laws;
use crate::replica::{Replica, Wound};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// True time: since the world began, which was some day in 2026.
pub(crate) type Time = Duration;

const BEGAN: i64 = 1_795_000_000;

/// What happened in a life.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) days: u64,
    pub(crate) events: u64,
    pub(crate) fetches: u64,
    pub(crate) rotations: u64,
    pub(crate) deaths: u64,
    pub(crate) resets: u64,
    pub(crate) power_cuts: u64,
    pub(crate) clock_steps: u64,
    pub(crate) wrong_pins: u64,
    pub(crate) reloads: u64,
    pub(crate) snapshots: u64,
    /// Databases that edgerepl made.
    pub(crate) databases: u64,
    pub(crate) wounds: u64,
    /// Replicas that a wound made wrong, and those that miss the beginning of a WAL.
    pub(crate) wrong: u64,
    pub(crate) missed: u64,
    /// WALs that were begun anew while Litestream was down, which it does not notice.
    pub(crate) passed_over: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.days += other.days;
        self.events += other.events;
        self.fetches += other.fetches;
        self.rotations += other.rotations;
        self.deaths += other.deaths;
        self.resets += other.resets;
        self.power_cuts += other.power_cuts;
        self.clock_steps += other.clock_steps;
        self.wrong_pins += other.wrong_pins;
        self.reloads += other.reloads;
        self.snapshots += other.snapshots;
        self.databases += other.databases;
        self.wounds += other.wounds;
        self.wrong += other.wrong;
        self.missed += other.missed;
        self.passed_over += other.passed_over;
    }
}

/// What the world has coming. Where a process is meant, the number says which: news of one that is
/// gone is no news.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Coming {
    Wake,
    FetchEnds(u64),
    LitestreamDies(u64),
    LitestreamExits(u64),
    LitestreamSticks(u64),
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
    /// Something happens to Litestream's local state.
    Hurt,
    PowerCut,
    Sleep,
    Reload,
    /// And so many more.
    ReloadStorm(u32),
    LookEnds(u64),
    /// Somebody restores the database.
    Restored,
    Shutdown,
}

/// The parts of the world that have weather.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Part {
    Network,
    Provider,
    Key,
    S3,
    Disk,
}

/// How each part fares.
#[derive(Debug)]
pub(crate) struct Weather {
    network: bool,
    provider: Provider,
    key: Key,
    s3: bool,
    disk: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Provider {
    Well,
    Failing,
    Throttling,
    Refusing,
    Hanging,
    /// Its clock is wrong, and so is each number that it or the fetch's process tells.
    Lying,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Key {
    Well,
    Failing,
    Hanging,
    /// Not even SIGKILL ends a process that waits for this bus.
    Stuck,
    WrongPin,
}

#[derive(Debug)]
struct Litestream {
    process: u64,
    up: bool,
    /// From then on its own lock keeps the WAL from being reset.
    holds_wal_from: Time,
    terminated: u32,
    credentials_end: Time,
    delivery: Delivery,
    /// It asks for no others: the clock went back, by which it counts.
    is_deaf: bool,
    /// The clock went back at all since the start was asked for.
    clock_went_back: bool,
    corrupt: bool,
    /// It runs, and does nothing any more.
    stuck: bool,
}

pub(crate) struct World {
    chance: Chance,
    loud: bool,
    time: Time,
    end: Time,
    awake_at: Time,
    booted: Time,
    wall_offset: i64,
    policy: Policy,
    lifetime: Duration,
    phase: u16,
    /// What this device's Litestream understands.
    understands: Delivery,
    agent: Agent,
    weather: Weather,
    fetch: Option<u64>,
    litestream: Litestream,
    /// When the credentials that the reactor holds end.
    granted_until: Time,
    sync: Option<u64>,
    reset: Option<u64>,
    survey: Option<u64>,
    emptying: Option<u64>,
    look: Option<u64>,
    guard: bool,
    /// It is there; and what of it can be restored.
    database: bool,
    replica: Replica,
    rows: i64,
    /// What was committed, and when, that is not on the replica: a row's id, or none.
    missing: VecDeque<(u64, Option<i64>, Time)>,
    commits: u64,
    restorable_row: i64,
    /// The replica was wrong before this agent began, who could not see it.
    blind: bool,
    /// The control socket took no question the last time.
    was_busy: bool,
    /// It was to be emptied, and could not be.
    wal_stays: bool,
    /// systemd restarts Litestream.
    restarts: bool,
    /// It was looked at since Litestream is down: what happens after that nobody can see.
    was_surveyed: bool,
    /// The last grant had a wrong date.
    clock_doubted: bool,
    processes: u64,
    coming: BinaryHeap<Reverse<(Time, u64, Coming)>>,
    order: u64,
    laws: Laws,
    tally: Tally,
    off: bool,
}

impl World {
    pub(crate) fn new(seed: u64, loud: bool) -> Self {
        let mut chance = Chance::new(seed);
        let policy = policy(&mut chance);
        // Some live for years with a row a quarter of an hour; some for a day with one each 5 s.
        let busy = policy.heartbeat.is_some_and(|h| h < MINUTE);
        let end = if busy {
            DAY * 2
        } else {
            DAY * chance.pick(&[30, 100, 365, 1000])
        };
        let now = Now {
            boot: BootTime::default(),
            wall: WallTime::from_unix(0),
        };
        let mut world = Self {
            lifetime: chance.pick(&[900 * SECOND, HOUR, HOUR, 6 * HOUR, 12 * HOUR, 12 * HOUR]),
            phase: chance.next() as u16,
            understands: match policy.rotation {
                Rotation::Refresh => Delivery::Process,
                _ => chance.pick(&[Delivery::Environment, Delivery::Process]),
            },
            loud,
            time: Duration::ZERO,
            end,
            awake_at: Duration::ZERO,
            booted: Duration::ZERO,
            wall_offset: 0,
            agent: Agent::new(policy.clone(), 0, now),
            weather: Weather {
                network: true,
                provider: Provider::Well,
                key: Key::Well,
                s3: true,
                disk: true,
            },
            fetch: None,
            litestream: Litestream {
                process: 0,
                up: false,
                holds_wal_from: Duration::ZERO,
                terminated: 0,
                credentials_end: Duration::ZERO,
                delivery: Delivery::Environment,
                is_deaf: false,
                clock_went_back: false,
                corrupt: false,
                stuck: false,
            },
            granted_until: Duration::ZERO,
            sync: None,
            reset: None,
            survey: None,
            emptying: None,
            look: None,
            guard: false,
            // A device that is new has none, and where nobody else makes it edgerepl does.
            database: policy.heartbeat.is_none() || chance.one_in(2),
            replica: Replica::new(),
            rows: 0,
            missing: VecDeque::new(),
            commits: 0,
            restorable_row: 0,
            blind: false,
            was_busy: false,
            wal_stays: false,
            restarts: false,
            was_surveyed: false,
            clock_doubted: false,
            processes: 0,
            coming: BinaryHeap::new(),
            order: 0,
            laws: Laws::new(&policy),
            tally: Tally {
                days: end.as_secs() / DAY.as_secs(),
                ..Tally::default()
            },
            off: false,
            policy,
            chance,
        };
        for part in [
            Part::Network,
            Part::Provider,
            Part::Key,
            Part::S3,
            Part::Disk,
        ] {
            world.expect_weather(part, true);
        }
        world.expect_sometime(Coming::ClockStep, DAY, 60 * DAY);
        world.expect_sometime(Coming::PowerCut, HOUR, 60 * DAY);
        world.expect_sometime(Coming::Sleep, HOUR, 60 * DAY);
        world.expect_sometime(Coming::Reload, DAY, 90 * DAY);
        world.expect_sometime(Coming::Checkpoint, SECOND, DAY);
        world.expect_sometime(Coming::Write, SECOND, DAY);
        world.expect_sometime(Coming::Hurt, HOUR, 60 * DAY);
        world.boot();
        world
    }

    /// Lives to the end, or panics where a law is broken.
    pub(crate) fn live(mut self) -> Tally {
        while let Some(Reverse((time, _, coming))) = self.coming.pop() {
            if time >= self.end {
                break;
            }
            // What would have happened while the device slept happens when it wakes.
            self.time = time.max(self.awake_at);
            self.happen(coming);
            if self.off {
                self.boot();
            }
        }
        self.tally
    }

    fn happen(&mut self, coming: Coming) {
        match coming {
            Coming::Wake if BootTime::new(self.time - self.booted) >= self.agent.deadline() => {
                self.tell(Event::Tick);
            }
            Coming::FetchEnds(process) if self.fetch == Some(process) => self.end_fetch(),
            Coming::LitestreamDies(process) if self.child_is_up(process) => {
                self.tally.deaths += 1;
                self.litestream_exits();
            }
            Coming::LitestreamExits(process) if self.child_is_up(process) => {
                self.litestream_exits();
            }
            Coming::LitestreamSticks(process) if self.litestream.process == process => {
                self.litestream.stuck = true;
            }
            Coming::UnitRestarted(process) if self.litestream.process == process => {
                self.restarts = false;
                if self.chance.one_in(30) {
                    self.tell(Event::Started(Err("systemctl failed".to_owned())));
                } else {
                    self.litestream_starts();
                    self.tell(Event::Started(Ok(())));
                }
            }
            Coming::SyncEnds(request) if self.sync == Some(request) => self.end_sync(),
            Coming::ResetEnds(process) if self.reset == Some(process) => {
                self.reset = None;
                let mended = !self.chance.one_in(5);
                self.litestream.corrupt &= !mended;
                let was_reset = self.replica.survey().wal_was_reset;
                if mended {
                    self.replica.drop_files();
                }
                self.tally.resets += 1;
                let result = if mended {
                    Ok(!was_reset && self.chance.one_in(2))
                } else {
                    Err("it failed".to_owned())
                };
                self.tell(Event::StateReset(result));
            }
            Coming::SurveyEnds(process) if self.survey == Some(process) => {
                self.survey = None;
                self.was_surveyed = true;
                let survey = match self.chance.one_in(50) {
                    true => Err("it was killed".to_owned()),
                    false => Ok(self.replica.survey()),
                };
                self.tell(Event::Surveyed(survey));
            }
            Coming::EmptyingEnds(process) if self.emptying == Some(process) => {
                self.emptying = None;
                let stays = !self.weather.disk || self.chance.one_in(20);
                self.wal_stays = stays;
                let emptied = match stays {
                    true => Err("somebody reads".to_owned()),
                    false => {
                        self.replica.empty_wal();
                        Ok(())
                    }
                };
                self.tell(Event::WalEmptied(emptied));
            }
            Coming::Weather(part) => self.change_weather(part),
            Coming::ClockStep => self.step_clock(),
            Coming::ClockMended => {
                self.set_clock(0);
                self.tell(Event::ClockStepped);
            }
            Coming::Checkpoint => self.checkpoint(),
            Coming::Write => {
                if self.database {
                    self.commit(None);
                    self.look_in();
                }
                let most = self.chance.pick(&[MINUTE, HOUR, DAY]);
                self.expect_sometime(Coming::Write, SECOND, most);
            }
            Coming::Hurt => {
                self.tally.wounds += 1;
                let some = self.chance.scale(SECOND, HOUR).as_secs();
                let wounds = [
                    Wound::Removed,
                    Wound::Emptied,
                    Wound::RolledBack(some),
                    Wound::Another(some),
                ];
                let wound = self.chance.pick(&wounds);
                self.replica.hurt(wound);
                self.expect_sometime(Coming::Hurt, HOUR, 60 * DAY);
            }
            Coming::PowerCut => {
                self.tally.power_cuts += 1;
                self.boot();
                self.expect_sometime(Coming::PowerCut, HOUR, 60 * DAY);
            }
            Coming::Sleep => {
                self.awake_at = self.time + self.chance.scale(SECOND, 2 * DAY);
                self.laws.slept(self.awake_at);
                self.expect_sometime(Coming::Sleep, HOUR, 60 * DAY);
            }
            Coming::Reload => {
                self.reload();
                match self.chance.below(8) {
                    0..2 => self.expect(Coming::Shutdown, SECOND),
                    2 => {
                        let more = self.chance.scale(MINUTE, 3 * HOUR).as_secs() as u32;
                        self.expect(Coming::ReloadStorm(more), SECOND / 50);
                    }
                    _ => {}
                }
                self.expect_sometime(Coming::Reload, DAY, 90 * DAY);
            }
            Coming::ReloadStorm(more) => {
                self.tally.reloads += 1;
                self.tell(Event::Reloaded(self.policy.clone()));
                if more > 0 {
                    let wait = self.chance.scale(SECOND / 100, 10 * SECOND);
                    self.expect(Coming::ReloadStorm(more - 1), wait);
                }
            }
            Coming::LookEnds(process) if self.look == Some(process) => {
                self.look = None;
                let asked = self.weather.s3 && self.weather.network;
                let is_there = !self.replica.is_empty();
                if asked && is_there {
                    self.expect_sometime(Coming::Restored, MINUTE, 2 * DAY);
                }
                let found = asked.then_some(is_there);
                self.tell(Event::Looked(found.ok_or("S3 is away".to_owned())));
            }
            Coming::Restored => {
                self.database = true;
                self.laws.weather_changed(self.is_fine(), self.time);
            }
            Coming::Shutdown => {
                self.laws.asked_to_end(self.time);
                self.tell(Event::Terminate);
                if self.off {
                    self.boot();
                }
            }
            // Of a process or a request that is gone.
            _ => {}
        }
    }

    /// Tells the agent something, does what it says, tells it what came of that at once.
    fn tell(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front().filter(|_| !self.off) {
            let now = self.now();
            if self.loud {
                println!("{:>14.3} {event:?}", self.time.as_secs_f64());
            }
            self.tally.events += 1;
            self.laws.before(&event, self.time);
            let actions = self.agent.handle(event, now);
            assert!(
                self.agent.deadline() > now.boot || self.agent.deadline() == BootTime::NEVER,
                "something due was left behind"
            );
            for action in actions {
                if self.loud {
                    println!("{:>14.3}     {action:?}", self.time.as_secs_f64());
                }
                let sight = self.sight();
                self.laws.action(&action, &sight, self.time);
                events.extend(self.perform(action));
            }
        }
        self.look_in();
        let deadline = self.agent.deadline();
        if deadline != BootTime::NEVER {
            self.push(self.booted + deadline.since_boot(), Coming::Wake);
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Fetch => self.start_fetch(),
            Action::KillFetch => {
                if let Some(process) = self.fetch
                    && self.weather.key != Key::Stuck
                {
                    self.expect(Coming::FetchEnds(process), Duration::from_millis(10));
                    self.laws.killed_fetch();
                }
            }
            Action::AbandonFetch => self.fetch = None,
            Action::Probe => {
                if self.chance.one_in(20) {
                    return Some(Event::Probed(Err("it says nothing".to_owned())));
                }
                return Some(Event::Probed(Ok(self.understands)));
            }
            Action::Start(delivery) => {
                self.litestream.delivery = delivery;
                self.litestream.clock_went_back = false;
                let process = self.new_process();
                match self.policy.supervisor {
                    SupervisorKind::Child if self.chance.one_in(200) => {
                        return Some(Event::Started(Err("it isn't there".to_owned())));
                    }
                    SupervisorKind::Child => {
                        self.litestream.process = process;
                        self.litestream_starts();
                        return Some(Event::Started(Ok(())));
                    }
                    SupervisorKind::Systemd => {
                        self.litestream.up = false;
                        self.restarts = true;
                        self.litestream.process = process;
                        if !self.chance.one_in(100) {
                            let wait = self.chance.scale(SECOND / 10, 100 * SECOND);
                            self.expect(Coming::UnitRestarted(process), wait);
                        }
                    }
                }
            }
            Action::AbandonStart => {
                self.litestream.process = self.new_process();
                self.restarts = false;
                self.reset = None;
                self.survey = None;
                self.emptying = None;
            }
            Action::Survey => {
                self.was_surveyed = false;
                // It has to be emptied once more, or not.
                self.wal_stays = false;
                let process = self.new_process();
                self.survey = Some(process);
                if !self.chance.one_in(200) {
                    let wait = self.chance.scale(SECOND / 200, 10 * SECOND);
                    self.expect(Coming::SurveyEnds(process), wait);
                }
            }
            Action::AskRowBefore(_) => {
                let age = self.chance.scale(SECOND, 10 * DAY);
                return self.chance.one_in(2).then_some(Event::Inherited(age));
            }
            Action::Terminate => {
                self.litestream.terminated += 1;
                let can_sync = self.can_replicate();
                if can_sync && self.replica.is_open() {
                    self.replicate();
                }
                let wait = match self.litestream.terminated {
                    1 if can_sync => Duration::from_millis(20),
                    1 => 30 * SECOND,
                    _ if self.chance.one_in(10) => HOUR,
                    _ => Duration::from_millis(10),
                };
                self.expect(Coming::LitestreamExits(self.litestream.process), wait);
            }
            Action::Kill => {
                // A process that writes to a sick flash dies when the flash lets it.
                let wait = if self.chance.one_in(10) {
                    MINUTE
                } else {
                    Duration::from_millis(3)
                };
                self.expect(Coming::LitestreamExits(self.litestream.process), wait);
            }
            Action::Sync => return self.start_sync(),
            Action::Greet => {
                let answers = self.litestream.up && !self.litestream.stuck;
                return answers.then_some(Event::Greeted);
            }
            Action::List => return Some(Event::Listed(Vec::new())),
            Action::EmptyWal => {
                let process = self.new_process();
                self.emptying = Some(process);
                if !self.chance.one_in(50) {
                    let wait = self.chance.scale(SECOND / 100, 5 * MINUTE);
                    self.expect(Coming::EmptyingEnds(process), wait);
                }
            }
            Action::ResetState => {
                self.litestream.up = false;
                let process = self.new_process();
                self.reset = Some(process);
                if !self.chance.one_in(20) {
                    self.expect(Coming::ResetEnds(process), SECOND);
                }
            }
            Action::WriteRow => {
                if !self.weather.disk {
                    return Some(Event::Row(Err("it is locked".to_owned())));
                }
                if !self.database {
                    return Some(Event::DatabaseMissing);
                }
                return Some(self.write_row());
            }
            Action::LookForReplica => {
                let process = self.new_process();
                self.look = Some(process);
                if !self.chance.one_in(20) {
                    let wait = self.chance.scale(SECOND / 10, MINUTE);
                    self.expect(Coming::LookEnds(process), wait);
                }
            }
            Action::AbandonLook => self.look = None,
            Action::WriteFirstRow => {
                let lost = !self.database && !self.replica.is_empty();
                assert!(
                    !lost,
                    "a new database in the place of one that can be restored"
                );
                if !self.weather.disk {
                    return Some(Event::Row(Err("it is locked".to_owned())));
                }
                self.tally.databases += u64::from(!self.database);
                self.database = true;
                return Some(self.write_row());
            }
            Action::TakeGuard => {
                if !self.database || !self.weather.disk && self.chance.one_in(2) {
                    return Some(Event::GuardTaken(Err("the disk is gone".to_owned())));
                }
                self.guard = true;
                return Some(Event::GuardTaken(Ok(())));
            }
            Action::ReleaseGuard | Action::AbandonGuard => self.guard = false,
            Action::Exit => self.off = true,
            Action::Prune | Action::Remember(_) | Action::Log(..) => {}
        }
        None
    }

    fn start_fetch(&mut self) {
        self.tally.fetches += 1;
        let process = self.new_process();
        self.fetch = Some(process);
        let hangs = matches!(self.weather.key, Key::Hanging | Key::Stuck)
            || self.weather.provider == Provider::Hanging;
        if !hangs {
            let wait = self.chance.scale(SECOND / 50, 25 * SECOND);
            self.expect(Coming::FetchEnds(process), wait);
        }
    }

    fn end_fetch(&mut self) {
        self.fetch = None;
        let killed = self.laws.fetch_was_killed();
        let failure = |class, retry_after| {
            Err(FetchFailure {
                class,
                message: format!("{class:?}"),
                retry_after,
            })
        };
        let outcome = match (self.weather.key, self.weather.provider) {
            _ if killed => failure(FailureClass::Key, None),
            (Key::WrongPin, _) => {
                self.tally.wrong_pins += 1;
                failure(FailureClass::WrongPin, None)
            }
            (Key::Failing | Key::Hanging | Key::Stuck, _) => failure(FailureClass::Key, None),
            _ if !self.weather.network => failure(FailureClass::Transient, None),
            _ if self.clock_is_behind() && self.chance.one_in(2) => {
                failure(FailureClass::ClockNotSet, None)
            }
            (_, Provider::Failing | Provider::Hanging) => failure(FailureClass::Transient, None),
            (_, Provider::Throttling) => {
                let wait = self.chance.scale(SECOND, 15 * MINUTE);
                failure(FailureClass::Transient, Some(wait))
            }
            (_, Provider::Refusing) => failure(FailureClass::Refused, None),
            (_, Provider::Lying) if self.chance.one_in(2) => {
                let waits = [Duration::ZERO, 15 * MINUTE, Duration::MAX];
                failure(FailureClass::Transient, Some(self.chance.pick(&waits)))
            }
            (_, Provider::Lying) => {
                let lifetime = self.chance.pick(&[SECOND, MINUTE, HOUR, 13 * HOUR]);
                self.clock_doubted = true;
                let times = [i64::MIN, 0, BEGAN - 200_000_000, 2 * BEGAN, i64::MAX];
                self.granted_until = self.time + lifetime;
                Ok(Lease {
                    lifetime,
                    server_time: Some(WallTime::from_unix(self.chance.pick(&times))),
                    phase: self.phase,
                })
            }
            (_, Provider::Well) => {
                self.clock_doubted = false;
                self.granted_until = self.time + self.lifetime;
                Ok(Lease {
                    lifetime: self.lifetime,
                    server_time: Some(self.true_wall()),
                    phase: self.phase,
                })
            }
        };
        self.tell(Event::Fetched(outcome));
    }

    fn litestream_starts(&mut self) {
        self.litestream.up = true;
        self.replica.starts();
        // Its monitor's first tick.
        self.litestream.holds_wal_from = self.time + SECOND;
        self.litestream.terminated = 0;
        self.litestream.credentials_end = self.granted_until;
        self.litestream.is_deaf = false;
        self.litestream.stuck = false;
        self.tally.rotations += 1;
        if self.chance.one_in(20) {
            let wait = self.chance.scale(SECOND / 100, 10 * DAY);
            self.expect(Coming::LitestreamDies(self.litestream.process), wait);
        }
        if self.chance.one_in(20) {
            let wait = self.chance.scale(MINUTE, 10 * DAY);
            self.expect(Coming::LitestreamSticks(self.litestream.process), wait);
        }
    }

    fn litestream_exits(&mut self) {
        self.litestream.up = false;
        self.was_surveyed = false;
        self.sync = None;
        self.tell(Event::Exited("it ended".to_owned()));
        // The worst moment for it.
        self.checkpoint_now();
        if self.off {
            self.boot();
        }
    }

    fn start_sync(&mut self) -> Option<Event> {
        // A queue that is full for a moment; not twice.
        self.was_busy = !self.was_busy && self.chance.one_in(50);
        if !self.litestream.up || self.was_busy {
            self.sync = None;
            return Some(Event::Synced(Err(SyncFailure::NoSocket)));
        }
        let request = self.new_process();
        self.sync = Some(request);
        let wait = if self.can_replicate() {
            // It opens the database for it, where it has not yet.
            let opened = &mut self.litestream.holds_wal_from;
            *opened = (*opened).min(self.time);
            SECOND / 10
        } else {
            // It is told no at once, or not before the network gives its connection up.
            self.chance.scale(SECOND / 100, 15 * MINUTE)
        };
        if !self.chance.one_in(500) {
            self.expect(Coming::SyncEnds(request), wait);
        }
        None
    }

    fn end_sync(&mut self) {
        self.sync = None;
        let answer = if self.litestream.corrupt {
            Err(SyncFailure::StateCorrupt("ltx file corrupted".to_owned()))
        } else if self.can_replicate() && self.chance.one_in(4000) {
            // A writer was killed in the middle of a commit, and Litestream took the WAL up after it. It
            // says so, or its files show it.
            self.replicate();
            self.replica.spoil();
            self.tally.missed += 1;
            match self.chance.one_in(2) {
                true => Err(SyncFailure::BeginningMissed),
                false => Ok(Answer {
                    lacks_beginning: true,
                    ..self.answer()
                }),
            }
        } else if self.can_replicate() {
            match self.replicate() {
                true => Ok(self.answer()),
                // A file is missing.
                false => Err(SyncFailure::StateCorrupt("open ltx file".to_owned())),
            }
        } else {
            // Only what S3 hears is refused by it.
            let reached = self.weather.s3 && self.weather.network && !self.lives();
            match reached {
                true => Err(SyncFailure::SessionEnded("ExpiredToken".to_owned())),
                false => Err(SyncFailure::Failed("it is away".to_owned())),
            }
        };
        self.tell(Event::Synced(answer));
    }

    /// What is answered is true, as a rule.
    fn answer(&mut self) -> Answer {
        let answer = self.replica.answer(self.agent.last_seen(), self.commits);
        let Position { local, replicated } = answer.position;
        let lie = self.chance.below(8000);
        self.replica.is_hurt |= lie < 3;
        let position = match lie {
            // Of an earlier state,
            0 => Position {
                local: local.saturating_sub(3),
                replicated: replicated.saturating_sub(3),
            },
            // of a success without an upload,
            1 => Position {
                local,
                replicated: replicated.saturating_sub(1),
            },
            // and of a replica that somebody else writes to.
            2 => Position {
                local,
                replicated: replicated + 7,
            },
            _ => answer.position,
        };
        Answer { position, ..answer }
    }

    fn write_row(&mut self) -> Event {
        self.rows += 1;
        self.commit(Some(self.rows));
        Event::Row(Ok(self.rows))
    }

    /// Something is committed, and Litestream takes it before it is asked to, perhaps.
    fn commit(&mut self, row: Option<i64>) {
        self.commits += 1;
        self.missing.push_back((self.commits, row, self.time));
        let runs = self.litestream.up && self.replica.is_open();
        if runs && self.can_replicate() && self.chance.one_in(2) {
            self.replicate();
        }
    }

    /// Litestream takes and uploads what there is; false where it can't.
    fn replicate(&mut self) -> bool {
        let was_sound = self.replica.is_sound;
        let done = self.replica.sync(self.commits).is_ok();
        self.tally.wrong += u64::from(was_sound && !self.replica.is_sound);
        self.blind &= !self.replica.is_sound;
        while let Some((number, row, _)) = self.missing.front().copied()
            && number <= self.replica.commits
            && self.replica.is_sound
        {
            self.missing.pop_front();
            self.restorable_row = row.unwrap_or(self.restorable_row);
        }
        done
    }

    /// The application checkpoints: what nobody holds is reset, and Litestream has to start over.
    fn checkpoint(&mut self) {
        self.checkpoint_now();
        self.look_in();
        self.expect_sometime(Coming::Checkpoint, SECOND, DAY);
    }

    fn checkpoint_now(&mut self) {
        let litestream = &self.litestream;
        let held = self.guard || (litestream.up && litestream.holds_wal_from <= self.time);
        if !held {
            self.tally.snapshots += 1;
            // While systemd restarts it, or once it is about to be started, nobody can look any more.
            let is_seen = litestream.up || self.restarts || self.was_surveyed;
            let is_shorter = !is_seen && self.chance.one_in(2);
            self.tally.passed_over += u64::from(is_shorter);
            self.replica.reset_wal(self.commits, is_shorter);
            if self.emptying.is_none() {
                self.laws.wal_was_reset(self.time);
            }
        }
    }

    fn look_in(&mut self) {
        let report = self.agent.report(self.now());
        self.laws.look_in(&report, &self.sight(), self.time);
    }

    fn step_clock(&mut self) {
        self.tally.clock_steps += 1;
        let years = self.chance.pick(&[-50, -1, 0, 0, 1, 50]);
        let seconds = self.chance.below(7200) as i64 - 3600;
        self.set_clock(years * 365 * 86_400 + seconds);
        self.tell(Event::ClockStepped);
        // Time synchronisation puts it right before long, as a rule.
        let wrong = if self.chance.one_in(20) {
            self.chance.scale(6 * HOUR, 20 * DAY)
        } else {
            self.chance.scale(SECOND, 6 * HOUR)
        };
        self.expect(Coming::ClockMended, wrong);
        self.expect_sometime(Coming::ClockStep, MINUTE, 30 * DAY);
    }

    /// Somebody reads the configuration anew, and had changed it, perhaps.
    fn reload(&mut self) {
        self.tally.reloads += 1;
        if self.chance.one_in(2) {
            let policy = policy(&mut self.chance);
            self.policy.renew_before = policy.renew_before;
            self.policy.prune = policy.prune;
        }
        self.tell(Event::Reloaded(self.policy.clone()));
    }

    fn set_clock(&mut self, offset: i64) {
        self.litestream.clock_went_back |= offset < self.wall_offset;
        // A little less is within what an SDK is told early.
        if offset < self.wall_offset - 5 && !self.litestream.is_deaf {
            self.litestream.is_deaf = true;
            self.litestream.credentials_end = self.granted_until;
        }
        self.wall_offset = offset;
    }

    fn change_weather(&mut self, part: Part) {
        let weather = &mut self.weather;
        let chance = &mut self.chance;
        let well = match part {
            Part::Network => {
                weather.network = !weather.network;
                weather.network
            }
            Part::Provider => {
                let faults = [
                    Provider::Failing,
                    Provider::Throttling,
                    Provider::Refusing,
                    Provider::Hanging,
                    Provider::Lying,
                ];
                let was_well = weather.provider == Provider::Well;
                weather.provider = if was_well {
                    chance.pick(&faults)
                } else {
                    Provider::Well
                };
                !was_well
            }
            Part::Key => {
                let faults = [
                    Key::Failing,
                    Key::Failing,
                    Key::Failing,
                    Key::Hanging,
                    Key::Hanging,
                    Key::Stuck,
                    Key::WrongPin,
                ];
                let was_well = weather.key == Key::Well;
                weather.key = if was_well {
                    chance.pick(&faults)
                } else {
                    Key::Well
                };
                !was_well
            }
            Part::S3 => {
                weather.s3 = !weather.s3;
                weather.s3
            }
            Part::Disk => {
                weather.disk = !weather.disk;
                weather.disk
            }
        };
        self.laws.weather_changed(self.is_fine(), self.time);
        if part == Part::Network {
            self.tell(Event::NetworkChanged);
            if well && self.clock_is_behind() {
                let wait = self.chance.between(SECOND, MINUTE);
                self.expect(Coming::ClockMended, wait);
            }
        }
        self.expect_weather(part, well);
    }

    /// Well for hours to months, then unwell for seconds to days.
    fn expect_weather(&mut self, part: Part, well: bool) {
        let wait = if well {
            self.chance.scale(10 * MINUTE, 60 * DAY)
        } else {
            self.chance.scale(SECOND / 10, 2 * DAY)
        };
        self.expect(Coming::Weather(part), wait);
    }

    /// Power comes (back): nothing is left but what is on the disk.
    fn boot(&mut self) {
        self.booted = self.time;
        self.off = false;
        self.fetch = None;
        self.sync = None;
        self.reset = None;
        self.survey = None;
        self.emptying = None;
        self.look = None;
        self.guard = false;
        self.was_surveyed = false;
        self.blind = !self.replica.is_sound;
        self.wal_stays = false;
        self.restarts = false;
        // The application was there first.
        if self.chance.one_in(8) {
            self.replica.reset_wal(self.commits, self.chance.one_in(2));
        }
        // A data partition that was lost.
        if self.policy.heartbeat.is_some() && self.chance.one_in(20) {
            self.database = false;
            self.missing.clear();
            self.replica.hurt(Wound::Removed);
        }
        self.granted_until = Duration::ZERO;
        self.litestream.process = self.new_process();
        self.litestream.up = false;
        self.litestream.corrupt |= self.chance.one_in(4);
        if self.chance.one_in(2) {
            self.wall_offset = -self.true_wall().unix();
            let wait = self.chance.between(SECOND, 5 * MINUTE);
            self.expect(Coming::ClockMended, wait);
        }
        let now = self.now();
        self.agent = Agent::new(self.policy.clone(), self.chance.next(), now);
        self.laws.booted(self.is_fine(), self.time);
        if self.chance.one_in(2) {
            self.tell(Event::NothingRecalled);
        }
        self.tell(Event::Tick);
    }

    /// Certificates of this year are not valid yet, for a device that lives in an earlier one.
    fn clock_is_behind(&self) -> bool {
        self.wall_offset < -86_400
    }

    fn can_replicate(&self) -> bool {
        let skewed = self.wall_offset.unsigned_abs() > 15 * 60;
        let living = self.lives();
        let weather = &self.weather;
        let able = !self.litestream.corrupt && !self.litestream.stuck;
        weather.s3 && weather.network && living && !skewed && able && self.database
    }

    /// Nothing stands between the device and its replica, and nobody has to restore anything.
    fn is_fine(&self) -> bool {
        self.weather.is_fine() && (self.database || self.replica.is_empty())
    }

    /// The session that Litestream has did not end yet.
    fn lives(&self) -> bool {
        match self.litestream.delivery {
            // It asks before those that it has have ended, as it was told.
            Delivery::Process if !self.litestream.is_deaf => self.time < self.granted_until,
            _ => self.time < self.litestream.credentials_end,
        }
    }

    fn child_is_up(&self, process: u64) -> bool {
        let child = self.policy.supervisor == SupervisorKind::Child;
        child && self.litestream.up && self.litestream.process == process
    }

    fn sight(&self) -> Sight {
        Sight {
            litestream_is_up: self.litestream.up,
            litestream_asks: self.litestream.delivery == Delivery::Process
                && !self.litestream.clock_went_back,
            stop_was_asked: self.litestream.terminated > 0,
            guard_is_held: self.guard,
            disk_is_well: self.weather.disk && self.database,
            clock_is_right: self.wall_offset.unsigned_abs() < 300,
            state_is_corrupt: self.litestream.corrupt,
            wal_stays: self.wal_stays,
            files_are_hurt: self.replica.is_hurt || self.wal_stays || self.emptying.is_some(),
            wal_is_passed_over: self.replica.passes_over(),
            litestream_is_stuck: self.litestream.stuck,
            fetch_is_in_flight: self.fetch.is_some(),
            granted_until: self.granted_until,
            oldest_missing: self.oldest_missing(),
            restorable_row: self.restorable_row,
            is_blind: self.blind,
            clock_is_doubted: self.clock_doubted,
        }
    }

    /// When the oldest row was written that no restore brings back; without rows, anything.
    fn oldest_missing(&self) -> Option<Time> {
        let rows = self.policy.heartbeat.is_some();
        let mut missing = self.missing.iter().filter(|_| !self.blind);
        let oldest = missing.find(|(_, row, _)| row.is_some() || !rows);
        oldest.map(|(_, _, time)| *time)
    }

    fn now(&self) -> Now {
        let wall = self.true_wall().unix().saturating_add(self.wall_offset);
        Now {
            boot: BootTime::new(self.time - self.booted),
            wall: WallTime::from_unix(wall),
        }
    }

    fn true_wall(&self) -> WallTime {
        WallTime::from_unix(BEGAN + self.time.as_secs() as i64)
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

impl Weather {
    /// Nothing stands between the device and its replica.
    fn is_fine(&self) -> bool {
        self.network
            && self.provider == Provider::Well
            && self.key == Key::Well
            && self.s3
            && self.disk
    }
}

/// What the laws are told of how things are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    pub(crate) litestream_is_up: bool,
    /// It gets newer credentials without a restart.
    pub(crate) litestream_asks: bool,
    pub(crate) stop_was_asked: bool,
    pub(crate) guard_is_held: bool,
    pub(crate) disk_is_well: bool,
    pub(crate) clock_is_right: bool,
    pub(crate) state_is_corrupt: bool,
    /// The WAL could not be emptied, when that was the way to begin anew.
    pub(crate) wal_stays: bool,
    pub(crate) files_are_hurt: bool,
    /// A Litestream that starts now takes another WAL for the one that it knows.
    pub(crate) wal_is_passed_over: bool,
    pub(crate) litestream_is_stuck: bool,
    pub(crate) fetch_is_in_flight: bool,
    pub(crate) granted_until: Time,
    /// When the oldest row was written that no restore brings back.
    pub(crate) oldest_missing: Option<Time>,
    pub(crate) restorable_row: i64,
    /// The replica was wrong before this agent began, who can't see it.
    pub(crate) is_blind: bool,
    /// By a provider that told another time with the last grant.
    pub(crate) clock_is_doubted: bool,
}

fn policy(chance: &mut Chance) -> Policy {
    let heartbeats = [
        None,
        Some(5 * SECOND),
        Some(15 * MINUTE),
        Some(HOUR),
        Some(6 * HOUR),
    ];
    Policy {
        renew_before: chance.pick(&[SECOND, 5 * MINUTE, 5 * MINUTE, HOUR, DAY]),
        heartbeat: chance.pick(&heartbeats),
        prune: chance.one_in(2),
        supervisor: chance.pick(&[
            SupervisorKind::Child,
            SupervisorKind::Child,
            SupervisorKind::Systemd,
        ]),
        rotation: chance.pick(&[Rotation::Auto, Rotation::Restart, Rotation::Refresh]),
        wal_guard: !chance.one_in(5),
        database: "/data/app.db".into(),
    }
}
