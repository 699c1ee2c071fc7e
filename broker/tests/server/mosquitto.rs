//! Unmodified mosquitto clients.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::house::{Device, House};

fn mosquitto(program: &str, house: &House, device: &Device, version: &str) -> Command {
    // Line by line, or its words would come only when it ends.
    let mut command = Command::new("stdbuf");
    command
        .args(["-oL", program])
        .args(["-h", "localhost", "-p", &house.mqtt.port().to_string()])
        .args(["-V", version, "-i", &device.name])
        .arg("--cafile")
        .arg(house.root_file())
        .arg("--cert")
        .arg(&device.crt_file)
        .arg("--key")
        .arg(&device.key_file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn one_message(version: &str) {
    let house = House::new();
    let sensor = house.device("sensor-1");
    let reader = house.device_may(
        "reader",
        &[
            "Allow Connect client/reader",
            "Allow Subscribe topicfilter/dt/*",
            "Allow Receive topic/dt/*",
        ],
    );
    let mut subscriber = mosquitto("mosquitto_sub", &house, &reader, version)
        .args([
            "-t",
            "dt/+/light",
            "-q",
            "1",
            "-C",
            "1",
            "-W",
            "20",
            "-v",
            "-d",
        ])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(subscriber.stdout.take().unwrap()).lines();
    let subscribed = lines.find(|line| line.as_ref().unwrap().contains("received SUBACK"));
    assert!(subscribed.is_some(), "never subscribed");
    let published = mosquitto("mosquitto_pub", &house, &sensor, version)
        .args(["-t", "dt/sensor-1/light", "-q", "1", "-m", "21.5"])
        .output()
        .unwrap();
    assert!(published.status.success(), "{published:?}");
    let heard: Vec<String> = lines.map(Result::unwrap).collect();
    let received = heard.iter().any(|line| line == "dt/sensor-1/light 21.5");
    assert!(received, "{heard:?}, {:?}", house.broker.stats());
    assert!(subscriber.wait().unwrap().success());
}

/// [MQTT311-7.0.0-2, 7.1.1-1]
#[test]
fn a_message_passes_in_3_1_1() {
    one_message("mqttv311");
}

/// [MQTT-4.2.0-1]
#[test]
fn a_message_passes_in_5() {
    one_message("mqttv5");
}

#[test]
fn another_client_id_is_refused() {
    let house = House::new();
    let mut device = house.device("lamp-1");
    device.name = "lamp-2".to_owned();
    let refused = mosquitto("mosquitto_pub", &house, &device, "mqttv311")
        .args(["-t", "dt/lamp-1/x", "-m", "x"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("not authorised"), "{said}");
}
