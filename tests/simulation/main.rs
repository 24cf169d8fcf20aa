//! Centuries of a device's life with faults, from one seed: whatever the network, the clock, the chip,
//! Litestream or the disk does, the agent obeys its laws at every step (`laws`) and needs nobody.
//!
//! The agent is the real one. The world around it (`world`) is a model: of time on both clocks,
//! power, network, provider, key, Litestream, S3 and database, each of which fails at random.
//!
//! ```text
//! EDGEREPL_SEED=7 cargo xtask test simulation             # replays one device, with its log
//! EDGEREPL_YEARS=1000 cargo xtask test simulation         # more of them
//! ```

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

mod chance;
mod laws;
mod replica;
mod world;

use world::{Tally, World};

/// What an ordinary run simulates.
const YEARS: u64 = 250;

const DAYS_PER_YEAR: u64 = 365;

#[test]
fn whatever_happens_the_laws_hold() {
    if let Some(seed) = number("EDGEREPL_SEED") {
        let tally = World::new(seed, true).live();
        println!("seed {seed}: {tally:?}");
        return;
    }
    let days = number("EDGEREPL_YEARS").unwrap_or(YEARS) * DAYS_PER_YEAR;
    let first = number("EDGEREPL_FIRST_SEED").unwrap_or(1);
    let next = AtomicU64::new(first);
    let simulated = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(2, usize::from);
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut sum = Tally::default();
                    while simulated.load(Ordering::Relaxed) < days {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        let tally =
                            catch_unwind(AssertUnwindSafe(|| World::new(seed, false).live()));
                        let Ok(tally) = tally else {
                            simulated.store(u64::MAX, Ordering::Relaxed);
                            panic!("a law was broken; replay it with EDGEREPL_SEED={seed}");
                        };
                        simulated.fetch_add(tally.days, Ordering::Relaxed);
                        sum += tally;
                    }
                    sum
                })
            })
            .collect();
        workers
            .into_iter()
            .filter_map(|worker| worker.join().ok())
            .collect()
    });
    assert_eq!(tallies.len(), threads, "a law was broken: see above");
    let mut sum = Tally::default();
    for tally in tallies {
        sum += tally;
    }
    println!(
        "seeds from {first}: {} device-years; {sum:?}",
        sum.days / DAYS_PER_YEAR
    );
    // A simulation in which nothing happens shows nothing.
    let years = sum.days / DAYS_PER_YEAR;
    let often = |count: u64, per_year: u64| count >= per_year * years;
    assert!(
        often(sum.rotations, 1_000) && often(sum.deaths, 20),
        "{sum:?}"
    );
    assert!(often(sum.power_cuts, 10) && often(sum.resets, 2), "{sum:?}");
    assert!(
        often(sum.wrong_pins, 1) && often(sum.clock_steps, 100),
        "{sum:?}"
    );
    assert!(often(sum.reloads, 100), "{sum:?}");
    assert!(sum.databases * 4 > years, "{sum:?}");
    assert!(often(sum.wounds, 5) && sum.wrong > 0, "{sum:?}");
    assert!(often(sum.missed, 1) && often(sum.passed_over, 1), "{sum:?}");
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}
