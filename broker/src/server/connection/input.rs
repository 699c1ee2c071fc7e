//! Reading: as much as is there up to a fair share, each packet handled as it is decoded.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::readable::Readable;
use super::{Answer, Connection, End};
use crate::codec::{self, Packet};
use crate::server::websocket::Endless;
use crate::server::work::PACKET;
use crate::server::{pace, quiet};
use crate::session::Event;

thread_local! {
    // One per core: an idle connection holds no read buffer.
    static SCRATCH: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Requests to reserved topics that a client may have unanswered before it is read on: what all ask goes to the same desks.
const REQUESTS_MAX: usize = 16;

/// Room made for the rest of an unfinished packet, at least.
const PARTIAL_READ_BYTES: usize = 4 * 1024;

/// What an error of the stream means.
fn lost(error: &std::io::Error) -> End {
    match error.get_ref() {
        Some(inner) if inner.is::<Endless>() => End::Dripped,
        _ => End::Lost,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Reads and handles what is there.
    pub(super) fn input(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let mut scratch = SCRATCH.take();
        let result = self.input_with(cx, &mut scratch);
        scratch.clear();
        SCRATCH.set(scratch);
        result
    }

    fn input_with(&mut self, cx: &mut Context<'_>, scratch: &mut BytesMut) -> Result<(), End> {
        let called = self.readable.as_ref().is_none_or(Readable::has_called);
        if self.heard_out && !called {
            return Ok(());
        }
        self.heard_out = false;
        if self.undigested {
            let mut partial = std::mem::take(&mut self.partial);
            let result = self.digest(&mut partial);
            self.partial = partial;
            result?;
        }
        if self.rests_until.is_some_and(|until| self.now < until) {
            // Of this turn, not of the one before: else it would be called again at once, and again, until the rest is over.
            self.held_back = !self.may_read();
            return Ok(());
        }
        self.rests_until = None;
        let share = self.hub.limits.read_share_bytes;
        let mut taken = 0;
        while self.may_read() && !self.work.is_spent() {
            if taken >= share {
                cx.waker().wake_by_ref();
                break;
            }
            // The rest of an unfinished packet is read behind its beginning.
            let resumed = !self.partial.is_empty();
            let mut buffer = if resumed {
                std::mem::take(&mut self.partial)
            } else {
                std::mem::take(scratch)
            };
            buffer.reserve(if resumed { PARTIAL_READ_BYTES } else { share });
            let waker = self.readable.as_ref().map_or(cx.waker(), Readable::listen);
            let mut listening = Context::from_waker(waker);
            let read = pin!(self.io.read_buf(&mut buffer)).poll(&mut listening);
            let result = match read {
                Poll::Pending => None,
                Poll::Ready(Ok(0)) => Some(Err(End::Lost)),
                Poll::Ready(Err(error)) => Some(Err(lost(&error))),
                Poll::Ready(Ok(n)) => {
                    taken += n;
                    self.counters.bytes_in.add_n(n as u64);
                    Some(self.digest(&mut buffer))
                }
            };
            if resumed {
                if !buffer.is_empty() {
                    self.partial = buffer;
                }
            } else {
                if !buffer.is_empty() {
                    self.partial = BytesMut::from(&buffer[..]);
                }
                buffer.clear();
                *scratch = buffer;
            }
            match result {
                None => {
                    self.heard_out = true;
                    break;
                }
                Some(result) => result?,
            }
        }
        if taken > 0 {
            self.rests_until = pace::after_read(self.now, cx.waker());
        }
        self.held_back = !self.may_read();
        Ok(())
    }

    /// Whether another packet may be handled: the server is not behind, the client reads what it is
    /// sent, its requests are few, and its subscriptions are as it last asked for.
    pub(super) fn may_read(&self) -> bool {
        self.stalled.is_none()
            && !self.is_subscribing()
            && self.session.may_receive()
            && self.unsent() < self.hub.limits.output_bytes
            && self.requests.len() < REQUESTS_MAX
    }

    /// Whether a SUBACK or UNSUBACK waits for the disk. Until then the session has the subscriptions of before, and the
    /// next packet would be judged by them: an UNSUBSCRIBE would miss what it is for [MQTT-3.10.4-1].
    pub(super) fn is_subscribing(&self) -> bool {
        let mut answers = self.waiting.iter().map(|waiting| &waiting.answer);
        answers.any(|answer| matches!(answer, Answer::Subscribe(..) | Answer::Unsubscribe(_)))
    }

    fn digest(&mut self, buffer: &mut BytesMut) -> Result<(), End> {
        self.undigested = false;
        let begun = self.partial_since.take();
        let mut whole = false;
        let limits = self.session.decode_limits();
        loop {
            if !self.may_read() || self.work.is_spent() {
                self.undigested = !buffer.is_empty();
                return Ok(());
            }
            let packet = match codec::decode(buffer, self.session.version(), &limits) {
                Ok(Some(packet)) => packet,
                Ok(None) => {
                    if !buffer.is_empty() {
                        self.partial_since = begun.filter(|_| !whole).or(Some(self.now));
                    }
                    return Ok(());
                }
                // [MQTT-4.13.1-1] [MQTT311-4.8.0-1]
                Err(error) => return Err(End::Broke(error.into())),
            };
            whole = true;
            if !matches!(packet, Packet::PingReq) {
                quiet::works(self.now);
            }
            self.work.spend(PACKET);
            let event = self
                .session
                .handle(packet, self.now, &mut self.out)
                .map_err(End::Broke)?;
            match event {
                Event::None => {}
                Event::Publish(incoming) => self.publish(incoming)?,
                Event::Release(packet_id) => self.release(packet_id)?,
                Event::Received { token, packet_id } => self.received(token, packet_id),
                Event::Subscribe(requests) => self.subscribe(requests),
                Event::Unsubscribe(requests) => self.unsubscribe(requests),
                Event::Acknowledged {
                    token, packet_id, ..
                } => self.acknowledged(token, packet_id),
                Event::Disconnect => return Err(End::Left),
            }
        }
    }
}
