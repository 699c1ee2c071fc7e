//! What a QoS 0 message allocates in steady state on its whole way: read, decoded, authorised, matched, put into
//! mailboxes, authorised for each receiver, encoded, written. The broker is the real one from a connection's first
//! packet on; only TLS and the socket are left out, and the streams that stand for them allocate nothing once warm.

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
use store::journal::simulated::{self, MemoryDisk};
use tokio::runtime::{Builder, Runtime};

use pipe::{Link, Registry, packet, properties, text, turns_until};

const TOPIC: &str = "dt/lamp-1/temperature";
const PAYLOAD_BYTES: usize = 128;
/// Messages before the count begins, and in it.
const WARM_UP: usize = 2_000;
const COUNTED: usize = 2_000;

/// The one thread of a broker with its clients.
struct World {
    runtime: Runtime,
    broker: Broker,
    certificate: CertificateId,
    version: u8,
}

impl World {
    fn new(version: u8) -> Self {
        let certificate = CertificateId::of(b"a certificate");
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (journal, replay, _) =
            simulated::open(&MemoryDisk::default(), Options::default()).unwrap();
        let broker = {
            let _entered = runtime.enter();
            Broker::open(Parts {
                registry: Arc::new(Registry::with(&certificate)),
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
            certificate,
            version,
        }
    }

    /// A client after its CONNACK.
    fn connect(&self, client_id: &str) -> Link {
        let link = Link::default();
        {
            let _entered = self.runtime.enter();
            assert!(self.broker.accept(link.clone(), &self.certificate));
        }
        let mut body = text("MQTT");
        body.extend([self.version, 2, 0, 0]);
        body.extend(properties(self.version));
        body.extend(text(client_id));
        self.ask(&link, &packet(0x10, &body), 0x20);
        link
    }

    fn subscribe(&self, link: &Link, filter: &str) {
        let mut body = vec![0, 1];
        body.extend(properties(self.version));
        body.extend(text(filter));
        body.push(0);
        self.ask(link, &packet(0x82, &body), 0x90);
    }

    fn ask(&self, link: &Link, packet: &[u8], answer: u8) {
        link.say(packet);
        self.runtime
            .block_on(turns_until(|| !link.0.lock().down.is_empty()));
        let mut pipe = link.0.lock();
        assert_eq!(pipe.down[0], answer);
        pipe.down.clear();
    }

    /// Sends so many messages, `batch` in one read, and sees each come to every receiver.
    async fn relay(&self, publisher: &Link, receivers: &[Link], messages: usize, batch: usize) {
        let mut body = text(TOPIC);
        body.extend(properties(self.version));
        body.extend([0x55; PAYLOAD_BYTES]);
        let publish = packet(0x30, &body).repeat(batch);
        for _ in 0..messages / batch {
            publisher.say(&publish);
            let mut left = receivers;
            turns_until(|| {
                while let Some((first, rest)) = left.split_first()
                    && took(first, publish.len())
                {
                    left = rest;
                }
                left.is_empty()
            })
            .await;
        }
    }

    /// Allocations of one message.
    fn allocations(&self, receivers: usize, batch: usize) -> f64 {
        let publisher = self.connect("publisher");
        let receivers: Vec<Link> = (0..receivers)
            .map(|number| {
                let receiver = self.connect(&format!("receiver-{number}"));
                self.subscribe(&receiver, TOPIC);
                receiver
            })
            .collect();
        let count = |messages| {
            let relay = self.relay(&publisher, &receivers, messages, batch);
            allocation_counter::measure(|| self.runtime.block_on(relay)).count_total
        };
        count(WARM_UP);
        // What entering the runtime allocates is in both.
        (count(2 * COUNTED) - count(COUNTED)) as f64 / COUNTED as f64
    }
}

/// Forgets what the broker wrote if it is so much.
fn took(link: &Link, bytes: usize) -> bool {
    let mut pipe = link.0.lock();
    let all = pipe.down.len() >= bytes;
    if all {
        assert_eq!(pipe.down.len(), bytes);
        pipe.down.clear();
    }
    all
}

/// What all receivers of a message share, its payload in it.
const SHARED: f64 = 1.0;
/// A receiver that finds many messages in its mailbox makes room for them anew each time, at once.
const ROOM_FOR_TWENTY: f64 = 1.0;

#[test]
fn a_message_allocates_what_its_receivers_share_and_nothing_else() {
    for version in [4, 5] {
        for (receivers, batch, room) in [
            (1, 1, 0.0),
            (8, 1, 0.0),
            (1, 20, ROOM_FOR_TWENTY),
            (8, 20, ROOM_FOR_TWENTY),
        ] {
            let allocations = World::new(version).allocations(receivers, batch);
            let bound = SHARED + receivers as f64 * room / batch as f64;
            assert!(
                (SHARED..=bound).contains(&allocations),
                "version {version}, {receivers} receivers, {batch} in a read: {allocations}, the bound is {bound}"
            );
        }
    }
}
