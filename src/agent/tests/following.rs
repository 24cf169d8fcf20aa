//! What a Litestream that runs has to show, and what becomes of one that does not.

use super::*;

#[test]
fn a_replica_that_follows_is_asked_again_and_one_that_stops_is_noticed() {
    let mut story = Story::replicating();
    story.pass_answering(10 * MINUTE, &FOLLOWS);
    let lag = story.report().databases[0].lag.expect("it was measured");
    assert!(lag.time <= 31 * SECOND && lag.rows <= 7, "{lag:?}");
    assert!(story.report().state.is_healthy());

    let failed = Err(SyncFailure::Failed("SlowDown".to_owned()));
    story.pass_answering(3 * MINUTE, &failed);
    let report = story.report();
    assert!(is_unhealthy(&report), "{report:?}");
    assert!(has_problem(&report, "SlowDown"), "{report:?}");
    let lag = report.databases[0].lag.expect("it was measured");
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
    policy.databases = vec![watch(OTHER, true)];
    // What was asked of the one before is asked anew of this one, whose WAL nobody holds yet.
    let done = story.tell(Event::Reloaded(policy));
    assert!(done.contains(&Action::TakeGuard(OTHER)), "{done:?}");
    assert!(done.contains(&Action::WriteRow(OTHER)), "{done:?}");
    let report = story.report();
    assert!(
        !report.state.is_healthy() && report.databases[0].proof.is_none(),
        "{report:?}"
    );
    assert_eq!(story.agent.known(OTHER).last, None);
}

#[test]
fn a_sync_that_is_late_is_named_asked_again_and_still_believed() {
    let mut story = Story::started();
    let done = story.pass(21 * SECOND);
    assert_eq!(done, [(20 * SECOND, Action::Greet)], "it was asked before");
    let (activity, _, trouble) = story.activity();
    assert_eq!(activity, Activity::CatchingUp);
    let trouble = trouble.expect("it is late");
    assert!(trouble.contains("more than 20 s"), "{trouble}");
    // It is waited for, as long as Litestream needs to tell what fails it.
    story.tell(Event::Greeted);
    assert_eq!(story.pass(3 * MINUTE - 2 * SECOND), []);
    let done = story.pass(2 * SECOND);
    assert!(done.iter().any(|(_, a)| *a == Action::Sync(DB)), "{done:?}");
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
        let mut story = Story::rotating(SupervisorKind::Child, Some(Rotation::Refresh));
        story.tell(Event::Tick);
        story.tell(granted(12 * HOUR));
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(DB, Ok(2)));
        story.pass_answering(10 * MINUTE, &FOLLOWS);
        let begun = story.now.boot;
        while story.agent.deadline() <= begun + HOUR {
            story.now.boot = story.agent.deadline();
            let mut actions = VecDeque::from(story.tell(Event::Tick));
            while let Some(action) = actions.pop_front() {
                match action {
                    Action::WriteRow(DB) => actions.extend(story.tell(Event::Row(DB, Ok(7)))),
                    Action::Greet if !hangs => {
                        actions.extend(story.tell(Event::Greeted));
                    }
                    _ => {}
                }
            }
            if matches!(story.activity().0, Activity::Stopping) {
                break;
            }
        }
        let after = story.now.boot.since(begun);
        assert!(after <= restarted_by, "{hangs}: {after:?}");
        assert!(hangs || after > 6 * MINUTE, "{after:?}");
    }
}

#[test]
fn without_a_heartbeat_the_replica_is_asked_about_what_the_application_committed() {
    let mut story = Story::replicating();
    story.reload_without_heartbeat();
    let mut asked = Vec::new();
    for (mark, is_asked) in [
        // Nobody has looked before the last proof.
        (Some(7), true),
        (Some(7), false),
        (Some(7), false),
        (Some(8), true),
        (Some(8), false),
        // What can't be read shows nothing.
        (None, true),
        (None, true),
        (Some(8), true),
        (Some(8), false),
    ] {
        let mut done: Vec<_> = story.pass(30 * SECOND);
        assert!(done.iter().any(|(_, a)| *a == Action::LookForCommit(DB)));
        let more = story.tell(Event::LastCommit(DB, mark.map(commit)));
        done.extend(more.into_iter().map(|action| (SECOND, action)));
        asked.push(is_asked);
        let syncs = done.iter().filter(|(_, a)| *a == Action::Sync(DB)).count();
        assert_eq!(syncs, usize::from(is_asked), "{asked:?}: {done:?}");
        if is_asked {
            story.follows();
        }
        let unproved = story.report().databases[0].unproved_for;
        assert!(unproved <= Some(30 * SECOND), "{asked:?}: {unproved:?}");
    }
    let database = story.agent.databases.get(DB).expect("the database");
    assert!(database.replica.ledger.is_idle());
}

#[test]
fn a_litestream_that_does_not_follow_is_restarted_once_before_it_is_only_reported() {
    let failed = Err(SyncFailure::Failed("it hangs".to_owned()));
    for rotation in [Rotation::Restart, Rotation::Refresh] {
        let mut story = Story::rotating(SupervisorKind::Child, Some(rotation));
        story.tell(Event::Tick);
        story.tell(granted(12 * HOUR));
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(DB, Ok(2)));
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

const NO_SOCKET: Says = Err(SyncFailure::NoSocket);

#[test]
fn a_litestream_that_is_slow_to_start_is_not_taken_for_one_without_a_control_socket() {
    let mut story = Story::started();
    story.tell(Event::Synced(DB, Err(SyncFailure::NoSocket)));
    story.pass_answering(30 * SECOND, &NO_SOCKET);
    let report = story.report();
    assert_eq!(report.replication, Activity::CatchingUp);
    assert!(!report.state.is_healthy());
    assert!(
        report.databases[0].guard_held.is_some(),
        "the WAL is open to everybody"
    );
    story.pass_answering(2 * SECOND, &FOLLOWS);
    let report = story.report();
    assert!(report.state.is_healthy());
    assert!(report.databases[0].proof.is_some());
}

#[test]
fn a_litestream_without_a_control_socket_is_asked_again_all_the_same() {
    let mut story = Story::started();
    story.tell(Event::Synced(DB, Err(SyncFailure::NoSocket)));
    story.pass_answering(MINUTE, &NO_SOCKET);
    let report = story.report();
    assert_eq!(report.replication, Activity::Replicating);
    assert_eq!(report.databases[0].proof, None);
    story.pass_answering(MINUTE, &FOLLOWS);
    assert!(story.report().databases[0].proof.is_some());
}

#[test]
fn a_control_socket_that_is_gone_is_a_fault() {
    let mut story = Story::replicating();
    story.tell(Event::Exited("exit status: 1".to_owned()));
    while !story
        .tell(Event::Tick)
        .contains(&Action::Start(Rotation::Restart))
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
fn a_sync_of_an_idle_database_proves_no_row() {
    let mut story = Story::replicating();
    let idle = |story: &mut Story| story.tell(Event::Synced(DB, Ok(position(2))));
    let mut rows = 0;
    for _ in 0..60 {
        story.now.boot = story.agent.deadline();
        let mut actions = VecDeque::from(story.tell(Event::Tick));
        while let Some(action) = actions.pop_front() {
            match action {
                Action::WriteRow(DB) => {
                    rows += 1;
                    actions.extend(story.tell(Event::Row(DB, Ok(10 + rows))));
                }
                Action::Sync(DB) => actions.extend(idle(&mut story)),
                _ => {}
            }
        }
    }
    let report = story.report();
    let lag = report.databases[0].lag.expect("it was measured");
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
        Event::Synced(
            DB,
            Ok(Answer {
                last_commit,
                ..position(local)
            }),
        )
    };
    let pass = |story: &mut Story, local, last_commit: Option<u64>| {
        let end = story.now.boot + 5 * MINUTE;
        while story.agent.deadline() <= end {
            story.now.boot = story.agent.deadline();
            let mut done = story.tell(Event::Tick);
            if done.contains(&Action::LookForCommit(DB)) {
                done.extend(story.tell(Event::LastCommit(DB, last_commit.map(commit))));
            }
            if done.contains(&Action::Sync(DB)) {
                story.tell(says(local, last_commit));
            }
        }
    };
    story.tell(says(5, Some(1)));
    pass(&mut story, 5, Some(1));
    let report = story.report();
    assert!(
        report.state.is_healthy() && report.databases[0].proof.is_some(),
        "{report:?}"
    );
    pass(&mut story, 5, Some(2));
    assert!(is_unhealthy(&story.report()), "{:?}", story.report());
    pass(&mut story, 6, Some(2));
    assert!(story.report().state.is_healthy());
}

#[test]
fn the_row_before_the_first_one_is_asked_for_where_nothing_is_recalled() {
    let mut story = Story::begin(SupervisorKind::Child);
    story.tell(Event::Recalled(
        DB,
        Earlier {
            debt: Debt::Unknown,
            begins_anew: false,
            is_unrestorable: false,
            differs: false,
            seam: None,
        },
    ));
    assert_eq!(
        story.tell(Event::Row(DB, Ok(7))),
        [Action::AskRowBefore(DB, 7)]
    );
    story.tell(Event::Inherited(DB, HOUR));
    assert!(story.tell(Event::Row(DB, Ok(8))).is_empty(), "once");
    assert!(story.report().unproved_for >= Some(HOUR));
    let mut story = Story::begin(SupervisorKind::Child);
    story.tell(Event::Tick);
    assert!(
        !story
            .tell(Event::Row(DB, Ok(7)))
            .contains(&Action::AskRowBefore(DB, 7))
    );
}

#[test]
fn what_litestream_replicates_is_asked_until_it_tells() {
    let mut story = Story::started();
    let mut asked = Vec::new();
    for second in 0..300 {
        let mut done: Vec<_> = story.pass(SECOND).into_iter().map(|(_, a)| a).collect();
        // It answers each sync, and nothing else before the fifth minute.
        if second < 2 || done.contains(&Action::Sync(DB)) {
            let said = story.say(&FOLLOWS);
            done.extend(story.tell(said));
            done.extend(story.tell(Event::Row(DB, Ok(8))));
        }
        if done.contains(&Action::List) {
            asked.push(second);
        }
    }
    let waits: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits, [30, 60, 120], "{asked:?}");
    story.tell(Event::Listed(Vec::new()));
    assert_eq!(story.pass_answering(HOUR, &FOLLOWS), 0);
    assert_eq!(
        story.agent.replicator.introduced_at(&story.agent.databases),
        BootTime::NEVER
    );
}

/// Litestream reads its configuration at a start alone, and the guard and the look are about one database.
#[test]
fn another_database_in_the_configuration_gets_a_litestream_a_guard_and_a_look_of_its_own() {
    let other = |story: &Story| {
        let mut policy = story.agent.policy.clone();
        policy.databases = vec![watch(OTHER, true)];
        Event::Reloaded(policy)
    };
    let mut story = Story::replicating();
    let reloaded = other(&story);
    assert_eq!(
        story.tell(reloaded),
        // The second one is due anyway.
        [
            Action::TakeGuard(OTHER),
            Action::WriteRow(OTHER),
            Action::WriteRow(OTHER)
        ]
    );
    story.tell(Event::GuardTaken(OTHER, Ok(())));
    assert_eq!(story.tell(Event::Row(OTHER, Ok(1))), [Action::Sync(OTHER)]);
    let unknown = SyncFailure::Failed("no such database".to_owned());
    let done = story.tell(Event::Synced(OTHER, Err(unknown)));
    assert_eq!(done, [Action::Terminate], "one that is asked for it");

    // On the way to a start what was looked at is the one before.
    let mut story = Story::begin(SupervisorKind::Child);
    story.tell(Event::Tick);
    story.tell(Event::Row(DB, Ok(1)));
    story.tell(Event::GuardTaken(DB, Ok(())));
    assert!(
        story
            .tell_alone(granted(HOUR))
            .contains(&Action::Survey(DB))
    );
    let reloaded = other(&story);
    let done = story.tell_alone(reloaded);
    let wanted = [
        Action::ReleaseGuard(DB),
        Action::AbandonStart,
        Action::TakeGuard(OTHER),
        Action::Survey(OTHER),
    ];
    let mut of_start = done.iter().filter(|a| wanted.contains(a));
    assert!(
        wanted.iter().all(|w| of_start.next() == Some(w)),
        "{done:?}"
    );

    // So is what was looked for.
    let mut story = Story::begin(SupervisorKind::Child);
    story.tell(Event::Tick);
    story.tell(granted(HOUR));
    assert!(
        story
            .tell(Event::DatabaseMissing(DB))
            .contains(&Action::LookForReplica(DB))
    );
    let reloaded = other(&story);
    assert!(story.tell(reloaded).contains(&Action::AbandonLook(DB)));
    let done = story.tell(Event::Looked(DB, Ok(false)));
    assert!(!done.contains(&Action::WriteFirstRow(DB)), "{done:?}");
}

/// systemd may stop what it runs for the reset of the local state: nothing runs then, whatever was before.
#[test]
fn a_unit_that_was_stopped_is_not_taken_for_one_that_runs() {
    let mut story = Story::begin(SupervisorKind::Systemd);
    story.tell(Event::Tick);
    story.tell(Event::Row(DB, Ok(1)));
    story.tell(Event::GuardTaken(DB, Ok(())));
    story.tell(granted(MINUTE));
    story.tell(Event::Row(DB, Ok(2)));
    story.follows();
    story.tell(Event::Started(Ok(())));
    story.tell(Event::Row(DB, Ok(3)));
    let corrupt = SyncFailure::StateCorrupt("ltx".to_owned());
    let done = story.tell(Event::Synced(DB, Err(corrupt)));
    assert!(done.contains(&Action::ResetState(DB)), "{done:?}");
    // The credentials end while it is being dropped, and the next ones are not worth a start.
    story.pass(MINUTE);
    story.tell(Event::StateReset(DB, Ok(true)));
    story.tell(granted(SECOND));
    for _ in 0..10 {
        let (activity, ..) = story.activity();
        assert_eq!(activity, Activity::WaitingForCredentials);
        story.pass(SECOND);
    }
}
