//! Litestream: a process that may die, hang or lie, and what it answers.
//!
//! Owns the process and the requests that it was sent. What it does with files and the replica is
//! `replica`'s; who wants it started or stopped is no affair of its.

use std::time::Duration;

use edgerepl::agent::{Event, Named, SupervisorKind, Watch};
use edgerepl::config::Rotation;
use edgerepl::litestream::answer::{Answer, Position, SyncFailure};

use super::database::Database;
use super::line::Upload;
use super::{Coming, DAY, HOUR, MINUTE, SECOND, Time, World, id};
use crate::coverage::Happening;
use crate::faults::Fault;

#[derive(Debug)]
pub(super) struct Litestream {
    pub(super) process: u64,
    pub(super) up: bool,
    pub(super) terminated: u32,
    credentials_end: Time,
    rotation: Rotation,
    /// It asks for no others: the clock went back, by which it counts.
    is_deaf: bool,
    /// The clock went back at all since the start was asked for.
    clock_went_back: bool,
    /// It runs, and does nothing any more.
    pub(super) stuck: bool,
    /// systemd restarts it.
    pub(super) restarts: bool,
    /// What it uploads over a line that is slow.
    pub(super) upload: Option<Upload>,
}

impl Litestream {
    pub(super) fn new() -> Self {
        Self {
            process: 0,
            up: false,
            terminated: 0,
            credentials_end: Duration::ZERO,
            rotation: Rotation::Restart,
            is_deaf: false,
            clock_went_back: false,
            stuck: false,
            restarts: false,
            upload: None,
        }
    }

    /// When the credentials end that it was started with, where it asks for no others.
    pub(super) fn credentials_end(&self) -> Option<Time> {
        (self.rotation == Rotation::Restart).then_some(self.credentials_end)
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
        self.restarts = false;
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
        let litestream = &mut self.litestream;
        litestream.up = true;
        litestream.terminated = 0;
        litestream.credentials_end = self.cloud.granted_until;
        litestream.is_deaf = false;
        litestream.stuck = false;
        litestream.upload = None;
        let process = litestream.process;
        for database in &mut self.databases {
            database.is_served = database.is_in_yaml;
            database.is_listed = false;
            // Its monitor's first tick.
            database.holds_wal_from = self.time + SECOND;
            if database.is_served {
                database.replica.starts();
            }
        }
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
        let mut can_sync = true;
        for number in 0..self.databases.len() {
            if !self.databases[number].is_served {
                continue;
            }
            let can_replicate = self.can_replicate(number);
            can_sync &= can_replicate;
            if can_replicate && self.databases[number].replica.is_open() {
                self.replicate(number);
            }
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
        self.cut_upload();
        for database in &mut self.databases {
            database.was_surveyed = false;
            database.sync = None;
        }
        self.tell(Event::Exited("it ended".to_owned()));
        // The worst moment for it.
        for number in 0..self.databases.len() {
            self.checkpoint_now(number);
        }
    }

    pub(super) fn start_sync(&mut self, number: usize) {
        // A queue that is full for a moment; not twice.
        let was_busy = self.databases[number].was_busy;
        let is_busy = !was_busy && self.strikes(Fault::Busy, 50);
        self.databases[number].was_busy = is_busy;
        if !self.litestream.up || is_busy {
            self.databases[number].sync = None;
            let failure = Err(SyncFailure::NoSocket);
            return self.news.push_back(Event::Synced(id(number), failure));
        }
        let request = self.new_process();
        self.databases[number].sync = Some(request);
        let wait = if !self.databases[number].is_served {
            SECOND / 10
        } else if let Some(wait) = self.upload_takes(number) {
            wait
        } else if self.can_replicate(number) {
            // It opens the database for it, where it has not yet.
            let opened = &mut self.databases[number].holds_wal_from;
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
        let Some(number) = self.number_of(|database| &mut database.sync, request) else {
            return;
        };
        self.end_upload();
        let answer = if !self.databases[number].is_served {
            Err(SyncFailure::Failed("it knows no such database".to_owned()))
        } else if self.databases[number].corrupt {
            Err(SyncFailure::StateCorrupt("ltx file corrupted".to_owned()))
        } else if self.can_replicate(number) && self.strikes(Fault::KilledWriters, 4000) {
            // Litestream took the WAL up after a writer that was killed in the middle of a commit.
            self.replicate(number);
            self.databases[number].replica.spoil();
            // It says so, or its files show it.
            match self.chance.one_in(2) {
                true => Err(SyncFailure::BeginningMissed),
                false => Ok(Answer {
                    lacks_beginning: true,
                    ..self.answer(number)
                }),
            }
        } else if self.can_replicate(number) {
            match self.replicate(number) {
                true => Ok(self.answer(number)),
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
        self.tell(Event::Synced(id(number), answer));
    }

    /// What is answered is true, as a rule.
    fn answer(&mut self, number: usize) -> Answer {
        let known = self.agent.known(id(number));
        let database = &mut self.databases[number];
        let answer = database.replica.answer(known, database.commits);
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
        self.databases[number].replica.is_hurt = true;
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
            let served = self.watches(|database| database.is_served);
            for database in &mut self.databases {
                database.is_listed = database.is_served;
            }
            self.news.push_back(Event::Listed(served));
        }
    }

    /// What its configuration says, as far as it can be read.
    pub(super) fn understand(&mut self) {
        let understood = match self.yaml_is_unreadable {
            true => Err("it can't be parsed".to_owned()),
            false => Ok(Named {
                watches: self.watches(|database| database.is_in_yaml),
                change: false,
            }),
        };
        self.news.push_back(Event::Understood(understood));
    }

    fn watches(&self, which: impl Fn(&Database) -> bool) -> Vec<Watch> {
        let all = self.databases.iter().enumerate();
        let chosen = all.filter(|(_, database)| which(database));
        chosen
            .map(|(number, _)| Watch {
                database: id(number),
                name: format!("/data/{number}.db").into(),
                rows: false,
                wal_guard: Some(64 << 20),
            })
            .collect()
    }

    pub(super) fn start_reset(&mut self, number: usize) {
        self.litestream.up = false;
        let process = self.new_process();
        self.databases[number].reset = Some(process);
        if !self.strikes(Fault::BadStarts, 20) {
            self.expect(Coming::ResetEnds(process), SECOND);
        }
    }

    pub(super) fn end_reset(&mut self, process: u64) {
        let Some(number) = self.number_of(|database| &mut database.reset, process) else {
            return;
        };
        if self.strikes(Fault::BadStarts, 5) {
            let why = "it failed".to_owned();
            return self.tell(Event::StateReset(id(number), Err(why)));
        }
        let database = &mut self.databases[number];
        database.corrupt = false;
        let was_reset = database.replica.wal_was_reset();
        database.replica.drop_files();
        let continues = !was_reset && self.chance.one_in(2);
        self.tell(Event::StateReset(id(number), Ok(continues)));
    }

    pub(super) fn start_survey(&mut self, number: usize) {
        let process = self.new_process();
        let database = &mut self.databases[number];
        database.was_surveyed = false;
        // It has to be emptied once more, or not.
        database.wal_stays = false;
        database.survey = Some(process);
        if !self.strikes(Fault::BadStarts, 200) {
            let wait = self.chance.scale(SECOND / 200, 10 * SECOND);
            self.expect(Coming::SurveyEnds(process), wait);
        }
    }

    pub(super) fn end_survey(&mut self, process: u64) {
        let Some(number) = self.number_of(|database| &mut database.survey, process) else {
            return;
        };
        self.databases[number].was_surveyed = true;
        let survey = match self.strikes(Fault::BadStarts, 50) {
            true => Err("it was killed".to_owned()),
            false => {
                let database = &mut self.databases[number];
                Ok(database.replica.survey(database.commits, database.seam))
            }
        };
        self.tell(Event::Surveyed(id(number), survey));
    }

    pub(super) fn start_emptying(&mut self, number: usize) {
        let process = self.new_process();
        self.databases[number].emptying = Some(process);
        self.databases[number].emptying_is_needless = false;
        if !self.strikes(Fault::BadStarts, 50) {
            let wait = self.chance.scale(SECOND / 100, 5 * MINUTE);
            self.expect(Coming::EmptyingEnds(process), wait);
        }
    }

    /// It can be emptied where no Litestream has the database open.
    pub(super) fn end_emptying(&mut self, process: u64) {
        let Some(number) = self.number_of(|database| &mut database.emptying, process) else {
            return;
        };
        let is_held = self.databases[number].guard || self.litestream_holds_wal(number);
        let stays = is_held || !self.weather.disk || self.strikes(Fault::Busy, 20);
        let database = &mut self.databases[number];
        database.wal_stays = stays && !database.emptying_is_needless;
        let emptied = match stays {
            true => Err("it is read".to_owned()),
            false => {
                self.databases[number].empty_wal();
                Ok(())
            }
        };
        self.tell(Event::WalEmptied(id(number), emptied));
    }

    /// Takes and uploads what there is; false where it can't.
    pub(super) fn replicate(&mut self, number: usize) -> bool {
        let database = &mut self.databases[number];
        let was_sound = database.replica.is_sound;
        let done = database.replicate();
        if done && !database.guard {
            database.checkpoint_by_litestream();
        }
        if was_sound && !database.replica.is_sound {
            self.coverage.happened(Happening::WrongReplica);
        }
        done
    }

    pub(super) fn can_replicate(&self, number: usize) -> bool {
        let skewed = self.device.wall_offset.unsigned_abs() > 15 * 60;
        let (weather, database) = (&self.weather, &self.databases[number]);
        let able = !database.corrupt && !self.litestream.stuck;
        let is_free = self.litestream.upload.is_none();
        weather.s3
            && weather.network
            && self.lives()
            && !skewed
            && able
            && database.there
            && is_free
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
        let asks = litestream.rotation == Rotation::Refresh && !litestream.is_deaf;
        if is < was - 5 && asks {
            litestream.is_deaf = true;
            litestream.credentials_end = granted_until;
        }
    }

    pub(super) fn child_is_up(&self, process: u64) -> bool {
        let child = self.policy.supervisor == SupervisorKind::Child;
        child && self.litestream.up && self.litestream.process == process
    }
}
