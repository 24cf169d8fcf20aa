//! The two clocks of a device, and the text forms in which the wall clock travels.
//!
//! Owns the types that keep them apart: [`BootTime`] never steps and counts time asleep, so every
//! deadline runs on it; [`WallTime`] is what the device believes the date to be, which may be 1970.
//! Never decides anything: what is believed, and what follows from it, is the agent's.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use x509_cert::der::DateTime;

/// Time since boot, sleep included (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct BootTime(Duration);

impl BootTime {
    /// The far end of time: a timer that never fires.
    pub const NEVER: Self = Self(Duration::MAX);

    /// `since_boot` after the machine started.
    pub const fn new(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    /// Reads `CLOCK_BOOTTIME`, which every kernel since 2.6.39 has.
    pub fn now() -> Self {
        // A C library's 32 bits of seconds, on armv7, are 68 years from the boot.
        let read = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME cannot be read");
        Self(read.into())
    }

    /// How long after boot this is.
    pub const fn since_boot(self) -> Duration {
        self.0
    }

    /// The time from `earlier` until this, zero where `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(delay))
    }
}

/// A point in civil time, in whole seconds since 1970 (UTC). 64 bits wide on every machine.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct WallTime(i64);

impl WallTime {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// 9999-12-31T23:59:59Z: no later one can be written as a date.
    pub const LAST: Self = Self(253_402_300_799);

    /// `seconds` after 1970-01-01T00:00:00Z.
    pub const fn from_unix(seconds: i64) -> Self {
        Self(seconds)
    }

    /// What the device believes the time to be.
    pub fn now() -> Self {
        Self(match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
        })
    }

    /// When this program was built: no honest clock of a device that runs it shows less.
    pub fn of_build() -> Self {
        Self(env!("EDGEREPL_BUILD_TIME").parse().unwrap_or(0))
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub const fn unix(self) -> i64 {
        self.0
    }

    /// How far this is from `other`, in either direction.
    pub const fn distance(self, other: Self) -> Duration {
        Duration::from_secs(self.0.abs_diff(other.0))
    }

    /// Reads the form of HTTP's `Date` header, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
    pub fn from_http_date(text: &str) -> Option<Self> {
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let mut words = text
            .split_once(", ")?
            .1
            .strip_suffix(" GMT")?
            .split([' ', ':']);
        let day = words.next()?.parse().ok()?;
        let month = words.next()?;
        let month = 1 + MONTHS.iter().position(|m| *m == month)?;
        let mut number = || words.next()?.parse::<u16>().ok();
        let (year, hour, minute, second) = (number()?, number()?, number()?, number()?);
        let byte = |n: u16| u8::try_from(n).ok();
        // A leap second is counted as the last second before it.
        let second = byte(second.min(59))?;
        let date =
            DateTime::new(year, month as u8, day, byte(hour)?, byte(minute)?, second).ok()?;
        words.next().is_none().then(|| date.into())
    }
}

impl From<DateTime> for WallTime {
    fn from(date: DateTime) -> Self {
        Self(i64::try_from(date.unix_duration().as_secs()).unwrap_or(i64::MAX))
    }
}

/// Reads RFC 3339 in UTC as AWS writes it: `2023-02-06T05:54:46Z`, also with a fraction of a
/// second or with `+00:00`.
impl FromStr for WallTime {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let civil = text
            .strip_suffix('Z')
            .or_else(|| text.strip_suffix("+00:00"));
        let civil = civil.ok_or(NotATime)?;
        let whole = match civil.split_once('.') {
            Some((whole, fraction))
                if !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit()) =>
            {
                whole
            }
            Some(_) => return Err(NotATime),
            None => civil,
        };
        let whole = match whole.strip_suffix(":60") {
            Some(minute) => format!("{minute}:59"),
            None => whole.to_owned(),
        };
        let date: DateTime = format!("{whole}Z").parse().map_err(|_| NotATime)?;
        Ok(date.into())
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let civil = u64::try_from(self.0)
            .ok()
            .and_then(|s| DateTime::from_unix_duration(Duration::from_secs(s)).ok());
        match civil {
            Some(date) => date.fmt(f),
            None => write!(f, "{} s since 1970", self.0),
        }
    }
}

impl Add<Duration> for WallTime {
    type Output = Self;

    fn add(self, delay: Duration) -> Self {
        Self(self.0.saturating_add_unsigned(delay.as_secs()))
    }
}

impl Sub<WallTime> for WallTime {
    type Output = Duration;

    /// The time from `earlier` until this, zero where `earlier` is later.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// The text is no date in the form that was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotATime;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_time_as_aws_writes_it() {
        let seconds = |text: &str| text.parse().map(WallTime::unix);
        assert_eq!(seconds("2023-02-06T05:54:46Z"), Ok(1_675_662_886));
        assert_eq!(seconds("2023-02-06T05:54:46.123Z"), Ok(1_675_662_886));
        assert_eq!(seconds("2023-02-06T05:54:46+00:00"), Ok(1_675_662_886));
        assert_eq!(
            seconds("2016-12-31T23:59:60Z"),
            seconds("2016-12-31T23:59:59Z")
        );
        assert_eq!(seconds("2040-01-01T00:00:00Z"), Ok(2_208_988_800));
        for wrong in [
            "",
            "2023-02-06T05:54:46",
            "2023-02-30T05:54:46Z",
            "2023-02-06T25:54:46Z",
            "2023-02-06 05:54:46Z",
            "2023-02-06T05:54:46.Z",
            "2023-02-06T05:54:46+09:00",
            "٢٠٢٣-02-06T05:54:46Z",
        ] {
            assert_eq!(seconds(wrong), Err(NotATime), "{wrong:?}");
        }
    }

    #[test]
    fn reads_the_date_of_a_server() {
        let seconds = |text: &str| WallTime::from_http_date(text).map(WallTime::unix);
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for wrong in [
            "",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 12 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 99:49:37 GMT",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong:?}");
        }
    }

    /// 2040-01-01T00:00:00Z: 32 bits are used up on 2038-01-19.
    const YEAR_2040: WallTime = WallTime::from_unix(2_208_988_800);

    #[test]
    #[ignore = "needs a clock in 2040, which `cargo xtask test year-2040` gives it"]
    fn tells_the_time_in_2040() {
        let now = WallTime::now();
        assert!(now >= YEAR_2040, "the clock shows {now}");
        assert!(now.to_string().starts_with("2040-"), "{now}");
    }

    #[test]
    fn writes_what_it_reads() {
        let text = "2026-11-22T21:56:32Z";
        assert_eq!(
            text.parse::<WallTime>().map(|t| t.to_string()).as_deref(),
            Ok(text)
        );
        assert_eq!(WallTime::from_unix(-5).to_string(), "-5 s since 1970");
    }
}
