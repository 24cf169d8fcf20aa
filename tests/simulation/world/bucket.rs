//! The prefix of a database in the bucket: what a restore would find there.
//!
//! Owns the truth that a plan shows, who hurts it, and when a plan and a new snapshot end. Never knows what
//! transactions are worth: that is `replica`'s.

use std::time::Duration;

use edgerepl::agent::{Event, SupervisorKind};
use edgerepl::clock::WallTime;
use edgerepl::litestream::chain::{Chain, Holdings, Listing, PlanFailure, Stranger};

use super::{Coming, DAY, HOUR, SECOND, Time, World, id};
use crate::coverage::Happening;
use crate::faults::Fault;

/// Fewer transactions leave no room to be rolled back in, of which an answer that lies may be three short.
const FEW: u64 = 10;

/// Litestream compacts so often.
const COMPACTION: Time = Duration::from_secs(30);

/// What a restore would find.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Truth {
    Whole,
    Nothing,
    Hole { after: u64 },
    Altered { at: u64 },
    RolledBack { last: u64 },
}

#[derive(Debug)]
pub(super) struct Bucket {
    truth: Truth,
    /// An object was overwritten by something of the same size, which no plan shows.
    is_garbled: bool,
    /// Another device writes to it, too.
    stranger: Option<Stranger>,
    /// Somebody forbade its lists.
    pub(super) refuses_lists: bool,
    /// A rule deletes until then.
    rule_ends: Time,
    /// It has, at any time.
    pub(super) stranger_came: bool,
    /// What is under way.
    pub(super) ahead: Option<u64>,
    pub(super) plan: Option<u64>,
    pub(super) snapshot: Option<u64>,
    /// From then on the Litestream that makes the snapshot has the database open,
    opened: Time,
    /// and its credentials end then.
    session_ends: Time,
}

impl Bucket {
    pub(super) fn new() -> Self {
        Self {
            truth: Truth::Whole,
            is_garbled: false,
            stranger: None,
            refuses_lists: false,
            rule_ends: Duration::ZERO,
            stranger_came: false,
            ahead: None,
            plan: None,
            snapshot: None,
            opened: Duration::ZERO,
            session_ends: Duration::ZERO,
        }
    }

    /// A plan would show that no restore brings all back.
    pub(super) fn is_broken(&self) -> bool {
        self.truth != Truth::Whole || self.stranger.is_some()
    }

    /// A restore would give other bytes than were uploaded, or none at all.
    pub(super) fn gives_other_bytes(&self) -> bool {
        self.is_garbled || self.is_broken()
    }

    /// A restore would give something.
    pub(super) fn is_readable(&self) -> bool {
        matches!(self.truth, Truth::Whole | Truth::RolledBack { .. })
    }

    /// Litestream has the database open to make a snapshot of it.
    pub(super) fn holds_wal(&self, time: Time) -> bool {
        self.snapshot.is_some() && self.opened <= time
    }

    /// What a plan shows of it, when so many transactions were uploaded, and the files of an older copy are
    /// `passed` by that one. Another device uploads one every few seconds.
    fn listing(&self, newest: u64, passed: Option<u64>, time: Time) -> Listing {
        let whole = |last| {
            Chain::Whole(Holdings {
                files: 1,
                bytes: 4096,
                last,
                oldest: WallTime::from_unix(0),
                newest: WallTime::from_unix(0),
            })
        };
        Listing {
            chain: match self.truth {
                Truth::Whole => whole(newest),
                Truth::Nothing => Chain::Nothing,
                Truth::Hole { after } => Chain::Hole { after },
                Truth::Altered { at } => Chain::Altered { at },
                Truth::RolledBack { last } => whole(last),
            },
            stranger: match self.stranger {
                Some(Stranger::Ahead { .. }) => Some(Stranger::Ahead {
                    at: theirs(newest, time),
                }),
                Some(Stranger::Differing { .. }) => Some(Stranger::Differing {
                    at: theirs(newest, time),
                }),
                None => passed.map(|at| Stranger::Ahead { at }),
            },
        }
    }
}

/// The newest transaction of another device, beside this one's.
fn theirs(newest: u64, time: Time) -> u64 {
    newest + 7 + time.as_secs() / 5
}

impl World {
    /// Somebody's hand in the bucket.
    pub(super) fn hurt_bucket(&mut self, number: usize) {
        match self.chance.below(14) {
            0..=6 => self.damage(number),
            7 => {
                self.coverage.happened(Happening::DeletingRule);
                let days = self.chance.scale(2 * HOUR, 10 * DAY);
                self.databases[number].bucket.rule_ends = self.time + days;
                self.delete_by_rule(number);
            }
            8..=10 => {
                self.coverage.happened(Happening::ListsRefused);
                self.databases[number].bucket.refuses_lists = true;
                self.expect_sometime(Coming::ListsAllowed(number), HOUR, 5 * DAY);
            }
            11..=12 => self.garble(number),
            _ => {
                self.coverage.happened(Happening::StrangerCame);
                let signs = [Stranger::Ahead { at: 0 }, Stranger::Differing { at: 0 }];
                self.databases[number].bucket.stranger = Some(self.chance.pick(&signs));
                self.databases[number].bucket.stranger_came = true;
                self.expect_sometime(Coming::StrangerGoes(number), HOUR, 10 * DAY);
            }
        }
        self.look_in();
        self.expect(Coming::Complains(number), COMPACTION);
        self.expect_sometime(Coming::BucketHurt(number), HOUR, 60 * DAY);
    }

    /// It deletes what is older than an hour, again and again.
    pub(super) fn delete_by_rule(&mut self, number: usize) {
        if self.time < self.databases[number].bucket.rule_ends {
            self.damage(number);
            self.look_in();
            self.expect(Coming::RuleDeletes(number), HOUR);
        }
    }

    /// Litestream says so, as long as that is so.
    pub(super) fn complains(&mut self, number: usize) {
        let is_up = self.litestream.up && self.policy.supervisor == SupervisorKind::Child;
        if !self.databases[number].bucket.is_broken() {
            return;
        }
        if is_up {
            self.tell(Event::Complained);
        }
        if !self.chance.one_in(4) {
            self.expect(Coming::Complains(number), COMPACTION);
        }
    }

    pub(super) fn allow_lists(&mut self, number: usize) {
        self.databases[number].bucket.refuses_lists = false;
        self.look_in();
    }

    pub(super) fn stranger_goes(&mut self, number: usize) {
        self.coverage.happened(Happening::StrangerWent);
        self.databases[number].bucket.stranger = None;
        self.look_in();
    }

    /// No list shows it.
    fn garble(&mut self, number: usize) {
        if !self.databases[number].replica.is_empty() {
            self.coverage.happened(Happening::Garbled);
            self.databases[number].bucket.is_garbled = true;
        }
    }

    fn damage(&mut self, number: usize) {
        let newest = self.databases[number].replica.newest();
        if newest == 0 {
            return;
        }
        let now = self.now();
        let proof = self.agent.glance_at(id(number), now);
        let proved = proof
            .and_then(|glance| glance.proof)
            .map(|proof| proof.position.replicated);
        // Before what is proved, and will be.
        let last = proved.unwrap_or(newest).min(newest / 2).saturating_sub(4);
        let after = self.chance.below(newest);
        let truths = [
            Truth::Nothing,
            Truth::Hole { after },
            Truth::Hole { after },
            Truth::Altered { at: after + 1 },
            match last {
                0 => Truth::Nothing,
                _ if newest < FEW => Truth::Nothing,
                _ => Truth::RolledBack { last },
            },
        ];
        let truth = self.chance.pick(&truths);
        self.coverage.happened(match truth {
            Truth::RolledBack { .. } => Happening::RolledBack,
            _ => Happening::ObjectsLost,
        });
        self.databases[number].bucket.truth = truth;
    }

    pub(super) fn start_look_ahead(&mut self, number: usize) {
        let process = self.new_process();
        self.databases[number].bucket.ahead = Some(process);
        if !self.strikes(Fault::Bucket, 30) {
            let wait = self.chance.scale(SECOND / 10, 15 * SECOND);
            self.expect(Coming::LookAheadEnds(process), wait);
        }
    }

    pub(super) fn end_look_ahead(&mut self, process: u64) {
        let Some(number) = self.number_of(|database| &mut database.bucket.ahead, process) else {
            return;
        };
        let replica = &self.databases[number].replica;
        let (newest, passed) = (replica.newest(), replica.passed_by());
        let bucket = &self.databases[number].bucket;
        let reached = self.reaches_bucket(self.cloud.granted_until);
        let result = if !self.plans_restores || !reached || bucket.refuses_lists {
            Err("it may not list".to_owned())
        } else {
            let theirs = bucket.stranger.map(|_| theirs(newest, self.time));
            Ok(theirs.or(passed))
        };
        self.tell(Event::LookedAhead(id(number), result));
    }

    pub(super) fn start_plan(&mut self, number: usize) {
        let process = self.new_process();
        self.databases[number].bucket.plan = Some(process);
        if self.strikes(Fault::Bucket, 50) {
            return self.coverage.happened(Happening::PlanHung);
        }
        let wait = self.chance.scale(SECOND * 3 / 10, 30 * SECOND);
        self.expect(Coming::PlanEnds(process), wait);
    }

    pub(super) fn end_plan(&mut self, process: u64) {
        let Some(number) = self.number_of(|database| &mut database.bucket.plan, process) else {
            return;
        };
        let replica = &self.databases[number].replica;
        let (newest, passed) = (replica.newest(), replica.passed_by());
        let reached = self.reaches_bucket(self.cloud.granted_until);
        let result = if !self.plans_restores {
            Err(PlanFailure::Unsupported)
        } else if !reached || self.databases[number].bucket.refuses_lists {
            Err(PlanFailure::Failed("it may not list".to_owned()))
        } else if self.strikes(Fault::Bucket, 300) {
            // A compaction moves objects while they are listed.
            self.coverage.happened(Happening::CompactionRace);
            let after = newest.saturating_sub(1);
            let listing = self.databases[number]
                .bucket
                .listing(newest, passed, self.time);
            let chain = Chain::Hole { after };
            Ok(Listing { chain, ..listing })
        } else {
            let bucket = &self.databases[number].bucket;
            Ok(bucket.listing(newest, passed, self.time))
        };
        self.tell(Event::Planned(id(number), result));
    }

    /// A Litestream of its own, which systemd's unit makes room for.
    pub(super) fn start_snapshot(&mut self, number: usize) {
        self.litestream.up = false;
        let process = self.new_process();
        let (opened, session_ends) = (self.time + SECOND / 2, self.cloud.granted_until);
        let bucket = &mut self.databases[number].bucket;
        bucket.snapshot = Some(process);
        bucket.opened = opened;
        bucket.session_ends = session_ends;
        if !self.strikes(Fault::BadStarts, 20) {
            let wait = self.chance.scale(SECOND, 2 * HOUR);
            self.expect(Coming::SnapshotEnds(process), wait);
        }
    }

    pub(super) fn end_snapshot(&mut self, process: u64) {
        let Some(number) = self.number_of(|database| &mut database.bucket.snapshot, process) else {
            return;
        };
        let made = if !self.begins_snapshot(number) {
            Err("it is away".to_owned())
        } else if self.strikes(Fault::Bucket, 10) {
            // Its transactions were uploaded.
            Err("it is too large".to_owned())
        } else {
            self.coverage.happened(Happening::BucketMended);
            let database = &mut self.databases[number];
            database.bucket.truth = Truth::Whole;
            database.bucket.is_garbled = false;
            database.is_uploaded_whole();
            // Whoever wanted to have the WAL emptied has what that is for.
            database.wal_stays = false;
            database.emptying_is_needless = database.emptying.is_some();
            Ok(())
        };
        self.tell(Event::Snapshotted(id(number), made));
    }

    /// Those that are under way are killed, before or after they uploaded transactions.
    pub(super) fn abandon_snapshots(&mut self) {
        for number in 0..self.databases.len() {
            let bucket = &self.databases[number].bucket;
            if bucket.holds_wal(self.time) && self.chance.one_in(2) {
                self.begins_snapshot(number);
            }
            self.databases[number].bucket.snapshot = None;
        }
    }

    /// Whatever Litestream does at a start comes before the snapshot; false where it can't.
    fn begins_snapshot(&mut self, number: usize) -> bool {
        let database = &mut self.databases[number];
        let is_able = database.there && !database.corrupt;
        let session_ends = database.bucket.session_ends;
        if !is_able || !self.reaches_bucket(session_ends) {
            return false;
        }
        self.databases[number].replica.starts();
        self.replicate(number)
    }

    pub(super) fn reaches_bucket(&self, session_ends: Time) -> bool {
        let skewed = self.device.wall_offset.unsigned_abs() > 15 * 60;
        self.weather.s3 && self.weather.network && !skewed && self.time < session_ends
    }
}
