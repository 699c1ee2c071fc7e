use std::collections::{HashMap, HashSet};
use std::num::{NonZeroU16, NonZeroU32};

use broker::codec::{
    Delivery, Limits, Packet, PacketId, Qos, ReasonCode, Version, decode, decode_first,
};
use broker::session::{
    Event, Proposal, Publication, SendOptions, Sent, Session, Settings, Stored, Time, Token,
};
use bytes::{Bytes, BytesMut};

/// More than any packet of these sessions.
const READER: Limits = Limits {
    packet_max_bytes: 1 << 20,
    user_properties_max: 100,
    filters_max: 10_000,
};
const BOUND: u16 = 5;

/// A session under any bytes of a client and any answers of its shell: no panic, and its promises hold.
///
/// A CONNECT, then steps: a byte that says what happens (see [`World::step`]), and what belongs to it.
pub fn session(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    let settings = settings();
    let Ok(Some(connect)) = decode_first(&mut buffer, &settings.limits()) else {
        return;
    };
    let mut world = match World::open(connect, None, Time::from_millis(1_000_000)) {
        Some(world) => world,
        None => return,
    };
    while !buffer.is_empty() {
        let step = buffer.split_to(1)[0];
        match world.step(step, &mut buffer) {
            Some(next) => world = next,
            None => return,
        }
    }
}

fn settings() -> Settings {
    let bound = NonZeroU16::new(BOUND).unwrap();
    Settings {
        receive_max_messages: bound,
        in_flight_max_messages: bound,
        packet_max_bytes: NonZeroU32::new(4096).unwrap(),
        subscriptions_max: 10,
        topic_alias_max: 5,
        topic_alias_outgoing_max: 5,
        ..Settings::default()
    }
}

struct World {
    session: Session<Publication>,
    version: Version,
    packet_max_bytes: usize,
    receive_max: usize,
    now: Time,
    next_token: Token,
    /// PUBLISH packets whose answer the shell owes.
    unanswered: Vec<PacketId>,
    /// Messages of QoS 2 that are being routed.
    released: Vec<PacketId>,
    /// Messages of QoS 2 the client has and waits to be released.
    received: Vec<PacketId>,
    /// What the client was sent on this connection and has not acknowledged.
    open: HashMap<PacketId, Qos>,
    /// The tokens in flight; each is acknowledged or dropped once.
    tokens: HashSet<Token>,
    aliases: HashMap<NonZeroU16, String>,
    alias_max: u16,
}

impl World {
    fn open(
        connect: broker::codec::Connect,
        stored: Option<Stored<Publication>>,
        now: Time,
    ) -> Option<Self> {
        let version = connect.version;
        let packet_max_bytes = connect
            .packet_max_bytes
            .map_or(usize::MAX, |max| max.get() as usize);
        let receive_max = connect.receive_max.get().min(BOUND).into();
        let alias_max = connect.topic_alias_max.min(5);
        let clean = connect.clean_start;
        let mut out = Vec::new();
        let assign = || "assigned".parse().unwrap();
        let proposal = match Proposal::new(connect, &settings(), assign, &mut out) {
            Ok(proposal) => proposal,
            Err(refusal) => {
                assert!(refusal.reason.is_error());
                assert!(out.len() <= packet_max_bytes);
                return None;
            }
        };
        let resumed = stored.is_some() && !clean;
        let tokens = match &stored {
            Some(stored) if resumed => stored.in_flight.iter().map(|sent| sent.token).collect(),
            _ => HashSet::new(),
        };
        let highest = stored
            .iter()
            .flat_map(|stored| &stored.in_flight)
            .map(|sent| sent.token)
            .max();
        let session = proposal.open(stored, now, &mut out);
        match &written(&out, version)[..] {
            [Packet::ConnAck(ack)] => {
                assert_eq!(ack.reason, ReasonCode::Success);
                assert_eq!(ack.session_present, resumed);
            }
            other => panic!("{other:?} instead of a CONNACK"),
        }
        let mut world = Self {
            session,
            version,
            packet_max_bytes,
            receive_max,
            now,
            next_token: highest.unwrap_or(0) + 1,
            unanswered: Vec::new(),
            released: Vec::new(),
            received: Vec::new(),
            open: HashMap::new(),
            tokens,
            aliases: HashMap::new(),
            alias_max,
        };
        world.resend();
        Some(world)
    }

    /// Bits 0 to 2 choose, the others belong to the choice.
    fn step(mut self, step: u8, bytes: &mut BytesMut) -> Option<Self> {
        let more = usize::from(step >> 3);
        let mut out = Vec::new();
        match step & 7 {
            // A packet of the client.
            0 | 1 => {
                if !self.session.may_receive() {
                    assert_eq!(self.version, Version::V311);
                    return self.answer(more).then_some(self);
                }
                match decode(bytes, self.version, &settings().limits()) {
                    Ok(Some(packet)) => return self.handle(packet).then_some(self),
                    Ok(None) => return None,
                    Err(error) => {
                        self.session
                            .disconnect(error.reason, Some(&error.text), &mut out);
                        self.hear(&out);
                        return None;
                    }
                }
            }
            // The shell answers a PUBLISH.
            2 => {
                self.answer(more);
            }
            // A message of QoS 2 has been routed.
            3 if !self.released.is_empty() => {
                let packet_id = self.released.swap_remove(more % self.released.len());
                self.session.completed(packet_id, &mut out);
                self.hear(&out);
            }
            // A message for the client.
            4 => self.send(more),
            // What the client has of QoS 2 is noted.
            5 if !self.received.is_empty() => {
                let packet_id = self.received.swap_remove(more % self.received.len());
                self.session.release(packet_id, &mut out);
                self.hear(&out);
            }
            6 => {
                self.now = self.now.plus_millis(1 << more);
                let due = self.session.deadline().is_some_and(|due| due <= self.now);
                let timed_out = self.session.handle_timeout(self.now);
                assert_eq!(timed_out.is_err(), due);
                if let Err(end) = timed_out {
                    self.session.disconnect(end.reason, None, &mut out);
                    self.hear(&out);
                    return None;
                }
            }
            // The connection is lost and the next CONNECT resumes the session.
            7 => {
                let now = self.now;
                let closed = self.session.close();
                assert_eq!(
                    closed
                        .stored
                        .in_flight
                        .iter()
                        .map(|sent| sent.token)
                        .collect::<HashSet<_>>(),
                    self.tokens
                );
                assert!(closed.stored.subscriptions.len() <= 10);
                return match decode_first(bytes, &settings().limits()) {
                    Ok(Some(connect)) => Self::open(connect, Some(closed.stored), now),
                    _ => None,
                };
            }
            _ => {}
        }
        Some(self)
    }

    fn handle(&mut self, packet: Packet) -> bool {
        let mut out = Vec::new();
        if let Packet::PubAck(broker::codec::PubAck(ack))
        | Packet::PubComp(broker::codec::PubComp(ack)) = &packet
        {
            self.open.remove(&ack.packet_id);
        }
        let refused = match &packet {
            Packet::PubRec(ack) if ack.0.reason.is_error() => Some(ack.0.packet_id),
            _ => None,
        };
        match self.session.handle(packet, self.now, &mut out) {
            Ok(Event::None) => {}
            Ok(Event::Publish(incoming)) => {
                assert_eq!(
                    incoming.packet_id.is_some(),
                    incoming.qos != Qos::AtMostOnce
                );
                self.unanswered.extend(incoming.packet_id);
            }
            Ok(Event::Release(packet_id)) => self.released.push(packet_id),
            Ok(Event::Received { packet_id, .. }) => self.received.push(packet_id),
            Ok(Event::Subscribe(mut requests)) => {
                for request in &mut requests.requests {
                    // As a policy would say no.
                    if request.filter.as_str().starts_with('$') {
                        request.verdict = ReasonCode::NotAuthorized;
                    }
                }
                self.session.subscribed(requests, Some("no"), &mut out);
            }
            Ok(Event::Unsubscribe(requests)) => self.session.unsubscribed(requests, &mut out),
            Ok(Event::Acknowledged { token, .. }) => {
                assert!(
                    self.tokens.remove(&token),
                    "token {token} is acknowledged twice"
                );
                if let Some(packet_id) = refused {
                    self.open.remove(&packet_id);
                }
                self.hear(&out);
                self.resend();
                return true;
            }
            Ok(Event::Disconnect) => return false,
            Err(end) => {
                assert!(end.reason.is_error());
                self.session
                    .disconnect(end.reason, Some(&end.text), &mut out);
                self.hear(&out);
                return false;
            }
        }
        assert!(self.session.subscriptions().len() <= 10);
        assert!(self.unanswered.len() + self.released.len() <= 2 * usize::from(BOUND) + 65_535);
        self.hear(&out);
        true
    }

    fn answer(&mut self, more: usize) -> bool {
        if self.unanswered.is_empty() {
            return true;
        }
        let packet_id = self.unanswered.remove((more >> 1) % self.unanswered.len());
        let reason = match (self.version, more & 1) {
            (Version::V5, 1) => ReasonCode::NotAuthorized,
            _ => ReasonCode::Success,
        };
        let mut out = Vec::new();
        self.session
            .published(packet_id, reason, Some("why"), &mut out);
        self.hear(&out);
        true
    }

    fn send(&mut self, more: usize) {
        let qos = [
            Qos::AtMostOnce,
            Qos::AtLeastOnce,
            Qos::ExactlyOnce,
            Qos::ExactlyOnce,
        ][more & 3];
        let topic = ["a", "b/c", "a/long/topic/of/some/levels", "b/c"][more >> 3];
        let payload = Bytes::from(vec![b'x'; 50 * (more >> 2 & 1)]);
        let publication = Publication::new(topic.parse().unwrap(), payload);
        let token = match qos {
            Qos::AtMostOnce => 0,
            _ => self.next_token,
        };
        let options = SendOptions {
            qos,
            retain: more & 4 != 0,
            subscription_ids: (more & 8 != 0).then(|| [7, 300].into()),
        };
        let may = self.session.may_send(qos, token);
        let mut out = Vec::new();
        match self
            .session
            .send(&publication, &options, token, self.now, &mut out)
        {
            Sent::Written(packet_id) => {
                assert!(may);
                assert_eq!(packet_id.is_some(), qos != Qos::AtMostOnce);
                if token != 0 {
                    self.tokens.insert(token);
                }
                self.next_token += u64::from(token != 0);
            }
            Sent::Dropped(_) => assert!(out.is_empty()),
        }
        self.hear(&out);
    }

    fn resend(&mut self) {
        let mut out = Vec::new();
        for (dropped, _) in self.session.resend(|_| true, self.now, &mut out) {
            assert!(self.tokens.remove(&dropped.token));
        }
        self.hear(&out);
    }

    /// The client reads what was written.
    fn hear(&mut self, out: &[u8]) {
        for packet in written(out, self.version) {
            let mut alone = Vec::new();
            packet.encode(self.version, &mut alone);
            assert!(
                alone.len() <= self.packet_max_bytes,
                "{packet:?} is too long for the client"
            );
            let Packet::Publish(publish) = packet else {
                continue;
            };
            match (publish.topic_alias, &publish.topic) {
                (Some(alias), Some(topic)) => {
                    assert!(alias.get() <= self.alias_max);
                    self.aliases.insert(alias, topic.to_string());
                }
                (Some(alias), None) => assert!(self.aliases.contains_key(&alias)),
                (None, topic) => assert!(topic.is_some()),
            }
            if let Delivery::AtLeastOnce { packet_id, .. }
            | Delivery::ExactlyOnce { packet_id, .. } = publish.delivery
            {
                let before = self.open.insert(packet_id, publish.delivery.qos());
                assert!(before.is_none(), "{packet_id} is used twice");
                // [MQTT-3.3.4-9]
                assert!(
                    self.open.len() <= self.receive_max,
                    "{} in flight",
                    self.open.len()
                );
            }
        }
    }
}

/// What was written is whole packets.
fn written(out: &[u8], version: Version) -> Vec<Packet> {
    let mut buffer = BytesMut::from(out);
    let mut packets = Vec::new();
    while let Some(packet) = decode(&mut buffer, version, &READER).unwrap() {
        packets.push(packet);
    }
    assert!(buffer.is_empty(), "half a packet was written");
    packets
}
