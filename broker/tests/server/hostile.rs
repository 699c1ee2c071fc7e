//! A healthy client is served whatever the others do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use broker::Limits;
use broker::codec::{Qos, ReasonCode, Version};
use rand_like::Bytes as Noise;

use crate::client::{Client, dial, hello, tls};
use crate::house::{Device, EVERYTHING, House, PATIENCE};

/// Bytes that look like anything, the same every time.
mod rand_like {
    pub struct Bytes(pub u64);

    impl Iterator for Bytes {
        type Item = u8;

        fn next(&mut self) -> Option<u8> {
            // An xorshift generator is plenty for noise.
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            Some((self.0 >> 24) as u8)
        }
    }
}

fn round_trip(client: &mut Client) {
    client.put("x", "ping", Qos::AtMostOnce, false);
    assert_eq!(client.message().1, "ping");
}

#[test]
fn a_reader_that_stops_does_not_stop_the_others_and_is_closed() {
    let limits = Limits {
        write_stall: Duration::from_secs(1),
        session_qos0_messages: 100,
        ..Limits::default()
    };
    let house = House::with(limits);
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut sleeper = Client::open(&house, &a, Version::V5);
    sleeper.subscribe_with("flood", Qos::AtMostOnce);
    let mut sender = Client::open(&house, &b, Version::V5);
    sender.subscribe_with("x", Qos::AtMostOnce);
    let payload = "x".repeat(64 * 1024);
    // More than the sockets of both ends hold.
    while house.broker.stats().dropped_qos0_full == 0 {
        for _ in 0..20 {
            sender.put("flood", &payload, Qos::AtMostOnce, false);
        }
        round_trip(&mut sender);
    }
    while house.broker.stats().stalled == 0 {
        round_trip(&mut sender);
    }
    drop(sleeper);
}

#[test]
fn a_packet_that_never_ends_is_cut_off_and_a_slow_one_is_not() {
    // Each packet of the slow one takes a round trip of another client.
    let packet_time = Duration::from_secs(4);
    let limits = Limits {
        packet_time,
        ..Limits::default()
    };
    let house = House::with(limits);
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut healthy = Client::open(&house, &b, Version::V311);
    healthy.subscribe("x");
    // No keep alive: it may be silent for ever, but not half-way through a packet.
    let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";
    let ping = [0xC0, 0x00];
    let mut dripper = dial(house.mqtt, tls(&house, Some(&a)));
    let read = |stream: &mut dyn Read, bytes: usize| {
        let mut answer = vec![0; bytes];
        stream.read_exact(&mut answer).map(|()| answer)
    };
    dripper.write_all(connect).unwrap();
    assert_eq!(read(&mut dripper, 4).unwrap(), [0x20, 2, 0, 0]);
    // Each is whole in time, though there is always one begun.
    dripper.write_all(&ping[..1]).unwrap();
    let begun = std::time::Instant::now();
    while begun.elapsed() < packet_time + Duration::from_secs(1) {
        round_trip(&mut healthy);
        dripper.write_all(&[ping[1], ping[0]]).unwrap();
        assert_eq!(read(&mut dripper, 2).unwrap(), [0xD0, 0x00]);
    }
    dripper.write_all(&ping[1..]).unwrap();
    assert_eq!(read(&mut dripper, 2).unwrap(), [0xD0, 0x00]);
    // A PUBLISH of a megabyte, a byte at a time.
    dripper.write_all(&[0x30, 0xFF, 0xFF, 0x3F]).unwrap();
    while dripper
        .write_all(b"x")
        .and_then(|()| dripper.flush())
        .is_ok()
    {
        round_trip(&mut healthy);
    }
    round_trip(&mut healthy);
}

#[test]
fn noise_on_every_port_and_inside_tls_disturbs_nobody() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut healthy = Client::open(&house, &a, Version::V5);
    healthy.subscribe("x");
    let config = tls(&house, Some(&b));
    for seed in 1..40_u64 {
        let noise: Vec<u8> = Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
            .take(3000)
            .collect();
        for port in [house.mqtt, house.wss] {
            let mut socket = TcpStream::connect(port).unwrap();
            // The server may close at any moment.
            let _ = socket.write_all(&noise);
            let mut stream = dial(port, config.clone());
            let _ = stream.write_all(&noise);
            let _ = stream.flush();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
        }
        round_trip(&mut healthy);
    }
}

#[test]
fn half_open_handshakes_are_shed_and_given_up() {
    let limits = Limits {
        handshakes_in_flight: 50,
        // Longer than a connection keeps its place once others want it, or none would have to give it up.
        handshake_time: Duration::from_secs(3),
        ..Limits::default()
    };
    let house = House::with(limits);
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut healthy = Client::open(&house, &a, Version::V5);
    healthy.subscribe("x");
    let half_open: Vec<TcpStream> = (0..300)
        .map(|_| TcpStream::connect(house.mqtt).unwrap())
        .collect();
    // Each is closed, as no place comes free for it, or given up; how many of which depends on how fast they come.
    let ended = || {
        let stats = house.broker.stats();
        stats.shed + stats.handshakes_failed
    };
    while ended() < 300 {
        round_trip(&mut healthy);
    }
    assert!(house.broker.stats().shed > 0);
    // There is room again, though the sockets are still open at the other end.
    let mut newcomer = Client::open(&house, &b, Version::V5);
    newcomer.settle();
    drop(half_open);
}

#[test]
fn a_client_that_sends_its_connect_never_is_given_up_too() {
    let limits = Limits {
        handshake_time: Duration::from_millis(500),
        ..Limits::default()
    };
    let house = House::with(limits);
    let a = house.device_may("a", EVERYTHING);
    let mut stream = dial(house.mqtt, tls(&house, Some(&a)));
    stream.flush().unwrap();
    let mut rest = Vec::new();
    // Closed by the server: an end or an error, not a time-out of ours.
    let closed = stream.read_to_end(&mut rest);
    assert!(!matches!(closed, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
    assert!(rest.is_empty());
}

#[test]
fn a_full_house_closes_the_door() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let house = House::with(limits);
    let devices = ["a", "b", "c"].map(|name| house.device_may(name, EVERYTHING));
    let mut one = Client::open(&house, &devices[0], Version::V5);
    let two = Client::open(&house, &devices[1], Version::V5);
    let hello = hello(&devices[2], Version::V5);
    assert!(dial_refused(&house, &devices[2]));
    two.leave();
    while house.broker.connections() > 1 {
        one.settle();
    }
    let third = Client::connect(&house, &devices[2], hello);
    assert!(third.is_ok());
}

/// Two connections of four are left to others than one device.
fn small_house() -> House {
    House::with(Limits {
        connections: 4,
        handshakes_in_flight: 4,
        // Nobody is given up for being slow.
        handshake_time: Duration::from_secs(600),
        ..Limits::default()
    })
}

fn session(house: &House, device: &Device, client_id: &str) -> Client {
    let mut hello = hello(device, Version::V5);
    hello.client_id = Some(client_id.parse().unwrap());
    Client::open_with(house, device, &hello).0
}

#[test]
fn one_device_leaves_places_to_others_whatever_it_opens_beside_its_sessions() {
    let house = small_house();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut sessions = ["a1", "a2"].map(|client_id| session(&house, &a, client_id));
    let refused = Client::connect(&house, &a, hello(&a, Version::V5));
    assert_eq!(refused.err(), Some(Some(ReasonCode::QuotaExceeded)));
    // Handshakes without a CONNECT take all that is left.
    let guests = [(); 2].map(|()| {
        let mut guest = dial(house.mqtt, tls(&house, Some(&a)));
        while guest.conn.is_handshaking() {
            guest.conn.complete_io(&mut guest.sock).unwrap();
        }
        guest
    });
    let until = Instant::now() + PATIENCE;
    let mut newcomer = loop {
        match Client::connect(&house, &b, hello(&b, Version::V5)) {
            Ok((client, _)) => break client,
            Err(_) => assert!(Instant::now() < until, "there is no place"),
        }
        sessions.iter_mut().for_each(Client::settle);
    };
    newcomer.settle();
    sessions.iter_mut().for_each(Client::settle);
    drop(guests);
}

#[test]
fn who_does_not_close_after_the_last_words_keeps_no_place() {
    let house = small_house();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let ended = ["a1", "a2"].map(|client_id| {
        let mut client = session(&house, &a, client_id);
        client.write(&[0]);
        assert!(client.end().is_some());
        client
    });
    let mut sessions = ["a1", "a2"].map(|client_id| session(&house, &a, client_id));
    let mut newcomer = Client::open(&house, &b, Version::V5);
    newcomer.settle();
    sessions.iter_mut().for_each(Client::settle);
    drop(ended);
}

fn dial_refused(house: &House, device: &Device) -> bool {
    let mut stream = dial(house.mqtt, tls(house, Some(device)));
    stream.flush().is_err() || stream.read(&mut [0]).is_err()
}

#[test]
fn reading_that_was_held_back_goes_on_when_there_is_room() {
    let limits = Limits {
        output_bytes: 64,
        ..Limits::default()
    };
    let house = House::with(limits);
    let a = house.device_may("a", EVERYTHING);
    let mut client = Client::open(&house, &a, Version::V311);
    // Each PINGRESP takes two bytes of an output buffer of 64.
    client.write(&[0xC0, 0].repeat(10_000));
    for _ in 0..10_000 {
        let answer = client.receive();
        assert!(matches!(answer, Some(broker::codec::Packet::PingResp)));
    }
}
