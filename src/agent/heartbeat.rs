//! The heartbeat: when a row is due, and the retry of a row that the database refuses.
//!
//! Owns the rows' schedule; `proof` counts the rows. A row that can't be written is retried, and never
//! delays anything else.

use std::time::Duration;

use super::Action;
use super::watch::Outbox;
use crate::clock::BootTime;

/// A refused row is retried after this, doubled by each refusal, up to the interval or 2 min: most
/// locks are short, and a full disk stays full.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(120);

/// A few old rows are deleted at a time, so that no transaction is long.
const PRUNE_PACE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Heartbeat {
    due: BootTime,
    prune_due: BootTime,
    /// Why rows are refused, and since when.
    trouble: Option<(String, BootTime)>,
    refusals: u32,
}

impl Heartbeat {
    pub(super) fn new(now: BootTime) -> Self {
        Self {
            due: now,
            prune_due: now,
            trouble: None,
            refusals: 0,
        }
    }

    pub(super) fn advance(
        &mut self,
        interval: Option<Duration>,
        prune: bool,
        now: BootTime,
        out: &mut Outbox<'_>,
    ) {
        let Some(interval) = interval else {
            self.due = BootTime::NEVER;
            return;
        };
        // A reload may have enabled the heartbeat.
        self.due = self.due.min(now + interval);
        if self.due <= now {
            self.due = now + interval;
            out.push(Action::WriteRow(out.database));
            if prune && self.prune_due <= now && self.trouble.is_none() {
                self.prune_due = now + PRUNE_PACE;
                out.push(Action::Prune(out.database));
            }
        }
    }

    pub(super) fn row(
        &mut self,
        result: Result<i64, String>,
        interval: Option<Duration>,
        now: BootTime,
        out: &mut Outbox<'_>,
    ) {
        let interval = interval.unwrap_or(RETRY);
        match result {
            Ok(id) => {
                if self.trouble.take().is_some() {
                    out.info(format!("heartbeat rows are written again, from row {id}"));
                }
                self.refusals = 0;
                self.due = now + interval;
            }
            Err(cause) => {
                let since = match self.trouble.take() {
                    Some((known, since)) if known == cause => since,
                    known => {
                        out.warn(format!(
                            "a heartbeat row could not be written, and is retried: {cause}"
                        ));
                        known.map_or(now, |(_, since)| since)
                    }
                };
                self.trouble = Some((cause, since));
                let doubled = RETRY.saturating_mul(1 << self.refusals.min(16));
                self.refusals = self.refusals.saturating_add(1);
                self.due = now + interval.min(doubled).min(LONGEST_RETRY);
            }
        }
    }

    pub(super) fn deadline(&self) -> BootTime {
        self.due
    }

    /// Why rows are refused, and since when.
    pub(super) fn trouble(&self) -> Option<(&str, BootTime)> {
        let trouble = self.trouble.as_ref();
        trouble.map(|(cause, since)| (cause.as_str(), *since))
    }
}
