//! Shared subscriptions: who is chosen for a message, and who never is.

use broker::codec::{
    Acknowledgement, Delivery, Packet, PacketId, PubAck, PubComp, PubRec, PubRel, Publish, Qos,
    ReasonCode, SubscriptionOptions, Version,
};
use bytes::Bytes;

use crate::client::{Client, hello, lasting};
use crate::deliveries::{answer, subscribe};
use crate::house::{EVERYTHING, House};

/// Publishes at QoS 2 and goes through with it.
fn publish(sender: &mut Client, payload: &str) {
    let packet_id = PacketId::new(77).unwrap();
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
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    });
    assert!(matches!(sender.receive(), Some(Packet::PubRec(_))));
    sender.say(&Packet::PubRel(PubRel(answer(packet_id))));
    assert!(matches!(sender.receive(), Some(Packet::PubComp(_))));
}

fn join(client: &mut Client, qos: Qos) {
    subscribe(client, "$share/g/x", SubscriptionOptions::new(qos), None);
}

/// [MQTT-4.8.2-3]
#[test]
fn each_member_gets_what_it_was_granted() {
    let house = House::new();
    let devices = ["a", "b", "c"].map(|name| house.device_may(name, EVERYTHING));
    let mut sender = Client::open(&house, &devices[2], Version::V5);
    let mut low = Client::open(&house, &devices[0], Version::V5);
    let mut high = Client::open(&house, &devices[1], Version::V5);
    join(&mut low, Qos::AtMostOnce);
    join(&mut high, Qos::AtLeastOnce);
    for _ in 0..4 {
        publish(&mut sender, "!");
    }
    for _ in 0..2 {
        assert_eq!(low.unacknowledged().delivery.qos(), Qos::AtMostOnce);
        let publish = high.unacknowledged();
        assert_eq!(publish.delivery.qos(), Qos::AtLeastOnce);
        high.acknowledge(&publish);
    }
    low.settle();
    high.settle();
}

/// [MQTT-4.8.2-4]
#[test]
fn a_delivery_of_qos_2_is_completed_with_the_member_it_began_with() {
    let house = House::new();
    let devices = ["a", "b", "c"].map(|name| house.device_may(name, EVERYTHING));
    let [a, b, c] = &devices;
    let mut sender = Client::open(&house, c, Version::V5);
    let (mut chosen, _) = Client::connect(&house, a, lasting(a, Version::V5))
        .ok()
        .unwrap();
    join(&mut chosen, Qos::ExactlyOnce);
    publish(&mut sender, "its");
    let sent = chosen.unacknowledged();
    let mut other = Client::open(&house, b, Version::V5);
    join(&mut other, Qos::ExactlyOnce);
    drop(chosen);
    let (mut chosen, _) = Client::connect(&house, a, lasting(a, Version::V5))
        .ok()
        .unwrap();
    let again = chosen.unacknowledged();
    assert_eq!(again.payload, sent.payload);
    let packet_id = again.delivery.packet_id().unwrap();
    assert_eq!(sent.delivery.packet_id(), Some(packet_id));
    chosen.say(&Packet::PubRec(PubRec(answer(packet_id))));
    assert!(matches!(chosen.receive(), Some(Packet::PubRel(_))));
    chosen.say(&Packet::PubComp(PubComp(answer(packet_id))));
    chosen.settle();
    other.settle();
}

/// [MQTT-4.8.2-5]
#[test]
fn a_delivery_of_qos_2_that_began_ends_with_its_session() {
    let house = House::new();
    let devices = ["a", "b", "c"].map(|name| house.device_may(name, EVERYTHING));
    let [a, b, c] = &devices;
    let mut sender = Client::open(&house, c, Version::V5);
    let (mut chosen, _) = Client::connect(&house, a, lasting(a, Version::V5))
        .ok()
        .unwrap();
    join(&mut chosen, Qos::ExactlyOnce);
    publish(&mut sender, "begun");
    chosen.unacknowledged();
    let mut other = Client::open(&house, b, Version::V5);
    join(&mut other, Qos::ExactlyOnce);
    drop(chosen);
    // A clean start ends it for good.
    let (clean, present) = Client::connect(&house, a, hello(a, Version::V5))
        .ok()
        .unwrap();
    assert!(!present);
    clean.leave();
    other.settle();
    publish(&mut sender, "next");
    let next = other.unacknowledged();
    assert_eq!(next.payload, "next");
}

/// [MQTT-4.4.0-2, 4.8.2-6]
#[test]
fn what_a_member_refuses_is_offered_to_nobody_else() {
    let house = House::new();
    let devices = ["a", "b", "c"].map(|name| house.device_may(name, EVERYTHING));
    let [a, b, c] = &devices;
    let mut sender = Client::open(&house, c, Version::V5);
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let (mut chosen, _) = Client::connect(&house, a, lasting(a, Version::V5))
            .ok()
            .unwrap();
        join(&mut chosen, qos);
        publish(&mut sender, "unwanted");
        let packet_id = chosen.unacknowledged().delivery.packet_id().unwrap();
        let mut other = Client::open(&house, b, Version::V5);
        join(&mut other, qos);
        let no = Acknowledgement::new(packet_id, ReasonCode::NotAuthorized);
        chosen.say(&match qos {
            Qos::ExactlyOnce => Packet::PubRec(PubRec(no)),
            _ => Packet::PubAck(PubAck(no)),
        });
        chosen.settle();
        drop(chosen);
        // Nor does it come back to the one who refused it.
        let (mut chosen, present) = Client::connect(&house, a, lasting(a, Version::V5))
            .ok()
            .unwrap();
        assert!(present);
        chosen.settle();
        chosen.leave();
        let (gone, _) = Client::connect(&house, a, hello(a, Version::V5))
            .ok()
            .unwrap();
        gone.leave();
        other.settle();
        other.leave();
    }
}

/// What was acknowledged to its publisher is not lost with the member that had it, also where the journal cannot take it
/// into the next one's queue at once.
#[test]
fn what_a_member_leaves_reaches_the_next_where_the_journal_is_behind() {
    let house = House::with_journal(store::journal::Options {
        backlog_bytes_max: 8 * 1024,
        ..store::journal::Options::default()
    });
    let [leaver, stayer, sender] =
        ["leaver", "stayer", "sender"].map(|name| house.device_may(name, EVERYTHING));
    let lasts = |device| Client::connect(&house, device, lasting(device, Version::V5)).unwrap();
    let (mut client, _) = lasts(&leaver);
    client.subscribe("$share/g/x");
    client.leave();
    let mut sender = Client::open(&house, &sender, Version::V5);
    let payload = "x".repeat(3_000);
    for n in 0..100 {
        sender.put("x", &format!("{n} {payload}"), Qos::AtLeastOnce, false);
        assert_eq!(sender.expect_ack().0.reason, ReasonCode::Success);
    }
    let (mut next, _) = lasts(&stayer);
    next.subscribe("$share/g/x");
    // A clean start ends the session with all that waits in it.
    let (gone, present) = Client::connect(&house, &leaver, hello(&leaver, Version::V5)).unwrap();
    assert!(!present);
    gone.leave();
    let number = |text: &str| text.split(' ').next().unwrap().parse().unwrap();
    let mut heard: Vec<u32> = (0..100).map(|_| number(&next.message().1)).collect();
    heard.sort_unstable();
    assert_eq!(heard, (0..100).collect::<Vec<u32>>());
}

/// Of QoS 1 what was sent and not acknowledged, too.
#[test]
fn what_a_member_may_not_be_sent_again_goes_to_the_next() {
    let house = House::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| house.device_may(name, EVERYTHING));
    let (mut chosen, _) = Client::connect(&house, &a, lasting(&a, Version::V5)).unwrap();
    join(&mut chosen, Qos::AtLeastOnce);
    let mut sender = Client::open(&house, &c, Version::V5);
    sender.publish("x", "sent");
    chosen.unacknowledged();
    let mut other = Client::open(&house, &b, Version::V5);
    join(&mut other, Qos::AtLeastOnce);
    drop(chosen);
    let less = EVERYTHING.iter().filter(|line| !line.contains("Receive"));
    house.device_may_now("a", &less.copied().collect::<Vec<_>>());
    let (mut chosen, present) = Client::connect(&house, &a, lasting(&a, Version::V5)).unwrap();
    assert!(present);
    assert_eq!(other.message().1, "sent");
    chosen.settle();
    // It is nobody's any more.
    chosen.leave();
    Client::open(&house, &a, Version::V5).leave();
    other.settle();
}

#[test]
fn what_waits_for_a_member_is_for_the_others_after_a_restart_too() {
    let house = House::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| house.device_may(name, EVERYTHING));
    let (mut chosen, _) = Client::connect(&house, &a, lasting(&a, Version::V5)).unwrap();
    join(&mut chosen, Qos::ExactlyOnce);
    let mut sender = Client::open(&house, &c, Version::V5);
    // One is under way when it leaves; of QoS 2 another must not have that one.
    sender.publish("x", "sent");
    publish(&mut sender, "begun");
    for _ in 0..2 {
        chosen.unacknowledged();
    }
    chosen.leave();
    sender.publish("x", "waits");
    publish(&mut sender, "waits too");
    sender.leave();
    let house = house.restart();
    let mut other = Client::open(&house, &b, Version::V5);
    join(&mut other, Qos::AtLeastOnce);
    Client::open(&house, &a, Version::V5).leave();
    let mut heard: Vec<String> = (0..3).map(|_| other.message().1).collect();
    heard.sort();
    assert_eq!(heard, ["sent", "waits", "waits too"]);
    other.settle();
}
