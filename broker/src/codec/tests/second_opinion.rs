//! A second opinion: `mqttbytes` reads the same bytes. Where the two differ, the difference is listed here with the
//! clause that makes ours right; any other is a failure.
//!
//! `tests/fuzz` includes this file too.

use mqttbytes::{v4, v5};

use super::*;

/// What we refuse and `mqttbytes` takes: our sentence, and why it is right.
const WE_REFUSE: &[(&str, &str)] = &[
    ("the reserved flags of the packet are wrong", "MQTT-2.1.3-1"),
    ("DUP is set on a PUBLISH of QoS 0", "MQTT-3.3.1-2"),
    (
        "a length is encoded in more bytes than it needs",
        "MQTT-1.5.5-1",
    ),
    (
        "a length has more than four bytes",
        "MQTT-1.5.5-1: it takes a subscription identifier of any length",
    ),
    ("PINGREQ and PINGRESP have no body", "§3.12.2, §3.13.2"),
    (
        "bytes are left after the end of the packet",
        "§1.2 Malformed Packet",
    ),
    ("the packet ends inside a field", "§1.2 Malformed Packet"),
    ("the packet identifier is 0", "MQTT-2.2.1-3"),
    ("a string is not UTF-8", "MQTT-1.5.4-1"),
    ("a string holds U+0000", "MQTT-1.5.4-2"),
    ("the topic name is malformed", "MQTT-1.5.4-1, MQTT-1.5.4-2"),
    ("the topic name is invalid", "MQTT-3.3.2-2, MQTT-4.7.3-1"),
    ("the topic is empty", "MQTT-4.7.3-1, §3.3.2.1"),
    ("the topic filter is malformed", "MQTT-1.5.4-1"),
    ("the topic filter is invalid", "MQTT-4.7.1-1, MQTT-4.8.2-1"),
    ("the client identifier is invalid", "§3.1.3.1, our bound"),
    ("SUBSCRIBE has no topic filter", "MQTT-3.8.3-2"),
    ("UNSUBSCRIBE has no topic filter", "MQTT-3.10.3-2"),
    ("SUBACK has no reason code", "§3.9.3"),
    ("UNSUBACK has no reason code", "§3.11.3"),
    (
        "reserved bits of the subscription options",
        "MQTT-3.8.3-5, 3.1.1 MQTT-3.8.3-4",
    ),
    ("No Local is set on a shared subscription", "MQTT-3.8.3-4"),
    ("the reserved CONNECT flag is set", "MQTT-3.1.2-3"),
    ("the will's QoS is 3", "MQTT-3.1.2-12"),
    (
        "will QoS or will retain is set without a will",
        "MQTT-3.1.2-11, MQTT-3.1.2-13",
    ),
    ("a password without a user name", "3.1.1 MQTT-3.1.2-22"),
    ("reserved CONNACK flags are set", "MQTT-3.2.2-1"),
    (
        "CONNACK refuses and says that a session is present",
        "MQTT-3.2.2-6",
    ),
    ("the assigned client identifier is invalid", "§3.1.3.1"),
    ("the topic alias is 0", "MQTT-3.3.2-8"),
    ("the subscription identifier is 0", "§3.3.2.3.8, §3.8.2.1.2"),
    (
        "a property is there twice",
        "§2.2.2.2 and each property's own section",
    ),
    ("a property does not belong to this packet", "§2.2.2.2"),
    (
        "a property that must not be 0 is 0",
        "§3.1.2.11.3, §3.1.2.11.4",
    ),
    (
        "a property that is 0 or 1 has another value",
        "§3.1.2.11.6, §3.2.2.3.4 and others",
    ),
    ("authentication data comes without a method", "§3.1.2.11.10"),
    (
        "this packet has no such reason code",
        "MQTT-3.2.2-8, MQTT-3.4.2-1 and others",
    ),
    ("more than 8 user properties", "our bound"),
    ("more than 8 topic filters", "our bound"),
    ("too many subscription identifiers", "our bound"),
    (
        "this protocol version is not served",
        "MQTT-3.1.2-2: told to each in its own version",
    ),
];

/// What `mqttbytes` refuses and we take.
fn they_refuse_wrongly(packet: &Packet, version: Version, bytes: &[u8]) -> Option<&'static str> {
    match packet {
        Packet::Auth(_) => Some("§3.15: AUTH is a packet of MQTT 5"),
        Packet::Disconnect(_) if version == Version::V5 => {
            Some("§3.14.2.1: reason and properties may be left out")
        }
        Packet::Connect(connect)
            if connect
                .password
                .as_ref()
                .is_some_and(|Secret(password)| std::str::from_utf8(password).is_err()) =>
        {
            Some("§3.1.3.6: a password is binary data")
        }
        Packet::Connect(connect) if connect.version != version => {
            Some("each of its readers takes one version only")
        }
        Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubRel(_) | Packet::PubComp(_)
            if bytes.get(1) == Some(&3) =>
        {
            Some("§3.4.2.1: the property length may be left out")
        }
        _ => None,
    }
}

/// What `mqttbytes` takes and reads wrongly.
fn they_misread(packet: &Packet, version: Version) -> Option<&'static str> {
    match packet {
        Packet::Connect(connect) if connect.version != version => {
            Some("§3.1.2.2: each of its readers takes the other version's CONNECT for its own")
        }
        Packet::Publish(publish) if !publish.subscription_ids.is_empty() => Some(
            "§2.2.2.1: it counts the bytes of a subscription identifier wrongly, past the property length",
        ),
        _ => None,
    }
}

/// What both must agree on when both take a packet.
#[derive(Debug, PartialEq)]
struct Gist {
    kind: u8,
    packet_id: u16,
    qos: u8,
    texts: Vec<String>,
    payload: Vec<u8>,
}

fn gist(kind: u8, packet_id: u16) -> Gist {
    Gist {
        kind,
        packet_id,
        qos: 0,
        texts: Vec::new(),
        payload: Vec::new(),
    }
}

fn ours(packet: &Packet) -> Gist {
    let number = |id: &PacketId| id.get();
    match packet {
        Packet::Connect(connect) => Gist {
            texts: vec![
                connect
                    .client_id
                    .as_ref()
                    .map_or(String::new(), |id| id.to_string()),
            ],
            payload: connect
                .will
                .iter()
                .flat_map(|will| will.payload.to_vec())
                .collect(),
            ..gist(1, connect.keep_alive_s)
        },
        Packet::ConnAck(connack) => gist(2, u16::from(connack.session_present)),
        Packet::Publish(publish) => Gist {
            qos: publish.delivery.qos() as u8,
            texts: vec![
                publish
                    .topic
                    .as_ref()
                    .map_or(String::new(), |topic| topic.to_string()),
            ],
            payload: publish.payload.to_vec(),
            ..gist(3, publish.delivery.packet_id().map_or(0, |id| id.get()))
        },
        Packet::PubAck(ack) => gist(4, number(&ack.0.packet_id)),
        Packet::PubRec(ack) => gist(5, number(&ack.0.packet_id)),
        Packet::PubRel(ack) => gist(6, number(&ack.0.packet_id)),
        Packet::PubComp(ack) => gist(7, number(&ack.0.packet_id)),
        Packet::Subscribe(subscribe) => Gist {
            texts: subscribe
                .filters
                .iter()
                .map(|(filter, _)| filter.to_string())
                .collect(),
            payload: subscribe
                .filters
                .iter()
                .map(|(_, options)| options.qos as u8)
                .collect(),
            ..gist(8, number(&subscribe.packet_id))
        },
        Packet::SubAck(suback) => Gist {
            payload: vec![0; suback.reasons.len()],
            ..gist(9, number(&suback.packet_id))
        },
        Packet::Unsubscribe(unsubscribe) => Gist {
            texts: unsubscribe
                .filters
                .iter()
                .map(ToString::to_string)
                .collect(),
            ..gist(10, number(&unsubscribe.packet_id))
        },
        Packet::UnsubAck(unsuback) => gist(11, number(&unsuback.packet_id)),
        Packet::PingReq => gist(12, 0),
        Packet::PingResp => gist(13, 0),
        Packet::Disconnect(_) => gist(14, 0),
        Packet::Auth(_) => gist(15, 0),
    }
}

macro_rules! their_gist {
    ($name:ident, $module:ident, $unsubscribe:ident) => {
        fn $name(packet: &$module::Packet) -> Gist {
            use $module::Packet as Theirs;
            match packet {
                Theirs::Connect(connect) => Gist {
                    texts: vec![connect.client_id.clone()],
                    payload: connect
                        .last_will
                        .iter()
                        .flat_map(|will| will.message.to_vec())
                        .collect(),
                    ..gist(1, connect.keep_alive)
                },
                Theirs::ConnAck(connack) => gist(2, u16::from(connack.session_present)),
                Theirs::Publish(publish) => Gist {
                    qos: publish.qos as u8,
                    texts: vec![publish.topic.clone()],
                    payload: publish.payload.to_vec(),
                    ..gist(3, publish.pkid)
                },
                Theirs::PubAck(ack) => gist(4, ack.pkid),
                Theirs::PubRec(ack) => gist(5, ack.pkid),
                Theirs::PubRel(ack) => gist(6, ack.pkid),
                Theirs::PubComp(ack) => gist(7, ack.pkid),
                Theirs::Subscribe(subscribe) => Gist {
                    texts: subscribe
                        .filters
                        .iter()
                        .map(|filter| filter.path.clone())
                        .collect(),
                    payload: subscribe
                        .filters
                        .iter()
                        .map(|filter| filter.qos as u8)
                        .collect(),
                    ..gist(8, subscribe.pkid)
                },
                Theirs::SubAck(suback) => Gist {
                    payload: vec![0; suback.return_codes.len()],
                    ..gist(9, suback.pkid)
                },
                Theirs::Unsubscribe(unsubscribe) => Gist {
                    texts: unsubscribe.$unsubscribe.clone(),
                    ..gist(10, unsubscribe.pkid)
                },
                Theirs::UnsubAck(unsuback) => gist(11, unsuback.pkid),
                Theirs::PingReq => gist(12, 0),
                Theirs::PingResp => gist(13, 0),
                theirs => {
                    assert!(matches!(theirs, Theirs::Disconnect { .. }));
                    gist(14, 0)
                }
            }
        }
    };
}

their_gist!(theirs_v311, v4, topics);
their_gist!(theirs_v5, v5, filters);

/// What `mqttbytes` makes of the bytes.
fn second_opinion(bytes: &[u8], version: Version) -> Result<Gist, mqttbytes::Error> {
    let mut buffer = BytesMut::from(bytes);
    let max_bytes = LIMITS.packet_max_bytes as usize;
    match version {
        Version::V311 => v4::read(&mut buffer, max_bytes).map(|packet| theirs_v311(&packet)),
        Version::V5 => v5::read(&mut buffer, max_bytes).map(|packet| theirs_v5(&packet)),
    }
}

/// Reads bytes both ways; the difference, where it is none of those listed.
pub(super) fn compare(bytes: &[u8], version: Version) -> Result<(), String> {
    let theirs = second_opinion(bytes, version);
    match (decode(&mut BytesMut::from(bytes), version, &LIMITS), theirs) {
        (Ok(Some(packet)), Ok(theirs)) => {
            let ours = ours(&packet);
            if they_misread(&packet, version).is_some() || ours == theirs {
                Ok(())
            } else {
                Err(format!("we read {ours:?}, they read {theirs:?}"))
            }
        }
        (Ok(Some(packet)), Err(error)) => they_misread(&packet, version)
            .or(they_refuse_wrongly(&packet, version, bytes))
            .map(|_| ())
            .ok_or_else(|| format!("they say {error:?} to {packet:?}")),
        (Err(error), Ok(theirs)) => WE_REFUSE
            .iter()
            .find(|(text, _)| error.text.starts_with(text))
            .map(|_| ())
            .ok_or_else(|| format!("we say `{error}` to {theirs:?}")),
        (Ok(None), Ok(theirs)) => Err(format!("half a packet is {theirs:?}")),
        (Ok(None) | Err(_), Err(_)) => Ok(()),
    }
}
