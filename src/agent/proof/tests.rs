//! What an answer proves, case by case.

use super::*;
use crate::litestream::answer::Files;

fn at(seconds: u64) -> BootTime {
    BootTime::new(Duration::from_secs(seconds))
}

/// An answer of a Litestream whose files are all of one history.
fn answer(local: u64, replicated: u64, before: Option<u64>) -> Answer {
    Answer {
        position: Position { local, replicated },
        files: Some(Files {
            folder: 1,
            last: Some(1000 + local),
            before: before.map(|before| 1000 + before),
        }),
        last_commit: Some(local),
        passed_a_wal_over: None,
        lacks_beginning: false,
        is_torn: None,
        is_of_seam: true,
    }
}

/// A commit that is marked so, a page of the WAL after the one before.
fn commit(mark: u64) -> Commit {
    Commit {
        mark,
        wal: 1,
        bytes: mark << 12,
    }
}

/// A ledger that has one proof, of transaction 10, asked for at 100 s.
fn proved() -> Ledger {
    let mut ledger = Ledger::new(at(0));
    ledger.started();
    ledger.row(1, at(90));
    ledger.ask(at(95));
    assert_eq!(
        ledger.judge(answer(9, 9, None), true, at(96)),
        Finding::Begun
    );
    assert_eq!(
        ledger.unproved_for(true, at(100)),
        Some(Duration::from_secs(10))
    );
    ledger.row(2, at(99));
    ledger.ask(at(100));
    let proof = ledger.judge(answer(10, 10, Some(9)), true, at(101));
    assert_eq!(proof, Finding::Proved);
    assert_eq!(ledger.unproved_for(true, at(101)), None);
    ledger
}

/// What an answer means that is given after another row.
fn then(ledger: &mut Ledger, answer: Answer) -> Finding {
    ledger.row(3, at(110));
    ledger.ask(at(111));
    ledger.judge(answer, true, at(112))
}

#[test]
fn an_answer_proves_what_was_committed_before_the_question_and_no_more() {
    let mut ledger = proved();
    ledger.row(3, at(110));
    ledger.ask(at(111));
    ledger.row(4, at(112));
    let proof = ledger.judge(answer(11, 11, Some(10)), true, at(113));
    assert_eq!(proof, Finding::Proved);
    assert_eq!(
        ledger.proof().and_then(|proof| proof.row).map(|row| row.id),
        Some(3)
    );
    assert_eq!(
        ledger.unproved_for(true, at(120)),
        Some(Duration::from_secs(8))
    );
    // It was taken with the row before, so that nothing moves: another one shows it.
    ledger.ask(at(130));
    assert_eq!(
        ledger.judge(answer(11, 11, Some(11)), true, at(131)),
        Finding::Unread
    );
}

#[test]
fn a_history_that_is_not_one_proves_nothing_until_all_is_uploaded_anew() {
    let files = |folder, last, before| {
        Some(Files {
            folder,
            last,
            before,
        })
    };
    let with = |files| Answer {
        files,
        ..answer(11, 11, None)
    };
    for (what, odd) in [
        ("begun anew", answer(1, 10, None)),
        ("the replica is ahead", answer(11, 12, Some(10))),
        ("gone back, the replica too", answer(8, 8, None)),
        ("another folder", with(files(2, Some(1011), Some(1010)))),
        ("the last file is missing", with(files(1, None, Some(1010)))),
        (
            "another file of the same number",
            with(files(1, Some(7), Some(7))),
        ),
        ("no folder any more", with(None)),
    ] {
        let mut ledger = proved();
        assert!(
            matches!(then(&mut ledger, odd), Finding::Broken(_)),
            "{what}"
        );
        // What looks well from now on is not.
        let well = answer(12, 12, Some(11));
        assert!(
            matches!(then(&mut ledger, well), Finding::Broken(_)),
            "{what}"
        );
        ledger.started();
        assert!(
            matches!(then(&mut ledger, well), Finding::Broken(_)),
            "{what}"
        );
        assert_eq!(ledger.proof().map(|proof| proof.position.local), Some(10));
        ledger.begins_anew();
        assert_eq!(
            then(&mut ledger, answer(20, 20, None)),
            Finding::Begun,
            "{what}"
        );
        assert_eq!(
            then(&mut ledger, answer(21, 21, Some(20))),
            Finding::Proved,
            "{what}"
        );
    }
}

#[test]
fn what_retention_removes_and_what_a_start_makes_anew_breaks_no_history() {
    let mut ledger = proved();
    assert_eq!(then(&mut ledger, answer(11, 11, None)), Finding::Proved);
    ledger.started();
    let mut anew = answer(12, 12, None);
    anew.files = anew.files.map(|files| Files { folder: 2, ..files });
    assert_eq!(then(&mut ledger, anew), Finding::Proved);
    // Files that were lost while it was down: it goes on from its replica, which may be behind.
    ledger.started();
    assert_eq!(then(&mut ledger, answer(11, 11, None)), Finding::Unread);
    assert_eq!(then(&mut ledger, answer(12, 12, Some(11))), Finding::Proved);
    // But not with another file of a number that was there.
    ledger.started();
    let mut other = answer(13, 13, None);
    other.files = other.files.map(|files| Files {
        before: Some(7),
        ..files
    });
    assert!(matches!(then(&mut ledger, other), Finding::Broken(_)));
}

#[test]
fn nothing_but_a_proof_makes_the_oldest_row_younger() {
    let mut ledger = proved();
    ledger.inherit(Duration::from_secs(500));
    ledger.row(3, at(110));
    for answer in [answer(10, 10, Some(10)), answer(11, 10, Some(10))] {
        ledger.ask(at(115));
        ledger.started();
        ledger.ask(at(120));
        assert_ne!(ledger.judge(answer, true, at(121)), Finding::Proved);
        ledger.excuse(at(125));
        ledger.forget();
        assert_eq!(
            ledger.unproved_for(true, at(130)),
            Some(Duration::from_secs(630))
        );
    }
    assert_eq!(ledger.legacy(true).unproved_since, Some(at(0)));
}

#[test]
fn where_no_row_can_be_written_the_wal_tells_whether_something_was() {
    let mut ledger = Ledger::new(at(0));
    ledger.started();
    ledger.ask(at(10));
    let idle = answer(9, 9, None);
    assert_eq!(ledger.judge(idle, true, at(11)), Finding::Proved);
    ledger.ask(at(40));
    assert_eq!(ledger.judge(idle, true, at(41)), Finding::Proved);
    let written = Answer {
        last_commit: Some(77),
        ..idle
    };
    ledger.ask(at(70));
    assert_eq!(ledger.judge(written, true, at(71)), Finding::Unread);
    ledger.ask(at(80));
    assert_eq!(ledger.judge(written, true, at(81)), Finding::Unread);
    let unseen = Answer {
        last_commit: None,
        ..idle
    };
    assert_eq!(ledger.judge(unseen, true, at(82)), Finding::Unread);
}

#[test]
fn nothing_is_idle_with_a_row_that_no_look_has_seen() {
    let mut ledger = proved();
    ledger.look(Some(commit(7)), at(105));
    assert!(!ledger.is_idle(), "it was looked at after the question");
    assert_eq!(then(&mut ledger, answer(11, 11, Some(10))), Finding::Proved);
    assert!(!ledger.is_idle(), "the row came after the look");
    assert_eq!(ledger.unproved_bytes(), 0);
    ledger.look(Some(commit(7)), at(115));
    assert!(ledger.is_idle());
    ledger.look(Some(commit(9)), at(120));
    assert!(!ledger.is_idle());
    assert_eq!(ledger.unproved_bytes(), 8192);
    let anew = Commit {
        wal: 2,
        ..commit(9)
    };
    ledger.look(Some(anew), at(125));
    assert_eq!(ledger.unproved_bytes(), 9 << 12, "all of another WAL");
}

#[test]
fn an_answer_that_nobody_asked_for_proves_nothing() {
    let mut ledger = proved();
    ledger.row(3, at(110));
    ledger.ask(at(111));
    // Of the process before.
    ledger.started();
    assert_eq!(
        ledger.judge(answer(11, 11, Some(10)), true, at(112)),
        Finding::Behind
    );
}

#[test]
fn what_was_taken_by_one_answer_and_uploaded_by_the_next_is_proved_then() {
    let mut ledger = Ledger::new(at(0));
    ledger.started();
    for (asked, local, replicated) in [(5, 9, 9), (10, 10, 10)] {
        ledger.ask(at(asked));
        let answer = answer(local, replicated, Some(9));
        assert_eq!(ledger.judge(answer, false, at(asked + 1)), Finding::Proved);
    }
    ledger.take_ended();
    ledger.ask(at(100));
    let taken = answer(11, 10, Some(10));
    assert_eq!(ledger.judge(taken, false, at(101)), Finding::Behind);
    assert_eq!(ledger.take_ended(), None);
    ledger.ask(at(102));
    let uploaded = answer(11, 11, Some(11));
    assert_eq!(ledger.judge(uploaded, false, at(103)), Finding::Proved);
    let proof = ledger.proof().expect("a proof");
    assert_eq!((proof.at, proof.position.replicated), (at(103), 11));
    assert_eq!(ledger.take_ended(), Some(Duration::from_secs(93)));
    // And once more, with nothing new.
    ledger.ask(at(110));
    assert_eq!(ledger.judge(uploaded, false, at(111)), Finding::Proved);
    assert_eq!(ledger.proof().map(|proof| proof.at), Some(at(103)));
    assert_eq!(ledger.take_ended(), None);
}

#[test]
fn a_proof_ends_what_may_have_come_since_the_one_before_and_where_nothing_came_nothing_ends() {
    let ended = |seconds| Some(Duration::from_secs(seconds));
    let mut ledger = proved();
    assert_eq!(ledger.take_ended(), ended(101), "since the beginning");
    assert_eq!(ledger.take_ended(), None, "it is counted once");
    let proof = then(&mut ledger, answer(11, 11, Some(10)));
    assert_eq!(proof, Finding::Proved);
    // The row is of 110 s; what the application may have committed is older.
    assert_eq!(ledger.take_ended(), ended(12));
    // An answer, and a look, that find nothing new.
    assert!(ledger.look(Some(commit(7)), at(120)));
    ledger.ask(at(121));
    let proof = ledger.judge(answer(11, 11, Some(11)), true, at(122));
    assert_eq!(proof, Finding::Proved);
    assert!(!ledger.look(Some(commit(7)), at(1000)));
    assert_eq!(ledger.take_ended(), None);
    assert_eq!(Some(ledger.open_for(at(1003))), ended(3));
    assert!(ledger.look(Some(commit(8)), at(1010)));
    assert_eq!(Some(ledger.open_for(at(1010))), ended(10));
    // What an earlier run left is older than the run, whatever was covered since.
    ledger.inherit(Duration::from_secs(500));
    assert_eq!(Some(ledger.open_for(at(1010))), ended(1510));
    ledger.inherit(Duration::MAX);
    assert_eq!(ledger.open_for(at(1010)), Duration::MAX);
}

/// A database without rows: the first answer of a process is a proof.
#[test]
fn a_wal_that_was_begun_anew_is_to_be_read_before_anything_is_proved() {
    let seam = Seam {
        after: 10,
        wal: 7,
        read: 4152,
    };
    for is_of_seam in [false, true] {
        let mut ledger = Ledger::new(at(0));
        let survey = Survey {
            folder: Some(1),
            seam: Some(seam),
            has_unread: Some(true),
            ..Survey::default()
        };
        assert!(ledger.surveyed(survey, true));
        ledger.started();
        ledger.ask(at(10));
        let nothing_new = Answer {
            is_of_seam,
            ..answer(10, 10, None)
        };
        let found = ledger.judge(nothing_new, false, at(11));
        // What looks like a commit may be none: of a writer that was killed.
        let wanted = match is_of_seam {
            false => Finding::Unread,
            true => Finding::Proved,
        };
        assert_eq!(found, wanted);
        assert_eq!(ledger.known().seam, Some(seam));
        ledger.ask(at(20));
        let gone_on = Answer {
            is_torn: Some(false),
            ..answer(11, 11, Some(10))
        };
        assert_eq!(ledger.judge(gone_on, false, at(21)), Finding::Proved);
        assert_eq!(ledger.known().seam, None);
    }
}
