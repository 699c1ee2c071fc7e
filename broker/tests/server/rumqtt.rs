//! The unmodified rumqttc client, both of its versions, in the same tasks.

use std::sync::Arc;
use std::time::Duration;

use crate::client::tls;
use crate::house::{Device, EVERYTHING, House, PATIENCE};

fn transport(house: &House, device: &Device) -> rumqttc::Transport {
    let config = Arc::clone(&tls(house, Some(device)));
    rumqttc::Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(config))
}

macro_rules! tasks {
    ($version:ident, lasting: $lasting:expr, will: $will:expr, uses: $($import:item)+) => {
        mod $version {
            use super::*;
            $($import)+

            /// A client that does something only while it is waited for.
            struct Peer {
                client: Client,
                connection: Connection,
            }

            impl Peer {
                fn open(house: &House, device: &Device, with: impl FnOnce(&mut MqttOptions)) -> Self {
                    let port = house.mqtt.port();
                    let mut options = MqttOptions::new(&device.name, "localhost", port);
                    options.set_keep_alive(Duration::from_secs(30));
                    options.set_transport(transport(house, device));
                    with(&mut options);
                    let (client, connection) = Client::new(options, 10);
                    let mut peer = Self { client, connection };
                    peer.wait(|packet| matches!(packet, Packet::ConnAck(_)).then_some(()));
                    peer
                }

                fn wait<T>(&mut self, mut wanted: impl FnMut(Packet) -> Option<T>) -> T {
                    loop {
                        let event = self.connection.recv_timeout(PATIENCE).unwrap().unwrap();
                        if let Event::Incoming(packet) = event
                            && let Some(found) = wanted(packet)
                        {
                            return found;
                        }
                    }
                }

                fn subscribe(&mut self, filter: &str, qos: QoS) {
                    self.client.subscribe(filter, qos).unwrap();
                    self.wait(|packet| matches!(packet, Packet::SubAck(_)).then_some(()));
                }

                fn publish(&mut self, topic: &str, qos: QoS, retain: bool, payload: &str) {
                    let payload = payload.as_bytes().to_vec();
                    self.client.publish(topic, qos, retain, payload).unwrap();
                    self.wait_for_end(qos);
                }

                fn wait_for_end(&mut self, qos: QoS) {
                    self.wait(|packet| match (qos, packet) {
                        (QoS::AtLeastOnce, Packet::PubAck(_)) => Some(()),
                        (QoS::ExactlyOnce, Packet::PubComp(_)) => Some(()),
                        _ => None,
                    });
                }

                /// The next message: topic, payload, QoS, RETAIN.
                fn message(&mut self) -> (String, String, QoS, bool) {
                    let publish = self.wait(|packet| match packet {
                        Packet::Publish(publish) => Some(publish),
                        _ => None,
                    });
                    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
                    let topic = text(publish.topic.into());
                    (topic, text(publish.payload.into()), publish.qos, publish.retain)
                }
            }

            // [MQTT311-7.0.0-2]
            #[test]
            fn messages_of_each_qos_and_retained_ones() {
                let house = House::new();
                let [a, b] = ["a", "b"].map(|name| house.device_may(name, EVERYTHING));
                let mut sender = Peer::open(&house, &a, |_| {});
                let mut receiver = Peer::open(&house, &b, |_| {});
                receiver.subscribe("x/#", QoS::ExactlyOnce);
                for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
                    sender.publish("x/y", qos, false, "hello");
                    let expected = ("x/y".to_owned(), "hello".to_owned(), qos, false);
                    assert_eq!(receiver.message(), expected);
                }
                sender.client.publish("x/0", QoS::AtMostOnce, false, "zero").unwrap();
                // Of QoS 0 nothing tells; what is acknowledged behind it does.
                sender.publish("x/kept", QoS::AtLeastOnce, true, "kept");
                assert_eq!(receiver.message().0, "x/0");
                assert!(!receiver.message().3);
                receiver.subscribe("x/kept", QoS::AtLeastOnce);
                let kept = receiver.message();
                assert_eq!((kept.1.as_str(), kept.3), ("kept", true));
            }

            #[test]
            fn a_will_and_a_shared_subscription() {
                let house = House::new();
                let [a, b, c] = ["a", "b", "c"].map(|name| house.device_may(name, EVERYTHING));
                let mut sender = Peer::open(&house, &a, |_| {});
                let mut heir = Peer::open(&house, &b, |_| {});
                heir.subscribe("will", QoS::AtLeastOnce);
                let set_will: fn(&mut MqttOptions) = $will;
                drop(Peer::open(&house, &c, set_will));
                assert_eq!(heir.message().1, "gone");
                let mut other = Peer::open(&house, &c, |_| {});
                for member in [&mut heir, &mut other] {
                    member.subscribe("$share/g/work", QoS::AtLeastOnce);
                }
                for n in 0..4 {
                    sender.publish("work", QoS::AtLeastOnce, false, &n.to_string());
                }
                let mut heard: Vec<String> = Vec::new();
                for member in [&mut heir, &mut other] {
                    heard.extend([member.message().1, member.message().1]);
                }
                heard.sort();
                assert_eq!(heard, ["0", "1", "2", "3"]);
            }

            #[test]
            fn a_session_over_a_restart() {
                let house = House::new();
                let [a, b] = ["a", "b"].map(|name| house.device_may(name, EVERYTHING));
                let lasting: fn(&mut MqttOptions) = $lasting;
                let mut keeper = Peer::open(&house, &b, lasting);
                keeper.subscribe("q", QoS::ExactlyOnce);
                drop(keeper);
                let mut sender = Peer::open(&house, &a, |_| {});
                for (n, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce)] {
                    sender.publish("q", qos, false, &n.to_string());
                }
                drop(sender);
                let house = house.restart();
                let mut keeper = Peer::open(&house, &b, lasting);
                assert_eq!(keeper.message().1, "1");
                let (_, payload, qos, _) = keeper.message();
                assert_eq!((payload.as_str(), qos), ("2", QoS::ExactlyOnce));
            }
        }
    };
}

tasks! {
    version_4,
    lasting: |options| { options.set_clean_session(false); },
    will: |options| {
        options.set_last_will(rumqttc::LastWill::new("will", "gone", QoS::AtLeastOnce, false));
    },
    uses: use rumqttc::{Client, Connection, Event, MqttOptions, Packet, QoS};
}

tasks! {
    version_5,
    lasting: |options| {
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(300));
    },
    will: |options| {
        let qos = QoS::AtLeastOnce;
        options.set_last_will(LastWill::new("will", "gone", qos, false, None));
    },
    uses:
        use rumqttc::v5::mqttbytes::QoS;
        use rumqttc::v5::mqttbytes::v5::{LastWill, Packet};
        use rumqttc::v5::{Client, Connection, Event, MqttOptions};
}

#[test]
fn a_request_and_its_response() {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties};
    use rumqttc::v5::{Client, Connection, Event, MqttOptions};

    fn open(house: &House, device: &Device, filter: &str) -> (Client, Connection) {
        let mut options = MqttOptions::new(&device.name, "localhost", house.mqtt.port());
        options.set_transport(transport(house, device));
        let (client, mut connection) = Client::new(options, 10);
        client.subscribe(filter, QoS::AtLeastOnce).unwrap();
        loop {
            let event = connection.recv_timeout(PATIENCE).unwrap().unwrap();
            if matches!(event, Event::Incoming(Packet::SubAck(_))) {
                return (client, connection);
            }
        }
    }

    fn message(connection: &mut Connection) -> Publish {
        loop {
            let event = connection.recv_timeout(PATIENCE).unwrap().unwrap();
            if let Event::Incoming(Packet::Publish(publish)) = event {
                return publish;
            }
        }
    }

    let house = House::new();
    let [a, b] = ["a", "b"].map(|name| house.device_may(name, EVERYTHING));
    let (asker, mut answers) = open(&house, &a, "answer");
    let (answerer, mut questions) = open(&house, &b, "ask");
    let properties = PublishProperties {
        response_topic: Some("answer".into()),
        correlation_data: Some("42".into()),
        ..PublishProperties::default()
    };
    asker
        .publish_with_properties("ask", QoS::AtLeastOnce, false, "?", properties)
        .unwrap();
    // Each does its own sending while it is waited for.
    let end = std::thread::spawn(move || message(&mut answers));
    let question = message(&mut questions);
    let given = question.properties.unwrap();
    let properties = PublishProperties {
        correlation_data: given.correlation_data,
        ..PublishProperties::default()
    };
    answerer
        .publish_with_properties(
            given.response_topic.unwrap(),
            QoS::AtLeastOnce,
            false,
            "!",
            properties,
        )
        .unwrap();
    let pump = std::thread::spawn(move || {
        while !matches!(
            questions.recv_timeout(PATIENCE),
            Ok(Ok(Event::Incoming(Packet::PubAck(_)))) | Err(_)
        ) {}
    });
    let answer = end.join().unwrap();
    pump.join().unwrap();
    assert_eq!(&answer.payload[..], b"!");
    assert_eq!(answer.properties.unwrap().correlation_data.unwrap(), "42");
}
