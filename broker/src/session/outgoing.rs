use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::aliases::Naming;
use super::{
    Disconnect, Event, InFlight, Progress, PublicationRef, Published, Session, Time, Token,
    protocol,
};
use crate::codec::{
    Acknowledgement, Delivery, PacketId, PubRel, PublishRef, Qos, ReasonCode, SubscriptionOptions,
    Version,
};

/// Where the search begins for the packet identifiers of what has no token, in a session whose other identifiers
/// follow from their tokens: far from those.
pub const UNNUMBERED_FROM: PacketId = PacketId::new(0x8000).unwrap();

/// How one publication goes to one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendOptions {
    /// The smaller of the publication's and the subscription's.
    pub qos: Qos,
    /// RETAIN flag.
    pub retain: bool,
    /// The identifiers of all subscriptions it is delivered for [MQTT-3.3.4-3], [MQTT-3.3.4-4].
    pub subscription_ids: Option<Arc<[u32]>>,
}

impl SendOptions {
    /// What it weighs beside the publication.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        let ids = self.subscription_ids.as_deref();
        ids.map_or(0, size_of_val)
    }

    /// A retained message for a new subscription: always with RETAIN (§3.3.1.3) [MQTT311-3.3.1-8].
    #[must_use]
    pub fn retained(published: Qos, subscription: &SubscriptionOptions) -> Self {
        Self {
            qos: published.min(subscription.qos),
            retain: true,
            subscription_ids: subscription.id.map(|id| Arc::from([id])),
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

/// What was sent with QoS 1 or 2 and is not acknowledged yet, in the order of sending.
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

    pub(super) fn has_room_for(&self, token: Token) -> bool {
        self.owed == 0
            && self.sent() < self.max_messages
            && packet_id_of(token).is_none_or(|packet_id| !self.uses(packet_id))
    }

    fn position(&self, packet_id: PacketId) -> Option<usize> {
        // Nearly always the first, so the search is short.
        self.in_flight
            .iter()
            .position(|sent| sent.packet_id == packet_id)
    }

    fn uses(&self, packet_id: PacketId) -> bool {
        self.position(packet_id).is_some()
    }

    /// Takes out what the client has.
    fn remove(&mut self, at: usize) -> Option<InFlight<M>> {
        if at >= self.sent() {
            // Not sent on this connection yet: it is no longer owed either.
            self.owed -= 1;
        }
        self.in_flight.remove(at)
    }

    /// A packet identifier that is not in use [MQTT-2.2.1-4, 4.3.2-1, 4.3.3-1] [MQTT311-2.3.1-4]. With room for one more there always is one, because at
    /// most 65,534 others are in flight.
    fn packet_id_for(&self, token: Token) -> PacketId {
        if let Some(packet_id) = packet_id_of(token) {
            return packet_id;
        }
        let mut packet_id = self.next_packet_id;
        while self.uses(packet_id) {
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

/// The packet identifier of a delivery with a token: it follows from the token alone, so that after a crash the same
/// message goes out under the same identifier although nothing was written when it was first sent. `None` for token 0,
/// which no crash survives.
pub(super) fn packet_id_of(token: Token) -> Option<PacketId> {
    let ordinal = token.checked_sub(1)? % u64::from(u16::MAX);
    u16::try_from(ordinal + 1).ok().and_then(PacketId::new)
}

impl<M: Published + Clone> Session<M> {
    /// Sends a publication. `token` comes back in [`super::Event::Acknowledged`]; QoS 0 has none.
    pub fn send(
        &mut self,
        message: &M,
        options: &SendOptions,
        token: Token,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Sent {
        if !self.may_send(options.qos, token) {
            return Sent::Dropped(DropReason::NoRoom);
        }
        if message.publication().is_expired(now) {
            return Sent::Dropped(DropReason::Expired); // [MQTT-3.3.2-5]
        }
        // DUP is about this sending only [MQTT-3.3.1-3, 4.3.2-2, 4.3.3-2] [MQTT311-3.3.1-3].
        let delivery = match options.qos {
            Qos::AtMostOnce => Delivery::AtMostOnce,
            Qos::AtLeastOnce => Delivery::AtLeastOnce {
                packet_id: self.outgoing.packet_id_for(token),
                dup: false,
            },
            Qos::ExactlyOnce => Delivery::ExactlyOnce {
                packet_id: self.outgoing.packet_id_for(token),
                dup: false,
            },
        };
        if let Err(reason) = self.write(message.publication(), delivery, options, now, out) {
            return Sent::Dropped(reason);
        }
        let packet_id = delivery.packet_id();
        if let Some(packet_id) = packet_id {
            if token == 0 {
                self.outgoing.next_packet_id = after(packet_id);
            }
            // [MQTT-4.3.2-3, 4.3.3-3] [MQTT311-4.3.2-1, 4.3.3-1]
            self.outgoing.in_flight.push_back(InFlight {
                packet_id,
                token,
                progress: Progress::Sent {
                    options: options.clone(),
                    message: message.clone(),
                },
            });
        }
        Sent::Written(packet_id)
    }

    /// Sends again what an earlier connection left open, PUBLISH with DUP or PUBREL, under the same packet identifiers
    /// [MQTT-3.3.1-1, 4.4.0-1, 4.6.0-1] [MQTT311-3.3.1-1, 4.4.0-1, 4.6.0-1], as far as the client's Receive Maximum goes. `allow` judges each delivery as if it were new.
    /// Returns what is not delivered any more: refused by `allow`, or too large for this client. Expiry does not
    /// matter here: its delivery had begun [MQTT-4.3.3-7].
    pub fn resend(
        &mut self,
        mut allow: impl FnMut(&M) -> bool,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Vec<(InFlight<M>, DropReason)> {
        let mut dropped = Vec::new();
        while !self.ended
            && self.outgoing.owes_resend()
            && self.outgoing.sent() < self.outgoing.max_messages
        {
            let at = self.outgoing.sent();
            let Some(owed) = self.outgoing.in_flight.get_mut(at) else {
                break;
            };
            let packet_id = owed.packet_id;
            let written = match &mut owed.progress {
                Progress::Sent { options, message } => {
                    let (message, options) = (message.clone(), options.clone());
                    let delivery = match options.qos {
                        Qos::ExactlyOnce => Delivery::ExactlyOnce {
                            packet_id,
                            dup: true,
                        },
                        _ => Delivery::AtLeastOnce {
                            packet_id,
                            dup: true,
                        },
                    };
                    if allow(&message) {
                        self.write(message.publication(), delivery, &options, now, out)
                    } else {
                        Err(DropReason::Refused)
                    }
                }
                Progress::Received { released } => {
                    *released = true;
                    pubrel(packet_id, ReasonCode::Success, self.version, out);
                    Ok(())
                }
            };
            self.outgoing.owed -= 1;
            if let Err(reason) = written {
                let removed = self.outgoing.in_flight.remove(at);
                dropped.extend(removed.map(|removed| (removed, reason)));
            }
        }
        dropped
    }

    /// PUBACK ends a delivery of QoS 1.
    pub(super) fn puback(&mut self, ack: &Acknowledgement) -> Result<Event, Disconnect> {
        // An unknown identifier is not an error: what was in flight may have been dropped since.
        let Some(at) = self.outgoing.position(ack.packet_id) else {
            return Ok(Event::None);
        };
        match self.progress(at) {
            Some(Progress::Sent { options, .. }) if options.qos == Qos::AtLeastOnce => {
                Ok(self.done(at, ack.reason))
            }
            _ => Err(protocol("PUBACK came for a message of QoS 2")),
        }
    }

    /// PUBREC: the client has a message of QoS 2, or refuses it [MQTT-4.3.3-4] [MQTT311-4.3.3-1].
    pub(super) fn pubrec(
        &mut self,
        ack: &Acknowledgement,
        out: &mut Vec<u8>,
    ) -> Result<Event, Disconnect> {
        let packet_id = ack.packet_id;
        let Some(at) = self.outgoing.position(packet_id) else {
            // §3.6.2.1: it may come from a session that was lost here.
            let reason = ReasonCode::PacketIdentifierNotFound;
            pubrel(packet_id, reason, self.version, out);
            return Ok(Event::None);
        };
        let Some(flight) = self.outgoing.in_flight.get_mut(at) else {
            return Ok(Event::None);
        };
        match &flight.progress {
            Progress::Sent { options, .. } if options.qos == Qos::ExactlyOnce => {
                if ack.reason.is_error() {
                    return Ok(self.done(at, ack.reason));
                }
                // The message itself is not needed any more [MQTT-4.3.3-5, -6].
                flight.progress = Progress::Received { released: false };
                Ok(Event::Received {
                    token: flight.token,
                    packet_id,
                })
            }
            Progress::Sent { .. } => Err(protocol("PUBREC came for a message of QoS 1")),
            Progress::Received { released: true } => {
                pubrel(packet_id, ReasonCode::Success, self.version, out);
                Ok(Event::None)
            }
            // Its PUBREL is on the way.
            Progress::Received { released: false } => Ok(Event::None),
        }
    }

    /// Answers an [`Event::Received`]: the PUBREL leaves [MQTT-4.3.3-4].
    pub fn release(&mut self, packet_id: PacketId, out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        let flights = &mut self.outgoing.in_flight;
        let flight = flights
            .iter_mut()
            .find(|flight| flight.packet_id == packet_id);
        if let Some(Progress::Received { released }) = flight.map(|flight| &mut flight.progress)
            && !std::mem::replace(released, true)
        {
            pubrel(packet_id, ReasonCode::Success, self.version, out);
        }
    }

    /// PUBCOMP ends a delivery of QoS 2.
    pub(super) fn pubcomp_received(&mut self, ack: &Acknowledgement) -> Result<Event, Disconnect> {
        let Some(at) = self.outgoing.position(ack.packet_id) else {
            return Ok(Event::None);
        };
        match self.progress(at) {
            Some(Progress::Received { .. }) => Ok(self.done(at, ack.reason)),
            _ => Err(protocol("PUBCOMP came before PUBREC")),
        }
    }

    fn progress(&self, at: usize) -> Option<&Progress<M>> {
        self.outgoing.in_flight.get(at).map(|sent| &sent.progress)
    }

    /// A refusal acknowledges like any other word [MQTT-4.4.0-2].
    fn done(&mut self, at: usize, reason: ReasonCode) -> Event {
        self.outgoing
            .remove(at)
            .map_or(Event::None, |sent| Event::Acknowledged {
                token: sent.token,
                packet_id: sent.packet_id,
                reason,
            })
    }

    fn write(
        &mut self,
        publication: PublicationRef<'_>,
        delivery: Delivery,
        options: &SendOptions,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        let topic = publication.topic.as_str();
        let naming = match self.version {
            Version::V5 => self.aliases_out.naming(topic),
            Version::V311 => Naming::Plain,
        };
        let (name, topic_alias) = match naming {
            Naming::Plain => (topic, None),
            Naming::First(alias) => (topic, Some(alias)),
            Naming::Known(alias) => ("", Some(alias)),
        };
        let packet = PublishRef {
            delivery,
            retain: options.retain,
            topic: name,
            topic_alias,
            expiry_s: publication.expires_at.map(|at| at.seconds_since(now)), // [MQTT-3.3.2-6]
            subscription_ids: options.subscription_ids.as_deref().unwrap_or_default(),
            properties: publication.properties,
            payload: publication.payload,
        };
        if packet.encoded_len(self.version) > self.packet_max_bytes {
            return Err(DropReason::TooLarge); // [MQTT-3.1.2-24]
        }
        packet.encode(self.version, out);
        self.aliases_out.written(topic, naming);
        Ok(())
    }
}

fn pubrel(packet_id: PacketId, reason: ReasonCode, version: Version, out: &mut Vec<u8>) {
    PubRel(Acknowledgement::new(packet_id, reason)).encode(version, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_follow_from_tokens_begin_at_one_and_wrap_before_zero() {
        for (token, packet_id) in [(1, 1), (2, 2), (65_535, 65_535), (65_536, 1), (65_537, 2)] {
            assert_eq!(packet_id_of(token), PacketId::new(packet_id), "{token}");
        }
        assert_eq!(packet_id_of(0), None);
    }
}
