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
    /// A valid PUBLISH.
    Publish(Qos),
    /// The shell answers one of the waiting PUBLISH packets: takes it or not.
    Answer(prop::sample::Index, bool),
    /// The client releases one of its messages of QoS 2.
    Release(prop::sample::Index),
    /// The shell has routed one of the released messages.
    Complete(prop::sample::Index),
    /// The shell has something to send, to be kept or not.
    Send(Qos, bool),
    /// The client acknowledges one of what it was sent, as far as its QoS goes.
    Acknowledge(prop::sample::Index),
    /// The connection is lost and another one resumes the session.
    Reconnect(u16),
    /// Time passes.
    Wait(u64),
}

fn step(version: Version) -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        1 => arbitrary::packet(version).prop_map(Step::Packet),
        6 => arbitrary::qos().prop_map(Step::Publish),
        6 => (index(), any::<bool>()).prop_map(|(at, yes)| Step::Answer(at, yes)),
        4 => index().prop_map(Step::Release),
        4 => index().prop_map(Step::Complete),
        8 => (arbitrary::qos(), any::<bool>()).prop_map(|(qos, kept)| Step::Send(qos, kept)),
        7 => index().prop_map(Step::Acknowledge),
        1 => (1..30_u16).prop_map(Step::Reconnect),
        1 => (0..60_000_u64).prop_map(Step::Wait),
    ]
}

/// How far the client knows a delivery to have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    AtLeastOnce,
    ExactlyOnce,
    Released,
}

/// The server has no user properties of its own, and reason strings only where it can leave them out.
fn assert_plain(packet: &Packet) {
    let (user, reason_string) = match packet {
        Packet::PubAck(PubAck(ack)) | Packet::PubRec(PubRec(ack)) => (&ack.user, None),
        Packet::PubRel(PubRel(ack)) | Packet::PubComp(PubComp(ack)) => {
            (&ack.user, ack.reason_string.as_ref())
        }
        Packet::SubAck(packet) => (&packet.user, None),
        Packet::UnsubAck(packet) => (&packet.user, packet.reason_string.as_ref()),
        Packet::Disconnect(packet) => {
            assert_eq!(packet.session_expiry_s, None);
            (&packet.user, None)
        }
        Packet::Publish(_) | Packet::PingResp => return,
        other => panic!("the server wrote {other:?}"),
    };
    assert!(user.is_empty() && reason_string.is_none(), "{packet:?}");
}

/// The shell and the client around the machine, and what they may expect of it.
struct World {
    session: TestSession,
    version: Version,
    bound: usize,
    now: Time,
    next_token: Token,
    next_publish: u16,
    /// PUBLISH packets in the order of arrival, with their answer.
    arrived: VecDeque<(PacketId, Option<bool>)>,
    /// Messages of QoS 2 the client may release.
    received: Vec<PacketId>,
    /// Messages of QoS 2 the shell has to route.
    released: Vec<PacketId>,
    /// What the client has been sent and has not acknowledged, on this connection.
    on_the_wire: Vec<(PacketId, Known)>,
    /// Payloads of QoS 2 that the client has, by identifier, until PUBREL.
    client_holds: Vec<PacketId>,
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
            received: Vec::new(),
            released: Vec::new(),
            on_the_wire: Vec::new(),
            client_holds: Vec::new(),
        }
    }

    fn answered(&mut self, packet_id: PacketId, taken: bool) {
        // In the order of their PUBLISH packets.
        assert_eq!(self.arrived.pop_front(), Some((packet_id, Some(taken))));
    }

    /// The client reads what was written.
    fn read(&mut self, out: &[u8]) {
        for packet in written(out, self.version) {
            assert_plain(&packet);
            match packet {
                Packet::PubAck(ack) => {
                    let taken = !ack.0.reason.is_error() || self.version == Version::V311;
                    if self.version == Version::V311 {
                        let front = self.arrived.front_mut().unwrap();
                        assert!(front.1.is_some());
                        front.1 = Some(true);
                    }
                    self.answered(ack.0.packet_id, taken);
                }
                Packet::PubRec(ack) => {
                    let packet_id = ack.0.packet_id;
                    if self.received.contains(&packet_id) {
                        continue; // It was sent again.
                    }
                    if self.version == Version::V311 {
                        self.arrived.front_mut().unwrap().1 = Some(true);
                    }
                    self.answered(packet_id, !ack.0.reason.is_error());
                    // A client of 3.1.1 hears no refusal.
                    if !ack.0.reason.is_error() {
                        self.received.push(packet_id);
                    }
                }
                Packet::PubRel(ack) => {
                    let packet_id = ack.0.packet_id;
                    let mut wire = self.on_the_wire.iter_mut();
                    if let Some(at) = wire.find(|(sent, _)| *sent == packet_id) {
                        assert_ne!(at.1, Known::AtLeastOnce);
                        at.1 = Known::Released;
                    } else if ack.0.reason == ReasonCode::Success && self.version == Version::V5 {
                        // Sent again after a reconnect.
                        self.on_the_wire.push((packet_id, Known::Released));
                    }
                    self.client_holds.retain(|held| *held != packet_id);
                }
                Packet::Publish(publish) => self.read_publish(&publish),
                _ => {}
            }
        }
        assert!(self.on_the_wire.len() <= self.bound);
    }

    fn read_publish(&mut self, publish: &Publish) {
        let (packet_id, known, dup) = match publish.delivery {
            Delivery::AtMostOnce => return,
            Delivery::AtLeastOnce { packet_id, dup } => (packet_id, Known::AtLeastOnce, dup),
            Delivery::ExactlyOnce { packet_id, dup } => (packet_id, Known::ExactlyOnce, dup),
        };
        let used = self.on_the_wire.iter().any(|(sent, _)| *sent == packet_id);
        assert!(!used, "{packet_id} is used twice");
        if known == Known::ExactlyOnce && !dup {
            let held = self.client_holds.contains(&packet_id);
            assert!(!held, "a new message under an identifier the client holds");
        }
        self.on_the_wire.push((packet_id, known));
    }

    fn handle(&mut self, packet: Packet) -> bool {
        let acknowledged = match &packet {
            Packet::PubAck(PubAck(ack))
            | Packet::PubRec(PubRec(ack))
            | Packet::PubComp(PubComp(ack)) => Some(ack.packet_id),
            _ => None,
        };
        let mut out = Vec::new();
        let result = self.session.handle(packet, self.now, &mut out);
        match result {
            Ok(Event::Publish(incoming)) => {
                assert_eq!(
                    incoming.packet_id.is_some(),
                    incoming.qos != Qos::AtMostOnce
                );
                self.arrived
                    .extend(incoming.packet_id.map(|packet_id| (packet_id, None)));
            }
            Ok(Event::Release(packet_id)) => {
                let at = self.received.iter().position(|held| *held == packet_id);
                self.received.remove(at.expect("it was received"));
                self.released.push(packet_id);
            }
            Ok(Event::Received { packet_id, .. }) => {
                self.client_holds.push(packet_id);
                self.session.release(packet_id, &mut out);
            }
            Ok(Event::Subscribe(requests)) => {
                self.session.subscribed(requests, Some("why"), &mut out)
            }
            Ok(Event::Unsubscribe(requests)) => self.session.unsubscribed(requests, &mut out),
            Ok(Event::Acknowledged { .. }) => {
                let packet_id = acknowledged.unwrap();
                self.on_the_wire.retain(|(sent, _)| *sent != packet_id);
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
        // The shell has routed what was released, and kept what it was given.
        stored.held.retain(|held| !self.released.contains(held));
        let received = stored.held.clone();
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
            received,
            released: Vec::new(),
            on_the_wire: Vec::new(),
            ..self
        };
        let mut out = Vec::new();
        world.session.resend(|_| true, world.now, &mut out);
        world.read(&out);
        if world.version == Version::V5 {
            assert_eq!(world.on_the_wire.len(), waiting.min(bound));
        }
        world
    }

    fn run(mut self, step: Step) -> Self {
        let mut out = Vec::new();
        let alive = match step {
            Step::Packet(packet) => self.handle(packet),
            Step::Publish(qos) => {
                self.next_publish = self.next_publish % u16::MAX + 1;
                let packet_id = id(self.next_publish);
                let mut packet = publish(None);
                if let Packet::Publish(packet) = &mut packet {
                    packet.delivery = match qos {
                        Qos::AtMostOnce => Delivery::AtMostOnce,
                        Qos::AtLeastOnce => Delivery::AtLeastOnce {
                            packet_id,
                            dup: false,
                        },
                        Qos::ExactlyOnce => Delivery::ExactlyOnce {
                            packet_id,
                            dup: false,
                        },
                    };
                }
                self.handle(packet)
            }
            Step::Answer(which, taken) => {
                let mut open: Vec<_> = self
                    .arrived
                    .iter_mut()
                    .filter(|(_, answer)| answer.is_none())
                    .collect();
                if !open.is_empty() {
                    let at = which.index(open.len());
                    let packet_id = open[at].0;
                    // Of equal identifiers the first one is meant.
                    let first = open.iter_mut().find(|(id, _)| *id == packet_id).unwrap();
                    // 3.1.1 has no word for a refusal: its shell would have closed.
                    let taken = taken || self.version == Version::V311;
                    first.1 = Some(taken);
                    let reason = match taken {
                        true => ReasonCode::Success,
                        false => ReasonCode::NotAuthorized,
                    };
                    self.session
                        .published(packet_id, reason, Some("why"), &mut out);
                }
                true
            }
            Step::Release(which) if !self.received.is_empty() => {
                let packet_id = self.received[which.index(self.received.len())];
                let release = Acknowledgement::new(packet_id, ReasonCode::Success);
                self.handle(Packet::PubRel(PubRel(release)))
            }
            Step::Complete(which) if !self.released.is_empty() => {
                let at = which.index(self.released.len());
                let packet_id = self.released.remove(at);
                self.session.completed(packet_id, &mut out);
                let complete = Acknowledgement::new(packet_id, ReasonCode::Success);
                let expected = Packet::PubComp(PubComp(complete));
                assert_eq!(written(&out, self.version), [expected]);
                true
            }
            Step::Send(qos, kept) => {
                let token = match kept && qos != Qos::AtMostOnce {
                    true => self.next_token,
                    false => 0,
                };
                let may = self.session.may_send(qos, token);
                let sent =
                    self.session
                        .send(&message(b"x"), &with_qos(qos), token, self.now, &mut out);
                assert_eq!(may, matches!(sent, Sent::Written(_)));
                self.next_token += u64::from(token != 0);
                true
            }
            Step::Acknowledge(which) if !self.on_the_wire.is_empty() => {
                let (packet_id, known) = self.on_the_wire[which.index(self.on_the_wire.len())];
                let ack = Acknowledgement::new(packet_id, ReasonCode::Success);
                self.handle(match known {
                    Known::AtLeastOnce => Packet::PubAck(PubAck(ack)),
                    Known::ExactlyOnce => Packet::PubRec(PubRec(ack)),
                    Known::Released => Packet::PubComp(PubComp(ack)),
                })
            }
            Step::Acknowledge(_) | Step::Release(_) | Step::Complete(_) => true,
            Step::Reconnect(receive_max) => return self.reconnect(receive_max),
            Step::Wait(millis) => {
                self.now = self.now.plus_millis(millis);
                self.session.handle_timeout(self.now).is_ok()
            }
        };
        self.read(&out);
        assert!(
            self.arrived
                .front()
                .is_none_or(|(_, answer)| answer.is_none()),
            "an answer is held back"
        );
        if alive { self } else { self.reconnect(20) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Answers in the order of their PUBLISH packets, identifiers that are free, no more than the window, repetitions whole
    /// [MQTT-2.2.1-4, 3.3.4-9, 4.4.0-1, 4.6.0-2, -3, 4.9.0-2] [MQTT311-2.3.1-4, 4.4.0-1, 4.6.0-2, -3]; no user properties
    /// and no reason strings where the server has none of its own
    /// [MQTT-3.4.2-3, 3.5.2-3, 3.6.2-2, -3, 3.7.2-2, -3, 3.9.2-2, 3.11.2-1, -2, 3.14.2-2, -4, 3.15.2-2, -3].
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
