//! The machine driven by random clients and random shells: it never panics, and its promises hold after every step.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::codec::tests::arbitrary;

#[derive(Debug, Clone)]
enum Step {
    /// Any packet at all.
    Packet(Packet),
    /// A valid PUBLISH of QoS 1.
    Publish,
    /// The shell answers one of the waiting PUBLISH packets.
    Answer(prop::sample::Index),
    /// The shell has something to send.
    Send(Qos),
    /// The client acknowledges one of what it was sent.
    Acknowledge(prop::sample::Index),
    /// The connection is lost and another one resumes the session.
    Reconnect(u16),
    /// Time passes.
    Wait(u64),
}

fn step(version: Version) -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => arbitrary::packet(version).prop_map(Step::Packet),
        6 => Just(Step::Publish),
        6 => any::<prop::sample::Index>().prop_map(Step::Answer),
        8 => arbitrary::qos().prop_map(Step::Send),
        5 => any::<prop::sample::Index>().prop_map(Step::Acknowledge),
        1 => (1..30_u16).prop_map(Step::Reconnect),
        1 => (0..60_000_u64).prop_map(Step::Wait),
    ]
}

/// The shell and the client around the machine, and what they may expect of it.
struct World {
    session: TestSession,
    version: Version,
    bound: usize,
    now: Time,
    next_token: Token,
    next_publish: u16,
    /// PUBLISH packets in the order of arrival, with whether they are answered.
    arrived: VecDeque<(PacketId, bool)>,
    /// Identifiers the client has been sent and has not acknowledged, on this connection.
    on_the_wire: Vec<PacketId>,
}

impl World {
    fn new(version: Version) -> Self {
        Self {
            session: open(version),
            version,
            bound: 20,
            now: NOW,
            next_token: 1,
            next_publish: 0,
            arrived: VecDeque::new(),
            on_the_wire: Vec::new(),
        }
    }

    /// The client reads what was written.
    fn read(&mut self, out: &[u8]) {
        for packet in written(out, self.version) {
            match packet {
                Packet::PubAck(ack) => {
                    // [MQTT-4.6.0-2]
                    assert_eq!(self.arrived.pop_front(), Some((ack.0.packet_id, true)));
                }
                Packet::Publish(publish) => {
                    if let Some(packet_id) = publish.delivery.packet_id() {
                        // [MQTT-2.2.1-4]
                        assert!(
                            !self.on_the_wire.contains(&packet_id),
                            "{packet_id} is used twice"
                        );
                        self.on_the_wire.push(packet_id);
                    }
                }
                _ => {}
            }
        }
        // [MQTT-3.3.4-9]
        assert!(self.on_the_wire.len() <= self.bound);
    }

    fn handle(&mut self, packet: Packet) -> bool {
        let acknowledged = match &packet {
            Packet::PubAck(ack) => Some(ack.0.packet_id),
            _ => None,
        };
        let mut out = Vec::new();
        let result = self.session.handle(packet, self.now, &mut out);
        match result {
            Ok(Event::Publish(incoming)) => {
                assert_eq!(
                    incoming.packet_id.is_some(),
                    incoming.qos == Qos::AtLeastOnce
                );
                self.arrived
                    .extend(incoming.packet_id.map(|packet_id| (packet_id, false)));
            }
            Ok(Event::Subscribe(requests)) => {
                self.session.subscribed(requests, Some("why"), &mut out)
            }
            Ok(Event::Unsubscribe(requests)) => self.session.unsubscribed(requests, &mut out),
            Ok(Event::Acknowledged { .. }) => {
                let packet_id = acknowledged.unwrap();
                self.on_the_wire.retain(|sent| *sent != packet_id);
                self.session.resend(|_| true, self.now, &mut out);
            }
            Ok(Event::None) => {}
            Ok(Event::Disconnect) => return false,
            Err(error) => {
                assert!(error.reason.is_error());
                self.session
                    .disconnect(error.reason, Some(&error.text), &mut out);
                self.read(&out);
                return false;
            }
        }
        self.read(&out);
        true
    }

    fn reconnect(self, receive_max: u16) -> Self {
        let mut stored = self.session.close().stored;
        // As if 65,535 messages had gone by: the identifiers in use are met again.
        stored.next_packet_id = PacketId::MIN;
        let waiting = stored.in_flight.len();
        let mut connect = connect(self.version);
        connect.clean_start = false;
        if self.version == Version::V5 {
            connect.receive_max = NonZeroU16::new(receive_max).unwrap();
        }
        let bound = usize::from(connect.receive_max.get()).min(20);
        let (session, connack) = open_with(connect, &Settings::default(), Some(stored));
        assert!(connack.session_present);
        let mut world = Self {
            session,
            bound,
            arrived: VecDeque::new(),
            on_the_wire: Vec::new(),
            ..self
        };
        let mut out = Vec::new();
        world.session.resend(|_| true, world.now, &mut out);
        world.read(&out);
        // [MQTT-4.4.0-1]
        assert_eq!(world.on_the_wire.len(), waiting.min(bound));
        world
    }

    fn run(mut self, step: Step) -> Self {
        let mut out = Vec::new();
        let alive = match step {
            Step::Packet(packet) => self.handle(packet),
            Step::Publish => {
                self.next_publish = self.next_publish % u16::MAX + 1;
                self.handle(publish(Some(self.next_publish)))
            }
            Step::Answer(which) => {
                let mut open: Vec<_> = self
                    .arrived
                    .iter_mut()
                    .filter(|(_, answered)| !answered)
                    .collect();
                if !open.is_empty() {
                    let at = which.index(open.len());
                    let packet_id = open[at].0;
                    // Of equal identifiers the first one is meant.
                    let first = open.iter_mut().find(|(id, _)| *id == packet_id).unwrap();
                    first.1 = true;
                    self.session.published(
                        packet_id,
                        ReasonCode::NotAuthorized,
                        Some("why"),
                        &mut out,
                    );
                }
                true
            }
            Step::Send(qos) => {
                let options = SendOptions { qos, retain: false };
                let may = self.session.may_send(qos);
                let sent =
                    self.session
                        .send(&message(b"x"), options, self.next_token, self.now, &mut out);
                assert_eq!(may, matches!(sent, Sent::Written(_)));
                self.next_token += 1;
                true
            }
            Step::Acknowledge(which) if !self.on_the_wire.is_empty() => {
                let packet_id = self.on_the_wire[which.index(self.on_the_wire.len())];
                self.handle(puback(packet_id.get()))
            }
            Step::Acknowledge(_) => true,
            Step::Reconnect(receive_max) => return self.reconnect(receive_max),
            Step::Wait(millis) => {
                self.now = self.now.plus_millis(millis);
                self.session.handle_timeout(self.now).is_ok()
            }
        };
        self.read(&out);
        assert!(
            self.arrived.front().is_none_or(|(_, answered)| !answered),
            "a PUBACK is held back"
        );
        if alive { self } else { self.reconnect(20) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn promises_hold_after_every_step(
        (version, steps) in arbitrary::version().prop_flat_map(|v| (Just(v), vec(step(v), 1..80))),
    ) {
        let mut world = World::new(version);
        for step in steps {
            world = world.run(step);
        }
    }
}
