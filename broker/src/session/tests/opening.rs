//! CONNECT to CONNACK, and what is left at the end.

use super::*;
use crate::codec::{Authentication, SESSION_NEVER_EXPIRES, Str, Will};

fn refusal(connect: Connect) -> (ReasonCode, Vec<Packet>) {
    let version = connect.version;
    let mut out = Vec::new();
    let reason = reason_of(propose(connect, &Settings::default(), &mut out));
    (reason, written(&out, version))
}

fn will(qos: Qos) -> Will {
    Will {
        topic: "dt/lamp-1/gone".parse().unwrap(),
        payload: Bytes::new(),
        qos,
        retain: false,
        delay_s: 60,
        expiry_s: None,
        properties: None,
    }
}

#[test]
fn connack_says_what_is_granted() {
    let (session, connack) = open_with(connect(Version::V5), &Settings::default(), None);
    assert_eq!(connack.reason, ReasonCode::Success);
    assert_eq!(connack.qos_max, Qos::ExactlyOnce);
    assert_eq!(connack.receive_max.get(), 20);
    assert_eq!(connack.topic_alias_max, 10);
    assert!(connack.subscription_ids_available && connack.shared_available);
    assert!(!connack.session_present);
    assert!(connack.retain_available && connack.wildcard_available);
    assert_eq!(session.client_id().as_str(), "lamp-1");
}

/// [MQTT-4.12.0-1]
#[test]
fn enhanced_authentication_is_refused_by_its_name() {
    let mut enhanced = connect(Version::V5);
    enhanced.authentication = Some(Authentication {
        method: Str::from("SCRAM-SHA-256"),
        data: None,
    });
    let (reason, packets) = refusal(enhanced);
    assert_eq!(reason, ReasonCode::BadAuthenticationMethod);
    assert!(matches!(&packets[..], [Packet::ConnAck(connack)] if connack.reason == reason));
}

/// [MQTT-3.1.3-6, -7] [MQTT311-3.1.3-6, -7, -8]
#[test]
fn an_empty_identifier_is_assigned_one_but_resumes_nothing_in_3_1_1() {
    let (session, connack) = open_with(Connect::new(Version::V5, None), &Settings::default(), None);
    assert_eq!(
        connack.assigned_client_id.as_ref(),
        Some(session.client_id())
    );
    let mut old = Connect::new(Version::V311, None);
    assert_eq!(
        open_with(old.clone(), &Settings::default(), None)
            .0
            .client_id()
            .as_str(),
        "made-up"
    );
    old.clean_start = false;
    let (reason, packets) = refusal(old);
    assert_eq!(reason, ReasonCode::ClientIdentifierNotValid);
    assert!(matches!(&packets[..], [Packet::ConnAck(connack)] if connack.reason == reason));
}

#[test]
fn refusals_are_written_in_the_words_of_each_version() {
    for (version, length) in [(Version::V311, 4), (Version::V5, 5)] {
        let mut out = Vec::new();
        let proposal = propose(connect(version), &Settings::default(), &mut out).unwrap();
        proposal.refuse(ReasonCode::NotAuthorized, None, &mut out);
        assert_eq!(out.len(), length);
        assert_eq!(out[3], if version == Version::V5 { 0x87 } else { 5 });
    }
    let mut out = Vec::new();
    refuse(None, ReasonCode::ProtocolError, Some("what"), &mut out);
    assert!(out.is_empty());
    refuse(
        Some(Version::V311),
        ReasonCode::UnsupportedProtocolVersion,
        Some("what"),
        &mut out,
    );
    assert_eq!(out, [0x20, 2, 0, 1]);
}

/// [MQTT-3.1.2-24]
#[test]
fn a_client_that_takes_no_connack_gets_none() {
    let mut tiny = connect(Version::V5);
    tiny.packet_max_bytes = NonZeroU32::new(10);
    let (reason, packets) = refusal(tiny);
    assert_eq!((reason, packets), (ReasonCode::PacketTooLarge, Vec::new()));
    // Nor one that refuses: five bytes are the least of it.
    for (takes, told) in [(4, 0), (5, 1)] {
        let mut refused = connect(Version::V5);
        refused.packet_max_bytes = NonZeroU32::new(takes);
        refused.authentication = Some(Authentication {
            method: "SCRAM".into(),
            data: None,
        });
        let (reason, packets) = refusal(refused);
        assert_eq!(reason, ReasonCode::BadAuthenticationMethod);
        assert_eq!(packets.len(), told, "{takes} bytes");
    }
}

#[test]
fn expiry_is_clipped_and_told() {
    let settings = Settings::default();
    let mut long = connect(Version::V5);
    long.session_expiry_s = SESSION_NEVER_EXPIRES;
    let (session, connack) = open_with(long, &settings, None);
    assert_eq!(
        connack.session_expiry_s,
        Some(settings.session_expiry_max_s)
    );
    assert_eq!(session.close().expiry_s, settings.session_expiry_max_s);
    let mut short = connect(Version::V5);
    short.session_expiry_s = 5;
    assert_eq!(open_with(short, &settings, None).1.session_expiry_s, None);
}

/// [MQTT-3.1.2-4, -5, -6, 3.1.4-4, -5, 3.2.2-2, -3] [MQTT311-3.1.2-4, -6, 3.1.4-3, -4, 3.2.2-1, -2, -3]
#[test]
fn a_stored_session_is_resumed_unless_the_start_is_clean() {
    for version in [Version::V311, Version::V5] {
        for clean in [false, true] {
            let mut again = connect(version);
            again.clean_start = clean;
            let mut stored = Stored::default();
            stored.subscriptions.insert(
                "a/#".parse().unwrap(),
                SubscriptionOptions::new(Qos::AtLeastOnce),
            );
            let (session, connack) = open_with(again, &Settings::default(), Some(stored));
            assert_eq!(connack.reason, ReasonCode::Success);
            assert_eq!(connack.session_present, !clean);
            assert_eq!(session.subscriptions().len(), usize::from(!clean));
            // Where nothing is stored a new one begins.
            let mut first = connect(version);
            first.clean_start = clean;
            let (session, connack) = open_with(first, &Settings::default(), None);
            assert_eq!(connack.reason, ReasonCode::Success);
            assert!(!connack.session_present && session.subscriptions().len() == 0);
        }
    }
}

/// [MQTT-3.1.2-20, -22, 3.12.4-1] [MQTT311-3.1.2-23, -24, 3.12.4-1]
#[test]
fn keep_alive_ends_after_one_and_a_half_times_and_any_packet_starts_it_anew() {
    let mut alive = connect(Version::V311);
    alive.keep_alive_s = 10;
    let (mut session, _) = open_with(alive, &Settings::default(), None);
    assert_eq!(session.deadline(), Some(NOW.plus_millis(15_000)));
    assert_eq!(session.handle_timeout(NOW.plus_millis(14_999)), Ok(()));
    let mut out = Vec::new();
    session
        .handle(Packet::PingReq, NOW.plus_seconds(10), &mut out)
        .unwrap();
    assert_eq!(out, [0xd0, 0]);
    assert_eq!(session.handle_timeout(NOW.plus_millis(24_999)), Ok(()));
    assert_eq!(
        reason_of(session.handle_timeout(NOW.plus_millis(25_000))),
        ReasonCode::KeepAliveTimeout
    );
    assert_eq!(open(Version::V311).deadline(), None);
}

/// [MQTT-3.1.2-21, 3.2.2-21, -22]
#[test]
fn server_keep_alive_is_told_where_it_differs() {
    let settings = Settings {
        keep_alive_max_s: NonZeroU16::new(30),
        ..Settings::default()
    };
    for (asked, told, seconds) in [
        (0, Some(30), 45),
        (31, Some(30), 45),
        (30, None, 45),
        (10, None, 15),
    ] {
        let mut connect = connect(Version::V5);
        connect.keep_alive_s = asked;
        let (session, connack) = open_with(connect, &settings, None);
        assert_eq!(connack.server_keep_alive_s, told);
        assert_eq!(session.deadline(), Some(NOW.plus_seconds(seconds)));
    }
}

/// [MQTT-3.1.2-8, 3.14.4-3]
#[test]
fn the_will_stands_until_an_ordinary_disconnect() {
    let session = |reason: Option<ReasonCode>| {
        let mut connect = connect(Version::V5);
        connect.will = Some(will(Qos::AtLeastOnce));
        connect.session_expiry_s = 7;
        let (mut session, _) = open_with(connect, &Settings::default(), None);
        if let Some(reason) = reason {
            let packet = Packet::Disconnect(codec::Disconnect::new(reason));
            assert_eq!(
                session.handle(packet, NOW, &mut Vec::new()),
                Ok(Event::Disconnect)
            );
        }
        session.close().will
    };
    assert_eq!(session(Some(ReasonCode::Success)), None);
    // Lost, or with the wish for it; never later than the session's own end.
    for reason in [None, Some(ReasonCode::DisconnectWithWill)] {
        assert_eq!(session(reason).map(|will| will.delay_s), Some(7));
    }
}

#[test]
fn disconnect_changes_the_expiry_but_not_from_nothing() {
    let disconnect = |seconds| {
        let mut packet = codec::Disconnect::new(ReasonCode::Success);
        packet.session_expiry_s = Some(seconds);
        Packet::Disconnect(packet)
    };
    let mut kept = connect(Version::V5);
    kept.session_expiry_s = 100;
    let (mut session, _) = open_with(kept, &Settings::default(), None);
    session.handle(disconnect(0), NOW, &mut Vec::new()).unwrap();
    assert_eq!(session.close().expiry_s, 0);
    let mut session = open(Version::V5);
    assert_eq!(
        reason_of(session.handle(disconnect(1), NOW, &mut Vec::new())),
        ReasonCode::ProtocolError
    );
}

/// [MQTT-3.14.2-2, 3.14.4-1]
#[test]
fn a_disconnect_of_the_server_is_written_once_and_in_mqtt_5_only() {
    let mut out = Vec::new();
    open(Version::V311).disconnect(ReasonCode::ServerShuttingDown, Some("bye"), &mut out);
    assert!(out.is_empty());
    let mut session = open(Version::V5);
    session.disconnect(ReasonCode::ServerShuttingDown, Some("bye"), &mut out);
    session.disconnect(ReasonCode::Unspecified, None, &mut out);
    assert!(!session.may_send(Qos::AtMostOnce, 0));
    let packets = written(&out, Version::V5);
    assert!(matches!(
        &packets[..],
        [Packet::Disconnect(packet)]
            if packet.reason == ReasonCode::ServerShuttingDown
                && packet.reason_string.as_deref() == Some("bye")
                && packet.session_expiry_s.is_none()
    ));
}

/// [MQTT-3.2.2-9, -10, -11, -12]
#[test]
fn aws_has_no_qos_2_no_subscription_identifiers_and_its_own_keep_alive() {
    let settings = Settings {
        aws: true,
        ..Settings::default()
    };
    for version in [Version::V311, Version::V5] {
        for (asked, served) in [(0, 1200), (29, 30), (30, 30), (1200, 1200), (1201, 1200)] {
            let mut connect = connect(version);
            connect.keep_alive_s = asked;
            let (session, connack) = open_with(connect, &settings, None);
            let after = NOW.plus_millis(u64::from(served) * 1500);
            assert_eq!(session.deadline(), Some(after));
            if version == Version::V5 {
                assert_eq!(connack.qos_max, Qos::AtLeastOnce);
                assert!(!connack.subscription_ids_available && connack.shared_available);
                let told = (asked != served).then_some(served);
                assert_eq!(connack.server_keep_alive_s, told);
            }
        }
        let mut with_will = connect(version);
        with_will.will = Some(will(Qos::ExactlyOnce));
        let refused = propose(with_will, &settings, &mut Vec::new());
        assert_eq!(reason_of(refused), ReasonCode::QosNotSupported);
    }
    let session = || open_with(connect(Version::V5), &settings, None).0;
    let Packet::Publish(mut twice) = publish(None) else {
        unreachable!()
    };
    twice.delivery = Delivery::ExactlyOnce {
        packet_id: id(1),
        dup: false,
    };
    let refused = session().handle(Packet::Publish(twice), NOW, &mut Vec::new());
    assert_eq!(reason_of(refused), ReasonCode::QosNotSupported);
    let mut subscribe = Subscribe {
        packet_id: id(1),
        filters: vec![(
            "a".parse().unwrap(),
            SubscriptionOptions::new(Qos::ExactlyOnce),
        )],
        subscription_id: None,
        user: Vec::new(),
    };
    match session().handle(Packet::Subscribe(subscribe.clone()), NOW, &mut Vec::new()) {
        Ok(Event::Subscribe(requests)) => {
            assert_eq!(requests.requests[0].verdict, ReasonCode::GrantedQos1);
        }
        other => panic!("{other:?}"),
    }
    subscribe.subscription_id = Some(1);
    let refused = session().handle(Packet::Subscribe(subscribe), NOW, &mut Vec::new());
    let reason = ReasonCode::SubscriptionIdentifiersNotSupported;
    assert_eq!(reason_of(refused), reason);
}
