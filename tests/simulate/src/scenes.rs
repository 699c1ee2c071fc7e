//! Single scenes, each told step by step: what seeds have found, so that it stays mended however
//! seeds are drawn.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use broker::Limits;
use ca::CertificateId;
use fleet::simulated::Standings;
use fleet::{CertificateStatus, StandingNow};
use policy::{NamedPolicy, Policy, Realm};
use store::journal::Options;
use store::journal::simulated::MemoryDisk;

use crate::link::Link;
use crate::server::{Registry, Server};
use crate::wire::{self, Connect, Filter, Packet, Publish, Version, Will};

/// Room for everything.
const WIDE: usize = 1 << 20;

/// A broker where everybody may do everything, and one certificate.
struct Scene {
    server: Server,
    certificate: CertificateId,
}

/// A client with one connection.
struct Peer {
    link: Link,
    version: Version,
    input: Vec<u8>,
}

impl Scene {
    fn new(limits: Limits, backlog_bytes_max: usize) -> Self {
        let everything = r#"{"Version": "2012-10-17", "Statement":
            [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}"#;
        let certificate = CertificateId::of(b"the certificate of all");
        let standings = Standings::default();
        let all_may = StandingNow {
            status: Some(CertificateStatus::Active),
            thing: Some("thing".parse().unwrap()),
            policies: Arc::from([NamedPolicy {
                name: "everything".parse().unwrap(),
                policy: Arc::new(Policy::parse(everything).unwrap()),
            }]),
            not_before: UNIX_EPOCH,
            not_after: UNIX_EPOCH + Duration::from_secs(4_000_000_000),
            ..Standings::unknown()
        };
        standings.set(&certificate, all_may);
        let registry = Registry {
            standings,
            realm: Arc::new(Realm::live("000000000000")),
        };
        let options = Options {
            backlog_bytes_max,
            ..Options::default()
        };
        let disk = MemoryDisk::default();
        let now_ms = 1_767_225_600_000;
        let server = Server::start(&disk, options, Arc::new(registry), limits, now_ms, 61);
        Self {
            server: server.unwrap(),
            certificate,
        }
    }

    /// A client whose connection holds `room` bytes that it has not read.
    fn connect(&mut self, connect: &Connect, room: usize) -> Peer {
        let link = self.server.connect(&self.certificate, room).unwrap();
        let peer = Peer {
            link,
            version: connect.version,
            input: Vec::new(),
        };
        peer.say(&connect.encode());
        peer
    }

    /// As [`Scene::connect`], up to the CONNACK. Tells whether there was a session.
    fn open(&mut self, connect: &Connect, room: usize) -> (Peer, bool) {
        let mut peer = self.connect(connect, room);
        self.settle();
        match peer.hear().as_slice() {
            [
                Packet::ConnAck {
                    present, code: 0, ..
                },
                ..,
            ] => {
                let present = *present;
                (peer, present)
            }
            other => panic!("no CONNACK: {other:?}"),
        }
    }

    /// Lets the server do what it can without the disk.
    fn work(&mut self) {
        self.server.pass(Duration::from_millis(5));
    }

    /// Lets the server do what it can.
    fn settle(&mut self) {
        for _ in 0..50 {
            self.work();
            assert!(self.server.commit());
        }
        self.work();
    }

    /// Retains messages until the journal takes no more.
    fn fill_the_journal(&mut self) {
        let (filler, _) = self.open(&lasting("filler"), WIDE);
        let before = self.server.backlog();
        for number in 0.. {
            let topic = format!("filler/{number}");
            filler.say(&publish(&topic, "to fill the journal", 0, true));
            let held = self.server.stats().publishers_held;
            self.work();
            if self.server.stats().publishers_held > held {
                break;
            }
        }
        assert!(self.server.backlog() > before);
    }
}

impl Peer {
    fn say(&self, bytes: &[u8]) {
        self.link.deliver(bytes.iter().copied());
    }

    fn subscribe(&self, filter: Filter) {
        self.say(&wire::subscribe(self.version, 1, None, &[filter]));
    }

    /// What has come.
    fn hear(&mut self) -> Vec<Packet> {
        let bytes = self.link.take(usize::MAX);
        self.input.extend(bytes);
        let mut heard = Vec::new();
        while let Some((packet, length)) = wire::decode(self.version, &self.input).unwrap() {
            self.input.drain(..length);
            heard.push(packet);
        }
        heard
    }

    /// The messages among what has come.
    fn messages(&mut self) -> Vec<Publish> {
        let heard = self.hear().into_iter();
        let messages = heard.filter_map(|packet| match packet {
            Packet::Publish(publish) => Some(publish),
            _ => None,
        });
        messages.collect()
    }
}

/// A client of version 5 whose session outlives its connection.
fn lasting(client_id: &str) -> Connect {
    Connect {
        version: Version::V5,
        client_id: client_id.to_owned(),
        clean: false,
        keep_alive_s: 0,
        expiry_s: 3600,
        receive_max: 100,
        alias_max: 0,
        packet_max: None,
        will: None,
    }
}

/// One whose session ends with it.
fn passing(client_id: &str) -> Connect {
    Connect {
        clean: true,
        expiry_s: 0,
        ..lasting(client_id)
    }
}

fn filter(filter: &str, qos: u8) -> Filter {
    Filter {
        filter: filter.to_owned(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    }
}

/// A PUBLISH of version 5; its packet identifier, where it has one, is 1.
fn publish(topic: &str, payload: &str, qos: u8, retain: bool) -> Vec<u8> {
    let publish = Publish {
        topic: topic.to_owned(),
        payload: payload.as_bytes().to_vec(),
        qos,
        retain,
        packet_id: u16::from(qos > 0),
        ..Publish::default()
    };
    publish.encode(Version::V5)
}

#[test]
fn a_will_that_waited_for_the_disk_is_its_clients_own_in_its_next_session_too() {
    let mut scene = Scene::new(Limits::default(), 2_000);
    let (mut witness, _) = scene.open(&passing("witness"), WIDE);
    witness.subscribe(filter("will", 0));
    let mut connect = passing("client");
    connect.will = Some(Will {
        topic: "will".to_owned(),
        // Longer than what the journal was filled with.
        payload: vec![b'.'; 200],
        qos: 0,
        retain: true,
        delay_s: 0,
        expiry_s: None,
    });
    let (lost, _) = scene.open(&connect, WIDE);
    scene.fill_the_journal();
    lost.link.hang_up();
    scene.work();
    let mut back = scene.connect(&passing("client"), WIDE);
    back.subscribe(Filter {
        no_local: true,
        retain_handling: 2,
        ..filter("will", 0)
    });
    scene.work();
    let heard = back.hear();
    assert!(
        matches!(
            heard.as_slice(),
            [Packet::ConnAck { .. }, Packet::SubAck(..)]
        ),
        "the new session has its subscription before the will is on its way: {heard:?}"
    );
    assert!(witness.messages().is_empty());
    scene.settle();
    assert_eq!(witness.messages().len(), 1);
    assert_eq!(back.messages(), []);
}

#[test]
fn who_pings_in_time_is_not_silent_though_nobody_reads_it() {
    let limits = Limits {
        output_bytes: 200,
        ..Limits::default()
    };
    let mut scene = Scene::new(limits, WIDE);
    let (sender, _) = scene.open(&passing("sender"), WIDE);
    let connect = |client_id| Connect {
        keep_alive_s: 2,
        ..passing(client_id)
    };
    let (mut pinging, _) = scene.open(&connect("pinging"), 100);
    let (silent, _) = scene.open(&connect("silent"), 100);
    for peer in [&pinging, &silent] {
        peer.subscribe(filter("news", 0));
    }
    for _ in 0..20 {
        sender.say(&publish("news", "more than either of them reads", 0, false));
    }
    for _ in 0..10 {
        pinging.say(&wire::ping());
        scene.server.pass(Duration::from_secs(1));
        assert!(!pinging.link.is_closed());
    }
    pinging.link.widen();
    silent.link.widen();
    scene.work();
    let heard = pinging.hear();
    let pongs = heard.iter().filter(|packet| **packet == Packet::PingResp);
    assert_eq!((pongs.count(), pinging.link.is_closed()), (10, false));
    // All its words are heard now, and there are none.
    assert!(silent.link.is_closed());
    scene.server.pass(Duration::from_secs(4));
    assert!(pinging.link.is_closed());
}
