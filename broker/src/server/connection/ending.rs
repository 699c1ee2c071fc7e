//! How a connection ends, and what is kept of its session.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::publish::Stalled;
use super::{Answer, Connection, Waiting, take_lent, violation};
use crate::codec::{ReasonCode, SESSION_NEVER_EXPIRES};
use crate::server::identity::NotInGoodStanding;
use crate::server::layout::BodyRef;
use crate::server::mailbox::Signal;
use crate::server::parked::{Parked, ParkedFlight, ParkedProgress};
use crate::server::passing::Record;
use crate::server::reserved::LifecycleChange;
use crate::server::wills::DueWill;
use crate::session::{Closed, Disconnect, Progress, Token};

/// How long the last words may take, and how long we listen after them so that they are not lost
/// to a reset.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// Bytes of what the peer still sends that are read and thrown away meanwhile.
const GOODBYE_DISCARDED_BYTES: usize = 256 * 1024;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// The client said goodbye.
    #[error("the client disconnected")]
    Left,
    /// The socket is gone.
    #[error("the connection was lost")]
    Lost,
    /// The client broke the protocol, or was silent for too long.
    #[error("{0}")]
    Broke(Disconnect),
    /// It asked for what it may not do, and this is the only way to say so.
    #[error("{1}")]
    Denied(ReasonCode, String),
    /// A newer connection has the session.
    #[error("taken over by a newer connection with this client id")]
    TakenOver,
    /// The certificate is no longer good.
    #[error("{0}")]
    Revoked(NotInGoodStanding),
    /// The certificate belongs to another thing now.
    #[error("the certificate now belongs to another thing")]
    Moved,
    /// The server shuts down.
    #[error("the server is shutting down")]
    Draining,
    /// DeleteConnection.
    #[error("an operator or another device has ended the connection")]
    Removed {
        /// Its session ends too.
        clean: bool,
        /// Its will is not published.
        without_will: bool,
    },
    /// The client reads nothing of what it is sent.
    #[error("the client stopped reading")]
    Stalled,
    /// The client began a packet and does not finish it.
    #[error("a packet took too long from its first byte to its last")]
    Dripped,
}

impl End {
    /// What an MQTT 5 client is told.
    fn reason(&self) -> Option<ReasonCode> {
        match self {
            Self::Left | Self::Lost => None,
            Self::Broke(disconnect) => Some(disconnect.reason),
            Self::Denied(reason, _) => Some(*reason),
            Self::TakenOver => Some(ReasonCode::SessionTakenOver),
            Self::Revoked(_) | Self::Moved | Self::Removed { .. } => {
                Some(ReasonCode::AdministrativeAction)
            }
            Self::Draining => Some(ReasonCode::ServerShuttingDown),
            Self::Stalled => Some(ReasonCode::QuotaExceeded),
            Self::Dripped => Some(ReasonCode::KeepAliveTimeout),
        }
    }

    /// Whether nothing of the session may remain, unless its device has renewed: this certificate was
    /// revoked, deactivated or deleted. One that merely expired can be renewed.
    fn forfeits(&self) -> bool {
        matches!(
            self,
            Self::Revoked(NotInGoodStanding::Unknown | NotInGoodStanding::NotActive(_))
        )
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Settles the session first, so that whoever waits for it need not wait for this peer, then
    /// says goodbye.
    pub(super) async fn finish(mut self: Box<Self>, end: End) {
        self.counters.disconnected.add();
        self.routes.tell_uses(&self.judge);
        self.judge.tell_uses();
        self.log(&end);
        self.tell(LifecycleChange::Disconnected(end.cause()));
        if let End::Broke(Disconnect { reason, text }) = &end {
            let how = (*reason, Some(self.session.version()));
            violation::note_broken(&self.hub, &self.identity, how, text);
        }
        self.borrow_output();
        if let Some(reason) = end.reason() {
            let text = end.to_string();
            self.session.disconnect(reason, Some(&text), &mut self.out);
        }
        self.watch = None;
        match self.stalled.take().map(|stalled| *stalled) {
            // The client will not say it again, and hears PUBREL when it is back.
            Some(Stalled::Received { token, .. }) => self.keep_received(token).await,
            Some(stalled) => stalled.abandon(&self.hub, &self.counters),
            None => {}
        }
        // Done already, only the answer waited for the disk: the session must know of it.
        let mut unsaid = Vec::new();
        for Waiting { answer, .. } in std::mem::take(&mut self.waiting) {
            match answer {
                Answer::Subscribe(requests, ..) => {
                    self.session.subscribed(requests, None, &mut unsaid);
                }
                Answer::Unsubscribe(requests) => self.session.unsubscribed(requests, &mut unsaid),
                _ => {}
            }
        }
        if let Some(sieve) = self.sieve.take() {
            let (hub, mailbox) = (Arc::clone(&self.hub), Arc::clone(&self.mailbox));
            self.staged = sieve.all(&hub, &mailbox, &self.counters).await;
            mailbox.clear(Signal::WITHDRAWN);
        }
        let out = self.out.split_off(self.written.min(self.out.len()));
        let Self {
            mut io,
            hub,
            session,
            key,
            mailbox,
            mut identity,
            mut generation,
            staged,
            in_flight,
            mut lent,
            held,
            owed,
            ..
        } = *self;
        let mut forfeited = false;
        if end.forfeits() {
            match identity.heir(&*hub.registry, &key.owner) {
                Ok(Some(heir)) => identity = heir,
                Ok(None) => forfeited = true,
                // Until then the session belongs to a certificate that nothing is done for.
                Err(_) => {}
            }
            // The janitor asks again: it may have changed since.
            generation = identity.standing.generation().wrapping_sub(1);
        }
        let Closed {
            mut will,
            mut expiry_s,
            stored,
        } = session.close();
        if let End::Removed {
            clean,
            without_will,
        } = end
        {
            will = will.filter(|_| !without_will);
            expiry_s = if clean { 0 } else { expiry_s };
        }
        let body_of = |token| {
            let found = in_flight.iter().find(|(t, _)| *t == token);
            found.map_or(BodyRef::Inline, |(_, body)| *body)
        };
        let mut will_now = None;
        let mut will_record = None;
        // [MQTT-3.1.2-23, 4.1.0-2] [MQTT311-3.1.2-4, -6, 4.1.0-1]
        if forfeited || expiry_s == 0 || !mailbox.is_durable() {
            for delivery in staged {
                hub.drop_unsent(&mailbox, delivery);
            }
            let mut passed = Vec::new();
            for flight in stored.in_flight {
                if let Progress::Sent { message, .. } = flight.progress
                    && let Some(shared) = take_lent(&mut lent, flight.packet_id)
                {
                    let record = Record {
                        number: mailbox.number(),
                        token: flight.token,
                        body: body_of(flight.token),
                    };
                    hub.pass_on(&message, shared, record);
                    passed.push(flight.token);
                }
            }
            for (token, body) in &in_flight {
                // What was passed on goes with its record.
                if !passed.contains(token) {
                    mailbox.forget_token(*token, *body);
                }
            }
            if mailbox.is_durable() {
                for (packet_id, _) in &held {
                    hub.durable.delete_held(mailbox.number(), *packet_id);
                }
            }
            hub.erase(&key, &mailbox, stored.subscriptions);
            hub.sessions.release(&key, &mailbox, None, 0, 0);
            if forfeited {
                // Only then: what a session retained outlives it otherwise [MQTT311-3.1.2-7].
                hub.forget_retained_of(identity.certificate());
            } else {
                will_now = will;
            }
        } else {
            mailbox.park(staged);
            let now = hub.clock.now();
            // A shut-down server publishes the wills it owes after its next start
            // (MQTT 5 §3.1.2.5: the server may defer them), so that a restart is not an alarm.
            let deferred = matches!(end, End::Draining);
            let (at_once, later) = match will {
                Some(will) if will.delay_s > 0 || deferred => {
                    let due = now.plus_seconds(will.delay_s);
                    (None, Some(due))
                }
                other => (other, None),
            };
            will_now = at_once;
            let parked = Parked {
                _watch: identity.standing.watch(hub.deadlines.waker(&key.owner)),
                mailbox: mailbox.clone(),
                identity: identity.clone(),
                generation,
                subscriptions: stored.subscriptions,
                in_flight: stored
                    .in_flight
                    .iter()
                    .filter(|flight| flight.token != 0)
                    .map(|flight| ParkedFlight {
                        token: flight.token,
                        progress: match &flight.progress {
                            Progress::Sent { options, .. } => ParkedProgress::Sent {
                                options: options.clone(),
                                body: body_of(flight.token),
                            },
                            Progress::Received { .. } => ParkedProgress::Received,
                        },
                        shared: take_lent(&mut lent, flight.packet_id),
                    })
                    .collect(),
                held: held.iter().map(|(packet_id, _)| *packet_id).collect(),
                owed,
                next_packet_id: stored.next_packet_id,
                expiry_s,
                expires_at: (expiry_s != SESSION_NEVER_EXPIRES).then(|| now.plus_seconds(expiry_s)),
                will_due: later,
            };
            will_record = will_now
                .as_ref()
                .map(|_| hub.wills.record(mailbox.number()));
            if parked.will_due.is_none() && will_now.is_none() {
                hub.durable.delete_will(mailbox.number());
            }
            hub.park(&key, Box::new(parked)).await;
        }
        let spoken = hub.farewells.say(say(&mut io, &out, &end)).await;
        if let Some(will) = will_now {
            hub.publish_will(DueWill {
                number: mailbox.number(),
                key,
                identity,
                will,
                record: will_record,
            });
        }
        if spoken == Some(true) {
            // Whether it heard them out does not matter: the socket is closed next.
            let _ = hub.farewells.say(listen(&mut io)).await;
        }
    }

    /// Notes that the client has a message of QoS 2, waiting where the journal is behind; not for a disk that is nearly
    /// full: after a crash the client is sent that message once more, and says again that it has it.
    async fn keep_received(&mut self, token: Token) {
        let Some((_, kept)) = self.in_flight.iter().find(|(t, _)| *t == token).copied() else {
            return;
        };
        let (hub, number) = (Arc::clone(&self.hub), self.mailbox.number());
        let noted = hub.written_soon(|durable| durable.put_received(number, token, kept));
        if noted.await.is_some()
            && let Some((_, body)) = self.in_flight.iter_mut().find(|(t, _)| *t == token)
        {
            *body = BodyRef::Inline;
        }
    }

    fn log(&self, end: &End) {
        match end {
            End::TakenOver => self.counters.taken_over.add(),
            End::Revoked(_) => self.counters.revoked.add(),
            End::Stalled => self.counters.stalled.add(),
            _ => {}
        }
        let client_id = self.key.client_id.as_str();
        match end {
            End::Left | End::Lost | End::Draining => {
                tracing::debug!(owner = %self.key.owner, client_id, "disconnected: {end}");
            }
            // What the client did it can do again as often as it likes.
            End::Broke(_) | End::Dripped | End::Denied(..) | End::TakenOver | End::Stalled => {
                if let Some(left_out) = self.hub.end_lines.take_counting() {
                    tracing::info!(owner = %self.key.owner, client_id, left_out, "disconnected: {end}");
                }
            }
            End::Revoked(_) | End::Moved | End::Removed { .. } => {
                tracing::info!(owner = %self.key.owner, client_id, "disconnected: {end}");
            }
        }
    }
}

/// Writes the last words and closes [MQTT-3.1.4-3, 3.14.4-2, 4.13.1-1, 4.13.2-1] [MQTT311-3.14.4-1, 4.8.0-1, -2].
/// Whether the peer may have heard them.
async fn say(io: &mut (impl AsyncRead + AsyncWrite + Unpin), out: &[u8], end: &End) -> bool {
    if matches!(end, End::Lost) {
        return false;
    }
    // A client that has closed its side with its DISCONNECT hears nothing more and needs no close from us.
    if matches!(end, End::Left) && out.is_empty() && has_closed(io).await {
        return false;
    }
    let words = async {
        io.write_all(out).await?;
        io.flush().await?;
        io.shutdown().await
    };
    matches!(tokio::time::timeout(GOODBYE_TIME, words).await, Ok(Ok(())))
}

/// Whether the peer's end of the stream has come already; waits for nothing.
async fn has_closed(io: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut byte = [0_u8; 1];
    let mut buffer = ReadBuf::new(&mut byte);
    let read = poll_fn(|cx| Poll::Ready(Pin::new(&mut *io).poll_read(cx, &mut buffer))).await;
    match read {
        Poll::Ready(Ok(())) => buffer.filled().is_empty(),
        Poll::Ready(Err(_)) => true,
        Poll::Pending => false,
    }
}

/// Closing a socket with unread input resets it and may take our last words with it.
async fn listen(io: &mut (impl AsyncRead + Unpin)) {
    let mut discarded = 0;
    let mut buffer = [0_u8; 1024];
    let drain = async {
        while discarded < GOODBYE_DISCARDED_BYTES {
            match io.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(n) => discarded += n,
            }
        }
    };
    // However it ends, the socket is closed next.
    let _ = tokio::time::timeout(GOODBYE_TIME, drain).await;
}
