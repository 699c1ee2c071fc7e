//! Revocation and policy changes are felt by what is live, what is kept and what comes back.

use std::num::NonZeroU16;
use std::time::{Duration, Instant, SystemTime};

use broker::codec::{Qos, ReasonCode, Version};
use fleet::CertificateStatus;

use crate::client::{Client, dial, hello, lasting, tls, will};
use crate::house::{Device, EVERYTHING, House};

#[test]
fn revocation_ends_the_session_at_once_and_nothing_of_it_remains() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut witness = Client::open(&house, &b, Version::V5);
    witness.subscribe("will");
    let mut connect = lasting(&a, Version::V5);
    connect.will = Some(will("will", "gone"));
    let (mut client, _) = Client::connect(&house, &a, connect).ok().unwrap();
    client.subscribe("x");
    client.retain("state", "on");
    house.revoke(&a);
    let committed = Instant::now();
    let end = client.end().unwrap();
    assert_eq!(end.reason, ReasonCode::AdministrativeAction);
    assert!(committed.elapsed() < Duration::from_secs(1));
    // Neither the will nor what it retained.
    witness.subscribe("state");
    witness.settle();
    assert!(Client::connect(&house, &a, lasting(&a, Version::V5)).is_err());
    assert_eq!(house.broker.stats().revoked, 1);
}

/// A device that has left a session with a delayed will, in which a message waits, and a retained message.
fn away(house: &House, a: &Device, b: &Device) -> Client {
    let mut connect = lasting(a, Version::V5);
    let mut delayed = will("will", "gone");
    delayed.delay_s = 3600;
    connect.will = Some(delayed);
    let (mut client, _) = Client::connect(house, a, connect).ok().unwrap();
    client.subscribe("x");
    client.retain("state", "on");
    drop(client);
    let mut other = Client::open(house, b, Version::V5);
    other.publish("x", "waits");
    other
}

#[test]
fn a_parked_session_of_a_revoked_certificate_is_gone_with_its_queue_and_will() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut other = away(&house, &a, &b);
    house.revoke(&a);
    assert!(Client::connect(&house, &a, lasting(&a, Version::V5)).is_err());
    // The same thing, client id and policies.
    let new = house.replaced(&a);
    let (mut back, present) = Client::connect(&house, &new, lasting(&new, Version::V5))
        .ok()
        .unwrap();
    assert!(!present, "the session must not survive");
    back.settle();
    other.subscribe("state");
    other.settle();
}

#[test]
fn what_a_deactivated_device_left_is_withheld_until_it_is_active_again() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut other = away(&house, &a, &b);
    let set = |status| {
        let (reason, now) = (ca::RevocationReason::Unspecified, SystemTime::now());
        let set = house
            .fleet
            .set_certificate_status(&a.id, status, reason, now);
        set.unwrap();
    };
    set(CertificateStatus::Inactive);
    assert!(Client::connect(&house, &a, lasting(&a, Version::V5)).is_err());
    other.subscribe("state");
    other.settle();
    set(CertificateStatus::Active);
    let (mut back, present) = Client::connect(&house, &a, lasting(&a, Version::V5))
        .ok()
        .unwrap();
    assert!(present);
    assert_eq!(back.message(), ("x".into(), "waits".into()));
    other.subscribe("state");
    assert_eq!(other.message(), ("state".into(), "on".into()));
}

#[test]
fn a_narrowed_policy_is_felt_at_the_next_message() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut receiver = Client::open(&house, &a, Version::V5);
    receiver.subscribe("x/#");
    receiver.subscribe("y");
    let mut sender = Client::open(&house, &b, Version::V5);
    sender.publish("x/1", "before");
    assert_eq!(receiver.message().1, "before");
    house.device_may_now(
        "a",
        &[
            "Allow Connect client/a",
            "Allow Subscribe topicfilter/y",
            "Allow Receive topic/y",
        ],
    );
    sender.publish("x/1", "after");
    sender.publish("y", "after");
    assert_eq!(receiver.message(), ("y".into(), "after".into()));
    // What may be published is decided anew too.
    assert_eq!(
        receiver.publish("x/1", "no").0.reason,
        ReasonCode::NotAuthorized
    );
    // And losing Connect ends the session.
    house.device_may_now("a", &["Allow Publish topic/y"]);
    assert_eq!(receiver.end().unwrap().reason, ReasonCode::NotAuthorized);
}

#[test]
fn a_resumed_tls_session_of_a_revoked_certificate_is_refused() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let config = tls(&house, Some(&a));
    let connect = hello(&a, Version::V5);
    for _ in 0..2 {
        let (client, _) = Client::connect_over(house.mqtt, config.clone(), connect.clone())
            .ok()
            .unwrap();
        client.leave();
    }
    house.revoke(&a);
    let refused = Client::connect_over(house.mqtt, config.clone(), connect);
    assert_eq!(refused.err(), Some(None));
    // It was a resumption that was refused, not a full handshake.
    let mut stream = dial(house.mqtt, config);
    stream.conn.complete_io(&mut stream.sock).unwrap();
    assert_eq!(
        stream.conn.handshake_kind(),
        Some(rustls::HandshakeKind::Resumed)
    );
}

#[test]
fn without_a_certificate_or_with_one_of_another_authority_there_is_no_session() {
    let house = House::new();
    let elsewhere = House::new();
    let a = house.device_may("a", EVERYTHING);
    let foreign = elsewhere.device_may("a", EVERYTHING);
    let hello = hello(&a, Version::V5);
    for config in [tls(&house, None), tls(&house, Some(&foreign))] {
        let refused = Client::connect_over(house.mqtt, config, hello.clone());
        assert_eq!(refused.err(), Some(None));
    }
    // Validly signed, and unknown to the registry.
    house
        .fleet
        .decommission(&"a".parse().unwrap(), std::time::SystemTime::now())
        .unwrap();
    let refused = Client::connect_over(house.mqtt, tls(&house, Some(&a)), hello);
    assert_eq!(refused.err(), Some(None));
}

#[test]
fn what_a_session_may_subscribe_to_no_more_is_not_sent_from_its_queue() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let (mut client, _) = Client::connect(&house, &a, lasting(&a, Version::V5))
        .ok()
        .unwrap();
    for filter in ["q/#", "q/open", "x", "$share/g/s"] {
        client.subscribe(filter);
    }
    drop(client);
    let mut other = Client::open(&house, &b, Version::V5);
    let put = |other: &mut Client, payload: &str| {
        for topic in ["q/c", "q/open", "s", "x"] {
            other.publish(topic, payload);
        }
    };
    put(&mut other, "before");
    let less: Vec<&str> = EVERYTHING
        .iter()
        .copied()
        .filter(|line| !line.contains("Subscribe"))
        .chain([
            "Allow Subscribe topicfilter/x",
            "Allow Subscribe topicfilter/q/open",
        ])
        .collect();
    house.device_may_now("a", &less);
    put(&mut other, "after");
    // What was shared goes to another member.
    other.subscribe("$share/g/s");
    let (mut client, present) = Client::connect(&house, &a, lasting(&a, Version::V5))
        .ok()
        .unwrap();
    assert!(present);
    for payload in ["before", "after"] {
        for topic in ["q/open", "x"] {
            assert_eq!(client.message(), (topic.into(), payload.into()));
        }
    }
    client.settle();
    for payload in ["before", "after"] {
        assert_eq!(other.message(), ("s".into(), payload.into()));
    }
    assert_eq!(house.broker.stats().denied_receive, 4);
    drop(client);
    // Nor later.
    house.device_may_now("a", EVERYTHING);
    let (mut client, _) = Client::connect(&house, &a, lasting(&a, Version::V5))
        .ok()
        .unwrap();
    client.settle();
}

/// All but Subscribe, and that of these filters.
fn may_subscribe(filters: &[&str]) -> Vec<String> {
    let rest = EVERYTHING.iter().filter(|line| !line.contains("Subscribe"));
    let rest = rest.map(|line| (*line).to_owned());
    let granted = filters
        .iter()
        .map(|filter| format!("Allow Subscribe topicfilter/{filter}"));
    rest.chain(granted).collect()
}

#[test]
fn what_waits_for_a_connected_client_goes_with_its_subscription_too() {
    let house = House::new();
    let b = house.device_may("b", EVERYTHING);
    for (name, lasts) in [("fleeting", false), ("lasting", true)] {
        let a = house.device_may(name, EVERYTHING);
        let mut connect = hello(&a, Version::V5);
        if lasts {
            connect = lasting(&a, Version::V5);
        }
        connect.receive_max = NonZeroU16::MIN;
        let (mut client, _) = Client::connect(&house, &a, connect).unwrap();
        for filter in ["q/#", "q/open", "x", "$share/g/s"] {
            client.subscribe(filter);
        }
        let mut other = Client::open(&house, &b, Version::V5);
        other.publish("x", "first");
        let first = client.unacknowledged();
        for n in 0..100 {
            for topic in ["q/c", "q/open", "s", "x"] {
                other.put(topic, &n.to_string(), Qos::AtLeastOnce, false);
                other.expect_ack();
            }
        }
        other.subscribe("$share/g/s");
        let less = may_subscribe(&["x", "q/open"]);
        house.device_may_now(name, &less.iter().map(String::as_str).collect::<Vec<_>>());
        client.acknowledge(&first);
        for n in 0..100 {
            for topic in ["q/open", "x"] {
                assert_eq!(client.message(), (topic.into(), n.to_string()), "{name}");
            }
        }
        client.settle();
        for n in 0..100 {
            assert_eq!(other.message(), ("s".into(), n.to_string()), "{name}");
        }
        client.leave();
        other.leave();
    }
}

#[test]
fn what_is_retained_is_not_sent_any_more_when_the_subscription_is_lost() {
    let house = House::new();
    let [a, b] = ["a", "b"].map(|name| house.device_may(name, EVERYTHING));
    let mut other = Client::open(&house, &b, Version::V5);
    for topic in ["r/1", "r/2", "r/3"] {
        other.retain(topic, "kept");
    }
    let mut connect = hello(&a, Version::V5);
    connect.receive_max = NonZeroU16::MIN;
    let (mut client, _) = Client::connect(&house, &a, connect).unwrap();
    client.subscribe("r/#");
    let first = client.unacknowledged();
    let less = may_subscribe(&["x"]);
    house.device_may_now("a", &less.iter().map(String::as_str).collect::<Vec<_>>());
    client.acknowledge(&first);
    client.settle();
    client.subscribe("x");
    other.publish("x", "next");
    assert_eq!(client.message(), ("x".into(), "next".into()));
}
