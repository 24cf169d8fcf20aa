//! What the replication of a database asks of S3 in a month, told before.
//!
//! Owns the model of Litestream 0.5's requests, by its intervals: `cargo xtask bench cost` measures it. Counts
//! nothing, and knows no bytes: those are the application's.

use std::time::Duration;

/// A month of 30 days, in seconds.
const MONTH: f64 = 30.0 * 86_400.0;

/// The LIST requests of a compaction, of a check of the level 0, of a snapshot and of the plan of a restore.
const OF_COMPACTION: f64 = 3.0;
const OF_CHECK: f64 = 2.0;
const OF_SNAPSHOT: f64 = 5.0;
const OF_PLAN: f64 = 12.0;

/// US dollars for a million requests, in us-east-1.
const TIER_1: f64 = 5.0;
const TIER_2: f64 = 0.4;

/// When Litestream does what costs requests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Intervals {
    /// It reads the WAL by itself, and uploads what is new.
    pub(crate) monitor: Duration,
    /// A checkpoint for its time alone commits something.
    pub(crate) checkpoint: Duration,
    /// Objects of the level 0 that are old go.
    pub(crate) check: Duration,
    /// Each level is made of the one below, the first one of the level 0.
    pub(crate) levels: Vec<Duration>,
    pub(crate) snapshot: Duration,
}

impl Default for Intervals {
    /// Litestream's own.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            monitor: seconds(1),
            checkpoint: seconds(60),
            check: seconds(15),
            levels: [30, 300, 3600].map(seconds).to_vec(),
            snapshot: seconds(86_400),
        }
    }
}

/// What edgerepl has Litestream do, and what is written to the database.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// A proof is asked for so soon, where something was committed.
    pub(crate) pace: Duration,
    /// Between two heartbeat rows, where it has any.
    pub(crate) rows: Option<Duration>,
    /// The application writes all the time, or never.
    pub(crate) is_busy: bool,
    /// Between two plans of a restore.
    pub(crate) plans: Option<Duration>,
}

/// Requests in a month, by their class.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Requests {
    /// PUT, and the parts of large uploads.
    pub(crate) put: f64,
    /// LIST.
    pub(crate) list: f64,
    /// GET.
    pub(crate) get: f64,
}

impl Requests {
    /// Those of one database.
    pub(crate) fn of(intervals: &Intervals, load: Load) -> Self {
        let uploads = match (load.is_busy, load.rows) {
            (true, _) => rate(intervals.monitor) + rate(load.pace),
            // Each row is uploaded alone: by Litestream itself, or as it is asked for.
            (false, Some(rows)) if intervals.monitor <= rows => rate(rows),
            (false, Some(rows)) => rate(rows.max(load.pace)),
            (false, None) => 0.0,
        };
        let mut requests = Self {
            put: uploads + rate(intervals.checkpoint).min(uploads),
            list: OF_CHECK * rate(intervals.check),
            get: 0.0,
        };
        let mut below = requests.put;
        for (level, interval) in intervals.levels.iter().enumerate() {
            let compactions = rate(*interval).min(below);
            requests.put += compactions;
            requests.list += OF_COMPACTION * compactions;
            // The level 0 is there as files, too.
            if level > 0 {
                requests.get += below;
            }
            below = compactions;
        }
        let snapshots = rate(intervals.snapshot).min(uploads);
        requests.put += snapshots;
        requests.list += OF_SNAPSHOT * rate(intervals.snapshot);
        requests.list += OF_PLAN * load.plans.map_or(0.0, rate);
        requests
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            put: self.put + other.put,
            list: self.list + other.list,
            get: self.get + other.get,
        }
    }

    /// What they cost, in US dollars.
    pub(crate) fn dollars(self) -> f64 {
        ((self.put + self.list) * TIER_1 + self.get * TIER_2) / 1e6
    }
}

/// How often in a month what comes at this pace comes.
fn rate(pace: Duration) -> f64 {
    MONTH / pace.as_secs_f64().max(0.001)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTES: f64 = 30.0 * 24.0 * 60.0;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// In a minute: PUT and LIST.
    fn a_minute(intervals: &Intervals, load: Load) -> (f64, f64) {
        let requests = Requests::of(intervals, load);
        (requests.put / MINUTES, requests.list / MINUTES)
    }

    fn is_near(predicted: f64, measured: f64) -> bool {
        (predicted - measured).abs() <= 0.15 * measured
    }

    /// Measured over 260 s with Litestream 0.5.17 and a proof each 30 s.
    #[test]
    fn it_predicts_what_litestreams_defaults_were_measured_to_cost() {
        for (rows, is_busy, put, list) in [
            (Some(seconds(5)), false, 15.0, 13.4),
            (Some(seconds(5)), true, 63.0, 13.4),
            (None, false, 0.0, 8.2),
        ] {
            let load = Load {
                pace: seconds(30),
                rows,
                is_busy,
                plans: None,
            };
            let told = a_minute(&Intervals::default(), load);
            assert!(put == 0.0 || is_near(told.0, put), "{load:?}: {told:?}");
            assert!(is_near(told.1, list), "{load:?}: {told:?}");
        }
    }

    #[test]
    fn a_slower_rpo_never_costs_more() {
        let mut before = f64::MAX;
        for rpo in [1, 10, 60, 300, 3600, 86_400] {
            let load = Load {
                pace: seconds(rpo) * 5 / 6,
                rows: Some(seconds(rpo)),
                is_busy: false,
                plans: Some(seconds(86_400)),
            };
            let idle = Requests::of(&Intervals::default(), load).dollars();
            let busy = Load {
                is_busy: true,
                ..load
            };
            assert!(idle <= before, "{rpo} s: {idle}");
            assert!(idle <= Requests::of(&Intervals::default(), busy).dollars());
            before = idle;
        }
    }
}
