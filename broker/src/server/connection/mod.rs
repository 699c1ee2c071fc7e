//! One connection: socket, TLS and session owned by one task.
//!
//! The task is one poll: look at what changed, take what is there up to a fair share of bytes and of work, route it,
//! pump deliveries into one output buffer up to another share of work, write it once. Whoever wakes it (socket, mailbox,
//! registry, journal, timer) wakes this poll; nothing of a connection runs anywhere else.

mod deliver;
mod ending;
mod explanations;
mod input;
mod lifecycle;
mod open;
mod output;
mod owed;
mod publish;
mod readable;
mod routes;
mod standing;
mod subscribe;
mod timer;
mod violation;
#[cfg(feature = "simulate")]
mod warm;
mod withdrawn;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use fleet::WatchGuard;
use store::Lsn;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use self::ending::End;
use self::explanations::Explanations;
pub(crate) use self::open::connect;
pub(crate) use self::owed::Owed;
use self::publish::Stalled;
use self::readable::Readable;
pub(crate) use self::routes::Kind;
use self::routes::Routes;
use self::timer::Timer;
pub(crate) use self::violation::SERVERS_TOPIC;
#[cfg(feature = "simulate")]
pub use self::warm::Warm;
use self::withdrawn::Sieve;
use super::delivery::Judge;
use super::exits;
use super::groups::Shared;
use super::hub::Hub;
use super::identity::Identity;
use super::layout::BodyRef;
use super::mailbox::{Delivery, Mailbox, Signal};
use super::message::Message;
use super::reserved::LifecycleChange;
use super::sessions::SessionKey;
use super::stats::Counters;
use super::work::Work;
use crate::codec::{PacketId, ReasonCode, SubscriptionOptions};
use crate::session::{Session, SubscribeRequests, Time, Token, UnsubscribeRequests};
use crate::topic::TopicFilter;

/// Rounds of pumping and writing before the other connections of the core have their turn.
const OUTPUT_ROUNDS: usize = 4;

/// In the order of use, and kept in it: what each turn looks at comes first and lies in few lines of the cache. Of a fleet
/// that says little every line of a connection comes from far, and a turn costs what those cost.
#[repr(C, align(64))]
pub(crate) struct Connection<S> {
    hub: Arc<Hub>,
    counters: Arc<Counters>,
    mailbox: Arc<Mailbox>,
    now: Time,
    /// What is left of this turn's share.
    work: Work,
    /// From the first turn on.
    readable: Option<Readable>,
    watch: Option<WatchGuard>,
    /// The standing's generation that `judge` was made of.
    generation: u64,
    /// When the certificate ends.
    not_after: Time,
    timer: Timer,
    /// Not to be read before; its core is saturated.
    rests_until: Option<Time>,
    /// Since when the peer takes nothing.
    blocked_since: Option<Time>,
    /// Since when the packet in `partial` is unfinished.
    partial_since: Option<Time>,
    /// Whether `partial` may hold whole packets.
    undigested: bool,
    /// Whether reading stopped because something had to happen first.
    held_back: bool,
    /// Whether all that the peer had said was read, until the socket called again.
    heard_out: bool,
    /// Whether it is `stalled` for the journal, not for a new share of work.
    behind: bool,
    out: Vec<u8>,
    /// How much of `out` has been written.
    written: usize,
    /// Taken from the mailbox and not sent yet.
    staged: VecDeque<Delivery>,
    /// What is retained under new subscriptions and still to be sent, or to be queued first.
    owed: Option<Box<Owed>>,
    /// Up to where the journal has been asked to wake this task.
    asked: Option<Lsn>,
    /// Answers that wait for the disk, in order.
    waiting: VecDeque<Waiting>,
    /// Requests to reserved topics that have not been answered, and what their answer releases.
    requests: Vec<(u64, Option<Answer>)>,
    stalled: Option<Box<Stalled>>,
    /// An unfinished packet, or packets that could not be handled yet.
    partial: BytesMut,
    session: Session<Message>,
    judge: Judge,
    routes: Routes,
    identity: Identity,
    io: S,
    key: SessionKey,
    /// Tells it apart from other connections of this client id.
    version: u64,
    /// What waits, while it is looked through for what came by lost subscriptions.
    sieve: Option<Box<Sieve>>,
    /// Why it is to end: it came back to a subscription that the policy no longer grants.
    lost: Option<String>,
    /// Deliveries in flight whose records go when they are acknowledged.
    in_flight: Vec<(Token, BodyRef)>,
    /// Of those of QoS 1 that came by a shared subscription: who else can have them.
    lent: Vec<(PacketId, Box<Shared>)>,
    /// Messages of QoS 2 that the client has not released, and those that are being routed.
    held: Vec<(PacketId, Message)>,
    held_bytes: usize,
    /// What the client was told of refusals.
    explanations: Explanations,
}

/// Wakes the task of this turn when the others of its core have had theirs, also those whose sockets have called
/// meanwhile: a waker by itself would have it back before the sockets are looked at.
fn let_others(cx: &mut Context<'_>) {
    // Pending, as its first poll always is: it has left the waker where it is called behind the sockets'.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// Who else can have what was sent under a packet identifier and is not acknowledged.
fn take_lent(lent: &mut Vec<(PacketId, Box<Shared>)>, packet_id: PacketId) -> Option<Box<Shared>> {
    let at = lent.iter().position(|(lent, _)| *lent == packet_id)?;
    Some(lent.swap_remove(at).1)
}

/// An answer that must not leave before the journal is durable up to `lsn`.
struct Waiting {
    lsn: Lsn,
    answer: Answer,
}

enum Answer {
    /// PUBACK, or PUBREC.
    Publish(PacketId, ReasonCode),
    /// PUBCOMP.
    Complete(PacketId),
    /// PUBREL.
    Release(PacketId),
    /// SUBACK, under which of the subscriptions what is retained is wanted (and whether their records say so), and why some
    /// are not granted.
    Subscribe(
        SubscribeRequests,
        Vec<(TopicFilter, SubscriptionOptions, bool)>,
        Option<&'static str>,
    ),
    Unsubscribe(UnsubscribeRequests),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Serves the connection to its end. Boxed, as its last steps are, so that the task of an idle
    /// connection is as small as the connection itself.
    pub(crate) async fn run(mut self: Box<Self>) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        let last = async move {
            exits::turn().await;
            self.finish(end).await;
        };
        Box::pin(last).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.borrow_output();
        let end = self.turn(cx);
        self.return_output();
        match end {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        self.now = self.hub.clock.now();
        self.work = self.hub.share();
        if self.watch.is_none() {
            self.mailbox.own(cx.waker());
            self.watch = Some(self.identity.standing.watch(cx.waker().clone()));
            self.readable = Some(Readable::new(cx.waker().clone()));
        }
        if self.mailbox.has(Signal::TAKEOVER) {
            return Err(End::TakenOver);
        }
        if self.mailbox.has(Signal::DRAIN) {
            return Err(End::Draining);
        }
        if self.mailbox.has(Signal::REMOVED) {
            return Err(End::Removed {
                clean: self.mailbox.has(Signal::CLEAN),
                without_will: self.mailbox.has(Signal::NO_WILL),
            });
        }
        self.check_standing()?;
        self.settle(cx);
        let durable = self.hub.durable.journal().durable();
        self.resume_stalled()?;
        self.input(cx)?;
        self.settle(cx);
        let taken = std::mem::replace(&mut self.work, self.hub.share());
        // Nothing is put into the output below this: it would not be flushed.
        for round in 0.. {
            let more = self.pump();
            self.flush(cx)?;
            if !more || self.is_blocked() {
                break;
            }
            if round == OUTPUT_ROUNDS || self.work.is_spent() {
                let_others(cx);
                break;
            }
        }
        // Who waits for the journal is woken by it, however much work it was to find that out.
        let goes_on = self.stalled.is_none() || !self.behind;
        if taken.is_spent() && goes_on {
            // What was taken is not all handled, or there may be more of it.
            self.counters.turns_cut.add();
            let_others(cx);
        } else if self.stalled.is_some() || self.owes_retained() {
            // A commit since the look above is the one to wait for.
            self.wake_when_durable(Lsn(durable.0.saturating_add(1)), cx);
        }
        if let Some(lsn) = self.awaited_delivery() {
            self.wake_when_durable(lsn, cx);
        }
        // Also for an answer that was released while pumping: the looks above were before it.
        if let Some(lsn) = self.waiting.front().map(|front| front.lsn) {
            self.wake_when_durable(lsn, cx);
        }
        if self.held_back && self.may_read() {
            // What held the reading back has happened in this very turn.
            cx.waker().wake_by_ref();
        }
        self.keep_time(cx)
    }

    /// Sends the answers whose writes have become durable.
    fn settle(&mut self, cx: &mut Context<'_>) {
        while let Some(front) = self.waiting.front() {
            let lsn = front.lsn;
            if !self.hub.durable.is_durable(lsn) {
                return self.wake_when_durable(lsn, cx);
            }
            self.asked = None;
            if let Some(Waiting { answer, .. }) = self.waiting.pop_front() {
                self.answer(answer);
            }
        }
    }

    /// The journal wakes a task once, at the earliest of the positions it asked for: while that one
    /// is still to come there is no need to ask, once it has come all others must be asked for anew.
    fn wake_when_durable(&mut self, lsn: Lsn, cx: &Context<'_>) {
        let earlier = |asked| asked <= lsn && !self.hub.durable.is_durable(asked);
        if !self.asked.is_some_and(earlier) {
            self.asked = Some(lsn);
            let journal = self.hub.durable.journal();
            journal.wake_when_durable(lsn, cx.waker());
        }
    }

    /// Answers now, or when the journal has come to `lsn`. Answers keep their order, PUBRELs among them [MQTT-4.6.0-4]
    /// [MQTT311-4.6.0-4]; of PUBACKs and PUBRECs the session keeps it.
    fn answer_when(&mut self, lsn: Option<Lsn>, answer: Answer) {
        let safe = lsn.is_none_or(|lsn| self.hub.durable.is_durable(lsn));
        let in_turn = self.waiting.is_empty() || matches!(answer, Answer::Publish(..));
        if safe && in_turn {
            return self.answer(answer);
        }
        let lsn = lsn.unwrap_or(Lsn(0));
        self.waiting.push_back(Waiting { lsn, answer });
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Publish(packet_id, reason) => {
                self.session
                    .published(packet_id, reason, None, &mut self.out);
            }
            Answer::Complete(packet_id) => self.session.completed(packet_id, &mut self.out),
            Answer::Release(packet_id) => self.session.release(packet_id, &mut self.out),
            Answer::Subscribe(requests, with_retained, refused) => {
                self.answer_subscribe(requests, with_retained, refused);
            }
            Answer::Unsubscribe(requests) => {
                let filters = requests.filters().map(ToOwned::to_owned).collect();
                self.tell(LifecycleChange::Unsubscribed(filters));
                self.session.unsubscribed(requests, &mut self.out);
            }
        }
    }
}
