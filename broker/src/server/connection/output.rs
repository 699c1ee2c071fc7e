//! Writing: one buffer, one write, one flush.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, End};

thread_local! {
    // One per core: an idle connection holds no write buffer.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A scratch buffer that grew beyond this is given back.
const SCRATCH_KEPT_BYTES: usize = 1024 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn borrow_output(&mut self) {
        if self.out.capacity() == 0 {
            self.out = SCRATCH.take();
        }
    }

    pub(super) fn return_output(&mut self) {
        if self.unsent() == 0 {
            self.out.clear();
            self.written = 0;
            let out = std::mem::take(&mut self.out);
            if out.capacity() <= SCRATCH_KEPT_BYTES {
                SCRATCH.set(out);
            }
        }
    }

    /// Bytes encoded and not yet taken by TLS.
    pub(super) fn unsent(&self) -> usize {
        self.out.len().saturating_sub(self.written)
    }

    /// Whether the peer takes nothing at present.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked_since.is_some()
    }

    /// Writes what there is.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        while let Some(rest) = self.out.get(self.written..)
            && !rest.is_empty()
        {
            match Pin::new(&mut self.io).poll_write(cx, rest) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(End::Lost),
                Poll::Ready(Ok(n)) => {
                    self.written += n;
                    self.counters.bytes_out.add_n(n as u64);
                    self.blocked_since = None;
                }
                Poll::Pending => {
                    self.blocked_since.get_or_insert(self.now);
                    return Ok(());
                }
            }
        }
        self.out.clear();
        self.written = 0;
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(Ok(())) => self.blocked_since = None,
            Poll::Ready(Err(_)) => return Err(End::Lost),
            Poll::Pending => {
                self.blocked_since.get_or_insert(self.now);
            }
        }
        Ok(())
    }
}
