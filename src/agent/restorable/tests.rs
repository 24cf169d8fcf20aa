use std::rc::Rc;

use super::*;
use crate::agent::Actions;
use crate::agent::mending;
use crate::agent::watch::Database;
use crate::clock::WallTime;

const PACE: Duration = Duration::from_secs(86_400);

const HOLDINGS: Holdings = Holdings {
    files: 3,
    bytes: 4096,
    last: 7,
    oldest: WallTime::EPOCH,
    newest: WallTime::EPOCH,
};

fn at(seconds: u64) -> BootTime {
    BootTime::new(Duration::from_secs(seconds))
}

fn whole(last: u64) -> Result<Listing, PlanFailure> {
    let holdings = Holdings { last, ..HOLDINGS };
    listed(Chain::Whole(holdings))
}

fn listed(chain: Chain) -> Result<Listing, PlanFailure> {
    let stranger = None;
    Ok(Listing { chain, stranger })
}

fn foreign(stranger: Stranger) -> Result<Listing, PlanFailure> {
    Ok(Listing {
        chain: Chain::Whole(HOLDINGS),
        stranger: Some(stranger),
    })
}

/// A database whose restores are planned.
struct Case {
    restorable: Restorable,
    /// Until when Litestream's files are known to be what they were.
    sound: Option<BootTime>,
    upload_pace: Duration,
    jitter: Jitter,
}

impl Case {
    fn new() -> Self {
        Self {
            restorable: Restorable::new(),
            sound: Some(BootTime::NEVER),
            upload_pace: Duration::from_secs(60),
            jitter: Jitter::new(7),
        }
    }

    /// Lets time pass; `proved` is the last transaction that was proved. Returns whether a plan is made.
    fn pass(&mut self, proved: Option<u64>, now: BootTime) -> bool {
        let mut actions = Actions::default();
        let mut out = Outbox::new(Database(0), Some(Rc::from("app.db")), &mut actions);
        let jitter = &mut self.jitter;
        let pace = Some(PACE);
        let sound = self.sound.min(Some(now));
        let upload_pace = self.upload_pace;
        let grounds = proved.map(|proved| Grounds {
            proved,
            sound,
            upload_pace,
        });
        self.restorable
            .advance(pace, grounds, jitter, now, &mut out);
        actions.0.contains(&Action::PlanRestore(Database(0)))
    }

    fn planned(&mut self, result: Result<Listing, PlanFailure>, now: BootTime) {
        let mut actions = Actions::default();
        let mut out = Outbox::new(Database(0), None, &mut actions);
        self.restorable
            .planned(result, &mut self.jitter, now, &mut out);
    }

    /// Has a plan made now, if one is due, with this result.
    fn look(&mut self, result: Result<Listing, PlanFailure>, now: BootTime) {
        assert!(self.pass(Some(7), now), "a plan is due");
        self.planned(result, now);
    }
}

#[test]
fn a_restore_is_planned_after_the_first_proof_and_then_at_the_pace() {
    let mut case = Case::new();
    assert!(!case.pass(None, at(0)));
    assert!(!case.pass(None, at(100_000)), "nothing is proved");
    case.pass(Some(7), at(100_000));
    assert_eq!(case.restorable.state(), Restorability::Unknown);
    case.look(whole(7), at(100_030));
    assert_eq!(case.restorable.state(), Restorability::Restorable(HOLDINGS));
    assert!(!case.pass(Some(9), at(186_429)));
    assert!(case.pass(Some(9), at(186_430)));
    assert!(!case.pass(Some(9), at(186_431)), "one at a time");
    // A late answer is a failure, and no answer to the next plan.
    assert!(!case.pass(Some(9), at(186_550)));
    assert_eq!(case.restorable.failures, 1);
    case.planned(listed(Chain::Nothing), at(186_551));
    assert_eq!(case.restorable.state(), Restorability::Restorable(HOLDINGS));
}

#[test]
fn what_is_seen_twice_is_mended_once_per_pace() {
    let mut case = Case::new();
    case.pass(Some(7), at(0));
    case.look(listed(Chain::Nothing), at(30));
    assert_eq!(case.restorable.state(), Restorability::Broken);
    assert!(case.restorable.problem(at(30)).is_some());
    assert_eq!(case.restorable.mends_at(), BootTime::NEVER, "seen once");
    case.look(listed(Chain::Hole { after: 3 }), at(40));
    assert!(case.restorable.mends_at() <= at(40));
    case.restorable.begin_mending(at(40));
    assert_eq!(case.restorable.mends_at(), BootTime::NEVER);
    case.restorable.makes_snapshot(true);
    case.restorable.snapshotted(Ok(()), at(50));
    case.look(whole(8), at(55));
    assert!(case.restorable.problem(at(55)).is_none());
    // A rule deletes on.
    let later = at(55) + PACE;
    case.look(listed(Chain::Nothing), later);
    case.look(listed(Chain::Nothing), later + CONFIRMATION);
    assert!(
        case.restorable.mends_at() <= later + CONFIRMATION,
        "a pace later"
    );
    case.restorable.begin_mending(later);
    case.restorable.snapshotted(Ok(()), later + CONFIRMATION);
    case.look(listed(Chain::Nothing), later + CONFIRMATION);
    assert_eq!(case.restorable.mends_at(), later + PACE, "not sooner");
}

#[test]
fn a_snapshot_that_was_made_is_not_made_again_before_a_plan_shows_that_it_has_to_be() {
    let mut case = Case::new();
    case.pass(Some(7), at(0));
    case.look(listed(Chain::Nothing), at(30));
    case.look(listed(Chain::Nothing), at(40));
    case.restorable.begin_mending(at(40));
    case.restorable.snapshotted(Ok(()), at(50));
    let denied = Err(PlanFailure::Failed("403".to_owned()));
    case.look(denied, at(50));
    assert_eq!(case.restorable.mends_at(), BootTime::NEVER);
    assert!(case.restorable.is_broken(), "nothing showed otherwise");
    case.look(listed(Chain::Nothing), at(50) + PACE);
    assert_eq!(case.restorable.mends_at(), at(40) + PACE);
}

#[test]
fn a_snapshot_that_fails_is_tried_again_ever_later() {
    let mut case = Case::new();
    case.pass(Some(7), at(0));
    case.look(listed(Chain::Nothing), at(30));
    case.look(listed(Chain::Nothing), at(40));
    let mut waits = Vec::new();
    for _ in 0..12 {
        let now = case.restorable.mends_at().max(at(40));
        case.restorable.begin_mending(now);
        case.restorable.makes_snapshot(true);
        case.restorable.snapshotted(Err("no room".to_owned()), now);
        waits.push(case.restorable.mends_at().since(now));
    }
    assert_eq!(waits[0], mending::RETRY);
    assert!(waits.is_sorted() && waits[11] == PACE, "{waits:?}");
    let why = case
        .restorable
        .problem(at(40))
        .expect("a problem")
        .to_string();
    assert!(why.ends_with("(so far: no room)"), "{why}");
}

#[test]
fn a_chain_that_ends_before_what_was_proved_is_broken() {
    let mut case = Case::new();
    case.pass(Some(7), at(0));
    case.look(whole(6), at(30));
    let why = case.restorable.problem(at(30)).expect("a problem");
    let why = why.to_string();
    assert!(
        why.contains("transaction 6 only, but transaction 7"),
        "{why}"
    );
}

#[test]
fn a_prefix_that_another_device_writes_to_is_never_mended_nor_trusted_again() {
    let ahead: fn(u64) -> Stranger = |at| Stranger::Ahead { at };
    let differing: fn(u64) -> Stranger = |at| Stranger::Differing { at };
    for stranger in [ahead, differing] {
        let mut case = Case::new();
        case.pass(Some(7), at(0));
        case.look(foreign(stranger(8)), at(30));
        case.look(foreign(stranger(9)), at(40));
        assert_eq!(case.restorable.state(), Restorability::Shared);
        assert_eq!(case.restorable.mends_at(), BootTime::NEVER);
        case.look(whole(7), at(40) + PACE);
        assert_eq!(case.restorable.state(), Restorability::Shared);
        for later in [2, 3] {
            case.look(listed(Chain::Nothing), at(40) + PACE * later);
        }
        assert_eq!(case.restorable.state(), Restorability::Shared);
        assert_eq!(case.restorable.mends_at(), BootTime::NEVER);
        assert!(case.restorable.problem(at(50)).is_some());
    }
}

#[test]
fn an_altered_object_is_looked_at_often_before_it_is_mended_and_no_compaction_hides_it() {
    let mut case = Case::new();
    case.pass(Some(7), at(0));
    case.look(listed(Chain::Altered { at: 5 }), at(30));
    for look in 1..5 {
        // It was compacted meanwhile.
        case.look(whole(7), at(30) + CONFIRMATION * look);
        assert_eq!(case.restorable.state(), Restorability::Broken);
        assert_eq!(case.restorable.mends_at(), BootTime::NEVER, "{look}");
    }
    let mut shared = case;
    let mut case = Case::new();
    case.pass(Some(7), at(0));
    for look in 0..6 {
        case.look(
            listed(Chain::Altered { at: 5 }),
            at(30) + CONFIRMATION * look,
        );
    }
    let now = at(80);
    assert!(case.restorable.mends_at() <= now);
    case.restorable.begin_mending(now);
    case.restorable.snapshotted(Ok(()), now);
    case.look(whole(8), now);
    assert_eq!(
        case.restorable.problem(now).map(|why| why.to_string()),
        None
    );

    // It was the first sign of another device.
    shared.look(foreign(Stranger::Differing { at: 5 }), at(80));
    shared.look(foreign(Stranger::Differing { at: 6 }), at(90));
    assert_eq!(shared.restorable.mends_at(), BootTime::NEVER);
    shared.look(listed(Chain::Nothing), at(80) + PACE);
    assert_eq!(shared.restorable.state(), Restorability::Shared);
}

/// An older copy of Litestream's files makes it look alike: they are dropped then.
#[test]
fn another_device_is_named_only_once_the_own_files_are_known_to_be_sound() {
    let mut case = Case::new();
    case.sound = Some(at(30));
    case.pass(Some(7), at(0));
    let ahead = |look: u32| {
        foreign(Stranger::Ahead {
            at: 8 + u64::from(look),
        })
    };
    for look in 0..5 {
        case.look(ahead(look), at(30) + CONFIRMATION * look);
        assert_eq!(case.restorable.state(), Restorability::Broken);
        assert!(case.restorable.suspects_stranger(), "it is to be asked");
        assert_eq!(case.restorable.mends_at(), BootTime::NEVER);
    }
    // However long ago: a slow S3 delays each answer.
    case.sound = Some(at(31));
    case.look(ahead(5), at(80));
    assert_eq!(case.restorable.state(), Restorability::Shared);
    assert!(!case.restorable.suspects_stranger());
}

#[test]
fn an_altered_object_does_not_end_the_suspicion_of_another_device() {
    let mut case = Case::new();
    case.pass(Some(7), at(0));
    case.look(listed(Chain::Altered { at: 5 }), at(30));
    case.look(foreign(Stranger::Ahead { at: 9 }), at(40));
    for look in 2..7 {
        // Now this one is ahead, and now that one.
        case.look(
            listed(Chain::Altered { at: 5 }),
            at(30) + CONFIRMATION * look,
        );
        assert_eq!(case.restorable.mends_at(), BootTime::NEVER, "{look}");
    }
    case.look(foreign(Stranger::Ahead { at: 20 }), at(100));
    assert_eq!(case.restorable.state(), Restorability::Shared);
}

/// What it has compacted is missing here.
#[test]
fn a_hole_does_not_end_the_suspicion_of_another_device() {
    for chain in [Chain::Nothing, Chain::Hole { after: 3 }] {
        let suspicious = || {
            let mut case = Case::new();
            case.pass(Some(7), at(0));
            case.look(foreign(Stranger::Ahead { at: 9 }), at(30));
            for look in 1..7 {
                case.look(listed(chain), at(30) + CONFIRMATION * look);
                assert!(case.restorable.suspects_stranger(), "{look}");
                assert_eq!(case.restorable.mends_at(), BootTime::NEVER, "{look}");
            }
            case
        };
        let (mut case, mut alone) = (suspicious(), suspicious());
        case.look(foreign(Stranger::Ahead { at: 20 }), at(100));
        assert_eq!(case.restorable.state(), Restorability::Shared);
        // Nobody shows himself: it is a hole, once it is seen again.
        alone.look(listed(chain), at(110));
        assert_eq!(alone.restorable.mends_at(), BootTime::NEVER, "seen once");
        alone.look(listed(chain), at(120));
        assert!(alone.restorable.mends_at() <= at(120));
    }
}

#[test]
fn foreign_transactions_that_do_not_become_more_are_mended() {
    let mut case = Case::new();
    case.pass(Some(7), at(0));
    let seen = || foreign(Stranger::Differing { at: 5 });
    for look in 0..7 {
        case.look(seen(), at(30) + CONFIRMATION * look);
        assert_eq!(case.restorable.state(), Restorability::Broken);
        assert_eq!(case.restorable.mends_at(), BootTime::NEVER);
    }
    case.look(seen(), at(100));
    assert_eq!(case.restorable.state(), Restorability::Broken);
    assert!(case.restorable.mends_at() <= at(100));
    case.restorable.begin_mending(at(100));
    case.restorable.snapshotted(Ok(()), at(110));
    case.look(whole(7), at(110));
    assert_eq!(case.restorable.state(), Restorability::Restorable(HOLDINGS));
    // Of another device there are ever more.
    case.look(foreign(Stranger::Differing { at: 9 }), at(110) + PACE);
    assert_eq!(case.restorable.state(), Restorability::Broken);
    case.look(foreign(Stranger::Differing { at: 10 }), at(120) + PACE);
    assert_eq!(case.restorable.state(), Restorability::Shared);
}

/// The snapshot of one that mends would make the other's replica worse.
#[test]
fn a_device_that_uploads_once_in_an_hour_is_named() {
    let mut case = Case::new();
    case.upload_pace = Duration::from_secs(3660);
    case.pass(Some(7), at(0));
    let ahead = |at: u64| foreign(Stranger::Ahead { at });
    let mut plans = 0;
    for second in 30..3620 {
        if case.pass(Some(7), at(second)) {
            case.planned(ahead(9), at(second));
            plans += 1;
        }
        assert_eq!(case.restorable.state(), Restorability::Broken);
        assert_eq!(case.restorable.mends_at(), BootTime::NEVER, "{second}");
    }
    assert!(plans < 30, "{plans} plans cost requests");
    let now = at(3630) + PACE;
    case.look(ahead(10), now);
    assert_eq!(case.restorable.state(), Restorability::Shared);
}

/// Until it is mended, and where the own files were replaced since.
#[test]
fn a_mixture_that_somebody_adds_to_is_looked_at_again() {
    let mixture = || {
        let mut case = Case::new();
        case.pass(Some(7), at(0));
        case.look(foreign(Stranger::Ahead { at: 9 }), at(30));
        case.look(listed(Chain::Altered { at: 5 }), at(30) + PACE);
        assert!(case.restorable.mends_at() <= at(30) + PACE);
        // Now this one is ahead, and now that one.
        case.look(listed(Chain::Altered { at: 5 }), at(30) + PACE * 2);
        case.sound = Some(at(30) + PACE * 2);
        let now = at(30) + PACE * 3;
        case.look(foreign(Stranger::Ahead { at: 12 }), now);
        assert!(case.restorable.suspects_stranger(), "it is to be asked");
        assert_eq!(case.restorable.mends_at(), BootTime::NEVER);
        (case, now)
    };
    let (mut case, now) = mixture();
    case.look(foreign(Stranger::Ahead { at: 12 }), now + CONFIRMATION);
    assert_eq!(case.restorable.state(), Restorability::Broken);
    case.sound = Some(now + CONFIRMATION);
    case.look(foreign(Stranger::Ahead { at: 12 }), now + CONFIRMATION * 2);
    assert_eq!(case.restorable.state(), Restorability::Shared);
    // An older copy of the own files is a mixture, too.
    let (mut case, now) = mixture();
    case.look(foreign(Stranger::Ahead { at: 9 }), now + PACE);
    assert!(case.restorable.mends_at() <= now + PACE);
}

#[test]
fn a_strangers_sign_that_is_seen_once_bars_no_mending() {
    let mut case = Case::new();
    case.pass(Some(7), at(0));
    case.look(foreign(Stranger::Ahead { at: 8 }), at(30));
    assert!(case.restorable.problem(at(30)).is_some());
    assert!(!case.restorable.is_shared());
    case.look(whole(8), at(40));
    assert!(case.restorable.problem(at(40)).is_none());
}

#[test]
fn what_stays_broken_is_looked_at_ever_more_seldom() {
    let mut case = Case::new();
    case.pass(Some(7), at(0));
    let mut looks = Vec::new();
    for second in 30..86_400 {
        if case.pass(Some(7), at(second)) {
            case.planned(listed(Chain::Nothing), at(second));
            looks.push(second);
        }
    }
    assert_eq!(looks[..5], [30, 40, 50, 60, 70]);
    let gaps: Vec<_> = looks.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.is_sorted() && looks.len() < 60, "{gaps:?}");
}

#[test]
fn a_snapshot_that_is_wanted_is_not_made_once_another_device_is_seen() {
    let mut case = Case::new();
    case.pass(Some(7), at(0));
    case.look(listed(Chain::Nothing), at(30));
    case.look(listed(Chain::Nothing), at(40));
    assert!(case.pass(Some(7), at(40) + PACE), "a plan is under way");
    case.restorable.begin_mending(at(40) + PACE);
    let seen = Listing {
        chain: Chain::Nothing,
        stranger: Some(Stranger::Ahead { at: 8 }),
    };
    case.planned(Ok(seen), at(41) + PACE);
    assert!(!case.restorable.wants_snapshot());
}

#[test]
fn a_snapshot_that_a_death_came_before_is_made_after_the_next_start() {
    let mut case = Case::new();
    case.pass(Some(7), at(0));
    case.look(listed(Chain::Nothing), at(30));
    case.look(listed(Chain::Nothing), at(40));
    case.restorable.begin_mending(at(40));
    case.restorable.puts_snapshot_off(at(41));
    assert!(!case.restorable.wants_snapshot());
    assert_eq!(case.restorable.mends_at(), at(41));
}

#[test]
fn what_can_not_be_planned_is_told_after_two_paces() {
    let mut case = Case::new();
    case.pass(Some(7), at(0));
    let denied = || Err(PlanFailure::Failed("403".to_owned()));
    case.look(denied(), at(30));
    assert!(case.restorable.problem(at(30)).is_none());
    case.look(denied(), at(90));
    let late = at(90) + PACE * 2;
    let why = case
        .restorable
        .problem(late)
        .expect("a problem")
        .to_string();
    assert!(why.ends_with(": 403"), "{why}");
    case.look(whole(7), late);
    assert!(case.restorable.problem(late).is_none());

    // A Litestream that plans none is no trouble of the bucket's.
    let mut case = Case::new();
    case.pass(Some(7), at(0));
    case.look(Err(PlanFailure::Unsupported), at(30));
    case.look(Err(PlanFailure::Unsupported), at(30) + PACE);
    assert!(case.restorable.problem(at(30) + PACE * 3).is_none());
    assert_eq!(case.restorable.state(), Restorability::Unknown);
}

#[test]
fn complaints_bring_a_plan_forward_ever_more_seldom() {
    let mut case = Case::new();
    case.restorable.suspects(at(0));
    assert!(!case.pass(None, at(0)), "nothing is proved");
    case.pass(Some(7), at(0));
    case.look(whole(7), at(30));
    let mut plans = Vec::new();
    for second in 31..86_400 {
        case.restorable.suspects(at(second));
        if case.pass(Some(7), at(second)) {
            case.planned(whole(7), at(second));
            plans.push(second);
        }
    }
    assert_eq!(plans[..4], [31, 331, 931, 2131]);
    assert_eq!(plans.len(), 9);
}

#[test]
fn what_an_earlier_run_knew_stays_so_until_a_plan() {
    let mut case = Case::new();
    case.restorable.recalls(at(0));
    case.pass(Some(7), at(0));
    assert_eq!(case.restorable.state(), Restorability::Broken);
    case.look(listed(Chain::Nothing), at(30));
    assert_eq!(case.restorable.mends_at(), BootTime::NEVER, "seen once");
    case.look(whole(7), at(40));
    assert_eq!(case.restorable.state(), Restorability::Restorable(HOLDINGS));
}
