//! When the agent has a replica verified, and what it does about a difference.

use super::*;
use crate::clock::WallTime;
use crate::litestream::chain::{Holdings, PlanFailure, Stranger};

const PACE: Duration = Duration::from_secs(6 * 3600);

fn verified(holds: bool) -> Event {
    let transaction = Some(7);
    Event::Verified(DB, Ok(Verified { holds, transaction }))
}

/// A child that replicates, whose replica is verified.
fn story() -> Story {
    let mut story = Story::replicating();
    let mut policy = story.agent.policy.clone();
    policy.verify = Some(PACE);
    story.tell(Event::Reloaded(policy));
    story
}

/// What comes of an action where all goes well.
fn outcome(story: &mut Story, action: &Action) -> Option<Event> {
    Some(match action {
        Action::Fetch => granted(HOUR),
        Action::WriteRow(DB) => Event::Row(DB, Ok(7)),
        Action::TakeGuard(DB) => Event::GuardTaken(DB, Ok(())),
        Action::Sync(DB) => story.say(&FOLLOWS),
        Action::Terminate => Event::Exited("exit status: 0".to_owned()),
        Action::MakeSnapshot(DB, _) => Event::Snapshotted(DB, Ok(())),
        Action::Start(_) => Event::Started(Ok(())),
        _ => return None,
    })
}

/// Lets time pass with a Litestream that follows, and credentials that are renewed; whether a verify is
/// begun, and how long it took until then.
fn wait_for_verify(story: &mut Story, span: Duration) -> Option<Duration> {
    let begun = story.now.boot;
    while story.agent.deadline() <= begun + span {
        story.now.boot = story.agent.deadline();
        let mut actions = VecDeque::from(story.tell(Event::Tick));
        while let Some(action) = actions.pop_front() {
            if action == Action::Verify(DB) {
                return Some(story.now.boot.since(begun));
            }
            if let Some(came_of_it) = outcome(story, &action) {
                actions.extend(story.tell(came_of_it));
            }
        }
    }
    None
}

#[test]
fn a_replica_is_verified_at_a_pace_while_rotations_come_and_go() {
    let mut story = story();
    assert_eq!(story.report().databases[0].verify.state, Verity::Unknown);
    wait_for_verify(&mut story, PACE).expect("a verify");
    // A rotation meanwhile is no error, and no second one begins.
    assert_eq!(wait_for_verify(&mut story, 3 * HOUR), None);
    story.tell(verified(true));
    let report = story.report();
    assert!(report.state.is_healthy(), "{report:#?}");
    assert_eq!(report.databases[0].verify.state, Verity::Holds);
    let next = wait_for_verify(&mut story, 2 * PACE).expect("a verify");
    assert!((PACE..PACE + 10 * MINUTE).contains(&next), "{next:?}");
}

#[test]
fn nothing_is_verified_while_uploads_wait() {
    let mut story = story();
    story.tell(Event::PauseWanted(true));
    assert_eq!(wait_for_verify(&mut story, 3 * PACE), None);
    assert!(story.report().state.is_healthy());
    let done = story.tell(Event::PauseWanted(false));
    assert!(done.contains(&Action::Verify(DB)), "{done:?}");
}

#[test]
fn a_difference_makes_the_database_unhealthy_until_a_snapshot_is_seen_to_hold() {
    let mut story = story();
    wait_for_verify(&mut story, PACE).expect("a verify");
    let mut told = VecDeque::from(story.tell(verified(false)));
    assert!(is_unhealthy(&story.report()));
    assert!(has_problem(
        &story.report(),
        "the replica holds other bytes"
    ));
    // Litestream is stopped, and makes one.
    let mut done = Vec::new();
    while let Some(action) = told.pop_front() {
        if let Some(came_of_it) = outcome(&mut story, &action) {
            done.push(action);
            told.extend(story.tell(came_of_it));
        }
    }
    let snapshots = done
        .iter()
        .filter(|a| matches!(a, Action::MakeSnapshot(DB, _)));
    assert_eq!(snapshots.count(), 1, "{done:?}");
    assert!(
        is_unhealthy(&story.report()),
        "nothing shows that it helped"
    );
    let again = wait_for_verify(&mut story, PACE).expect("a verify");
    assert!(again < 10 * MINUTE, "{again:?}");
    story.tell(verified(true));
    assert!(story.report().state.is_healthy());
}

#[test]
fn a_difference_is_mended_once_a_plan_shows_no_other_device() {
    let holdings = Holdings {
        files: 3,
        bytes: 4096,
        last: 10_000,
        oldest: WallTime::EPOCH,
        newest: WallTime::EPOCH,
    };
    let listing = |stranger| Listing {
        chain: Chain::Whole(holdings),
        stranger,
    };
    let is_stopping =
        |story: &Story| story.agent.glance(story.now).replication == Activity::Stopping;
    let foreign = || Some(Stranger::Differing { at: 7 });
    let results = [
        (Ok(listing(None)), true),
        (Ok(listing(foreign())), false),
        (Err(PlanFailure::Failed("no list".to_owned())), false),
        (Err(PlanFailure::Unsupported), true),
    ];
    for (result, is_mended) in results {
        let mut story = story();
        let mut policy = story.agent.policy.clone();
        policy.restorable = Some(10 * PACE);
        story.tell(Event::Reloaded(policy));
        wait_for_verify(&mut story, PACE).expect("a verify");
        story.tell(Event::Planned(DB, Ok(listing(None))));
        story.now.boot = story.now.boot + SECOND;
        let told = story.tell(verified(false));
        assert!(told.contains(&Action::PlanRestore(DB)), "{told:?}");
        assert!(is_unhealthy(&story.report()));
        assert!(!is_stopping(&story), "{told:?}");
        story.tell(Event::Planned(DB, result.clone()));
        assert_eq!(is_stopping(&story), is_mended, "{result:?}");
    }
}

#[test]
fn one_database_at_a_time_is_verified() {
    let mut story = Story::with(vec![watch(DB, true), watch(OTHER, false)]);
    let mut policy = story.agent.policy.clone();
    policy.verify = Some(10 * MINUTE);
    story.agent = Agent::new(policy, 1, story.now);
    let mut begun = Vec::new();
    let mut busy: Option<Database> = None;
    let end = story.now.boot + 2 * HOUR;
    let mut actions = VecDeque::from(story.tell(Event::Tick));
    while story.now.boot < end {
        let Some(action) = actions.pop_front() else {
            story.now.boot = story.agent.deadline().max(story.now.boot);
            actions.extend(story.tell(Event::Tick));
            // It takes until something else was due.
            if let Some(database) = busy.take() {
                let holds = Verified {
                    holds: true,
                    transaction: None,
                };
                actions.extend(story.tell(Event::Verified(database, Ok(holds))));
            }
            continue;
        };
        let came_of_it = match action {
            Action::Fetch => granted(HOUR),
            Action::WriteRow(of) => Event::Row(of, Ok(7)),
            Action::TakeGuard(of) => Event::GuardTaken(of, Ok(())),
            Action::Survey(of) => Event::Surveyed(of, Ok(Survey::default())),
            Action::LookForCommit(of) => Event::LastCommit(of, Some(commit(story.transaction))),
            Action::Sync(of) => {
                story.transaction += 1;
                Event::Synced(of, Ok(position(story.transaction)))
            }
            Action::Terminate => Event::Exited("exit status: 0".to_owned()),
            Action::Start(_) => Event::Started(Ok(())),
            Action::Verify(of) => {
                assert_eq!(busy.replace(of), None, "one is under way");
                begun.push(of);
                continue;
            }
            _ => continue,
        };
        actions.extend(story.tell(came_of_it));
    }
    for database in [DB, OTHER] {
        let times = begun.iter().filter(|of| **of == database).count();
        assert!((8..=13).contains(&times), "{database:?}: {begun:?}");
    }
}
