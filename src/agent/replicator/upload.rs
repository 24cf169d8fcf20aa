//! The upload that Litestream has under way, as far as its connections show it: on a slow line one takes
//! longer than anything else is given.
//!
//! Owns what counts as progress, how often that is looked at, and its words. What is written to a disk is no
//! progress, nor is what waits in a buffer: only what the other end has acknowledged. A line that hardly
//! moves is none either, nor is what was sent several times over: Litestream tries again and again where S3
//! is broken. Never stops anything, and never judges an answer.

use std::time::Duration;

use crate::agent::{Action, Sent};
use crate::clock::BootTime;

/// How often it is looked at while it is of interest; ever more seldom where nothing moves, as in an outage of
/// the network, up to the longest.
const PACE: Duration = Duration::from_secs(10);
const LONGEST_PACE: Duration = Duration::from_secs(60);

/// A sync without an answer for so long may be an upload; one that is done sooner needs no excuse.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Fewer bytes a second are no progress: of 1 MiB they would take an hour.
const LEAST_RATE: u64 = 256;

/// Litestream uploads a database that is new to it twice at once: as a transaction, and as a snapshot.
const COPIES: u64 = 2;

/// So many times the databases, and this, may be sent in one wait: a try that failed may be among it, and
/// what is compacted meanwhile.
const TIMES: u64 = 2 * COPIES;
const SLACK: u64 = 16 << 20;

/// With so much in the kernel's buffers an upload is under way that the line can't carry at once, in bytes:
/// rows are smaller.
const LEAST_QUEUE: u64 = 16 << 10;

/// One that has not moved for so long is not waited for.
const STANDSTILL: Duration = Duration::from_secs(60);

/// No session is longer, by AWS's rules.
const LONGEST_SESSION: Duration = Duration::from_secs(43_200);

#[derive(Debug, Default)]
pub(in crate::agent) struct Upload {
    /// When it is looked at next, at the earliest.
    next: BootTime,
    /// When it was first looked at since it has been of interest, and what was seen.
    looked: Option<BootTime>,
    looks: Option<Looks>,
    /// The last one was cut by a hand-over.
    cut: Option<Cut>,
    told: Option<String>,
}

/// The looks at one upload, or at some that follow each other.
#[derive(Debug)]
struct Looks {
    first: Look,
    last: Look,
    /// The last one that showed that it moves.
    moved: Option<Look>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: BootTime,
    sent: Sent,
}

/// What is told of an upload that was cut.
#[derive(Debug)]
struct Cut {
    text: String,
    /// The replica did not follow before it: it is over once it does.
    was_behind: bool,
}

/// The figures of the upload that is under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UploadReport {
    /// What was sent, in bytes, and in how long.
    pub sent: u64,
    /// In so much time.
    pub time: Duration,
    /// What is uploaded at most, in bytes, by the databases' size.
    pub most: u64,
}

impl UploadReport {
    /// Bytes a second; `None` before any can be told.
    pub fn rate(&self) -> Option<u64> {
        let time = u64::try_from(self.time.as_millis()).ok()?;
        let rate = self.sent.saturating_mul(1000).checked_div(time)?;
        (rate > 0).then_some(rate)
    }
}

impl Upload {
    /// When it is looked at next, where it is of interest from `since` on.
    pub(super) fn due(&self, since: Option<BootTime>) -> BootTime {
        since.map_or(BootTime::NEVER, |since| since.max(self.next))
    }

    /// It is to be looked at once more now.
    pub(super) fn look_now(&mut self) {
        self.next = BootTime::default();
    }

    /// Looks at it, if that is due, and forgets what is of no interest any more.
    pub(super) fn advance(&mut self, since: Option<BootTime>, now: BootTime) -> Option<Action> {
        if since.is_none() {
            self.looked = None;
            self.looks = None;
            self.told = None;
        }
        let is_due = self.due(since) <= now;
        if is_due {
            let since = self.moved().or(self.looked).unwrap_or(now);
            self.next = now + (now.since(since) / 4).clamp(PACE, LONGEST_PACE);
        }
        is_due.then_some(Action::MeasureUpload)
    }

    /// What was seen, or that nothing can be seen.
    pub(super) fn measured(&mut self, seen: Option<Sent>, now: BootTime) {
        self.looked.get_or_insert(now);
        // One look that fails takes nothing from those before.
        let Some(sent) = seen else { return };
        let look = Look { at: now, sent };
        match &mut self.looks {
            Some(looks) if looks.last.sent.bytes <= look.sent.bytes => {
                let base = looks.moved.unwrap_or(looks.first);
                let sent = look.sent.bytes - base.sent.bytes;
                let least = LEAST_RATE.saturating_mul(now.since(base.at).as_secs());
                let all = look.sent.bytes - looks.first.sent.bytes;
                let most = look.sent.size.saturating_mul(TIMES).saturating_add(SLACK);
                if sent > 0 && sent >= least && all <= most {
                    looks.moved = Some(look);
                }
                looks.last = look;
            }
            // The first look, or one at another process.
            _ => {
                self.looks = Some(Looks {
                    first: look,
                    last: look,
                    moved: None,
                });
            }
        }
        self.told = self.figures().and_then(told);
    }

    /// When it last moved.
    pub(in crate::agent) fn moved(&self) -> Option<BootTime> {
        Some(self.looks.as_ref()?.moved?.at)
    }

    /// Until when it excuses a Litestream that does not follow: for `limit` after it last moved, and until looks
    /// have shown whether it does.
    pub(super) fn excuses_until(&self, limit: Duration) -> BootTime {
        match (self.looked, self.moved()) {
            (_, Some(moved)) => moved + limit,
            (Some(looked), None) => looked + STANDSTILL,
            (None, None) => BootTime::NEVER,
        }
    }

    /// More is on its way than the line can carry at once, and it does not stand still.
    pub(super) fn is_under_way(&self) -> bool {
        self.looks.as_ref().is_some_and(|looks| {
            let base = looks.moved.unwrap_or(looks.first);
            let stands = looks.last.at.since(base.at) >= STANDSTILL;
            looks.last.sent.queued >= LEAST_QUEUE && !stands
        })
    }

    /// The figures, while it moves.
    pub(in crate::agent) fn figures(&self) -> Option<UploadReport> {
        let looks = self.looks.as_ref()?;
        looks.moved?;
        Some(UploadReport {
            sent: looks.last.sent.bytes - looks.first.sent.bytes,
            time: looks.last.at.since(looks.first.at),
            most: looks.last.sent.size.saturating_mul(COPIES),
        })
    }

    /// What is said of it: that one was cut, or that one moves.
    pub(in crate::agent) fn told(&self) -> Option<&str> {
        self.cut().or(self.told.as_deref())
    }

    /// What is said of the last one, if it was cut.
    pub(in crate::agent) fn cut(&self) -> Option<&str> {
        self.cut.as_ref().map(|cut| cut.text.as_str())
    }

    /// It is cut by a hand-over; of the new session of `lifetime` so much is `unused` by then. Returns what
    /// there is to say.
    pub(super) fn is_cut(
        &mut self,
        lifetime: Duration,
        unused: Duration,
        was_behind: bool,
    ) -> String {
        let figures = self.figures().and_then(|figures| {
            let rate = figures.rate()?;
            let seconds = figures.most.max(figures.sent) / rate;
            Some((figures, rate, Duration::from_secs(seconds)))
        });
        let text = match figures {
            Some((figures, rate, takes)) => {
                let needed = session_for(takes, lifetime, unused);
                let session = match needed.filter(|needed| *needed <= LONGEST_SESSION) {
                    Some(needed) => format!(
                        "it needs sessions of {} (credentialDurationSeconds of the role alias), or \
                         [replication] rotation = \"refresh\"",
                        span(needed)
                    ),
                    None => "no session is long enough for it, and it needs [replication] rotation = \
                             \"refresh\""
                        .to_owned(),
                };
                format!(
                    "a restart for new credentials has cut an upload, which begins again: {} of at most {} \
                     were sent at {} a second; {session}",
                    amount(figures.sent),
                    amount(figures.most),
                    amount(rate)
                )
            }
            None => "a restart for new credentials has cut an upload, which begins again; if it does so each \
                     time, it needs longer sessions (credentialDurationSeconds of the role alias), or \
                     [replication] rotation = \"refresh\""
                .to_owned(),
        };
        self.cut = Some(Cut {
            text: text.clone(),
            was_behind,
        });
        text
    }

    /// A hand-over has cut none.
    pub(super) fn is_not_cut(&mut self) {
        self.cut = None;
    }

    /// All replicas follow.
    pub(super) fn is_over(&mut self) {
        self.cut.take_if(|cut| cut.was_behind);
    }
}

/// The session in which an upload ends that takes so long, where of one of `lifetime` so much can't be used.
fn session_for(takes: Duration, lifetime: Duration, unused: Duration) -> Option<Duration> {
    let used = lifetime.checked_sub(unused)?.as_secs();
    // A tenth more, for what is uploaded beside it.
    let takes = takes.as_secs().saturating_add(1).saturating_mul(11) / 10;
    let needed = takes.saturating_mul(lifetime.as_secs()).checked_div(used)?;
    Some(Duration::from_secs(needed.saturating_add(1)))
}

fn told(figures: UploadReport) -> Option<String> {
    Some(format!(
        "an upload is under way: {} of at most {} sent, {} a second",
        amount(figures.sent),
        amount(figures.most),
        amount(figures.rate()?)
    ))
}

/// In whole minutes, rounded up.
fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

fn amount(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..1_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_is_told_until_it_is_over() {
        let hour = Duration::from_secs(3600);
        let mut upload = Upload::default();
        let told = upload.is_cut(hour, hour / 12, true);
        assert!(told.contains("longer sessions"), "{told}");
        assert_eq!(upload.told(), Some(told.as_str()));
        upload.is_over();
        assert_eq!(upload.told(), None, "all replicas follow");
        // They did before: only a hand-over that cuts nothing shows that there is time enough.
        upload.is_cut(hour, hour / 12, false);
        upload.is_over();
        assert!(upload.cut().is_some());
        upload.is_not_cut();
        assert_eq!(upload.cut(), None);
    }

    #[test]
    fn a_session_is_long_enough_for_what_can_be_used_of_it() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        // Of an hour five minutes are over when Litestream gets it.
        let needed = session_for(minutes(90), minutes(60), minutes(5)).expect("a session");
        assert!((minutes(107)..minutes(110)).contains(&needed), "{needed:?}");
        // What can't be told is not made up, and no number is too large.
        assert_eq!(session_for(minutes(1), minutes(5), minutes(6)), None);
        assert_eq!(session_for(minutes(1), minutes(5), minutes(5)), None);
        let longest = session_for(Duration::MAX, minutes(60), minutes(5));
        assert!(longest.is_some_and(|longest| longest > LONGEST_SESSION));
    }
}
