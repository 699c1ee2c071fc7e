//! A network connection that the simulator carries byte by byte: the broker has one end, the
//! simulator decides what arrives, when, and what never does.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// The moment as the links note it: the simulator's step, and the broker's wall clock.
pub(crate) struct Moment {
    pub(crate) step: AtomicU64,
    pub(crate) epoch_ms: u64,
    pub(crate) started: Instant,
}

impl Moment {
    pub(crate) fn wall_ms(&self, now: Instant) -> u64 {
        self.epoch_ms + now.duration_since(self.started).as_millis() as u64
    }
}

/// What the broker wrote at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    /// Bytes written before.
    pub(crate) from: u64,
    pub(crate) step: u64,
    pub(crate) wall_ms: u64,
    /// Bytes may have been encoded earlier, because the peer took none.
    pub(crate) late: bool,
}

#[derive(Default)]
struct Pipe {
    /// Arrived at the broker and not read.
    up: VecDeque<u8>,
    up_read: u64,
    up_ended: bool,
    reader: Option<Waker>,
    /// Written by the broker and not taken by the client.
    down: VecDeque<u8>,
    down_written: u64,
    marks: VecDeque<Mark>,
    room: usize,
    blocked: bool,
    writer: Option<Waker>,
    /// The broker has closed its end.
    closed: bool,
    /// The client is gone.
    broken: bool,
}

/// The simulator's end.
#[derive(Clone)]
pub(crate) struct Link(Arc<Mutex<Pipe>>);

/// The broker's end.
pub(crate) struct ServerEnd(Arc<Mutex<Pipe>>, Arc<Moment>);

/// A connection on which `room` bytes may wait for the client.
pub(crate) fn connection(room: usize, moment: Arc<Moment>) -> (Link, ServerEnd) {
    let pipe = Arc::new(Mutex::new(Pipe {
        room,
        ..Pipe::default()
    }));
    (Link(Arc::clone(&pipe)), ServerEnd(pipe, moment))
}

impl Link {
    /// Bytes arrive at the broker.
    pub(crate) fn deliver(&self, bytes: impl Iterator<Item = u8>) {
        let mut pipe = self.0.lock();
        pipe.up.extend(bytes);
        wake(&mut pipe.reader);
    }

    /// Takes up to `count` bytes of what the broker wrote.
    pub(crate) fn take(&self, count: usize) -> Vec<u8> {
        let mut pipe = self.0.lock();
        let count = count.min(pipe.down.len());
        let taken = pipe.down.drain(..count).collect();
        if pipe.down.len() < pipe.room {
            wake(&mut pipe.writer);
        }
        taken
    }

    /// When the byte at `offset` was written.
    pub(crate) fn mark(&self, offset: u64) -> Option<Mark> {
        let mut pipe = self.0.lock();
        while pipe.marks.get(1).is_some_and(|next| next.from <= offset) {
            pipe.marks.pop_front();
        }
        pipe.marks.front().copied()
    }

    /// The client is gone; what has arrived stays, what waits for it does not.
    pub(crate) fn hang_up(&self) {
        let mut pipe = self.0.lock();
        pipe.up_ended = true;
        pipe.broken = true;
        wake(&mut pipe.reader);
        wake(&mut pipe.writer);
    }

    /// The client reads at any speed from now on.
    pub(crate) fn widen(&self) {
        let mut pipe = self.0.lock();
        pipe.room = 1 << 20;
        wake(&mut pipe.writer);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().down.len()
    }

    /// Bytes the broker has read.
    pub(crate) fn read(&self) -> u64 {
        self.0.lock().up_read
    }

    /// Whether the broker has closed its end.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.lock().closed
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl AsyncRead for ServerEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pipe = self.0.lock();
        if pipe.up.is_empty() {
            if pipe.up_ended {
                return Poll::Ready(Ok(()));
            }
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = buffer.remaining().min(pipe.up.len());
        for byte in pipe.up.drain(..count) {
            buffer.put_slice(&[byte]);
        }
        pipe.up_read += count as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ServerEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut pipe = self.0.lock();
        if pipe.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(pipe.room.saturating_sub(pipe.down.len()));
        if count == 0 {
            pipe.blocked = true;
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mark = Mark {
            from: pipe.down_written,
            step: self.1.step.load(Ordering::Relaxed),
            wall_ms: self.1.wall_ms(Instant::now()),
            late: pipe.blocked,
        };
        pipe.marks.push_back(mark);
        pipe.down.extend(bytes.iter().take(count));
        pipe.down_written += count as u64;
        pipe.blocked = count < bytes.len();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().closed = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        self.0.lock().closed = true;
    }
}
