//! What ends a connection, and that nothing behind it is looked at.

use broker::Limits;
use broker::codec::{
    Auth, Authentication, Connect, Disconnect, Packet, Qos, ReasonCode, Str, Version,
};

use crate::client::{Client, hello, lasting, will};
use crate::house::{Device, EVERYTHING, House};

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

/// A PUBLISH of QoS 0 to `x`, as bytes.
fn publish(version: Version) -> Vec<u8> {
    match version {
        Version::V311 => vec![0x30, 4, 0, 1, b'x', b'!'],
        Version::V5 => vec![0x30, 5, 0, 1, b'x', 0, b'!'],
    }
}

fn bytes_of(connect: &Connect) -> Vec<u8> {
    let mut out = Vec::new();
    connect.encode(&mut out);
    out
}

/// Sends a CONNECT and a PUBLISH in one write; the reason of the CONNACK, if there is one before the end.
fn refused(house: &House, device: &Device, version: Version, connect: &[u8]) -> Option<ReasonCode> {
    let mut client = Client::dial(house, device, version);
    client.write(&[connect, &publish(version)].concat());
    let said = client.receive();
    if said.is_some() {
        assert!(client.receive().is_none(), "one word and the end");
    }
    said.map(|packet| match packet {
        Packet::ConnAck(ack) => {
            assert!(!ack.session_present);
            ack.reason
        }
        other => panic!("{other:?}"),
    })
}

/// [MQTT-3.1.2-1, -2, -30, 3.1.3-8, 3.1.4-1, -2, -6, 3.2.2-6, -7, 3.14.0-1, 4.12.0-1, -4, 4.13.2-1]
/// [MQTT311-3.1.2-1, -2, -3, 3.1.3-7, -8, -9, 3.1.4-1, -5, 3.2.2-4, -5, -6]
#[test]
fn a_refused_connect_is_answered_closed_and_what_follows_it_not_looked_at() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device("b");
    let mut witness = Client::open(&house, &a, Version::V5);
    witness.subscribe("#");
    let a = house.device_may("again", EVERYTHING);
    // A session that is there must not show in a refusal.
    for version in VERSIONS {
        drop(
            Client::connect(&house, &a, lasting(&a, version))
                .ok()
                .unwrap(),
        );
        let good = lasting(&a, version);
        let told = |code_v5, code_v311| match version {
            Version::V5 => Some(code_v5),
            Version::V311 => code_v311,
        };
        let say = |bytes: &[u8]| refused(&house, &a, version, bytes);

        // Not MQTT, not a version that is served, not well formed.
        let mut other = bytes_of(&good);
        other[5] = b'X';
        assert_eq!(say(&other), None);
        let mut newer = bytes_of(&good);
        newer[8] = 9;
        // Answered as MQTT 5, whatever the client speaks.
        let unsupported = ReasonCode::UnsupportedProtocolVersion;
        assert_eq!(refused(&house, &a, Version::V5, &newer), Some(unsupported));
        let mut older = bytes_of(&hello(&a, Version::V311));
        older[8] = 3;
        assert_eq!(
            refused(&house, &a, Version::V311, &older),
            Some(unsupported)
        );
        let mut reserved = bytes_of(&good);
        reserved[9] |= 1;
        assert_eq!(say(&reserved), told(ReasonCode::MalformedPacket, None));

        // An identifier that cannot be taken.
        let mut odd = bytes_of(&good);
        let at = odd.len() - 1;
        odd[at] = b'\n';
        let invalid = ReasonCode::ClientIdentifierNotValid;
        assert_eq!(say(&odd), Some(invalid));
        if version == Version::V311 {
            let mut nameless = good.clone();
            nameless.client_id = None;
            assert_eq!(say(&bytes_of(&nameless)), Some(invalid));
        }

        // A will there is no return code for.
        let mut willing = good.clone();
        willing.will = Some(will("$aws/x", "x"));
        let no_name = told(ReasonCode::TopicNameInvalid, None);
        assert_eq!(say(&bytes_of(&willing)), no_name);

        // What the policy does not allow.
        let denied = bytes_of(&lasting(&a, version));
        let denied = refused(&house, &b, version, &denied);
        assert_eq!(denied, Some(ReasonCode::NotAuthorized));
    }
    let mut enhanced = lasting(&a, Version::V5);
    enhanced.authentication = Some(Authentication {
        method: Str::from("SCRAM-SHA-256"),
        data: None,
    });
    assert_eq!(
        refused(&house, &a, Version::V5, &bytes_of(&enhanced)),
        Some(ReasonCode::BadAuthenticationMethod)
    );
    witness.settle();
}

/// Packets that are wrong by themselves, with the reason MQTT 5 has for it.
fn wrong(version: Version) -> Vec<(ReasonCode, Vec<u8>)> {
    use ReasonCode::{MalformedPacket, PacketTooLarge, ProtocolError};
    let filter = |options: u8| match version {
        Version::V311 => vec![0x82, 6, 0, 1, 0, 1, b'x', options],
        Version::V5 => vec![0x82, 7, 0, 1, 0, 0, 1, b'x', options],
    };
    let flags = |flags: u8| {
        let mut subscribe = filter(0);
        subscribe[0] = flags;
        subscribe
    };
    let mut wrong = vec![
        (MalformedPacket, vec![0xe1, 0]), // DISCONNECT with a flag
        (MalformedPacket, vec![0xc1, 0]), // PINGREQ with a flag
        (MalformedPacket, flags(0x80)),
        (MalformedPacket, vec![0xa0, 5, 0, 1, 0, 1, b'x']),
        (MalformedPacket, vec![0x60, 2, 0, 1]),
        (MalformedPacket, vec![0x36, 5, 0, 1, b'x', 0, 1]), // QoS 3
        (MalformedPacket, filter(0xc0)),
        (MalformedPacket, filter(3)),
        (MalformedPacket, vec![0x30, 4, 0, 1, 0xff, 0]), // a topic that is not UTF-8
        (MalformedPacket, vec![0x30, 4, 0, 1, 0, 0]),    // U+0000
        (PacketTooLarge, vec![0x30, 0xff, 0xff, 0xff, 0x7f]),
        (ProtocolError, vec![0xd0, 0]), // PINGRESP is a server's
    ];
    if version == Version::V5 {
        let auth = Packet::Auth(Auth {
            reason: ReasonCode::Reauthenticate,
            authentication: Some(Authentication {
                method: Str::from("SCRAM-SHA-256"),
                data: None,
            }),
            reason_string: None,
            user: Vec::new(),
        });
        let mut bytes = Vec::new();
        auth.encode(version, &mut bytes);
        wrong.push((ProtocolError, bytes.clone()));
        bytes[0] = 0xf1;
        wrong.push((MalformedPacket, bytes));
    }
    wrong
}

/// [MQTT-2.1.3-1, 3.2.2-15, 3.3.1-4, 3.6.1-1, 3.8.1-1, 3.8.3-5, 3.10.1-1, 3.14.1-1, 3.14.4-1, -2, 3.15.1-1]
/// [MQTT-4.12.0-7, 4.12.1-2, 4.13.1-1, 4.13.2-1]
/// [MQTT311-1.5.3-1, -2, 2.2.2-1, -2, 3.3.1-4, 3.6.1-1, 3.8.1-1, 3.8.3-4, 3.10.1-1, 3.14.1-1, 4.8.0-1]
#[test]
fn what_is_wrong_is_named_and_ends_the_connection() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut witness = Client::open(&house, &a, Version::V5);
    witness.subscribe("#");
    for version in VERSIONS {
        for (reason, bytes) in wrong(version) {
            let mut client = Client::open(&house, &b, version);
            client.write(&[bytes.clone(), publish(version)].concat());
            let told = client.receive();
            if version == Version::V5 {
                let Some(Packet::Disconnect(end)) = told else {
                    panic!("{told:?} for {bytes:x?}");
                };
                assert_eq!(end.reason, reason, "{bytes:x?}");
                assert!(client.receive().is_none(), "nothing behind DISCONNECT");
            } else {
                assert!(told.is_none(), "{bytes:x?}");
            }
        }
    }
    witness.settle();
}

/// [MQTT-3.1.0-1, -2, 3.2.0-2] [MQTT311-3.1.0-1, -2]
#[test]
fn connect_is_the_first_packet_and_comes_once() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    for version in VERSIONS {
        let mut client = Client::dial(&house, &a, version);
        client.write(&[0xc0, 0]);
        assert!(client.receive().is_none());

        let mut client = Client::open(&house, &a, version);
        client.write(&bytes_of(&hello(&a, version)));
        match (version, client.receive()) {
            (Version::V311, None) => {}
            (Version::V5, Some(Packet::Disconnect(end))) => {
                assert_eq!(end.reason, ReasonCode::ProtocolError);
                assert!(client.receive().is_none());
            }
            (_, other) => panic!("{other:?}"),
        }
    }
}

/// [MQTT-3.14.4-1] [MQTT311-3.14.4-1, -2]
#[test]
fn a_client_is_not_heard_behind_its_disconnect_and_the_server_closes() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let b = house.device_may("b", EVERYTHING);
    let mut witness = Client::open(&house, &a, Version::V5);
    witness.subscribe("#");
    for version in VERSIONS {
        let mut client = Client::open(&house, &b, version);
        let mut bytes = Vec::new();
        Disconnect::new(ReasonCode::Success).encode(version, &mut bytes);
        bytes.extend(publish(version));
        client.write(&bytes);
        assert!(client.receive().is_none());
    }
    witness.settle();
}

/// [MQTT311-4.8.0-2]
#[test]
fn what_cannot_be_done_now_ends_a_connection_that_cannot_be_told() {
    let limits = Limits {
        retained_messages: 1,
        ..Limits::default()
    };
    let house = House::with(limits);
    let a = house.device_may("a", EVERYTHING);
    let mut client = Client::open(&house, &a, Version::V311);
    client.retain("x/1", "kept");
    client.put("x/2", "no room", Qos::AtLeastOnce, true);
    assert!(client.receive().is_none());
    let mut client = Client::open(&house, &a, Version::V5);
    let full = client.retain("x/2", "no room").0.reason;
    assert_eq!(full, ReasonCode::QuotaExceeded);
    client.settle();
}

/// [MQTT-3.1.3-6, -7, 3.2.2-16] [MQTT311-3.1.3-6]
#[test]
fn clients_without_an_identifier_are_given_different_ones() {
    let house = House::new();
    let a = house.device_may("a", EVERYTHING);
    let mut nameless = hello(&a, Version::V5);
    nameless.client_id = None;
    let (mut one, ack) = Client::open_with(&house, &a, &nameless);
    let (mut two, other) = Client::open_with(&house, &a, &nameless);
    let (one_id, two_id) = (ack.assigned_client_id, other.assigned_client_id);
    assert!(one_id.is_some() && two_id.is_some() && one_id != two_id);
    nameless.version = Version::V311;
    let (mut three, _) = Client::open_with(&house, &a, &nameless);
    // Each is there under its own: nobody was taken over.
    for client in [&mut one, &mut two, &mut three] {
        client.settle();
    }
    // It is an identifier like any other.
    let mut same = hello(&a, Version::V5);
    same.client_id = one_id;
    let (mut heir, _) = Client::open_with(&house, &a, &same);
    assert_eq!(one.end().unwrap().reason, ReasonCode::SessionTakenOver);
    heir.settle();
}
