//! The policy, promise by promise: the agent is told a story and asked what it does.

use std::collections::VecDeque;
use std::time::Duration;

use super::renewal::renewal_age;
use super::*;
use crate::credentials::FailureClass;
use crate::litestream::answer::{Answer, Files, Position};
use crate::litestream::chain::{Chain, Listing};

mod creation;
mod following;
mod hand_over;
mod renewal;
mod rpo;
mod slow_line;
mod start;
mod thrift;
mod verification;

const SECOND: Duration = Duration::from_secs(1);

const MINUTE: Duration = Duration::from_secs(60);

const HOUR: Duration = Duration::from_secs(3600);

/// The first database of a device.
const DB: Database = Database(0);
const OTHER: Database = Database(1);

/// How a database is watched; with heartbeat rows, or without.
fn watch(database: Database, rows: bool) -> Watch {
    Watch {
        database,
        name: format!("/data/{}.db", database.0).into(),
        rows,
        wal_guard: Some(64 << 20),
    }
}

/// What Litestream answers, again and again.
type Says = Result<(), SyncFailure>;

const FOLLOWS: Says = Ok(());

/// An agent and its time.
struct Story {
    agent: Agent,
    /// The wall clock goes along with the boot clock.
    now: Now,
    /// What somebody set the wall clock by, in seconds.
    step: i64,
    /// Litestream's last transaction, where it follows.
    transaction: u64,
    /// What it has sent; `None` where that can't be seen.
    sent: Option<Sent>,
}

impl Story {
    fn begin(supervisor: SupervisorKind) -> Self {
        Self::rotating(supervisor, Some(Rotation::Restart))
    }

    fn rotating(supervisor: SupervisorKind, rotation: Option<Rotation>) -> Self {
        Self::of(supervisor, rotation, vec![watch(DB, true)])
    }

    /// A device with these databases.
    fn with(databases: Vec<Watch>) -> Self {
        Self::of(SupervisorKind::Child, Some(Rotation::Restart), databases)
    }

    fn of(supervisor: SupervisorKind, rotation: Option<Rotation>, databases: Vec<Watch>) -> Self {
        let policy = Policy {
            renew_before: 5 * MINUTE,
            rpo: Rpo::new(36 * SECOND),
            rpo_metered: Rpo::new(HOUR),
            heartbeat: Some(5 * SECOND),
            prune: false,
            supervisor,
            rotation,
            restorable: None,
            verify: None,
            litestream: None,
            databases,
        };
        let now = Now {
            boot: BootTime::default(),
            wall: WallTime::from_unix(1_800_000_000),
        };
        Self {
            agent: Agent::new(policy, 1, now),
            now,
            step: 0,
            transaction: 0,
            sent: Some(Sent::default()),
        }
    }

    /// A child that was just started, with credentials for an hour.
    fn started() -> Self {
        let mut story = Self::begin(SupervisorKind::Child);
        assert!(story.tell(Event::Tick).contains(&Action::Fetch));
        story.tell(Event::Row(DB, Ok(1)));
        story.tell(Event::GuardTaken(DB, Ok(())));
        assert!(
            story
                .tell(granted(HOUR))
                .contains(&Action::Start(Rotation::Restart))
        );
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(DB, Ok(2)));
        story
    }

    /// A child that replicates.
    fn replicating() -> Self {
        let mut story = Self::started();
        story.prove();
        story
    }

    /// It answers for the first time, and for a second one, as it is asked with a new row.
    fn prove(&mut self) {
        self.follows();
        assert_eq!(self.tell(Event::Row(DB, Ok(3))), [Action::Sync(DB)]);
        self.follows();
        assert_eq!(self.report().replication, Activity::Replicating);
    }

    fn activity(&self) -> (Activity, BootTime, Option<&str>) {
        let first = self.agent.databases.get(DB).expect("the database");
        let follows = first.replica.follows();
        let (activity, since, trouble) = self.agent.replicator.activity(follows);
        (activity, since, first.trouble.as_deref().or(trouble))
    }

    /// What the agent does, its words to the log left out. Before a start it finds all in order.
    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut actions = self.tell_alone(event);
        if let Some(survey) = actions.iter().position(|a| *a == Action::Survey(DB)) {
            let start = self.tell_alone(Event::Surveyed(DB, Ok(Survey::default())));
            actions.splice(survey..=survey, start);
        }
        actions
    }

    /// The same, with every step of a start.
    fn tell_alone(&mut self, event: Event) -> Vec<Action> {
        let boot = self.now.boot.since_boot().as_secs() as i64;
        self.now.wall = WallTime::from_unix(1_800_000_000 + boot + self.step);
        let mut actions = self.agent.handle(event, self.now);
        if actions.contains(&Action::Understand) {
            let named = Event::Understood(Ok(Named::default()));
            actions.extend(self.agent.handle(named, self.now));
        }
        while let Some(at) = actions.iter().position(|a| *a == Action::MeasureUpload) {
            let seen = self.sent.ok_or("it is another user's".to_owned());
            let done = self.agent.handle(Event::Measured(seen), self.now);
            actions.splice(at..=at, done);
        }
        actions.retain(|action| {
            !matches!(
                action,
                Action::Log(..) | Action::Recall(_) | Action::Remember(..) | Action::Understand
            )
        });
        actions
    }

    /// Lets time pass, with rows written all along, and a WAL that can be emptied; answers with what else was done, and when.
    fn pass(&mut self, span: Duration) -> Vec<(Duration, Action)> {
        let begun = self.now.boot;
        let end = begun + span;
        let mut done = Vec::new();
        while self.agent.deadline() <= end {
            self.now.boot = self.agent.deadline();
            let mut actions = VecDeque::from(self.tell(Event::Tick));
            while let Some(action) = actions.pop_front() {
                match action {
                    Action::WriteRow(DB) => drop(self.tell(Event::Row(DB, Ok(7)))),
                    Action::EmptyWal(DB) => {
                        actions.extend(self.tell(Event::WalEmptied(DB, Ok(()))))
                    }
                    other => done.push((self.now.boot.since(begun), other)),
                }
            }
        }
        self.now.boot = end;
        done
    }

    /// Litestream follows, and answers so; and it tells what it replicates, where it is asked.
    fn follows(&mut self) -> Vec<Action> {
        let said = self.say(&FOLLOWS);
        let actions = self.tell(said);
        if actions.contains(&Action::List) {
            self.tell(Event::Listed(Vec::new()));
        }
        actions
    }

    /// What Litestream says: where it follows, one transaction more each time.
    fn say(&mut self, answer: &Says) -> Event {
        self.transaction += 1;
        Event::Synced(DB, answer.clone().map(|()| position(self.transaction)))
    }

    /// Lets time pass with a Litestream that answers each sync so, and ends and starts as it is told;
    /// answers with how often it was.
    fn pass_answering(&mut self, span: Duration, answer: &Says) -> usize {
        let end = self.now.boot + span;
        let mut restarts = 0;
        while self.agent.deadline() <= end {
            self.now.boot = self.agent.deadline();
            let mut actions = VecDeque::from(self.tell(Event::Tick));
            while let Some(action) = actions.pop_front() {
                let came_of_it = match action {
                    Action::WriteRow(DB) => Event::Row(DB, Ok(7)),
                    Action::Sync(DB) => self.say(answer),
                    Action::Terminate => Event::Exited("exit status: 0".to_owned()),
                    Action::Start(_) => {
                        restarts += 1;
                        Event::Started(Ok(()))
                    }
                    _ => continue,
                };
                actions.extend(self.tell(came_of_it));
            }
        }
        self.now.boot = end;
        restarts
    }

    fn reload_without_heartbeat(&mut self) {
        let mut policy = self.agent.policy.clone();
        policy.heartbeat = None;
        self.tell(Event::Reloaded(policy));
    }

    /// The time until the next fetch, all else being quiet.
    fn next_fetch(&mut self, within: Duration) -> Option<Duration> {
        let mut done = self.pass(within).into_iter();
        done.find_map(|(when, action)| (action == Action::Fetch).then_some(when))
    }

    fn report(&self) -> Report {
        self.agent.report(self.now)
    }
}

fn is_unhealthy(report: &Report) -> bool {
    matches!(report.state, State::Unhealthy(_))
}

fn has_problem(report: &Report, text: &str) -> bool {
    report
        .state
        .problems()
        .any(|problem| problem.contains(text))
}

fn granted(lifetime: Duration) -> Event {
    Event::Fetched(Ok(Lease {
        lifetime,
        server_time: None,
        phase: 0,
    }))
}

fn failed(class: FailureClass, retry_after: Option<Duration>) -> Event {
    let message = "it failed".to_owned();
    Event::Fetched(Err(FetchFailure {
        class,
        message,
        retry_after,
    }))
}

/// A commit that is marked so, a page of the WAL after the one before.
fn commit(mark: u64) -> Commit {
    Commit {
        mark,
        wal: 1,
        bytes: mark << 12,
    }
}

fn position(at: u64) -> Answer {
    Answer {
        position: Position {
            local: at,
            replicated: at,
        },
        files: None,
        last_commit: None,
        passed_a_wal_over: None,
        lacks_beginning: false,
        is_torn: None,
        is_of_seam: true,
    }
}
