//! What replication will cost in requests and bytes, before it runs, and what may be lost.
//!
//! Owns what is said of it: for an application that writes nothing, and for one that writes all the time.
//! Owns which lines would make it cheaper. Counts nothing itself.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::proposal::Proposal;
use super::{Check, Outcome, warn};
use crate::agent::Rpo;
use crate::commands::databases::{Subject, Subjects};
use crate::config::{Metered, Prices, Settings};
use crate::litestream::command::REFRESHES;
use crate::litestream::config_file::{Configuration, Found};
use crate::litestream::cost::{Intervals, Load, Requests};
use crate::litestream::own_config;

const NAME: &str = "cost";

/// What is worth an operator's while: so many times what fewer uploads would cost, and so much a month.
const TIMES: f64 = 3.0;
const DOLLARS: f64 = 1.0;

/// So many times what a new bucket costs is told beside it.
const NEW: f64 = 1.1;

/// A month's requests, for the databases that are known, and what may be lost of them. Nothing is known of those of a
/// Litestream before 0.5.
pub(super) fn predicted(
    settings: &Settings,
    main: &Path,
    version: Option<(u32, u32, u32)>,
    configuration: &Configuration,
    found: Found,
) -> Option<Check> {
    if version.is_some_and(|version| version < REFRESHES) {
        return None;
    }
    let plan = Plan {
        settings,
        configuration,
        subjects: Subjects::among(settings, found).all,
    };
    let as_told = |subject: &Subject| configuration.intervals(&subject.in_litestream);
    let at_first = |subject: &Subject| as_told(subject).in_new_bucket();
    let asks = configuration.has_socket();
    let [idle, busy] = plan.months(&as_told, plan.rows(), asks);
    let [new_idle, new_busy] = plan.months(&at_first, plan.rows(), asks);
    let mut told = format!(
        "{} a month where nothing is written; {} where an application writes 100 bytes each second",
        words(idle, settings.prices),
        words(busy, settings.prices)
    );
    if idle.dollars(settings.prices) > NEW * new_idle.dollars(settings.prices) {
        told = format!(
            "{told}; at the rate of {} and {} while the bucket is new, and its lists are short",
            sum(new_idle, settings.prices),
            sum(new_busy, settings.prices)
        );
    }
    if let Some(rows) = plan.rows_beyond_need() {
        told = format!("{told}; {rows}");
    }
    let lost = plan.lost(plan.rpo(), &as_told);
    let mut check = Check::new(NAME, Outcome::Pass(told.clone()));
    check.figures = json!({
        "requests_a_month": {"idle": counts(idle, settings.prices), "busy": counts(busy, settings.prices)},
        "requests_a_month_in_new_bucket": {
            "idle": counts(new_idle, settings.prices),
            "busy": counts(new_busy, settings.prices),
        },
        "us_dollars": {
            "put_million": settings.prices.put.dollars(),
            "get_million": settings.prices.get.dollars(),
            "gigabyte": settings.prices.gigabyte.dollars(),
        },
        "bytes_a_month": {"idle": bytes(idle), "busy": bytes(busy)},
        "heartbeat_rows_a_day": plan.rows_a_day(),
        "may_be_lost_s": lost.map(|lost| lost.as_secs_f64()),
        "may_be_lost_metered_s": plan.lost_metered(&as_told).map(|lost| lost.as_secs_f64()),
        "databases": plan.subjects.iter().map(|subject| json!({
            "path": subject.path().to_string_lossy(),
            "may_be_lost_s": plan.lost_of(plan.rpo(), subject, &as_told).map(|lost| lost.as_secs_f64()),
        })).collect::<Value>(),
    });
    if settings.replication.replica.is_some() {
        return Some(check);
    }
    told = match lost {
        Some(lost) => format!("{told}; {} may be lost", time(lost)),
        None => format!("{told}; nothing is uploaded"),
    };
    check.outcome = Outcome::Pass(told.clone());
    if !asks && lost.is_none_or(|lost| lost > settings.rpo) {
        let rpo = time(settings.rpo);
        let cause = format!(
            "{told}, because Litestream's file has no control socket: [replication] rpo asks for {rpo}"
        );
        check.outcome = warn(cause, "add the lines below to Litestream's file");
        let lines = own_config::socket(&settings.replication.control_socket);
        check.proposal = vec![Proposal::new(configuration.path(), None, lines)];
        return Some(check);
    }
    let fewer = |subject: &Subject| fewer(&as_told(subject), settings);
    // The lines below bring a control socket where there is none.
    let cheaper = plan.months(&fewer, plan.slower_rows().or(plan.rows()), true);
    let is_dear = |now: Requests, then: Requests| {
        now.dollars(settings.prices) > (TIMES * then.dollars(settings.prices)).max(DOLLARS)
    };
    if is_dear(idle, cheaper[0]) || is_dear(busy, cheaper[1]) {
        let cause = format!(
            "{told}, where [replication] rpo allows {}: with the lines below it would be {} idle, {} busy",
            time(settings.rpo),
            sum(cheaper[0], settings.prices),
            sum(cheaper[1], settings.prices)
        );
        let next = "write the lines below in the place of those that are there; or set [replication] bucket in the \
                    place of command, and edgerepl writes them itself";
        check.outcome = warn(cause, next);
        check.proposal = plan.proposal(main, &fewer);
    } else if let Some(alone) = plan.waits_for_nobody(&as_told) {
        let cause = format!(
            "{told}; [replication] metered holds back nothing, because Litestream uploads by itself each {}",
            time(alone)
        );
        check.outcome = warn(
            cause,
            "write the lines below in the place of those that are there",
        );
        check.proposal = plan.proposal(main, &fewer);
    }
    Some(check)
}

/// The databases, and what decides how often they are uploaded.
struct Plan<'a> {
    settings: &'a Settings,
    configuration: &'a Configuration,
    subjects: Vec<Subject>,
}

impl Plan<'_> {
    /// An idle month, and a busy one.
    fn months(
        &self,
        intervals: &dyn Fn(&Subject) -> Intervals,
        rows: Option<Duration>,
        asks: bool,
    ) -> [Requests; 2] {
        let pace = Rpo::new(self.rpo()).pace();
        [false, true].map(|is_busy| {
            let each = self.subjects.iter().map(|subject| {
                let load = Load {
                    pace: asks.then_some(pace),
                    rows: rows.filter(|_| subject.database.heartbeat),
                    is_busy,
                    plans: self.settings.restorable,
                    size: fs::metadata(subject.path()).map_or(0, |file| file.len()),
                };
                Requests::of(&intervals(subject), load)
            });
            each.fold(Requests::default(), Requests::and)
        })
    }

    /// How old what is lost with the device may be, of the database that is worst off; `None`: whatever it is.
    fn lost(&self, rpo: Duration, intervals: &dyn Fn(&Subject) -> Intervals) -> Option<Duration> {
        let each = self
            .subjects
            .iter()
            .map(|subject| self.lost_of(rpo, subject, intervals));
        each.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// The same of one database: whoever is sooner uploads it, Litestream by itself or as edgerepl asks.
    fn lost_of(
        &self,
        rpo: Duration,
        subject: &Subject,
        intervals: &dyn Fn(&Subject) -> Intervals,
    ) -> Option<Duration> {
        let asked = self.configuration.has_socket().then_some(rpo);
        let by_itself = intervals(subject).exposure();
        by_itself.into_iter().chain(asked).min()
    }

    /// The same while the line is metered, where it may be at times.
    fn lost_metered(&self, intervals: &dyn Fn(&Subject) -> Intervals) -> Option<Duration> {
        if let Metered::Fixed(_) = self.settings.replication.metered {
            return None;
        }
        self.lost(self.settings.rpo_metered, intervals)
    }

    /// How much may be lost all the time: more, where the line is always metered.
    fn rpo(&self) -> Duration {
        match self.settings.replication.metered {
            Metered::Fixed(true) => self.settings.rpo_metered,
            _ => self.settings.rpo,
        }
    }

    /// How often Litestream uploads by itself, where the line may be metered, and that is more often than uploads
    /// have to be made then.
    fn waits_for_nobody(&self, intervals: &dyn Fn(&Subject) -> Intervals) -> Option<Duration> {
        let each = self.subjects.iter();
        let soonest = each
            .filter_map(|subject| intervals(subject).exposure())
            .min();
        let may_be_metered = self.settings.replication.metered != Metered::Fixed(false);
        soonest.filter(|soonest| may_be_metered && *soonest < self.settings.rpo_metered)
    }

    /// The time between two heartbeat rows.
    fn rows(&self) -> Option<Duration> {
        self.settings.heartbeat.as_ref().map(|rows| rows.interval)
    }

    /// Rows that are no more than what may be lost asks for, where they are, and where none of them has to go
    /// before the next one: its id follows the last one's.
    fn slower_rows(&self) -> Option<Duration> {
        let rpo = self.settings.rpo;
        let heartbeat = self.settings.heartbeat.as_ref()?;
        let is_kept = heartbeat
            .keep
            .is_none_or(|keep| keep >= rpo.saturating_mul(2));
        (heartbeat.interval < rpo && is_kept).then_some(rpo)
    }

    fn rows_a_day(&self) -> f64 {
        let databases = self.subjects.iter().filter(|s| s.database.heartbeat);
        self.rows().map_or(0.0, a_day) * databases.count() as f64
    }

    /// Each row is a durable write.
    fn rows_beyond_need(&self) -> Option<String> {
        let rows = self.rows().filter(|rows| *rows < self.settings.rpo)?;
        Some(format!(
            "a heartbeat row each {} is {} durable writes a day, where [replication] rpo needs {}",
            time(rows),
            grouped(a_day(rows)),
            grouped(a_day(self.settings.rpo)),
        ))
    }

    /// The lines for these intervals.
    fn proposal(&self, main: &Path, intervals: &dyn Fn(&Subject) -> Intervals) -> Vec<Proposal> {
        let Some(first) = self.subjects.first() else {
            return Vec::new();
        };
        let file = self.configuration.path();
        let [mut of_all, of_database] = own_config::lines(&intervals(first));
        if !self.configuration.has_socket() {
            // Without it nobody can ask for an upload in between.
            let socket = &self.settings.replication.control_socket;
            of_all.extend(own_config::socket(socket));
        }
        let mut proposal = vec![Proposal::new(file, None, of_all)];
        for entry in self.configuration.named() {
            proposal.push(Proposal::new(file, Some(entry.place), of_database.clone()));
        }
        if let Some(rows) = self.slower_rows() {
            let line = match rows.subsec_millis() {
                0 => format!("interval = \"{}s\"", rows.as_secs()),
                _ => format!("interval = \"{}ms\"", rows.as_millis()),
            };
            let place = Some("[heartbeat]".to_owned());
            proposal.push(Proposal::new(main, place, vec![line]));
        }
        proposal
    }
}

/// No more uploads than what may be lost asks for; snapshots as they are.
fn fewer(now: &Intervals, settings: &Settings) -> Intervals {
    Intervals {
        snapshot: now.snapshot,
        kept: now.kept,
        sync: now.sync,
        ..own_config::intervals(settings)
    }
}

fn counts(requests: Requests, prices: Prices) -> Value {
    json!({
        "put": requests.put.count.round(),
        "list": requests.list.count.round(),
        "get": requests.get.count.round(),
        "us_dollars": requests.dollars(prices),
    })
}

fn bytes(requests: Requests) -> Value {
    json!({
        "put": requests.put.bytes.round(),
        "list": requests.list.bytes.round(),
        "get": requests.get.bytes.round(),
    })
}

/// `0.24 US dollars for 48,000 requests (PUT 45,000, LIST 3,000, GET 200) and 120 MB`.
fn words(requests: Requests, prices: Prices) -> String {
    let [put, list, get] = [requests.put, requests.list, requests.get].map(|class| class.count);
    format!(
        "{:.2} US dollars for {} requests (PUT {}, LIST {}, GET {}) and {}",
        requests.dollars(prices),
        grouped(put + list + get),
        grouped(put),
        grouped(list),
        grouped(get),
        size(requests.bytes())
    )
}

/// `0.24 US dollars and 120 MB`.
fn sum(requests: Requests, prices: Prices) -> String {
    let dollars = requests.dollars(prices);
    format!("{dollars:.2} US dollars and {}", size(requests.bytes()))
}

/// `120 MB`, `41 GB`.
fn size(bytes: f64) -> String {
    match bytes < 1e10 {
        true => format!("{} MB", grouped(bytes / 1e6)),
        false => format!("{} GB", grouped(bytes / 1e9)),
    }
}

/// `50 ms`, `90 s`, `10 min`.
fn time(time: Duration) -> String {
    match (time.as_secs(), time.subsec_millis()) {
        (seconds, 0) if seconds >= 60 && seconds.is_multiple_of(60) => {
            format!("{} min", seconds / 60)
        }
        (seconds, 0) => format!("{seconds} s"),
        _ => format!("{} ms", time.as_millis()),
    }
}

/// How often in a day what comes at this pace comes.
fn a_day(pace: Duration) -> f64 {
    86_400.0 / pace.as_secs_f64().max(0.001)
}

/// With two digits that count, in groups of three.
fn grouped(number: f64) -> String {
    let digits = number.max(1.0).log10().floor() as i32;
    let unit = 10_f64.powi((digits - 1).max(0));
    let rounded = format!("{:.0}", (number / unit).round() * unit);
    let (mut text, length) = (String::new(), rounded.len());
    for (at, digit) in rounded.chars().enumerate() {
        if at > 0 && (length - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_round_and_grouped() {
        for (number, words) in [
            (0.0, "0"),
            (7.4, "7"),
            (48_234.0, "48,000"),
            (1_226_880.0, "1,200,000"),
            (999_999.0, "1,000,000"),
        ] {
            assert_eq!(grouped(number), words);
        }
    }
}
