//! What a replication costs money for: `[cost]`.
//!
//! Owns the prices and their bounds. Never knows how many requests there are.

use super::layers::Section;
use super::value::shown;
use super::{Bounds, ConfigError};

/// US dollars, in millionths.
#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd)]
pub struct Price(i64);

/// US dollars: `[cost]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Prices {
    /// For a million of PUT, COPY, POST and LIST.
    pub put: Price,
    /// For a million of GET.
    pub get: Price,
    /// For a gigabyte on the line, in either direction.
    pub gigabyte: Price,
}

/// No store and no line has asked for so much.
const PUT: Bounds = bounds("put");
const GET: Bounds = bounds("get");
const GIGABYTE: Bounds = bounds("gigabyte");

const fn bounds(key: &'static str) -> Bounds {
    Bounds {
        section: "cost",
        key,
        least: "0",
        most: "100000",
    }
}

impl Prices {
    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let default = Self::default();
        let price = |bounds: Bounds, default| {
            section.number_or(bounds.key, default, bounds.around(Price::parse))
        };
        Ok(Self {
            put: price(PUT, default.put)?,
            get: price(GET, default.get)?,
            gigabyte: price(GIGABYTE, default.gigabyte)?,
        })
    }
}

impl Default for Prices {
    /// S3 in us-east-1, and a line that is not paid for by what goes over it.
    fn default() -> Self {
        Self {
            put: Price(5_000_000),
            get: Price(400_000),
            gigabyte: Price(0),
        }
    }
}

impl Price {
    /// In whole dollars and parts.
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e6
    }

    fn parse(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        let number = number.ok_or_else(|| format!("must be a number, not {}", shown(text)))?;
        Ok(Self((number * 1e6).round() as i64))
    }
}
