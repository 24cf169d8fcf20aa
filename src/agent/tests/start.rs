//! How Litestream is started: on what it can take for granted, and when it begins anew.

use super::*;
use crate::litestream::answer::{BEGINNING_MISSED, Seam, WAL_PASSED_OVER};

#[test]
fn what_litestream_can_do_is_asked_once_and_the_restart_is_for_what_can_not_say() {
    let start = |story: &mut Story, probed: Result<Rotation, String>| {
        story.tell(Event::Tick);
        assert!(story.tell(granted(HOUR)).contains(&Action::Probe));
        story.tell(Event::Probed(probed))
    };
    for rotation in [Rotation::Refresh, Rotation::Restart] {
        let mut story = Story::rotating(SupervisorKind::Child, None);
        let done = start(&mut story, Ok(rotation));
        assert!(done.contains(&Action::Start(rotation)), "{done:?}");
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Exited("signal: 9".to_owned()));
        let done = story.pass(10 * SECOND);
        let again = done
            .iter()
            .filter(|(_, action)| *action == Action::Start(rotation));
        assert_eq!(again.count(), 1, "{done:?}");
    }
    let mut story = Story::rotating(SupervisorKind::Child, None);
    let done = start(&mut story, Err("it says nothing".to_owned()));
    assert!(done.contains(&Action::Start(Rotation::Restart)), "{done:?}");
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
fn litestream_dying_again_and_again_is_started_ever_less_often() {
    let mut story = Story::replicating();
    let mut waits = Vec::new();
    for _ in 0..12 {
        story.tell(Event::Exited("signal: 9 (SIGKILL)".to_owned()));
        story.tell(Event::GuardTaken(DB, Ok(())));
        let done = story.pass(2 * MINUTE);
        let start = done
            .iter()
            .find(|(_, action)| *action == Action::Start(Rotation::Restart))
            .expect("a start");
        waits.push(start.0);
        story.tell(Event::Started(Ok(())));
    }
    assert!(waits[0] <= 2 * SECOND, "{waits:?}");
    assert!(waits.iter().max() > Some(&(20 * SECOND)), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= MINUTE), "{waits:?}");
}

#[test]
fn useless_local_state_is_reset_once_an_hour_at_most() {
    let corrupt = SyncFailure::StateCorrupt("ltx".to_owned());
    for useless in [corrupt, SyncFailure::BeginningMissed] {
        reset_once_an_hour(&useless);
    }
}

fn reset_once_an_hour(useless: &SyncFailure) {
    let begins_anew = *useless == SyncFailure::BeginningMissed;
    let useless = || Event::Synced(DB, Err(useless.clone()));
    let mut story = Story::begin(SupervisorKind::Child);
    story.tell(Event::Tick);
    story.tell(granted(6 * HOUR));
    story.tell(Event::Started(Ok(())));
    story.tell(Event::Row(DB, Ok(2)));
    assert!(story.tell(useless()).contains(&Action::Terminate));
    assert!(
        story
            .tell(Event::Exited("exit status: 0".to_owned()))
            .contains(&Action::ResetState(DB))
    );
    let mut done = story.tell(Event::StateReset(DB, Ok(true)));
    if begins_anew {
        done = story.tell(Event::GuardTaken(DB, Ok(())));
        assert_eq!(done, [Action::ReleaseGuard(DB), Action::EmptyWal(DB)]);
        done = story.tell(Event::WalEmptied(DB, Ok(())));
    }
    assert!(done.contains(&Action::Start(Rotation::Restart)));
    story.tell(Event::Started(Ok(())));
    story.tell(Event::Row(DB, Ok(3)));
    assert!(!story.tell(useless()).contains(&Action::Terminate));
}

/// An agent that is about to start Litestream again, and has just been told how its files look.
fn surveyed(survey: Survey) -> (Story, Vec<Action>) {
    let mut story = Story::replicating();
    story.tell_alone(Event::Exited("signal: 9".to_owned()));
    story.tell_alone(Event::Row(DB, Ok(4)));
    story.tell_alone(Event::GuardTaken(DB, Ok(())));
    story.now.boot = story.now.boot + 3 * SECOND;
    let started = story.tell_alone(Event::Tick);
    assert!(started.contains(&Action::Survey(DB)), "{started:?}");
    let done = story.tell_alone(Event::Surveyed(DB, Ok(survey)));
    (story, done)
}

const NOTHING: Survey = Survey {
    wal_was_reset: false,
    is_empty: false,
    folder: None,
    seam: None,
    has_unread: Some(false),
    is_torn: false,
};

const RESET: Survey = Survey {
    wal_was_reset: true,
    is_empty: false,
    folder: Some(1),
    ..NOTHING
};

#[test]
fn a_start_on_a_wal_that_was_reset_begins_anew_with_nobody_holding_it() {
    let start = Action::Start(Rotation::Restart);
    let (_, done) = surveyed(Survey::default());
    assert_eq!(done, std::slice::from_ref(&start));
    let (mut story, done) = surveyed(RESET);
    assert_eq!(done, [Action::ReleaseGuard(DB), Action::EmptyWal(DB)]);
    let done = story.tell_alone(Event::WalEmptied(DB, Ok(())));
    assert_eq!(done, [start, Action::TakeGuard(DB)]);
    // What it says then is compared with nothing that was said before.
    assert_eq!(story.agent.known(DB).last, None);
}

#[test]
fn a_start_that_would_make_a_good_replica_wrong_is_put_off() {
    let (mut story, _) = surveyed(RESET);
    let done = story.tell_alone(Event::WalEmptied(
        DB,
        Err("it is in use by others".to_owned()),
    ));
    assert_eq!(done, [Action::TakeGuard(DB)]);
    let report = story.report();
    assert_eq!(report.replication, Activity::WaitingToRestart);
    assert!(has_problem(&report, "it is in use by others"), "{report:?}");
    story.now.boot = story.agent.deadline() + MINUTE;
    assert!(story.tell_alone(Event::Tick).contains(&Action::Survey(DB)));
    // Nobody knows how its files look: it is not started either.
    let done = story.tell_alone(Event::Surveyed(DB, Err("it was killed".to_owned())));
    assert_eq!(done, []);
    assert_eq!(story.report().replication, Activity::WaitingToRestart);
}

#[test]
fn a_disk_that_shows_nothing_is_given_up_and_looked_at_again() {
    let (mut story, _) = surveyed(RESET);
    let done = story.pass(10 * MINUTE);
    let given_up = done.iter().find(|(_, a)| *a == Action::AbandonStart);
    assert_eq!(
        given_up.map(|(when, _)| *when),
        Some(10 * MINUTE),
        "{done:?}"
    );
    let done = story.pass(MINUTE);
    assert!(
        done.iter().all(|(_, a)| *a != Action::EmptyWal(DB)),
        "{done:?}"
    );
    let (mut story, done) = surveyed(RESET);
    assert!(done.contains(&Action::EmptyWal(DB)));
    // The daemon is to end: the emptying gets no longer than a hand-over would.
    assert_eq!(story.tell_alone(Event::Terminate), []);
    let done = story.pass(MINUTE);
    let ended: Vec<_> = done
        .into_iter()
        .map(|(when, action)| (when.as_secs(), action))
        .collect();
    assert_eq!(ended, [(15, Action::AbandonStart), (15, Action::Exit)]);
}

#[test]
fn an_end_while_litestream_is_probed_does_not_wait_for_one_that_was_never_started() {
    let mut story = Story::rotating(SupervisorKind::Child, None);
    story.tell(Event::Tick);
    assert!(story.tell(granted(HOUR)).contains(&Action::Probe));
    story.tell(Event::Terminate);
    let done = story.pass(20 * SECOND);
    let exit = done.iter().find(|(_, action)| *action == Action::Exit);
    assert_eq!(exit.map(|(when, _)| *when), Some(15 * SECOND), "{done:?}");
}

#[test]
fn a_guard_that_is_let_go_at_a_bound_has_the_wal_emptied() {
    let in_use = Err("it is in use by others".to_owned());
    for (emptied, begins_anew) in [(Some(Ok(())), false), (Some(in_use), true), (None, true)] {
        let mut story = Story::started();
        let done = story.tell(Event::WalTooLarge(DB));
        assert_eq!(done, [Action::AbandonGuard(DB)]);
        if let Some(emptied) = emptied.clone() {
            assert_eq!(story.tell(Event::WalEmptied(DB, emptied)), []);
        }
        // Whether Litestream has read all of it before it was reset nobody can tell.
        story.tell(Event::Row(DB, Ok(5)));
        let done = story.tell(Event::Synced(DB, Ok(position(99))));
        assert_eq!(
            done.contains(&Action::Terminate),
            begins_anew,
            "{emptied:?}: {done:?}"
        );
    }
}

#[test]
fn a_folder_that_passed_a_wal_over_and_a_copy_without_its_beginning_are_dropped() {
    let answer = |folder, passed_a_wal_over, lacks_beginning| Answer {
        files: Some(Files {
            folder,
            last: Some(1),
            before: None,
        }),
        passed_a_wal_over,
        lacks_beginning,
        ..position(99)
    };
    for (what, said, is_dropped) in [
        ("the folder of before", answer(1, Some(true), false), false),
        ("a new one", answer(2, Some(false), false), false),
        ("another WAL", answer(2, Some(true), false), true),
        ("a copy", answer(1, None, true), true),
    ] {
        let survey = Survey {
            wal_was_reset: false,
            is_empty: false,
            folder: Some(1),
            ..NOTHING
        };
        let (mut story, _) = surveyed(survey);
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(DB, Ok(5)));
        let done = story.tell(Event::Synced(DB, Ok(said)));
        assert_eq!(
            done.contains(&Action::Terminate),
            is_dropped,
            "{what}: {done:?}"
        );
        let (_, _, trouble) = story.activity();
        assert_eq!(
            trouble.is_some_and(|t| t.contains(BEGINNING_MISSED)),
            is_dropped,
            "{what}"
        );
    }
}

/// The device slept while it was waited whether another device uploads.
#[test]
fn a_bucket_that_could_not_be_watched_long_enough_holds_up_no_start() {
    let mut story = Story::with(vec![watch(DB, true), watch(OTHER, true)]);
    story.agent.policy.restorable = Some(HOUR);
    story.tell_alone(Event::Tick);
    for database in [DB, OTHER] {
        story.tell_alone(Event::Row(database, Ok(1)));
        story.tell_alone(Event::GuardTaken(database, Ok(())));
    }
    let done = story.tell_alone(granted(HOUR));
    assert!(done.contains(&Action::LookAhead(OTHER)), "{done:?}");
    for database in [DB, OTHER] {
        story.tell_alone(Event::Surveyed(database, Ok(NOTHING)));
    }
    story.tell_alone(Event::LookedAhead(DB, Ok(None)));
    story.tell_alone(Event::LookedAhead(OTHER, Ok(Some(9))));
    story.now.boot = story.now.boot + 10 * MINUTE;
    let done = story.tell_alone(Event::Tick);
    assert!(done.contains(&Action::Start(Rotation::Restart)), "{done:?}");
}

const SEAM: Seam = Seam {
    after: 98,
    wal: 7,
    read: 4152,
};

/// A WAL that was begun anew after the look at it.
#[test]
fn a_litestream_that_does_not_go_on_where_it_has_to_begins_anew() {
    let said = |folder, is_torn| Answer {
        files: Some(Files {
            folder,
            last: Some(1),
            before: None,
        }),
        is_torn,
        ..position(99)
    };
    let survey = |has_unread: bool| Survey {
        folder: Some(1),
        seam: Some(SEAM),
        has_unread: Some(has_unread),
        ..NOTHING
    };
    for (what, found, said, is_dropped) in [
        ("it went on", survey(true), said(1, Some(false)), false),
        ("another WAL", survey(true), said(1, Some(true)), true),
        ("nothing yet", survey(true), said(1, None), false),
        ("all was read", survey(false), said(1, Some(true)), false),
        ("a new folder", survey(true), said(2, Some(true)), false),
    ] {
        let (mut story, _) = surveyed(found);
        assert_eq!(
            story.agent.known(DB).seam,
            (found.has_unread == Some(true)).then_some(SEAM),
            "{what}"
        );
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(DB, Ok(5)));
        let done = story.tell(Event::Synced(DB, Ok(said)));
        let (_, _, trouble) = story.activity();
        let is_named = trouble.is_some_and(|t| t.contains(WAL_PASSED_OVER));
        let is_over = story.agent.known(DB).seam.is_none();
        assert_eq!(
            (done.contains(&Action::Terminate), is_named),
            (is_dropped, is_dropped),
            "{what}: {done:?}"
        );
        assert_eq!(is_over, what != "nothing yet", "{what}");
    }
}

#[test]
fn where_nobody_holds_the_wal_it_may_be_begun_anew_with_anything() {
    let mut story = Story::begin(SupervisorKind::Child);
    story.tell(Event::Tick);
    story.tell(Event::Row(DB, Ok(1)));
    story.tell(Event::GuardTaken(DB, Err("the disk is full".to_owned())));
    story.tell_alone(granted(HOUR));
    let survey = Survey {
        seam: Some(SEAM),
        ..NOTHING
    };
    story.tell_alone(Event::Surveyed(DB, Ok(survey)));
    assert_eq!(story.agent.known(DB).seam, Some(SEAM));
}

/// The last Litestream died before it was asked, or edgerepl with it.
#[test]
fn what_the_last_litestream_passed_over_is_found_before_the_next_one_starts() {
    let torn = Survey {
        is_torn: true,
        ..NOTHING
    };
    let (_, done) = surveyed(torn);
    assert_eq!(done, [Action::ReleaseGuard(DB), Action::EmptyWal(DB)]);

    let mut story = Story::begin(SupervisorKind::Child);
    let earlier = Earlier {
        debt: Debt::Nothing,
        begins_anew: false,
        is_unrestorable: false,
        differs: false,
        seam: Some(SEAM),
    };
    let told = story.agent.handle(Event::Recalled(DB, earlier), story.now);
    let is_kept = |action: &Action| matches!(action, Action::Remember(DB, legacy) if legacy.seam == Some(SEAM));
    assert!(told.iter().any(is_kept), "{told:?}");
}

/// The process that was stopped had its files in one folder, and the look before the start sees another.
#[test]
fn files_that_were_replaced_since_the_last_answer_are_dropped_before_a_start() {
    let answer = |folder| Answer {
        files: Some(Files {
            folder,
            last: Some(1),
            before: Some(1),
        }),
        ..position(99)
    };
    for (found, is_dropped) in [(Some(1), false), (Some(2), true), (None, true)] {
        let mut story = Story::started();
        story.tell(Event::Synced(DB, Ok(answer(1))));
        story.tell_alone(Event::Exited("signal: 9".to_owned()));
        story.tell(Event::GuardTaken(DB, Ok(())));
        let mut done = VecDeque::new();
        while !done.contains(&Action::Survey(DB)) {
            story.now.boot = story.agent.deadline();
            done.extend(story.tell_alone(Event::Tick));
        }
        let survey = Survey {
            wal_was_reset: false,
            is_empty: false,
            folder: found,
            ..NOTHING
        };
        let done = story.tell_alone(Event::Surveyed(DB, Ok(survey)));
        assert_eq!(
            done.contains(&Action::ResetState(DB)),
            is_dropped,
            "{done:?}"
        );
        assert_eq!(
            done.contains(&Action::Start(Rotation::Restart)),
            !is_dropped
        );
    }
}

/// What an earlier run had found wrong is mended before Litestream may go on with it.
#[test]
fn what_an_earlier_run_found_broken_is_dropped_before_the_first_start() {
    for begins_anew in [false, true] {
        let mut story = Story::begin(SupervisorKind::Child);
        let debt = Debt::Nothing;
        let earlier = Earlier {
            debt,
            begins_anew,
            is_unrestorable: false,
            differs: false,
            seam: None,
        };
        let told = story.agent.handle(Event::Recalled(DB, earlier), story.now);
        let kept = |actions: &[Action]| {
            actions.iter().rev().find_map(|action| match action {
                Action::Remember(_, legacy) => Some(legacy.begins_anew),
                _ => None,
            })
        };
        assert_eq!(kept(&told), Some(begins_anew));
        story.tell(Event::Row(DB, Ok(1)));
        story.tell(Event::GuardTaken(DB, Ok(())));
        let done = story.tell(granted(HOUR));
        assert_eq!(
            done.contains(&Action::ResetState(DB)),
            begins_anew,
            "{done:?}"
        );
        if !begins_anew {
            continue;
        }
        let done = story.tell(Event::StateReset(DB, Ok(true)));
        assert!(done.contains(&Action::EmptyWal(DB)), "{done:?}");
        let done = story.tell(Event::WalEmptied(DB, Ok(())));
        assert!(done.contains(&Action::Start(Rotation::Restart)), "{done:?}");
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(DB, Ok(2)));
        story.follows();
        story.tell(Event::Row(DB, Ok(3)));
        // Nothing but a proof says that it is mended.
        let said = story.say(&FOLLOWS);
        assert_eq!(kept(&story.agent.handle(said, story.now)), Some(false));
    }
}
