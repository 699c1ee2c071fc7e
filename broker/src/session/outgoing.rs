use std::collections::VecDeque;
use std::num::NonZeroU16;

use super::{InFlight, Publication, Session, Time, Token};
use crate::codec::{Delivery, PacketId, PublishRef, Qos, SubscriptionOptions};

/// How one publication goes to one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendOptions {
    /// The smaller of the publication's and the subscription's.
    pub qos: Qos,
    /// RETAIN flag.
    pub retain: bool,
}

impl SendOptions {
    /// A publication as it happens: the smaller QoS [MQTT-3.8.4-8]; RETAIN only if the subscription wants it as
    /// published [MQTT-3.3.1-12, -13]. `None` where it is the receiver's own and No Local is set [MQTT-3.8.3-3].
    pub fn live(
        published: Qos,
        retain: bool,
        own: bool,
        subscription: &SubscriptionOptions,
    ) -> Option<Self> {
        (!(own && subscription.no_local)).then(|| Self {
            qos: published.min(subscription.qos),
            retain: retain && subscription.retain_as_published,
        })
    }

    /// A retained message for a new subscription: always with RETAIN [MQTT-3.3.1-8].
    pub fn retained(published: Qos, subscription: &SubscriptionOptions) -> Self {
        Self {
            qos: published.min(subscription.qos),
            retain: true,
        }
    }
}

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is in the output; from QoS 1 on, in flight under this packet identifier.
    Written(Option<PacketId>),
    /// It is not, and never will be: count it and forget it.
    Dropped(DropReason),
}

/// Why a message is not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// Longer than the client's Maximum Packet Size [MQTT-3.1.2-24, -25].
    TooLarge,
    /// Its expiry has passed [MQTT-3.3.2-5].
    Expired,
    /// The shell refused it.
    Refused,
    /// [`super::Session::may_send`] was false.
    NoRoom,
}

/// What was sent with QoS 1 and is not acknowledged yet, in the order of sending.
#[derive(Debug)]
pub(super) struct Outgoing<M> {
    in_flight: VecDeque<InFlight<M>>,
    /// How many at the back come from an earlier connection and wait to be sent again.
    owed: usize,
    next_packet_id: PacketId,
    /// Bound on what is sent and unacknowledged on this connection.
    max_messages: usize,
}

impl<M> Outgoing<M> {
    pub(super) fn new(
        in_flight: Vec<InFlight<M>>,
        next_packet_id: PacketId,
        max_messages: NonZeroU16,
    ) -> Self {
        Self {
            owed: in_flight.len(),
            in_flight: in_flight.into(),
            next_packet_id,
            max_messages: max_messages.get().into(),
        }
    }

    pub(super) const fn owes_resend(&self) -> bool {
        self.owed > 0
    }

    fn sent(&self) -> usize {
        self.in_flight.len() - self.owed
    }

    pub(super) fn has_room(&self) -> bool {
        self.owed == 0 && self.sent() < self.max_messages
    }

    /// Takes out what the client has. Nearly always the first, so the search is short.
    pub(super) fn acknowledge(&mut self, packet_id: PacketId) -> Option<Token> {
        let at = self
            .in_flight
            .iter()
            .position(|sent| sent.packet_id == packet_id)?;
        if at >= self.sent() {
            // Not sent on this connection yet: it is no longer owed either.
            self.owed -= 1;
        }
        self.in_flight.remove(at).map(|sent| sent.token)
    }

    /// A packet identifier that is not in use [MQTT-2.2.1-4]. With room for one more there always is one, because at
    /// most 65,534 others are in flight.
    fn free_packet_id(&self) -> PacketId {
        let mut packet_id = self.next_packet_id;
        while self
            .in_flight
            .iter()
            .any(|sent| sent.packet_id == packet_id)
        {
            packet_id = after(packet_id);
        }
        packet_id
    }

    pub(super) fn into_stored(self) -> (Vec<InFlight<M>>, PacketId) {
        (self.in_flight.into(), self.next_packet_id)
    }
}

/// The next identifier; 1 comes after 65,535.
fn after(packet_id: PacketId) -> PacketId {
    packet_id.checked_add(1).unwrap_or(PacketId::MIN)
}

impl<M: AsRef<Publication> + Clone> Session<M> {
    /// Sends a publication. `token` comes back in [`super::Event::Acknowledged`]; QoS 0 has none.
    pub fn send(
        &mut self,
        message: &M,
        options: SendOptions,
        token: Token,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Sent {
        let qos = options.qos.min(Qos::AtLeastOnce);
        if !self.may_send(qos) {
            return Sent::Dropped(DropReason::NoRoom);
        }
        let delivery = match qos {
            Qos::AtMostOnce => Delivery::AtMostOnce,
            Qos::AtLeastOnce | Qos::ExactlyOnce => Delivery::AtLeastOnce {
                packet_id: self.outgoing.free_packet_id(),
                dup: false,
            },
        };
        if let Err(reason) = self.write(message.as_ref(), delivery, options.retain, now, out) {
            return Sent::Dropped(reason);
        }
        let packet_id = delivery.packet_id();
        if let Some(packet_id) = packet_id {
            self.outgoing.next_packet_id = after(packet_id);
            self.outgoing.in_flight.push_back(InFlight {
                packet_id,
                token,
                qos,
                retain: options.retain,
                message: message.clone(),
            });
        }
        Sent::Written(packet_id)
    }

    /// Sends again what an earlier connection left unacknowledged, with DUP and the same packet identifiers
    /// [MQTT-4.4.0-1], as far as the client's Receive Maximum goes. `allow` judges each delivery as if it were new.
    /// Returns what is not to be delivered any more: refused by `allow`, expired, or too large for this client.
    pub fn resend(
        &mut self,
        mut allow: impl FnMut(&M) -> bool,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Vec<(Token, DropReason)> {
        let mut dropped = Vec::new();
        while !self.ended
            && self.outgoing.owes_resend()
            && self.outgoing.sent() < self.outgoing.max_messages
        {
            let at = self.outgoing.sent();
            let Some(owed) = self.outgoing.in_flight.get(at) else {
                break;
            };
            let delivery = Delivery::AtLeastOnce {
                packet_id: owed.packet_id,
                dup: true,
            };
            let written = if allow(&owed.message) {
                self.write(owed.message.as_ref(), delivery, owed.retain, now, out)
            } else {
                Err(DropReason::Refused)
            };
            self.outgoing.owed -= 1;
            if let Err(reason) = written {
                let removed = self.outgoing.in_flight.remove(at);
                dropped.extend(removed.map(|removed| (removed.token, reason)));
            }
        }
        dropped
    }

    fn write(
        &self,
        publication: &Publication,
        delivery: Delivery,
        retain: bool,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        if publication.is_expired(now) {
            return Err(DropReason::Expired); // [MQTT-3.3.2-5]
        }
        let packet = PublishRef {
            delivery,
            retain,
            topic: publication.topic.as_str(),
            topic_alias: None,
            expiry_s: publication.expires_at.map(|at| at.seconds_since(now)), // [MQTT-3.3.2-6]
            subscription_ids: &[],
            properties: publication.properties.as_deref(),
            payload: &publication.payload,
        };
        if packet.encoded_len(self.version) > self.packet_max_bytes {
            return Err(DropReason::TooLarge); // [MQTT-3.1.2-24]
        }
        packet.encode(self.version, out);
        Ok(())
    }
}
