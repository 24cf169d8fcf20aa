//! What a bucket holds of a database: the chain of transactions that a restore would take.
//!
//! Owns how Litestream's lists are read, and what they say beside each other, beside Litestream's own files,
//! and beside an earlier look. Never asks Litestream, and never decides what a broken chain leads to.
//!
//! Litestream plans a restore from a list of objects: the newest snapshot, then whatever continues it. A
//! list shows that an object is there, and its size. It does not show what is in it: garbage of the same
//! size passes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::clock::WallTime;

/// What a look at the bucket found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listing {
    /// What a restore would take.
    pub chain: Chain,
    /// The sign of another device that writes to the same prefix.
    pub stranger: Option<Stranger>,
}

/// What a restore would take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Chain {
    /// Everything from a snapshot on.
    Whole(Holdings),
    /// There is no snapshot, so nothing can be restored.
    Nothing,
    /// A transaction is missing after this one, and there are later ones.
    Hole {
        /// The last transaction before it.
        after: u64,
    },
    /// An object has another size than Litestream uploaded, or than it had at an earlier look.
    Altered {
        /// Its last transaction.
        at: u64,
    },
}

/// What can be restored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Holdings {
    /// How many objects a restore to the newest state takes.
    pub files: u64,
    /// Their size, in bytes.
    pub bytes: u64,
    /// The last transaction.
    pub last: u64,
    /// The first moment, by S3's clock, whose state can be restored, and the last one.
    pub oldest: WallTime,
    /// The last one.
    pub newest: WallTime,
}

/// What shows that another device writes to the same prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stranger {
    /// A transaction that Litestream here has not come to yet.
    Ahead {
        /// The transaction.
        at: u64,
    },
    /// Objects that are not what Litestream here uploaded.
    Differing {
        /// The newest transaction of those that differ.
        at: u64,
    },
}

impl Stranger {
    /// The newest transaction that is not this device's.
    pub const fn at(self) -> u64 {
        match self {
            Self::Ahead { at } | Self::Differing { at } => at,
        }
    }
}

/// Why no restore could be planned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PlanFailure {
    /// This Litestream plans none: 0.5.12 and later do.
    Unsupported,
    /// Litestream tried and failed.
    Failed(String),
}

/// One object, as Litestream lists it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Object {
    level: u64,
    first: u64,
    last: u64,
    size: u64,
    time: WallTime,
}

/// The level of single transactions, and the level of snapshots.
pub(crate) const SINGLE: u64 = 0;
pub(crate) const SNAPSHOTS: u64 = 9;

/// The shortest file: a header and a trailer, in bytes.
const SHORTEST: u64 = 116;

/// Fewer objects that differ are a damage; more are somebody's.
const MANY: usize = 2;

/// What earlier looks saw.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Record {
    /// The size of each object at the last look, by level and transactions.
    sizes: BTreeMap<String, u64>,
    /// Single transactions that differed from Litestream's own files at any look since the newest snapshot.
    differing: BTreeSet<u64>,
}

/// All that a look compares.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    /// What a restore would take, or Litestream's message if it would take nothing.
    pub(crate) plan: Result<Vec<Object>, &'a str>,
    pub(crate) snapshots: Vec<Object>,
    pub(crate) singles: Vec<Object>,
    /// What Litestream keeps here, read after the lists; `None` if that can't be seen.
    pub(crate) own: Option<Own>,
    pub(crate) earlier: &'a Record,
}

/// The single transactions that Litestream keeps on this device: the size of each file, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Own(BTreeMap<u64, u64>);

/// Reads what `litestream ltx -json` prints, or the files of `litestream restore -dry-run -json`.
///
/// # Errors
/// One sentence, if it is something else.
pub(crate) fn objects(printed: &str) -> Result<Vec<Object>, String> {
    let strange = || "Litestream lists the bucket in an unknown form".to_owned();
    let document: Value = serde_json::from_str(printed).map_err(|_| strange())?;
    let list = document.as_array().or_else(|| document["files"].as_array());
    let list = list.ok_or_else(strange)?.iter();
    list.map(|item| Object::read(item).ok_or_else(strange))
        .collect()
}

impl Record {
    /// Reads what [`Record::document`] made; what is something else says nothing.
    pub(crate) fn read(text: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(text).unwrap_or_default();
        let sizes = document["sizes"].as_object().into_iter().flatten();
        let differing = document["differing"].as_array().into_iter().flatten();
        Self {
            sizes: sizes
                .filter_map(|(name, size)| Some((name.clone(), size.as_u64()?)))
                .collect(),
            differing: differing.filter_map(Value::as_u64).collect(),
        }
    }

    /// It, to be read again.
    pub(crate) fn document(&self) -> Value {
        json!({"sizes": self.sizes, "differing": self.differing})
    }
}

impl Object {
    fn read(item: &Value) -> Option<Self> {
        let number = |key: &str| u64::from_str_radix(item[key].as_str()?, 16).ok();
        Some(Self {
            level: item["level"].as_u64()?,
            first: number("min_txid")?,
            last: number("max_txid")?,
            size: item["size"].as_u64()?,
            time: item["timestamp"].as_str()?.parse().ok()?,
        })
    }

    fn name(&self) -> String {
        format!("{}/{:x}-{:x}", self.level, self.first, self.last)
    }
}

impl Own {
    /// Looks at the files below `state`, Litestream's local state.
    pub(crate) fn read(state: &Path) -> Option<Self> {
        let mut sizes = BTreeMap::new();
        for entry in fs::read_dir(state.join("ltx/0")).ok()?.flatten() {
            let name = entry.file_name();
            let Some((first, last)) = name.to_str().and_then(transactions) else {
                continue;
            };
            if first == last
                && let Ok(file) = entry.metadata()
            {
                sizes.insert(last, file.len());
            }
        }
        (!sizes.is_empty()).then_some(Self(sizes))
    }

    /// The newest of these transactions, if it is ahead of the files.
    pub(crate) fn passed_by(&self, singles: &[Object]) -> Option<u64> {
        newest(singles).filter(|newest| *newest > self.last())
    }

    fn last(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(last, _)| *last)
    }

    /// Whether an object has the size of the file that it was made of; `None` if that file is gone.
    fn made(&self, object: &Object) -> Option<bool> {
        let size = self.0.get(&object.last)?;
        // A file that a power cut left shorter than any is Litestream's own trouble.
        (*size >= SHORTEST).then_some(*size == object.size)
    }
}

impl Look<'_> {
    /// What it found.
    ///
    /// # Errors
    /// Litestream's message, if it says nothing about the chain.
    pub(crate) fn judge(&self) -> Result<Listing, String> {
        let chain = match &self.plan {
            Ok(plan) => self.chain(plan),
            Err(message) => broken(message).ok_or_else(|| (*message).to_owned())?,
        };
        Ok(Listing {
            chain,
            stranger: self.stranger(),
        })
    }

    /// What the next look has to know: what was altered is compared with what it was before.
    pub(crate) fn record(&self) -> Record {
        let all = [&self.snapshots, &self.singles];
        let plan = self.plan.as_ref().ok().into_iter().flatten();
        let sizes = all.into_iter().flatten().chain(plan).map(|object| {
            let name = object.name();
            let size = *self.earlier.sizes.get(&name).unwrap_or(&object.size);
            (name, size)
        });
        Record {
            sizes: sizes.collect(),
            differing: self.differing(),
        }
    }

    fn chain(&self, plan: &[Object]) -> Chain {
        let mut last: u64 = 0;
        for object in plan {
            // Litestream has checked that; another version may not.
            if object.first > last.saturating_add(1) {
                return match last {
                    0 => Chain::Nothing,
                    _ => Chain::Hole { after: last },
                };
            }
            last = last.max(object.last);
        }
        let (Some(first), Some(newest)) = (plan.first(), plan.last()) else {
            return Chain::Nothing;
        };
        if let Some(altered) = plan.iter().find(|object| self.is_altered(object)) {
            return Chain::Altered { at: altered.last };
        }
        let snapshots = self.snapshots.iter().map(|object| object.time);
        Chain::Whole(Holdings {
            files: plan.len() as u64,
            bytes: plan
                .iter()
                .fold(0, |sum: u64, object| sum.saturating_add(object.size)),
            last,
            oldest: snapshots.chain([first.time]).min().unwrap_or(first.time),
            newest: newest.time,
        })
    }

    fn is_altered(&self, object: &Object) -> bool {
        let own = self.own.as_ref().filter(|_| object.level == SINGLE);
        let earlier = self.earlier.sizes.get(&object.name());
        object.size < SHORTEST
            || own.is_some_and(|own| own.made(object) == Some(false))
            || earlier.is_some_and(|size| *size != object.size)
    }

    fn stranger(&self) -> Option<Stranger> {
        let own = self.own.as_ref()?;
        let newest = newest(&self.singles).max(newest(&self.snapshots))?;
        if newest > own.last() {
            return Some(Stranger::Ahead { at: newest });
        }
        let differing = self.differing();
        let newest = *differing.last()?;
        (differing.len() >= MANY).then_some(Stranger::Differing { at: newest })
    }

    /// The single transactions that differ from Litestream's own files, or did so at an earlier look: a
    /// compaction takes them out of sight, and not out of what is restored. A snapshot does.
    fn differing(&self) -> BTreeSet<u64> {
        let snapshot = newest(&self.snapshots);
        let is_restored = |at: &u64| Some(*at) > snapshot;
        let now = self.own.iter().flat_map(|own| {
            let singles = self.singles.iter();
            let differing = singles.filter(|object| own.made(object) == Some(false));
            differing.map(|object| object.last)
        });
        let earlier = self.earlier.differing.iter().copied();
        earlier.chain(now).filter(is_restored).collect()
    }
}

/// The newest transaction of all.
fn newest(objects: &[Object]) -> Option<u64> {
    objects.iter().map(|object| object.last).max()
}

/// Whether a line of its log complains about what the bucket holds: files that do not fit together, or that
/// it did not write.
pub(crate) fn is_complaint(line: &str) -> bool {
    line.contains("compaction failed")
}

/// What Litestream's message says about the chain.
fn broken(message: &str) -> Option<Chain> {
    if message.contains(super::command::NOTHING_TO_RESTORE) {
        return Some(Chain::Nothing);
    }
    let (_, after) = message.split_once("non-contiguous ltx files: have up to ")?;
    let digits = after.split(' ').next()?;
    let after = u64::from_str_radix(digits, 16).ok()?;
    Some(Chain::Hole { after })
}

/// The first and the last transaction in the name of a file.
fn transactions(name: &str) -> Option<(u64, u64)> {
    let (first, last) = name.strip_suffix(".ltx")?.split_once('-')?;
    let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
    Some((number(first)?, number(last)?))
}

#[cfg(test)]
mod tests;
