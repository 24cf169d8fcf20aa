//! What the replication of a database asks of S3 in a month, told before.
//!
//! Owns the model of Litestream 0.5's requests and of what goes over the line for them, by its intervals:
//! `cargo xtask bench cost` measures it. Counts nothing.

use std::time::Duration;

use crate::config::Prices;

/// A month of 30 days, in seconds.
const MONTH: f64 = 30.0 * 86_400.0;

/// The LIST requests of a snapshot and of the plan of a restore.
const OF_SNAPSHOT: f64 = 5.0;
const OF_PLAN: f64 = 12.0;

/// An answer to a LIST names so many objects at the most, each in so many bytes.
const PAGE: f64 = 1000.0;
const ENTRY: f64 = 340.0;

/// The headers of a request, with a session token of 0.8 kB, and those of its answer.
const HEADERS: f64 = 1900.0 + 500.0;

/// An object that holds nothing but what Litestream itself commits at a checkpoint.
const CHECKPOINTED: f64 = 500.0;

/// The page of the heartbeat rows, compressed, and a row more on it.
const HEARTBEAT: f64 = 1100.0;
const HEARTBEAT_ROW: f64 = 20.0;

/// An application that writes all the time: a row of 100 bytes each second, with its place in the table, and
/// the page that is not full yet.
const EACH: Duration = Duration::from_secs(1);
const ROW: f64 = 120.0;
const PARTLY_FULL: f64 = 2500.0;

/// Larger objects are uploaded in parts of this size, with a request before and after them.
const PART: f64 = 5.0 * 1024.0 * 1024.0;

/// When Litestream does what costs requests; zero: never.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Intervals {
    /// It reads the WAL by itself.
    pub(crate) monitor: Duration,
    /// It uploads what it has read, at the latest.
    pub(crate) sync: Duration,
    /// A checkpoint for its time alone commits something.
    pub(crate) checkpoint: Duration,
    /// Objects of the level 0 that are older than `young` go.
    pub(crate) check: Duration,
    pub(crate) young: Duration,
    /// Each level is made of the one below, the first one of the level 0.
    pub(crate) levels: Vec<Duration>,
    pub(crate) snapshot: Duration,
    /// Older snapshots go, and what was compacted before them.
    pub(crate) kept: Duration,
}

impl Default for Intervals {
    /// Litestream's own.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            monitor: seconds(1),
            sync: seconds(1),
            checkpoint: seconds(60),
            check: seconds(15),
            young: seconds(300),
            levels: [30, 300, 3600].map(seconds).to_vec(),
            snapshot: seconds(86_400),
            kept: seconds(86_400),
        }
    }
}

impl Intervals {
    /// The same in a bucket that is new: nothing has gathered in a level yet, and no snapshot has been made anew.
    pub(crate) fn in_new_bucket(self) -> Self {
        Self {
            kept: Duration::ZERO,
            snapshot: Duration::ZERO,
            ..self
        }
    }

    /// How old a commit is at the most when Litestream begins to upload it by itself; `None`: it never does.
    pub(crate) fn exposure(&self) -> Option<Duration> {
        (!self.monitor.is_zero()).then(|| self.monitor.saturating_add(self.sync))
    }
}

/// What edgerepl has Litestream do, and what is written to the database.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// A proof is asked for so soon, where something was committed; `None`: Litestream can't be asked.
    pub(crate) pace: Option<Duration>,
    /// Between two heartbeat rows, where it has any.
    pub(crate) rows: Option<Duration>,
    /// The application writes all the time, or never.
    pub(crate) is_busy: bool,
    /// Between two plans of a restore.
    pub(crate) plans: Option<Duration>,
    /// The size of the database, in bytes.
    pub(crate) size: u64,
}

impl Load {
    /// How often in a month something is uploaded.
    fn uploads(self, monitor: Duration) -> f64 {
        match (self.is_busy, self.rows) {
            // Nothing is new sooner than the application writes.
            (true, _) => {
                let monitor = match monitor.is_zero() {
                    true => monitor,
                    false => monitor.max(EACH),
                };
                rate(monitor) + self.pace.map_or(0.0, rate)
            }
            // Each row is uploaded alone: by Litestream itself, or as it is asked for.
            (false, Some(rows)) => {
                let by_itself = Some(monitor).filter(|monitor| !monitor.is_zero());
                let soonest = by_itself.into_iter().chain(self.pace).min();
                soonest.map_or(0.0, |soonest| rate(rows.max(soonest)))
            }
            (false, None) => 0.0,
        }
    }

    /// The size of an object that holds what is written in so many seconds.
    fn object(self, seconds: f64) -> f64 {
        let rows = self.rows.map_or(0.0, |pace| seconds * rate(pace) / MONTH);
        let application = match self.is_busy {
            true => PARTLY_FULL + ROW * seconds,
            false => 0.0,
        };
        application + HEARTBEAT * rows.min(1.0) + HEARTBEAT_ROW * rows
    }
}

/// Requests of one class in a month, and what goes over the line for them in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Class {
    pub(crate) count: f64,
    pub(crate) bytes: f64,
}

impl Class {
    /// So many more, each with so many bytes beside the headers.
    fn add(&mut self, count: f64, body: f64) {
        self.count += count;
        self.bytes += count * (HEADERS + body);
    }

    fn and(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// Requests in a month, by their class.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Requests {
    /// PUT, and what a large upload takes.
    pub(crate) put: Class,
    pub(crate) list: Class,
    pub(crate) get: Class,
}

impl Requests {
    /// Those of one database that has been replicated for some days.
    pub(crate) fn of(intervals: &Intervals, load: Load) -> Self {
        let mut requests = Self::default();
        let uploads = load.uploads(intervals.monitor);
        let object = |count: f64| load.object(MONTH / count.max(1.0));
        requests.put.add(uploads, object(uploads));
        let checkpoints = rate(intervals.checkpoint).min(uploads);
        requests.put.add(checkpoints, CHECKPOINTED);

        // So many objects there are of the level below, and so many were made of it in a month.
        let first = intervals.levels.first().copied().unwrap_or_default();
        let until_gone = intervals.check.saturating_add(first) / 2;
        let until_gone = intervals.young.saturating_add(until_gone);
        let mut below = requests.put.count;
        let mut there = below * share(until_gone);
        let level_0 = there;
        let mut all = there;
        for (level, interval) in intervals.levels.iter().enumerate() {
            let compactions = rate(*interval).min(below);
            requests.put.add(compactions, object(compactions));
            requests.list(2.0 * compactions, there);
            // The level 0 is there as files, too.
            if level > 0 {
                requests.get.add(below, object(below));
            }
            // A snapshot removes what stands before the oldest one that is kept.
            there = compactions * share(intervals.kept.saturating_add(intervals.snapshot / 2));
            requests.list(compactions, there);
            if level == 0 && !intervals.young.is_zero() {
                requests.list(rate(intervals.check), there);
                requests.list(rate(intervals.check), level_0.min(PAGE));
            }
            below = compactions;
            all += there;
        }
        let snapshots = rate(intervals.snapshot).min(uploads);
        let size = load.size as f64;
        requests.put.add(snapshots, size);
        if size > PART {
            requests
                .put
                .add(snapshots * (1.0 + (size / PART).ceil()), 0.0);
        }
        requests.list(OF_SNAPSHOT * rate(intervals.snapshot), 0.0);
        let plans = load.plans.map_or(0.0, rate);
        requests.list((OF_PLAN - 1.0) * plans, 0.0);
        requests.list(plans, all);
        requests
    }

    /// So many lists of so many objects: one request for each page.
    fn list(&mut self, count: f64, objects: f64) {
        let pages = match objects > PAGE {
            true => objects / PAGE + 0.5,
            false => 1.0,
        };
        self.list.add(count * pages, objects * ENTRY / pages);
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            put: self.put.and(other.put),
            list: self.list.and(other.list),
            get: self.get.and(other.get),
        }
    }

    /// All bytes on the line.
    pub(crate) fn bytes(self) -> f64 {
        self.put.bytes + self.list.bytes + self.get.bytes
    }

    /// What they cost, in US dollars.
    pub(crate) fn dollars(self, prices: Prices) -> f64 {
        let millions = |class: Class| class.count / 1e6;
        (millions(self.put) + millions(self.list)) * prices.put.dollars()
            + millions(self.get) * prices.get.dollars()
            + self.bytes() / 1e9 * prices.gigabyte.dollars()
    }
}

/// How often in a month what comes at this pace comes; zero: never.
fn rate(pace: Duration) -> f64 {
    match pace.is_zero() {
        true => 0.0,
        false => MONTH / pace.as_secs_f64(),
    }
}

/// How much of a month that is.
fn share(span: Duration) -> f64 {
    span.as_secs_f64() / MONTH
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
        (requests.put.count / MINUTES, requests.list.count / MINUTES)
    }

    fn is_near(predicted: f64, measured: f64) -> bool {
        (predicted - measured).abs() <= 0.15 * measured
    }

    /// A proof each 30 s, and nothing that is written.
    const IDLE: Load = Load {
        pace: Some(Duration::from_secs(30)),
        rows: None,
        is_busy: false,
        plans: None,
        size: 0,
    };

    /// Measured over 260 s with Litestream 0.5.17 and a proof each 30 s, in an empty bucket.
    #[test]
    fn it_predicts_what_litestreams_defaults_were_measured_to_cost() {
        let intervals = Intervals::default().in_new_bucket();
        for (rows, is_busy, put, list) in [
            (Some(seconds(5)), false, 15.0, 13.4),
            (Some(seconds(5)), true, 63.0, 13.4),
            (None, false, 0.0, 8.2),
        ] {
            let load = Load {
                rows,
                is_busy,
                ..IDLE
            };
            let told = a_minute(&intervals, load);
            assert!(put == 0.0 || is_near(told.0, put), "{load:?}: {told:?}");
            assert!(is_near(told.1, list), "{load:?}: {told:?}");
        }
    }

    /// Measured: 1.1 kB an object with a heartbeat row; with a row of 100 bytes each second 2.9 kB each second,
    /// and 10 kB each 50 s.
    #[test]
    fn it_predicts_the_size_of_what_is_uploaded() {
        let rows = Some(seconds(60));
        let busy = Load {
            rows,
            is_busy: true,
            ..IDLE
        };
        for (load, seconds, measured) in [
            (Load { rows, ..IDLE }, 60.0, 1_100.0),
            (busy, 1.0, 2_900.0),
            (busy, 50.0, 10_000.0),
        ] {
            let told = load.object(seconds);
            assert!(is_near(told, measured), "{load:?}: {told}");
        }
    }

    /// A list has 1,000 objects in an answer: a compaction each 30 s makes 2,880 of them a day.
    #[test]
    fn a_level_that_is_kept_for_days_is_listed_page_by_page() {
        let load = Load {
            rows: Some(seconds(5)),
            ..IDLE
        };
        let (_, fresh) = a_minute(
            &Intervals {
                kept: Duration::ZERO,
                snapshot: Duration::ZERO,
                ..Intervals::default()
            },
            load,
        );
        let (_, later) = a_minute(&Intervals::default(), load);
        // The checks and the compactions: 6 lists of the level 1 in a minute, of 4,320 objects.
        assert!(is_near(later - fresh, 6.0 * 3.8), "{fresh} {later}");
    }

    #[test]
    fn a_snapshot_is_the_whole_database_each_time() {
        let load = |size| Load {
            rows: Some(seconds(60)),
            size,
            ..IDLE
        };
        let of = |size| Requests::of(&Intervals::default(), load(size)).put;
        let (none, small, large) = (of(0), of(1 << 20), of(20 << 20));
        assert!(is_near(small.bytes - none.bytes, 30.0 * 1024.0 * 1024.0));
        assert!(is_near(large.bytes - none.bytes, 600.0 * 1024.0 * 1024.0));
        assert_eq!((small.count, large.count), (none.count, none.count + 150.0));
    }

    #[test]
    fn what_never_comes_costs_nothing() {
        let never = Intervals {
            monitor: Duration::ZERO,
            ..Intervals::default()
        };
        let load = |pace| Load {
            pace,
            rows: Some(seconds(5)),
            ..IDLE
        };
        assert_eq!(load(None).uploads(never.monitor), 0.0);
        assert_eq!(load(IDLE.pace).uploads(never.monitor), rate(seconds(30)));
        assert_eq!(load(IDLE.pace).uploads(seconds(10)), rate(seconds(10)));
        assert_eq!(load(IDLE.pace).uploads(seconds(1)), rate(seconds(5)));
        assert_eq!(never.exposure(), None);
        let defaults = Intervals::default();
        assert_eq!(defaults.exposure(), Some(seconds(2)));
        let longest = Intervals {
            monitor: Duration::MAX,
            check: Duration::MAX,
            young: Duration::MAX,
            kept: Duration::MAX,
            levels: vec![Duration::MAX],
            ..defaults
        };
        assert_eq!(longest.exposure(), Some(Duration::MAX));
        assert!(Requests::of(&longest, load(None)).bytes().is_finite());
    }

    #[test]
    fn a_slower_rpo_never_costs_more() {
        let prices = Prices::default();
        let mut before = f64::MAX;
        for rpo in [1, 10, 60, 300, 3600, 86_400] {
            let load = Load {
                pace: Some(seconds(rpo) * 5 / 6),
                rows: Some(seconds(rpo)),
                plans: Some(seconds(86_400)),
                ..IDLE
            };
            let idle = Requests::of(&Intervals::default(), load).dollars(prices);
            let busy = Load {
                is_busy: true,
                ..load
            };
            assert!(idle <= before, "{rpo} s: {idle}");
            assert!(idle <= Requests::of(&Intervals::default(), busy).dollars(prices));
            before = idle;
        }
    }
}
