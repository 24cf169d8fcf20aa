use super::*;
use crate::agent::Actions;
use crate::agent::mending;

const PACE: Duration = Duration::from_secs(30 * 86_400);

const FIRST: Database = Database(0);

/// In the middle of the pace.
const MOMENT: Moment = Moment(1 << 15);

fn at(seconds: u64) -> BootTime {
    BootTime::new(Duration::from_secs(seconds))
}

const HOLDS: Result<Verified, NotVerified> = Ok(Verified {
    holds: true,
    transaction: Some(7),
});

const DIFFERS: Result<Verified, NotVerified> = Ok(Verified {
    holds: false,
    transaction: Some(7),
});

fn failed() -> Result<Verified, NotVerified> {
    Err(NotVerified::Failed("there is no room".to_owned()))
}

/// A database whose replica is verified.
struct Case {
    verification: Verification,
    jitter: Jitter,
    said: Vec<Action>,
}

impl Case {
    fn new() -> Self {
        Self {
            verification: Verification::new(),
            jitter: Jitter::new(7),
            said: Vec::new(),
        }
    }

    /// One that was verified first, and held, at this time.
    fn holding() -> (Self, BootTime) {
        let mut case = Self::new();
        case.pass(at(0));
        let now = at(0) + PACE / 2;
        case.look(HOLDS, now);
        (case, now)
    }

    /// Lets time pass, with Litestream following; whether it is verified now.
    fn pass(&mut self, now: BootTime) -> bool {
        self.pass_with(Some(PACE), now, false)
    }

    fn pass_with(&mut self, pace: Option<Duration>, now: BootTime, is_near: bool) -> bool {
        let mut actions = Actions::default();
        let mut out = Outbox::new(FIRST, None, &mut actions);
        self.verification
            .advance(pace, &mut self.jitter, now, &mut out);
        self.verification.take_turn(MOMENT, is_near, now, &mut out);
        let verifies = actions.0.contains(&Action::Verify(FIRST));
        self.said.extend(actions.0);
        verifies
    }

    /// Has it verified now, where that is due, with this result.
    fn look(&mut self, result: Result<Verified, NotVerified>, now: BootTime) {
        assert!(self.pass(now), "it is due");
        let mut actions = Actions::default();
        let mut out = Outbox::new(FIRST, None, &mut actions);
        self.verification
            .verified(result, &mut self.jitter, now, &mut out);
        self.said.extend(actions.0);
    }

    /// A new snapshot is made, or is not.
    fn mend(&mut self, result: Result<(), String>, now: BootTime) {
        assert!(self.verification.mends_at() <= now, "it may be made");
        self.verification.begin_mending(now);
        self.verification.snapshotted(&result, now);
    }

    fn problem(&self, now: BootTime) -> String {
        let problem = self.verification.problem(now);
        problem.map_or(String::new(), |why| why.to_string())
    }
}

#[test]
fn it_is_verified_at_the_things_moment_and_then_at_the_pace() {
    let mut case = Case::new();
    assert_eq!(case.verification.state(), Verity::Off);
    assert!(!case.pass(at(50)));
    assert_eq!(case.verification.state(), Verity::Unknown);
    let first = at(50) + PACE / 2;
    assert_eq!(case.verification.deadline(true), first);
    assert_eq!(case.verification.deadline(false), BootTime::NEVER);
    assert!(!case.pass(at(40) + PACE / 2));
    case.look(HOLDS, first);
    assert_eq!(case.verification.state(), Verity::Holds);
    assert_eq!(case.verification.last(), Some((Some(7), first)));
    assert!(!case.pass(at(40) + PACE / 2 + PACE));
    assert!(case.pass(first + PACE));
    assert!(!case.pass(first + PACE), "one at a time");

    // Nobody wants it any more.
    case.said.clear();
    case.pass_with(None, first + PACE, false);
    assert_eq!(case.said, [Action::AbandonVerify(FIRST)]);
    assert_eq!(case.verification.state(), Verity::Off);
    assert_eq!(case.verification.deadline(true), BootTime::NEVER);
}

#[test]
fn the_moments_of_a_fleet_and_of_its_databases_are_spread_over_the_pace() {
    let day = Duration::from_secs(86_400);
    let mut moments: Vec<_> = (0..1000)
        .map(|n| Moment::of(n * 65, Database(n)).within(day))
        .collect();
    assert!(moments.iter().all(|moment| *moment < day));
    moments.sort_unstable();
    let gaps = moments.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.max() < Some(day / 20));
    let of = |number| Moment::of(9, Database(number));
    assert_ne!(of(0), of(1));
}

#[test]
fn a_hand_over_that_is_near_is_waited_for() {
    let mut case = Case::new();
    case.pass(at(0));
    let due = at(0) + PACE / 2;
    assert!(!case.pass_with(Some(PACE), due, true));
    assert!(
        case.verification.deadline(true) > due,
        "no turn without end"
    );
    assert!(case.pass(due + SOON));
}

#[test]
fn a_difference_is_mended_once_and_looked_at_soon_then_once_per_pace() {
    let (mut case, held) = Case::holding();
    assert_eq!(case.verification.mends_at(), BootTime::NEVER);
    let now = held + PACE;
    case.look(DIFFERS, now);
    assert_eq!(case.verification.state(), Verity::Differs);
    assert!(case.verification.differs(), "the next run is to know");
    assert!(case.problem(now).contains("at transaction 7"));
    assert!(case.problem(now).contains("run `edgerepl verify`"));
    case.mend(Ok(()), now);
    assert_eq!(case.verification.mends_at(), BootTime::NEVER);
    assert_eq!(
        case.verification.state(),
        Verity::Differs,
        "nothing shows it yet"
    );

    // It has not helped.
    let soon = now + SOON;
    case.look(DIFFERS, soon);
    assert_eq!(case.verification.mends_at(), now + PACE, "not sooner");
    assert!(!case.pass(soon + SOON));
    let later = soon + PACE;
    case.look(DIFFERS, later);
    case.mend(Ok(()), later);
    // It has.
    case.said.clear();
    case.look(HOLDS, later + SOON);
    assert_eq!(case.verification.state(), Verity::Holds);
    assert!(!case.verification.differs());
    assert_eq!(case.problem(later + SOON), "");
    assert!(matches!(
        &case.said[..],
        [Action::Verify(_), Action::Log(..)]
    ));
}

#[test]
fn a_difference_that_a_snapshot_overtook_is_looked_at_soon_and_brings_no_other() {
    let (mut case, held) = Case::holding();
    let now = held + PACE;
    assert!(case.pass(now));
    // For another reason, while the verify reads what was there before.
    case.verification.snapshotted(&Ok(()), now);
    let mut actions = Actions::default();
    let mut out = Outbox::new(FIRST, None, &mut actions);
    case.verification
        .verified(DIFFERS, &mut case.jitter, now, &mut out);
    assert_eq!(case.verification.state(), Verity::Differs);
    assert_eq!(case.verification.mends_at(), BootTime::NEVER);

    // What the next one sees is not over.
    let soon = now + SOON;
    case.look(DIFFERS, soon);
    assert_eq!(case.verification.seen_at(), Some(soon));
    case.mend(Ok(()), soon);
}

#[test]
fn a_snapshot_that_fails_is_tried_again_ever_later() {
    let (mut case, held) = Case::holding();
    let mut now = held + PACE;
    case.look(DIFFERS, now);
    let mut waits = Vec::new();
    for _ in 0..16 {
        case.mend(Err("no line".to_owned()), now);
        waits.push(case.verification.mends_at().since(now));
        now = case.verification.mends_at();
    }
    assert_eq!(waits[0], mending::RETRY);
    assert!(waits.is_sorted() && waits[15] == PACE, "{waits:?}");
    assert!(case.problem(now).ends_with("(so far: no line)"));
}

#[test]
fn what_an_earlier_run_saw_is_looked_at_soon_and_mended_only_then() {
    let mut case = Case::new();
    case.verification.recalls();
    assert!(!case.pass(at(0)));
    assert_eq!(case.verification.state(), Verity::Differs);
    assert!(case.problem(at(0)).starts_with("an earlier run"));
    assert_eq!(case.verification.mends_at(), BootTime::NEVER);
    let soon = at(0) + SOON;
    case.look(failed(), soon);
    assert!(
        case.problem(soon).contains("an earlier run"),
        "it showed nothing"
    );
    assert_eq!(case.verification.mends_at(), BootTime::NEVER);
    let again = case.verification.deadline(true);
    case.look(DIFFERS, again);
    assert!(case.verification.mends_at() <= again);
}

#[test]
fn one_that_fails_is_tried_again_within_hours_and_told_after_two_paces() {
    let (mut case, held) = Case::holding();
    let mut now = held + PACE;
    let mut waits = Vec::new();
    while now < held + PACE * 2 {
        case.look(failed(), now);
        let next = case.verification.deadline(true);
        waits.push(next.since(now));
        assert_eq!(case.problem(now), "");
        let cause = case.verification.cause().expect("a cause");
        assert!(cause.ends_with("there is no room"), "{cause}");
        assert_eq!(
            case.verification.state(),
            Verity::Holds,
            "as it was seen last"
        );
        now = next;
    }
    assert!(waits[0] <= RETRY.first);
    assert!(waits.iter().all(|wait| *wait <= RETRY.longest), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait > RETRY.longest / 2));
    let late = held + PACE * 2 + Duration::from_secs(1);
    assert!(case.problem(late).contains("more than two paces"));
    assert!(case.problem(late).ends_with("there is no room"));
    case.look(HOLDS, case.verification.deadline(true).max(late));
    assert_eq!(case.problem(late), "");
}

#[test]
fn one_that_takes_too_long_is_given_up_and_its_late_answer_is_none() {
    let (mut case, held) = Case::holding();
    let now = held + PACE;
    assert!(case.pass(now));
    let limit = now + LIMIT;
    assert_eq!(case.verification.deadline(false), limit);
    case.said.clear();
    assert!(!case.pass(limit));
    assert!(case.said.contains(&Action::AbandonVerify(FIRST)));
    assert!(!case.verification.is_under_way());
    let mut actions = Actions::default();
    let mut out = Outbox::new(FIRST, None, &mut actions);
    case.verification
        .verified(DIFFERS, &mut case.jitter, limit, &mut out);
    assert_eq!(case.verification.state(), Verity::Holds);
}

#[test]
fn a_mobile_link_is_no_failure_and_is_looked_at_each_hour() {
    let mut case = Case::new();
    case.pass(at(0));
    let mut now = at(0) + PACE / 2;
    let metered = || Err(NotVerified::Metered("wwan0".to_owned()));
    while now < at(0) + PACE * 3 {
        case.look(metered(), now);
        now = now + METERED_RETRY;
        assert_eq!(case.verification.deadline(true), now);
    }
    assert_eq!(case.verification.state(), Verity::Unknown);
    assert!(
        case.verification
            .cause()
            .is_some_and(|why| why.contains("wwan0"))
    );
    assert_eq!(case.problem(now), "");
}
