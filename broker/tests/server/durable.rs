//! What was acknowledged is there after a restart.

use broker::codec::{Delivery, Qos, ReasonCode, Version};

use crate::client::{Client, hello, lasting, will};
use crate::house::{EVERYTHING, House};

#[test]
fn a_session_its_queue_and_what_was_in_flight_survive_a_restart() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let (mut client, present) = Client::connect(&house, &a, lasting(&a, Version::V311))
        .ok()
        .unwrap();
    assert!(!present);
    client.subscribe("x/#");
    client.subscribe("gone");
    client.unsubscribe("gone");
    let mut sender = Client::open(&house, &b, Version::V5);
    sender.publish("x/1", "in flight");
    let sent = client.unacknowledged();
    drop(client);
    for n in 0..200 {
        let payload = format!("{n} {}", "x".repeat(1000));
        assert_eq!(
            sender.publish("x/2", &payload).0.reason,
            ReasonCode::Success
        );
    }
    sender.publish("gone", "nobody subscribes");
    sender.put("x/0", "QoS 0 is not kept", Qos::AtMostOnce, false);
    sender.settle();
    drop(sender);

    let house = house.restart();
    let (mut client, present) = Client::connect(&house, &a, lasting(&a, Version::V311))
        .ok()
        .unwrap();
    assert!(present);
    let again = client.unacknowledged();
    assert_eq!(again.payload, sent.payload);
    match (sent.delivery, again.delivery) {
        (
            Delivery::AtLeastOnce {
                packet_id,
                dup: false,
            },
            Delivery::AtLeastOnce {
                packet_id: same,
                dup: true,
            },
        ) => assert_eq!(packet_id, same),
        other => panic!("{other:?}"),
    }
    client.acknowledge(&again);
    for n in 0..200 {
        let (topic, payload) = client.message();
        assert_eq!(topic, "x/2");
        assert!(payload.starts_with(&format!("{n} ")));
    }
    client.settle();
    // Acknowledged is acknowledged: nothing comes a second time.
    drop(client);
    let house = house.restart();
    let (mut client, present) = Client::connect(&house, &a, lasting(&a, Version::V311))
        .ok()
        .unwrap();
    assert!(present);
    client.settle();
    let mut sender = Client::open(&house, &b, Version::V5);
    sender.publish("x/3", "still subscribed");
    assert_eq!(client.message().0, "x/3");
}

#[test]
fn one_message_for_many_parked_sessions_reaches_each_after_a_restart() {
    let house = House::new();
    let sender = house.device_may("sender", EVERYTHING);
    let devices: Vec<_> = (0..5)
        .map(|n| house.device_may(&format!("d{n}"), EVERYTHING))
        .collect();
    for device in &devices {
        let (mut client, _) = Client::connect(&house, device, lasting(device, Version::V5))
            .ok()
            .unwrap();
        client.subscribe("news");
    }
    let mut client = Client::open(&house, &sender, Version::V5);
    client.publish("news", "shared body");
    drop(client);
    let mut house = house.restart();
    for (n, device) in devices.iter().enumerate() {
        let (mut client, present) = Client::connect(&house, device, lasting(device, Version::V5))
            .ok()
            .unwrap();
        assert!(present);
        assert_eq!(client.message(), ("news".into(), "shared body".into()));
        client.settle();
        drop(client);
        if n == 2 {
            house = house.restart();
        }
    }
}

#[test]
fn retained_messages_survive_and_deleted_ones_stay_deleted() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let mut client = Client::open(&house, &a, Version::V5);
    client.retain("state/1", "one");
    client.retain("state/2", "two");
    client.retain("state/2", "");
    drop(client);
    let house = house.restart();
    let mut client = Client::open(&house, &a, Version::V5);
    client.subscribe("state/+");
    assert_eq!(client.message(), ("state/1".into(), "one".into()));
    client.settle();
}

#[test]
fn a_clean_start_ends_the_kept_session() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let (mut client, _) = Client::connect(&house, &a, lasting(&a, Version::V5))
        .ok()
        .unwrap();
    client.subscribe("x");
    drop(client);
    let mut sender = Client::open(&house, &b, Version::V5);
    sender.publish("x", "waits in vain");
    let (mut clean, present) = Client::connect(&house, &a, hello(&a, Version::V5))
        .ok()
        .unwrap();
    assert!(!present);
    sender.publish("x", "to nobody");
    clean.settle();
    clean.leave();
    let house = house.restart();
    let (mut client, present) = Client::connect(&house, &a, lasting(&a, Version::V5))
        .ok()
        .unwrap();
    assert!(!present);
    client.settle();
}

#[test]
fn a_delayed_will_is_cancelled_by_coming_back() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut witness = Client::open(&house, &b, Version::V5);
    witness.subscribe("will");
    let mut connect = lasting(&a, Version::V5);
    let mut late = will("will", "gone");
    late.delay_s = 1;
    connect.will = Some(late);
    let (lost, _) = Client::connect(&house, &a, connect.clone()).ok().unwrap();
    drop(lost);
    let (back, present) = Client::connect(&house, &a, connect.clone()).ok().unwrap();
    assert!(present);
    witness.settle();
    drop(back);
    // Now it is not back in time.
    assert_eq!(witness.message(), ("will".into(), "gone".into()));
}
