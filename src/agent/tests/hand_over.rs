//! How new credentials are handed over, and how all ends.

use super::*;

#[test]
fn a_hand_over_has_its_order() {
    let mut story = Story::replicating();
    story.pass_answering(55 * MINUTE, &FOLLOWS);
    let mut done = story.tell(granted(HOUR));
    done.extend(story.tell(Event::Row(DB, Ok(3))));
    done.extend(story.tell(Event::GuardTaken(DB, Ok(()))));
    done.extend(story.follows());
    done.extend(story.tell(Event::Exited("exit status: 0".to_owned())));
    done.extend(story.tell(Event::Started(Ok(()))));
    done.extend(story.tell(Event::Row(DB, Ok(4))));
    done.extend(story.follows());
    done.dedup();
    let wanted = [
        Action::WriteRow(DB),
        Action::TakeGuard(DB),
        Action::Sync(DB),
        Action::Terminate,
        Action::Start(Rotation::Restart),
        Action::WriteRow(DB),
        Action::Sync(DB),
        Action::ReleaseGuard(DB),
        Action::List,
    ];
    assert_eq!(done, wanted);
    let report = story.report();
    assert_eq!((report.rotations, report.starts), (1, 2));
    assert_eq!(
        report.databases[0]
            .proof
            .map(|proof| proof.position.replicated),
        Some(story.transaction)
    );
}

#[test]
fn a_refresh_hands_over_without_a_restart_and_is_shown_to_have_worked() {
    for supervisor in [SupervisorKind::Child, SupervisorKind::Systemd] {
        let mut story = Story::rotating(supervisor, Some(Rotation::Refresh));
        story.tell(Event::Tick);
        story.tell(Event::Row(DB, Ok(1)));
        story.tell(Event::GuardTaken(DB, Ok(())));
        story.tell(granted(HOUR));
        story.tell(Event::Row(DB, Ok(2)));
        story.tell(Event::Synced(DB, Err(SyncFailure::NoSocket)));
        assert_eq!(story.report().rotation, Some(Rotation::Refresh));
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(DB, Ok(3)));
        story.prove();

        story.pass_answering(55 * MINUTE, &FOLLOWS);
        let mut done = story.tell(granted(HOUR));
        done.extend(story.tell(Event::Row(DB, Ok(8))));
        assert_eq!(done, [Action::WriteRow(DB), Action::Sync(DB)]);
        story.follows();
        let report = story.report();
        assert_eq!((report.rotations, report.starts), (1, 1));
        assert_eq!(
            (report.last_gap, report.databases[0].guard_held),
            (None, None)
        );
        assert_eq!(
            report.databases[0].lag.map(|lag| (lag.row, lag.rows)),
            Some((8, 0))
        );
    }
}

/// A row and an upload at each renewal would be 26 a day.
#[test]
fn where_a_day_may_be_lost_new_credentials_cost_no_upload() {
    for (rpo, is_shown) in [(10 * MINUTE, true), (24 * HOUR, false)] {
        let mut story = Story::rotating(SupervisorKind::Child, Some(Rotation::Refresh));
        story.tell(Event::Tick);
        story.tell(Event::Row(DB, Ok(1)));
        story.tell(Event::GuardTaken(DB, Ok(())));
        story.tell(granted(HOUR));
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(DB, Ok(2)));
        story.prove();
        story.agent.policy.rpo = Rpo::new(rpo);
        story.agent.policy.heartbeat = Some(rpo);
        story.pass_answering(55 * MINUTE, &FOLLOWS);
        let done = story.tell(granted(HOUR));
        assert_eq!(done.contains(&Action::WriteRow(DB)), is_shown, "{done:?}");
        assert_eq!(story.report().rotations, 1);
    }
}

#[test]
fn an_sdk_whose_clock_went_back_gets_the_next_credentials_by_a_restart() {
    for (step, restarts) in [(-3600, true), (3600, false)] {
        let mut story = Story::rotating(SupervisorKind::Child, Some(Rotation::Refresh));
        story.tell(Event::Tick);
        story.tell(granted(HOUR));
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(DB, Ok(2)));
        story.follows();
        story.pass_answering(MINUTE, &FOLLOWS);
        story.step = step;
        // What it has is good for a while: nothing is done at once.
        assert!(!story.tell(Event::ClockStepped).contains(&Action::Terminate));
        story.pass_answering(54 * MINUTE, &FOLLOWS);
        story.tell(granted(HOUR));
        story.tell(Event::Row(DB, Ok(8)));
        story.tell(Event::GuardTaken(DB, Ok(())));
        let done = story.follows();
        assert_eq!(done.contains(&Action::Terminate), restarts, "{done:?}");
    }
}

#[test]
fn a_locked_database_holds_a_hand_over_up_for_two_seconds_at_most() {
    let mut story = Story::replicating();
    story.pass_answering(55 * MINUTE, &FOLLOWS);
    story.tell(granted(HOUR));
    let begun = story.now.boot;
    let mut taken = None;
    while taken.is_none() && story.now.boot.since(begun) < MINUTE {
        story.tell(Event::Row(DB, Err("it is locked".to_owned())));
        story.now.boot = story.agent.deadline();
        if story.tell(Event::Tick).contains(&Action::TakeGuard(DB)) {
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
        story.tell(Event::Row(DB, Ok(3)));
        story.tell(Event::GuardTaken(DB, Ok(())));
        assert!(
            story
                .tell(Event::Synced(DB, Err(SyncFailure::NoSocket)))
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
    story.tell(Event::Row(DB, Ok(3)));
    story.tell(Event::GuardTaken(DB, Ok(())));
    story.tell(Event::Synced(DB, Err(SyncFailure::NoSocket)));
    assert_eq!(story.tell(Event::Terminate), []);
    assert!(
        story
            .tell(Event::Exited("exit status: 0".to_owned()))
            .contains(&Action::Start(Rotation::Restart))
    );
    story.tell(Event::Started(Ok(())));
    story.tell(Event::Row(DB, Ok(4)));
    assert!(story.follows().contains(&Action::Terminate));
    assert!(
        story
            .tell(Event::Exited("exit status: 0".to_owned()))
            .contains(&Action::Exit)
    );
}

#[test]
fn a_daemon_that_waits_for_the_last_rows_drops_no_local_state() {
    let mut story = Story::started();
    assert_eq!(story.tell(Event::Terminate), []);
    let corrupt = Err(SyncFailure::StateCorrupt("ltx file corrupted".to_owned()));
    let said = story.say(&corrupt);
    assert_eq!(story.tell(said), []);
    let done = story.pass(15 * SECOND);
    let last = done.last().map(|(_, action)| action);
    assert_eq!(last, Some(&Action::Terminate), "{done:?}");
    let ended = story.tell(Event::Exited("exit status: 0".to_owned()));
    assert!(ended.contains(&Action::Exit), "{ended:?}");
}

/// A child that makes a new snapshot; the guard holds the WAL meanwhile, or can't.
pub(super) fn making_a_snapshot(guard: &Result<(), String>) -> Story {
    making_a_snapshot_after(Ok(7), guard)
}

/// The same, where what came of the last row is this.
fn making_a_snapshot_after(row: Result<i64, String>, guard: &Result<(), String>) -> Story {
    let mut story = Story::replicating();
    story.agent.policy.restorable = Some(HOUR);
    loop {
        story.now.boot = story.now.boot.max(story.agent.deadline());
        let mut actions = VecDeque::from(story.tell(Event::Tick));
        while let Some(action) = actions.pop_front() {
            let came_of_it = match action {
                Action::MakeSnapshot(DB, _) => return story,
                Action::WriteRow(DB) => Event::Row(DB, row.clone()),
                Action::Sync(DB) => story.say(&FOLLOWS),
                Action::TakeGuard(DB) => Event::GuardTaken(DB, guard.clone()),
                Action::Terminate => Event::Exited("exit status: 0".to_owned()),
                Action::PlanRestore(DB) => {
                    let (chain, stranger) = (Chain::Nothing, None);
                    Event::Planned(DB, Ok(Listing { chain, stranger }))
                }
                _ => continue,
            };
            actions.extend(story.tell(came_of_it));
        }
    }
}

#[test]
fn a_snapshot_that_nobody_held_the_wal_for_is_either_made_or_followed_by_the_whole_database() {
    let start = Action::Start(Rotation::Restart);
    let failed = || Event::Snapshotted(DB, Err("S3 is away".to_owned()));
    let gone = || "the disk is gone".to_owned();
    for (row, guard) in [
        (Ok(7), Ok(())),
        (Ok(7), Err(gone())),
        // All of the WAL may be in the database file: the guard holds nothing then.
        (Err(gone()), Ok(())),
    ] {
        let is_held = row.is_ok() && guard.is_ok();
        let mut story = making_a_snapshot_after(row.clone(), &guard);
        assert_eq!(story.agent.glance(story.now).is_broken, !is_held);
        let done = story.tell(failed());
        assert_eq!(done.contains(&Action::EmptyWal(DB)), !is_held, "{done:?}");
        assert_eq!(done.contains(&start), is_held, "{done:?}");

        let mut story = making_a_snapshot_after(row, &guard);
        let done = story.tell(Event::Snapshotted(DB, Ok(())));
        assert!(done.contains(&start), "{done:?}");
        assert!(!story.agent.glance(story.now).is_broken);
    }
}

#[test]
fn a_guard_that_a_long_snapshot_outlasts_costs_no_second_upload() {
    let mut story = making_a_snapshot(&Ok(()));
    story.now.boot = story.now.boot + 5 * MINUTE + SECOND;
    assert!(story.tell(Event::Tick).contains(&Action::AbandonGuard(DB)));
    assert!(story.agent.glance(story.now).is_broken);
    story.tell(Event::WalEmptied(DB, Err("Litestream reads it".to_owned())));
    let done = story.tell(Event::Snapshotted(DB, Ok(())));
    assert!(done.contains(&Action::Start(Rotation::Restart)), "{done:?}");
}
