//! Who gets what, with which flags: retained messages, wills, overlapping subscriptions, No Local, order.

use broker::codec::{Acknowledgement, PubComp, Publish};
use broker::codec::{
    Delivery, MessageProperties, Packet, PacketId, PubRec, PubRel, Qos, ReasonCode, RetainHandling,
    Str, Subscribe, SubscriptionOptions, Unsubscribe, Version,
};
use bytes::Bytes;

use crate::client::{Client, hello, lasting, will};
use crate::house::{EVERYTHING, House};

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

fn options(qos: Qos) -> SubscriptionOptions {
    SubscriptionOptions::new(qos)
}

/// Subscribes with options and an identifier, and expects to be granted.
pub fn subscribe(
    client: &mut Client,
    filter: &str,
    options: SubscriptionOptions,
    subscription_id: Option<u32>,
) {
    client.say(&Packet::Subscribe(Subscribe {
        packet_id: PacketId::MAX,
        filters: vec![(filter.parse().unwrap(), options)],
        subscription_id,
        user: Vec::new(),
    }));
    match client.receive() {
        Some(Packet::SubAck(ack)) => {
            assert_eq!(ack.packet_id, PacketId::MAX);
            assert_eq!(ack.reasons, [ReasonCode::granted(options.qos)]);
        }
        other => panic!("{other:?} instead of a SUBACK"),
    }
}

pub fn answer(number: PacketId) -> Acknowledgement {
    Acknowledgement::new(number, ReasonCode::Success)
}

fn text(publish: &Publish) -> &str {
    std::str::from_utf8(&publish.payload).unwrap()
}

/// [MQTT-3.3.1-5, -6, -7, -8, -9] [MQTT311-3.1.2-7, 3.3.1-5, -6, -7, -8, -9, -10, -11, -12, 3.8.4-3]
#[test]
fn what_is_retained_is_the_last_message_that_was_not_empty() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    for version in VERSIONS {
        let mut sender = Client::open(&house, &a, version);
        let mut live = Client::open(&house, &b, version);
        live.subscribe("x");
        let heard = |client: &mut Client| {
            let publish = client.unacknowledged();
            client.acknowledge(&publish);
            let qos = publish.delivery.qos();
            (text(&publish).to_owned(), publish.retain, qos)
        };
        sender.retain("x", "first");
        sender.retain("x", "second");
        sender.publish("x", "passing");
        for said in ["first", "second", "passing"] {
            assert_eq!(heard(&mut live), (said.into(), false, Qos::AtLeastOnce));
        }
        // The one who retained it has gone.
        sender.leave();
        let late = house.device_may(&format!("late-{version:?}"), EVERYTHING);
        let mut reader = Client::open(&house, &late, version);
        reader.subscribe("x");
        assert_eq!(
            heard(&mut reader),
            ("second".into(), true, Qos::AtLeastOnce)
        );
        // Subscribed to once more it comes once more, and what is live still comes once.
        reader.subscribe("x");
        assert!(heard(&mut reader).1);
        let mut sender = Client::open(&house, &a, version);
        sender.publish("x", "live");
        assert_eq!(heard(&mut reader), ("live".into(), false, Qos::AtLeastOnce));
        assert_eq!(heard(&mut live).0, "live");
        reader.settle();
        reader.unsubscribe("x");

        let mut sender = Client::open(&house, &a, version);
        sender.put("x", "of QoS 0", Qos::AtMostOnce, true);
        sender.settle();
        assert_eq!(
            heard(&mut live),
            ("of QoS 0".into(), false, Qos::AtMostOnce)
        );
        reader.subscribe("x");
        assert_eq!(
            heard(&mut reader),
            ("of QoS 0".into(), true, Qos::AtMostOnce)
        );
        reader.unsubscribe("x");

        // An empty one takes it away, and is heard by who is there.
        sender.retain("x", "");
        assert_eq!(heard(&mut live), (String::new(), false, Qos::AtLeastOnce));
        reader.subscribe("x");
        reader.settle();
    }
}

/// [MQTT-3.3.1-9, -10, -11, 3.8.4-4]
#[test]
fn retain_handling_is_for_new_subscriptions_for_all_or_for_none() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let mut client = Client::open(&house, &a, Version::V5);
    client.retain("x", "kept");
    let with = |retain_handling| SubscriptionOptions {
        retain_handling,
        ..options(Qos::AtLeastOnce)
    };
    for (handling, new, again) in [
        (RetainHandling::Send, true, true),
        (RetainHandling::SendIfNew, true, false),
        (RetainHandling::DoNotSend, false, false),
    ] {
        for sends in [new, again] {
            subscribe(&mut client, "x", with(handling), None);
            if sends {
                let publish = client.unacknowledged();
                client.acknowledge(&publish);
                assert!(publish.retain);
                assert_eq!(text(&publish), "kept");
            }
            client.settle();
        }
        client.unsubscribe("x");
    }
}

/// [MQTT-3.3.1-12, -13]
#[test]
fn retain_is_passed_on_where_the_subscription_wants_it() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut sender = Client::open(&house, &a, Version::V5);
    for as_published in [false, true] {
        let mut reader = Client::open(&house, &b, Version::V5);
        let how = SubscriptionOptions {
            retain_as_published: as_published,
            retain_handling: RetainHandling::DoNotSend,
            ..options(Qos::AtMostOnce)
        };
        subscribe(&mut reader, "x", how, None);
        sender.retain("x", "1");
        sender.publish("x", "2");
        assert_eq!(reader.unacknowledged().retain, as_published);
        assert!(!reader.unacknowledged().retain);
    }
}

/// [MQTT-3.1.2-8, -10, -14, -15, 3.1.3-10] [MQTT311-3.1.2-8, -10, -12, -16, -17]
#[test]
fn a_will_is_published_once_as_it_was_ordered() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    for version in VERSIONS {
        for retain in [false, true] {
            let mut witness = Client::open(&house, &b, Version::V5);
            let topic = format!("will/{version:?}/{retain}");
            witness.subscribe(&topic);
            let pair = |value| (Str::from("k"), Str::from(value));
            let user = vec![pair("2"), pair("1"), pair("3")];
            let mut connect = lasting(&a, version);
            let mut ordered = will(&topic, "gone");
            ordered.retain = retain;
            if version == Version::V5 {
                ordered.properties = Some(Box::new(MessageProperties {
                    user: user.clone(),
                    ..MessageProperties::default()
                }));
            }
            connect.will = Some(ordered);
            drop(Client::connect(&house, &a, connect).ok().unwrap());
            let publish = witness.unacknowledged();
            witness.acknowledge(&publish);
            assert_eq!((text(&publish), publish.retain), ("gone", false));
            if version == Version::V5 {
                assert_eq!(publish.properties.unwrap().user, user);
            }
            // It is not stored any more: the session's next end has none.
            let (mut back, _) = Client::connect(&house, &a, lasting(&a, version))
                .ok()
                .unwrap();
            back.settle();
            drop(back);
            let (back, _) = Client::connect(&house, &a, hello(&a, version))
                .ok()
                .unwrap();
            back.leave();
            witness.settle();
            let late = format!("late-{version:?}-{retain}");
            let late = house.device_may(&late, EVERYTHING);
            let mut late = Client::open(&house, &late, Version::V5);
            late.subscribe(&topic);
            if retain {
                let kept = late.unacknowledged();
                assert_eq!((text(&kept), kept.retain), ("gone", true));
                late.acknowledge(&kept);
            }
            late.settle();
        }
    }
}

/// [MQTT-3.8.3-3]
#[test]
fn no_local_keeps_a_clients_own_messages_from_it_and_its_will_too() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let c = house.device_may("c", EVERYTHING);
    let mut sender = Client::open(&house, &c, Version::V5);
    let mut other = Client::open(&house, &b, Version::V5);
    other.subscribe("x");
    let how = SubscriptionOptions {
        no_local: true,
        ..options(Qos::AtLeastOnce)
    };
    let mut connect = lasting(&a, Version::V5);
    connect.will = Some(will("x", "will"));
    let (mut client, _) = Client::connect(&house, &a, connect).ok().unwrap();
    subscribe(&mut client, "x", how, None);
    client.publish("x", "own");
    client.settle();
    assert_eq!(other.message().1, "own");
    sender.publish("x", "other's");
    assert_eq!(client.message().1, "other's");
    assert_eq!(other.message().1, "other's");
    // Taken over by itself: the will of the connection before is its own message.
    let (mut next, present) = Client::connect(&house, &a, lasting(&a, Version::V5))
        .ok()
        .unwrap();
    assert!(present);
    assert_eq!(other.message().1, "will");
    sender.publish("x", "after the will");
    assert_eq!(next.message().1, "after the will");
}

/// [MQTT-3.3.4-2, -3, -4, -5]
#[test]
fn overlapping_subscriptions_are_named_in_each_copy() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut client = Client::open(&house, &a, Version::V5);
    subscribe(&mut client, "x/#", options(Qos::AtMostOnce), Some(1));
    subscribe(&mut client, "x/+", options(Qos::AtLeastOnce), Some(2));
    subscribe(&mut client, "x/y", options(Qos::AtMostOnce), None);
    // A shared one is not merged: it is delivered for itself.
    subscribe(
        &mut client,
        "$share/g/x/y",
        options(Qos::AtMostOnce),
        Some(3),
    );
    Client::open(&house, &b, Version::V5).publish("x/y", "!");
    let mut copies = [client.unacknowledged(), client.unacknowledged()].map(|publish| {
        client.acknowledge(&publish);
        let mut ids = publish.subscription_ids.clone();
        ids.sort_unstable();
        (ids, publish.delivery.qos())
    });
    copies.sort_by_key(|(ids, _)| ids.len());
    let shared = (vec![3], Qos::AtMostOnce);
    let merged = (vec![1, 2], Qos::AtLeastOnce);
    assert_eq!(copies, [shared, merged]);
    client.settle();
}

/// [MQTT-3.10.4-1, -2] [MQTT311-3.10.4-1, -2]
#[test]
fn unsubscribing_right_behind_the_subscribe_takes_it_away() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut sender = Client::open(&house, &b, Version::V5);
    for version in VERSIONS {
        let (mut client, _) = Client::connect(&house, &a, lasting(&a, version))
            .ok()
            .unwrap();
        for _ in 0..20 {
            // In one write: the second is there before the first is on the disk.
            let mut bytes = Vec::new();
            let (one, two) = (PacketId::MIN, PacketId::MAX);
            let filter = "x".parse().unwrap();
            Subscribe {
                packet_id: one,
                filters: vec![(filter, options(Qos::AtLeastOnce))],
                subscription_id: None,
                user: Vec::new(),
            }
            .encode(version, &mut bytes);
            Unsubscribe {
                packet_id: two,
                filters: vec!["x".parse().unwrap()],
                user: Vec::new(),
            }
            .encode(version, &mut bytes);
            client.write(&bytes);
            assert!(matches!(client.receive(), Some(Packet::SubAck(ack)) if ack.packet_id == one));
            let Some(Packet::UnsubAck(ack)) = client.receive() else {
                panic!("no UNSUBACK");
            };
            assert_eq!(ack.packet_id, two);
            let success: &[ReasonCode] = match version {
                Version::V311 => &[],
                Version::V5 => &[ReasonCode::Success],
            };
            assert_eq!(ack.reasons, success);
        }
        sender.publish("x", "to nobody");
        client.settle();
        client.leave();
    }
}

/// [MQTT-4.6.0-1, -4, -5, -6] [MQTT311-4.6.0-1, -4, -5, -6]
#[test]
fn deliveries_repetitions_and_pubrels_keep_their_order() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    for version in VERSIONS {
        let (mut client, _) = Client::connect(&house, &a, lasting(&a, version))
            .ok()
            .unwrap();
        client.subscribe_with("x", Qos::ExactlyOnce);
        let mut sender = Client::open(&house, &b, version);
        for n in 1..=10_u16 {
            let packet_id = PacketId::new(n).unwrap();
            sender.send(&Publish {
                delivery: Delivery::ExactlyOnce {
                    packet_id,
                    dup: false,
                },
                retain: false,
                topic: Some("x".parse().unwrap()),
                topic_alias: None,
                expiry_s: None,
                subscription_ids: Vec::new(),
                properties: None,
                payload: Bytes::from(n.to_string()),
            });
            assert!(matches!(sender.receive(), Some(Packet::PubRec(_))));
            sender.say(&Packet::PubRel(PubRel(answer(packet_id))));
            assert!(matches!(sender.receive(), Some(Packet::PubComp(_))));
        }
        let ten = |client: &mut Client, dup: bool| -> Vec<PacketId> {
            (1..=10)
                .map(|n: u16| {
                    let publish = client.unacknowledged();
                    assert_eq!(text(&publish), n.to_string());
                    assert!(matches!(publish.delivery,
                        Delivery::ExactlyOnce { dup: found, .. } if found == dup));
                    publish.delivery.packet_id().unwrap()
                })
                .collect()
        };
        let sent = ten(&mut client, false);
        drop(client);
        let (mut client, _) = Client::connect(&house, &a, lasting(&a, version))
            .ok()
            .unwrap();
        assert_eq!(ten(&mut client, true), sent);
        // Whatever order the client has, the PUBRELs have it too.
        let mut mixed: Vec<PacketId> = sent.iter().rev().step_by(2).copied().collect();
        mixed.extend(sent.iter().step_by(2));
        let mut bytes = Vec::new();
        for packet_id in &mixed {
            PubRec(answer(*packet_id)).encode(version, &mut bytes);
        }
        client.write(&bytes);
        for packet_id in &mixed {
            assert_eq!(
                client.receive(),
                Some(Packet::PubRel(PubRel(answer(*packet_id))))
            );
        }
        for packet_id in mixed {
            client.say(&Packet::PubComp(PubComp(answer(packet_id))));
        }
        client.settle();
        client.leave();
    }
}

/// [MQTT-3.1.3-2] [MQTT311-3.1.3-2]
#[test]
fn each_client_identifier_has_a_session_of_its_own() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    for version in VERSIONS {
        let named = |name: &str| {
            let mut connect = lasting(&a, version);
            connect.client_id = Some(format!("{name}-{version:?}").parse().unwrap());
            connect
        };
        let (mut one, _) = Client::connect(&house, &a, named("one")).ok().unwrap();
        one.subscribe("x");
        let (mut two, present) = Client::connect(&house, &a, named("two")).ok().unwrap();
        assert!(!present);
        two.publish("x", "!");
        two.settle();
        assert_eq!(one.message().1, "!");
        drop((one, two));
        for name in ["one", "two"] {
            let (client, present) = Client::connect(&house, &a, named(name)).ok().unwrap();
            assert!(present, "{name}");
            client.leave();
        }
    }
}

/// [MQTT-4.1.0-1, -2] [MQTT311-4.1.0-2]
#[test]
fn a_session_does_not_expire_while_it_is_connected() {
    let house = House::new();
    let devices = ["a", "b", "c"].map(|name| house.device_may(name, EVERYTHING));
    let [a, b, c] = &devices;
    let mut witness = Client::open(&house, c, Version::V5);
    witness.subscribe("will");
    let short = |device, delayed: bool| {
        let mut connect = lasting(device, Version::V5);
        connect.session_expiry_s = 1;
        let mut late = will("will", "expired");
        late.delay_s = 3600;
        connect.will = delayed.then_some(late);
        connect
    };
    let (mut stays, _) = Client::connect(&house, a, short(a, false)).ok().unwrap();
    stays.subscribe("x");
    let (mut lost, _) = Client::connect(&house, b, short(b, true)).ok().unwrap();
    lost.subscribe("x");
    drop(lost);
    // The will comes when the session of the one that was lost has expired.
    assert_eq!(witness.message().1, "expired");
    witness.publish("x", "still here");
    assert_eq!(stays.message().1, "still here");
    let (_, present) = Client::connect(&house, b, short(b, false)).ok().unwrap();
    assert!(!present);
}
