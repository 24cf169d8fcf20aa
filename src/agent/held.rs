//! The RPO held: how old the oldest commit was that a proof covered, which would have been lost just before.
//!
//! Owns the ages of the last day, in a table of a fixed size for all databases together: an hour that is
//! over is dropped whole, a day later. The worst is exact; the median is within a tenth, of all that is
//! longer than a tenth of a second. Where nothing was committed nothing could be lost, so that an idle
//! database adds no age. Never judges what is proved: `proof` does.

use std::time::Duration;

use crate::clock::BootTime;

const HOUR: Duration = Duration::from_secs(3600);

/// The hours of a day, and the one that has begun.
const HOURS: usize = 25;

/// So many classes of ages, each by a fifth longer than the one before: up to 46 days.
const CLASSES: usize = 96;
const FIRST_CLASS: f64 = 0.1;
const RATIO: f64 = 1.2;

/// The ages of one hour.
#[derive(Clone, Copy, Debug)]
struct Hour {
    /// Since the boot.
    number: u64,
    proofs: u32,
    worst: Duration,
    classes: [u16; CLASSES],
}

impl Hour {
    const NONE: Self = Self {
        number: 0,
        proofs: 0,
        worst: Duration::ZERO,
        classes: [0; CLASSES],
    };
}

/// What proofs have shown of what would have been lost.
#[derive(Debug)]
pub(super) struct Held {
    began: BootTime,
    hours: [Hour; HOURS],
    proofs: u64,
    sum: Duration,
}

/// The RPO held, for people and programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RpoHeld {
    /// The time that the figures are of: a day, or since the start.
    pub over: Duration,
    /// The median; `None` where nothing was proved in that time.
    pub median: Option<Duration>,
    /// The worst, of what is not proved now, too; `None` where that is not known yet.
    pub worst: Option<Duration>,
    /// Proofs in that time.
    pub proofs: u64,
    /// Proofs since the start.
    pub all_proofs: u64,
    /// Their ages together.
    pub sum: Duration,
}

impl Held {
    pub(super) fn new(now: BootTime) -> Self {
        Self {
            began: now,
            hours: [Hour::NONE; HOURS],
            proofs: 0,
            sum: Duration::ZERO,
        }
    }

    /// A proof covers what may have been committed so long ago.
    pub(super) fn proved(&mut self, age: Duration, now: BootTime) {
        let number = hour_of(now);
        let hour = &mut self.hours[(number % HOURS as u64) as usize];
        if hour.number != number {
            *hour = Hour {
                number,
                ..Hour::NONE
            };
        }
        hour.proofs = hour.proofs.saturating_add(1);
        hour.worst = hour.worst.max(age);
        let class = &mut hour.classes[class_of(age)];
        *class = class.saturating_add(1);
        self.proofs = self.proofs.saturating_add(1);
        self.sum = self.sum.saturating_add(age);
    }

    /// The worst age; `open`: what an outage that is under way has come to.
    pub(super) fn worst(&self, open: Option<Duration>, now: BootTime) -> Option<Duration> {
        self.day(now).map(|hour| hour.worst).max().max(open)
    }

    pub(super) fn figures(&self, open: Option<Duration>, now: BootTime) -> RpoHeld {
        RpoHeld {
            over: now.since(self.began).min(HOUR * 24),
            median: self.median(now),
            worst: self.worst(open, now),
            proofs: self.day(now).map(|hour| u64::from(hour.proofs)).sum(),
            all_proofs: self.proofs,
            sum: self.sum,
        }
    }

    fn median(&self, now: BootTime) -> Option<Duration> {
        let count = |class: usize| -> u64 {
            self.day(now)
                .map(|hour| u64::from(hour.classes[class]))
                .sum()
        };
        let all: u64 = (0..CLASSES).map(count).sum();
        let mut before = 0;
        let class = (0..CLASSES).find(|class| {
            before += count(*class);
            before * 2 > all
        })?;
        // No class is longer than what was really seen.
        let worst = self.worst(None, now)?;
        Some(middle_of(class).min(worst))
    }

    /// The hours of the last day in which something was proved.
    fn day(&self, now: BootTime) -> impl Iterator<Item = &Hour> {
        let last = hour_of(now);
        self.hours
            .iter()
            .filter(move |hour| hour.proofs > 0 && last.saturating_sub(hour.number) < HOURS as u64)
    }
}

fn hour_of(now: BootTime) -> u64 {
    now.since_boot().as_secs() / HOUR.as_secs()
}

fn class_of(age: Duration) -> usize {
    let classes = (age.as_secs_f64() / FIRST_CLASS).log(RATIO);
    // A number that is too small or too large becomes the nearest one.
    (classes as usize).min(CLASSES - 1)
}

/// The age that is off by the same part of it from both ends of a class.
fn middle_of(class: usize) -> Duration {
    Duration::from_secs_f64(FIRST_CLASS * RATIO.powf(class as f64 + 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn seconds(age: u64) -> Duration {
        Duration::from_secs(age)
    }

    #[test]
    fn nothing_proved_has_no_figures_and_an_outage_has() {
        let held = Held::new(at(500));
        let figures = held.figures(None, at(560));
        assert_eq!((figures.median, figures.worst), (None, None));
        assert_eq!((figures.proofs, figures.over), (0, seconds(60)));
        let figures = held.figures(Some(seconds(300)), at(800));
        assert_eq!((figures.median, figures.worst), (None, Some(seconds(300))));
    }

    #[test]
    fn the_worst_is_exact_and_the_median_within_a_tenth() {
        for middle in [1, 7, 41, 59, 300, 3600, 40_000, 86_400] {
            let mut held = Held::new(at(0));
            for age in [middle / 3, middle, middle, middle, middle * 3 + 1] {
                held.proved(seconds(age), at(10));
            }
            let figures = held.figures(Some(seconds(middle)), at(20));
            assert_eq!(figures.worst, Some(seconds(middle * 3 + 1)));
            let median = figures.median.expect("a median").as_secs_f64();
            let off = (median / middle as f64 - 1.0).abs();
            assert!(off < 0.1, "{median} for {middle}");
            assert_eq!((figures.proofs, figures.all_proofs), (5, 5));
            assert_eq!(
                figures.sum,
                seconds(middle / 3 + 3 * middle + middle * 3 + 1)
            );
        }
        // What is under way counts where it is worse than all that was.
        let mut held = Held::new(at(0));
        held.proved(seconds(40), at(50));
        assert_eq!(held.worst(Some(seconds(41)), at(60)), Some(seconds(41)));
        assert_eq!(held.worst(Some(seconds(39)), at(60)), Some(seconds(40)));
    }

    #[test]
    fn a_day_later_it_is_gone_and_no_sooner() {
        let mut held = Held::new(at(0));
        let bad = at(3599);
        held.proved(seconds(500), bad);
        let mut now = bad;
        while now < bad + DAY {
            now = now + HOUR / 2;
            held.proved(seconds(50), now);
            assert_eq!(held.worst(None, now), Some(seconds(500)), "{now:?}");
        }
        now = bad + DAY + HOUR;
        assert_eq!(held.worst(None, now), Some(seconds(50)));
        assert_eq!(held.figures(None, now).over, DAY);
        // The first hour's place is the next one's.
        held.proved(seconds(50), at(25 * 3600));
        assert_eq!(held.worst(None, at(25 * 3600)), Some(seconds(50)));
        // Nobody proves anything for a day: the figures end, those since the start do not.
        let figures = held.figures(None, now + DAY + HOUR);
        assert_eq!((figures.median, figures.worst), (None, None));
        assert_eq!((figures.proofs, figures.all_proofs), (0, 50));
    }

    #[test]
    fn no_number_is_too_large() {
        let mut held = Held::new(BootTime::default());
        // A class is full before.
        for _ in 0..=u32::from(u16::MAX) {
            held.proved(Duration::MAX, BootTime::NEVER);
        }
        held.proved(Duration::ZERO, BootTime::NEVER);
        let figures = held.figures(None, BootTime::NEVER);
        assert_eq!(
            (figures.worst, figures.sum),
            (Some(Duration::MAX), Duration::MAX)
        );
        assert_eq!(figures.proofs, 65_537);
        assert!(figures.median.is_some_and(|median| median > 40 * DAY));
        assert!(size_of::<Held>() < 8 * 1024, "{}", size_of::<Held>());
        // All at once, in no time.
        let mut held = Held::new(at(9));
        held.proved(Duration::ZERO, at(9));
        assert_eq!(held.figures(None, at(9)).median, Some(Duration::ZERO));
    }
}
