//! The laws that the agent obeys whatever happens, each a type of its own, checked from the outside.
//!
//! Owns what a law is, the list of all laws, and for how long each was in force. A law that never is
//! says "well" of what it did not look at. Knows of the agent only what the agent shows, and of the
//! world only what it is told at each step ([`Sight`]).

use std::time::Duration;

use edgerepl::agent::{Action, Activity, Database, Event, Glance, Report};

use crate::world::Time;

mod credentials;
mod end;
mod guard;
mod held;
mod line;
mod past;
mod proof;
mod recovery;
mod restorable;
mod start;
mod verification;

pub(crate) use past::{Past, Sight};

/// A promise that can be put to the test at any step.
trait Law: Default {
    /// What the table and a failure call it.
    const NAME: &'static str;

    /// Whether it says anything at a moment like this one.
    fn applies(&self, past: &Past) -> bool;

    /// Puts it to the test, if the step is one that it speaks of.
    fn judge(&mut self, step: &Step<'_>, past: &Past) -> Verdict;
}

/// What a law is shown.
pub(crate) enum Step<'a> {
    /// edgerepl starts: what an earlier run knew is gone, but for what it left on tmpfs.
    Begins,
    /// The agent is about to be told this.
    Event(&'a Event),
    /// The agent wants this done, and it is about to be.
    Action(&'a Action),
    /// The WAL was reset, and Litestream had not read it all.
    WalReset,
    /// All that was to be told was, and what came of it; whether something is left that is due.
    Turned { is_due: bool },
    /// The agent is looked at, whether it was just told something or not.
    Look(Glance),
    /// And what it says in words.
    Report(&'a Report),
    /// Litestream has listed the database, and the agent does not watch it.
    Ignored,
}

impl Step<'_> {
    /// The database that it is about, if it is about one alone.
    pub(crate) fn about(&self) -> Option<Database> {
        match self {
            Self::Event(
                Event::Surveyed(of, _)
                | Event::Synced(of, _)
                | Event::StateReset(of, _)
                | Event::WalEmptied(of, _)
                | Event::Row(of, _)
                | Event::DatabaseMissing(of)
                | Event::LastCommit(of, _)
                | Event::Looked(of, _)
                | Event::GuardTaken(of, _)
                | Event::WalTooLarge(of)
                | Event::Recalled(of, _)
                | Event::Inherited(of, _)
                | Event::LookedAhead(of, _)
                | Event::Planned(of, _)
                | Event::Verified(of, _)
                | Event::Snapshotted(of, _),
            )
            | Self::Action(
                Action::Survey(of)
                | Action::Sync(of)
                | Action::ResetState(of)
                | Action::EmptyWal(of)
                | Action::Recall(of)
                | Action::Remember(of, _)
                | Action::WriteRow(of)
                | Action::AskRowBefore(of, _)
                | Action::LookForCommit(of)
                | Action::LookForReplica(of)
                | Action::AbandonLook(of)
                | Action::WriteFirstRow(of)
                | Action::LookAhead(of)
                | Action::AbandonLookAhead(of)
                | Action::PlanRestore(of)
                | Action::AbandonPlan(of)
                | Action::Verify(of)
                | Action::AbandonVerify(of)
                | Action::MakeSnapshot(of, _)
                | Action::Prune(of)
                | Action::TakeGuard(of)
                | Action::ReleaseGuard(of)
                | Action::AbandonGuard(of),
            ) => Some(*of),
            _ => None,
        }
    }
}

/// What a law says of a step.
enum Verdict {
    /// It does not speak of it.
    Silent,
    Kept,
    /// Why.
    Broken(String),
}

/// A law that was broken.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) law: &'static str,
    pub(crate) why: String,
    pub(crate) time: Time,
}

/// How often a law was put to the test, and for how long it was in force.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Record {
    pub(crate) law: &'static str,
    pub(crate) applied: Duration,
    pub(crate) tests: u64,
}

/// A law with its record.
#[derive(Debug, Default)]
struct Kept<L> {
    law: L,
    applied: Duration,
    tests: u64,
}

impl<L: Law> Kept<L> {
    #[inline(always)]
    fn observe(&mut self, step: &Step<'_>, past: &Past) -> Option<Violation> {
        match step {
            Step::Begins => self.law = L::default(),
            Step::Look(_) if self.law.applies(past) => self.applied += past.since_last_look,
            _ => {}
        }
        match self.law.judge(step, past) {
            Verdict::Silent => {}
            Verdict::Kept => self.tests += 1,
            Verdict::Broken(why) => {
                return Some(Violation {
                    law: L::NAME,
                    why,
                    time: past.time,
                });
            }
        }
        None
    }

    fn record(&self) -> Record {
        Record {
            law: L::NAME,
            applied: self.applied,
            tests: self.tests,
        }
    }
}

/// All laws, in the order of the table.
macro_rules! laws {
    ($($field:ident: $law:ty,)+) => {
        #[derive(Debug, Default)]
        struct All { $($field: Kept<$law>),+ }

        impl All {
            fn observe(&mut self, step: &Step<'_>, past: &Past) -> Option<Violation> {
                $(if let Some(broken) = self.$field.observe(step, past) {
                    return Some(broken);
                })+
                None
            }

            fn records(&self) -> Vec<Record> {
                vec![$(self.$field.record()),+]
            }
        }
    };
}

laws! {
    nothing_left: end::NothingLeft,
    always_due: credentials::AlwaysDue,
    one_fetch: credentials::OneFetch,
    fetch_pace: credentials::FetchPace,
    clock_alone: credentials::ClockAlone,
    no_long_wait: credentials::NoLongWait,
    sdk_told: credentials::SdkTold,
    one_litestream: start::OneLitestream,
    live_credentials: start::LiveCredentials,
    reason_to_stop: start::ReasonToStop,
    can_start_again: start::CanStartAgain,
    known_wal: start::KnownWal,
    guard_wanted: guard::Wanted,
    guard_bounded: guard::Bounded,
    guard_let_go: guard::LetGo,
    guard_not_abandoned: guard::NotAbandoned,
    guard_at_stop: guard::AtStop,
    guard_while_down: guard::WhileDown,
    large_wal: guard::LargeWal,
    healthy_is_true: proof::HealthyIsTrue,
    proved_is_true: proof::ProvedIsTrue,
    watched: proof::Watched,
    each_is_well: proof::EachIsWell,
    words: proof::Words,
    debt_remembered: proof::DebtRemembered,
    damage_remembered: proof::DamageRemembered,
    debt_inherited: proof::DebtInherited,
    lost_is_kept: proof::LostIsKept,
    worst: held::WorstIsTrue,
    rows: recovery::Rows,
    credentials: recovery::Credentials,
    replication: recovery::Replication,
    asked_sync: recovery::AskedSync,
    hung: recovery::Hung,
    broken_state: recovery::BrokenState,
    moving: line::Moving,
    standing: line::Standing,
    not_healthy: restorable::NotHealthy,
    shared: restorable::Shared,
    stranger_named: restorable::StrangerNamed,
    starts_alone: restorable::StartsAlone,
    no_false_alarm: restorable::NoFalseAlarm,
    loss_remembered: restorable::LossRemembered,
    one_plan: restorable::OnePlan,
    planned: restorable::Planned,
    seen_in_time: restorable::SeenInTime,
    mended: restorable::Mended,
    mend_pace: restorable::MendPace,
    seen_twice: restorable::SeenTwice,
    not_a_strangers: restorable::NotAStrangers,
    while_stopped: restorable::WhileStopped,
    one_verify: verification::OneVerify,
    given_up: verification::GivenUp,
    verified: verification::Verified,
    differs: verification::NotHealthy,
    difference_remembered: verification::DifferenceRemembered,
    no_false_difference: verification::NoFalseDifference,
    difference_mended: verification::Mended,
    difference_alone: verification::MendedAlone,
    difference_pace: verification::MendPace,
    asked_end: end::Asked,
    timely_end: end::Timely,
    quiet_end: end::Quiet,
}

/// The laws, on watch over one life.
#[derive(Debug)]
pub(crate) struct Laws {
    past: Past,
    all: All,
    violation: Option<Violation>,
}

impl Laws {
    pub(crate) fn new() -> Self {
        Self {
            past: Past::new(),
            all: All::default(),
            violation: None,
        }
    }

    pub(crate) fn sleeps_until(&mut self, until: Time) {
        self.past.slept_until = until;
    }

    pub(crate) fn observe(&mut self, step: &Step<'_>, sight: Sight, time: Time) {
        self.past.before(step, sight, time);
        let violation = self.all.observe(step, &self.past);
        self.violation = self.violation.take().or(violation);
        self.past.after(step);
    }

    /// A step of the process while the database is not watched: it may be in the middle of it.
    pub(crate) fn overhear(&mut self, step: &Step<'_>, sight: Sight, time: Time) {
        self.past.before(step, sight, time);
        self.past.after(step);
    }

    /// Plans showed twice, or a verify once, that a snapshot has to be made, which is not made yet.
    pub(crate) fn awaits_snapshot(&self) -> bool {
        self.past.shown.awaits_snapshot() || self.past.compared.awaits_snapshot()
    }

    /// The first law that was broken.
    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.all.records()
    }

    /// How long the agent was looked at.
    pub(crate) fn watched(&self) -> Duration {
        self.past.watched
    }
}

impl Verdict {
    /// A law that is broken says why.
    fn of(is_kept: bool, why: impl FnOnce() -> String) -> Self {
        match is_kept {
            true => Self::Kept,
            false => Self::Broken(why()),
        }
    }

    fn is_kept(is_kept: bool, why: &str) -> Self {
        Self::of(is_kept, || why.to_owned())
    }
}

/// Whether the agent says that the replica follows.
pub(crate) fn follows(glance: &Glance) -> bool {
    glance.replication == Activity::Replicating
}
