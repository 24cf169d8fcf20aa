//! A slow line: a bound on the bytes a second that a server takes in, and on those that it gives, over all
//! its connections. The kernel's buffer behind it is small, so that a client has to wait. It never looks at
//! what is said.

use std::{
    future::Future,
    io,
    num::NonZeroU64,
    os::fd::AsFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use crate::sync::Shared;

/// What is taken or given at once, in bytes: a packet.
const PIECE: usize = 1400;

/// So much time is made up for.
const CREDIT: Duration = Duration::from_millis(200);

/// What the kernel takes in before it is read. With less the client waits for a window that is as large as
/// half of the first one, and is asked for it five times a second.
const BUFFER: usize = 64 * 1024;

/// The line of one server, both ways.
#[derive(Default)]
pub(crate) struct Line {
    rate: Shared<Option<NonZeroU64>>,
    inwards: Way,
    outwards: Way,
}

/// When one way is free again.
#[derive(Default)]
struct Way(Shared<Option<Instant>>);

impl Line {
    /// Bytes a second each way; `None`: as fast as it goes.
    pub(crate) fn set_rate(&self, rate: Option<NonZeroU64>) {
        *self.rate.lock() = rate;
    }

    /// A connection over it.
    pub(crate) fn carry(self: &Arc<Self>, stream: TcpStream) -> Carried {
        if self.rate.lock().is_some() {
            // Without it the client is rid of more than was carried; that costs a test its truth alone.
            let _ = setsockopt(&stream.as_fd(), sockopt::RcvBuf, &BUFFER);
        }
        Carried {
            stream,
            line: self.clone(),
            reads: None,
            writes: None,
        }
    }

    /// So many bytes were carried; until when that takes.
    fn takes(&self, way: &Way, bytes: usize) -> Option<Pin<Box<Sleep>>> {
        let rate = (*self.rate.lock())?;
        let nanoseconds = (bytes as u64).saturating_mul(1_000_000_000) / rate;
        let mut free = way.0.lock();
        // A machine that is busy wakes late: what was not carried meanwhile is made up for.
        let now = Instant::now();
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        let from = free.map_or(now, |free| free.max(earliest));
        let until = from + Duration::from_nanos(nanoseconds);
        *free = Some(until);
        Some(Box::pin(sleep_until(until)))
    }
}

/// A connection, slowed down.
pub(crate) struct Carried {
    stream: TcpStream,
    line: Arc<Line>,
    reads: Option<Pin<Box<Sleep>>>,
    writes: Option<Pin<Box<Sleep>>>,
}

/// Waits for its turn.
fn turn(wait: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> Poll<()> {
    if let Some(sleep) = wait {
        ready!(sleep.as_mut().poll(cx));
        *wait = None;
    }
    Poll::Ready(())
}

impl AsyncRead for Carried {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(turn(&mut self.reads, cx));
        let mut bytes = [0; PIECE];
        let mut piece = ReadBuf::new(&mut bytes[..PIECE.min(buffer.remaining())]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
        buffer.put_slice(piece.filled());
        self.reads = self.line.takes(&self.line.inwards, piece.filled().len());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Carried {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(turn(&mut self.writes, cx));
        let bytes = &bytes[..bytes.len().min(PIECE)];
        let length = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.writes = self.line.takes(&self.line.outwards, length);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
