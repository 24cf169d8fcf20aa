//! `cargo xtask bench`: what edgerepl costs, as it ships, on this machine.
//!
//! Owns which benchmarks there are. One prints what it measured. It fails where what does not depend on
//! the machine's speed is over its budget, and never for a time.

use std::path::Path;

use edgerepl_tools as tools;
use xtask::{Outcome, setup};

mod cost;
pub(crate) mod count;
mod databases;
mod device;
mod flash;
mod kernel;
mod slow_line;

/// A benchmark, and what it runs with: edgerepl in a release build.
struct Benchmark {
    name: &'static str,
    measures: &'static str,
    run: fn(&Path) -> Outcome,
}

const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "databases",
        measures: "what each database more costs, idle and at a restart of Litestream",
        run: databases::databases,
    },
    Benchmark {
        name: "cost",
        measures: "what S3 is asked for, by how much may be lost",
        run: cost::cost,
    },
    Benchmark {
        name: "flash",
        measures: "what a heartbeat row costs the flash, by its pace",
        run: flash::flash,
    },
    Benchmark {
        name: "slow-line",
        measures: "the first upload of 20 MB over 64 kbit/s",
        run: slow_line::slow_line,
    },
];

/// Those of these names, or all. True where each is within its budget.
pub(crate) fn bench(names: &[&str]) -> Outcome {
    if let Some(unknown) = names
        .iter()
        .find(|name| BENCHMARKS.iter().all(|b| b.name != **name))
    {
        let known: Vec<&str> = BENCHMARKS.iter().map(|b| b.name).collect();
        let known = known.join(", ");
        return Err(format!("there is no benchmark {unknown:?}; there are {known}").into());
    }
    setup::setup()?;
    let program = tools::edgerepl_as_shipped()?;
    println!("edgerepl as it ships: {} bytes", program.metadata()?.len());
    let is_chosen = |b: &&Benchmark| names.is_empty() || names.contains(&b.name);
    let mut is_within = true;
    for benchmark in BENCHMARKS.iter().filter(is_chosen) {
        println!("\n{}: {}", benchmark.name, benchmark.measures);
        is_within &= (benchmark.run)(&program)?;
    }
    Ok(is_within)
}
