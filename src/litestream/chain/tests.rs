use super::*;

const BEFORE: i64 = 1_700_000_000;

fn object(level: u64, first: u64, last: u64, size: u64) -> Object {
    let time = WallTime::from_unix(BEFORE + i64::try_from(last).expect("a time"));
    Object {
        level,
        first,
        last,
        size,
        time,
    }
}

/// A snapshot of transaction 1, a compaction, and two single transactions.
fn plan() -> Vec<Object> {
    vec![
        object(9, 1, 1, 500),
        object(1, 2, 5, 900),
        object(0, 6, 6, 300),
        object(0, 7, 7, 310),
    ]
}

fn own(sizes: &[(u64, u64)]) -> Option<Own> {
    Some(Own(sizes.iter().copied().collect()))
}

fn look<'a>(plan: Vec<Object>, own: Option<Own>, earlier: &'a Record) -> Look<'a> {
    Look {
        snapshots: plan.iter().filter(|o| o.level == 9).copied().collect(),
        singles: plan.iter().filter(|o| o.level == 0).copied().collect(),
        plan: Ok(plan),
        own,
        earlier,
    }
}

fn judged(plan: Vec<Object>, own: Option<Own>) -> Listing {
    let none = Record::default();
    look(plan, own, &none).judge().expect("a finding")
}

#[test]
fn a_whole_chain_says_what_it_holds() {
    let found = judged(plan(), own(&[(6, 300), (7, 310), (8, 320)]));
    let holdings = Holdings {
        files: 4,
        bytes: 2010,
        last: 7,
        oldest: WallTime::from_unix(BEFORE + 1),
        newest: WallTime::from_unix(BEFORE + 7),
    };
    assert_eq!(found.chain, Chain::Whole(holdings));
    assert_eq!(found.stranger, None);
    // Where Litestream's files can't be seen, nothing is said of strangers.
    assert_eq!(judged(plan(), None).stranger, None);
}

#[test]
fn what_is_missing_is_told_apart() {
    assert_eq!(judged(Vec::new(), None).chain, Chain::Nothing);
    assert_eq!(judged(plan().split_off(1), None).chain, Chain::Nothing);
    let mut holed = plan();
    holed.remove(2);
    assert_eq!(judged(holed, None).chain, Chain::Hole { after: 5 });

    let none = Record::default();
    let failing = |message| {
        let failing = Look {
            plan: Err(message),
            ..look(Vec::new(), None, &none)
        };
        failing.judge().map(|found| found.chain)
    };
    let nothing = "cannot calc restore plan: no matching backup files available";
    assert_eq!(failing(nothing), Ok(Chain::Nothing));
    let hole = "Error: non-contiguous ltx files: have up to 000000000000001f but next file starts \
                at 0000000000000021";
    assert_eq!(failing(hole), Ok(Chain::Hole { after: 31 }));
    for unknown in [
        "AccessDenied: no",
        "non-contiguous ltx files: have up to zz but",
        "non-contiguous ltx files: have up to ",
        "",
    ] {
        assert_eq!(failing(unknown), Err(unknown.to_owned()));
    }
}

#[test]
fn an_object_of_another_size_is_altered() {
    let altered = |at| Chain::Altered { at };
    // Shorter than any, than Litestream's own file, than at the last look.
    let mut cut = plan();
    cut[0].size = 0;
    assert_eq!(judged(cut, None).chain, altered(1));
    let found = judged(plan(), own(&[(6, 301), (7, 310)]));
    assert_eq!((found.chain, found.stranger), (altered(6), None));
    let earlier = look(plan(), None, &Record::default()).record();
    let mut cut = plan();
    cut[1].size = 450;
    let second = look(cut.clone(), None, &earlier);
    assert_eq!(second.judge().expect("a finding").chain, altered(5));
    // It stays altered, until it is what it was.
    let earlier = second.record();
    assert_eq!(
        look(cut, None, &earlier).judge().expect("it").chain,
        altered(5)
    );
    let mended = look(plan(), None, &earlier).judge().expect("it").chain;
    assert!(matches!(mended, Chain::Whole(_)), "{mended:?}");
    // A file that a power cut left empty here says nothing of the bucket.
    let found = judged(plan(), own(&[(6, 0), (7, 310)])).chain;
    assert!(matches!(found, Chain::Whole(_)), "{found:?}");
}

#[test]
fn what_this_device_never_made_is_a_strangers() {
    let found = judged(plan(), own(&[(5, 200), (6, 300)]));
    assert_eq!(found.stranger, Some(Stranger::Ahead { at: 7 }));
    let found = judged(plan(), own(&[(6, 310), (7, 300)]));
    assert_eq!(found.stranger, Some(Stranger::Differing { at: 7 }));
    // At two looks, between which the first one was compacted.
    let none = Record::default();
    let first = look(plan(), own(&[(6, 310), (7, 310)]), &none);
    assert_eq!(first.judge().expect("a finding").stranger, None);
    let record = Record::read(first.record().document().to_string().as_bytes());
    assert_eq!(record, first.record());
    let mut later = plan();
    later.remove(2);
    later[1].last = 6;
    let second = look(later.clone(), own(&[(7, 300)]), &record);
    let found = second.judge().expect("a finding").stranger;
    assert_eq!(found, Some(Stranger::Differing { at: 7 }));
    // A newer snapshot holds neither.
    later[0].last = 7;
    let third = look(later, own(&[(7, 300)]), &record);
    assert_eq!(third.judge().expect("a finding").stranger, None);
    for odd in ["", "null", "[]", r#"{"sizes": 7, "differing": {}}"#] {
        assert_eq!(Record::read(odd.as_bytes()), Record::default(), "{odd}");
    }
}

#[test]
fn a_failed_compaction_is_a_complaint() {
    let line = "time=… level=ERROR msg=\"compaction failed\" db=app.db level=1 error=\"write ltx file: …\"";
    assert!(is_complaint(line));
    assert!(!is_complaint(
        "level=INFO msg=\"compaction complete\" level=1"
    ));
}

#[test]
fn lists_are_read_in_both_forms_and_in_no_other() {
    let item = r#"{"level": 1, "min_txid": "0000000000000002", "max_txid": "000000000000001f",
                   "size": 900, "timestamp": "2023-11-14T22:13:25Z", "name": "new"}"#;
    let wanted = Object {
        time: WallTime::from_unix(1_700_000_005),
        ..object(1, 2, 31, 900)
    };
    assert_eq!(objects(&format!("[{item}]")), Ok(vec![wanted]));
    assert_eq!(
        objects(&format!("{{\"files\": [{item}]}}")),
        Ok(vec![wanted])
    );
    assert_eq!(objects("[]"), Ok(Vec::new()));
    let bad = [
        ("\"size\": 900", "\"size\": -1"),
        ("000000000000001f", "-1"),
        ("000000000000001f", "1ffffffffffffffff"),
        ("2023-11-14T22:13:25Z", "yesterday"),
    ];
    for (good, bad) in bad {
        let text = format!("[{}]", item.replace(good, bad));
        assert!(objects(&text).is_err(), "{text}");
    }
    for odd in ["", "null", "{}", "[7]", r#"{"files": 7}"#] {
        assert!(objects(odd).is_err(), "{odd}");
    }
}

#[test]
fn chains_at_the_end_of_all_numbers_do_not_overflow() {
    let most = vec![
        object(9, 1, 5, u64::MAX),
        Object {
            first: 6,
            last: u64::MAX,
            ..object(0, 6, 6, u64::MAX)
        },
        object(0, 3, 4, 300),
    ];
    let found = judged(most, own(&[(u64::MAX, u64::MAX)])).chain;
    assert!(
        matches!(found, Chain::Whole(Holdings { last: u64::MAX, .. })),
        "{found:?}"
    );
}
