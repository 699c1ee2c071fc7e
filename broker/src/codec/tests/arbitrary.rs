//! Packets of every kind with arbitrary valid content, as the other tests draw them.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::topic::{ClientId, TopicFilter, TopicName};

pub(crate) fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V311), Just(Version::V5)]
}

pub(crate) fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
}

pub(crate) fn qos() -> impl Strategy<Value = Qos> {
    (0..3_u8).prop_map(|bits| Qos::from_bits(bits).unwrap())
}

pub(crate) fn topic_name() -> impl Strategy<Value = TopicName> {
    "[$a-c ü]{0,3}(/[a-c]{0,3}){0,3}".prop_filter_map("empty", |text| text.parse().ok())
}

pub(crate) fn topic_filter() -> impl Strategy<Value = TopicFilter> {
    r"(\$share/[a-c]{1,3}/)?(\+|[a-c]{1,3})(/(\+|[a-c]{0,3})){0,3}(/#)?"
        .prop_map(|text| text.parse().unwrap())
}

fn text() -> impl Strategy<Value = Str> {
    "[a-c\nü火]{0,5}".prop_map(Str::from)
}

fn data() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..6).prop_map(Bytes::from)
}

fn user() -> impl Strategy<Value = UserProperties> {
    vec((text(), text()), 0..3)
}

fn authentication() -> impl Strategy<Value = Authentication> {
    (text(), option::of(data().prop_map(Secret)))
        .prop_map(|(method, data)| Authentication { method, data })
}

fn message_properties() -> impl Strategy<Value = Option<Box<MessageProperties>>> {
    let format = prop_oneof![Just(PayloadFormat::Bytes), Just(PayloadFormat::Utf8)];
    (
        option::of(format),
        option::of(text()),
        option::of(topic_name()),
        option::of(data()),
        user(),
    )
        .prop_map(
            |(payload_format, content_type, response_topic, correlation_data, user)| {
                let properties = MessageProperties {
                    payload_format,
                    content_type,
                    response_topic,
                    correlation_data,
                    user,
                };
                properties.boxed()
            },
        )
}

fn will() -> impl Strategy<Value = Will> {
    let parts = (topic_name(), data(), qos(), any::<bool>(), any::<u32>());
    (parts, option::of(any::<u32>()), message_properties()).prop_map(
        |((topic, payload, qos, retain, delay_s), expiry_s, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            delay_s,
            expiry_s,
            properties,
        },
    )
}

pub(crate) fn connect() -> impl Strategy<Value = Connect> {
    let id = option::of("[a-z0-9]{1,23}".prop_map(|text| text.parse::<ClientId>().unwrap()));
    let first = (
        version(),
        any::<bool>(),
        any::<u16>(),
        id,
        option::of(will()),
    );
    let login = (option::of(text()), option::of(data().prop_map(Secret)));
    let numbers = (
        any::<u32>(),
        1..=u16::MAX,
        option::of(1..=u32::MAX),
        any::<u16>(),
    );
    let rest = (
        any::<bool>(),
        any::<bool>(),
        option::of(authentication()),
        user(),
    );
    (first, login, numbers, rest).prop_map(|(first, login, numbers, rest)| {
        let mut connect = Connect::new(first.0, first.3);
        connect.clean_start = first.1;
        connect.keep_alive_s = first.2;
        connect.will = first.4;
        (connect.user_name, connect.password) = login;
        if connect.version == Version::V5 {
            connect.session_expiry_s = numbers.0;
            connect.receive_max = NonZeroU16::new(numbers.1).unwrap();
            connect.packet_max_bytes = numbers.2.and_then(NonZeroU32::new);
            connect.topic_alias_max = numbers.3;
            connect.request_response_information = rest.0;
            connect.request_problem_information = rest.1;
            connect.authentication = rest.2;
            connect.user = rest.3;
        } else {
            connect.session_expiry_s = if connect.clean_start {
                0
            } else {
                SESSION_NEVER_EXPIRES
            };
            if connect.user_name.is_none() {
                connect.password = None;
            }
            if let Some(will) = &mut connect.will {
                (will.delay_s, will.expiry_s, will.properties) = (0, None, None);
            }
        }
        connect
    })
}

fn connack(version: Version) -> impl Strategy<Value = ConnAck> {
    let reason = prop_oneof![
        Just(ReasonCode::Success),
        Just(ReasonCode::NotAuthorized),
        Just(ReasonCode::ServerUnavailable),
    ];
    let first = (
        reason,
        any::<bool>(),
        option::of(any::<u32>()),
        1..=u16::MAX,
        qos(),
    );
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let numbers = (
        option::of(1..=u32::MAX),
        any::<u16>(),
        option::of(any::<u16>()),
    );
    let texts = (
        option::of(text()),
        option::of(text()),
        option::of(text()),
        option::of("[a-z]{1,9}"),
    );
    (
        first,
        flags,
        numbers,
        texts,
        option::of(authentication()),
        user(),
    )
        .prop_map(
            move |(first, flags, numbers, texts, authentication, user)| {
                let connack = ConnAck::new(first.0, first.1 && first.0 == ReasonCode::Success);
                if version == Version::V311 {
                    return connack;
                }
                ConnAck {
                    session_expiry_s: first.2,
                    receive_max: NonZeroU16::new(first.3).unwrap(),
                    qos_max: first.4,
                    retain_available: flags.0,
                    wildcard_available: flags.1,
                    subscription_ids_available: flags.2,
                    shared_available: flags.3,
                    packet_max_bytes: numbers.0.and_then(NonZeroU32::new),
                    topic_alias_max: numbers.1,
                    server_keep_alive_s: numbers.2,
                    reason_string: texts.0,
                    response_information: texts.1,
                    server_reference: texts.2,
                    assigned_client_id: texts.3.map(|text| text.parse().unwrap()),
                    authentication,
                    user,
                    ..connack
                }
            },
        )
}

pub(crate) fn publish(version: Version) -> impl Strategy<Value = Publish> {
    let first = (
        qos(),
        any::<bool>(),
        any::<bool>(),
        packet_id(),
        option::of(topic_name()),
    );
    let numbers = (
        option::of(1..=u16::MAX),
        option::of(any::<u32>()),
        vec(1..=268_435_455_u32, 0..3),
    );
    (first, numbers, message_properties(), data()).prop_map(
        move |((qos, dup, retain, packet_id, topic), numbers, properties, payload)| {
            let v5 = version == Version::V5;
            let mut publish = Publish {
                delivery: match qos {
                    Qos::AtMostOnce => Delivery::AtMostOnce,
                    Qos::AtLeastOnce => Delivery::AtLeastOnce { packet_id, dup },
                    Qos::ExactlyOnce => Delivery::ExactlyOnce { packet_id, dup },
                },
                retain,
                topic,
                topic_alias: numbers.0.and_then(NonZeroU16::new).filter(|_| v5),
                expiry_s: numbers.1.filter(|_| v5),
                subscription_ids: if v5 { numbers.2 } else { Vec::new() },
                properties: properties.filter(|_| v5),
                payload,
            };
            if publish.topic_alias.is_none() && publish.topic.is_none() {
                publish.topic = Some("t".parse().unwrap());
            }
            publish
        },
    )
}

fn acknowledgement(version: Version, error: ReasonCode) -> impl Strategy<Value = Acknowledgement> {
    (packet_id(), any::<bool>(), option::of(text()), user()).prop_map(
        move |(packet_id, failed, reason_string, user)| {
            let reason = if failed && version == Version::V5 {
                error
            } else {
                ReasonCode::Success
            };
            let plain = Acknowledgement::new(packet_id, reason);
            if version == Version::V311 {
                return plain;
            }
            Acknowledgement {
                reason_string,
                user,
                ..plain
            }
        },
    )
}

pub(crate) fn subscribe(version: Version) -> impl Strategy<Value = Subscribe> {
    let handling = prop_oneof![
        Just(RetainHandling::Send),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DoNotSend),
    ];
    let options = (qos(), any::<bool>(), any::<bool>(), handling);
    let filters = vec((topic_filter(), options), 1..4);
    (
        packet_id(),
        filters,
        option::of(1..=268_435_455_u32),
        user(),
    )
        .prop_map(move |(packet_id, filters, subscription_id, user)| {
            let filters = filters.into_iter().map(|(filter, options)| {
                let plain = SubscriptionOptions::new(options.0);
                if version == Version::V311 {
                    return (filter, plain);
                }
                let options = SubscriptionOptions {
                    no_local: options.1 && filter.shared().is_none(),
                    retain_as_published: options.2,
                    retain_handling: options.3,
                    ..plain
                };
                (filter, options)
            });
            Subscribe {
                packet_id,
                filters: filters.collect(),
                subscription_id: subscription_id.filter(|_| version == Version::V5),
                user: if version == Version::V5 {
                    user
                } else {
                    Vec::new()
                },
            }
        })
}

fn rest(version: Version) -> BoxedStrategy<Packet> {
    let v5 = version == Version::V5;
    let texts = (option::of(text()), option::of(text()), user());
    let codes = vec(any::<bool>(), 1..4);
    (
        packet_id(),
        codes,
        texts,
        option::of(any::<u32>()),
        vec(topic_filter(), 1..4),
        0..6_u8,
    )
        .prop_map(move |(packet_id, codes, texts, number, filters, kind)| {
            let (reason_string, server_reference, user) =
                if v5 { texts } else { (None, None, Vec::new()) };
            let codes = codes.into_iter();
            match kind {
                0 => Packet::SubAck(SubAck {
                    packet_id,
                    reasons: codes
                        .map(|ok| {
                            if ok {
                                ReasonCode::GrantedQos1
                            } else {
                                ReasonCode::Unspecified
                            }
                        })
                        .collect(),
                    reason_string,
                    user,
                }),
                1 => Packet::UnsubAck(UnsubAck {
                    packet_id,
                    reasons: codes
                        .filter(|_| v5)
                        .map(|ok| {
                            if ok {
                                ReasonCode::Success
                            } else {
                                ReasonCode::NoSubscriptionExisted
                            }
                        })
                        .collect(),
                    reason_string,
                    user,
                }),
                2 => Packet::Unsubscribe(Unsubscribe {
                    packet_id,
                    filters,
                    user,
                }),
                3 => Packet::PingReq,
                4 => Packet::PingResp,
                _ => Packet::Disconnect(Disconnect {
                    reason: if v5 {
                        ReasonCode::DisconnectWithWill
                    } else {
                        ReasonCode::Success
                    },
                    session_expiry_s: number.filter(|_| v5),
                    reason_string,
                    server_reference,
                    user,
                }),
            }
        })
        .boxed()
}

fn auth() -> impl Strategy<Value = Auth> {
    (option::of(authentication()), option::of(text()), user()).prop_map(
        |(authentication, reason_string, user)| Auth {
            reason: ReasonCode::Reauthenticate,
            authentication,
            reason_string,
            user,
        },
    )
}

/// Any packet that this version has.
pub(crate) fn packet(version: Version) -> BoxedStrategy<Packet> {
    let refused = ReasonCode::NotAuthorized;
    let unknown = ReasonCode::PacketIdentifierNotFound;
    let both = prop_oneof![
        connect().prop_map(|packet| Packet::Connect(Box::new(packet))),
        connack(version).prop_map(|packet| Packet::ConnAck(Box::new(packet))),
        publish(version).prop_map(Packet::Publish),
        acknowledgement(version, refused).prop_map(|ack| Packet::PubAck(PubAck(ack))),
        acknowledgement(version, refused).prop_map(|ack| Packet::PubRec(PubRec(ack))),
        acknowledgement(version, unknown).prop_map(|ack| Packet::PubRel(PubRel(ack))),
        acknowledgement(version, unknown).prop_map(|ack| Packet::PubComp(PubComp(ack))),
        subscribe(version).prop_map(Packet::Subscribe),
        rest(version),
    ];
    match version {
        Version::V311 => both.boxed(),
        Version::V5 => prop_oneof![9 => both, 1 => auth().prop_map(Packet::Auth)].boxed(),
    }
}
