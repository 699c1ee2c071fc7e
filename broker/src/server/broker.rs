//! The broker as the rest of the program sees it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleet::{Fleet, Sampler};
use parking_lot::Mutex;
use rustls::ServerConfig;
use store::{Behind, Journal, Lsn, Replay, StoreError};
use tokio::sync::oneshot;

use super::bounds::Bounds;
use super::clock::Clock;
use super::durable::Durable;
use super::endings::Endings;
use super::exits;
use super::farewells::Farewells;
use super::groups::Groups;
use super::hub::Hub;
use super::janitor::{self, Deadlines};
use super::limits::Limits;
use super::listener::{self, Core, Transport};
use super::lobby::Lobby;
use super::mailbox::{Mailbox, Signal};
use super::message::{Message, Origin};
use super::pace;
use super::passing::Passing;
use super::quiet;
use super::recovery::{self, RecoveryError};
use super::registry::Registry;
use super::remains::Remains;
use super::reserved::ReservedTopics;
use super::retained::{Claim, RetainError, Retained, Volume};
use super::router::{Routing, Search, Unfinished};
use super::sessions::{SessionKey, Sessions};
use super::stats::{Counters, FullQueue, Stats};
use super::tls::Settings;
use super::tree::TopicTree;
use super::work::Work;
use super::{turns, unconnected};
use crate::codec::Qos;
use crate::session::Publication;
use crate::topic::TopicName;

/// How long to wait between two looks at whether all connections have gone.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// What a broker is made of.
pub struct BrokerParts {
    /// Who a certificate is, and what it may do.
    pub fleet: Fleet,
    /// The journal `broker` of the store.
    pub journal: Journal,
    /// What was alive in it.
    pub replay: Replay,
    /// The bounds to keep.
    pub limits: Limits,
    /// AWS IoT's deviations from the standard: see [`crate::session::Settings::aws`]; also, `a/#` does not match `a`,
    /// and a subscription with a wildcard gets no retained messages.
    pub aws: bool,
    /// What becomes of a session whose policy no longer grants a subscription.
    pub lost_subscription: LostSubscription,
}

/// What becomes of a live session when a changed policy no longer grants one of its subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LostSubscription {
    /// The subscription is taken away, and the session goes on.
    #[default]
    Remove,
    /// So it is, and the connection ends with reason code 0x87.
    Disconnect,
}

/// Open sockets and the TLS settings of each. The sockets must be listening.
pub struct Listeners {
    /// MQTT over TLS.
    pub mqtt: TcpListener,
    /// For it, from [`crate::tls::server_config`] with [`crate::tls::Protocol::Mqtt`].
    pub mqtt_tls: Arc<ServerConfig>,
    /// MQTT in WebSocket over TLS.
    pub wss: TcpListener,
    /// For it, with [`crate::tls::Protocol::Http`].
    pub wss_tls: Arc<ServerConfig>,
}

/// A message of a service inside the server.
#[derive(Debug, Clone, PartialEq)]
pub struct ApplicationMessage {
    /// The topic; services may publish to `$aws/…`.
    pub topic: TopicName,
    /// The payload.
    pub payload: Bytes,
    /// The QoS.
    pub qos: Qos,
    /// Whether it is kept for later subscribers.
    pub retain: bool,
}

/// Why the broker cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// What an earlier run left behind cannot be read.
    #[error("the broker cannot take up its sessions: {0}")]
    Recovery(#[from] RecoveryError),
    /// The operating system refused a thread, a runtime or a socket.
    #[error("the broker cannot start: {0}")]
    Start(#[source] io::Error),
    /// [`Broker::serve`] was called twice.
    #[error("the broker serves already")]
    Serving,
    /// The journal takes no more, for good.
    #[error("the message cannot be kept: {0}")]
    NotKept(String),
    /// The journal cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The MQTT broker. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    pub(super) hub: Arc<Hub>,
    serving: Arc<Mutex<Option<Serving>>>,
}

/// Threads with their runtimes, each stopped by dropping its sender.
struct Serving {
    cores: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// File descriptors held elsewhere, given back when dropped.
pub struct Elsewhere {
    hub: Arc<Hub>,
    count: usize,
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.hub.elsewhere.fetch_sub(self.count, Ordering::AcqRel);
    }
}

impl Broker {
    /// Takes up sessions, queues and retained messages where the last run left them.
    ///
    /// # Errors
    /// [`BrokerError::Recovery`]: a record that cannot be read stops the start; nothing is lost.
    pub fn new(parts: BrokerParts) -> Result<Self, BrokerError> {
        let BrokerParts {
            fleet,
            journal,
            replay,
            limits,
            aws,
            lost_subscription,
        } = parts;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let parts = HubParts {
            registry: Arc::new(fleet),
            journal,
            replay,
            limits,
            aws,
            lost_subscription,
            clock: Clock::start(),
            cores,
        };
        Ok(Self {
            hub: Arc::new(open(parts)?),
            serving: Arc::default(),
        })
    }

    /// Starts one single-threaded runtime per core and accepts connections. Returns at once.
    ///
    /// # Errors
    /// [`BrokerError::Start`], [`BrokerError::Serving`].
    pub fn serve(
        &self,
        listeners: Listeners,
        reserved: Arc<dyn ReservedTopics>,
    ) -> Result<(), BrokerError> {
        let mut serving = self.serving.lock();
        if serving.is_some() || self.hub.reserved.set(reserved).is_err() {
            return Err(BrokerError::Serving);
        }
        let mut cores = Vec::new();
        let mut threads = Vec::new();
        // The last block of counters belongs to no core.
        let blocks = self.hub.counters.len().saturating_sub(1);
        for (number, counters) in self.hub.counters.iter().take(blocks).enumerate() {
            let (core, stop, thread) =
                start_core(number, Arc::clone(counters)).map_err(BrokerError::Start)?;
            core.handle.spawn(pace::moderate(Arc::clone(&self.hub)));
            core.handle.spawn(exits::attend());
            core.handle.spawn(turns::give());
            cores.push(core);
            threads.push((stop, thread));
        }
        let cores: Arc<[Core]> = cores.into();
        let ports = [
            (listeners.mqtt, listeners.mqtt_tls, Transport::Mqtt),
            (listeners.wss, listeners.wss_tls, Transport::WebSocket),
        ];
        if let Some(first) = cores.get(listener::ACCEPTING_CORE) {
            first.handle.spawn(janitor::run(Arc::clone(&self.hub)));
            for (listener, tls, transport) in ports {
                let address = listener.local_addr();
                let accepting = listener::accept(
                    listener,
                    transport,
                    Settings::new(&tls),
                    Arc::clone(&self.hub),
                    Arc::clone(&cores),
                );
                first.handle.spawn(report(accepting, address));
            }
        }
        *serving = Some(Serving { cores: threads });
        Ok(())
    }

    /// Whether any session has a subscription that matches a topic: what is not retained and nobody hears need not be
    /// written.
    #[must_use]
    pub fn is_heard(&self, topic: &str) -> bool {
        let mut heard = false;
        self.hub.tree.matches(topic, &mut |_| heard = true);
        heard
    }

    /// The sessions whose queues have dropped most because they were full, at most `most` of them, the worst first.
    #[must_use]
    pub fn full_queues(&self, most: usize) -> Vec<FullQueue> {
        let full = |(key, mailbox): (SessionKey, Arc<Mailbox>)| FullQueue {
            owner: key.owner.to_string(),
            client_id: key.client_id.as_str().to_owned(),
            dropped: mailbox.dropped(),
            waiting: mailbox.waiting(),
        };
        self.hub
            .sessions
            .droppers(most)
            .into_iter()
            .map(full)
            .collect()
    }

    /// Publishes a message of a service to the sessions that subscribed to its topic. It is in
    /// their mailboxes when this returns; it waits where the journal is behind, so it must not be
    /// called on a thread that serves connections. While the disk is nearly full it waits for nothing: who is connected
    /// gets the message, and it is not kept for who is not.
    ///
    /// # Errors
    /// [`BrokerError::NotKept`] for a retained message beyond the bounds, [`BrokerError::Store`]
    /// when the journal cannot be written.
    pub fn publish(&self, message: ApplicationMessage) -> Result<(), BrokerError> {
        let ApplicationMessage {
            topic,
            payload,
            qos,
            retain,
        } = message;
        let publication = Publication::new(topic, payload);
        let message = Message::new(publication, qos, retain, Origin::Service);
        let hub = &*self.hub;
        if retain {
            loop {
                match hub.retain(&message, Claim::Service) {
                    Ok(_) => break,
                    Err(RetainError::Full(full)) => {
                        return Err(BrokerError::NotKept(full.to_string()));
                    }
                    Err(RetainError::Behind(_)) if hub.durable.journal().is_nearly_full() => {
                        return Err(BrokerError::NotKept("the disk is nearly full".to_owned()));
                    }
                    Err(RetainError::Behind(_)) => self.wait_for_commit()?,
                }
            }
        }
        // In portions too: the tree is locked meanwhile.
        let mut search = Search::new(None);
        while !search.go_on(&hub.tree, message.topic(), &mut hub.share()) {}
        let (_, receivers) = search.finish();
        let mut routing = Routing::new(message, receivers);
        loop {
            match routing.run(hub, hub.own_counters(), &mut Work::unbounded()) {
                Ok(_) => return Ok(()),
                Err(Unfinished::Behind(Behind::TooLarge { .. })) => {
                    return Err(BrokerError::NotKept("it is too large".to_owned()));
                }
                // That may last, and whoever publishes here has more to do.
                Err(Unfinished::Behind(Behind::Full { .. }))
                    if hub.durable.journal().is_nearly_full() =>
                {
                    routing.keep_no_more(&hub.durable);
                }
                Err(Unfinished::Behind(Behind::Full { .. })) => self.wait_for_commit()?,
                Err(Unfinished::Share) => {}
            }
        }
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::sum(self.hub.counters.iter().map(|counters| &**counters))
    }

    /// Connections open now, handshakes included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.hub.connections.load(Ordering::Acquire)
    }

    /// Holds file descriptors for a connection of another listener, whose peer is known, from what connections may have
    /// together ([`Limits::descriptors`]); `None` where there are not as many.
    #[must_use]
    pub fn hold_elsewhere(&self, count: usize) -> Option<Elsewhere> {
        let hub = Arc::clone(&self.hub);
        let before = hub.elsewhere.fetch_add(count, Ordering::AcqRel);
        let held = Elsewhere { hub, count };
        let all = before + count + self.connections();
        (all <= self.hub.limits.descriptors).then_some(held)
    }

    /// Shuts down: no new connections; every session is told (MQTT 5: 0x8B) and parked or ended;
    /// what was written is made durable. Blocks until all have gone, at most `within`; returns
    /// whether all had.
    ///
    /// Wills (MQTT 5 §3.1.2.5 lets a server defer them over a shutdown): of sessions that outlive
    /// their connection they are published after the next start unless the client is back by then;
    /// of the others, now.
    ///
    /// # Errors
    /// [`BrokerError::Store`] when the journal cannot be written.
    pub fn drain(&self, within: Duration) -> Result<bool, BrokerError> {
        let deadline = Instant::now() + within;
        self.hub.draining.store(true, Ordering::Release);
        let gone = loop {
            // Again and again: a connection may have been on its way in when the flag went up.
            self.hub.sessions.signal_all(Signal::DRAIN);
            // A handshake has nothing to lose.
            if self.connections() <= self.hub.shaking() {
                break true;
            }
            if Instant::now() >= deadline {
                break false;
            }
            std::thread::sleep(DRAIN_LOOK);
        };
        let cleared = || self.hub.passing.is_empty() && self.hub.remains.is_empty();
        while !cleared() && Instant::now() < deadline {
            std::thread::sleep(DRAIN_LOOK);
        }
        // Those that wait for room on a disk that is nearly full may do so for hours.
        while self.hub.wills.count() > 0
            && !self.hub.durable.journal().is_nearly_full()
            && Instant::now() < deadline
        {
            std::thread::sleep(DRAIN_LOOK);
        }
        if let Some(serving) = self.serving.lock().take() {
            for (stop, thread) in serving.cores {
                drop(stop);
                // A core that panicked has logged it; the others are still to be stopped.
                let _ = thread.join();
            }
        }
        self.hub.durable.sync()?;
        self.hub.durable.journal().close();
        Ok(gone)
    }

    fn wait_for_commit(&self) -> Result<(), BrokerError> {
        let journal = self.hub.durable.journal();
        let next = Lsn(journal.durable().0.saturating_add(1));
        Ok(journal.wait_durable(next)?)
    }
}

/// What a hub is made of.
pub(crate) struct HubParts {
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) journal: Journal,
    pub(crate) replay: Replay,
    pub(crate) limits: Limits,
    pub(crate) aws: bool,
    pub(crate) lost_subscription: LostSubscription,
    pub(crate) clock: Clock,
    pub(crate) cores: usize,
}

/// A hub with what an earlier run left behind.
pub(crate) fn open(parts: HubParts) -> Result<Hub, RecoveryError> {
    let HubParts {
        registry,
        journal,
        replay,
        limits,
        aws,
        lost_subscription,
        clock,
        cores,
    } = parts;
    let handshakes = Lobby::with_room(
        limits.handshakes_in_flight,
        limits.connections,
        "handshakes",
    );
    let hub = Hub {
        registry,
        durable: Arc::new(Durable::new(journal)),
        tree: TopicTree::with_parents(!aws),
        groups: Groups::default(),
        passing: Passing::default(),
        remains: Remains::default(),
        retained: Retained::new(Volume {
            messages: limits.retained_messages,
            bytes: limits.retained_bytes,
        }),
        sessions: Sessions::new(),
        endings: Endings::default(),
        deadlines: Deadlines::new(),
        wills: Arc::default(),
        posts: unconnected::places(),
        bounds: Bounds::new(&limits, aws),
        aws,
        lost_subscription,
        limits,
        clock,
        denials: Sampler::new(),
        end_lines: Sampler::new(),
        not_retained: Sampler::new(),
        counters: (0..=cores).map(|_| Arc::default()).collect(),
        next_session: AtomicU64::new(1),
        next_request: AtomicU64::new(1),
        newest_version: AtomicU64::new(0),
        reserved: OnceLock::new(),
        draining: AtomicBool::new(false),
        handshakes,
        farewells: Farewells::default(),
        connections: AtomicUsize::new(0),
        elsewhere: AtomicUsize::new(0),
    };
    recovery::recover(&hub, replay)?;
    Ok(hub)
}

async fn report(accepting: impl Future<Output = io::Result<()>>, address: io::Result<SocketAddr>) {
    if let Err(error) = accepting.await {
        tracing::error!(?address, %error, "a port stopped accepting");
    }
}

fn start_core(
    number: usize,
    counters: Arc<Counters>,
) -> io::Result<(Core, oneshot::Sender<()>, JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .on_thread_park(|| {
            pace::park();
            quiet::park();
        })
        .on_thread_unpark(|| {
            quiet::unpark();
            pace::unpark();
        })
        .build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new()
        .name(format!("broker-{number}"))
        .spawn(move || {
            // Ends when the sender is dropped.
            let _ = runtime.block_on(stopped);
        })?;
    Ok((Core { handle, counters }, stop, thread))
}
