//! Each field of each packet in its place, and what its text may be.

use super::*;
use Version::{V5, V311};

const VERSIONS: [Version; 2] = [V311, V5];

fn string(text: &[u8]) -> Vec<u8> {
    let len = u16::try_from(text.len()).unwrap();
    [&len.to_be_bytes()[..], text].concat()
}

/// A packet of the first byte and the parts of its body.
fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![first];
    writer::put_varint(&mut out, body.len());
    out.extend(body);
    out
}

/// Properties with their length; nothing in 3.1.1.
fn properties(version: Version, properties: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if version == V5 {
        writer::put_varint(&mut out, properties.len());
        out.extend(properties);
    }
    out
}

/// A CONNECT from its flags, will properties in it where there are any, and payload.
fn connect(version: Version, flags: u8, payload: &[Vec<u8>]) -> Vec<u8> {
    let level = if version == V5 { 5 } else { 4 };
    let head = [0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 60];
    packet(0x10, &[&head, &properties(version, &[]), &payload.concat()])
}

fn first(bytes: &[u8]) -> Result<Connect, DecodeError> {
    let mut buffer = BytesMut::from(bytes);
    let connect = decode_first(&mut buffer, &LIMITS)?;
    assert!(buffer.is_empty(), "bytes are left");
    Ok(connect.expect("the packet is whole"))
}

const WILL: u8 = 0x04;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

/// Will properties, where there are such.
fn no_will_properties(version: Version) -> Vec<u8> {
    properties(version, &[])
}

/// [MQTT-1.5.4-1, -2, 1.5.7-1, 3.1.3-4, -11, -12, 3.3.2-1, -13, -19, 3.8.3-1, 3.10.3-1, 4.7.3-2]
/// [MQTT311-1.5.3-1, -2, 3.1.3-4, -10, -11, 3.3.2-1, 3.8.3-1, 3.10.3-1, 4.7.3-2]
#[test]
fn every_text_is_utf_8_without_null_wherever_it_stands() {
    type Make = fn(Version, &[u8]) -> Vec<u8>;
    fn publish(version: Version, topic: &[u8], property: &[u8]) -> Vec<u8> {
        packet(0x30, &[&string(topic), &properties(version, property)])
    }
    let both: [(&str, Make); 6] = [
        ("client identifier", |version, text| {
            connect(version, 0, &[string(text)])
        }),
        ("will topic", |version, text| {
            let payload = [
                string(b"a"),
                no_will_properties(version),
                string(text),
                string(b""),
            ];
            connect(version, WILL, &payload)
        }),
        ("user name", |version, text| {
            connect(version, USER_NAME, &[string(b"a"), string(text)])
        }),
        ("topic name", |version, text| publish(version, text, &[])),
        ("filter of SUBSCRIBE", |version, text| {
            let head = [&[0, 1][..], &properties(version, &[])].concat();
            packet(0x82, &[&head, &string(text), &[0]])
        }),
        ("filter of UNSUBSCRIBE", |version, text| {
            let head = [&[0, 1][..], &properties(version, &[])].concat();
            packet(0xa2, &[&head, &string(text)])
        }),
    ];
    let v5: [(&str, Make); 4] = [
        ("response topic", |version, text| {
            publish(version, b"a", &[&[0x08][..], &string(text)].concat())
        }),
        ("content type", |version, text| {
            publish(version, b"a", &[&[0x03][..], &string(text)].concat())
        }),
        ("user property's name", |version, text| {
            let pair = [&[0x26][..], &string(text), &string(b"v")].concat();
            publish(version, b"a", &pair)
        }),
        ("user property's value", |version, text| {
            let pair = [&[0x26][..], &string(b"n"), &string(text)].concat();
            publish(version, b"a", &pair)
        }),
    ];
    let cases = both
        .iter()
        .flat_map(|case| VERSIONS.map(|version| (version, case)))
        .chain(v5.iter().map(|case| (V5, case)));
    for (version, (what, make)) in cases {
        let error = |bytes: &[u8]| match bytes[0] {
            0x10 => first(bytes).err(),
            _ => decode_all(bytes, version).err(),
        };
        for good in ["a", "ü", "\u{10000}", "\u{d7ff}\u{e000}"] {
            let error = error(&make(version, good.as_bytes()));
            assert_eq!(error, None, "{what}: {good:?}");
        }
        for bad in [
            &[0xff][..],
            &[b'a', 0xc3],             // cut short
            &[0xc0, 0x80],             // U+0000 in two bytes
            &[0xed, 0xa0, 0x80],       // U+D800
            &[0xed, 0xbf, 0xbf],       // U+DFFF
            &[0xf4, 0x90, 0x80, 0x80], // above U+10FFFF
            &[b'a', 0],
        ] {
            let error = error(&make(version, bad)).unwrap_or_else(|| panic!("{what}: {bad:x?}"));
            assert_eq!(
                error.reason,
                ReasonCode::MalformedPacket,
                "{what}: {bad:x?}"
            );
        }
    }
}

/// [MQTT-1.5.4-3] [MQTT311-1.5.3-3]
#[test]
fn a_byte_order_mark_is_a_character() {
    for version in VERSIONS {
        let topic = "\u{feff}a\u{feff}";
        let bytes = packet(
            0x30,
            &[&string(topic.as_bytes()), &properties(version, &[])],
        );
        let decoded = decode_all(&bytes, version).unwrap();
        let Packet::Publish(publish) = &decoded else {
            panic!("{decoded:?}");
        };
        assert_eq!(publish.topic.as_ref().unwrap().as_str(), topic);
        assert_eq!(encoded(&decoded, version), bytes);
        let name = first(&connect(version, 0, &[string("\u{feff}".as_bytes())])).unwrap();
        assert_eq!(name.client_id.unwrap().as_str(), "\u{feff}");
    }
}

/// [MQTT-3.1.2-9, -12, -17, -19, 3.1.3-1, -10] [MQTT311-3.1.2-9, -14, -19, -21, 3.1.3-1]
#[test]
fn the_payload_of_connect_is_read_in_its_order() {
    let two = [
        &[0x26][..],
        &string(b"k"),
        &string(b"2"),
        &[0x26],
        &string(b"k"),
        &string(b"1"),
    ];
    for version in VERSIONS {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let payload = [
                string(b"client"),
                properties(version, &two.concat()),
                string(b"will/topic"),
                string(b"will payload"),
                string(b"user"),
                string(b"password"),
            ];
            let flags = WILL | USER_NAME | PASSWORD | (qos as u8) << 3;
            let connect = first(&connect(version, flags, &payload)).unwrap();
            assert_eq!(connect.version, version);
            assert_eq!(connect.client_id.unwrap().as_str(), "client");
            let will = connect.will.unwrap();
            assert_eq!(will.topic.as_str(), "will/topic");
            assert_eq!((&will.payload[..], will.qos), (&b"will payload"[..], qos));
            let user = will.properties.map(|properties| properties.user);
            let pair = |value| (Str::from("k"), Str::from(value));
            let expected = (version == V5).then(|| vec![pair("2"), pair("1")]);
            assert_eq!(user, expected, "in the order they were sent");
            assert_eq!(connect.user_name.as_deref(), Some("user"));
            assert_eq!(connect.password.unwrap().0, "password");
        }
    }
}

/// [MQTT-3.1.2-9, -16, -17, -18, -19, 3.1.3-3, 3.1.4-1]
/// [MQTT311-3.1.2-9, -11, -18, -19, -20, -21, 3.1.3-3, 3.1.4-1]
#[test]
fn what_the_flags_of_connect_promise_is_there_and_nothing_else() {
    for version in VERSIONS {
        let (id, field) = (string(b"a"), string(b"x"));
        let will = [no_will_properties(version), field.clone(), field.clone()].concat();
        // 3.1.1 has no password without a user name.
        let before = if version == V311 { USER_NAME } else { 0 };
        let user = if version == V311 {
            field.clone()
        } else {
            Vec::new()
        };
        for (flags, payload) in [
            (0, vec![id.clone()]),
            (WILL, vec![id.clone(), will.clone()]),
            (USER_NAME, vec![id.clone(), field.clone()]),
            (before | PASSWORD, vec![id.clone(), user, field.clone()]),
        ] {
            assert!(first(&connect(version, flags, &payload)).is_ok());
            let malformed = |payload: &[Vec<u8>]| {
                let error = first(&connect(version, flags, payload)).unwrap_err();
                assert_eq!(error.reason, ReasonCode::MalformedPacket, "{payload:x?}");
                // Said in its version, which for 3.1.1 has no word for it.
                let code = error.reason.return_code_v311();
                assert_eq!((error.version, code), (Some(version), None));
            };
            let mut more = payload.clone();
            more.push(field.clone());
            malformed(&more);
            let less = &payload[..payload.len() - 1];
            malformed(less);
        }
        if version == V5 {
            let without_payload = [id.clone(), no_will_properties(version), field.clone()];
            assert!(first(&connect(version, WILL, &without_payload)).is_err());
        }
        assert!(first(&connect(version, WILL, &[id, field])).is_err());
    }
}

/// [MQTT-2.2.2-1]
#[test]
fn no_properties_are_a_length_of_zero() {
    let filter = "a".parse().unwrap();
    let ack = Acknowledgement::new(PacketId::MIN, ReasonCode::Success);
    let mut connect = Connect::new(V5, Some("a".parse().unwrap()));
    connect.session_expiry_s = 0;
    for (packet, expected) in [
        (
            Packet::Connect(Box::new(connect)),
            &[
                0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0, 0, 1, b'a',
            ][..],
        ),
        (
            Packet::ConnAck(Box::new(ConnAck::new(ReasonCode::Success, false))),
            &[0x20, 3, 0, 0, 0],
        ),
        (
            Packet::Subscribe(Subscribe {
                packet_id: PacketId::MIN,
                filters: vec![(
                    "a".parse().unwrap(),
                    SubscriptionOptions::new(Qos::AtMostOnce),
                )],
                subscription_id: None,
                user: Vec::new(),
            }),
            &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0],
        ),
        (
            Packet::SubAck(SubAck {
                packet_id: PacketId::MIN,
                reasons: vec![ReasonCode::Success],
                reason_string: None,
                user: Vec::new(),
            }),
            &[0x90, 4, 0, 1, 0, 0],
        ),
        (
            Packet::Unsubscribe(Unsubscribe {
                packet_id: PacketId::MIN,
                filters: vec![filter],
                user: Vec::new(),
            }),
            &[0xa2, 6, 0, 1, 0, 0, 1, b'a'],
        ),
        (
            Packet::UnsubAck(UnsubAck {
                packet_id: PacketId::MIN,
                reasons: vec![ReasonCode::Success],
                reason_string: None,
                user: Vec::new(),
            }),
            &[0xb0, 4, 0, 1, 0, 0],
        ),
        (
            Packet::Disconnect(Disconnect::new(ReasonCode::ServerBusy)),
            &[0xe0, 2, 0x89, 0],
        ),
        // These may leave it out together with what follows from it (§3.4.2.2.1).
        (Packet::PubAck(PubAck(ack)), &[0x40, 2, 0, 1]),
    ] {
        assert_eq!(encoded(&packet, V5), expected, "{packet:?}");
    }
    // Without it the packet is cut short.
    for bytes in [
        &[0x30, 3, 0, 1, b'a'][..],
        &[0x82, 2, 0, 1],
        &[0xa2, 2, 0, 1],
        &[0x20, 2, 0, 0],
        &[0xb0, 2, 0, 1],
    ] {
        assert_eq!(
            error_of(bytes, V5),
            ReasonCode::MalformedPacket,
            "{bytes:x?}"
        );
    }
}

/// [MQTT-2.2.1-2, 4.3.1-1] [MQTT311-2.3.1-5, 4.3.1-1]
#[test]
fn a_publish_of_qos_0_has_no_packet_identifier_and_no_dup() {
    for version in VERSIONS {
        let publish = |delivery| {
            encoded(
                &Packet::Publish(Publish {
                    delivery,
                    retain: false,
                    topic: Some("a".parse().unwrap()),
                    topic_alias: None,
                    expiry_s: None,
                    subscription_ids: Vec::new(),
                    properties: None,
                    payload: bytes::Bytes::from_static(&[7, 7]),
                }),
                version,
            )
        };
        let none = properties(version, &[]);
        let topic = string(b"a");
        let bytes = publish(Delivery::AtMostOnce);
        assert_eq!(bytes, packet(0x30, &[&topic, &none, &[7, 7]]));
        let Ok(Packet::Publish(decoded)) = decode_all(&bytes, version) else {
            panic!("not a PUBLISH");
        };
        assert_eq!(decoded.payload[..], [7, 7], "none of it is an identifier");
        let packet_id = PacketId::new(9).unwrap();
        let bytes = publish(Delivery::AtLeastOnce {
            packet_id,
            dup: false,
        });
        assert_eq!(bytes, packet(0x32, &[&topic, &[0, 9], &none, &[7, 7]]));
    }
}

/// [MQTT-3.2.2-1]
#[test]
fn the_flags_of_connack_are_session_present_and_nothing_else() {
    for version in VERSIONS {
        for present in [false, true] {
            let connack = ConnAck::new(ReasonCode::Success, present);
            let bytes = encoded(&Packet::ConnAck(Box::new(connack)), version);
            assert_eq!(bytes[2], u8::from(present));
        }
    }
}

/// [MQTT311-2.3.1-1]
#[test]
fn identifiers_are_two_bytes_and_not_zero() {
    let publish = |id: u16| packet(0x32, &[&string(b"a"), &id.to_be_bytes()]);
    let subscribe = |id: u16| packet(0x82, &[&id.to_be_bytes(), &string(b"a"), &[0]]);
    let unsubscribe = |id: u16| packet(0xa2, &[&id.to_be_bytes(), &string(b"a")]);
    for make in [
        &publish as &dyn Fn(u16) -> Vec<u8>,
        &subscribe,
        &unsubscribe,
    ] {
        assert_eq!(error_of(&make(0), V311), ReasonCode::ProtocolError);
        for id in [1, 0x0102, u16::MAX] {
            decode_all(&make(id), V311).unwrap();
        }
    }
}
