//! The unmodified rumqttc client, both of its versions.

use std::sync::Arc;
use std::time::Duration;

use crate::client::tls;
use crate::house::{Device, House, PATIENCE};

fn transport(house: &House, device: &Device) -> rumqttc::TlsConfiguration {
    rumqttc::TlsConfiguration::Rustls(Arc::clone(&tls(house, Some(device))))
}

/// [MQTT311-7.0.0-2]
#[test]
fn version_4_subscribes_publishes_and_receives() {
    let house = House::new();
    let device = house.device_may("r", crate::house::EVERYTHING);
    let mut options = rumqttc::MqttOptions::new("r", "localhost", house.mqtt.port());
    options.set_keep_alive(Duration::from_secs(30));
    options.set_transport(rumqttc::Transport::tls_with_config(transport(
        &house, &device,
    )));
    let (client, mut connection) = rumqttc::Client::new(options, 10);
    client.subscribe("x/#", rumqttc::QoS::AtLeastOnce).unwrap();
    client
        .publish("x/y", rumqttc::QoS::AtLeastOnce, false, "hello")
        .unwrap();
    loop {
        let event = connection.recv_timeout(PATIENCE).unwrap().unwrap();
        if let rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) = event {
            assert_eq!(
                (publish.topic.as_str(), &publish.payload[..]),
                ("x/y", &b"hello"[..])
            );
            return;
        }
    }
}

#[test]
fn version_5_subscribes_publishes_and_receives() {
    use rumqttc::v5::{Client, Event, MqttOptions, mqttbytes::QoS, mqttbytes::v5::Packet};
    let house = House::new();
    let device = house.device_may("r", crate::house::EVERYTHING);
    let mut options = MqttOptions::new("r", "localhost", house.mqtt.port());
    options.set_keep_alive(Duration::from_secs(30));
    options.set_transport(rumqttc::Transport::tls_with_config(transport(
        &house, &device,
    )));
    let (client, mut connection) = Client::new(options, 10);
    client.subscribe("x/#", QoS::AtLeastOnce).unwrap();
    client
        .publish("x/y", QoS::AtLeastOnce, false, "hello")
        .unwrap();
    loop {
        let event = connection.recv_timeout(PATIENCE).unwrap().unwrap();
        if let Event::Incoming(Packet::Publish(publish)) = event {
            assert_eq!(
                (&publish.topic[..], &publish.payload[..]),
                (&b"x/y"[..], &b"hello"[..])
            );
            return;
        }
    }
}
