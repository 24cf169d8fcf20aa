//! Which faults a device's life has: a random half of them, so that a fault is also met without those
//! that would hide it ("swarm testing").
//!
//! Owns the names of the faults, and never says when one strikes.

use crate::chance::Chance;

/// What may go wrong, or be changed by somebody.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    Network,
    Provider,
    Key,
    S3,
    Disk,
    ClockSteps,
    PowerCuts,
    LostDisks,
    Sleeps,
    /// The wall clock begins in 1970 at a boot.
    NoClock,
    /// Litestream dies, hangs, can't be started, is busy, or answers wrongly.
    Deaths,
    Hangs,
    BadStarts,
    Busy,
    Lies,
    /// Its files are hurt by a power cut, or by somebody.
    Corruption,
    Wounds,
    /// A writer is killed in the middle of a commit.
    KilledWriters,
    /// Transactions that fill a WAL.
    BigWrites,
    Reloads,
    /// A reload that follows changes the policy, or the database.
    OtherPolicies,
    OtherDatabases,
    /// Litestream's configuration can't be read, or names a database that nobody watches.
    OtherConfigurations,
    /// edgerepl is ended, or killed, and started again.
    Ends,
    Kills,
    /// Objects vanish from the bucket, another device writes to it, or it can't be listed.
    Bucket,
    /// The line is so slow that an upload takes hours.
    SlowLine,
}

/// Some of the faults.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Faults(u32);

impl Fault {
    pub(crate) const ALL: [Self; 27] = [
        Self::Network,
        Self::Provider,
        Self::Key,
        Self::S3,
        Self::Disk,
        Self::ClockSteps,
        Self::PowerCuts,
        Self::LostDisks,
        Self::Sleeps,
        Self::NoClock,
        Self::Deaths,
        Self::Hangs,
        Self::BadStarts,
        Self::Busy,
        Self::Lies,
        Self::Corruption,
        Self::Wounds,
        Self::KilledWriters,
        Self::BigWrites,
        Self::Reloads,
        Self::OtherPolicies,
        Self::OtherDatabases,
        Self::OtherConfigurations,
        Self::Ends,
        Self::Kills,
        Self::Bucket,
        Self::SlowLine,
    ];
}

impl Faults {
    /// Those of a seed: one life in four has all.
    pub(crate) fn of(seed: u64) -> Self {
        let mut chance = Chance::new(!seed);
        if chance.one_in(4) {
            return Self(u32::MAX);
        }
        let on = Fault::ALL.into_iter().filter(|_| chance.one_in(2));
        Self(on.fold(0, |bits, fault| bits | bit(fault)))
    }

    pub(crate) fn has(self, fault: Fault) -> bool {
        self.0 & bit(fault) != 0
    }

    pub(crate) fn without(self, fault: Fault) -> Self {
        Self(self.0 & !bit(fault))
    }

    pub(crate) fn each(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |fault| self.has(*fault))
    }

    /// Those whose names are given, separated by commas.
    pub(crate) fn named(names: &str) -> Self {
        let named = Fault::ALL
            .into_iter()
            .filter(|fault| names.split(',').any(|name| name == format!("{fault:?}")));
        Self(named.fold(0, |bits, fault| bits | bit(fault)))
    }
}

fn bit(fault: Fault) -> u32 {
    1 << fault as u32
}
