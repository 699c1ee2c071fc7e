//! MQTT in WebSocket frames goes the same way.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use broker::Limits;
use broker::codec::{self, Packet, ReasonCode, Version};
use bytes::{Bytes, BytesMut};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use crate::client::{Client, dial, hello, tls};
use crate::house::{Device, EVERYTHING, House};

type Socket = WebSocket<rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>>;

fn upgrade(house: &House, device: &Device, protocol: &str) -> Option<Socket> {
    let mut request = "wss://localhost/mqtt".into_client_request().unwrap();
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    let stream = dial(house.wss, tls(house, Some(device)));
    let (socket, response) = client(request, stream).ok()?;
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
    Some(socket)
}

fn send_connect(socket: &mut Socket, device: &Device) {
    let mut out = Vec::new();
    hello(device, Version::V5).encode(&mut out);
    // A packet may span frames.
    let second = out.split_off(5);
    socket.send(Message::Binary(out.into())).unwrap();
    socket.send(Message::Binary(second.into())).unwrap();
}

/// What the CONNACK to `connect` says.
pub fn connack(house: &House, device: &Device, connect: &codec::Connect) -> codec::ConnAck {
    let mut socket = upgrade(house, device, "mqtt").unwrap();
    let mut out = Vec::new();
    connect.encode(&mut out);
    socket.send(Message::Binary(out.into())).unwrap();
    match receive(&mut socket, &mut BytesMut::new()) {
        Packet::ConnAck(told) => *told,
        other => panic!("{other:?} instead of a CONNACK"),
    }
}

fn receive(socket: &mut Socket, buffer: &mut BytesMut) -> Packet {
    let limits = codec::Limits {
        packet_max_bytes: u32::MAX,
        user_properties_max: 10,
        filters_max: 10,
    };
    loop {
        if let Some(packet) = codec::decode(buffer, Version::V5, &limits).unwrap() {
            return packet;
        }
        match socket.read().unwrap() {
            Message::Binary(bytes) => buffer.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
    }
}

/// [MQTT-6.0.0-2] [MQTT311-6.0.0-2]
#[test]
fn a_message_comes_through_a_websocket() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut socket = upgrade(&house, &a, "mqtt").unwrap();
    let mut buffer = BytesMut::new();
    send_connect(&mut socket, &a);
    match receive(&mut socket, &mut buffer) {
        Packet::ConnAck(ack) => assert_eq!(ack.reason, ReasonCode::Success),
        other => panic!("{other:?}"),
    }
    let subscribe = [0x82, 7, 0, 1, 0, 0, 1, b'x', 1];
    socket
        .send(Message::Binary(Bytes::copy_from_slice(&subscribe)))
        .unwrap();
    assert!(matches!(
        receive(&mut socket, &mut buffer),
        Packet::SubAck(_)
    ));
    Client::open(&house, &b, Version::V311).publish("x", "over WebSocket");
    match receive(&mut socket, &mut buffer) {
        Packet::Publish(publish) => assert_eq!(&publish.payload[..], b"over WebSocket"),
        other => panic!("{other:?}"),
    }
    // Longer than a frame, than the output buffer and than what the library holds.
    let long = "x".repeat(900_000);
    Client::open(&house, &b, Version::V311).publish("x", &long);
    match receive(&mut socket, &mut buffer) {
        Packet::Publish(publish) => assert_eq!(publish.payload, long),
        other => panic!("{other:?}"),
    }
    house.revoke(&a);
    match receive(&mut socket, &mut buffer) {
        Packet::Disconnect(end) => assert_eq!(end.reason, ReasonCode::AdministrativeAction),
        other => panic!("{other:?}"),
    }
    assert!(refused(&house, &a), "no way back in");
}

fn refused(house: &House, device: &Device) -> bool {
    upgrade(house, device, "mqtt").is_none()
}

/// [MQTT-6.0.0-1, -3, -4] [MQTT311-6.0.0-1, -3, -4]
#[test]
fn text_frames_close_with_1003_and_other_protocols_are_refused() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    assert!(upgrade(&house, &a, "chat").is_none());
    let mut socket = upgrade(&house, &a, "mqttv3.1, mqtt").unwrap();
    socket.send(Message::text("hello")).unwrap();
    match socket.read() {
        Ok(Message::Close(Some(close))) => assert_eq!(close.code, CloseCode::Unsupported),
        other => panic!("{other:?}"),
    }
}

/// A masked frame of a whole message.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend(payload);
    frame
}

#[test]
fn a_message_that_never_ends_is_cut_off_and_a_slow_one_is_not() {
    let packet_time = Duration::from_secs(3);
    let house = House::with(Limits {
        packet_time,
        ..Limits::default()
    });
    let a = house.device_may("a", EVERYTHING);
    let mut socket = upgrade(&house, &a, "mqtt").unwrap();
    let mut buffer = BytesMut::new();
    let mut connect = Vec::new();
    // It may be silent for long, but not half-way through a message.
    let hello = codec::Connect {
        keep_alive_s: 0,
        ..hello(&a, Version::V5)
    };
    hello.encode(&mut connect);
    socket.send(Message::Binary(connect.into())).unwrap();
    let first = receive(&mut socket, &mut buffer);
    assert!(matches!(first, Packet::ConnAck(_)));
    let write = |socket: &mut Socket, bytes: &[u8]| {
        let stream = socket.get_mut();
        stream.write_all(bytes).unwrap();
        stream.flush().unwrap();
    };
    // Each is whole in time, though there is always one begun.
    let ping = frame(&[0xC0, 0]);
    let (begun, rest) = ping.split_at(3);
    let next = [rest, begun].concat();
    write(&mut socket, begun);
    let since = Instant::now();
    while since.elapsed() < packet_time + Duration::from_secs(1) {
        write(&mut socket, &next);
        let answer = receive(&mut socket, &mut buffer);
        assert!(matches!(answer, Packet::PingResp));
    }
    write(&mut socket, rest);
    assert!(matches!(
        receive(&mut socket, &mut buffer),
        Packet::PingResp
    ));
    // Of a message in two frames the second does not come.
    let mut half = frame(&[0xC0, 0]);
    half[0] = 0x02;
    write(&mut socket, &half);
    match receive(&mut socket, &mut buffer) {
        Packet::Disconnect(end) => assert_eq!(end.reason, ReasonCode::KeepAliveTimeout),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_upgrade_is_closed() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let mut stream = dial(house.wss, tls(&house, Some(&a)));
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut said = Vec::new();
    // It ends; how is the server's business.
    let _ = stream.read_to_end(&mut said);
    assert!(!String::from_utf8_lossy(&said).contains("101 Switching"));
}
