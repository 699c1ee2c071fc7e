//! What happens between CONNACK and the end.

use super::*;
use crate::codec::{Auth, MessageProperties, PubRel, Str};

/// [MQTT-4.6.0-2] [MQTT311-4.6.0-2]
#[test]
fn pubacks_leave_in_the_order_of_the_publishes() {
    for version in [Version::V311, Version::V5] {
        let mut session = open(version);
        let mut out = Vec::new();
        for number in [7, 3, 9] {
            let event = session
                .handle(publish(Some(number)), NOW, &mut out)
                .unwrap();
            assert!(
                matches!(event, Event::Publish(incoming) if incoming.packet_id == Some(id(number)))
            );
        }
        session.published(id(9), ReasonCode::Success, None, &mut out);
        session.published(id(3), ReasonCode::Success, None, &mut out);
        assert!(out.is_empty());
        session.published(id(7), ReasonCode::Success, None, &mut out);
        assert_eq!(written(&out, version), [puback(7), puback(3), puback(9)]);
        out.clear();
        session.published(id(7), ReasonCode::Success, None, &mut out);
        assert!(out.is_empty(), "an answer to nothing");
    }
}

/// [MQTT-3.3.4-7]
#[test]
fn receive_maximum_holds_at_the_bound_and_not_past_it() {
    let mut session = open(Version::V5);
    let mut out = Vec::new();
    for number in 1..=20 {
        session
            .handle(publish(Some(number)), NOW, &mut out)
            .unwrap();
    }
    assert!(session.may_receive());
    let past = session.handle(publish(Some(21)), NOW, &mut out);
    assert_eq!(reason_of(past), ReasonCode::ReceiveMaximumExceeded);

    // 3.1.1 knows no such bound: its clients are slowed, not thrown out.
    let mut session = open(Version::V311);
    for number in 1..=20 {
        assert!(session.may_receive());
        session
            .handle(publish(Some(number)), NOW, &mut out)
            .unwrap();
    }
    assert!(!session.may_receive());
    session.handle(publish(Some(21)), NOW, &mut out).unwrap();
    session.published(id(1), ReasonCode::Success, None, &mut out);
    session.published(id(2), ReasonCode::Success, None, &mut out);
    assert!(session.may_receive());
    for number in 22..=u16::try_from(V311_PENDING_MAX_MESSAGES).unwrap() + 2 {
        session
            .handle(publish(Some(number)), NOW, &mut out)
            .unwrap();
    }
    let past = session.handle(publish(Some(5_000)), NOW, &mut out);
    assert_eq!(reason_of(past), ReasonCode::ReceiveMaximumExceeded);
}

/// [MQTT-3.1.0-2, 3.3.4-6, 4.12.0-7, 4.12.1-2]
#[test]
fn what_is_not_served_is_refused_by_its_name() {
    let refused =
        |packet: Packet| reason_of(open(Version::V5).handle(packet, NOW, &mut Vec::new()));
    let changed = |change: fn(&mut Publish)| {
        let Packet::Publish(mut packet) = publish(None) else {
            unreachable!()
        };
        change(&mut packet);
        Packet::Publish(packet)
    };
    let alias = changed(|packet| packet.topic_alias = NonZeroU16::new(99));
    assert_eq!(refused(alias), ReasonCode::TopicAliasInvalid);
    let ids = changed(|packet| packet.subscription_ids = vec![1]);
    assert_eq!(refused(ids), ReasonCode::ProtocolError);
    let auth = Auth {
        reason: ReasonCode::Reauthenticate,
        authentication: None,
        reason_string: None,
        user: Vec::new(),
    };
    for packet in [
        Packet::Auth(auth),
        Packet::Connect(Box::new(connect(Version::V5))),
        Packet::ConnAck(Box::new(ConnAck::new(ReasonCode::Success, false))),
        Packet::PingResp,
    ] {
        assert_eq!(refused(packet), ReasonCode::ProtocolError);
    }
    let mut out = Vec::new();
    let release = Packet::PubRel(PubRel(Acknowledgement::new(id(5), ReasonCode::Success)));
    assert_eq!(
        open(Version::V5).handle(release, NOW, &mut out),
        Ok(Event::None)
    );
    assert_eq!(out, [0x70, 3, 0, 5, 0x92]);
}

fn subscribe(filters: &[&str]) -> Subscribe {
    let filter = |text: &&str| {
        (
            text.parse().unwrap(),
            SubscriptionOptions::new(Qos::ExactlyOnce),
        )
    };
    Subscribe {
        packet_id: id(4),
        filters: filters.iter().map(filter).collect(),
        subscription_id: None,
        user: Vec::new(),
    }
}

fn requests(session: &mut TestSession, filters: &[&str]) -> SubscribeRequests {
    match session.handle(Packet::Subscribe(subscribe(filters)), NOW, &mut Vec::new()) {
        Ok(Event::Subscribe(requests)) => requests,
        other => panic!("{other:?}"),
    }
}

/// [MQTT-3.8.4-6, -7, 3.9.3-1, 3.10.4-1, -4, 3.11.3-1] [MQTT311-3.8.4-5, 3.9.3-1, -2, 3.10.4-1, -4]
#[test]
fn subscriptions_are_granted_refused_replaced_and_given_back() {
    for (version, refusal) in [(Version::V311, 0x80), (Version::V5, 0x87)] {
        let mut session = open(version);
        let mut requests = requests(&mut session, &["a", "$share/g/a", "b/#"]);
        assert_eq!(requests.requests[0].verdict, ReasonCode::GrantedQos2);
        requests.requests[2].verdict = ReasonCode::NotAuthorized;
        let mut out = Vec::new();
        session.subscribed(requests, Some("b/# is not granted"), &mut out);
        assert_eq!(out[out.len() - 3..], [2, 2, refusal]);
        assert_eq!(session.subscriptions().len(), 2);

        let again = self::requests(&mut session, &["a"]);
        assert!(again.requests[0].existed);
        session.subscribed(again, None, &mut out);
        assert_eq!(session.subscriptions().len(), 2);

        out.clear();
        let packet = Packet::Unsubscribe(Unsubscribe {
            packet_id: id(6),
            filters: vec!["a".parse().unwrap(), "b/#".parse().unwrap()],
            user: Vec::new(),
        });
        let Ok(Event::Unsubscribe(requests)) = session.handle(packet, NOW, &mut out) else {
            panic!("not an UNSUBSCRIBE");
        };
        assert_eq!(requests.filters().count(), 1);
        session.unsubscribed(requests, &mut out);
        let expected: &[u8] = match version {
            Version::V311 => &[0xb0, 2, 0, 6],
            Version::V5 => &[0xb0, 5, 0, 6, 0, 0, 0x11],
        };
        assert_eq!(out, expected);
        assert_eq!(session.subscriptions().len(), 1);
    }
}

#[test]
fn subscriptions_end_at_their_bound() {
    let settings = Settings {
        subscriptions_max: 2,
        ..Settings::default()
    };
    let (mut session, _) = open_with(connect(Version::V5), &settings, None);
    let requests = requests(&mut session, &["a", "b", "c"]);
    let verdicts: Vec<_> = requests
        .requests
        .iter()
        .map(|request| request.verdict)
        .collect();
    let granted = ReasonCode::GrantedQos2;
    assert_eq!(verdicts, [granted, granted, ReasonCode::QuotaExceeded]);
    session.subscribed(requests, None, &mut Vec::new());
    // What exists may be asked for again, what is new may not.
    let requests = self::requests(&mut session, &["a", "d"]);
    assert_eq!(requests.requests[0].verdict, granted);
    assert_eq!(requests.requests[1].verdict, ReasonCode::QuotaExceeded);
}

#[test]
fn reason_strings_go_to_those_who_ask_and_have_room() {
    let puback_with = |change: fn(&mut Connect), text: &str| {
        let mut connect = connect(Version::V5);
        change(&mut connect);
        let (mut session, _) = open_with(connect, &Settings::default(), None);
        let mut out = Vec::new();
        session.handle(publish(Some(1)), NOW, &mut out).unwrap();
        session.published(id(1), ReasonCode::NotAuthorized, Some(text), &mut out);
        let [Packet::PubAck(ack)] = &written(&out, Version::V5)[..] else {
            panic!("not one PUBACK");
        };
        assert_eq!(ack.0.reason, ReasonCode::NotAuthorized);
        ack.0.reason_string.as_ref().map(|text| text.len())
    };
    assert_eq!(puback_with(|_| {}, "no"), Some(2));
    assert_eq!(
        puback_with(|connect| connect.request_problem_information = false, "no"),
        None
    );
    let small = |connect: &mut Connect| connect.packet_max_bytes = NonZeroU32::new(50);
    assert_eq!(puback_with(small, "no"), Some(2));
    assert_eq!(puback_with(small, &"no".repeat(25)), None);
    let long = "ü".repeat(REASON_STRING_MAX_BYTES);
    assert_eq!(puback_with(|_| {}, &long), Some(REASON_STRING_MAX_BYTES));
}

/// [MQTT-3.3.4-9, 4.9.0-1, -2]
#[test]
fn sending_stops_at_the_smaller_bound_and_goes_on_with_an_acknowledgement() {
    for (client, bound) in [(3, 3), (50, 20)] {
        let mut connect = connect(Version::V5);
        connect.receive_max = NonZeroU16::new(client).unwrap();
        let (mut session, _) = open_with(connect, &Settings::default(), None);
        let mut out = Vec::new();
        for number in 1..=bound {
            let sent = session.send(&message(b"x"), &QOS_1, number.into(), NOW, &mut out);
            assert_eq!(sent, Sent::Written(Some(id(number))));
        }
        assert!(!session.may_send(Qos::AtLeastOnce, 99) && session.may_send(Qos::AtMostOnce, 0));
        let refused = session.send(&message(b"x"), &QOS_1, 99, NOW, &mut out);
        assert_eq!(refused, Sent::Dropped(DropReason::NoRoom));
        let event = session.handle(puback(2), NOW, &mut out).unwrap();
        let reason = ReasonCode::Success;
        let (token, packet_id) = (2, id(2));
        assert_eq!(
            event,
            Event::Acknowledged {
                token,
                packet_id,
                reason
            }
        );
        assert_eq!(session.handle(puback(2), NOW, &mut out), Ok(Event::None));
        assert!(session.may_send(Qos::AtLeastOnce, 99));
        assert_eq!(written(&out, Version::V5).len(), usize::from(bound));
    }
}

/// [MQTT-2.2.1-4, 4.3.2-1] [MQTT311-2.3.1-4]
#[test]
fn packet_identifiers_wrap_around_those_in_use() {
    let progress = Progress::Sent {
        options: QOS_1,
        message: message(b"x"),
    };
    let stored = Stored {
        in_flight: vec![InFlight::numbered(1, progress).unwrap()],
        next_packet_id: PacketId::MAX,
        ..Stored::default()
    };
    let mut again = connect(Version::V311);
    again.clean_start = false;
    let (mut session, _) = open_with(again, &Settings::default(), Some(stored));
    let mut out = Vec::new();
    session.resend(|_| true, NOW, &mut out);
    let mut send = || session.send(&message(b"x"), &QOS_1, 0, NOW, &mut out);
    assert_eq!(send(), Sent::Written(Some(PacketId::MAX)));
    assert_eq!(send(), Sent::Written(Some(id(2))));
    // An identifier that belongs to a token waits until it is free.
    let again = u64::from(u16::MAX) + 1;
    assert!(!session.may_send(Qos::AtLeastOnce, again));
    session.handle(puback(1), NOW, &mut out).unwrap();
    let sent = session.send(&message(b"x"), &QOS_1, again, NOW, &mut out);
    assert_eq!(sent, Sent::Written(Some(id(1))));
}

/// [MQTT-3.1.2-24, 3.3.2-5, -6]
#[test]
fn expiry_and_size_are_respected() {
    let mut small = connect(Version::V5);
    small.packet_max_bytes = NonZeroU32::new(60);
    let (mut session, _) = open_with(small, &Settings::default(), None);
    let mut expiring = Publication::clone(&message(b"x"));
    expiring.expires_at = Some(NOW.plus_millis(2_500));
    let expiring = Arc::new(expiring);
    let mut out = Vec::new();
    session.send(&expiring, &QOS_1, 1, NOW.plus_millis(1_000), &mut out);
    let [Packet::Publish(packet)] = &written(&out, Version::V5)[..] else {
        panic!("not one PUBLISH");
    };
    assert_eq!(packet.expiry_s, Some(2));
    out.clear();
    let late = session.send(&expiring, &QOS_1, 2, NOW.plus_millis(2_500), &mut out);
    assert_eq!(late, Sent::Dropped(DropReason::Expired));
    // Two of the fixed header, twelve of the topic, two of the packet identifier, one of the properties.
    let mut exactly =
        |payload: &'static [u8]| session.send(&message(payload), &QOS_1, 0, NOW, &mut out);
    assert!(matches!(exactly(&[0; 43]), Sent::Written(_)));
    assert_eq!(exactly(&[0; 44]), Sent::Dropped(DropReason::TooLarge));
    assert_eq!(out.len(), 60);
}

/// [MQTT-3.3.2-17, -18, -20]
#[test]
fn properties_are_forwarded_to_mqtt_5_only() {
    let properties = MessageProperties {
        content_type: Some(Str::from("text/plain")),
        user: vec![
            (Str::from("k"), Str::from("1")),
            (Str::from("k"), Str::from("2")),
        ],
        ..MessageProperties::default()
    };
    let mut publication = Publication::clone(&message(b"x"));
    publication.properties = Some(Box::new(properties.clone()));
    let publication = Arc::new(publication);
    for (version, expected) in [
        (Version::V311, None),
        (Version::V5, Some(Box::new(properties))),
    ] {
        let mut out = Vec::new();
        open(version).send(&publication, &QOS_1, 1, NOW, &mut out);
        let [Packet::Publish(packet)] = &written(&out, version)[..] else {
            panic!("not one PUBLISH");
        };
        assert_eq!(packet.properties, expected);
    }
}

/// [MQTT-3.3.1-1, 4.4.0-1, 4.6.0-1]
#[test]
fn what_was_unacknowledged_is_sent_again_with_dup_as_far_as_there_is_room() {
    let mut session = open(Version::V5);
    let mut out = Vec::new();
    for (token, payload) in [b"a", b"b", b"c", b"d"].into_iter().enumerate() {
        session.send(&message(payload), &QOS_1, token as u64 + 1, NOW, &mut out);
    }
    session.handle(puback(1), NOW, &mut out).unwrap();
    let stored = session.close().stored;
    assert_eq!(stored.in_flight.len(), 3);

    let mut again = connect(Version::V5);
    again.clean_start = false;
    again.receive_max = NonZeroU16::new(1).unwrap();
    let (mut session, connack) = open_with(again, &Settings::default(), Some(stored));
    assert!(
        connack.session_present && session.owes_resend() && !session.may_send(Qos::AtLeastOnce, 9)
    );
    // "b" has lost its grant meanwhile, "c" is sent, "d" waits for room.
    out.clear();
    let dropped = session.resend(|message| &message.payload[..] != b"b", NOW, &mut out);
    let [(flight, DropReason::Refused)] = &dropped[..] else {
        panic!("{dropped:?}");
    };
    assert_eq!((flight.token, flight.packet_id), (2, id(2)));
    let expect = |out: &[u8], number: u16, payload: &[u8]| {
        let [Packet::Publish(packet)] = &written(out, Version::V5)[..] else {
            panic!("not one PUBLISH");
        };
        let packet_id = id(number);
        assert_eq!(
            packet.delivery,
            Delivery::AtLeastOnce {
                packet_id,
                dup: true
            }
        );
        assert_eq!(packet.payload, payload);
    };
    expect(&out, 3, b"c");
    assert!(session.owes_resend());
    out.clear();
    session.handle(puback(3), NOW, &mut out).unwrap();
    assert!(session.resend(|_| true, NOW, &mut out).is_empty());
    expect(&out, 4, b"d");
    session.handle(puback(4), NOW, &mut out).unwrap();
    assert!(!session.owes_resend() && session.may_send(Qos::AtLeastOnce, 9));
    // New ones go on after the old identifiers.
    assert_eq!(
        session.send(&message(b"e"), &QOS_1, 5, NOW, &mut out),
        Sent::Written(Some(id(5)))
    );
}

#[test]
fn topics_hold_at_their_bounds_and_not_past_them() {
    let settings = Settings {
        topic_max_bytes: 12,
        topic_levels_max: 3,
        ..Settings::default()
    };
    for (topic, taken) in [
        ("dt/lamp-1/ab", true),
        ("dt/lamp-1/abc", false),
        ("a/b/c", true),
        ("a/b/c/d", false),
        ("///", false),
    ] {
        let (mut session, _) = open_with(connect(Version::V5), &settings, None);
        let Packet::Publish(mut packet) = publish(None) else {
            unreachable!()
        };
        packet.topic = Some(topic.parse().unwrap());
        let published = session.handle(Packet::Publish(packet), NOW, &mut Vec::new());
        assert_eq!(published.is_ok(), taken, "{topic}");

        let (mut session, _) = open_with(connect(Version::V5), &settings, None);
        let shared = format!("$share/group/{topic}");
        let requests = requests(&mut session, &[topic, &shared]);
        for request in requests.requests {
            assert_eq!(!request.verdict.is_error(), taken, "{topic}");
        }

        let mut with_will = connect(Version::V5);
        with_will.will = Some(Will {
            topic: topic.parse().unwrap(),
            payload: Bytes::new(),
            qos: Qos::AtMostOnce,
            retain: false,
            delay_s: 0,
            expiry_s: None,
            properties: None,
        });
        let proposed = propose(with_will, &settings, &mut Vec::new());
        assert_eq!(proposed.is_ok(), taken, "{topic}");
    }
}
