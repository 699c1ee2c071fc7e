//! Policies that change while what they allowed waits for the disk: the broker is the real one from a connection's first
//! packet on, and the test says when the disk commits.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod pipe;

use std::sync::Arc;

use broker::Limits;
use broker::session::Time;
use broker::simulate::{Broker, Parts};
use ca::CertificateId;
use store::journal::Options;
use store::journal::simulated::{self, Committer, MemoryDisk};
use tokio::runtime::{Builder, Runtime};

use pipe::{Link, Registry, packet, properties, text, turns_until};

/// More bytes do not wait for the disk at once.
const BACKLOG_BYTES: usize = 4096;
const NOT_AUTHORIZED: u8 = 0x87;

struct World {
    runtime: Runtime,
    broker: Broker,
    committer: Committer,
    registry: Arc<Registry>,
    certificate: CertificateId,
}

impl World {
    fn new() -> Self {
        let certificate = CertificateId::of(b"a certificate");
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let options = Options {
            backlog_bytes_max: BACKLOG_BYTES,
            ..Options::default()
        };
        let (journal, replay, committer) =
            simulated::open(&MemoryDisk::default(), options).unwrap();
        let registry = Arc::new(Registry::with(&certificate));
        let broker = {
            let _entered = runtime.enter();
            Broker::open(Parts {
                registry: Arc::clone(&registry) as Arc<dyn broker::Registry>,
                journal,
                replay,
                limits: Limits::default(),
                now: Time::from_millis(1_767_225_600_000),
            })
            .unwrap()
        };
        Self {
            runtime,
            broker,
            committer,
            registry,
            certificate,
        }
    }

    /// From now on these actions are denied.
    fn deny(&self, actions: &str) {
        let document = format!(
            r#"{{"Version":"2012-10-17","Statement":[
                {{"Effect":"Allow","Action":"iot:*","Resource":"*"}},
                {{"Effect":"Deny","Action":[{actions}],"Resource":"*"}}]}}"#
        );
        self.registry.may(&self.certificate, &document);
    }

    /// A MQTT 5 client whose session lasts, after its CONNACK.
    fn connect(&mut self, client_id: &str) -> Link {
        let link = Link::default();
        {
            let _entered = self.runtime.enter();
            assert!(self.broker.accept(link.clone(), &self.certificate));
        }
        let mut body = text("MQTT");
        body.extend([5, 2, 0, 0, 5, 0x11, 0, 0, 0, 200]);
        body.extend(text(client_id));
        link.say(&packet(0x10, &body));
        let told = self.settled(&link);
        assert_eq!((told[0], told[3]), (0x20, 0));
        link
    }

    /// Lets everybody have their turns, and says what came.
    fn now(&self, link: &Link) -> Vec<u8> {
        self.runtime.block_on(async {
            let mut turns = 0;
            turns_until(|| {
                turns += 1;
                turns > 1000
            })
            .await;
        });
        std::mem::take(&mut link.0.lock().down)
    }

    /// The same, with whatever waits on the disk.
    fn settled(&mut self, link: &Link) -> Vec<u8> {
        let mut came = Vec::new();
        for _ in 0..10 {
            came.extend(self.now(link));
            self.committer.commit();
        }
        came.extend(self.now(link));
        came
    }
}

fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend(properties(5));
    body.extend(text(filter));
    body.push(1);
    packet(0x82, &body)
}

/// Under the packet identifier 7. `first` has QoS and RETAIN.
fn publish(topic: &str, payload: &[u8], first: u8) -> Vec<u8> {
    let mut body = text(topic);
    body.extend([0, 7]);
    body.extend(properties(5));
    body.extend(payload);
    packet(0x30 | first, &body)
}

fn holds(bytes: &[u8], payload: &[u8]) -> bool {
    bytes.windows(payload.len()).any(|part| part == payload)
}

#[test]
fn a_subscribe_that_waits_for_the_disk_is_refused_once_the_policy_does_not_allow_it() {
    let mut world = World::new();
    let (receiver, sender) = (world.connect("receiver"), world.connect("sender"));
    receiver.say(&subscribe("t/1"));
    assert!(world.now(&receiver).is_empty(), "it waits for the disk");
    world.deny(r#""iot:Subscribe""#);
    let suback = world.settled(&receiver);
    assert_eq!((suback[0], suback.last()), (0x90, Some(&NOT_AUTHORIZED)));
    sender.say(&publish("t/1", b"secret", 2));
    // No matching subscribers.
    assert_eq!(world.settled(&sender)[..5], [0x40, 3, 0, 7, 0x10]);
    assert!(world.settled(&receiver).is_empty());
}

#[test]
fn a_publish_that_waits_for_the_disk_goes_nowhere_once_the_policy_does_not_allow_it() {
    for (denied, retain) in [
        (r#""iot:Publish""#, 0),
        (r#""iot:Publish""#, 1),
        (r#""iot:RetainPublish""#, 1),
    ] {
        let mut world = World::new();
        let [receiver, sender, filler] =
            ["receiver", "sender", "filler"].map(|id| world.connect(id));
        receiver.say(&subscribe("t/+"));
        assert_eq!(world.settled(&receiver)[0], 0x90);
        // So much that nothing else is taken until it is on the disk.
        filler.say(&publish("t/0", &[b'x'; BACKLOG_BYTES], 2));
        assert!(world.now(&filler).is_empty(), "it waits for the disk");
        sender.say(&publish("t/1", b"secret", 2 | retain));
        assert!(world.now(&sender).is_empty(), "it waits for the other");
        assert_eq!(world.broker.stats().publishers_held, 1);
        world.deny(denied);
        let puback = world.settled(&sender);
        assert_eq!(
            (puback[0], &puback[2..5]),
            (0x40, &[0, 7, NOT_AUTHORIZED][..])
        );
        let heard = world.settled(&receiver);
        assert!(!holds(&heard, b"secret"), "{denied}");
        receiver.say(&subscribe("t/1"));
        let heard = world.settled(&receiver);
        assert!(
            heard[0] == 0x90 && !holds(&heard, b"secret"),
            "{denied}: it is not retained"
        );
    }
}

#[test]
fn a_pubcomp_of_what_is_refused_at_pubrel_waits_until_that_is_kept_no_more() {
    let mut world = World::new();
    let sender = world.connect("sender");
    sender.say(&publish("t/1", b"old", 4));
    // No matching subscribers.
    assert_eq!(world.settled(&sender)[..5], [0x50, 3, 0, 7, 0x10]);
    world.deny(r#""iot:Publish""#);
    sender.say(&packet(0x62, &[0, 7]));
    assert!(
        world.now(&sender).is_empty(),
        "a crash now would bring it back"
    );
    assert_eq!(world.settled(&sender)[..4], [0x70, 2, 0, 7]);
}
