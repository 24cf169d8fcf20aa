//! Uploads that take hours, because the line is slow; or that stand still, because S3 swallows them.
//!
//! Owns the one that is under way, and what is seen of it. All syncs wait for it. Whoever ends Litestream
//! ends it, and the next Litestream begins anew.

use std::time::Duration;

use edgerepl::agent::{Event, Sent};

use super::{HOUR, MINUTE, SECOND, Time, World};
use crate::coverage::Happening;
use crate::faults::Fault;

/// 64 kbit/s.
const RATE: u64 = 8000;

/// What an upload that stands still takes: as long as somebody lets it.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

#[derive(Clone, Copy, Debug)]
pub(super) struct Upload {
    ends: Time,
    size: u64,
    moves: bool,
    is_seen: bool,
    /// What was sent, up to then, and since when it has moved all along.
    sent: u64,
    carried: Time,
    moves_since: Time,
}

impl World {
    /// How long a sync waits for an upload that is under way, or begins with it.
    pub(super) fn upload_takes(&mut self, number: usize) -> Option<Duration> {
        if let Some(upload) = self.litestream.upload {
            return Some(upload.ends.saturating_sub(self.time).max(SECOND / 10));
        }
        if !self.can_replicate(number) || !self.strikes(Fault::SlowLine, 2000) {
            return None;
        }
        let moves = !self.chance.one_in(4);
        let takes = match moves {
            true => self.chance.scale(MINUTE, 6 * HOUR),
            false => FOR_EVER,
        };
        self.coverage.happened(match moves {
            true => Happening::UploadBegan,
            false => Happening::UploadStands,
        });
        self.litestream.upload = Some(Upload {
            ends: self.time + takes,
            size: takes.as_secs().saturating_mul(RATE),
            moves,
            is_seen: !self.chance.one_in(8),
            sent: 0,
            carried: self.time,
            moves_since: self.time,
        });
        Some(takes)
    }

    /// Its time is over.
    pub(super) fn end_upload(&mut self) {
        let time = self.time;
        let ended = self.litestream.upload.take_if(|upload| upload.ends <= time);
        if ended.is_some() {
            self.coverage.happened(Happening::UploadEnded);
        }
    }

    /// Litestream is gone, and what it has sent is worth nothing.
    pub(super) fn cut_upload(&mut self) {
        let cut = self.litestream.upload.take();
        if cut.is_some_and(|upload| upload.moves) {
            self.coverage.happened(Happening::UploadCut);
        }
    }

    /// What the line has carried up to now.
    pub(super) fn carry_upload(&mut self) {
        let (time, carries) = (self.time, self.line_carries());
        if let Some(upload) = &mut self.litestream.upload {
            let since = time.saturating_sub(std::mem::replace(&mut upload.carried, time));
            match carries && upload.moves {
                true => upload.sent += since.as_millis() as u64 * RATE / 1000,
                false => upload.moves_since = time,
            }
        }
    }

    /// What the kernel has seen.
    pub(super) fn measure_upload(&mut self) {
        self.carry_upload();
        let time = self.time;
        let sent = match self.litestream.upload.filter(|upload| time < upload.ends) {
            Some(upload) if !upload.is_seen => Err("it is another user's".to_owned()),
            Some(upload) => Ok(Sent {
                bytes: upload.sent,
                queued: 500_000,
                size: upload.size,
            }),
            None => Ok(Sent::default()),
        };
        self.news.push_back(Event::Measured(sent));
    }

    /// Since when it moves, where that can be seen.
    pub(super) fn moving_since(&self) -> Option<Time> {
        let upload = self.litestream.upload.as_ref()?;
        let is_seen = upload.moves && upload.is_seen && self.litestream.up && self.line_carries();
        (is_seen && self.time < upload.ends).then_some(upload.moves_since)
    }

    pub(super) fn upload_stands(&self) -> bool {
        let upload = self.litestream.upload.as_ref();
        upload.is_some_and(|upload| !upload.moves)
    }

    fn line_carries(&self) -> bool {
        self.weather.network && self.weather.s3 && !self.litestream.stuck
    }
}
