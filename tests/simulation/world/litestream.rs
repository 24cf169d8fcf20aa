//! Litestream: a process that may die, hang or lie, and what it answers.
//!
//! Owns the process and the requests that it was sent. What it does with files and the replica is
//! `replica`'s; who wants it started or stopped is no affair of its.

use std::time::Duration;

use edgerepl::agent::{Event, SupervisorKind};
use edgerepl::config::Rotation;
use edgerepl::litestream::answer::{Answer, Position, SyncFailure};

use super::operator::Configuration;
use super::{Coming, DAY, HOUR, MINUTE, SECOND, Time, World};
use crate::coverage::Happening;
use crate::faults::Fault;

/// The database beside the one that is watched.
const NEIGHBOUR: &str = "/data/other.db";

#[derive(Debug)]
pub(super) struct Litestream {
    pub(super) process: u64,
    pub(super) up: bool,
    /// The number of the database that it replicates.
    pub(super) serves: usize,
    /// It replicates another one, too.
    pub(super) has_neighbour: bool,
    /// From then on its own lock keeps the WAL from being reset.
    pub(super) holds_wal_from: Time,
    pub(super) terminated: u32,
    credentials_end: Time,
    rotation: Rotation,
    /// It asks for no others: the clock went back, by which it counts.
    is_deaf: bool,
    /// The clock went back at all since the start was asked for.
    clock_went_back: bool,
    pub(super) corrupt: bool,
    /// It runs, and does nothing any more.
    pub(super) stuck: bool,
    /// The sync under way, and whose it is.
    sync: Option<(u64, usize)>,
    reset: Option<u64>,
    survey: Option<u64>,
    emptying: Option<u64>,
    /// systemd restarts it.
    pub(super) restarts: bool,
    /// Its files were looked at since it is down: what happens after that is not seen any more.
    pub(super) was_surveyed: bool,
    /// The control socket took no question the last time.
    was_busy: bool,
}

impl Litestream {
    pub(super) fn new() -> Self {
        Self {
            process: 0,
            up: false,
            serves: 0,
            has_neighbour: false,
            holds_wal_from: Duration::ZERO,
            terminated: 0,
            credentials_end: Duration::ZERO,
            rotation: Rotation::Restart,
            is_deaf: false,
            clock_went_back: false,
            corrupt: false,
            stuck: false,
            sync: None,
            reset: None,
            survey: None,
            emptying: None,
            restarts: false,
            was_surveyed: false,
            was_busy: false,
        }
    }

    /// It gets newer credentials without a restart.
    pub(super) fn asks(&self) -> bool {
        self.rotation == Rotation::Refresh && !self.clock_went_back
    }

    /// Whoever had asked it is gone, with the credentials, which end then.
    pub(super) fn loses_daemon(&mut self, granted_until: Time) {
        if self.rotation == Rotation::Refresh && !self.is_deaf {
            self.credentials_end = granted_until;
        }
        self.sync = None;
        self.abandons_start();
        self.was_surveyed = false;
    }

    /// Nothing more is heard of what prepares a start.
    pub(super) fn abandons_start(&mut self) {
        self.restarts = false;
        self.reset = None;
        self.survey = None;
        self.emptying = None;
    }

    /// The WAL is being emptied.
    pub(super) fn empties_wal(&self) -> bool {
        self.emptying.is_some()
    }
}

impl World {
    pub(super) fn probe(&mut self) {
        let silent = self.strikes(Fault::BadStarts, 20);
        let said = (!silent).then_some(self.understands);
        self.news
            .push_back(Event::Probed(said.ok_or("it says nothing".to_owned())));
    }

    pub(super) fn start(&mut self, rotation: Rotation) {
        self.understand();
        self.litestream.rotation = rotation;
        self.litestream.clock_went_back = false;
        let process = self.new_process();
        match self.policy.supervisor {
            SupervisorKind::Child => {
                if self.strikes(Fault::BadStarts, 200) {
                    let why = "it isn't there".to_owned();
                    return self.news.push_back(Event::Started(Err(why)));
                }
                self.litestream.process = process;
                self.litestream_starts();
                self.news.push_back(Event::Started(Ok(())));
            }
            SupervisorKind::Systemd => {
                self.litestream.up = false;
                self.litestream.restarts = true;
                self.litestream.process = process;
                if !self.strikes(Fault::BadStarts, 100) {
                    let wait = self.chance.scale(SECOND / 10, 100 * SECOND);
                    self.expect(Coming::UnitRestarted(process), wait);
                }
            }
        }
    }

    pub(super) fn unit_restarted(&mut self) {
        self.litestream.restarts = false;
        if self.strikes(Fault::BadStarts, 30) {
            self.tell(Event::Started(Err("systemctl failed".to_owned())));
        } else {
            self.litestream_starts();
            self.tell(Event::Started(Ok(())));
        }
    }

    fn litestream_starts(&mut self) {
        let has_neighbour = match self.configuration {
            Configuration::Plain => false,
            Configuration::Neighbour => true,
            Configuration::Unreadable => self.chance.one_in(2),
        };
        let litestream = &mut self.litestream;
        litestream.up = true;
        litestream.serves = self.watched;
        litestream.has_neighbour = has_neighbour;
        // Its monitor's first tick.
        litestream.holds_wal_from = self.time + SECOND;
        litestream.terminated = 0;
        litestream.credentials_end = self.cloud.granted_until;
        litestream.is_deaf = false;
        litestream.stuck = false;
        let process = litestream.process;
        self.may_have_neighbour = has_neighbour;
        self.watched_mut().replica.starts();
        if self.strikes(Fault::Deaths, 20) {
            let wait = self.chance.scale(SECOND / 100, 10 * DAY);
            self.expect(Coming::LitestreamDies(process), wait);
        }
        if self.strikes(Fault::Hangs, 20) {
            let wait = self.chance.scale(MINUTE, 10 * DAY);
            self.expect(Coming::LitestreamHangs(process), wait);
        }
    }

    pub(super) fn terminate_litestream(&mut self) {
        self.litestream.terminated += 1;
        let can_sync = self.can_replicate();
        if can_sync && self.served().replica.is_open() {
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

    pub(super) fn kill_litestream(&mut self) {
        // A process that writes to a sick flash dies when the flash lets it.
        let wait = match self.chance.one_in(10) {
            true => MINUTE,
            false => Duration::from_millis(3),
        };
        self.expect(Coming::LitestreamExits(self.litestream.process), wait);
    }

    pub(super) fn litestream_exits(&mut self) {
        self.litestream.up = false;
        self.litestream.was_surveyed = false;
        self.litestream.sync = None;
        self.tell(Event::Exited("it ended".to_owned()));
        // The worst moment for it.
        self.checkpoint_now();
    }

    pub(super) fn start_sync(&mut self) {
        // A queue that is full for a moment; not twice.
        let is_busy = !self.litestream.was_busy && self.strikes(Fault::Busy, 50);
        self.litestream.was_busy = is_busy;
        if !self.litestream.up || is_busy {
            self.litestream.sync = None;
            let failure = SyncFailure::NoSocket;
            return self.news.push_back(Event::Synced(Err(failure)));
        }
        let request = self.new_process();
        self.litestream.sync = Some((request, self.watched));
        let wait = if self.litestream.serves != self.watched {
            SECOND / 10
        } else if self.can_replicate() {
            // It opens the database for it, where it has not yet.
            let opened = &mut self.litestream.holds_wal_from;
            *opened = (*opened).min(self.time);
            SECOND / 10
        } else {
            // It is told no at once, or not before the network gives its connection up.
            self.chance.scale(SECOND / 100, 15 * MINUTE)
        };
        if !self.strikes(Fault::Busy, 500) {
            self.expect(Coming::SyncEnds(request), wait);
        }
    }

    pub(super) fn end_sync(&mut self, request: u64) {
        let sync = &mut self.litestream.sync;
        let Some((_, asked)) = sync.take_if(|(sync, _)| *sync == request) else {
            return;
        };
        let answer = if asked != self.litestream.serves {
            Err(SyncFailure::Failed("it knows no such database".to_owned()))
        } else if self.litestream.corrupt {
            Err(SyncFailure::StateCorrupt("ltx file corrupted".to_owned()))
        } else if self.can_replicate() && self.strikes(Fault::KilledWriters, 4000) {
            // Litestream took the WAL up after a writer that was killed in the middle of a commit.
            self.replicate();
            self.served_mut().replica.spoil();
            // It says so, or its files show it.
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
        let seen = self.agent.last_seen();
        let database = self.served();
        let answer = database.replica.answer(seen, database.commits);
        if !self.faults.has(Fault::Lies) {
            return answer;
        }
        let Position { local, replicated } = answer.position;
        let position = match self.chance.below(8000) {
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
            _ => return answer,
        };
        self.coverage.happened(Happening::Lie);
        self.served_mut().replica.is_hurt = true;
        Answer { position, ..answer }
    }

    /// It says who it is, unless it hangs.
    pub(super) fn greet(&mut self) {
        if self.litestream.up && !self.litestream.stuck {
            self.news.push_back(Event::Greeted);
        }
    }

    /// It says what it replicates, unless nobody listens just then.
    pub(super) fn list(&mut self) {
        let listens = self.litestream.up && !self.litestream.stuck;
        if listens && !self.strikes(Fault::Busy, 50) {
            let others = self.litestream.has_neighbour.then(|| NEIGHBOUR.to_owned());
            self.news
                .push_back(Event::Listed(others.into_iter().collect()));
        }
    }

    /// What its configuration says, as far as it can be read.
    pub(super) fn understand(&mut self) {
        let understood = match self.configuration {
            Configuration::Plain => Ok(Vec::new()),
            Configuration::Neighbour => Ok(vec![NEIGHBOUR.to_owned()]),
            Configuration::Unreadable => Err("it can't be parsed".to_owned()),
        };
        self.news.push_back(Event::Understood(understood));
    }

    pub(super) fn start_reset(&mut self) {
        self.litestream.up = false;
        let process = self.new_process();
        self.litestream.reset = Some(process);
        if !self.strikes(Fault::BadStarts, 20) {
            self.expect(Coming::ResetEnds(process), SECOND);
        }
    }

    pub(super) fn end_reset(&mut self, process: u64) {
        if self
            .litestream
            .reset
            .take_if(|reset| *reset == process)
            .is_none()
        {
            return;
        }
        if self.strikes(Fault::BadStarts, 5) {
            let why = "it failed".to_owned();
            return self.tell(Event::StateReset(Err(why)));
        }
        self.litestream.corrupt = false;
        let was_reset = self.watched().replica.survey().wal_was_reset;
        self.watched_mut().replica.drop_files();
        let continues = !was_reset && self.chance.one_in(2);
        self.tell(Event::StateReset(Ok(continues)));
    }

    pub(super) fn start_survey(&mut self) {
        self.litestream.was_surveyed = false;
        // It has to be emptied once more, or not.
        self.wal_stays = false;
        let process = self.new_process();
        self.litestream.survey = Some(process);
        if !self.strikes(Fault::BadStarts, 200) {
            let wait = self.chance.scale(SECOND / 200, 10 * SECOND);
            self.expect(Coming::SurveyEnds(process), wait);
        }
    }

    pub(super) fn end_survey(&mut self, process: u64) {
        let survey = &mut self.litestream.survey;
        if survey.take_if(|survey| *survey == process).is_none() {
            return;
        }
        self.litestream.was_surveyed = true;
        let survey = match self.strikes(Fault::BadStarts, 50) {
            true => Err("it was killed".to_owned()),
            false => Ok(self.watched().replica.survey()),
        };
        self.tell(Event::Surveyed(survey));
    }

    pub(super) fn start_emptying(&mut self) {
        let process = self.new_process();
        self.litestream.emptying = Some(process);
        if !self.strikes(Fault::BadStarts, 50) {
            let wait = self.chance.scale(SECOND / 100, 5 * MINUTE);
            self.expect(Coming::EmptyingEnds(process), wait);
        }
    }

    /// It can be emptied where no Litestream has the database open.
    pub(super) fn end_emptying(&mut self, process: u64) {
        let emptying = &mut self.litestream.emptying;
        if emptying.take_if(|emptying| *emptying == process).is_none() {
            return;
        }
        let is_held = self.guard || self.litestream_holds_wal();
        self.wal_stays = is_held || !self.weather.disk || self.strikes(Fault::Busy, 20);
        let emptied = match self.wal_stays {
            true => Err("it is read".to_owned()),
            false => {
                self.watched_mut().empty_wal();
                Ok(())
            }
        };
        self.tell(Event::WalEmptied(emptied));
    }

    /// Takes and uploads what there is; false where it can't.
    pub(super) fn replicate(&mut self) -> bool {
        let is_guarded = self.guard;
        let database = self.served_mut();
        let was_sound = database.replica.is_sound;
        let done = database.replicate();
        let is_sound = database.replica.is_sound;
        if done && !is_guarded {
            database.checkpoint_by_litestream();
        }
        if was_sound && !is_sound {
            self.coverage.happened(Happening::WrongReplica);
        }
        done
    }

    pub(super) fn can_replicate(&self) -> bool {
        let skewed = self.device.wall_offset.unsigned_abs() > 15 * 60;
        let weather = &self.weather;
        let able = !self.litestream.corrupt && !self.litestream.stuck;
        weather.s3 && weather.network && self.lives() && !skewed && able && self.served().there
    }

    /// The session that Litestream has did not end yet.
    fn lives(&self) -> bool {
        let litestream = &self.litestream;
        let own = self.time < litestream.credentials_end;
        match litestream.rotation {
            // It asks before those that it has have ended, as it was told.
            Rotation::Refresh if !litestream.is_deaf => own || self.time < self.cloud.granted_until,
            _ => own,
        }
    }

    pub(super) fn litestream_sees_clock(&mut self, was: i64, is: i64) {
        let granted_until = self.cloud.granted_until;
        let litestream = &mut self.litestream;
        litestream.clock_went_back |= is < was;
        // A little less is within what an SDK is told early.
        if is < was - 5 && !litestream.is_deaf {
            litestream.is_deaf = true;
            litestream.credentials_end = granted_until;
        }
    }

    pub(super) fn child_is_up(&self, process: u64) -> bool {
        let child = self.policy.supervisor == SupervisorKind::Child;
        child && self.litestream.up && self.litestream.process == process
    }
}
