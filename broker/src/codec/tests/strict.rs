//! What the standards forbid, byte by byte: each line is refused with its reason, and its neighbour is taken.

use super::*;
use ReasonCode::{
    MalformedPacket, PacketTooLarge, ProtocolError, QuotaExceeded, TopicFilterInvalid,
    TopicNameInvalid,
};
use Version::{V5, V311};

fn refused(version: Version, reason: ReasonCode, bytes: &[u8]) {
    assert_eq!(error_of(bytes, version), reason, "{bytes:02x?}");
}

fn taken(version: Version, bytes: &[u8]) -> Packet {
    decode_all(bytes, version).unwrap()
}

/// [MQTT311-2.2.2-1, -2, 3.8.1-1, 3.10.1-1, 3.14.1-1]
#[test]
fn fixed_headers() {
    for version in [V311, V5] {
        refused(version, MalformedPacket, &[0x00, 0]); // §2.1.2: reserved
        refused(version, MalformedPacket, &[0xc0, 0x80, 0x00]); // [MQTT-1.5.5-1]: overlong
        refused(version, MalformedPacket, &[0xc0, 0x80, 0x80, 0x80, 0x80]); // §2.1.4: five bytes
        refused(version, MalformedPacket, &[0xc0, 1, 0]); // §3.12: PINGREQ has no body
        refused(version, MalformedPacket, &[0xc1, 0]); // [MQTT-2.1.3-1]
        refused(version, MalformedPacket, &[0x80, 6, 0, 1, 0, 1, b'a', 0]); // [MQTT-3.8.1-1]
        refused(version, MalformedPacket, &[0xa0, 5, 0, 1, 0, 1, b'a']); // [MQTT-3.10.1-1]
        refused(version, MalformedPacket, &[0xe1, 0]); // [MQTT-3.14.1-1]
        assert_eq!(taken(version, &[0xc0, 0]), Packet::PingReq);
    }
    refused(V311, MalformedPacket, &[0xf0, 0]);
    assert!(matches!(taken(V5, &[0xf0, 0]), Packet::Auth(_)));
}

/// [MQTT-3.2.2-15]
#[test]
fn a_large_claim_is_refused_before_its_body_and_the_bound_itself_is_not() {
    let limits = Limits {
        packet_max_bytes: 130,
        ..LIMITS
    };
    let packet = |payload: usize| {
        let mut out = Vec::new();
        let publish = Publish {
            delivery: Delivery::AtMostOnce,
            retain: false,
            topic: Some("a".parse().unwrap()),
            topic_alias: None,
            expiry_s: None,
            subscription_ids: Vec::new(),
            properties: None,
            payload: vec![0; payload].into(),
        };
        publish.encode(V311, &mut out);
        out
    };
    assert_eq!(packet(124).len(), 129);
    assert_eq!(packet(125).len(), 131); // the remaining length takes one byte more
    let mut at = BytesMut::from(&packet(124)[..]);
    assert!(decode(&mut at, V311, &limits).unwrap().is_some());
    let past = packet(125);
    let mut head = BytesMut::from(&past[..3]);
    assert_eq!(
        decode(&mut head, V311, &limits).unwrap_err().reason,
        PacketTooLarge
    );
    let mut claim = BytesMut::from(&[0x30, 0xff, 0xff, 0xff, 0x7f][..]);
    assert_eq!(
        decode(&mut claim, V5, &LIMITS).unwrap_err().reason,
        PacketTooLarge
    );
}

/// [MQTT-4.7.3-1] [MQTT311-3.3.1-2, -4, 3.3.2-2, 4.7.3-1]
#[test]
fn publish() {
    for version in [V311, V5] {
        refused(version, MalformedPacket, &[0x36, 5, 0, 1, b'a', 0, 1]); // [MQTT-3.3.1-4]: QoS 3
        refused(version, MalformedPacket, &[0x38, 4, 0, 1, b'a', 0]); // [MQTT-3.3.1-2]: DUP on QoS 0
        refused(version, ProtocolError, &[0x32, 6, 0, 1, b'a', 0, 0, 0]); // [MQTT-2.2.1-3]: packet id 0
        refused(version, TopicNameInvalid, &[0x30, 4, 0, 1, b'#', 0]); // [MQTT-3.3.2-2]
        refused(version, TopicNameInvalid, &[0x30, 4, 0, 1, b'+', 0]);
        refused(version, MalformedPacket, &[0x30, 4, 0, 1, 0, 0]); // [MQTT-1.5.4-2]: U+0000
        refused(version, MalformedPacket, &[0x30, 4, 0, 1, 0xff, 0]); // [MQTT-1.5.4-1]
        refused(version, MalformedPacket, &[0x30, 3, 0, 9, b'a']); // topic past the end
        refused(version, MalformedPacket, &[0x30, 0]);
    }
    refused(V311, MalformedPacket, &[0x30, 2, 0, 0]); // empty topic
    refused(V5, ProtocolError, &[0x30, 3, 0, 0, 0]); // empty topic without alias
    let property = |bytes: &[u8]| {
        let mut packet = vec![0x30, u8::try_from(bytes.len()).unwrap() + 4, 0, 1, b'a'];
        packet.push(u8::try_from(bytes.len()).unwrap());
        packet.extend(bytes);
        packet
    };
    refused(V5, ReasonCode::TopicAliasInvalid, &property(&[0x23, 0, 0])); // [MQTT-3.3.2-8]
    refused(V5, ProtocolError, &property(&[0x0b, 0])); // §3.3.2.3.8: subscription id 0
    refused(V5, ProtocolError, &property(&[0x01, 2])); // §3.3.2.3.2
    refused(V5, ProtocolError, &property(&[0x01, 0, 0x01, 0])); // twice
    refused(V5, ProtocolError, &property(&[0x23, 0, 1, 0x23, 0, 1]));
    refused(V5, TopicNameInvalid, &property(&[0x08, 0, 1, b'#'])); // [MQTT-3.3.2-14]
    refused(V5, MalformedPacket, &property(&[0x11, 0, 0, 0, 1])); // Session Expiry is not PUBLISH's
    refused(V5, MalformedPacket, &property(&[0x7f, 0])); // no such property
    refused(V5, MalformedPacket, &property(&[0x80, 0x01])); // nor this one
    refused(V5, MalformedPacket, &property(&[0x02, 0, 0])); // cut short
    refused(V5, MalformedPacket, &[0x30, 5, 0, 1, b'a', 9, 0]); // properties longer than the packet
    let Packet::Publish(publish) = taken(V5, &property(&[0x0b, 1, 0x0b, 2])) else {
        panic!("not a PUBLISH");
    };
    assert_eq!(publish.subscription_ids, [1, 2]);
}

#[test]
fn user_properties_end_at_their_bound() {
    let packet = |count: usize| {
        let mut out = Vec::new();
        let mut ack = Acknowledgement::new(PacketId::MIN, ReasonCode::Success);
        ack.user = vec![(Str::from("k"), Str::from("v")); count];
        PubAck(ack).encode(V5, &mut out);
        out
    };
    taken(V5, &packet(LIMITS.user_properties_max));
    refused(V5, QuotaExceeded, &packet(LIMITS.user_properties_max + 1));
}

#[test]
fn a_payload_and_a_topic_share_the_read_buffer() {
    let bytes = [0x30, 6, 0, 1, b'a', b'x', b'y', b'z'];
    let mut buffer = BytesMut::from(&bytes[..]);
    let base = buffer.as_ptr() as usize;
    let Ok(Some(Packet::Publish(publish))) = decode(&mut buffer, V311, &LIMITS) else {
        panic!("not a PUBLISH");
    };
    assert_eq!(publish.payload.as_ptr() as usize, base + 5);
    assert_eq!(publish.topic.unwrap().as_str().as_ptr() as usize, base + 4);
}

#[test]
fn subscribe_and_unsubscribe() {
    for (version, none) in [(V311, &[][..]), (V5, &[0][..])] {
        let packet = |first: u8, id: u8, rest: &[u8]| {
            let len = u8::try_from(2 + none.len() + rest.len()).unwrap();
            [&[first, len, 0, id], none, rest].concat()
        };
        taken(version, &packet(0x82, 1, &[0, 1, b'a', 1]));
        refused(version, ProtocolError, &packet(0x82, 0, &[0, 1, b'a', 1])); // [MQTT-2.2.1-3]
        refused(version, ProtocolError, &packet(0x82, 1, &[])); // [MQTT-3.8.3-2] [MQTT311-3.8.3-3]
        refused(version, MalformedPacket, &packet(0x82, 1, &[0, 1, b'a', 3])); // QoS 3
        refused(
            version,
            MalformedPacket,
            &packet(0x82, 1, &[0, 1, b'a', 0xc0]),
        ); // [MQTT-3.8.3-5]
        refused(version, MalformedPacket, &packet(0x82, 1, &[0, 1, b'a'])); // options missing
        refused(
            version,
            TopicFilterInvalid,
            &packet(0x82, 1, &[0, 2, b'a', b'#', 0]),
        ); // [MQTT-4.7.1-1]
        refused(version, TopicFilterInvalid, &packet(0x82, 1, &[0, 0, 0])); // [MQTT-4.7.3-1]
        refused(version, ProtocolError, &packet(0xa2, 1, &[])); // [MQTT-3.10.3-2] [MQTT311-3.10.3-2]
        refused(version, ProtocolError, &packet(0xa2, 0, &[0, 1, b'a']));
        let many = |count: usize, one: &[u8]| one.repeat(count);
        taken(
            version,
            &packet(0x82, 1, &many(LIMITS.filters_max, &[0, 1, b'a', 0])),
        );
        refused(
            version,
            QuotaExceeded,
            &packet(0x82, 1, &many(LIMITS.filters_max + 1, &[0, 1, b'a', 0])),
        );
        taken(
            version,
            &packet(0xa2, 1, &many(LIMITS.filters_max, &[0, 1, b'a'])),
        );
        refused(
            version,
            QuotaExceeded,
            &packet(0xa2, 1, &many(LIMITS.filters_max + 1, &[0, 1, b'a'])),
        );
    }
    refused(V311, MalformedPacket, &[0x82, 6, 0, 1, 0, 1, b'a', 4]); // [MQTT311-3.8.3-4]
    refused(V5, ProtocolError, &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x30]); // retain handling 3
    refused(
        V5,
        ProtocolError,
        &[0x82, 9, 0, 1, 2, 0x0b, 0, 0, 1, b'a', 0],
    ); // subscription id 0
    refused(
        V5,
        ProtocolError,
        &[0x82, 11, 0, 1, 4, 0x0b, 1, 0x0b, 1, 0, 1, b'a', 0],
    ); // twice
    let shared = b"$share/g/a";
    let mut no_local = vec![0x82, 6 + 10, 0, 1, 0, 0, 10];
    no_local.extend(shared);
    no_local.push(0x04);
    refused(V5, ProtocolError, &no_local); // [MQTT-3.8.3-4]
}

/// [MQTT-3.14.2-1, 3.15.2-1]
#[test]
fn disconnect_and_auth() {
    assert_eq!(taken(V311, &[0xe0, 0]), taken(V5, &[0xe0, 0]));
    refused(V311, MalformedPacket, &[0xe0, 1, 0]);
    let Packet::Disconnect(one_byte) = taken(V5, &[0xe0, 1, 4]) else {
        panic!("not a DISCONNECT");
    };
    assert_eq!(one_byte, Disconnect::new(ReasonCode::DisconnectWithWill));
    taken(V5, &[0xe0, 2, 0, 0]);
    refused(V5, ProtocolError, &[0xe0, 1, 0x85]); // not a reason of DISCONNECT
    refused(V5, ProtocolError, &[0xe0, 1, 0x03]); // no reason at all
    refused(V5, MalformedPacket, &[0xe0, 3, 0, 0, 0]);
    refused(V5, ProtocolError, &[0xf0, 1, 0x87]); // [MQTT-3.15.2-1]
    refused(V5, ProtocolError, &[0xf0, 5, 0x18, 3, 0x16, 0, 0]); // data without a method
}

/// A CONNECT from its parts after the protocol level.
fn connect(level: u8, flags: u8, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 0];
    if level == 5 {
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend(properties);
    }
    body.extend(payload);
    let mut packet = vec![0x10];
    writer::put_varint(&mut packet, body.len());
    packet.extend(body);
    packet
}

fn first_error(bytes: &[u8]) -> (ReasonCode, Option<Version>) {
    let error = decode_first(&mut BytesMut::from(bytes), &LIMITS).unwrap_err();
    (error.reason, error.version)
}

/// [MQTT311-3.1.2-3, -11, -13, -14, -15]
#[test]
fn connect_flags_and_payload() {
    let id = &[0, 1, b'a'];
    for (level, version) in [(4, V311), (5, V5)] {
        let error = |flags, payload: &[u8]| first_error(&connect(level, flags, &[], payload));
        let malformed = (MalformedPacket, Some(version));
        assert!(
            decode_first(
                &mut BytesMut::from(&connect(level, 2, &[], id)[..]),
                &LIMITS
            )
            .is_ok()
        );
        assert_eq!(error(0x03, id), malformed); // [MQTT-3.1.2-3]
        assert_eq!(error(0x1e, id), malformed); // [MQTT-3.1.2-12]
        assert_eq!(error(0x0a, id), malformed); // [MQTT-3.1.2-11]
        assert_eq!(error(0x22, id), malformed); // [MQTT-3.1.2-13]
        assert_eq!(error(0x02, &[0, 1, b'a', 0]), malformed); // bytes after the end
        assert_eq!(error(0x82, id), malformed); // user name promised, not there
        assert_eq!(error(0x02, &[0, 2, b'a', 0]), malformed); // U+0000 in the identifier
        let long = [&[0, 129][..], &[b'a'; 129]].concat();
        assert_eq!(
            error(0x02, &long),
            (ReasonCode::ClientIdentifierNotValid, Some(version))
        );
    }
    // [MQTT311-3.1.2-22]; MQTT 5 allows it.
    let password = &[0, 1, b'a', 0, 1, b'p'];
    assert_eq!(
        first_error(&connect(4, 0x42, &[], password)),
        (MalformedPacket, Some(V311))
    );
    assert!(
        decode_first(
            &mut BytesMut::from(&connect(5, 0x42, &[], password)[..]),
            &LIMITS
        )
        .is_ok()
    );
    for properties in [
        &[0x21, 0, 0][..],         // §3.1.2.11.3: Receive Maximum 0
        &[0x27, 0, 0, 0, 0],       // §3.1.2.11.4: Maximum Packet Size 0
        &[0x17, 2],                // §3.1.2.11.7
        &[0x16, 0, 0],             // §3.1.2.11.10
        &[0x21, 0, 1, 0x21, 0, 1], // twice
    ] {
        assert_eq!(
            first_error(&connect(5, 2, properties, id)),
            (ProtocolError, Some(V5)),
            "{properties:x?}"
        );
    }
    // Server Keep Alive is CONNACK's.
    assert_eq!(
        first_error(&connect(5, 2, &[0x13, 0, 1], id)),
        (MalformedPacket, Some(V5))
    );
}

/// [MQTT-3.1.2-1, -2] [MQTT311-3.1.2-1, -2]
#[test]
fn other_protocols_are_told_what_to_speak_or_nothing() {
    let unsupported = |version| (ReasonCode::UnsupportedProtocolVersion, version);
    let isdp = [0x10, 9, 0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3];
    assert_eq!(first_error(&isdp), unsupported(Some(V311)));
    assert_eq!(
        first_error(&connect(3, 2, &[], &[])),
        unsupported(Some(V311))
    );
    assert_eq!(first_error(&connect(6, 2, &[], &[])), unsupported(Some(V5)));
    assert_eq!(
        first_error(&[0x10, 5, 0, 2, b'h', b'i', 4]),
        unsupported(None)
    );
    // Not CONNECT: refused at the first byte [MQTT-3.1.0-1].
    assert_eq!(first_error(b"GET"), (ProtocolError, None));
    assert_eq!(first_error(&[0x30]), (ProtocolError, None));
    assert_eq!(first_error(&[0x11]), (MalformedPacket, None));
}

/// [MQTT311-3.2.2-6]
#[test]
fn connack_suback_and_unsuback() {
    refused(V5, MalformedPacket, &[0x20, 3, 2, 0, 0]); // [MQTT-3.2.2-1]
    refused(V5, ProtocolError, &[0x20, 3, 1, 0x87, 0]); // [MQTT-3.2.2-6]
    refused(V311, ProtocolError, &[0x20, 2, 0, 6]);
    refused(V311, ProtocolError, &[0x90, 3, 0, 1, 0x87]); // [MQTT311-3.9.3-2]
    taken(V5, &[0x90, 4, 0, 1, 0, 0x87]);
    refused(V5, ProtocolError, &[0x90, 3, 0, 1, 0]);
    refused(V311, MalformedPacket, &[0xb0, 3, 0, 1, 0]);
    refused(V5, ProtocolError, &[0xb0, 3, 0, 1, 0]);
    // A reason that 3.1.1 has no return code for is not said at all.
    assert!(
        encoded(
            &Packet::ConnAck(Box::new(ConnAck::new(ReasonCode::QosNotSupported, false))),
            V311
        )
        .is_empty()
    );
}

#[test]
fn passwords_are_not_shown() {
    let mut connect = Connect::new(V5, None);
    connect.password = Some(Secret(bytes::Bytes::from_static(b"hunter2")));
    let shown = format!("{connect:?}");
    assert!(
        !shown.contains("hunter2") && !shown.contains("104, 117"),
        "{shown}"
    );
}
