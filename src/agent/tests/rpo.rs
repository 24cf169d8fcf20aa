//! What follows from how much may be lost.

use super::*;

/// A child that replicates, where so much may be lost, and rows are written so often.
fn story(rpo: Duration, heartbeat: Duration) -> Story {
    let mut story = Story::replicating();
    let mut policy = story.agent.policy.clone();
    (policy.rpo, policy.heartbeat) = (Rpo::new(rpo), Some(heartbeat));
    story.tell(Event::Reloaded(policy));
    story
}

/// Lets time pass beside an application that commits all the time; when Litestream, which answers so, was
/// asked to sync.
fn syncs(story: &mut Story, span: Duration, answer: &Says) -> Vec<Duration> {
    let begun = story.now.boot;
    let (mut asked, mut mark) = (Vec::new(), 100);
    while story.agent.deadline() <= begun + span {
        story.now.boot = story.agent.deadline();
        let mut actions = VecDeque::from(story.tell(Event::Tick));
        while let Some(action) = actions.pop_front() {
            let came_of_it = match action {
                Action::Fetch => granted(12 * HOUR),
                Action::WriteRow(DB) => Event::Row(DB, Ok(7)),
                Action::LookForCommit(DB) => {
                    mark += 1;
                    Event::LastCommit(DB, Some(commit(mark)))
                }
                Action::Sync(DB) => {
                    asked.push(story.now.boot.since(begun));
                    story.say(answer)
                }
                Action::Terminate => Event::Exited("exit status: 0".to_owned()),
                Action::Start(_) => Event::Started(Ok(())),
                _ => continue,
            };
            actions.extend(story.tell(came_of_it));
        }
    }
    asked
}

#[test]
fn what_an_application_commits_is_uploaded_within_it_however_seldom_rows_are_written() {
    for rpo in [SECOND, MINUTE, HOUR, 24 * HOUR] {
        for heartbeat in [rpo / 10, rpo, 5 * rpo] {
            let mut story = story(rpo, heartbeat);
            syncs(&mut story, MINUTE, &FOLLOWS);
            let asked = syncs(&mut story, 20 * rpo, &FOLLOWS);
            let gaps = asked.windows(2).map(|pair| pair[1] - pair[0]);
            let (least, most) = (gaps.clone().min(), gaps.max());
            assert!(most < Some(rpo), "{rpo:?}, {heartbeat:?}: {most:?}");
            // A hand-over asks, too.
            let is_thrifty = least > Some(rpo / 2) || rpo >= HOUR;
            assert!(is_thrifty, "{rpo:?}, {heartbeat:?}: {least:?}");
        }
    }
}

#[test]
fn a_shorter_one_holds_at_once() {
    let mut story = story(24 * HOUR, HOUR);
    syncs(&mut story, 2 * HOUR, &FOLLOWS);
    let mut policy = story.agent.policy.clone();
    policy.rpo = Rpo::new(MINUTE);
    let done = story.tell(Event::Reloaded(policy));
    assert!(done.contains(&Action::Sync(DB)), "{done:?}");
}

#[test]
fn what_is_older_is_unhealthy() {
    for rpo in [SECOND, MINUTE, HOUR] {
        let mut story = story(rpo, rpo);
        syncs(&mut story, MINUTE + 3 * rpo, &FOLLOWS);
        assert!(story.report().state.is_healthy());
        let behind = Err(SyncFailure::Failed("it is slow".to_owned()));
        let begun = story.now.boot;
        while !is_unhealthy(&story.report()) {
            syncs(&mut story, SECOND, &behind);
            story.now.boot = story.now.boot + SECOND;
        }
        let age = story.report().unproved_for;
        let bound = Rpo::new(rpo).bound();
        assert!(age > Some(bound), "{age:?}");
        assert!(story.now.boot.since(begun) <= bound + rpo + 3 * SECOND);
        let words = format!("for more than {} s", bound.as_secs());
        assert!(has_problem(&story.report(), &words), "{words}");
    }
}

#[test]
fn what_would_have_been_lost_is_told_and_an_outage_shows_while_it_lasts() {
    let mut story = story(MINUTE, MINUTE);
    syncs(&mut story, HOUR, &FOLLOWS);
    let pace = Rpo::new(MINUTE).pace();
    let held = story.report().rpo_held;
    let median = held.median.map(|median| median.as_secs_f64());
    let off = median.map(|median| (median / pace.as_secs_f64() - 1.0).abs());
    assert!(off.is_some_and(|off| off < 0.1), "{held:?}");
    assert!(held.worst >= Some(pace) && held.worst < Some(2 * MINUTE));
    assert!(held.proofs > 50, "{held:?}");

    let behind = Err(SyncFailure::Failed("it is slow".to_owned()));
    syncs(&mut story, 4 * MINUTE, &behind);
    story.now.boot = story.now.boot + SECOND;
    let outage = story.report().rpo_held;
    assert_eq!((outage.proofs, outage.median), (held.proofs, held.median));
    assert!(outage.worst > Some(4 * MINUTE), "{outage:?}");
    syncs(&mut story, 2 * MINUTE, &FOLLOWS);
    let after = story.report().rpo_held;
    assert!(after.worst >= outage.worst && after.proofs > held.proofs);
}

#[test]
fn nothing_proved_has_no_number_and_what_an_earlier_run_left_counts_whole() {
    let mut story = Story::started();
    let held = story.report().rpo_held;
    assert_eq!((held.median, held.worst, held.proofs), (None, None, 0));
    let earlier = Earlier {
        debt: Debt::Row(2 * HOUR),
        begins_anew: false,
        is_unrestorable: false,
        differs: false,
        seam: None,
    };
    story.tell(Event::Recalled(DB, earlier));
    story.prove();
    let held = story.report().rpo_held;
    assert!(held.worst >= Some(2 * HOUR), "{held:?}");
    assert!(held.worst < Some(2 * HOUR + 5 * MINUTE), "{held:?}");
    assert_eq!(held.proofs, 1);
}
