//! When credentials are fetched, and how often at the most.

use super::*;

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
fn a_session_that_s3_says_has_ended_is_fetched_anew_and_not_in_a_storm() {
    let mut story = Story::replicating();
    let ended = Err(SyncFailure::SessionEnded("ExpiredToken".to_owned()));
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
                    Action::WriteRow(DB) => Event::Row(DB, Ok(7)),
                    Action::Sync(DB) => story.say(answer),
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
