//! Ordinary life: both versions, QoS 0 and 1, retained messages, wills, takeover.

use broker::Limits;
use broker::codec::{
    Connect, Delivery, Packet, Qos, ReasonCode, Subscribe, SubscriptionOptions, Unsubscribe,
    Version,
};

use crate::client::{Client, hello, lasting, tls, will};
use crate::house::{Device, EVERYTHING, House};

/// [MQTT-3.10.4-2, 4.6.0-5, -6] [MQTT311-3.10.4-2, 4.6.0-5, -6]
#[test]
fn versions_and_qualities_meet() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    for (one, two) in [(Version::V311, Version::V5), (Version::V5, Version::V311)] {
        let mut sender = Client::open(&house, &a, one);
        let mut receiver = Client::open(&house, &b, two);
        receiver.subscribe("x/#");
        for n in 0..50 {
            assert_eq!(
                sender.publish("x/1", &n.to_string()).0.reason,
                ReasonCode::Success
            );
            sender.put("x/0", &n.to_string(), Qos::AtMostOnce, false);
        }
        for n in 0..50 {
            assert_eq!(receiver.message(), ("x/1".into(), n.to_string()));
            assert_eq!(receiver.message(), ("x/0".into(), n.to_string()));
        }
        receiver.unsubscribe("x/#");
        sender.publish("x/1", "late");
        receiver.settle();
        sender.leave();
        receiver.leave();
    }
}

/// [MQTT311-3.3.5-1]
#[test]
fn overlapping_subscriptions_give_one_copy_with_the_higher_quality() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let mut client = Client::open(&house, &a, Version::V311);
    client.subscribe_with("x/#", Qos::AtMostOnce);
    client.subscribe_with("x/+", Qos::AtLeastOnce);
    client.put("x/y", "once", Qos::AtLeastOnce, false);
    let mut copies = Vec::new();
    for _ in 0..2 {
        match client.receive().unwrap() {
            broker::codec::Packet::Publish(publish) => copies.push(publish.delivery.qos()),
            broker::codec::Packet::PubAck(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(copies, [Qos::AtLeastOnce]);
    client.settle();
}

#[test]
fn retained_messages_come_to_new_subscriptions_and_go_when_empty() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut sender = Client::open(&house, &a, Version::V5);
    sender.retain("room/1", "warm");
    sender.retain("room/2", "cold");
    sender.retain("room/2", "");
    let mut receiver = Client::open(&house, &b, Version::V311);
    receiver.subscribe("room/+");
    let publish = receiver.unacknowledged();
    assert!(publish.retain);
    assert_eq!(&publish.payload[..], b"warm");
    receiver.acknowledge(&publish);
    receiver.settle();
    // A live message is not a retained one for who is subscribed already
    // [MQTT-3.3.1-12] [MQTT311-3.3.1-9].
    sender.retain("room/1", "hot");
    let live = receiver.unacknowledged();
    assert!(!live.retain);
    assert_eq!(&live.payload[..], b"hot");
}

/// [MQTT-3.1.2-8, 3.14.4-3]
#[test]
fn a_will_is_published_when_the_connection_is_lost_and_not_after_a_goodbye() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut witness = Client::open(&house, &b, Version::V311);
    witness.subscribe("will/#");
    let mut connect = hello(&a, Version::V5);
    connect.will = Some(will("will/a", "gone"));
    let (polite, _) = Client::connect(&house, &a, connect.clone()).ok().unwrap();
    polite.leave();
    witness.settle();
    let (lost, _) = Client::connect(&house, &a, connect).ok().unwrap();
    drop(lost);
    assert_eq!(witness.message(), ("will/a".into(), "gone".into()));
}

/// [MQTT-3.1.4-3, 4.13.2-1]
#[test]
fn a_second_connection_takes_the_session_over() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let (mut first, _) = Client::connect(&house, &a, lasting(&a, Version::V5))
        .ok()
        .unwrap();
    first.subscribe("x");
    let mut sender = Client::open(&house, &b, Version::V5);
    sender.publish("x", "in flight");
    let sent = first.unacknowledged();
    let (mut second, present) = Client::connect(&house, &a, lasting(&a, Version::V5))
        .ok()
        .unwrap();
    assert!(present);
    let end = first.end().unwrap();
    assert_eq!(end.reason, ReasonCode::SessionTakenOver);
    let again = second.unacknowledged();
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
    second.acknowledge(&again);
    sender.publish("x", "next");
    assert_eq!(second.message().1, "next");
}

/// [MQTT311-3.1.4-2, 3.2.2-2]
#[test]
fn in_3_1_1_the_older_connection_is_just_closed() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let connect = || {
        Client::connect(&house, &a, lasting(&a, Version::V311))
            .ok()
            .unwrap()
    };
    let (mut first, _) = connect();
    first.subscribe("x");
    let (mut second, present) = connect();
    assert!(present);
    assert!(first.receive().is_none());
    second.put("x", "heard", Qos::AtMostOnce, false);
    assert_eq!(second.message().1, "heard");
}

#[test]
fn a_storm_of_takeovers_leaves_one_connection_and_a_working_session() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let winners: Vec<Client> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..12)
            .map(|_| {
                let hello = lasting(&a, Version::V5);
                let (address, config) = (house.mqtt, tls(&house, Some(&a)));
                scope.spawn(move || Client::connect_over(address, config, hello).ok())
            })
            .collect();
        tries
            .into_iter()
            .filter_map(|tried| tried.join().unwrap())
            .map(|(client, _)| client)
            .collect()
    });
    assert!(!winners.is_empty());
    let (mut last, present) = Client::connect(&house, &a, lasting(&a, Version::V5))
        .ok()
        .unwrap();
    assert!(present);
    for mut other in winners {
        // Told, or closed while it was still being told: gone either way.
        other.end();
    }
    last.subscribe("x");
    last.put("x", "alive", Qos::AtMostOnce, false);
    assert_eq!(last.message().1, "alive");
}

#[test]
fn the_same_client_id_of_another_thing_is_another_session() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let mut b = house.device_may("b", EVERYTHING);
    b.name = "a".to_owned();
    let mut one = Client::open(&house, &a, Version::V5);
    let mut two = Client::open(&house, &b, Version::V5);
    one.settle();
    two.settle();
    assert_eq!(house.broker.stats().taken_over, 0);
}

#[test]
fn draining_tells_everybody_and_closes() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let mut client = Client::open(&house, &a, Version::V5);
    let broker = house.broker.clone();
    let drained = std::thread::spawn(move || broker.drain(crate::house::PATIENCE).unwrap());
    let end = client.end().unwrap();
    assert_eq!(end.reason, ReasonCode::ServerShuttingDown);
    drop(client);
    assert!(drained.join().unwrap());
}

#[test]
fn what_the_window_held_back_comes_with_the_next_connection() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut narrow = lasting(&a, Version::V5);
    narrow.receive_max = std::num::NonZeroU16::new(2).unwrap();
    let (mut client, _) = Client::connect(&house, &a, narrow).ok().unwrap();
    client.subscribe("x");
    let mut sender = Client::open(&house, &b, Version::V5);
    for n in 0..10 {
        sender.publish("x", &n.to_string());
    }
    client.unacknowledged();
    client.unacknowledged();
    client.settle();
    drop(client);
    let (mut client, present) = Client::connect(&house, &a, lasting(&a, Version::V5))
        .ok()
        .unwrap();
    assert!(present);
    for n in 0..10 {
        assert_eq!(client.message().1, n.to_string());
    }
    client.settle();
}

/// A SUBSCRIBE and an UNSUBSCRIBE of the same filter, in one write.
fn subscribe_and_unsubscribe(filter: &str) -> (Vec<u8>, Vec<u8>) {
    let (mut subscribe, mut unsubscribe) = (Vec::new(), Vec::new());
    let options = SubscriptionOptions::new(Qos::AtLeastOnce);
    Subscribe {
        packet_id: 101.try_into().unwrap(),
        filters: vec![(filter.parse().unwrap(), options)],
        subscription_id: None,
        user: Vec::new(),
    }
    .encode(Version::V5, &mut subscribe);
    Unsubscribe {
        packet_id: 102.try_into().unwrap(),
        filters: vec![filter.parse().unwrap()],
        user: Vec::new(),
    }
    .encode(Version::V5, &mut unsubscribe);
    (subscribe, unsubscribe)
}

#[test]
fn an_unsubscribe_finds_the_subscription_whose_suback_waits_for_the_disk() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let mut client = Client::connect(&house, &a, lasting(&a, Version::V5))
        .ok()
        .unwrap()
        .0;
    let (subscribe, unsubscribe) = subscribe_and_unsubscribe("x/#");
    client.write(&[subscribe, unsubscribe].concat());
    assert!(matches!(client.receive(), Some(Packet::SubAck(_))));
    match client.receive() {
        Some(Packet::UnsubAck(ack)) => assert_eq!(ack.reasons, [ReasonCode::Success]),
        other => panic!("{other:?} instead of an UNSUBACK"),
    }
    client.publish("x/1", "to nobody");
    client.settle();
}

#[test]
fn a_session_knows_the_subscription_whose_suback_never_left() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let connect = || {
        Client::connect(&house, &a, lasting(&a, Version::V5))
            .ok()
            .unwrap()
    };
    let (subscribe, unsubscribe) = subscribe_and_unsubscribe("x/#");
    let (mut client, _) = connect();
    client.write(&subscribe);
    drop(client);
    let (mut client, present) = connect();
    assert!(present);
    client.write(&unsubscribe);
    assert!(matches!(client.receive(), Some(Packet::UnsubAck(_))));
    client.publish("x/1", "to nobody");
    client.settle();
}

/// Leaves the session of this client identifier behind, with a subscription to a topic of that name.
fn leave_behind(house: &House, device: &Device, client_id: &str) {
    let (mut client, _) = Client::connect(house, device, named(device, client_id)).unwrap();
    client.subscribe(client_id);
    client.leave();
    wait_until_nobody_is_connected(house);
}

fn named(device: &Device, client_id: &str) -> Connect {
    Connect {
        client_id: Some(client_id.parse().unwrap()),
        ..lasting(device, Version::V5)
    }
}

fn is_there(house: &House, device: &Device, client_id: &str) -> bool {
    let (client, present) = Client::connect(house, device, named(device, client_id)).unwrap();
    drop(client);
    wait_until_nobody_is_connected(house);
    present
}

fn wait_until_nobody_is_connected(house: &House) {
    let since = std::time::Instant::now();
    while house.broker.connections() > 0 {
        assert!(since.elapsed().as_secs() < 60, "a connection stays");
        std::thread::yield_now();
    }
}

#[test]
fn who_leaves_many_sessions_loses_its_own_and_nobody_elses() {
    let house = House::with(Limits {
        parked_sessions: 4,
        ..Limits::default()
    });
    let [many, victim, sender] =
        ["many", "victim", "sender"].map(|name| house.device_may(name, EVERYTHING));
    for n in 0..6 {
        leave_behind(&house, &many, &format!("many-{n}"));
    }
    leave_behind(&house, &victim, "victim");
    let mut client = Client::open(&house, &sender, Version::V5);
    assert_eq!(client.publish("victim", "1").0.reason, ReasonCode::Success);
    client.leave();
    leave_behind(&house, &many, "many-6");
    let (mut client, present) = Client::connect(&house, &victim, named(&victim, "victim")).unwrap();
    assert!(present);
    assert_eq!(client.message(), ("victim".into(), "1".into()));
    drop(client);
    assert!(is_there(&house, &many, "many-6"));
    assert!(!is_there(&house, &many, "many-3"));
}

#[test]
fn where_each_has_one_session_the_newcomer_is_not_kept() {
    let house = House::with(Limits {
        parked_sessions: 2,
        ..Limits::default()
    });
    let devices = ["a", "b", "c"].map(|name| house.device_may(name, EVERYTHING));
    for device in &devices {
        leave_behind(&house, device, &device.name);
    }
    assert!(is_there(&house, &devices[0], "a"));
    assert!(is_there(&house, &devices[1], "b"));
    assert!(!is_there(&house, &devices[2], "c"));
}

#[test]
fn a_session_that_is_not_kept_is_over_and_its_will_is_published() {
    let house = House::with(Limits {
        parked_sessions: 1,
        ..Limits::default()
    });
    let [a, b, witness] = ["a", "b", "w"].map(|name| house.device_may(name, EVERYTHING));
    leave_behind(&house, &a, "a");
    let mut witness = Client::open(&house, &witness, Version::V5);
    witness.subscribe("will");
    let mut late = will("will", "over");
    late.delay_s = 3600;
    let mut connect = named(&b, "b");
    connect.will = Some(late);
    drop(Client::connect(&house, &b, connect).unwrap());
    assert_eq!(witness.message(), ("will".into(), "over".into()));
}

#[test]
fn a_shutdown_keeps_every_session_however_many_may_be_parked() {
    let house = House::with(Limits {
        parked_sessions: 1,
        thing_parked_sessions: 1,
        ..Limits::default()
    });
    let [a, b] = ["a", "b"].map(|name| house.device_may(name, EVERYTHING));
    leave_behind(&house, &a, "a");
    let live = ["b1", "b2"].map(|id| Client::connect(&house, &b, named(&b, id)).unwrap());
    let house = house.restart();
    drop(live);
    let back = [(&a, "a"), (&b, "b1"), (&b, "b2")].map(|(device, client_id)| {
        let (client, present) = Client::connect(&house, device, named(device, client_id)).unwrap();
        assert!(present, "{client_id}");
        client
    });
    drop(back);
}

#[test]
fn beyond_its_bound_a_device_loses_the_session_that_it_left_first() {
    let house = House::with(Limits {
        thing_parked_sessions: 2,
        ..Limits::default()
    });
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    leave_behind(&house, &b, "b");
    for client_id in ["1", "2"] {
        leave_behind(&house, &a, client_id);
    }
    // It comes back, and has been left last then.
    assert!(is_there(&house, &a, "1"));
    leave_behind(&house, &a, "3");
    let (first, present) = Client::connect(&house, &a, named(&a, "1")).unwrap();
    assert!(present);
    let (third, present) = Client::connect(&house, &a, named(&a, "3")).unwrap();
    assert!(present);
    let (second, present) = Client::connect(&house, &a, named(&a, "2")).unwrap();
    assert!(!present);
    drop((first, second, third));
    assert!(is_there(&house, &b, "b"));
}

#[test]
fn a_device_has_so_many_connections_and_can_take_its_own_over() {
    let house = House::with(Limits {
        thing_connections: 2,
        ..Limits::default()
    });
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let (first, _) = Client::connect(&house, &a, named(&a, "1")).unwrap();
    let (_second, _) = Client::connect(&house, &a, named(&a, "2")).unwrap();
    let mut third = Client::dial(&house, &a, Version::V5);
    third.say(&Packet::Connect(Box::new(named(&a, "3"))));
    let Some(Packet::ConnAck(refused)) = third.receive() else {
        panic!("no CONNACK");
    };
    assert_eq!(refused.reason, ReasonCode::QuotaExceeded);
    let said = refused.reason_string.unwrap();
    assert!(said.contains("thing a has 2 connections"), "{said}");
    let (again, present) = Client::connect(&house, &a, named(&a, "1")).unwrap();
    assert!(present);
    drop(first);
    let _other = Client::open(&house, &b, Version::V5);
    again.leave();
    while house.broker.connections() > 2 {
        std::thread::yield_now();
    }
    Client::connect(&house, &a, named(&a, "3")).unwrap();
}
