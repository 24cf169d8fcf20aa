//! The people and programs that run edgerepl: who ends, kills and starts it, and changes what it is told.
//!
//! Owns the policies, Litestream's configuration, and the daemon's comings and goings. Never touches what
//! the daemon decides by itself.

use std::time::Duration;

use edgerepl::agent::{Action, Agent, Event, Legacy, Policy, Rpo, SupervisorKind, Watch};
use edgerepl::config::Rotation;

use super::replica::Wound;
use super::{Coming, DAY, HOUR, MINUTE, SECOND, World, id};
use crate::chance::Chance;
use crate::coverage::Happening;
use crate::faults::Fault;

/// How much may be lost.
const RPOS: [Duration; 6] = [
    Duration::from_secs(10),
    MINUTE,
    Duration::from_secs(5 * 60),
    HOUR,
    HOUR,
    DAY,
];

/// How often rows are written. A life is short where that costs many events: see [`is_busy`].
const INTERVALS: [Option<Duration>; 6] = [
    None,
    Some(Duration::from_secs(5)),
    Some(Duration::from_secs(15 * 60)),
    Some(Duration::from_secs(3600)),
    Some(Duration::from_secs(3600)),
    Some(Duration::from_secs(6 * 3600)),
];

/// How often a restore is planned.
const PACES: [Option<Duration>; 7] = [
    None,
    None,
    Some(MINUTE),
    Some(HOUR),
    Some(DAY),
    Some(DAY),
    Some(Duration::from_secs(30 * 86_400)),
];

/// How often the bytes of a replica are verified.
const VERIFY_PACES: [Option<Duration>; 6] = [
    None,
    None,
    Some(HOUR),
    Some(DAY),
    Some(Duration::from_secs(7 * 86_400)),
    Some(Duration::from_secs(30 * 86_400)),
];

pub(super) fn policy(chance: &mut Chance) -> Policy {
    let rpo = chance.pick(&RPOS);
    Policy {
        renew_before: chance.pick(&[SECOND, 5 * MINUTE, 5 * MINUTE, HOUR, DAY]),
        rpo: Rpo::new(rpo),
        rpo_metered: Rpo::new(rpo.max(chance.pick(&RPOS))),
        heartbeat: chance.pick(&INTERVALS),
        prune: chance.one_in(2),
        supervisor: chance.pick(&[
            SupervisorKind::Child,
            SupervisorKind::Child,
            SupervisorKind::Systemd,
        ]),
        rotation: chance.pick(&[None, Some(Rotation::Restart), Some(Rotation::Refresh)]),
        restorable: chance.pick(&PACES),
        verify: chance.pick(&VERIFY_PACES),
        litestream: None,
        // Who is watched is the world's affair.
        databases: Vec::new(),
    }
}

/// Litestream is asked each minute, or more often, or a restore is planned each minute.
pub(super) fn is_busy(policy: &Policy) -> bool {
    let rows = policy.heartbeat.is_some_and(|interval| interval < MINUTE);
    rows || policy.rpo.most() <= MINUTE || policy.restorable == Some(MINUTE)
}

impl World {
    /// Somebody reads the configuration anew, and had changed it, perhaps.
    pub(super) fn reload(&mut self) {
        if self.faults.has(Fault::OtherPolicies) && self.chance.one_in(2) {
            self.change_policy();
        }
        if self.strikes(Fault::OtherDatabases, 8) {
            self.coverage.happened(Happening::OtherDatabase);
            let number = self.chance.below(self.databases.len() as u64) as usize;
            let database = &mut self.databases[number];
            database.is_configured = !database.is_configured;
            database.is_in_yaml = database.is_configured;
            self.configure();
        }
        if self.strikes(Fault::OtherConfigurations, 4) {
            self.yaml_is_unreadable = self.chance.one_in(10);
            let number = self.chance.below(self.databases.len() as u64) as usize;
            let database = &mut self.databases[number];
            if !database.is_configured {
                database.is_in_yaml = !database.is_in_yaml;
                self.set_changed = self.time;
                self.coverage.happened(Happening::Unlisted);
            }
        }
        self.understand();
        self.news.push_back(Event::Reloaded(self.policy.clone()));
        self.tell(Event::Tick);
        if is_busy(&self.policy) && !self.lives_briefly {
            // Nobody bears that for long.
            self.expect_sometime(Coming::Reload, MINUTE, 4 * HOUR);
        }
    }

    /// edgerepl's configuration names one database at least, the first one with rows unless said otherwise.
    pub(super) fn configure(&mut self) {
        if self
            .databases
            .iter()
            .all(|database| !database.is_configured)
        {
            self.databases[0].is_configured = true;
            self.databases[0].is_in_yaml = true;
        }
        self.set_changed = self.time;
        let all = self.databases.iter().enumerate();
        let configured = all.filter(|(_, database)| database.is_configured);
        self.policy.databases = configured
            .map(|(number, database)| Watch {
                database: id(number),
                name: format!("/data/{number}.db").into(),
                rows: database.takes_rows,
                wal_guard: database.wants_guard.then_some(64 << 20),
            })
            .collect();
    }

    /// edgerepl begins to watch a database: what an earlier run left of it.
    pub(super) fn recall(&mut self, number: usize) {
        let boot = self.now().boot;
        let database = &mut self.databases[number];
        // To a daemon that starts none is new.
        database.generation += u32::from(!self.starts);
        database.begins_to_be_watched();
        let earlier = database.recall(boot);
        self.news.push_back(Event::Recalled(id(number), earlier));
    }

    /// What a run leaves of a database.
    pub(super) fn remember(&mut self, number: usize, legacy: Legacy) {
        self.databases[number].remembered = Some(legacy.unproved_since);
        self.databases[number].begins_anew = legacy.begins_anew;
        self.databases[number].is_unrestorable = legacy.is_unrestorable;
        self.databases[number].differs = legacy.differs;
        self.databases[number].seam = legacy.seam;
    }

    fn change_policy(&mut self) {
        let policy = policy(&mut self.chance);
        let policy = Policy {
            // It changes with a restart of edgerepl, not before.
            supervisor: self.policy.supervisor,
            databases: self.policy.databases.clone(),
            // A long life has no time for it.
            restorable: match policy.restorable {
                Some(MINUTE) if !self.lives_briefly => Some(HOUR),
                pace => pace,
            },
            // A Litestream that can't ask for credentials is not told to.
            rotation: match (policy.rotation, self.understands) {
                (Some(Rotation::Refresh), Rotation::Restart) => None,
                (any, _) => any,
            },
            ..policy
        };
        if policy.heartbeat != self.policy.heartbeat {
            let what = match policy.heartbeat {
                Some(_) => Happening::OtherInterval,
                None => Happening::RowsOff,
            };
            self.coverage.happened(what);
        }
        if policy.rotation != self.policy.rotation {
            self.coverage.happened(Happening::OtherRotation);
        }
        if policy.restorable != self.policy.restorable {
            let what = match policy.restorable {
                Some(_) => Happening::OtherPace,
                None => Happening::PlansOff,
            };
            self.coverage.happened(what);
        }
        if policy.verify != self.policy.verify {
            let what = match policy.verify {
                Some(_) => Happening::OtherVerifyPace,
                None => Happening::VerifiesOff,
            };
            self.coverage.happened(what);
        }
        self.policy = policy;
        if self.chance.one_in(3) {
            let number = self.chance.below(self.databases.len() as u64) as usize;
            self.databases[number].wants_guard = !self.chance.one_in(5);
            self.configure();
        }
    }

    pub(super) fn reload_by_plan(&mut self) {
        self.reload();
        if self.chance.one_in(8) {
            let more = self.chance.scale(MINUTE, 3 * HOUR).as_secs() as u32;
            self.expect(Coming::ReloadStorm(more), SECOND / 50);
        }
        self.expect_sometime(Coming::Reload, DAY, 90 * DAY);
    }

    pub(super) fn reload_in_a_storm(&mut self, more: u32) {
        self.understand();
        self.tell(Event::Reloaded(self.policy.clone()));
        if more > 0 {
            let wait = self.chance.scale(SECOND / 100, 10 * SECOND);
            self.expect(Coming::ReloadStorm(more - 1), wait);
        }
    }

    /// Somebody's hand in Litestream's files.
    pub(super) fn hurt(&mut self) {
        self.coverage.happened(Happening::Wound);
        let some = self.chance.scale(SECOND, HOUR).as_secs();
        let wounds = [
            Wound::Removed,
            Wound::Emptied,
            Wound::RolledBack(some),
            Wound::Another(some),
        ];
        let wound = self.chance.pick(&wounds);
        let number = self.chance.below(self.databases.len() as u64) as usize;
        self.databases[number].replica.hurt(wound);
        self.expect_sometime(Coming::Hurt, HOUR, 60 * DAY);
    }

    /// Whatever edgerepl is about, somebody ends or kills it in the middle of that, now and then.
    pub(super) fn may_interrupt(&mut self, action: &Action) {
        let one_in = match action {
            Action::Log(..) | Action::Remember(..) | Action::Exit => return,
            Action::Probe
            | Action::ResetState(_)
            | Action::EmptyWal(_)
            | Action::MakeSnapshot(..)
            | Action::LookForReplica(_) => 10,
            _ => 3000,
        };
        for (fault, coming) in [
            (Fault::Ends, Coming::Shutdown),
            (Fault::Kills, Coming::DaemonKilled),
        ] {
            if self.strikes(fault, one_in) {
                self.expect_sometime(coming, SECOND / 1000, 30 * SECOND);
            }
        }
    }

    pub(super) fn end_daemon(&mut self) {
        if !self.runs {
            return;
        }
        if self.cloud.fetch.is_some() {
            self.coverage.happened(Happening::EndedWhileFetching);
        }
        if self
            .databases
            .iter()
            .any(|database| database.look.is_some())
        {
            self.coverage.happened(Happening::EndedWhileLooking);
        }
        let activity = self.agent.glance(self.now()).replication;
        self.coverage.ended_while(activity);
        // Somebody has no patience.
        if self.chance.one_in(4) {
            self.expect_sometime(Coming::Shutdown, SECOND / 100, 20 * SECOND);
        }
        self.tell(Event::Terminate);
    }

    /// SIGKILL: what was its child ends with it.
    pub(super) fn kill_daemon(&mut self) {
        if self.runs {
            self.coverage.happened(Happening::Killed);
            self.daemon_is_gone();
        }
    }

    /// It ended or was killed; somebody starts it again.
    pub(super) fn daemon_is_gone(&mut self) {
        self.stop_daemon();
        let wait = self.chance.scale(SECOND / 10, HOUR);
        self.expect(Coming::DaemonStarts, wait);
    }

    pub(super) fn stop_daemon(&mut self) {
        self.runs = false;
        self.news.clear();
        self.litestream.loses_daemon(self.cloud.granted_until);
        self.abandon_snapshots();
        self.cloud.forget();
        for database in &mut self.databases {
            database.abandons_start();
            database.sync = None;
            database.look = None;
            database.verify = None;
            database.bucket.plan = None;
            database.bucket.ahead = None;
            database.was_surveyed = false;
            database.is_listed = false;
            database.guard = false;
        }
        if self.policy.supervisor == SupervisorKind::Child {
            self.litestream.up = false;
        }
        if !self.litestream.up {
            // Nothing more is heard of a start that was under way.
            self.litestream.process = self.new_process();
        }
    }

    pub(super) fn start_daemon_again(&mut self) {
        if !self.runs {
            self.coverage.happened(Happening::StartedAgain);
            self.start_daemon();
        }
    }

    /// edgerepl starts, with nothing but what is on tmpfs and on the disk.
    pub(super) fn start_daemon(&mut self) {
        self.runs = true;
        for database in &mut self.databases {
            database.wal_stays = false;
        }
        let now = self.now();
        self.told.clone_from(&self.policy.databases);
        self.agent = Agent::new(self.policy.clone(), self.chance.next(), now);
        self.observe_begin();
        self.understand();
        self.starts = true;
        if self.weather.is_metered && self.knows_line {
            self.news.push_back(Event::Metered(true));
        }
        self.tell(Event::Tick);
        self.starts = false;
    }

    /// The age of the row before the first one of this run, by the wall clock.
    pub(super) fn row_before(&mut self, number: usize) -> Option<Event> {
        let written = self.databases[number].row_before?;
        let age = (self.time - written).as_secs() as i64 + self.device.wall_offset;
        let age = u64::try_from(age).ok()?;
        Some(Event::Inherited(id(number), Duration::from_secs(age)))
    }
}
