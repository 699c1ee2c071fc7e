//! The shared half of a session: where deliveries wait until the task that owns the session takes
//! them, and how that task is woken.
//!
//! A publisher never waits for a receiver: it pushes under a lock held for nanoseconds and wakes
//! the owner once per batch. Messages and bytes are bounded; what goes beyond is dropped by rule
//! and counted. Of a durable session every message above QoS 0 is in the journal before it is here,
//! so that what waits for an absent client is a number, not a payload.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::{Mutex, MutexGuard};
use store::{Behind, Lsn};

use super::durable::{Durable, Entry};
use super::groups::Shared;
use super::layout::BodyRef;
use super::limits::Limits;
use super::message::Message;
use super::stats::Counters;
use crate::codec::Qos;
use crate::session::SendOptions;

/// Room for messages that an empty mailbox keeps.
const IDLE_QUEUE_MESSAGES: usize = 64;

/// Answers of services that may wait for a client, and their bytes, before its next request is refused: a client that
/// acknowledges what it asked for has a few at most.
const ANSWERS_WAITING: usize = 1_000;
const ANSWERS_WAITING_BYTES: usize = 1024 * 1024;

/// Something the owning task must look at, as bits of one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal(u32);

impl Signal {
    /// Deliveries wait.
    pub(crate) const MAIL: Self = Self(1);
    /// Another connection claims the session.
    pub(crate) const TAKEOVER: Self = Self(2);
    /// The server is shutting down.
    pub(crate) const DRAIN: Self = Self(4);
    /// Requests have been answered. Not mail: it is taken also where no delivery may be sent.
    pub(crate) const ANSWERED: Self = Self(8);
    /// An operator, or a device that may, ends the connection.
    pub(crate) const REMOVED: Self = Self(16);
    /// Beside that: the session ends too.
    pub(crate) const CLEAN: Self = Self(32);
    /// Beside that: its will is not published.
    pub(crate) const NO_WILL: Self = Self(64);
    /// The session has lost subscriptions, and what waits is looked through before more of it is sent.
    pub(crate) const WITHDRAWN: Self = Self(128);

    /// Both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Why a message was not put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotPut {
    /// The journal takes no more just now.
    Behind(Behind),
    /// The session has ended, and others can have it.
    Ended,
}

impl From<Behind> for NotPut {
    fn from(behind: Behind) -> Self {
        Self::Behind(behind)
    }
}

/// One message waiting for one session.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// The message, or nothing where it must be read from the journal.
    pub(crate) message: Option<Message>,
    pub(crate) options: SendOptions,
    /// Its number in the session's durable queue; 0 for what is not durable.
    pub(crate) token: u64,
    /// Where the journal keeps its body, for a durable one.
    pub(crate) body: BodyRef,
    /// Of a shared subscription: who else can have it.
    pub(crate) shared: Option<Box<Shared>>,
    /// Not to be sent before the journal is durable up to here. Of QoS 2: were it sent and its record
    /// lost, another message could come under its packet identifier, or itself a second time. Of a
    /// message that came from this very session: its acknowledgement goes first.
    pub(crate) after: Option<Lsn>,
    /// Of a service, to a request of this session.
    pub(crate) answer: bool,
    pub(crate) weight_bytes: usize,
}

/// See the module. What a message of QoS 0 needs lies together in the middle, from the end of `bounds` to the beginning of
/// `inner`: publisher and receiver bring it from far.
#[repr(C)]
pub(crate) struct Mailbox {
    durable: Option<Arc<Durable>>,
    next_token: AtomicU64,
    /// Messages that were not kept because the queue was full, since the session was made or the server started.
    dropped: AtomicU64,
    bounds: Bounds,
    number: u64,
    signals: AtomicU32,
    /// As `State::Live`, for those who choose among mailboxes.
    live: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Bounds {
    queue_messages: usize,
    queue_bytes: usize,
    resident_bytes: usize,
    qos0_messages: usize,
    qos0_bytes: usize,
}

#[derive(Default)]
#[repr(C)]
struct Inner {
    state: State,
    owner: Option<Waker>,
    queue: VecDeque<Delivery>,
    queued_bytes: usize,
    queued_qos0: usize,
    resident_bytes: usize,
    answers: usize,
    answers_bytes: usize,
    answered: Vec<u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A connection owns it.
    #[default]
    Live,
    /// Nobody reads; only what is durable is kept.
    Parked,
    /// The session has ended.
    Closed,
}

impl Mailbox {
    /// `number` is the session's, never used again; `durable` is where its queue is kept, for a
    /// session that outlives its connection.
    pub(crate) fn new(number: u64, durable: Option<Arc<Durable>>, limits: &Limits) -> Self {
        let queue_bytes = match &durable {
            Some(_) => limits.session_queue_bytes,
            None => limits.session_queue_bytes.min(limits.session_memory_bytes),
        };
        Self {
            number,
            durable,
            next_token: AtomicU64::new(1),
            signals: AtomicU32::new(0),
            live: AtomicBool::new(true),
            dropped: AtomicU64::new(0),
            bounds: Bounds {
                queue_messages: limits.session_queue_messages,
                queue_bytes,
                qos0_messages: limits.session_qos0_messages,
                qos0_bytes: limits.session_qos0_bytes,
                resident_bytes: limits.session_resident_bytes,
            },
            inner: Mutex::default(),
        }
    }

    /// A parked mailbox of an earlier run; what the journal holds for it is put in by [`Mailbox::park`].
    pub(crate) fn recovered(
        number: u64,
        durable: Arc<Durable>,
        limits: &Limits,
        next_token: u64,
    ) -> Self {
        let mailbox = Self::new(number, Some(durable), limits);
        mailbox.next_token.store(next_token, Ordering::Relaxed);
        mailbox.park(VecDeque::new());
        mailbox
    }

    /// The session's number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether its messages above QoS 0 are kept in the journal.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable.is_some()
    }

    /// Messages that were not kept because the queue was full.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Messages that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.inner.lock().queue.len()
    }

    /// Whether a connection owns it.
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    /// The first token that no delivery has yet.
    pub(crate) fn next_token(&self) -> u64 {
        self.next_token.load(Ordering::Relaxed)
    }

    /// The number for a delivery of this QoS: 0 where it is not kept.
    pub(crate) fn token_for(&self, qos: Qos) -> u64 {
        if qos == Qos::AtMostOnce || !self.is_durable() {
            return 0;
        }
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts a message in, of this very session where it is its `own`. Returns when it is safe, for a
    /// message that outlives the connection.
    ///
    /// # Errors
    /// [`NotPut`]: nothing was put in. Try again; of a shared subscription whose member has ended with another.
    pub(crate) fn deliver(
        &self,
        message: &Message,
        options: SendOptions,
        shared: Option<Box<Shared>>,
        own: bool,
        body: BodyRef,
        counters: &Counters,
    ) -> Result<Option<Lsn>, NotPut> {
        let qos = options.qos;
        let weight_bytes = message.weight_bytes() + options.weight_bytes();
        let token = self.token_for(qos);
        let mut lsn = None;
        if token != 0
            && let Some(durable) = &self.durable
        {
            // In the journal before the owner can see it: its acknowledgement deletes the record.
            let group = shared.as_ref().and_then(|shared| shared.group());
            let entry = Entry {
                session: self.number,
                token,
                options: &options,
                group: group.as_ref().map(|group| group.filter()),
            };
            lsn = Some(durable.put_queued(&entry, body, message)?);
        }
        let delivery = Delivery {
            message: Some(message.clone()),
            options,
            token,
            body,
            shared,
            after: lsn.filter(|_| own || qos == Qos::ExactlyOnce),
            answer: false,
            weight_bytes,
        };
        match self.push(delivery, counters) {
            None => Ok(lsn),
            Some(_) => {
                self.forget_token(token, body);
                Err(NotPut::Ended)
            }
        }
    }

    /// Puts a message in past the queue, if the session is connected: for where the journal takes nothing and the message
    /// need not be kept.
    pub(crate) fn deliver_unkept(&self, message: &Message, options: SendOptions) {
        let weight_bytes = message.weight_bytes() + options.weight_bytes();
        let inner = self.inner.lock();
        let bytes = inner.resident_bytes.saturating_add(weight_bytes);
        let room = bytes <= self.bounds.resident_bytes;
        self.add_unkept(inner, message, options, (false, weight_bytes), room);
    }

    /// Whether so many answers of services wait for the client that it must not ask for more.
    pub(crate) fn owes_answers(&self) -> bool {
        let inner = self.inner.lock();
        inner.answers >= ANSWERS_WAITING || inner.answers_bytes >= ANSWERS_WAITING_BYTES
    }

    /// Puts in an answer of a service to this session, if it is connected. Not kept when it is not, nor beyond the bound
    /// on bytes.
    pub(crate) fn reply(&self, message: &Message, options: SendOptions) {
        let weight_bytes = message.weight_bytes();
        let inner = self.inner.lock();
        let bytes = inner.answers_bytes.saturating_add(weight_bytes);
        let room = bytes <= self.bounds.qos0_bytes;
        self.add_unkept(inner, message, options, (true, weight_bytes), room);
    }

    fn add_unkept(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        message: &Message,
        options: SendOptions,
        (answer, weight_bytes): (bool, usize),
        room: bool,
    ) {
        if inner.state != State::Live {
            return;
        }
        if !room || inner.queue.len() >= self.bounds.queue_messages {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        inner.add(Delivery {
            message: Some(message.clone()),
            options,
            token: 0,
            body: BodyRef::Inline,
            shared: None,
            after: None,
            answer,
            weight_bytes,
        });
        self.notify(inner, Signal::MAIL);
    }

    /// Says that the request with this number has been answered.
    pub(crate) fn answered(&self, number: u64) {
        let mut inner = self.inner.lock();
        if inner.state == State::Live {
            inner.answered.push(number);
            self.notify(inner, Signal::ANSWERED);
        }
    }

    fn push_qos0(&self, delivery: Delivery, counters: &Counters) {
        let mut inner = self.inner.lock();
        if inner.state != State::Live {
            counters.dropped_qos0_offline.add();
            return;
        }
        if inner.queued_qos0 >= self.bounds.qos0_messages
            || inner.queued_bytes.saturating_add(delivery.weight_bytes) > self.bounds.qos0_bytes
        {
            counters.dropped_qos0_full.add();
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        inner.add(delivery);
        self.notify(inner, Signal::MAIL);
    }

    /// Puts in what is in the journal already, if it has a token. Where the session has ended, what others can have is not
    /// forgotten: who they are.
    pub(crate) fn push(&self, mut delivery: Delivery, counters: &Counters) -> Option<Box<Shared>> {
        if delivery.options.qos == Qos::AtMostOnce {
            self.push_qos0(delivery, counters);
            return None;
        }
        let mut inner = self.inner.lock();
        match inner.state {
            State::Closed => {
                drop(inner);
                if delivery.shared.is_none() {
                    self.forget(&delivery);
                }
                return delivery.shared;
            }
            State::Parked if self.durable.is_none() => return None,
            State::Parked | State::Live => {}
        }
        // Beyond the resident share a durable message stays in the journal until its turn.
        if self.durable.is_some()
            && (inner.state == State::Parked
                || inner.resident_bytes.saturating_add(delivery.weight_bytes)
                    > self.bounds.resident_bytes)
        {
            delivery.message = None;
        }
        let mut dropped = Vec::new();
        while inner.queue.len() >= self.bounds.queue_messages
            || inner.queued_bytes.saturating_add(delivery.weight_bytes) > self.bounds.queue_bytes
        {
            let Some(oldest) = inner.pop() else { break };
            dropped.push(oldest);
        }
        inner.add(delivery);
        self.notify(inner, Signal::MAIL);
        for oldest in &dropped {
            counters.dropped_queue_full.add();
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.forget(oldest);
        }
        None
    }

    /// The requests that have been answered since.
    pub(crate) fn take_answered(&self) -> Vec<u64> {
        let mut inner = self.inner.lock();
        self.signals
            .fetch_and(!Signal::ANSWERED.0, Ordering::AcqRel);
        std::mem::take(&mut inner.answered)
    }

    /// Moves up to `max` waiting deliveries to the owner.
    pub(crate) fn take(&self, into: &mut VecDeque<Delivery>, max: usize) {
        let mut inner = self.inner.lock();
        into.reserve(inner.queue.len().min(max));
        for _ in 0..max {
            let Some(delivery) = inner.pop() else { break };
            into.push_back(delivery);
        }
        if inner.queue.is_empty() {
            if inner.queue.capacity() > IDLE_QUEUE_MESSAGES {
                inner.queue = VecDeque::new();
            } else {
                // Begins at its first place again, which is in the cache: not at each place in turn.
                inner.queue.clear();
            }
            // Under the lock that pushers hold when they set it: none is missed.
            self.signals.fetch_and(!Signal::MAIL.0, Ordering::AcqRel);
        }
    }

    /// Whether the signal is up.
    pub(crate) fn has(&self, signal: Signal) -> bool {
        self.signals.load(Ordering::Acquire) & signal.0 != 0
    }

    /// Raises a signal and wakes the owner.
    pub(crate) fn signal(&self, signal: Signal) {
        self.notify(self.inner.lock(), signal);
    }

    /// Takes a signal down.
    pub(crate) fn clear(&self, signal: Signal) {
        self.signals.fetch_and(!signal.0, Ordering::AcqRel);
    }

    /// The calling task owns the session from now on and is woken by `waker`. What waited for it,
    /// recovered at the start or put back by the owner before, is mail.
    pub(crate) fn own(&self, waker: &Waker) {
        let mut inner = self.inner.lock();
        inner.owner = Some(waker.clone());
        inner.state = State::Live;
        self.live.store(true, Ordering::Relaxed);
        if !inner.queue.is_empty() {
            self.signals.fetch_or(Signal::MAIL.0, Ordering::AcqRel);
        }
    }

    /// The connection is gone, the session stays. `unsent` goes back to the front; payloads are
    /// let go of, the journal has them [MQTT311-3.1.2-5].
    pub(crate) fn park(&self, unsent: VecDeque<Delivery>) {
        let mut inner = self.inner.lock();
        inner.owner = None;
        inner.state = State::Parked;
        self.live.store(false, Ordering::Relaxed);
        inner.answered.clear();
        let waiting = inner.take_all();
        for mut delivery in unsent.into_iter().chain(waiting) {
            if delivery.token != 0 {
                delivery.message = None;
                inner.add(delivery);
            }
        }
        inner.queue.shrink_to_fit();
        self.expect_owner(&inner);
    }

    /// Puts back to the front what the owner has taken.
    pub(crate) fn give_back(&self, taken: VecDeque<Delivery>) {
        let mut inner = self.inner.lock();
        let waiting = inner.take_all();
        for delivery in taken.into_iter().chain(waiting) {
            inner.add(delivery);
        }
        self.expect_owner(&inner);
    }

    /// Leaves word for the next owner of what waits.
    fn expect_owner(&self, inner: &Inner) {
        if !inner.queue.is_empty() {
            self.signals.fetch_or(Signal::MAIL.0, Ordering::AcqRel);
        }
    }

    /// The session has ended. Returns what was still waiting.
    pub(crate) fn close(&self) -> VecDeque<Delivery> {
        let mut inner = self.inner.lock();
        inner.owner = None;
        inner.state = State::Closed;
        self.live.store(false, Ordering::Relaxed);
        inner.queued_bytes = 0;
        inner.answered.clear();
        std::mem::take(&mut inner.queue)
    }

    /// Deletes the durable record of a delivery, if it has one.
    pub(crate) fn forget(&self, delivery: &Delivery) {
        self.forget_token(delivery.token, delivery.body);
    }

    /// As [`Mailbox::forget`], by number.
    pub(crate) fn forget_token(&self, token: u64, body: BodyRef) {
        if token != 0
            && let Some(durable) = &self.durable
        {
            durable.delete_queued(self.number, token, body);
        }
    }

    // One wake per batch: whoever finds the signal already up knows that the owner will come.
    fn notify(&self, inner: MutexGuard<'_, Inner>, signal: Signal) {
        let before = self.signals.fetch_or(signal.0, Ordering::AcqRel);
        let waker = if before & signal.0 == 0 {
            inner.owner.clone()
        } else {
            None
        };
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Inner {
    fn take_all(&mut self) -> VecDeque<Delivery> {
        self.queued_bytes = 0;
        self.queued_qos0 = 0;
        self.resident_bytes = 0;
        self.answers = 0;
        self.answers_bytes = 0;
        std::mem::take(&mut self.queue)
    }

    fn add(&mut self, delivery: Delivery) {
        self.queued_bytes += delivery.weight_bytes;
        self.queued_qos0 += usize::from(delivery.options.qos == Qos::AtMostOnce);
        if delivery.message.is_some() {
            self.resident_bytes += delivery.weight_bytes;
        }
        if delivery.answer {
            self.answers += 1;
            self.answers_bytes += delivery.weight_bytes;
        }
        // In the order in which they come [MQTT-4.6.0-5, -6] [MQTT311-4.6.0-5, -6].
        self.queue.push_back(delivery);
    }

    fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop_front()?;
        self.queued_bytes = self.queued_bytes.saturating_sub(delivery.weight_bytes);
        self.queued_qos0 = self
            .queued_qos0
            .saturating_sub(usize::from(delivery.options.qos == Qos::AtMostOnce));
        if delivery.message.is_some() {
            self.resident_bytes = self.resident_bytes.saturating_sub(delivery.weight_bytes);
        }
        if delivery.answer {
            self.answers = self.answers.saturating_sub(1);
            self.answers_bytes = self.answers_bytes.saturating_sub(delivery.weight_bytes);
        }
        Some(delivery)
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
