//! Uploads that wait, and what ends that.

use super::*;

const HELD: [Event; 2] = [Event::Metered(true), Event::PauseWanted(true)];
const FREED: [Event; 2] = [Event::Metered(false), Event::PauseWanted(false)];

/// When Litestream was asked to sync while time passes beside an application that commits `bytes` a look.
fn syncs(story: &mut Story, span: Duration, wal: &mut u64, bytes: u64) -> Vec<Duration> {
    let begun = story.now.boot;
    let (mut asked, mut actions) = (Vec::new(), VecDeque::new());
    loop {
        while let Some(action) = actions.pop_front() {
            let came_of_it = match action {
                Action::Fetch => granted(12 * HOUR),
                Action::WriteRow(DB) => {
                    *wal += 1 << 12;
                    Event::Row(DB, Ok(7))
                }
                Action::LookForCommit(DB) => {
                    *wal += bytes;
                    let commit = Commit {
                        mark: *wal,
                        wal: 1,
                        bytes: *wal,
                    };
                    Event::LastCommit(DB, Some(commit))
                }
                Action::Sync(DB) => {
                    asked.push(story.now.boot.since(begun));
                    story.say(&FOLLOWS)
                }
                Action::Terminate => Event::Exited("exit status: 0".to_owned()),
                Action::Start(_) => Event::Started(Ok(())),
                _ => continue,
            };
            actions.extend(story.tell(came_of_it));
        }
        if story.agent.deadline() > begun + span {
            story.now.boot = begun + span;
            return asked;
        }
        story.now.boot = story.agent.deadline();
        actions.extend(story.tell(Event::Tick));
    }
}

/// A device that has followed for a while, with credentials for half a day.
fn steady() -> (Story, u64) {
    let mut story = Story::replicating();
    let mut wal = 0;
    syncs(&mut story, HOUR, &mut wal, 0);
    (story, wal)
}

#[test]
fn uploads_wait_and_are_made_before_more_is_lost_than_agreed() {
    for (held, freed) in HELD.into_iter().zip(FREED) {
        let (mut story, mut wal) = steady();
        assert_eq!(story.report().held_back, None);
        story.tell(held.clone());
        assert_eq!(story.report().rpo.most(), HOUR);
        let asked = syncs(&mut story, 5 * HOUR, &mut wal, 0);
        assert_eq!(asked.len(), 6, "{asked:?}");
        let gaps = asked.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.clone().max() < Some(HOUR), "{asked:?}");
        assert!(story.report().state.is_healthy());
        // Nothing changes by being told twice.
        assert_eq!(story.tell(held), []);

        syncs(&mut story, 20 * MINUTE, &mut wal, 0);
        assert!(
            story.tell(freed.clone()).contains(&Action::Sync(DB)),
            "what has waited"
        );
        assert!(story.report().state.is_healthy(), "it is on its way");
        assert_eq!(story.report().held_back, None);
        story.follows();
        let asked = syncs(&mut story, 10 * MINUTE, &mut wal, 0);
        assert!(asked.len() >= 16, "{asked:?}");
    }
}

#[test]
fn each_reason_is_enough_and_the_pause_is_named_first() {
    let (mut story, _) = steady();
    story.tell(Event::Metered(true));
    assert_eq!(story.report().held_back, Some(HeldBack::Metered));
    story.tell(Event::PauseWanted(true));
    assert_eq!(story.report().held_back, Some(HeldBack::Paused));
    story.tell(Event::PauseWanted(false));
    assert_eq!(story.report().held_back, Some(HeldBack::Metered));
    story.tell(Event::Metered(false));
    assert_eq!(story.report().held_back, None);
}

#[test]
fn what_waited_too_long_is_unhealthy_whether_it_waits_still_or_not() {
    for free in [None, Some(30 * SECOND), Some(30 * MINUTE)] {
        let (mut story, _) = steady();
        story.tell(Event::PauseWanted(true));
        let behind = Err(SyncFailure::Failed("it is slow".to_owned()));
        if let Some(after) = free {
            story.pass_answering(after, &behind);
            story.tell(Event::PauseWanted(false));
        }
        let begun = story.now.boot;
        let mut healthy_for = Duration::ZERO;
        while !is_unhealthy(&story.report()) {
            story.pass_answering(SECOND, &behind);
            healthy_for = story.now.boot.since(begun);
            assert!(healthy_for < 2 * HOUR);
        }
        let bound = match free {
            None => HOUR + MINUTE,
            // Counted from the end of the pause.
            Some(_) => 36 * SECOND + MINUTE,
        };
        let most = bound + MINUTE;
        assert!(healthy_for <= most, "{free:?}: {healthy_for:?}");
        assert!(
            healthy_for + 40 * SECOND >= bound,
            "{free:?}: {healthy_for:?}"
        );
    }
}

#[test]
fn a_start_waits_for_no_line() {
    for has_credentials in [false, true] {
        let mut story = Story::begin(SupervisorKind::Child);
        story.tell(Event::Metered(true));
        if has_credentials {
            story.tell(Event::Row(DB, Ok(1)));
            story.tell(Event::GuardTaken(DB, Ok(())));
            story.tell(granted(HOUR));
            story.tell(Event::Started(Ok(())));
            let done = story.tell(Event::Row(DB, Ok(2)));
            assert!(done.contains(&Action::Sync(DB)), "{done:?}");
        }
        story.now.boot = story.now.boot + 3 * MINUTE;
        let report = story.report();
        assert!(is_unhealthy(&report), "{:?}", report.state);
        let says_why = has_problem(&report, "there are no valid credentials");
        assert_eq!(says_why, !has_credentials, "{:?}", report.state);
    }
}

#[test]
fn a_wal_that_grows_waits_for_nothing() {
    let (mut story, mut wal) = steady();
    story.tell(Event::PauseWanted(true));
    // 64 MiB, by looks ten minutes apart.
    let asked = syncs(&mut story, 2 * HOUR, &mut wal, 30 << 20);
    assert!((4..=5).contains(&asked.len()), "{asked:?}");
    // The same long WAL, and nothing more in it.
    let asked = syncs(&mut story, 45 * MINUTE, &mut wal, 0);
    assert!(asked.len() <= 1, "{asked:?}");
}

#[test]
fn a_sync_that_somebody_asks_for_is_made_while_others_wait() {
    let (mut story, mut wal) = steady();
    story.tell(Event::PauseWanted(true));
    syncs(&mut story, 2 * MINUTE, &mut wal, 0);
    let done = story.tell(Event::SyncWanted);
    assert!(done.contains(&Action::Sync(DB)), "{done:?}");
}

#[test]
fn a_refresh_uploads_nothing_while_uploads_wait_unless_the_session_had_ended() {
    const SESSION: Duration = Duration::from_secs(15 * 60);
    for has_ended in [false, true] {
        let mut story = Story::rotating(SupervisorKind::Child, Some(Rotation::Refresh));
        story.tell(Event::Tick);
        story.tell(Event::Row(DB, Ok(1)));
        story.tell(Event::GuardTaken(DB, Ok(())));
        story.tell(granted(SESSION));
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(DB, Ok(2)));
        story.prove();
        story.tell(Event::PauseWanted(true));
        let begun = story.now.boot;
        loop {
            story.now.boot = story.agent.deadline();
            let done = story.tell(Event::Tick);
            if done.contains(&Action::WriteRow(DB)) {
                story.tell(Event::Row(DB, Ok(7)));
            }
            if done.contains(&Action::Fetch) {
                break;
            }
        }
        assert!(story.now.boot < begun + SESSION);
        if has_ended {
            story.now.boot = begun + SESSION + SECOND;
        }
        story.tell(granted(SESSION));
        let done = story.tell(Event::Row(DB, Ok(9)));
        assert_eq!(done.contains(&Action::Sync(DB)), has_ended, "{done:?}");
    }
}

#[test]
fn a_network_that_comes_back_brings_uploads_forward_unless_they_wait() {
    for is_held in [false, true] {
        let (mut story, mut wal) = steady();
        if is_held {
            story.tell(Event::Metered(true));
        }
        let mut policy = story.agent.policy.clone();
        policy.rpo = Rpo::new(30 * MINUTE);
        story.tell(Event::Reloaded(policy));
        syncs(&mut story, 40 * MINUTE, &mut wal, 0);
        story.tell(Event::NetworkChanged);
        assert_eq!(
            syncs(&mut story, 2 * SECOND, &mut wal, 0),
            [],
            "no more is known"
        );
        story.tell(Event::NetworkBack);
        let asked = syncs(&mut story, 10 * SECOND, &mut wal, 0);
        assert_eq!(asked.is_empty(), is_held, "{asked:?}");
    }
}

#[test]
fn a_network_that_changes_has_what_failed_tried_again() {
    for is_held in [false, true] {
        let (mut story, _) = steady();
        let behind = Err(SyncFailure::Failed("no route".to_owned()));
        story.pass_answering(5 * MINUTE, &behind);
        if is_held {
            story.tell(Event::Metered(true));
        }
        let retried = |story: &Story| {
            let first = story.agent.databases.get(DB).expect("the database");
            first.replica.deadline()
        };
        let wait = retried(&story);
        story.tell(Event::NetworkChanged);
        let sooner = retried(&story);
        let soon = story.now.boot + SECOND;
        assert!(sooner <= soon && sooner <= wait, "{wait:?}, {sooner:?}");
    }
}
