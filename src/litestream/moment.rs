//! A moment of the past, to which a database is restored.
//!
//! Owns its form: RFC 3339, as Litestream reads it. Never asks whether anything is known of it.

use std::fmt;
use std::str::FromStr;

use crate::clock::WallTime;

/// A moment, in the words in which it was given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Moment(String);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads `2026-11-29T12:00:00Z`, also with a fraction of a second, or `+01:00` for `Z`.
impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match is_moment(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(
                "it is no time by RFC 3339; write one such as 2026-11-29T12:00:00Z or \
                 2026-11-29T13:00:00+01:00"
                    .to_owned(),
            ),
        }
    }
}

fn is_moment(text: &str) -> bool {
    let civil = text.strip_suffix('Z').or_else(|| {
        let at = text.len().checked_sub("+00:00".len())?;
        let (civil, offset) = (text.get(..at)?, text.get(at..)?);
        let (hours, minutes) = offset.strip_prefix(['+', '-'])?.split_once(':')?;
        let is_below = |digits: &str, most: u8| {
            let is_number = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
            is_number && digits.parse::<u8>().is_ok_and(|n| n < most)
        };
        (is_below(hours, 24) && is_below(minutes, 60)).then_some(civil)
    });
    let Some(civil) = civil else {
        return false;
    };
    // Litestream knows no leap second.
    let is_leap = civil.get(16..19) == Some(":60");
    !is_leap && format!("{civil}Z").parse::<WallTime>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_litestream_reads() {
        for good in [
            "2026-11-29T12:00:00Z",
            "2026-11-29T12:00:00.123456789Z",
            "2026-11-29T12:00:00+01:00",
            "2026-11-29T12:00:00.5-23:59",
            "2028-02-29T23:59:59Z",
        ] {
            assert_eq!(
                good.parse::<Moment>().map(|m| m.to_string()),
                Ok(good.to_owned())
            );
        }
        for bad in [
            "",
            "now",
            "1",
            "2026-11-29",
            "2026-11-29 12:00:00Z",
            "2026-11-29T12:00:00",
            "2026-11-29t12:00:00z",
            "2026-11-29T12:00Z",
            "2026-11-29T12:00:00.Z",
            "2026-11-29T12:00:60Z",
            "2026-11-29T24:00:00Z",
            "2026-02-29T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-11-29T12:00:00+24:00",
            "2026-11-29T12:00:00+0100",
            "2026-11-29T12:00:00+1:00",
            "2026-11-29T12:00:00ZZ",
            "Zü+00:00",
        ] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
    }
}
