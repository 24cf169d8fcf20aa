//! A slow line: an upload that moves is not ended, and one that does not is.

use super::*;

/// A line that carries so many bytes a second, with more to carry than that.
#[derive(Clone, Copy)]
struct Line(u64);

const SLOW: Line = Line(8000);
const STANDS: Line = Line(0);

const SIZE: u64 = 20_000_000;

impl Story {
    /// A Litestream that has begun to upload, with a session for so long.
    fn uploading(rotation: Rotation, session: Duration) -> Self {
        let mut story = Self::rotating(SupervisorKind::Child, Some(rotation));
        story.tell(Event::Tick);
        story.tell(Event::Row(DB, Ok(1)));
        story.tell(Event::GuardTaken(DB, Ok(())));
        story.tell(granted(session));
        story.tell(Event::Started(Ok(())));
        story.tell(Event::Row(DB, Ok(2)));
        story
    }

    /// Lets time pass, second by second, while it answers no sync; answers with when it was told to end.
    fn upload(&mut self, line: Line, size: u64, span: Duration) -> Vec<Duration> {
        let begun = self.now.boot;
        let mut ended = Vec::new();
        while self.now.boot.since(begun) < span {
            self.carry(line, size);
            ended.extend(self.turn().map(|()| self.now.boot.since(begun)));
        }
        ended
    }

    /// A second passes, in which the line carries what it can.
    fn carry(&mut self, line: Line, size: u64) {
        self.now.boot = self.now.boot + SECOND;
        self.sent = self.sent.map(|sent| Sent {
            bytes: sent.bytes + line.0,
            queued: 500_000,
            size,
        });
    }

    /// All that is due now; whether Litestream was told to end.
    fn turn(&mut self) -> Option<()> {
        let mut ended = None;
        let mut actions = VecDeque::from(self.tell(Event::Tick));
        while let Some(action) = actions.pop_front() {
            let came_of_it = match action {
                Action::WriteRow(DB) => Event::Row(DB, Ok(7)),
                Action::TakeGuard(DB) => Event::GuardTaken(DB, Ok(())),
                Action::EmptyWal(DB) => Event::WalEmptied(DB, Ok(())),
                Action::Greet => Event::Greeted,
                Action::Terminate => {
                    ended = Some(());
                    Event::Exited("exit status: 0".to_owned())
                }
                Action::Start(_) => Event::Started(Ok(())),
                _ => continue,
            };
            actions.extend(self.tell(came_of_it));
        }
        ended
    }
}

#[test]
fn an_upload_that_moves_is_not_ended_and_one_that_stands_still_is() {
    let mut story = Story::uploading(Rotation::Refresh, 12 * HOUR);
    assert_eq!(story.upload(SLOW, SIZE, 42 * MINUTE), []);
    let report = story.report();
    assert!(is_unhealthy(&report), "what is not proved is not healthy");
    assert!(
        has_problem(&report, "an upload is under way: "),
        "{report:?}"
    );
    assert!(has_problem(
        &report,
        "of at most 40.0 MB sent, 8000 bytes a second"
    ));
    let figures = report.upload.expect("it is seen");
    assert!(figures.sent > 19_000_000, "{figures:?}");
    assert_eq!((figures.most, figures.rate()), (2 * SIZE, Some(8000)));
    // The line is gone.
    let ended = story.upload(STANDS, SIZE, 10 * MINUTE);
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert!((5 * MINUTE..7 * MINUTE).contains(&ended[0]), "{ended:?}");
}

/// Until it answers nobody knows that Litestream has read the WAL.
#[test]
fn the_wal_is_held_while_an_upload_moves_and_what_was_uploaded_is_not_begun_again() {
    let mut story = Story::uploading(Rotation::Refresh, 12 * HOUR);
    story.upload(SLOW, SIZE, 42 * MINUTE);
    let first = |story: &Story| {
        let first = story.agent.databases.get(DB).expect("the database");
        (
            first.guard.held_since().is_some(),
            first.replica.ledger.is_broken(),
        )
    };
    assert_eq!(first(&story), (true, false));
    story.follows();
    story.tell(Event::Row(DB, Ok(8)));
    story.follows();
    assert_eq!(story.report().replication, Activity::Replicating);
    assert_eq!(first(&story), (false, false));

    // One that stands still is not waited for, and the WAL is let go of.
    let mut story = Story::uploading(Rotation::Refresh, 12 * HOUR);
    story.upload(SLOW, SIZE, 20 * MINUTE);
    assert_eq!(first(&story), (true, false));
    story.upload(STANDS, SIZE, 5 * MINUTE + SECOND * 20);
    assert_eq!(first(&story), (false, true));
}

#[test]
fn an_upload_that_can_not_be_seen_or_hardly_moves_is_ended_as_any_other() {
    for (line, is_seen) in [(SLOW, false), (STANDS, true), (Line(100), true)] {
        let mut story = Story::uploading(Rotation::Refresh, 12 * HOUR);
        story.sent = is_seen.then(Sent::default);
        let ended = story.upload(line, SIZE, 10 * MINUTE);
        assert_eq!(ended.len(), 1, "{} {is_seen}", line.0);
        assert!(ended[0] < 7 * MINUTE, "{ended:?}");
        assert_eq!(story.report().upload, None);
    }
}

/// Its queue is full, for a moment.
#[test]
fn a_control_socket_that_refuses_once_ends_no_upload() {
    let mut story = Story::uploading(Rotation::Refresh, 900 * SECOND);
    assert_eq!(story.upload(SLOW, SIZE, 5 * MINUTE), []);
    story.tell(Event::Synced(DB, Err(SyncFailure::NoSocket)));
    assert_eq!(story.upload(SLOW, SIZE, 5 * MINUTE), []);
    let report = story.report();
    assert!(!has_problem(&report, "no control socket"), "{report:?}");
    assert!(report.databases[0].guard_held.is_some(), "it is waited for");
    story.tell(granted(900 * SECOND));
    assert_eq!(story.upload(SLOW, SIZE, 9 * MINUTE), []);
}

#[test]
fn whether_an_upload_moves_is_looked_at_before_it_is_ended() {
    let mut story = Story::uploading(Rotation::Refresh, HOUR);
    // It is slow to open its socket, so that nothing is known of its uploads.
    story.now.boot = story.now.boot + 46 * SECOND;
    story.tell(Event::Synced(DB, Err(SyncFailure::NoSocket)));
    assert_eq!(story.upload(SLOW, SIZE, 54 * MINUTE + 15 * SECOND), []);
    assert_eq!(story.report().upload, None);
    // The question of an hour ago is not answered yet.
    story.tell(granted(HOUR));
    assert_eq!(story.upload(SLOW, SIZE, 20 * MINUTE), []);
    assert!(story.report().upload.is_some(), "{:?}", story.report());
}

/// S3 is broken, and Litestream sends the same again and again.
#[test]
fn what_was_sent_several_times_over_excuses_nobody() {
    let mut story = Story::uploading(Rotation::Refresh, 12 * HOUR);
    let ended = story.upload(SLOW, 1_000_000, HOUR);
    // 16 MiB and four times the database.
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert!((40 * MINUTE..52 * MINUTE).contains(&ended[0]), "{ended:?}");
}

#[test]
fn a_restart_for_new_credentials_waits_for_an_upload() {
    let mut story = Story::uploading(Rotation::Restart, HOUR);
    assert_eq!(story.upload(SLOW, SIZE, 55 * MINUTE), []);
    assert_eq!(story.tell(granted(HOUR)), []);
    assert_eq!(story.upload(SLOW, SIZE, 2 * MINUTE), []);
    // It has ended: nothing waits to be sent.
    story.sent = story.sent.map(|sent| Sent { queued: 0, ..sent });
    story.now.boot = story.now.boot + 11 * SECOND;
    let done = story.tell(Event::Tick);
    assert!(done.contains(&Action::WriteRow(DB)), "{done:?}");
    assert_eq!(story.report().cut, None);
}

#[test]
fn without_an_upload_nothing_waits() {
    for sent in [Some(Sent::default()), None] {
        let mut story = Story::replicating();
        story.sent = sent;
        story.pass_answering(55 * MINUTE, &FOLLOWS);
        let done = story.tell(granted(HOUR));
        assert!(done.contains(&Action::WriteRow(DB)), "{done:?}");
    }
}

#[test]
fn an_upload_that_the_credentials_do_not_outlast_is_cut_and_told_which_would() {
    // Twice 20 MB at 8,000 bytes a second take 83 min.
    let line = SLOW;
    let mut story = Story::uploading(Rotation::Restart, HOUR);
    assert_eq!(story.upload(line, SIZE, 55 * MINUTE), []);
    story.tell(granted(HOUR));
    let ended = story.upload(line, SIZE, 5 * MINUTE);
    // Half a minute before they end, and once.
    assert_eq!(ended.len(), 1, "{ended:?}");
    let left = 5 * MINUTE - ended[0];
    assert!((20 * SECOND..31 * SECOND).contains(&left), "{left:?}");
    let report = story.report();
    let cut = report.cut.clone().expect("it was cut");
    let minutes = cut
        .split_once("sessions of ")
        .and_then(|(_, rest)| rest.split_once(" min"));
    let minutes: u64 = minutes.expect("a length").0.parse().expect("a number");
    // It can be used but for the five minutes that are left when the next is granted.
    assert!((88..110).contains(&minutes), "{cut}");
    assert!(cut.contains("rotation = \"refresh\""), "{cut}");
    story.upload(line, SIZE, 3 * MINUTE);
    assert!(has_problem(&story.report(), &cut), "{:?}", story.report());

    // With such sessions it ends.
    assert_eq!(story.report().starts, 2);
    story.upload(line, SIZE, 45 * MINUTE);
    story.tell(granted(Duration::from_secs(60 * minutes)));
    story.upload(line, SIZE, 10 * MINUTE);
    let starts = story.report().starts;
    assert_eq!(story.upload(line, SIZE, 72 * MINUTE), []);
    assert_eq!(story.report().starts, starts);
}

#[test]
fn where_no_session_is_long_enough_that_is_said() {
    let line = Line(300);
    let mut story = Story::uploading(Rotation::Restart, 12 * HOUR);
    // It is fetched then.
    story.upload(line, SIZE, 12 * HOUR * 19 / 20);
    story.tell(granted(12 * HOUR));
    story.upload(line, SIZE, 36 * MINUTE);
    let cut = story.report().cut.expect("it was cut");
    assert!(cut.contains("no session is long enough"), "{cut}");
}

#[test]
fn a_reload_that_names_another_database_waits_for_an_upload_too() {
    let mut story = Story::uploading(Rotation::Refresh, HOUR);
    assert_eq!(story.upload(SLOW, SIZE, 10 * MINUTE), []);
    let mut policy = story.agent.policy.clone();
    policy.litestream = Some("another".into());
    let done = story.tell(Event::Reloaded(policy));
    assert!(!done.contains(&Action::WriteRow(DB)), "{done:?}");
    assert_eq!(story.upload(SLOW, SIZE, 10 * MINUTE), []);
    story.sent = story.sent.map(|sent| Sent { queued: 0, ..sent });
    story.now.boot = story.now.boot + 11 * SECOND;
    let done = story.tell(Event::Tick);
    assert!(done.contains(&Action::WriteRow(DB)), "{done:?}");
}

#[test]
fn a_new_snapshot_is_given_its_time_while_it_moves() {
    for (line, is_given_up) in [(SLOW, false), (STANDS, true)] {
        let mut story = super::hand_over::making_a_snapshot(&Ok(()));
        let begun = story.now.boot;
        let mut given_up = None;
        while given_up.is_none() && story.now.boot.since(begun) < 80 * MINUTE {
            story.carry(line, SIZE);
            let done = story.tell(Event::Tick);
            given_up = done
                .contains(&Action::AbandonStart)
                .then_some(story.now.boot);
        }
        let after = given_up.map(|at| at.since(begun));
        assert_eq!(
            after,
            is_given_up.then_some(HOUR),
            "{} bytes a second",
            line.0
        );
    }
}

/// Its local state is found to be useless while a hand-over waits for its upload.
#[test]
fn what_waited_for_an_upload_is_over_once_litestream_is_stopped() {
    let mut story = Story::uploading(Rotation::Restart, HOUR);
    assert_eq!(story.upload(SLOW, SIZE, 55 * MINUTE), []);
    story.tell(granted(HOUR));
    assert_eq!(story.upload(SLOW, SIZE, 4 * MINUTE), []);
    let corrupt = SyncFailure::StateCorrupt("ltx".to_owned());
    let done = story.tell(Event::Synced(DB, Err(corrupt)));
    assert!(done.contains(&Action::Terminate), "{done:?}");
    story.tell(Event::Exited("exit status: 0".to_owned()));
    assert_eq!(story.report().replication, Activity::Resetting);
    // The old credentials end before the limit of the reset.
    story.now.boot = story.now.boot + MINUTE;
    story.tell(Event::Tick);
    assert!(story.agent.deadline() > story.now.boot);
}

#[test]
fn a_restart_for_new_credentials_does_not_wait_for_what_stands_still() {
    let mut story = Story::uploading(Rotation::Restart, HOUR);
    assert_eq!(story.upload(SLOW, SIZE, 53 * MINUTE), []);
    assert_eq!(story.upload(STANDS, SIZE, 2 * MINUTE), []);
    let done = story.tell(granted(HOUR));
    assert!(done.contains(&Action::WriteRow(DB)), "{done:?}");
}
