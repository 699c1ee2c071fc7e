//! Deliveries from the mailbox into the output buffer, each judged at the moment it is sent.

use std::collections::VecDeque;

use store::Lsn;
use tokio::io::{AsyncRead, AsyncWrite};

use super::publish::Stalled;
use super::{Answer, Connection, take_lent};
use crate::codec::{PacketId, Qos};
use crate::server::groups::Shared;
use crate::server::layout::BodyRef;
use crate::server::mailbox::{Delivery, Signal};
use crate::server::message::Message;
use crate::server::passing::Record;
use crate::server::quiet;
use crate::server::retained::SEEK;
use crate::server::work::{LOOK, PACKET};
use crate::session::{DropReason, Progress, SendOptions, Sent, Token};

/// Deliveries taken from the mailbox under one lock.
const BATCH_MESSAGES: usize = 64;

/// Room for deliveries that an idle connection may keep.
const IDLE_STAGED_MESSAGES: usize = 4;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Encodes deliveries until none is left, the client's window is full or the output buffer is.
    /// Returns whether there is more to do once the buffer has been written.
    pub(super) fn pump(&mut self) -> bool {
        if self.session.owes_resend() {
            self.resend();
        }
        if self.mailbox.has(Signal::ANSWERED.and(Signal::WITHDRAWN)) {
            self.release_requests();
            if !self.sift() {
                return true;
            }
        }
        loop {
            if self.unsent() >= self.hub.limits.output_bytes || self.work.is_spent() {
                return true;
            }
            if self.staged.is_empty() && self.mailbox.has(Signal::MAIL) {
                self.mailbox.take(&mut self.staged, BATCH_MESSAGES);
            }
            if let Some(next) = self.staged.front() {
                if !self.session.may_send(next.options.qos, next.token)
                    || self.awaited_delivery().is_some()
                {
                    return false;
                }
                if let Some(next) = self.staged.pop_front() {
                    self.deliver(next);
                }
                continue;
            }
            let Some(owed) = &mut self.owed else { break };
            match owed.take() {
                Some((message, options)) if self.belongs_in_queue(&options) => {
                    self.work.spend(SEEK);
                    if self.queue_retained(&message, &options).is_err() {
                        self.keep_first(message, options);
                        return false;
                    }
                }
                Some((message, options)) if self.session.may_send(options.qos, 0) => {
                    self.work.spend(SEEK);
                    // What came under its topic meanwhile is newer, and on its way or there already.
                    if self.hub.retained.keeps(&message) {
                        self.send(&message, &options, 0, BodyRef::Inline, None);
                    }
                }
                Some((message, options)) => {
                    self.keep_first(message, options);
                    return false;
                }
                None => self.look_for_retained(),
            }
        }
        if self.staged.capacity() > IDLE_STAGED_MESSAGES {
            self.staged = VecDeque::new();
        } else {
            self.staged.clear();
        }
        false
    }

    /// Gives back what was taken out of what is owed.
    fn keep_first(&mut self, message: Message, options: SendOptions) {
        if let Some(owed) = &mut self.owed {
            owed.give_back(message, options);
        }
    }

    /// What the journal must be durable up to before the next delivery may be sent.
    pub(super) fn awaited_delivery(&self) -> Option<Lsn> {
        let after = self.staged.front()?.after?;
        (!self.hub.durable.is_durable(after)).then_some(after)
    }

    fn deliver(&mut self, delivery: Delivery) {
        quiet::works(self.now);
        let Delivery {
            message,
            options,
            token,
            body,
            shared,
            ..
        } = delivery;
        let message = match message {
            Some(message) => message,
            None => match self.hub.durable.queued(self.mailbox.number(), token, body) {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(client_id = self.key.client_id.as_str(), %error,
                        "a queued message cannot be read and is not delivered");
                    return;
                }
            },
        };
        self.send(&message, &options, token, body, shared);
    }

    fn send(
        &mut self,
        message: &Message,
        options: &SendOptions,
        token: Token,
        body: BodyRef,
        shared: Option<Box<Shared>>,
    ) {
        let identifiers = options.subscription_ids.as_ref().map_or(0, |ids| ids.len());
        self.work.spend(PACKET + identifiers * LOOK);
        let sent = if self.judge.admit(message, self.now, &mut self.work) {
            self.session
                .send(message, options, token, self.now, &mut self.out)
        } else {
            Sent::Dropped(DropReason::Refused)
        };
        match sent {
            Sent::Written(packet_id) => {
                self.counters.messages_out.add();
                if let Some(packet_id) = packet_id {
                    if token != 0 {
                        self.in_flight.push((token, body));
                    }
                    if let Some(shared) = shared
                        // Of QoS 2 nobody else may have it any more [MQTT-4.8.2-4, -5].
                        && options.qos == Qos::AtLeastOnce
                    {
                        self.lent.push((packet_id, shared));
                    }
                }
            }
            Sent::Dropped(reason) => {
                self.count_drop(reason);
                match shared.filter(|_| reason != DropReason::Expired) {
                    Some(shared) => {
                        let number = self.mailbox.number();
                        let record = Record {
                            number,
                            token,
                            body,
                        };
                        self.hub.pass_on(message, shared, record);
                    }
                    None => self.mailbox.forget_token(token, body),
                }
            }
        }
    }

    /// Sends again what an earlier connection left open; the same judge has the word.
    fn resend(&mut self) {
        let (judge, work, now) = (&mut self.judge, &mut self.work, self.now);
        let dropped = self.session.resend(
            |message| judge.admit(message, now, work),
            now,
            &mut self.out,
        );
        for (flight, reason) in dropped {
            self.count_drop(reason);
            let shared = take_lent(&mut self.lent, flight.packet_id);
            match (flight.progress, shared) {
                // It goes on with its record.
                (Progress::Sent { message, .. }, Some(shared)) => {
                    let number = self.mailbox.number();
                    let (token, body) = self
                        .take_in_flight(flight.token)
                        .unwrap_or((0, BodyRef::Inline));
                    let record = Record {
                        number,
                        token,
                        body,
                    };
                    self.hub.pass_on(&message, shared, record);
                }
                _ => self.forget_in_flight(flight.token),
            }
        }
    }

    /// The client has a message of QoS 2: its PUBREL leaves when that is on the disk, so that no
    /// crash sends the message again.
    pub(super) fn received(&mut self, token: Token, packet_id: PacketId) {
        let answer = Answer::Release(packet_id);
        let Some((_, body)) = self.in_flight.iter_mut().find(|(t, _)| *t == token) else {
            return self.answer_when(None, answer);
        };
        match self
            .hub
            .durable
            .put_received(self.mailbox.number(), token, *body)
        {
            Ok(lsn) => {
                *body = BodyRef::Inline;
                self.answer_when(Some(lsn), answer);
            }
            Err(_) => self.hold(Stalled::Received { token, packet_id }),
        }
    }

    /// The client has a message, or has refused it: then too nobody else gets it [MQTT-4.8.2-6].
    pub(super) fn acknowledged(&mut self, token: Token, packet_id: PacketId) {
        self.forget_in_flight(token);
        take_lent(&mut self.lent, packet_id);
    }

    fn forget_in_flight(&mut self, token: Token) {
        if let Some((token, body)) = self.take_in_flight(token) {
            self.mailbox.forget_token(token, body);
        }
    }

    fn take_in_flight(&mut self, token: Token) -> Option<(Token, BodyRef)> {
        let at = self.in_flight.iter().position(|(t, _)| *t == token)?;
        Some(self.in_flight.swap_remove(at))
    }

    fn count_drop(&self, reason: DropReason) {
        match reason {
            DropReason::TooLarge => self.counters.dropped_too_large.add(),
            DropReason::Expired => self.counters.dropped_expired.add(),
            DropReason::Refused => self.counters.denied_receive.add(),
            DropReason::NoRoom => self.counters.dropped_queue_full.add(),
        }
    }
}
