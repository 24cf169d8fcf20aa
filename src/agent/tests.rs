//! The policy, promise by promise: the agent is told a story and asked what it does.

use std::collections::VecDeque;
use std::time::Duration;

use super::renewal::renewal_age;
use super::*;
use crate::credentials::FailureClass;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

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
}

impl Story {
    fn begin(supervisor: SupervisorKind) -> Self {
        Self::rotating(supervisor, Rotation::Restart)
    }

    fn rotating(supervisor: SupervisorKind, rotation: Rotation) -> Self {
        let policy = Policy {
            renew_before: 5 * MINUTE,
            heartbeat: Some(5 * SECOND),
            prune: false,
            supervisor,
            rotation,
            wal_guard: true,
            database: "/data/app.db".into(),
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
        }
    }

    /// A child that was just started, with credentials for an hour.
    fn started() -> Self {
        let mut story = Self::begin(SupervisorKind::Child);
        assert!(story.tell(Event::Tick).contains(&Action::Fetch));
        story.tell(Event::Row(Ok(1)));
        story.tell(Event::GuardTaken(Ok(())));
        assert!(
            story
                .tell(granted(HOUR))
                .contains(&Action::Start(Delivery::Environment))
        );
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(Ok(2)));
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
        assert_eq!(self.tell(Event::Row(Ok(3))), [Action::Sync]);
        self.follows();
        assert_eq!(self.report().replication, Activity::Replicating);
    }

    /// What the agent does, its words to the log left out.
    fn tell(&mut self, event: Event) -> Vec<Action> {
        let boot = self.now.boot.since_boot().as_secs() as i64;
        self.now.wall = WallTime::from_unix(1_800_000_000 + boot + self.step);
        let mut actions = self.agent.handle(event, self.now);
        actions.retain(|action| !matches!(action, Action::Log(..) | Action::Remember(_)));
        actions
    }

    /// Lets time pass, with rows written all along; answers with what else was done, and when.
    fn pass(&mut self, span: Duration) -> Vec<(Duration, Action)> {
        let begun = self.now.boot;
        let end = begun + span;
        let mut done = Vec::new();
        while self.agent.deadline() <= end {
            self.now.boot = self.agent.deadline();
            for action in self.tell(Event::Tick) {
                if action == Action::WriteRow {
                    self.tell(Event::Row(Ok(7)));
                } else {
                    done.push((self.now.boot.since(begun), action));
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
        Event::Synced(answer.clone().map(|()| position(self.transaction)))
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
                    Action::WriteRow => Event::Row(Ok(7)),
                    Action::Sync => self.say(answer),
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

fn position(at: u64) -> Answer {
    Answer {
        position: Position {
            local: at,
            replicated: at,
        },
        files: None,
        last_commit: None,
    }
}

#[test]
fn renews_ahead_of_the_end_without_a_storm_and_spread_over_a_fleet() {
    let age = |lifetime, before| renewal_age(lifetime, before, 0);
    assert_eq!(age(HOUR, 5 * MINUTE), 55 * MINUTE);
    assert_eq!(age(15 * MINUTE, 5 * MINUTE), 10 * MINUTE);
    // A lifetime shorter than the margin makes no storm,
    assert_eq!(age(30 * SECOND, 5 * MINUTE), 20 * SECOND);
    assert_eq!(age(SECOND, 5 * MINUTE), 5 * SECOND);
    // and a long one leaves time for an outage.
    assert_eq!(age(12 * HOUR, 5 * MINUTE), 12 * HOUR * 19 / 20);
    let spread = age(HOUR, 5 * MINUTE) - renewal_age(HOUR, 5 * MINUTE, u16::MAX);
    assert_eq!(spread, HOUR / 10);
}

#[test]
fn each_class_of_failure_has_its_pace() {
    for (class, least, most) in [
        (FailureClass::Transient, SECOND, 2 * SECOND),
        (FailureClass::Key, SECOND, 2 * SECOND),
        (FailureClass::Refused, 30 * SECOND, 60 * SECOND),
        (FailureClass::ClockNotSet, 5 * SECOND, 10 * SECOND),
        (FailureClass::WrongPin, 10 * SECOND, 15 * SECOND),
    ] {
        let mut story = Story::begin(SupervisorKind::Child);
        story.tell(Event::Tick);
        story.tell(failed(class, None));
        let wait = story.next_fetch(HOUR).expect("another fetch");
        assert!((least..=most).contains(&wait), "{class:?} waits {wait:?}");
    }
}

#[test]
fn failures_in_a_row_are_ever_further_apart_up_to_a_bound() {
    let mut story = Story::begin(SupervisorKind::Child);
    story.tell(Event::Tick);
    let mut longest = Duration::ZERO;
    for _ in 0..200 {
        story.tell(failed(FailureClass::Transient, None));
        longest = longest.max(story.next_fetch(HOUR).expect("another fetch"));
    }
    assert!((4 * MINUTE..=5 * MINUTE).contains(&longest), "{longest:?}");
}

#[test]
fn a_server_that_names_a_wait_is_given_it() {
    let mut story = Story::begin(SupervisorKind::Child);
    story.tell(Event::Tick);
    story.tell(failed(FailureClass::Transient, Some(10 * MINUTE)));
    story.now.boot = story.now.boot + MINUTE;
    assert!(!story.tell(Event::NetworkChanged).contains(&Action::Fetch));
    assert_eq!(story.next_fetch(HOUR), Some(9 * MINUTE));
}

#[test]
fn no_number_puts_the_next_fetch_off_for_ever() {
    for class in FailureClass::ALL {
        let mut story = Story::begin(SupervisorKind::Child);
        story.tell(Event::Tick);
        story.tell(failed(class, Some(Duration::MAX)));
        assert_eq!(story.next_fetch(HOUR), Some(15 * MINUTE), "{class:?}");
    }
}

/// How many fetches an hour sees whose answers are all the same, with something happening each tenth
/// of a second.
fn fetches_in_an_hour(answer: &Event, happens: Option<&Event>) -> usize {
    let mut story = Story::begin(SupervisorKind::Child);
    let mut fetches = 0;
    for _ in 0..36_000 {
        let mut actions = story.tell(Event::Tick);
        actions.extend(
            happens
                .into_iter()
                .flat_map(|event| story.tell(event.clone())),
        );
        while actions.contains(&Action::Fetch) {
            fetches += 1;
            actions = story.tell(answer.clone());
        }
        story.now.boot = story.now.boot + SECOND / 10;
    }
    fetches
}

#[test]
fn no_hour_sees_more_than_120_fetches_whatever_happens_in_it() {
    let policy = Story::begin(SupervisorKind::Child).agent.policy;
    let reloads = Event::Reloaded(policy);
    let grants = granted(HOUR);
    for answer in FailureClass::ALL
        .map(|class| failed(class, None))
        .iter()
        .chain([&grants])
    {
        for happens in [
            None,
            Some(&reloads),
            Some(&Event::NetworkChanged),
            Some(&Event::ClockStepped),
        ] {
            let fetches = fetches_in_an_hour(answer, happens);
            assert!(
                (1..=120).contains(&fetches),
                "{fetches} fetches by {answer:?} and {happens:?}"
            );
        }
    }
    // Credentials that are good, and somebody who reloads in a loop.
    assert!(fetches_in_an_hour(&grants, Some(&reloads)) <= 61);
    // Whose leases are short has them renewed all the same, hour after hour.
    let short = fetches_in_an_hour(&granted(30 * SECOND), None);
    assert!((170..=180).contains(&short), "{short}");
}

#[test]
fn a_reload_brings_one_fetch_forward_and_the_next_a_minute_later() {
    let mut story = Story::begin(SupervisorKind::Child);
    story.tell(Event::Tick);
    story.tell(failed(FailureClass::Refused, None));
    let reloads = Event::Reloaded(story.agent.policy.clone());
    story.now.boot = story.now.boot + 6 * SECOND;
    assert!(story.tell(reloads.clone()).contains(&Action::Fetch));
    story.tell(failed(FailureClass::Refused, None));
    for _ in 0..1000 {
        assert!(!story.tell(reloads.clone()).contains(&Action::Fetch));
    }
    let wait = story.report().renewal_in.expect("a fetch is due");
    assert!((30 * SECOND..=MINUTE).contains(&wait), "{wait:?}");
}

#[test]
fn whether_a_refused_pin_was_mended_is_looked_at_now_and_then() {
    let mut story = Story::begin(SupervisorKind::Child);
    story.tell(Event::Tick);
    story.tell(failed(FailureClass::WrongPin, None));
    for event in [Event::NetworkChanged, Event::ClockStepped] {
        assert!(!story.tell(event).contains(&Action::Fetch));
    }
    story.now.boot = story.now.boot + 5 * SECOND;
    let policy = story.agent.policy.clone();
    assert!(story.tell(Event::Reloaded(policy)).contains(&Action::Fetch));
}

#[test]
fn a_network_or_a_clock_that_is_back_is_tried_at_once() {
    // After twenty failures in a row a wait is up to 5 min; a network that flaps gets a minute.
    for (class, event, most) in [
        (FailureClass::Transient, Event::NetworkChanged, 61 * SECOND),
        (FailureClass::Transient, Event::ClockStepped, 5 * SECOND),
        (FailureClass::ClockNotSet, Event::ClockStepped, 5 * SECOND),
    ] {
        let mut story = Story::begin(SupervisorKind::Child);
        story.tell(Event::Tick);
        for turn in 0..40 {
            story.tell(failed(class, None));
            let mut wait = Duration::ZERO;
            if turn >= 20 && !story.tell(event.clone()).contains(&Action::Fetch) {
                wait = story.next_fetch(HOUR).expect("another fetch");
            } else if turn < 20 {
                story.next_fetch(HOUR);
            }
            assert!(wait <= most, "{class:?} waits {wait:?} after {event:?}");
        }
    }
}

#[test]
fn a_fetch_that_hangs_is_killed_and_one_that_cannot_die_is_left_behind() {
    let mut story = Story::begin(SupervisorKind::Child);
    story.tell(Event::Tick);
    let done = story.pass(36 * SECOND);
    assert!(done.contains(&(30 * SECOND, Action::KillFetch)), "{done:?}");
    assert!(
        done.contains(&(35 * SECOND, Action::AbandonFetch)),
        "{done:?}"
    );
    assert!(story.next_fetch(3 * MINUTE).is_some());
}

#[test]
fn a_daemon_that_waits_for_the_last_rows_drops_no_local_state() {
    let mut story = Story::started();
    assert_eq!(story.tell(Event::Terminate), []);
    let corrupt = Err(SyncFailure::StateCorrupt("ltx file corrupted".to_owned()));
    let said = story.say(&corrupt);
    assert_eq!(story.tell(said), []);
    let done = story.pass(15 * SECOND);
    let asked = done.iter().map(|(_, action)| action);
    assert_eq!(asked.last(), Some(&Action::Terminate), "{done:?}");
    let ended = story.tell(Event::Exited("exit status: 0".to_owned()));
    assert!(ended.contains(&Action::Exit), "{ended:?}");
}

#[test]
fn what_litestream_replicates_is_asked_until_it_tells() {
    let mut story = Story::started();
    for _ in 0..3 {
        let said = story.say(&FOLLOWS);
        assert!(story.tell(said).contains(&Action::List));
        story.pass(MINUTE);
    }
    story.tell(Event::Listed(Vec::new()));
    assert!(!story.follows().contains(&Action::List));
}

#[test]
fn a_hand_over_has_its_order() {
    let mut story = Story::replicating();
    story.pass_answering(55 * MINUTE, &FOLLOWS);
    let mut done = story.tell(granted(HOUR));
    done.extend(story.tell(Event::Row(Ok(3))));
    done.extend(story.tell(Event::GuardTaken(Ok(()))));
    done.extend(story.follows());
    done.extend(story.tell(Event::Exited("exit status: 0".to_owned())));
    done.extend(story.tell(Event::Started(Ok(()))));
    done.extend(story.tell(Event::Row(Ok(4))));
    done.extend(story.follows());
    done.dedup();
    let wanted = [
        Action::WriteRow,
        Action::TakeGuard,
        Action::Sync,
        Action::Terminate,
        Action::Start(Delivery::Environment),
        Action::WriteRow,
        Action::Sync,
        Action::List,
        Action::ReleaseGuard,
    ];
    assert_eq!(done, wanted);
    let report = story.report();
    assert_eq!((report.rotations, report.starts), (1, 2));
    assert_eq!(
        report.proof.map(|proof| proof.position.replicated),
        Some(story.transaction)
    );
}

#[test]
fn a_refresh_hands_over_without_a_restart_and_is_shown_to_have_worked() {
    for supervisor in [SupervisorKind::Child, SupervisorKind::Systemd] {
        let mut story = Story::rotating(supervisor, Rotation::Refresh);
        story.tell(Event::Tick);
        story.tell(Event::Row(Ok(1)));
        story.tell(Event::GuardTaken(Ok(())));
        story.tell(granted(HOUR));
        story.tell(Event::Row(Ok(2)));
        story.tell(Event::Synced(Err(SyncFailure::NoSocket)));
        assert_eq!(story.report().delivery, Some(Delivery::Process));
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(Ok(3)));
        story.prove();

        story.pass_answering(55 * MINUTE, &FOLLOWS);
        let mut done = story.tell(granted(HOUR));
        done.extend(story.tell(Event::Row(Ok(8))));
        assert_eq!(done, [Action::WriteRow, Action::Sync]);
        story.follows();
        let report = story.report();
        assert_eq!((report.rotations, report.starts), (1, 1));
        assert_eq!((report.last_gap, report.guard_held), (None, None));
        assert_eq!(report.lag.map(|lag| (lag.row, lag.rows)), Some((8, 0)));
    }
}

#[test]
fn an_sdk_whose_clock_went_back_gets_the_next_credentials_by_a_restart() {
    for (step, restarts) in [(-3600, true), (3600, false)] {
        let mut story = Story::rotating(SupervisorKind::Child, Rotation::Refresh);
        story.tell(Event::Tick);
        story.tell(granted(HOUR));
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(Ok(2)));
        story.follows();
        story.pass_answering(MINUTE, &FOLLOWS);
        story.step = step;
        // What it has is good for a while: nothing is done at once.
        assert!(!story.tell(Event::ClockStepped).contains(&Action::Terminate));
        story.pass_answering(54 * MINUTE, &FOLLOWS);
        story.tell(granted(HOUR));
        story.tell(Event::Row(Ok(8)));
        story.tell(Event::GuardTaken(Ok(())));
        let done = story.follows();
        assert_eq!(done.contains(&Action::Terminate), restarts, "{done:?}");
    }
}

#[test]
fn what_litestream_can_do_is_asked_once_and_the_restart_is_for_what_can_not_say() {
    let start = |story: &mut Story, probed: Result<Delivery, String>| {
        story.tell(Event::Tick);
        assert!(story.tell(granted(HOUR)).contains(&Action::Probe));
        story.tell(Event::Probed(probed))
    };
    for delivery in [Delivery::Process, Delivery::Environment] {
        let mut story = Story::rotating(SupervisorKind::Child, Rotation::Auto);
        let done = start(&mut story, Ok(delivery));
        assert!(done.contains(&Action::Start(delivery)), "{done:?}");
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Exited("signal: 9".to_owned()));
        let done = story.pass(10 * SECOND);
        let again = done
            .iter()
            .filter(|(_, action)| *action == Action::Start(delivery));
        assert_eq!(again.count(), 1, "{done:?}");
    }
    let mut story = Story::rotating(SupervisorKind::Child, Rotation::Auto);
    let done = start(&mut story, Err("it says nothing".to_owned()));
    assert!(
        done.contains(&Action::Start(Delivery::Environment)),
        "{done:?}"
    );
    // It may be mended by then.
    story.tell(Event::Started(Ok(())));
    story.tell(Event::Exited("signal: 9".to_owned()));
    let done = story.pass(10 * SECOND);
    assert!(
        done.iter().any(|(_, action)| *action == Action::Probe),
        "{done:?}"
    );
}

#[test]
fn a_replica_that_follows_is_asked_again_and_one_that_stops_is_noticed() {
    let mut story = Story::replicating();
    story.pass_answering(10 * MINUTE, &FOLLOWS);
    let lag = story.report().lag.expect("it was measured");
    assert!(lag.time <= 31 * SECOND && lag.rows <= 7, "{lag:?}");
    assert!(story.report().state.is_healthy());

    let failed = Err(SyncFailure::Failed("SlowDown".to_owned()));
    story.pass_answering(3 * MINUTE, &failed);
    let report = story.report();
    assert!(is_unhealthy(&report), "{report:?}");
    assert!(has_problem(&report, "SlowDown"), "{report:?}");
    let lag = report.lag.expect("it was measured");
    assert!(lag.time >= 3 * MINUTE && lag.rows >= 30, "{lag:?}");

    story.pass_answering(MINUTE, &FOLLOWS);
    assert!(story.report().state.is_healthy());
}

#[test]
fn what_is_proved_of_a_database_says_nothing_of_another() {
    let mut story = Story::replicating();
    let mut policy = story.agent.policy.clone();
    story.tell(Event::Reloaded(policy.clone()));
    assert!(story.report().state.is_healthy());
    policy.database = "/data/other.db".into();
    story.tell(Event::Reloaded(policy));
    let report = story.report();
    assert!(
        !report.state.is_healthy() && report.proof.is_none(),
        "{report:?}"
    );
    assert_eq!(story.agent.last_seen(), None);
}

#[test]
fn a_sync_that_is_late_is_named_asked_again_and_still_believed() {
    let mut story = Story::started();
    let done = story.pass(21 * SECOND);
    assert_eq!(done, [(20 * SECOND, Action::Greet)], "it was asked before");
    let (activity, _, trouble) = story.agent.replicator.activity();
    assert_eq!(activity, Activity::CatchingUp);
    let trouble = trouble.expect("it is late");
    assert!(trouble.contains("more than 20 s"), "{trouble}");
    // It is waited for, as long as Litestream needs to tell what fails it.
    story.tell(Event::Greeted);
    assert_eq!(story.pass(3 * MINUTE - 2 * SECOND), []);
    let done = story.pass(2 * SECOND);
    assert!(done.iter().any(|(_, a)| *a == Action::Sync), "{done:?}");
    story.prove();

    // What was asked for once more is answered before it is asked once more again.
    story.pass(60 * SECOND);
    assert_eq!(story.report().replication, Activity::CatchingUp);
    story.follows();
    assert_eq!(story.report().replication, Activity::Replicating);
}

#[test]
fn a_litestream_that_hangs_is_restarted_sooner_than_one_that_s3_keeps_waiting() {
    for (hangs, restarted_by) in [(true, 3 * MINUTE), (false, 7 * MINUTE)] {
        let mut story = Story::rotating(SupervisorKind::Child, Rotation::Refresh);
        story.tell(Event::Tick);
        story.tell(granted(12 * HOUR));
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(Ok(2)));
        story.pass_answering(10 * MINUTE, &FOLLOWS);
        let begun = story.now.boot;
        while story.agent.deadline() <= begun + HOUR {
            story.now.boot = story.agent.deadline();
            let mut actions = VecDeque::from(story.tell(Event::Tick));
            while let Some(action) = actions.pop_front() {
                match action {
                    Action::WriteRow => actions.extend(story.tell(Event::Row(Ok(7)))),
                    Action::Greet if !hangs => {
                        actions.extend(story.tell(Event::Greeted));
                    }
                    _ => {}
                }
            }
            if matches!(story.agent.replicator.activity().0, Activity::Stopping) {
                break;
            }
        }
        let after = story.now.boot.since(begun);
        assert!(after <= restarted_by, "{hangs}: {after:?}");
        assert!(hangs || after > 6 * MINUTE, "{after:?}");
    }
}

#[test]
fn without_a_heartbeat_the_replica_is_asked_all_the_same() {
    let mut story = Story::replicating();
    story.reload_without_heartbeat();
    let done = story.pass(31 * SECOND);
    assert!(done.iter().any(|(_, a)| *a == Action::Sync), "{done:?}");
}

#[test]
fn a_litestream_that_does_not_follow_is_restarted_once_before_it_is_only_reported() {
    let failed = Err(SyncFailure::Failed("it hangs".to_owned()));
    for rotation in [Rotation::Restart, Rotation::Refresh] {
        let mut story = Story::rotating(SupervisorKind::Child, rotation);
        story.tell(Event::Tick);
        story.tell(granted(12 * HOUR));
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(Ok(2)));
        story.pass_answering(10 * MINUTE, &FOLLOWS);
        assert_eq!(story.report().replication, Activity::Replicating);

        // First it is asked again, and somebody is told.
        assert_eq!(story.pass_answering(5 * MINUTE, &failed), 0, "{rotation:?}");
        assert!(is_unhealthy(&story.report()));
        assert_eq!(story.pass_answering(3 * MINUTE, &failed), 1, "{rotation:?}");
        assert_eq!(
            story.pass_answering(50 * MINUTE, &failed),
            0,
            "{rotation:?}"
        );
        assert!(is_unhealthy(&story.report()));
        // An upload that takes hours is given them.
        assert_eq!(story.pass_answering(90 * MINUTE, &failed), 1);
        assert_eq!(story.pass_answering(30 * MINUTE, &failed), 0);
        // It followed again: what comes then is another matter.
        story.pass_answering(5 * MINUTE, &FOLLOWS);
        assert_eq!(story.pass_answering(8 * MINUTE, &failed), 1);
        assert_eq!(story.pass_answering(70 * MINUTE, &failed), 1);
    }
}

#[test]
fn an_sdk_asks_again_when_the_next_credentials_are_there() {
    // It is told an end between the renewal and the real one,
    for (left, renewal) in [(900, 600), (3600, 3300), (9, 6), (30, 20)] {
        let (left, renewal) = (left * SECOND, renewal * SECOND);
        let told = told_term(left, renewal);
        assert!(told > renewal && told < left, "{told:?}");
    }
    // sooner and sooner where the renewal is late, and never past the real one.
    let late = |left| told_term(left, Duration::ZERO);
    assert_eq!(late(10 * MINUTE), 30 * SECOND);
    assert_eq!(late(40 * SECOND), 10 * SECOND);
    assert_eq!(late(2 * SECOND), SECOND);
    assert_eq!(late(SECOND / 2), SECOND / 2);
}

#[test]
fn a_locked_database_holds_a_hand_over_up_for_two_seconds_at_most() {
    let mut story = Story::replicating();
    story.pass_answering(55 * MINUTE, &FOLLOWS);
    story.tell(granted(HOUR));
    let begun = story.now.boot;
    let mut taken = None;
    while taken.is_none() && story.now.boot.since(begun) < MINUTE {
        story.tell(Event::Row(Err("it is locked".to_owned())));
        story.now.boot = story.agent.deadline();
        if story.tell(Event::Tick).contains(&Action::TakeGuard) {
            taken = Some(story.now.boot.since(begun));
        }
    }
    assert_eq!(taken, Some(2 * SECOND));
}

#[test]
fn a_last_sync_that_cannot_succeed_is_cut_short() {
    for (outage, grace) in [(Duration::ZERO, 10 * SECOND), (2 * HOUR, SECOND)] {
        let mut story = Story::replicating();
        story.pass_answering(55 * MINUTE, &FOLLOWS);
        if !outage.is_zero() {
            story.tell(failed(FailureClass::Transient, Some(15 * MINUTE)));
            story.now.boot = story.now.boot + outage;
            story.tell(Event::Tick);
        }
        story.tell(granted(HOUR));
        story.tell(Event::Row(Ok(3)));
        story.tell(Event::GuardTaken(Ok(())));
        assert!(
            story
                .tell(Event::Synced(Err(SyncFailure::NoSocket)))
                .contains(&Action::Terminate)
        );
        let done = story.pass(30 * SECOND);
        assert!(done.contains(&(grace, Action::Terminate)), "{done:?}");
        assert!(
            done.contains(&(grace + 5 * SECOND, Action::Kill)),
            "{done:?}"
        );
    }
}

const NO_SOCKET: Says = Err(SyncFailure::NoSocket);

#[test]
fn a_litestream_that_is_slow_to_start_is_not_taken_for_one_without_a_control_socket() {
    let mut story = Story::started();
    story.tell(Event::Synced(Err(SyncFailure::NoSocket)));
    story.pass_answering(30 * SECOND, &NO_SOCKET);
    let report = story.report();
    assert_eq!(report.replication, Activity::CatchingUp);
    assert!(!report.state.is_healthy());
    assert!(report.guard_held.is_some(), "the WAL is open to everybody");
    story.pass_answering(2 * SECOND, &FOLLOWS);
    let report = story.report();
    assert!(report.state.is_healthy());
    assert!(report.proof.is_some());
}

#[test]
fn a_litestream_without_a_control_socket_is_asked_again_all_the_same() {
    let mut story = Story::started();
    story.tell(Event::Synced(Err(SyncFailure::NoSocket)));
    story.pass_answering(MINUTE, &NO_SOCKET);
    let report = story.report();
    assert_eq!(report.replication, Activity::Replicating);
    assert_eq!(report.proof, None);
    story.pass_answering(MINUTE, &FOLLOWS);
    assert!(story.report().proof.is_some());
}

#[test]
fn a_control_socket_that_is_gone_is_a_fault() {
    let mut story = Story::replicating();
    story.tell(Event::Exited("exit status: 1".to_owned()));
    while !story
        .tell(Event::Tick)
        .contains(&Action::Start(Delivery::Environment))
    {
        story.now.boot = story.agent.deadline();
    }
    story.tell(Event::Started(Ok(())));
    story.pass_answering(3 * MINUTE, &NO_SOCKET);
    let report = story.report();
    assert!(is_unhealthy(&report));
    assert!(has_problem(&report, "control socket"), "{report:?}");
}

#[test]
fn litestream_dying_again_and_again_is_started_ever_less_often() {
    let mut story = Story::replicating();
    let mut waits = Vec::new();
    for _ in 0..12 {
        story.tell(Event::Exited("signal: 9 (SIGKILL)".to_owned()));
        story.tell(Event::GuardTaken(Ok(())));
        let done = story.pass(2 * MINUTE);
        let start = done
            .iter()
            .find(|(_, action)| *action == Action::Start(Delivery::Environment))
            .expect("a start");
        waits.push(start.0);
        story.tell(Event::Started(Ok(())));
    }
    assert!(waits[0] <= 2 * SECOND, "{waits:?}");
    assert!(waits.iter().max() > Some(&(20 * SECOND)), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= MINUTE), "{waits:?}");
}

#[test]
fn a_sync_of_an_idle_database_proves_no_row() {
    let mut story = Story::replicating();
    let idle = |story: &mut Story| story.tell(Event::Synced(Ok(position(2))));
    let mut rows = 0;
    for _ in 0..60 {
        story.now.boot = story.agent.deadline();
        let mut actions = VecDeque::from(story.tell(Event::Tick));
        while let Some(action) = actions.pop_front() {
            match action {
                Action::WriteRow => {
                    rows += 1;
                    actions.extend(story.tell(Event::Row(Ok(10 + rows))));
                }
                Action::Sync => actions.extend(idle(&mut story)),
                _ => {}
            }
        }
    }
    let report = story.report();
    let lag = report.lag.expect("it was measured");
    assert_eq!(
        lag.row, 3,
        "the last one that a transaction was taken after"
    );
    assert!(is_unhealthy(&report), "{report:?}");
    assert!(has_problem(&report, "database's place"), "{report:?}");
}

#[test]
fn without_a_heartbeat_an_idle_database_is_healthy_and_one_that_nobody_reads_is_not() {
    let mut story = Story::begin(SupervisorKind::Child);
    story.reload_without_heartbeat();
    story.tell(granted(12 * HOUR));
    story.tell(Event::Started(Ok(())));
    let says = |local, last_commit| {
        Event::Synced(Ok(Answer {
            last_commit,
            ..position(local)
        }))
    };
    let pass = |story: &mut Story, local, last_commit| {
        let end = story.now.boot + 5 * MINUTE;
        while story.agent.deadline() <= end {
            story.now.boot = story.agent.deadline();
            if story.tell(Event::Tick).contains(&Action::Sync) {
                story.tell(says(local, last_commit));
            }
        }
    };
    story.tell(says(5, Some(1)));
    pass(&mut story, 5, Some(1));
    let report = story.report();
    assert!(
        report.state.is_healthy() && report.proof.is_some(),
        "{report:?}"
    );
    pass(&mut story, 5, Some(2));
    assert!(is_unhealthy(&story.report()), "{:?}", story.report());
    pass(&mut story, 6, Some(2));
    assert!(story.report().state.is_healthy());
}

#[test]
fn useless_local_state_is_reset_once_an_hour_at_most() {
    let corrupt = SyncFailure::StateCorrupt("ltx".to_owned());
    for useless in [corrupt, SyncFailure::BeginningMissed] {
        reset_once_an_hour(&useless);
    }
}

fn reset_once_an_hour(useless: &SyncFailure) {
    let useless = || Event::Synced(Err(useless.clone()));
    let mut story = Story::begin(SupervisorKind::Child);
    story.tell(Event::Tick);
    story.tell(granted(6 * HOUR));
    story.tell(Event::Started(Ok(())));
    story.tell(Event::Row(Ok(2)));
    assert!(story.tell(useless()).contains(&Action::Terminate));
    assert!(
        story
            .tell(Event::Exited("exit status: 0".to_owned()))
            .contains(&Action::ResetState)
    );
    assert!(
        story
            .tell(Event::StateReset(Ok(true)))
            .contains(&Action::Start(Delivery::Environment))
    );
    story.tell(Event::Started(Ok(())));
    story.tell(Event::Row(Ok(3)));
    assert!(!story.tell(useless()).contains(&Action::Terminate));
}

#[test]
fn the_end_waits_for_litestream_and_for_nothing_else() {
    let mut story = Story::replicating();
    assert_eq!(story.tell(Event::Terminate), [Action::Terminate]);
    let exited = story.tell(Event::Exited("exit status: 0".to_owned()));
    assert_eq!(exited, [Action::Exit]);
    assert_eq!(story.agent.deadline(), BootTime::NEVER);

    let mut story = Story::begin(SupervisorKind::Child);
    story.tell(Event::Tick);
    assert_eq!(
        story.tell(Event::Terminate),
        [Action::KillFetch, Action::Exit]
    );
}

#[test]
fn an_end_in_a_hand_over_after_an_outage_still_brings_the_last_rows_out() {
    let mut story = Story::replicating();
    story.pass_answering(55 * MINUTE, &FOLLOWS);
    story.tell(failed(FailureClass::Transient, Some(15 * MINUTE)));
    story.now.boot = story.now.boot + 2 * HOUR;
    story.tell(Event::Tick);
    assert!(is_unhealthy(&story.report()));
    story.tell(granted(HOUR));
    assert!(
        is_unhealthy(&story.report()),
        "healthy before the replica followed"
    );
    story.tell(Event::Row(Ok(3)));
    story.tell(Event::GuardTaken(Ok(())));
    story.tell(Event::Synced(Err(SyncFailure::NoSocket)));
    assert_eq!(story.tell(Event::Terminate), []);
    assert!(
        story
            .tell(Event::Exited("exit status: 0".to_owned()))
            .contains(&Action::Start(Delivery::Environment))
    );
    story.tell(Event::Started(Ok(())));
    story.tell(Event::Row(Ok(4)));
    assert!(story.follows().contains(&Action::Terminate));
    assert!(
        story
            .tell(Event::Exited("exit status: 0".to_owned()))
            .contains(&Action::Exit)
    );
}

#[test]
fn a_missing_database_is_made_once_no_replica_of_it_can_be_restored() {
    let mut story = Story::begin(SupervisorKind::Child);
    assert!(story.tell(Event::Tick).contains(&Action::WriteRow));
    let missing = story.tell(Event::DatabaseMissing);
    assert!(
        !missing.contains(&Action::LookForReplica),
        "without credentials nobody can look"
    );
    assert!(story.tell(granted(HOUR)).contains(&Action::LookForReplica));
    // S3 is away.
    let later = story.tell(Event::Looked(Err("S3 is away".to_owned())));
    assert!(!later.contains(&Action::WriteFirstRow));
    let has_problem = |story: &Story, text: &str| has_problem(&story.report(), text);
    assert!(has_problem(&story, "S3 is away"));
    let looks = |story: &mut Story, span| {
        let done = pass_without_a_database(story, span);
        done.into_iter()
            .filter(|a| *a == Action::LookForReplica)
            .count()
    };
    assert!(looks(&mut story, MINUTE) >= 1);
    // There is one: nothing is made, and it is looked again now and then.
    assert!(story.tell(Event::Looked(Ok(true))).is_empty());
    assert!(has_problem(&story, "edgerepl restore"));
    assert_eq!(looks(&mut story, 6 * MINUTE), 1);
    assert!(
        story
            .tell(Event::Looked(Ok(false)))
            .contains(&Action::WriteFirstRow)
    );
    story.tell(Event::Row(Ok(1)));
    assert!(!has_problem(&story, "database"));
    // One that is lost while the daemon runs is made no sooner.
    story.tell(Event::DatabaseMissing);
    let again = story.tell(Event::Tick);
    assert!(!again.contains(&Action::WriteFirstRow));
    // A look that never ends is given up, and another one made.
    assert!(looks(&mut story, 10 * MINUTE) >= 2);
}

/// Lets time pass while each row that is wanted finds no database; what else was done.
fn pass_without_a_database(story: &mut Story, span: Duration) -> Vec<Action> {
    let end = story.now.boot + span;
    let mut done = Vec::new();
    while story.agent.deadline() <= end {
        story.now.boot = story.agent.deadline();
        let mut actions = VecDeque::from(story.tell(Event::Tick));
        while let Some(action) = actions.pop_front() {
            match action {
                Action::WriteRow => actions.extend(story.tell(Event::DatabaseMissing)),
                Action::Fetch => actions.extend(story.tell(granted(HOUR))),
                other => done.push(other),
            }
        }
    }
    story.now.boot = end;
    done
}

#[test]
fn a_session_that_s3_says_has_ended_is_fetched_anew_and_not_in_a_storm() {
    let mut story = Story::replicating();
    let ended = Err(SyncFailure::Failed(
        "put object: api error ExpiredToken: The provided token has expired.".to_owned(),
    ));
    let other = Err(SyncFailure::Failed("SlowDown".to_owned()));
    story.pass_answering(10 * MINUTE, &FOLLOWS);
    let fetches = |story: &mut Story, answer: &Says| {
        let end = story.now.boot + 10 * MINUTE;
        let mut fetches = 0;
        while story.agent.deadline() <= end {
            story.now.boot = story.agent.deadline();
            let mut actions = VecDeque::from(story.tell(Event::Tick));
            while let Some(action) = actions.pop_front() {
                let came_of_it = match action {
                    Action::WriteRow => Event::Row(Ok(7)),
                    Action::Sync => story.say(answer),
                    Action::Terminate => Event::Exited("exit status: 0".to_owned()),
                    Action::Start(_) => Event::Started(Ok(())),
                    Action::Fetch => {
                        fetches += 1;
                        granted(HOUR)
                    }
                    _ => continue,
                };
                actions.extend(story.tell(came_of_it));
            }
        }
        story.now.boot = end;
        fetches
    };
    assert_eq!(fetches(&mut story, &other), 0);
    let anew = fetches(&mut story, &ended);
    assert!((1..=10).contains(&anew), "{anew} fetches in ten minutes");
}
