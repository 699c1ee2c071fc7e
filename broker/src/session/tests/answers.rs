//! What answers may say, how long they may be, and that several filters mean the same as one each.

use super::*;
use crate::codec::{SubAck, Will};

fn subscribe(filters: &[&str]) -> Packet {
    let options = SubscriptionOptions::new(Qos::AtLeastOnce);
    Packet::Subscribe(Subscribe {
        packet_id: id(4),
        filters: filters
            .iter()
            .map(|filter| (filter.parse().unwrap(), options))
            .collect(),
        subscription_id: None,
        user: Vec::new(),
    })
}

fn unsubscribe(filters: &[&str]) -> Packet {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(6),
        filters: filters
            .iter()
            .map(|filter| filter.parse().unwrap())
            .collect(),
        user: Vec::new(),
    })
}

fn requests(session: &mut TestSession, filters: &[&str]) -> SubscribeRequests {
    match session.handle(subscribe(filters), NOW, &mut Vec::new()) {
        Ok(Event::Subscribe(requests)) => requests,
        other => panic!("{other:?}"),
    }
}

/// [MQTT-2.2.1-6, 3.8.4-1, -2, -5, -6, -7, 3.9.3-1, 3.10.4-4, -5, -6, 3.11.3-1, -2]
/// [MQTT311-2.3.1-7, 3.8.4-1, -2, -4, -5, 3.9.3-1, -2, 3.10.4-4, -5, -6]
#[test]
fn the_same_filter_twice_in_one_packet_is_like_two_packets() {
    for version in [Version::V311, Version::V5] {
        let settings = Settings {
            subscriptions_max: 2,
            ..Settings::default()
        };
        let (mut session, _) = open_with(connect(version), &settings, None);
        let requests = requests(&mut session, &["a", "a", "b", "c", "a"]);
        let existed: Vec<_> = requests.requests.iter().map(|one| one.existed).collect();
        assert_eq!(existed, [false, true, false, false, true]);
        let mut out = Vec::new();
        session.subscribed(requests, None, &mut out);
        let refused = match version {
            Version::V311 => ReasonCode::Unspecified,
            Version::V5 => ReasonCode::QuotaExceeded,
        };
        let granted = ReasonCode::GrantedQos1;
        let expected = SubAck {
            packet_id: id(4),
            reasons: vec![granted, granted, granted, refused, granted],
            reason_string: None,
            user: Vec::new(),
        };
        assert_eq!(written(&out, version), [Packet::SubAck(expected)]);
        assert_eq!(session.subscriptions().len(), 2);

        out.clear();
        let event = session.handle(unsubscribe(&["a", "a", "c"]), NOW, &mut out);
        let Ok(Event::Unsubscribe(requests)) = event else {
            panic!("{event:?}");
        };
        assert_eq!(requests.filters().count(), 1);
        session.unsubscribed(requests, &mut out);
        let expected: &[u8] = match version {
            Version::V311 => &[0xb0, 2, 0, 6],
            Version::V5 => &[0xb0, 6, 0, 6, 0, 0, 0x11, 0x11],
        };
        assert_eq!(out, expected);
        assert_eq!(session.subscriptions().len(), 1);

        // There is nothing to delete any more, and that is said too.
        out.clear();
        let event = session.handle(unsubscribe(&["a"]), NOW, &mut out);
        let Ok(Event::Unsubscribe(requests)) = event else {
            panic!("{event:?}");
        };
        session.unsubscribed(requests, &mut out);
        let expected: &[u8] = match version {
            Version::V311 => &[0xb0, 2, 0, 6],
            Version::V5 => &[0xb0, 4, 0, 6, 0, 0x11],
        };
        assert_eq!(out, expected);
    }
}

/// However few they are, and those that are gone count no more.
#[test]
fn the_bytes_of_filters_end_at_their_bound() {
    let settings = Settings {
        subscription_bytes_max: 10,
        ..Settings::default()
    };
    let (mut session, _) = open_with(connect(Version::V5), &settings, None);
    let verdicts = |requests: &SubscribeRequests| -> Vec<_> {
        let verdicts = requests.requests.iter().map(|request| request.verdict);
        verdicts.collect()
    };
    let granted = ReasonCode::GrantedQos1;
    let full = ReasonCode::QuotaExceeded;
    let first = requests(&mut session, &["abcd", "abcdefg", "123456", "x", "abcd"]);
    assert_eq!(verdicts(&first), [granted, full, granted, full, granted]);
    session.subscribed(first, None, &mut Vec::new());
    let second = requests(&mut session, &["x", "abcd"]);
    assert_eq!(verdicts(&second), [full, granted]);
    session.subscribed(second, None, &mut Vec::new());
    let event = session.handle(unsubscribe(&["abcd"]), NOW, &mut Vec::new());
    let Ok(Event::Unsubscribe(gone)) = event else {
        panic!("{event:?}");
    };
    session.unsubscribed(gone, &mut Vec::new());
    let third = requests(&mut session, &["wxyz", "x"]);
    assert_eq!(verdicts(&third), [granted, full]);
}

/// [MQTT-3.8.4-3] [MQTT311-3.8.4-3]
#[test]
fn a_subscription_is_replaced_by_the_next_to_its_filter() {
    for version in [Version::V311, Version::V5] {
        let mut session = open(version);
        let first = requests(&mut session, &["a"]);
        session.subscribed(first, None, &mut Vec::new());
        let mut second = requests(&mut session, &["a"]);
        assert!(second.requests[0].existed);
        second.requests[0].options.qos = Qos::ExactlyOnce;
        session.subscribed(second, None, &mut Vec::new());
        let options: Vec<_> = session
            .subscriptions()
            .map(|(_, options)| options.qos)
            .collect();
        assert_eq!(options, [Qos::ExactlyOnce]);
    }
}

/// [MQTT-3.10.4-1, -3] [MQTT311-3.10.4-1, -3]
#[test]
fn only_the_equal_filter_is_deleted_and_what_is_in_flight_stays() {
    for version in [Version::V311, Version::V5] {
        let mut session = open(version);
        let asked = requests(&mut session, &["cmd/#", "cmd/lamp-1", "cmd/+", "CMD/#"]);
        session.subscribed(asked, None, &mut Vec::new());
        let mut out = Vec::new();
        session.send(&message(b"x"), &QOS_1, 1, NOW, &mut out);
        let event = session.handle(unsubscribe(&["cmd/#"]), NOW, &mut out);
        let Ok(Event::Unsubscribe(gone)) = event else {
            panic!("{event:?}");
        };
        session.unsubscribed(gone, &mut out);
        let mut left: Vec<_> = session
            .subscriptions()
            .map(|(filter, _)| filter.as_str().to_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["CMD/#", "cmd/+", "cmd/lamp-1"]);
        let event = session.handle(puback(1), NOW, &mut out);
        assert!(matches!(event, Ok(Event::Acknowledged { token: 1, .. })));
    }
}

/// A session with one PUBLISH of QoS 1 (identifier 1), one of QoS 2 (2) and a SUBSCRIBE to answer.
fn busy(connect: Connect) -> (TestSession, SubscribeRequests) {
    let (mut session, _) = open_with(connect, &Settings::default(), None);
    session
        .handle(publish(Some(1)), NOW, &mut Vec::new())
        .unwrap();
    let Packet::Publish(mut packet) = publish(None) else {
        unreachable!()
    };
    packet.delivery = Delivery::ExactlyOnce {
        packet_id: id(2),
        dup: false,
    };
    let packet = Packet::Publish(packet);
    session.handle(packet, NOW, &mut Vec::new()).unwrap();
    let requests = requests(&mut session, &["a"]);
    (session, requests)
}

/// The reasons and reason strings of PUBACK, PUBREC, SUBACK, DISCONNECT and a refusing CONNACK, each given `reason`.
fn said(connect: Connect, reason: ReasonCode, text: &str) -> Vec<(ReasonCode, bool)> {
    let mut out = Vec::new();
    let proposal = propose(connect.clone(), &Settings::default(), &mut out).unwrap();
    proposal.refuse(reason, Some(text), &mut out);
    let (mut session, mut requests) = busy(connect);
    session.published(id(1), reason, Some(text), &mut out);
    session.published(id(2), reason, Some(text), &mut out);
    requests.requests[0].verdict = reason;
    session.subscribed(requests, Some(text), &mut out);
    session.disconnect(reason, Some(text), &mut out);
    let reason_of = |packet: Packet| match packet {
        Packet::ConnAck(packet) => {
            assert!(!packet.session_present);
            (packet.reason, packet.reason_string.is_some())
        }
        Packet::PubAck(PubAck(ack)) | Packet::PubRec(PubRec(ack)) => {
            (ack.reason, ack.reason_string.is_some())
        }
        Packet::SubAck(packet) => (packet.reasons[0], packet.reason_string.is_some()),
        Packet::Disconnect(packet) => (packet.reason, packet.reason_string.is_some()),
        other => panic!("{other:?}"),
    };
    written(&out, Version::V5)
        .into_iter()
        .map(reason_of)
        .collect()
}

/// Decoding takes no reason that is not of its packet, so that what is written here is none.
/// [MQTT-3.2.2-6, -8, 3.4.2-1, 3.5.2-1, 3.9.3-2, 3.14.2-1]
#[test]
fn a_reason_that_is_not_of_the_packet_is_not_written() {
    use ReasonCode::{BadUserNameOrPassword, PacketIdentifierNotFound, ProtocolError, Unspecified};
    let reasons = |reason| {
        let said = said(connect(Version::V5), reason, "why");
        said.into_iter()
            .map(|(reason, _)| reason)
            .collect::<Vec<_>>()
    };
    let other = Unspecified;
    let none = PacketIdentifierNotFound;
    assert_eq!(reasons(none), [other, other, other, other, ProtocolError]);
    let login = BadUserNameOrPassword;
    assert_eq!(reasons(login), [login, other, other, other, ProtocolError]);
    let denied = ReasonCode::NotAuthorized;
    assert_eq!(reasons(denied), [denied; 5]);
}

/// [MQTT-3.6.2-1, 3.7.2-1]
#[test]
fn what_nobody_knows_is_released_and_completed_by_its_name() {
    let mut session = open(Version::V5);
    let mut out = Vec::new();
    let ack = |reason| Acknowledgement::new(id(9), reason);
    for packet in [
        Packet::PubRec(PubRec(ack(ReasonCode::Success))),
        Packet::PubRel(PubRel(ack(ReasonCode::Success))),
    ] {
        assert_eq!(session.handle(packet, NOW, &mut out), Ok(Event::None));
    }
    let unknown = ack(ReasonCode::PacketIdentifierNotFound);
    assert_eq!(
        written(&out, Version::V5),
        [
            Packet::PubRel(PubRel(unknown.clone())),
            Packet::PubComp(PubComp(unknown))
        ]
    );
}

/// [MQTT-3.1.2-24, -29, 3.2.2-19, 3.4.2-2, 3.5.2-2, 3.9.2-1, 3.14.2-3]
#[test]
fn reason_strings_have_room_or_are_left_out_of_every_answer() {
    let strings = |change: fn(&mut Connect), text: &str| {
        let mut connect = connect(Version::V5);
        change(&mut connect);
        let said = said(connect, ReasonCode::NotAuthorized, text);
        said.into_iter()
            .map(|(_, string)| string)
            .collect::<Vec<_>>()
    };
    let small = |connect: &mut Connect| connect.packet_max_bytes = NonZeroU32::new(50);
    assert_eq!(strings(small, "no"), [true; 5]);
    assert_eq!(strings(small, &"no".repeat(25)), [false; 5]);
    assert_eq!(strings(|_| {}, &"no".repeat(25)), [true; 5]);
    // Not asked for: CONNACK and DISCONNECT may have them all the same.
    let quiet = |connect: &mut Connect| connect.request_problem_information = false;
    assert_eq!(strings(quiet, "no"), [true, false, false, false, true]);
}

/// [MQTT-3.1.2-25]
#[test]
fn a_message_that_is_too_long_takes_no_place_in_the_window() {
    let mut small = connect(Version::V5);
    small.packet_max_bytes = NonZeroU32::new(60);
    small.receive_max = NonZeroU16::MIN;
    let (mut session, _) = open_with(small, &Settings::default(), None);
    let mut out = Vec::new();
    let sent = session.send(&message(&[0; 100]), &QOS_1, 1, NOW, &mut out);
    assert_eq!(sent, Sent::Dropped(DropReason::TooLarge));
    assert!(out.is_empty() && session.may_send(Qos::AtLeastOnce, 2));
    let sent = session.send(&message(b"x"), &QOS_1, 2, NOW, &mut out);
    assert!(matches!(sent, Sent::Written(Some(_))));
}

/// [MQTT-3.1.2-28, 3.2.2-20, 4.12.0-6]
#[test]
fn nothing_is_told_that_was_not_asked_for() {
    let mut plain_bytes = 0;
    for (asked, all_fits, expected) in [
        (false, true, None),
        (true, true, Some("cmd/a/response")),
        (true, false, None),
    ] {
        let mut connect = connect(Version::V5);
        connect.request_response_information = asked;
        connect.packet_max_bytes = NonZeroU32::new(if all_fits { 1000 } else { plain_bytes });
        let mut out = Vec::new();
        let mut proposal = propose(connect, &Settings::default(), &mut out).unwrap();
        proposal.tell_response_information("cmd/a/response".into());
        let _: TestSession = proposal.open(None, NOW, &mut out);
        let [Packet::ConnAck(connack)] = &written(&out, Version::V5)[..] else {
            panic!("not one CONNACK");
        };
        assert_eq!(connack.response_information.as_deref(), expected);
        assert_eq!(connack.authentication, None);
        assert!(connack.user.is_empty());
        if !asked {
            plain_bytes = out.len() as u32;
        }
    }
}

/// [MQTT-3.1.2-7, -10, 3.14.4-3] [MQTT311-3.1.2-10, 3.14.4-3]
#[test]
fn the_will_is_the_sessions_until_it_is_taken_back() {
    for version in [Version::V311, Version::V5] {
        let mut doomed = connect(version);
        doomed.will = Some(Will {
            topic: "dt/lamp-1/gone".parse().unwrap(),
            payload: Bytes::from_static(b"gone"),
            qos: Qos::AtLeastOnce,
            retain: true,
            delay_s: 0,
            expiry_s: None,
            properties: None,
        });
        let will = doomed.will.clone();
        let (mut session, _) = open_with(doomed, &Settings::default(), None);
        assert_eq!(session.will(), will.as_ref());
        let goodbye = Packet::Disconnect(codec::Disconnect::new(ReasonCode::Success));
        session.handle(goodbye, NOW, &mut Vec::new()).unwrap();
        assert_eq!(session.will(), None);
        assert_eq!(session.close().will, None);
    }
}
