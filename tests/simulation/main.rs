//! Centuries of a device's life with faults, from one seed: whatever the network, the clock, the chip,
//! Litestream or the disk does, the agent obeys its laws at every step (`laws`) and needs nobody.
//!
//! The agent is the real one. The world around it (`world`) is a model: of time on both clocks,
//! power, network, provider, key, Litestream, S3, database and people, each of which fails at random;
//! which of them do is another thing that a seed decides (`faults`). What the world never produces, and
//! a law that is never in force, fail the run (`coverage`).
//!
//! ```text
//! EDGEREPL_SEED=7 cargo xtask test simulation                             # replays one device, with its log
//! EDGEREPL_SEED=7 EDGEREPL_FAULTS=Network,S3 cargo xtask test simulation  # with those faults alone
//! EDGEREPL_YEARS=5000 cargo xtask test simulation                         # more of them
//! EDGEREPL_SEVERAL=20 cargo xtask test simulation                         # more with several databases
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

mod chance;
mod coverage;
mod faults;
mod laws;
mod world;

use coverage::Coverage;
use faults::Faults;
use laws::Record;
use world::{Crowd, Life, World};

/// What an ordinary run simulates.
const YEARS: u64 = 400;

/// And of devices with several databases, each of which costs as many events as one of the others.
const YEARS_OF_SEVERAL: u64 = 3;

/// So many years meet all that there is; of fewer nobody can ask that.
const ENOUGH_YEARS: u64 = 250;

const YEAR: Duration = Duration::from_secs(365 * 86_400);

#[test]
fn whatever_happens_the_laws_hold() {
    if let Some(seed) = number("EDGEREPL_SEED") {
        let named = env::var("EDGEREPL_FAULTS").map(|names| Faults::named(&names));
        let faults = named.unwrap_or(Faults::of(seed));
        let crowd = match env::var_os("EDGEREPL_SEVERAL") {
            Some(_) => Crowd::Several,
            None => Crowd::One,
        };
        let life = World::new(seed, faults, crowd, true).live();
        println!("seed {seed}:\n{}", life.coverage);
        let violation = life.violation();
        assert!(violation.is_none(), "{violation:?}");
        return;
    }
    let years = number("EDGEREPL_YEARS").unwrap_or(YEARS);
    let first = number("EDGEREPL_FIRST_SEED").unwrap_or(1);
    let span = |years: u64| YEAR.saturating_mul(years.try_into().unwrap_or(u32::MAX));
    let mut sum = live(first, span(years), Crowd::One);
    let several = number("EDGEREPL_SEVERAL").unwrap_or(YEARS_OF_SEVERAL);
    sum.merge(live(first, span(several), Crowd::Several));
    let lived = sum.lived.as_secs() / YEAR.as_secs();
    println!(
        "seeds from {first}: {lived} device-years, {} events\n{}",
        sum.coverage.handled(),
        sum.coverage
    );
    sum.print_laws();
    let told: Vec<String> = sum.first_of_each().map(look_into).collect();
    assert!(told.is_empty(), "laws were broken:\n{}", told.join("\n"));
    if lived >= ENOUGH_YEARS {
        sum.covers_all(lived);
    }
}

/// What came of many lives.
struct Sum {
    lived: Duration,
    watched: Duration,
    coverage: Coverage,
    /// Of each law, in their order.
    records: Vec<Record>,
    violations: Vec<Broken>,
}

/// A life in which a law was broken, or the agent panicked.
#[derive(Clone)]
struct Broken {
    seed: u64,
    crowd: Crowd,
    law: &'static str,
    why: String,
}

/// After so many broken lives there is enough to look into.
const MANY: usize = 20;

const PANICS: &str = "nothing panics";

/// Lives lives until they add up to `span`, on all processors.
fn live(first: u64, span: Duration, crowd: Crowd) -> Sum {
    let next = AtomicU64::new(first);
    let lived = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        let live_some = || {
            let mut sum = Sum::new();
            while lived.load(Ordering::Relaxed) < span.as_secs() && sum.violations.len() < MANY {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                let before = sum.lived;
                sum.add(seed, crowd, catch_life(seed, Faults::of(seed), crowd));
                let more = sum.lived - before;
                lived.fetch_add(more.as_secs().max(1), Ordering::Relaxed);
            }
            sum
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(live_some)).collect();
        let sums = workers.into_iter().map(|worker| worker.join());
        let mut all = Sum::new();
        sums.for_each(|sum| all.merge(sum.expect("a worker does not panic")));
        all
    })
}

fn catch_life(seed: u64, faults: Faults, crowd: Crowd) -> Option<Life> {
    let live = || World::new(seed, faults, crowd, false).live();
    catch_unwind(AssertUnwindSafe(live)).ok()
}

/// Why a seed breaks a law, and the faults without which it does not.
fn look_into(broken: &Broken) -> String {
    let mut faults = Faults::of(broken.seed);
    let all: Vec<_> = faults.each().collect();
    for fault in all {
        let fewer = faults.without(fault);
        let law = match catch_life(broken.seed, fewer, broken.crowd) {
            Some(life) => life.violation().map(|violation| violation.law),
            None => Some(PANICS),
        };
        if law == Some(broken.law) {
            faults = fewer;
        }
    }
    let names: Vec<String> = faults.each().map(|fault| format!("{fault:?}")).collect();
    format!(
        "{}: {}\n  replay it with {}EDGEREPL_SEED={} EDGEREPL_FAULTS={}",
        broken.law,
        broken.why,
        match broken.crowd {
            Crowd::One => "",
            Crowd::Several => "EDGEREPL_SEVERAL=1 ",
        },
        broken.seed,
        names.join(",")
    )
}

impl Sum {
    fn new() -> Self {
        Self {
            lived: Duration::ZERO,
            watched: Duration::ZERO,
            coverage: Coverage::new(),
            records: Vec::new(),
            violations: Vec::new(),
        }
    }

    fn add(&mut self, seed: u64, crowd: Crowd, life: Option<Life>) {
        let Some(life) = life else {
            let why = "see above".to_owned();
            return self.violations.push(Broken {
                seed,
                crowd,
                law: PANICS,
                why,
            });
        };
        self.lived += life.lived;
        self.watched += life.watched();
        self.coverage += &life.coverage;
        self.add_records(&life.records());
        self.violations.extend(life.violation().map(|broken| {
            let (law, time) = (broken.law, broken.time.as_secs_f64());
            let why = format!("at {time:.3} s, {}", broken.why);
            Broken {
                seed,
                crowd,
                law,
                why,
            }
        }));
    }

    fn merge(&mut self, other: Self) {
        self.lived += other.lived;
        self.watched += other.watched;
        self.coverage += &other.coverage;
        self.add_records(&other.records);
        self.violations.extend(other.violations);
    }

    fn add_records(&mut self, records: &[Record]) {
        if self.records.is_empty() {
            return self.records.extend(records);
        }
        for (sum, more) in self.records.iter_mut().zip(records) {
            sum.applied += more.applied;
            sum.tests += more.tests;
        }
    }

    /// The first violation of each law.
    fn first_of_each(&self) -> impl Iterator<Item = &Broken> {
        let mut laws = BTreeSet::new();
        let violations = self.violations.iter();
        violations.filter(move |broken| laws.insert(broken.law))
    }

    fn print_laws(&self) {
        let mut violations: BTreeMap<&str, u64> = BTreeMap::new();
        for broken in &self.violations {
            *violations.entry(broken.law).or_default() += 1;
        }
        println!(
            "{:<48}{:>10}{:>13}{:>11}",
            "law", "applied", "tests", "violations"
        );
        for record in &self.records {
            println!(
                "{:<48}{:>9.4}%{:>13}{:>11}",
                record.law,
                100.0 * record.applied.as_secs_f64() / self.watched.as_secs_f64(),
                record.tests,
                violations.get(record.law).unwrap_or(&0)
            );
        }
    }

    /// A simulation in which something never happens says nothing of it.
    fn covers_all(&self, years: u64) {
        let missing = self.coverage.missing();
        assert!(
            missing.is_empty(),
            "it never happened: {}",
            missing.join(", ")
        );
        let idle = self
            .records
            .iter()
            .filter(|record| record.applied.is_zero() || record.tests == 0);
        let idle: Vec<_> = idle.map(|record| record.law).collect();
        assert!(
            idle.is_empty(),
            "laws that nothing put to the test: {idle:?}"
        );
        let rotations = self.coverage.grants() / years.max(1);
        assert!(rotations >= 1000, "{rotations} rotations a year");
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}
