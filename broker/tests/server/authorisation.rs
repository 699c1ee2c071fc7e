//! Policy decides each connect, publish, retain, subscription and delivery.

use bytes::Bytes;

use broker::codec::{Qos, ReasonCode, Version};

use crate::client::{Client, hello, lasting, will};
use crate::house::{EVERYTHING, House, PATIENCE};

/// [MQTT311-3.3.5-2]
#[test]
fn a_denied_publish_is_named_and_the_session_lives_or_ends_by_version() {
    let house = House::new();
    let lamp = house.device("lamp-1");
    let mut client = Client::open(&house, &lamp, Version::V5);
    let ack = client.publish("dt/lamp-2/x", "no").0;
    assert_eq!(ack.reason, ReasonCode::NotAuthorized);
    let said = ack.reason_string.unwrap().to_string();
    assert!(
        said.contains("iot:Publish") && said.contains("dt/lamp-2/x"),
        "{said}"
    );
    assert_eq!(
        client.publish("dt/lamp-1/x", "yes").0.reason,
        ReasonCode::NoMatchingSubscribers
    );
    client.put("dt/lamp-2/x", "no", Qos::AtMostOnce, false);
    let end = client.end().unwrap();
    assert_eq!(end.reason, ReasonCode::NotAuthorized);
    assert!(end.reason_string.unwrap().contains("iot:Publish"));

    let mut old = Client::open(&house, &lamp, Version::V311);
    old.put("dt/lamp-2/x", "no", Qos::AtLeastOnce, false);
    assert!(old.end().is_none());
    assert_eq!(house.broker.stats().denied_publish, 3);
}

#[test]
fn retaining_needs_a_grant_of_its_own() {
    let house = House::new();
    let statements = ["Allow Connect client/a", "Allow Publish topic/x"];
    let device = house.device_may("a", &statements);
    let mut client = Client::open(&house, &device, Version::V5);
    assert!(!client.publish("x", "1").0.reason.is_error());
    assert_eq!(client.retain("x", "1").0.reason, ReasonCode::NotAuthorized);
}

#[test]
fn denied_subscriptions_are_refused_one_by_one() {
    let house = House::new();
    let lamp = house.device("lamp-1");
    for (version, code) in [
        (Version::V5, ReasonCode::NotAuthorized),
        (Version::V311, ReasonCode::Unspecified),
    ] {
        let mut client = Client::open(&house, &lamp, version);
        for filter in ["#", "+/lamp-1/x", "cmd/lamp-2/x", "$aws/#", "$share/g/#"] {
            let reasons = client.subscribe(filter).reasons;
            assert!(reasons[0].is_error(), "{filter}");
        }
        assert_eq!(client.subscribe("#").reasons, [code]);
        let granted = client.subscribe("cmd/lamp-1/#").reasons;
        assert_eq!(granted, [ReasonCode::GrantedQos1]);
    }
}

/// [MQTT-3.1.4-2]
#[test]
fn a_client_id_that_is_not_the_thing_is_refused_in_both_versions() {
    let house = House::new();
    let mut lamp = house.device("lamp-1");
    lamp.name = "other".to_owned();
    for version in [Version::V5, Version::V311] {
        let refused = Client::connect(&house, &lamp, hello(&lamp, version));
        assert_eq!(refused.err().unwrap(), Some(ReasonCode::NotAuthorized));
    }
    let mut anonymous = hello(&lamp, Version::V5);
    anonymous.client_id = None;
    let refused = Client::connect(&house, &lamp, anonymous);
    assert_eq!(refused.err().unwrap(), Some(ReasonCode::NotAuthorized));
}

#[test]
fn a_will_that_may_not_be_published_is_refused_at_connect() {
    let house = House::new();
    let lamp = house.device("lamp-1");
    let mut connect = hello(&lamp, Version::V5);
    connect.will = Some(will("dt/lamp-2/will", "x"));
    let refused = Client::connect(&house, &lamp, connect);
    assert_eq!(refused.err().unwrap(), Some(ReasonCode::NotAuthorized));
}

#[test]
fn dollar_topics_are_not_for_devices() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let mut client = Client::open(&house, &a, Version::V5);
    client.subscribe("$SYS/#");
    assert_eq!(
        client.publish("$SYS/x", "x").0.reason,
        ReasonCode::TopicNameInvalid
    );
    assert!(client.retain("$aws/things/a/x", "x").0.reason.is_error());
    client.settle();
}

#[test]
fn a_reserved_topic_is_a_request_and_its_answer_reaches_the_asker_only() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut asker = Client::open(&house, &a, Version::V5);
    let mut eavesdropper = Client::open(&house, &b, Version::V5);
    eavesdropper.subscribe("$aws/#");
    asker.put("$aws/things/a/jobs/get", "{}", Qos::AtLeastOnce, false);
    let request = house.requests.recv_timeout(PATIENCE).unwrap();
    assert_eq!(request.topic.as_str(), "$aws/things/a/jobs/get");
    assert_eq!(request.principal.certificate, a.id);
    assert_eq!(request.principal.thing.unwrap().as_str(), "a");
    asker.settle(); // No PUBACK before the answer.
    request.reply.send(
        "$aws/things/a/jobs/get/accepted".parse().unwrap(),
        Bytes::from_static(b"{}"),
    );
    let (topic, _) = asker.message();
    assert_eq!(topic, "$aws/things/a/jobs/get/accepted");
    request.reply.done();
    assert_eq!(asker.expect_ack().0.reason, ReasonCode::Success);
    eavesdropper.settle();
}

/// Live, queued, retained, will, replayed and reserved delivery, each to a session that may
/// subscribe and may not receive.
#[test]
fn every_way_of_delivery_passes_the_one_judge() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut sender = Client::open(&house, &a, Version::V5);
    let denied = || house.broker.stats().denied_receive;
    let may_not = [
        EVERYTHING,
        &["Deny Receive topic/secret/*", "Deny Receive topic/$aws/*"],
    ]
    .concat();

    // Replayed: sent while it was allowed, not acknowledged, the policy narrowed meanwhile.
    let (mut client, _) = Client::connect(&house, &b, lasting(&b, Version::V5))
        .ok()
        .unwrap();
    client.subscribe("secret/#");
    client.subscribe("open");
    sender.publish("secret/replayed", "x");
    client.unacknowledged();
    drop(client);
    house.device_may_now("b", &may_not);
    // Queued: it waits for the session.
    sender.publish("secret/queued", "x");
    sender.publish("open", "queued");
    // Retained: it waits for a subscription.
    sender.retain("secret/retained", "x");
    let (mut client, present) = Client::connect(&house, &b, lasting(&b, Version::V5))
        .ok()
        .unwrap();
    assert!(present);
    assert_eq!(client.message(), ("open".into(), "queued".into()));
    assert_eq!(
        denied(),
        3,
        "replayed, queued, and live to the queue: retained with it"
    );
    client.subscribe("secret/#");
    client.settle();
    assert_eq!(denied(), 4, "retained");
    // Live.
    sender.publish("secret/live", "x");
    sender.publish("open", "live");
    assert_eq!(client.message(), ("open".into(), "live".into()));
    assert_eq!(denied(), 5, "live");
    // A will.
    let c = house.device_may("c", EVERYTHING);
    let mut connect = hello(&c, Version::V311);
    connect.will = Some(will("secret/will", "x"));
    let (doomed, _) = Client::connect(&house, &c, connect).ok().unwrap();
    sender.subscribe("secret/will");
    drop(doomed);
    assert_eq!(sender.message().0, "secret/will");
    sender.publish("open", "after the will");
    assert_eq!(client.message(), ("open".into(), "after the will".into()));
    assert_eq!(denied(), 6, "will");
    // An answer to a reserved topic.
    client.put("$aws/things/b/jobs/get", "{}", Qos::AtLeastOnce, false);
    let request = house.requests.recv_timeout(PATIENCE).unwrap();
    request.reply.send("$aws/x".parse().unwrap(), Bytes::new());
    drop(request);
    client.expect_ack();
    client.settle();
    assert_eq!(denied(), 7, "reserved");
}
