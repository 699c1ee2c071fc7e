//! How much of one thing is retained is bounded, so that it cannot take the room of all.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::time::SystemTime;

use broker::codec::{
    Acknowledgement, Delivery, Disconnect, Packet, PacketId, PubRel, Publish, Qos, ReasonCode,
    Version,
};
use broker::{Limits, OwnBounds, SessionBounds};
use bytes::Bytes;
use fleet::DeviceKey;

use crate::client::{Client, hello, lasting, will};
use crate::house::{Device, EVERYTHING, House};

fn two_each() -> Limits {
    Limits {
        thing_retained_messages: 2,
        ..Limits::default()
    }
}

/// Retains where nobody listens.
const ALONE: ReasonCode = ReasonCode::NoMatchingSubscribers;

/// The same device under its next certificate.
fn renewed(house: &House, device: &Device) -> Device {
    let now = SystemTime::now();
    let renewed = house.fleet.renew(&device.id, DeviceKey::Generate, now);
    let renewed = renewed.unwrap();
    house.fleet.renewed(&renewed.certificate.id, now).unwrap();
    Device {
        id: renewed.certificate.id,
        chain: vec![
            renewed.issued.certificate(),
            house.fleet.authority().issuing_der(),
        ],
        key: renewed.key.unwrap().private_key_der(),
        ..device.clone()
    }
}

fn exactly_once(client: &mut Client, packet_id: u16, topic: &str) -> ReasonCode {
    client.send(&Publish {
        delivery: Delivery::ExactlyOnce {
            packet_id: PacketId::new(packet_id).unwrap(),
            dup: false,
        },
        retain: true,
        topic: Some(topic.parse().unwrap()),
        topic_alias: None,
        expiry_s: None,
        subscription_ids: Vec::new(),
        properties: None,
        payload: Bytes::from_static(b"once"),
    });
    match client.receive() {
        Some(Packet::PubRec(answer)) => answer.0.reason,
        other => panic!("{other:?} instead of a PUBREC"),
    }
}

fn release(client: &mut Client, packet_id: u16) {
    client.say(&Packet::PubRel(PubRel(Acknowledgement {
        packet_id: PacketId::new(packet_id).unwrap(),
        reason: ReasonCode::Success,
        reason_string: None,
        user: Vec::new(),
    })));
    assert!(matches!(client.receive(), Some(Packet::PubComp(_))));
}

/// What a new subscription is sent, in the order of topics.
fn retained(house: &House, device: &Device, filter: &str) -> Vec<(String, String)> {
    let mut client = Client::open(house, device, Version::V5);
    client.subscribe(filter);
    client.write(&[0xC0, 0]);
    let mut found = Vec::new();
    loop {
        match client.receive() {
            Some(Packet::Publish(publish)) => {
                client.acknowledge(&publish);
                let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                found.push((publish.topic.unwrap().to_string(), payload));
            }
            Some(Packet::PingResp) => break,
            other => panic!("{other:?} instead of what is retained"),
        }
    }
    found.sort();
    found
}

fn topics(house: &House, device: &Device, filter: &str) -> Vec<String> {
    let found = retained(house, device, filter);
    found.into_iter().map(|(topic, _)| topic).collect()
}

/// [MQTT-3.3.1-5]
#[test]
fn beyond_its_bound_a_thing_retains_nothing_more_and_others_do() {
    let house = House::with(two_each());
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut witness = Client::open(&house, &b, Version::V5);
    witness.subscribe("x/#");
    let mut client = Client::open(&house, &a, Version::V5);
    for topic in ["x/1", "x/2"] {
        assert_eq!(client.retain(topic, "1").0.reason, ReasonCode::Success);
        assert_eq!(witness.message().0, topic);
    }
    // Refused whole: nobody hears it either.
    let refused = client.retain("x/3", "1").0;
    assert_eq!(refused.reason, ReasonCode::QuotaExceeded);
    assert!(refused.reason_string.unwrap().contains("this device has"));
    let twice = exactly_once(&mut client, 900, "x/3");
    assert_eq!(twice, ReasonCode::QuotaExceeded);
    witness.settle();
    assert_eq!(house.broker.stats().refused_retain, 2);
    // What is not to be retained has no such bound; its own may be replaced, and deleted.
    client.publish("x/3", "live");
    assert_eq!(witness.message(), ("x/3".into(), "live".into()));
    assert_eq!(client.retain("x/2", "2").0.reason, ReasonCode::Success);
    assert_eq!(witness.message().1, "2");
    assert_eq!(witness.retain("y", "b's").0.reason, ALONE);
    assert_eq!(client.retain("x/1", "").0.reason, ReasonCode::Success);
    assert_eq!(witness.message().1, "");
    assert_eq!(exactly_once(&mut client, 901, "x/3"), ReasonCode::Success);
    release(&mut client, 901);
    assert_eq!(witness.message().1, "once");
    assert_eq!(topics(&house, &b, "x/#"), ["x/2", "x/3"]);
    assert_eq!(house.broker.stats().refused_retain, 2);
}

#[test]
fn a_renewed_certificate_and_a_restart_begin_no_new_account() {
    let house = House::with(two_each());
    let a = house.device_may("a", EVERYTHING);
    let mut client = Client::open(&house, &a, Version::V5);
    client.retain("x/1", "1");
    client.retain("x/2", "1");
    client.leave();
    let a = renewed(&house, &a);
    let full = |house: &House| {
        let mut client = Client::open(house, &a, Version::V5);
        let full = client.retain("x/3", "1").0.reason;
        assert_eq!(full, ReasonCode::QuotaExceeded);
        let own = client.retain("x/2", "2").0.reason;
        assert_eq!(own, ALONE);
        client.leave();
    };
    full(&house);
    let house = house.restart();
    full(&house);
    assert_eq!(topics(&house, &a, "x/#"), ["x/1", "x/2"]);
}

#[test]
fn a_restart_under_lower_bounds_keeps_what_was_acknowledged() {
    let mut house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let mut client = Client::open(&house, &a, Version::V5);
    for n in 0..5 {
        client.retain(&format!("x/{n}"), "1");
    }
    client.leave();
    house.limits = Limits {
        thing_retained_messages: 2,
        retained_messages: 3,
        ..Limits::default()
    };
    let house = house.restart();
    assert_eq!(topics(&house, &a, "x/#").len(), 5);
    let mut client = Client::open(&house, &a, Version::V5);
    let own = client.retain("x/4", "2").0.reason;
    assert_eq!(own, ALONE);
    let full = client.retain("x/5", "1").0.reason;
    assert_eq!(full, ReasonCode::QuotaExceeded);
}

/// [MQTT311-4.8.0-2]
#[test]
fn who_cannot_be_told_is_cut_off() {
    let house = House::with(two_each());
    let a = house.device_may("a", EVERYTHING);
    for (version, qos) in [
        (Version::V311, Qos::AtMostOnce),
        (Version::V311, Qos::AtLeastOnce),
        (Version::V5, Qos::AtMostOnce),
    ] {
        let mut client = Client::open(&house, &a, version);
        client.retain("x/1", "1");
        client.retain("x/2", "1");
        client.put("x/3", "1", qos, true);
        match client.receive() {
            None if version == Version::V311 => {}
            Some(Packet::Disconnect(Disconnect { reason, .. })) if version == Version::V5 => {
                assert_eq!(reason, ReasonCode::QuotaExceeded);
            }
            other => panic!("{other:?} at the end of {version:?}"),
        }
    }
    assert_eq!(topics(&house, &a, "x/#"), ["x/1", "x/2"]);
}

#[test]
fn a_will_beyond_the_bound_is_published_and_not_retained() {
    let house = House::with(two_each());
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut witness = Client::open(&house, &b, Version::V5);
    witness.subscribe("x/will");
    let mut connect = hello(&a, Version::V5);
    connect.will = Some(broker::codec::Will {
        retain: true,
        ..will("x/will", "gone")
    });
    let (mut client, _) = Client::open_with(&house, &a, &connect);
    client.retain("x/1", "1");
    client.retain("x/2", "1");
    drop(client);
    assert_eq!(witness.message().1, "gone");
    assert_eq!(topics(&house, &b, "x/#"), ["x/1", "x/2"]);
    assert_eq!(house.broker.stats().refused_retain, 1);
}

#[test]
fn what_was_promised_with_pubrec_is_retained_whatever_came_between() {
    let house = House::with(two_each());
    let a = house.device_may("a", EVERYTHING);
    let (mut client, _) = Client::open_with(&house, &a, &lasting(&a, Version::V5));
    client.retain("x/1", "1");
    assert_eq!(exactly_once(&mut client, 900, "x/2"), ALONE);
    client.retain("x/3", "1");
    let full = client.retain("x/4", "1").0.reason;
    assert_eq!(full, ReasonCode::QuotaExceeded);
    drop(client);
    let house = house.restart();
    let (mut client, _) = Client::open_with(&house, &a, &lasting(&a, Version::V5));
    release(&mut client, 900);
    client.leave();
    assert_eq!(topics(&house, &a, "x/#"), ["x/1", "x/2", "x/3"]);
}

#[test]
fn a_thing_may_have_a_bound_of_its_own() {
    let house = House::with(Limits {
        own: OwnBounds {
            things: [(
                "a".parse().unwrap(),
                SessionBounds {
                    thing_retained_messages: Some(3),
                    ..SessionBounds::default()
                },
            )]
            .into(),
            ..OwnBounds::default()
        },
        ..two_each()
    });
    for (name, kept) in [("a", 3), ("b", 2)] {
        let device = house.device_may(name, EVERYTHING);
        let mut client = Client::open(&house, &device, Version::V5);
        for n in 0..4 {
            client.retain(&format!("{name}/{n}"), "1");
        }
        assert_eq!(topics(&house, &device, &format!("{name}/#")).len(), kept);
    }
}

#[test]
fn a_message_too_long_to_be_kept_leaves_the_one_before_it() {
    let house = House::with_journal(store::journal::Options {
        segment_bytes: 64 * 1024,
        ..store::journal::Options::default()
    });
    let a = house.device_may("a", EVERYTHING);
    let mut client = Client::open(&house, &a, Version::V5);
    client.retain("x", "old");
    let refused = client.retain("x", &"n".repeat(100_000)).0.reason;
    assert_eq!(refused, ReasonCode::QuotaExceeded);
    drop(client);
    let old = [("x".to_owned(), "old".to_owned())];
    assert_eq!(retained(&house, &a, "x"), old);
    let house = house.restart();
    assert_eq!(retained(&house, &a, "x"), old);
}

#[test]
fn what_was_found_for_a_subscription_is_not_sent_behind_what_took_its_place() {
    const MESSAGES: usize = 60;
    let house = House::new();
    let [sender, receiver] = ["a", "b"].map(|name| house.device_may(name, EVERYTHING));
    let mut sender = Client::open(&house, &sender, Version::V5);
    for n in 0..MESSAGES {
        assert_eq!(sender.retain(&format!("k/{n:02}"), "old").0.reason, ALONE);
    }
    let mut connect = hello(&receiver, Version::V5);
    connect.receive_max = NonZeroU16::MIN;
    let (mut receiver, _) = Client::connect(&house, &receiver, connect).unwrap();
    receiver.subscribe("k/#");
    let first = receiver.unacknowledged();
    // The others have been found by now, and wait for its acknowledgement.
    for (topic, payload) in [("k/40", "new"), ("k/41", "")] {
        assert_eq!(sender.retain(topic, payload).0.reason, ReasonCode::Success);
    }
    receiver.acknowledge(&first);
    let heard: Vec<(String, String)> = (1..MESSAGES).map(|_| receiver.message()).collect();
    for (topic, payload) in [("k/40", "new"), ("k/41", "")] {
        let of_topic = heard.iter().filter(|(heard, _)| heard == topic);
        let payloads: Vec<&str> = of_topic.map(|(_, payload)| payload.as_str()).collect();
        assert_eq!(payloads, [payload], "{topic}");
    }
    receiver.settle();
}

#[test]
fn what_a_session_is_owed_it_is_sent_after_a_restart() {
    // More than is put into its queue at once.
    const MESSAGES: usize = 300;
    let house = House::new();
    let [sender, receiver] = ["a", "b"].map(|name| house.device_may(name, EVERYTHING));
    let mut client = Client::open(&house, &sender, Version::V5);
    for n in 0..MESSAGES {
        client.retain(&format!("k/{n}"), "kept");
    }
    client.leave();
    let mut connect = lasting(&receiver, Version::V5);
    connect.receive_max = NonZeroU16::MIN;
    let (mut client, _) = Client::connect(&house, &receiver, connect.clone()).unwrap();
    client.subscribe("k/#");
    client.unacknowledged();
    let house = house.restart();
    let (mut client, present) = Client::connect(&house, &receiver, connect.clone()).unwrap();
    assert!(present);
    let mut heard = BTreeSet::new();
    while heard.len() < MESSAGES {
        heard.insert(client.message().0);
    }
    // Some came twice, for it is not known which it had; they are over with this.
    client.write(&[0xC0, 0]);
    while let Some(packet) = client.receive() {
        match packet {
            Packet::Publish(publish) => client.acknowledge(&publish),
            _ => break,
        }
    }
    drop(client);
    let house = house.restart();
    let (mut client, _) = Client::connect(&house, &receiver, connect).unwrap();
    client.settle();
}
