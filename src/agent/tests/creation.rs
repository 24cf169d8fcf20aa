//! A database that is not there.

use super::*;

#[test]
fn a_missing_database_is_made_once_no_replica_of_it_can_be_restored() {
    let mut story = Story::begin(SupervisorKind::Child);
    assert!(story.tell(Event::Tick).contains(&Action::WriteRow(DB)));
    let missing = story.tell(Event::DatabaseMissing(DB));
    assert!(
        !missing.contains(&Action::LookForReplica(DB)),
        "without credentials nobody can look"
    );
    assert!(
        story
            .tell(granted(HOUR))
            .contains(&Action::LookForReplica(DB))
    );
    // S3 is away.
    let later = story.tell(Event::Looked(DB, Err("S3 is away".to_owned())));
    assert!(!later.contains(&Action::WriteFirstRow(DB)));
    let has_problem = |story: &Story, text: &str| has_problem(&story.report(), text);
    assert!(has_problem(&story, "S3 is away"));
    let looks = |story: &mut Story, span| {
        let done = pass_without_a_database(story, span);
        done.into_iter()
            .filter(|a| *a == Action::LookForReplica(DB))
            .count()
    };
    assert!(looks(&mut story, MINUTE) >= 1);
    // There is one: nothing is made, and it is looked again now and then.
    assert!(story.tell(Event::Looked(DB, Ok(true))).is_empty());
    assert!(has_problem(&story, "edgerepl restore"));
    assert_eq!(looks(&mut story, 6 * MINUTE), 1);
    assert!(
        story
            .tell(Event::Looked(DB, Ok(false)))
            .contains(&Action::WriteFirstRow(DB))
    );
    story.tell(Event::Row(DB, Ok(1)));
    assert!(!has_problem(&story, "database"));
    // One that is lost while the daemon runs is made no sooner.
    story.tell(Event::DatabaseMissing(DB));
    let again = story.tell(Event::Tick);
    assert!(!again.contains(&Action::WriteFirstRow(DB)));
    // A look that never ends is given up, and another one made.
    assert!(looks(&mut story, 10 * MINUTE) >= 2);
}

/// It is not edgerepl's to make: Litestream is not restarted for it, and whoever reads the state is told.
#[test]
fn a_database_without_rows_that_does_not_exist_is_neither_asked_about_nor_held() {
    let mut story = Story::with(vec![watch(DB, true), watch(OTHER, false)]);
    let begun = story.tell(Event::Tick);
    assert!(begun.contains(&Action::LookForCommit(OTHER)), "{begun:?}");
    story.tell(Event::GuardTaken(
        OTHER,
        Err("it does not exist".to_owned()),
    ));
    story.tell(Event::DatabaseMissing(OTHER));
    let granted = story.tell(granted(12 * HOUR));
    let look = Action::LookForReplica(OTHER);
    assert!(granted.contains(&look), "{granted:?}");
    story.tell(Event::Surveyed(OTHER, Ok(Survey::default())));
    story.tell(Event::Started(Ok(())));
    story.tell(Event::Looked(OTHER, Ok(false)));
    let mut done = Vec::new();
    let end = story.now.boot + 8 * HOUR;
    while story.agent.deadline() <= end {
        story.now.boot = story.agent.deadline();
        let mut actions = VecDeque::from(story.tell(Event::Tick));
        while let Some(action) = actions.pop_front() {
            actions.extend(match &action {
                Action::WriteRow(DB) => story.tell(Event::Row(DB, Ok(7))),
                Action::Sync(DB) => story.follows(),
                Action::LookForCommit(OTHER) => story.tell(Event::DatabaseMissing(OTHER)),
                _ => Vec::new(),
            });
            done.push(action);
        }
    }
    let is_vain = |action: &Action| match action {
        Action::Sync(of) | Action::TakeGuard(of) | Action::LookForReplica(of) => *of == OTHER,
        Action::Terminate | Action::Start(_) | Action::WriteFirstRow(_) => true,
        _ => false,
    };
    let vain: Vec<_> = done.iter().filter(|action| is_vain(action)).collect();
    assert!(vain.is_empty(), "{vain:?}");
    let looks = done.iter().filter(|a| **a == Action::LookForCommit(OTHER));
    assert!(looks.count() > 100, "nobody would notice it");
    let state = |story: &Story| story.report().databases[1].state;
    assert_eq!(state(&story), DatabaseState::Absent);
    assert!(is_unhealthy(&story.report()) && has_problem(&story.report(), "does not exist yet"));

    // Its application makes it.
    let there = story.tell(Event::LastCommit(OTHER, Some(commit(1))));
    assert!(there.contains(&Action::Sync(OTHER)), "{there:?}");
    assert!(there.contains(&Action::TakeGuard(OTHER)), "{there:?}");
    for at in 1..=2 {
        story.tell(Event::Synced(OTHER, Ok(position(at))));
        story.tell(Event::Tick);
    }
    // One that is lost, and that a restore brings back, is another thing.
    story.tell(Event::DatabaseMissing(OTHER));
    story.tell(Event::Looked(OTHER, Ok(true)));
    assert_eq!(state(&story), DatabaseState::Absent);
    assert!(has_problem(&story.report(), "edgerepl restore"));
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
                Action::WriteRow(DB) => actions.extend(story.tell(Event::DatabaseMissing(DB))),
                Action::Fetch => actions.extend(story.tell(granted(HOUR))),
                other => done.push(other),
            }
        }
    }
    story.now.boot = end;
    done
}
