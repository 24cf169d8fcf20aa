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
