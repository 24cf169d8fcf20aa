//! What replication will cost in requests, before it runs.
//!
//! Owns what is said of it: for an application that writes nothing, and for one that writes all the time.
//! Counts nothing itself.

use std::path::Path;

use serde_json::{Value, json};

use super::{Check, Outcome, warn};
use crate::agent::Rpo;
use crate::commands::databases::Subjects;
use crate::config::Settings;
use crate::litestream::command::REFRESHES;
use crate::litestream::config_file::{Configuration, Found};
use crate::litestream::cost::{Intervals, Load, Requests};
use crate::litestream::own_config;

const NAME: &str = "cost";

/// What is worth an operator's while: so many times what one file would cost, and so much a month.
const TIMES: f64 = 3.0;
const DOLLARS: f64 = 1.0;

/// A month's requests, for the databases that are known. Nothing is known of those of a Litestream before 0.5.
pub(super) fn predicted(
    settings: &Settings,
    version: Option<(u32, u32, u32)>,
    configuration: &Configuration,
    found: Found,
) -> Option<Check> {
    if version.is_some_and(|version| version < REFRESHES) {
        return None;
    }
    let subjects = Subjects::among(settings, found).all;
    let sum = |is_busy: bool, intervals: &dyn Fn(&Path) -> Intervals| {
        let each = subjects.iter().map(|subject| {
            let rows = settings.heartbeat.as_ref().map(|rows| rows.interval);
            let load = Load {
                pace: Rpo::new(settings.rpo).pace(),
                rows: rows.filter(|_| subject.database.heartbeat),
                is_busy,
                plans: settings.restorable,
            };
            Requests::of(&intervals(&subject.in_litestream), load)
        });
        each.fold(Requests::default(), Requests::and)
    };
    let as_told = |database: &Path| configuration.intervals(database);
    let (idle, busy) = (sum(false, &as_told), sum(true, &as_told));
    let told = format!(
        "{} a month where nothing is written; {} where an application writes all the time",
        words(idle),
        words(busy)
    );
    let own = own_config::intervals(settings);
    let cheaper = sum(false, &|_| own.clone());
    let is_dear = idle.dollars() > (TIMES * cheaper.dollars()).max(DOLLARS);
    let outcome = match is_dear && settings.replication.replica.is_none() {
        true => warn(
            format!("{told}; an idle month may cost {}", words(cheaper)),
            "set [replication] bucket in the place of command; or the intervals of docs/cost.md in \
             litestream.yml, and leave out [heartbeat] interval",
        ),
        false => Outcome::Pass(told),
    };
    let figures = json!({"requests_a_month": {"idle": figures(idle), "busy": figures(busy)}});
    Some(Check {
        figures,
        ..Check::new(NAME, outcome)
    })
}

fn figures(requests: Requests) -> Value {
    json!({
        "put": requests.put.round(),
        "list": requests.list.round(),
        "get": requests.get.round(),
        "us_dollars": requests.dollars(),
    })
}

/// `0.24 US dollars for 48,000 requests (PUT 45,000, LIST 3,000, GET 200)`.
fn words(requests: Requests) -> String {
    let Requests { put, list, get } = requests;
    format!(
        "{:.2} US dollars for {} requests (PUT {}, LIST {}, GET {})",
        requests.dollars(),
        grouped(put + list + get),
        grouped(put),
        grouped(list),
        grouped(get)
    )
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
