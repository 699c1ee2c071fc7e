//! A broker on one thread, with clients at the other ends of pipes.

use std::sync::Arc;

use broker::Limits;
use broker::session::Time;
use broker::simulate::{Broker, Parts};
use ca::CertificateId;
use store::journal::Options;
use store::journal::simulated::{self, MemoryDisk};
use tokio::runtime::{Builder, Runtime};

use super::pipe::{Link, Registry, packet, properties, text, turns_until};

/// The one thread of a broker with its clients.
pub struct World {
    pub runtime: Runtime,
    broker: Broker,
    certificate: CertificateId,
    pub version: u8,
}

impl World {
    pub fn new(version: u8) -> Self {
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
    pub fn connect(&self, client_id: &str) -> Link {
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

    pub fn subscribe(&self, link: &Link, filter: &str) {
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
}

/// Forgets what the broker wrote if it is so much.
pub fn took(link: &Link, bytes: usize) -> bool {
    let mut pipe = link.0.lock();
    let all = pipe.down.len() >= bytes;
    if all {
        assert_eq!(pipe.down.len(), bytes);
        pipe.down.clear();
    }
    all
}
