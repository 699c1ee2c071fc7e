//! QoS 1 and 2 packet by packet, in both directions.

use super::*;

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

fn publish_at(qos: Qos, number: u16, dup: bool) -> Packet {
    let Packet::Publish(mut packet) = publish(None) else {
        unreachable!()
    };
    let packet_id = id(number);
    packet.delivery = match qos {
        Qos::AtMostOnce => Delivery::AtMostOnce,
        Qos::AtLeastOnce => Delivery::AtLeastOnce { packet_id, dup },
        Qos::ExactlyOnce => Delivery::ExactlyOnce { packet_id, dup },
    };
    Packet::Publish(packet)
}

fn ack(number: u16, reason: ReasonCode) -> Acknowledgement {
    Acknowledgement::new(id(number), reason)
}

fn pubrec(number: u16) -> Packet {
    Packet::PubRec(PubRec(ack(number, ReasonCode::Success)))
}

fn pubrel(number: u16) -> Packet {
    Packet::PubRel(PubRel(ack(number, ReasonCode::Success)))
}

fn pubcomp(number: u16) -> Packet {
    Packet::PubComp(PubComp(ack(number, ReasonCode::Success)))
}

/// Handles a packet; the event and what was written.
fn say(session: &mut TestSession, packet: Packet) -> (Event, Vec<Packet>) {
    let mut out = Vec::new();
    let event = session.handle(packet, NOW, &mut out).unwrap();
    (event, written(&out, session.version()))
}

fn answer(session: &mut TestSession, number: u16, reason: ReasonCode) -> Vec<Packet> {
    let mut out = Vec::new();
    session.published(id(number), reason, None, &mut out);
    written(&out, session.version())
}

fn resume(session: TestSession, now: Time) -> (TestSession, Vec<Packet>) {
    let version = session.version();
    let mut again = connect(version);
    again.clean_start = false;
    let stored = session.close().stored;
    let (mut session, _) = open_with(again, &Settings::default(), Some(stored));
    let mut out = Vec::new();
    assert!(session.resend(|_| true, now, &mut out).is_empty());
    (session, written(&out, version))
}

/// QoS, packet identifier, DUP.
fn delivery_of(packet: &Packet) -> (Qos, Option<PacketId>, bool) {
    let Packet::Publish(packet) = packet else {
        panic!("{packet:?} is no PUBLISH");
    };
    let dup = match packet.delivery {
        Delivery::AtMostOnce => false,
        Delivery::AtLeastOnce { dup, .. } | Delivery::ExactlyOnce { dup, .. } => dup,
    };
    (packet.delivery.qos(), packet.delivery.packet_id(), dup)
}

/// [MQTT-2.2.1-5, 3.3.4-1, 4.3.2-4, -5] [MQTT311-2.3.1-6, 3.3.4-1, 4.3.2-2]
#[test]
fn a_client_publishes_at_qos_0_and_1() {
    for version in VERSIONS {
        let mut session = open(version);
        let (event, said) = say(&mut session, publish_at(Qos::AtMostOnce, 1, false));
        assert!(matches!(event, Event::Publish(incoming) if incoming.packet_id.is_none()));
        assert!(said.is_empty());
        for dup in [false, true, true] {
            let (event, said) = say(&mut session, publish_at(Qos::AtLeastOnce, 5, dup));
            assert!(
                matches!(event, Event::Publish(_)),
                "a new message each time"
            );
            assert!(said.is_empty(), "not owned yet");
            let said = answer(&mut session, 5, ReasonCode::Success);
            assert_eq!(said, [puback(5)]);
        }
    }
}

/// [MQTT-2.2.1-5, 3.3.4-1, 4.3.3-8, -10, -11, -12] [MQTT311-2.3.1-6, 3.3.4-1, 4.3.3-2]
#[test]
fn a_client_publishes_at_qos_2() {
    for version in VERSIONS {
        let mut session = open(version);
        for _ in 0..2 {
            let (event, said) = say(&mut session, publish_at(Qos::ExactlyOnce, 7, false));
            assert!(matches!(event, Event::Publish(_)), "a new message");
            assert!(said.is_empty(), "not owned yet");
            let (event, said) = say(&mut session, publish_at(Qos::ExactlyOnce, 7, true));
            assert_eq!((event, said.len()), (Event::None, 0), "still not owned");
            let said = answer(&mut session, 7, ReasonCode::Success);
            assert_eq!(said, [pubrec(7)]);
            for dup in [false, true] {
                let (event, said) = say(&mut session, publish_at(Qos::ExactlyOnce, 7, dup));
                assert_eq!((event, said), (Event::None, vec![pubrec(7)]));
            }
            let (event, said) = say(&mut session, pubrel(7));
            assert_eq!((event, said.len()), (Event::Release(id(7)), 0));
            let mut out = Vec::new();
            session.completed(id(7), &mut out);
            assert_eq!(written(&out, version), [pubcomp(7)]);
        }
    }
}

/// [MQTT-4.3.3-9]
#[test]
fn the_identifier_of_a_refused_message_of_qos_2_is_free() {
    let mut session = open(Version::V5);
    for _ in 0..2 {
        let (event, _) = say(&mut session, publish_at(Qos::ExactlyOnce, 7, true));
        assert!(matches!(event, Event::Publish(_)), "a new message");
        let said = answer(&mut session, 7, ReasonCode::NotAuthorized);
        let expected = PubRec(ack(7, ReasonCode::NotAuthorized));
        assert_eq!(said, [Packet::PubRec(expected)]);
    }
}

/// [MQTT-4.3.3-13]
#[test]
fn a_message_that_expires_between_publish_and_pubrel_is_completed() {
    let mut session = open(Version::V5);
    let mut packet = publish_at(Qos::ExactlyOnce, 7, false);
    if let Packet::Publish(publish) = &mut packet {
        publish.expiry_s = Some(1);
    }
    say(&mut session, packet);
    answer(&mut session, 7, ReasonCode::Success);
    let late = NOW.plus_seconds(10);
    let mut out = Vec::new();
    let event = session.handle(pubrel(7), late, &mut out).unwrap();
    assert_eq!(event, Event::Release(id(7)));
    session.completed(id(7), &mut out);
    assert_eq!(written(&out, Version::V5), [pubcomp(7)]);
}

/// [MQTT-2.2.1-4, 3.3.1-1, 4.3.2-1, -2, -3, 4.4.0-1] [MQTT311-2.3.1-4, 3.3.1-1, 4.3.2-1, 4.4.0-1]
#[test]
fn a_client_is_sent_a_message_of_qos_1() {
    for version in VERSIONS {
        let mut session = open(version);
        let mut out = Vec::new();
        for token in [1, 2] {
            session.send(&message(b"x"), &QOS_1, token, NOW, &mut out);
        }
        let sent = written(&out, version);
        let sent: Vec<_> = sent.iter().map(delivery_of).collect();
        let first = |number| (Qos::AtLeastOnce, Some(id(number)), false);
        assert_eq!(sent, [first(1), first(2)]);
        // Time and other packets send nothing again.
        out.clear();
        let late = NOW.plus_seconds(1_000_000);
        session.handle(Packet::PingReq, late, &mut out).unwrap();
        session.handle_timeout(late).unwrap();
        assert_eq!(written(&out, version), [Packet::PingResp]);
        assert!(!session.owes_resend());
        let (event, _) = say(&mut session, puback(1));
        assert!(matches!(event, Event::Acknowledged { token: 1, .. }));
        // What was not acknowledged comes again, and only that.
        let (mut session, again) = resume(session, NOW);
        let again: Vec<_> = again.iter().map(delivery_of).collect();
        assert_eq!(again, [(Qos::AtLeastOnce, Some(id(2)), true)]);
        say(&mut session, puback(2));
        let (mut session, again) = resume(session, NOW);
        assert!(again.is_empty());
        // Identifiers are free again once they are acknowledged.
        out.clear();
        let token = u64::from(u16::MAX) + 1;
        let sent = session.send(&message(b"x"), &QOS_1, token, NOW, &mut out);
        assert_eq!(sent, Sent::Written(Some(id(1))));
    }
}

/// [MQTT-2.2.1-5, 4.3.3-1, -2, -3, -4, -5, -6] [MQTT311-2.3.1-6, 4.3.3-1]
#[test]
fn a_client_is_sent_a_message_of_qos_2() {
    const QOS_2: SendOptions = with_qos(Qos::ExactlyOnce);
    for version in VERSIONS {
        let mut session = open(version);
        let mut out = Vec::new();
        for token in [1, 2] {
            session.send(&message(b"x"), &QOS_2, token, NOW, &mut out);
        }
        let sent: Vec<_> = written(&out, version).iter().map(delivery_of).collect();
        let first = |number| (Qos::ExactlyOnce, Some(id(number)), false);
        assert_eq!(sent, [first(1), first(2)]);
        let (mut session, again) = resume(session, NOW);
        let again: Vec<_> = again.iter().map(delivery_of).collect();
        let dup = |number| (Qos::ExactlyOnce, Some(id(number)), true);
        assert_eq!(again, [dup(1), dup(2)]);

        let (event, said) = say(&mut session, pubrec(1));
        let (token, packet_id) = (1, id(1));
        assert_eq!(event, Event::Received { token, packet_id });
        assert!(said.is_empty(), "not safe yet");
        out.clear();
        session.release(packet_id, &mut out);
        assert_eq!(written(&out, version), [pubrel(1)]);
        // PUBREL is owed again until PUBCOMP, PUBLISH never again.
        let (session, again) = resume(session, NOW);
        assert_eq!(again[0], pubrel(1));
        assert_eq!(delivery_of(&again[1]), dup(2));
        let (mut session, again) = resume(session, NOW);
        assert_eq!(again[0], pubrel(1));
        let (event, _) = say(&mut session, pubcomp(1));
        assert!(matches!(event, Event::Acknowledged { token: 1, .. }));
        let (_, again) = resume(session, NOW);
        let again: Vec<_> = again.iter().map(delivery_of).collect();
        assert_eq!(again, [dup(2)]);
    }
}

/// [MQTT-4.4.0-2]
#[test]
fn a_refused_delivery_is_acknowledged() {
    let mut session = open(Version::V5);
    let mut out = Vec::new();
    session.send(&message(b"x"), &QOS_1, 1, NOW, &mut out);
    session.send(
        &message(b"x"),
        &with_qos(Qos::ExactlyOnce),
        2,
        NOW,
        &mut out,
    );
    let reason = ReasonCode::QuotaExceeded;
    for (token, packet) in [
        (1, Packet::PubAck(PubAck(ack(1, reason)))),
        (2, Packet::PubRec(PubRec(ack(2, reason)))),
    ] {
        let (event, said) = say(&mut session, packet);
        let acknowledged = matches!(event, Event::Acknowledged { token: of, reason: why, .. }
            if of == token && why == reason);
        assert!(acknowledged && said.is_empty(), "{event:?}");
    }
    let (_, again) = resume(session, NOW);
    assert!(again.is_empty());
}

/// [MQTT-4.3.3-7]
#[test]
fn what_was_sent_expires_no_more() {
    let mut expiring = Publication::clone(&message(b"x"));
    expiring.expires_at = Some(NOW.plus_seconds(1));
    let mut session = open(Version::V5);
    let qos_2 = with_qos(Qos::ExactlyOnce);
    session.send(&Arc::new(expiring), &qos_2, 1, NOW, &mut Vec::new());
    let (_, again) = resume(session, NOW.plus_seconds(60));
    assert_eq!(
        again.iter().map(delivery_of).collect::<Vec<_>>(),
        [(Qos::ExactlyOnce, Some(id(1)), true)]
    );
}

/// [MQTT-3.3.1-3, 4.3.1-1] [MQTT311-3.3.1-3, 4.3.1-1]
#[test]
fn dup_is_not_passed_on() {
    for version in VERSIONS {
        let mut session = open(version);
        let (event, _) = say(&mut session, publish_at(Qos::AtLeastOnce, 5, true));
        let Event::Publish(incoming) = event else {
            panic!("{event:?}");
        };
        assert!(incoming.dup);
        let message = Arc::new(incoming.publication);
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let mut out = Vec::new();
            session.send(&message, &with_qos(qos), 0, NOW, &mut out);
            assert_eq!(out[0] & 0b1000, 0, "{qos:?}");
        }
    }
}

/// [MQTT-3.3.4-10, 4.9.0-3]
#[test]
fn a_full_window_holds_nothing_else_back() {
    let mut narrow = connect(Version::V5);
    narrow.receive_max = NonZeroU16::MIN;
    let (mut session, _) = open_with(narrow, &Settings::default(), None);
    let mut out = Vec::new();
    session.send(&message(b"x"), &QOS_1, 1, NOW, &mut out);
    assert!(!session.may_send(Qos::AtLeastOnce, 2));
    out.clear();
    let qos_0 = with_qos(Qos::AtMostOnce);
    let sent = session.send(&message(b"y"), &qos_0, 0, NOW, &mut out);
    assert_eq!(sent, Sent::Written(None));
    assert_eq!(say(&mut session, Packet::PingReq).1, [Packet::PingResp]);
    say(&mut session, publish(Some(5)));
    assert_eq!(answer(&mut session, 5, ReasonCode::Success), [puback(5)]);
    say(&mut session, publish_at(Qos::ExactlyOnce, 6, false));
    assert_eq!(answer(&mut session, 6, ReasonCode::Success), [pubrec(6)]);
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: id(7),
        filters: vec![(
            "a".parse().unwrap(),
            SubscriptionOptions::new(Qos::AtMostOnce),
        )],
        subscription_id: None,
        user: Vec::new(),
    });
    let (event, _) = say(&mut session, subscribe);
    let Event::Subscribe(requests) = event else {
        panic!("{event:?}");
    };
    out.clear();
    session.subscribed(requests, None, &mut out);
    assert!(matches!(
        &written(&out, Version::V5)[..],
        [Packet::SubAck(_)]
    ));
}

fn by_alias(topic: Option<&str>, alias: u16) -> Packet {
    let Packet::Publish(mut packet) = publish(None) else {
        unreachable!()
    };
    packet.topic = topic.map(|topic| topic.parse().unwrap());
    packet.topic_alias = NonZeroU16::new(alias);
    Packet::Publish(packet)
}

/// [MQTT-3.3.2-7]
#[test]
fn aliases_end_with_their_connection() {
    let mut named = connect(Version::V5);
    named.topic_alias_max = 5;
    let (mut session, _) = open_with(named.clone(), &Settings::default(), None);
    let mut topics = Vec::new();
    let mut topic_of = |session: &mut TestSession| {
        let mut out = Vec::new();
        session.send(&message(b"x"), &with_qos(Qos::AtMostOnce), 0, NOW, &mut out);
        let [Packet::Publish(packet)] = &written(&out, Version::V5)[..] else {
            panic!("not one PUBLISH");
        };
        topics.push((packet.topic.is_some(), packet.topic_alias.is_some()));
    };
    say(&mut session, by_alias(Some("a"), 1));
    say(&mut session, by_alias(None, 1));
    topic_of(&mut session);
    topic_of(&mut session);
    named.clean_start = false;
    let stored = session.close().stored;
    let (mut session, _) = open_with(named, &Settings::default(), Some(stored));
    topic_of(&mut session);
    assert_eq!(topics, [(true, true), (false, true), (true, true)]);
    let unknown = session.handle(by_alias(None, 1), NOW, &mut Vec::new());
    assert_eq!(reason_of(unknown), ReasonCode::ProtocolError);
}

/// [MQTT-3.2.2-17, -18, 3.3.2-9, -12]
#[test]
fn every_alias_up_to_the_maximum_is_taken_and_none_above() {
    let settings = |topic_alias_max| Settings {
        topic_alias_max,
        ..Settings::default()
    };
    let (mut session, connack) = open_with(connect(Version::V5), &settings(10), None);
    assert_eq!(connack.topic_alias_max, 10);
    for alias in (1..=10).rev() {
        let (event, _) = say(&mut session, by_alias(Some(&alias.to_string()), alias));
        assert!(matches!(event, Event::Publish(_)));
    }
    for alias in 1..=10 {
        let (event, _) = say(&mut session, by_alias(None, alias));
        let topic = alias.to_string();
        assert!(
            matches!(event, Event::Publish(incoming) if incoming.publication.topic.as_str() == topic)
        );
    }
    let above = session.handle(by_alias(Some("a"), 11), NOW, &mut Vec::new());
    assert_eq!(reason_of(above), ReasonCode::TopicAliasInvalid);
    let (mut session, connack) = open_with(connect(Version::V5), &settings(0), None);
    assert_eq!(connack.topic_alias_max, 0);
    let none = session.handle(by_alias(Some("a"), 1), NOW, &mut Vec::new());
    assert_eq!(reason_of(none), ReasonCode::TopicAliasInvalid);
}
