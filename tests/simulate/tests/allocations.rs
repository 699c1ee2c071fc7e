//! What a QoS 0 message allocates in steady state on its whole way: read, decoded, authorised, matched, put into
//! mailboxes, authorised for each receiver, encoded, written. The broker is the real one from a connection's first
//! packet on; only TLS and the socket are left out, and the streams that stand for them allocate nothing once warm.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, UNIX_EPOCH};

use broker::Limits;
use broker::session::Time;
use broker::simulate::{Broker, Parts};
use ca::CertificateId;
use fleet::simulated::Standings;
use fleet::{CertificateStatus, FleetError, Standing, StandingNow};
use parking_lot::Mutex;
use policy::{NamedPolicy, Policy, Realm};
use store::journal::Options;
use store::journal::simulated::{self, MemoryDisk};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

const ACCOUNT: &str = "000000000000";
const EVERYTHING: &str =
    r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","Resource":"*"}}"#;
const TOPIC: &str = "dt/lamp-1/temperature";
const PAYLOAD_BYTES: usize = 128;
/// Messages before the count begins, and in it.
const WARM_UP: usize = 2_000;
const COUNTED: usize = 2_000;
/// Turns of the runtime after which something must have come.
const TURNS_MAX: usize = 1_000;

struct Registry {
    standings: Standings,
    realm: Arc<Realm>,
}

impl broker::Registry for Registry {
    fn standing(&self, id: &CertificateId) -> Result<Arc<Standing>, FleetError> {
        Ok(self.standings.get(id))
    }

    fn realm(&self) -> &Arc<Realm> {
        &self.realm
    }
}

#[derive(Default)]
struct Pipe {
    up: Vec<u8>,
    taken: usize,
    down: Vec<u8>,
    reader: Option<Waker>,
}

/// The client's end, and the broker's.
#[derive(Clone, Default)]
struct Link(Arc<Mutex<Pipe>>);

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pipe = self.0.lock();
        let count = into.remaining().min(pipe.up.len() - pipe.taken);
        if count == 0 {
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        into.put_slice(&pipe.up[pipe.taken..pipe.taken + count]);
        pipe.taken += count;
        if pipe.taken == pipe.up.len() {
            pipe.up.clear();
            pipe.taken = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().down.extend_from_slice(from);
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Link {
    fn say(&self, bytes: &[u8]) {
        let mut pipe = self.0.lock();
        pipe.up.extend_from_slice(bytes);
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
    }

    /// Forgets what the broker wrote if it is so much.
    fn took(&self, bytes: usize) -> bool {
        let mut pipe = self.0.lock();
        let all = pipe.down.len() >= bytes;
        if all {
            assert_eq!(pipe.down.len(), bytes);
            pipe.down.clear();
        }
        all
    }
}

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
        let registry = Registry {
            standings: Standings::default(),
            realm: Arc::new(Realm::live(ACCOUNT)),
        };
        registry.standings.set(
            &certificate,
            StandingNow {
                status: Some(CertificateStatus::Active),
                thing: Some("lamp-1".parse().unwrap()),
                policies: Arc::from([NamedPolicy {
                    name: "everything".parse().unwrap(),
                    policy: Arc::new(Policy::parse(EVERYTHING).unwrap()),
                }]),
                not_before: UNIX_EPOCH,
                not_after: UNIX_EPOCH + Duration::from_secs(4_000_000_000),
                ..Standings::unknown()
            },
        );
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
                registry: Arc::new(registry),
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
                    && first.took(publish.len())
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

/// Lets the broker's tasks have their turns until it is done.
async fn turns_until(mut done: impl FnMut() -> bool) {
    for _ in 0..TURNS_MAX {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("what was waited for did not come");
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// No properties.
fn properties(version: u8) -> &'static [u8] {
    if version == 5 { &[0] } else { &[] }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let more = if length > 127 { 0x80 } else { 0 };
        bytes.push((length % 128) as u8 | more);
        length /= 128;
        if length == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
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
