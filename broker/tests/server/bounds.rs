//! Bounds that a listener or a thing has of its own are announced to it and kept for it, and for nobody else.

use std::num::NonZeroU16;

use broker::codec::{Qos, ReasonCode, Version};
use broker::{Limits, OwnBounds, SessionBounds};

use crate::client::{Client, hello};
use crate::house::{EVERYTHING, House};

#[test]
fn a_thing_has_bounds_of_its_own() {
    let small = SessionBounds {
        packet_bytes: Some(500),
        topic_levels: Some(2),
        session_subscriptions: Some(1),
        topic_aliases: Some(3),
        session_inflight_messages: Some(2),
        ..SessionBounds::default()
    };
    let house = House::with(Limits {
        own: OwnBounds {
            things: [("a".parse().unwrap(), small)].into(),
            ..OwnBounds::default()
        },
        ..Limits::default()
    });
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let (mut small, told) = Client::open_with(&house, &a, &hello(&a, Version::V5));
    assert_eq!(told.packet_max_bytes.map(|max| max.get()), Some(500));
    assert_eq!(told.topic_alias_max, 3);
    assert_eq!(told.receive_max, NonZeroU16::new(2).unwrap());
    let (mut other, told) = Client::open_with(&house, &b, &hello(&b, Version::V5));
    assert_eq!(told.receive_max.get(), 20);

    for (client, second) in [
        (&mut small, ReasonCode::QuotaExceeded),
        (&mut other, ReasonCode::granted(Qos::AtMostOnce)),
    ] {
        client.subscribe_with("x/1", Qos::AtMostOnce);
        let answer = client.subscribe_with("x/2", Qos::AtMostOnce);
        assert_eq!(answer.reasons, [second]);
    }
    other.put("x/1", &"x".repeat(600), Qos::AtMostOnce, false);
    other.put("x/1/deep", "unheard", Qos::AtMostOnce, false);
    assert_eq!(other.message().0, "x/1");
    assert_eq!(small.message().0, "x/1");
    other.settle();
    small.put("x/1", &"x".repeat(600), Qos::AtMostOnce, false);
    let end = small.end().map(|disconnect| disconnect.reason);
    assert_eq!(end, Some(ReasonCode::PacketTooLarge));

    let mut small = Client::open(&house, &a, Version::V5);
    small.put("x/1/deep", "too deep", Qos::AtMostOnce, false);
    let end = small.end().map(|disconnect| disconnect.reason);
    assert_eq!(end, Some(ReasonCode::TopicNameInvalid));
}

/// [MQTT-3.1.2-28]
#[test]
fn response_information_names_what_the_policy_lets_the_client_hear() {
    let house = House::new();
    let default = house.device("default");
    let deaf = house.device_may("deaf", &["Allow Connect client/*"]);
    for (device, asks, expected) in [
        (&default, true, Some("cmd/default/response")),
        (&default, false, None),
        (&deaf, true, None),
    ] {
        let mut connect = hello(device, Version::V5);
        connect.request_response_information = asks;
        let (_, told) = Client::open_with(&house, device, &connect);
        assert_eq!(told.response_information.as_deref(), expected);
    }
}

#[test]
fn a_listener_has_bounds_of_its_own() {
    let house = House::with(Limits {
        own: OwnBounds {
            mqtt: SessionBounds {
                session_expiry: Some(std::time::Duration::from_secs(60)),
                ..SessionBounds::default()
            },
            ..OwnBounds::default()
        },
        ..Limits::default()
    });
    let a = house.device_may("a", EVERYTHING);
    let mut connect = hello(&a, Version::V5);
    connect.session_expiry_s = 3600;
    let (_, told) = Client::open_with(&house, &a, &connect);
    assert_eq!(told.session_expiry_s, Some(60));
    let told = crate::websocket::connack(&house, &a, &connect);
    assert_eq!(told.session_expiry_s, None, "as asked for");
}

/// [MQTT-3.8.4-7]
#[test]
fn shared_subscriptions_have_a_bound_of_their_own() {
    let small = SessionBounds {
        session_shared_subscriptions: Some(2),
        ..SessionBounds::default()
    };
    let house = House::with(Limits {
        own: OwnBounds {
            things: [("a".parse().unwrap(), small)].into(),
            ..OwnBounds::default()
        },
        ..Limits::default()
    });
    let granted = ReasonCode::granted(Qos::AtMostOnce);
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut small = Client::open(&house, &a, Version::V5);
    let mut join = |filter: &str| small.subscribe_with(filter, Qos::AtMostOnce).reasons;
    for filter in ["$share/1/x", "$share/2/x", "$share/2/x", "x"] {
        assert_eq!(join(filter), [granted], "{filter}");
    }
    assert_eq!(join("$share/3/x"), [ReasonCode::QuotaExceeded]);
    small.unsubscribe("$share/1/x");
    assert_eq!(
        small.subscribe_with("$share/3/x", Qos::AtMostOnce).reasons,
        [granted]
    );
    let mut other = Client::open(&house, &b, Version::V5);
    for n in 0..50 {
        let filter = format!("$share/{n}/y");
        assert_eq!(
            other.subscribe_with(&filter, Qos::AtMostOnce).reasons,
            [granted]
        );
    }
    let full = other.subscribe_with("$share/50/y", Qos::AtMostOnce).reasons;
    assert_eq!(full, [ReasonCode::QuotaExceeded]);
}
