//! What was acknowledged is there after a restart.

use broker::codec::{Delivery, Qos, ReasonCode, Version};

use crate::client::{Client, hello, lasting, will};
use crate::house::{EVERYTHING, House};

/// [MQTT-3.2.0-1] [MQTT311-3.1.2-4, -5, 3.2.0-1, 3.3.1-1, 4.1.0-1, 4.4.0-1, 4.5.0-1, 4.6.0-1, -6]
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
fn a_session_hears_of_its_own_message_after_its_acknowledgement() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let (mut client, _) = Client::connect(&house, &a, lasting(&a, Version::V5))
        .ok()
        .unwrap();
    client.subscribe("x");
    for n in 0..50 {
        let ack = client.publish("x", &n.to_string());
        assert_eq!(ack.0.reason, ReasonCode::Success);
        assert_eq!(client.message().1, n.to_string());
    }
}

/// [MQTT-3.1.2-5, -23, 4.5.0-1]
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

/// [MQTT-3.1.2-4, -6, 3.1.4-4]
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

/// [MQTT-3.1.2-7, -8, 3.1.3-9]
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

/// [MQTT-3.1.2-8, 4.1.0-2]
#[test]
fn a_session_expires_and_its_will_with_it() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut witness = Client::open(&house, &b, Version::V5);
    witness.subscribe("will");
    let mut connect = lasting(&a, Version::V5);
    connect.session_expiry_s = 1;
    let mut late = will("will", "expired");
    late.delay_s = 3600;
    connect.will = Some(late);
    let (mut lost, _) = Client::connect(&house, &a, connect.clone()).ok().unwrap();
    lost.subscribe("x");
    drop(lost);
    // The will does not wait longer than the session lives.
    assert_eq!(witness.message(), ("will".into(), "expired".into()));
    let (_, present) = Client::connect(&house, &a, connect).ok().unwrap();
    assert!(!present);
}

#[test]
fn a_publisher_waits_where_the_journal_is_behind_and_loses_nothing() {
    let house = House::with_journal(store::journal::Options {
        backlog_bytes_max: 8 * 1024,
        ..store::journal::Options::default()
    });
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let (mut parked, _) = Client::connect(&house, &a, lasting(&a, Version::V5))
        .ok()
        .unwrap();
    parked.subscribe("x");
    drop(parked);
    let mut sender = Client::open(&house, &b, Version::V5);
    let payload = "x".repeat(3_000);
    for _ in 0..10 {
        for n in 0..20 {
            sender.put("x", &format!("{n} {payload}"), Qos::AtLeastOnce, false);
        }
        for _ in 0..20 {
            assert_eq!(sender.expect_ack().0.reason, ReasonCode::Success);
        }
    }
    let (mut client, _) = Client::connect(&house, &a, lasting(&a, Version::V5))
        .ok()
        .unwrap();
    assert!(house.broker.stats().publishers_held > 0);
    for _ in 0..10 {
        for n in 0..20 {
            assert!(client.message().1.starts_with(&format!("{n} ")));
        }
    }
}
