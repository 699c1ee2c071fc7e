//! Ports, cores and handshakes.
//!
//! One acceptor per port hands sockets round-robin to the cores; a connection stays on its core.
//! Without SO_REUSEPORT on purpose: a second server must see that the port is taken. While as many
//! handshakes are under way as may be, the next stands in line, so that a fleet that comes back all
//! at once gets in one after the other; who does not get on with its handshake makes room
//! (`lobby.rs`). Behind those of one address that have taken a crowd of places nobody waits. Where all
//! connections are taken, one that has no session yet or none any more goes for who comes
//! (`farewells.rs`). What is computed for handshakes is taken in turns with what is connected
//! (`turns.rs`).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ca::{CertificateFacts, CertificateId};
use rustls::ServerConnection;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::clock::Clock;
use super::connection;
use super::hub::Hub;
use super::identity::{self, Identity};
use super::lobby::{Admission, Seat, Voice};
use super::quiet;
use super::refusal::explain;
use super::stats::Counters;
use super::tls::Settings;
use super::turns::InTurn;
use super::websocket;

/// After a failed accept (no file descriptors left, mostly): the backlog waits, nothing spins.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The same where somebody was asked to make room, and is about to.
const ROOM_PAUSE: Duration = Duration::from_millis(1);

/// Plaintext rustls may hold for a peer that does not read, beside our own output buffer.
const TLS_BUFFER_BYTES: usize = 64 * 1024;

/// Which core the acceptors run on.
pub(crate) const ACCEPTING_CORE: usize = 0;

/// What a port speaks inside TLS: an ordered stream of bytes [MQTT-4.2.0-1] [MQTT311-7.1.1-1] and nothing beyond the
/// standards [MQTT311-7.0.0-2].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Mqtt,
    WebSocket,
}

/// A core: its runtime and its counters.
#[derive(Clone)]
pub(crate) struct Core {
    pub(crate) handle: Handle,
    pub(crate) counters: Arc<Counters>,
}

/// Accepts until the task is dropped.
pub(crate) async fn accept(
    listener: TcpListener,
    transport: Transport,
    tls: Settings,
    hub: Arc<Hub>,
    cores: Arc<[Core]>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut turn = 0_usize;
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if hub.denials.take() {
                    tracing::warn!(%error, "a connection could not be accepted");
                }
                let pause = match hub.make_room(None) {
                    true => ROOM_PAUSE,
                    false => ACCEPT_PAUSE,
                };
                tokio::time::sleep(pause).await;
                continue;
            }
        };
        let number = turn % cores.len().max(1);
        let Some(core) = cores.get(number) else {
            return Ok(());
        };
        turn = turn.wrapping_add(1);
        core.counters.accepted.add();
        let Some(entry) = Entry::take(&hub, peer) else {
            core.counters.shed.add();
            continue;
        };
        let counters = Arc::clone(&core.counters);
        let (tls, hub) = (tls.clone(), Arc::clone(&hub));
        if number == ACCEPTING_CORE {
            let shaking = handshake(socket, transport, tls, hub, counters, entry);
            core.handle.spawn(shaking);
            continue;
        }
        // It moves to the reactor of the core that will serve it.
        let Ok(socket) = socket.into_std() else {
            counters.handshakes_failed.add();
            continue;
        };
        core.handle.spawn(async move {
            match TcpStream::from_std(socket) {
                Ok(socket) => handshake(socket, transport, tls, hub, counters, entry).await,
                Err(_) => counters.handshakes_failed.add(),
            }
        });
    }
}

/// A place among the connections and, until the CONNECT is through, among the handshakes.
pub(crate) struct Place {
    connection: Counted,
    handshake: Seat,
}

/// One connection counted, as long as it lives.
struct Counted(Arc<Hub>);

impl Counted {
    /// One from `peer`; where there are as many as may be, one that has no session may have to go for it.
    fn take(hub: &Arc<Hub>, peer: SocketAddr) -> Option<Self> {
        if hub.draining.load(Ordering::Acquire) {
            return None;
        }
        let taken = Self(Arc::clone(hub));
        let before = hub.connections.fetch_add(1, Ordering::AcqRel);
        let all = before.saturating_add(hub.elsewhere.load(Ordering::Acquire));
        let has_room = (before < hub.limits.connections && all < hub.limits.descriptors)
            || hub.make_room(Some(peer));
        has_room.then_some(taken)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Place {
    /// One that is free now.
    #[cfg(feature = "simulate")]
    pub(crate) fn take(hub: &Arc<Hub>, peer: SocketAddr) -> Option<Self> {
        let connection = Counted::take(hub, peer)?;
        let handshake = hub.handshakes.try_seat(peer, Instant::now())?;
        Some(Self {
            connection,
            handshake,
        })
    }
}

/// A connection counted, that stands in line for its place among the handshakes.
struct Entry {
    connection: Counted,
    admission: Admission,
}

impl Entry {
    fn take(hub: &Arc<Hub>, peer: SocketAddr) -> Option<Self> {
        let connection = Counted::take(hub, peer)?;
        let admission = hub.handshakes.admit(peer)?;
        Some(Self {
            connection,
            admission,
        })
    }

    /// Waits until the peer has said something, by `until`, and then for a place that is free, or whose connection does not
    /// get on with its handshake.
    async fn place(self, socket: &TcpStream, until: Instant) -> Option<Place> {
        // What is wrong with the socket shows when it is read.
        let has_spoken = async { drop(socket.readable().await) };
        Some(Place {
            handshake: self.admission.seat(has_spoken, until).await?,
            connection: self.connection,
        })
    }
}

async fn handshake(
    socket: TcpStream,
    transport: Transport,
    tls: Settings,
    hub: Arc<Hub>,
    counters: Arc<Counters>,
    entry: Entry,
) {
    let until = Instant::now() + hub.limits.handshake_time;
    let Some(place) = entry.place(&socket, until).await else {
        return counters.shed.add();
    };
    // In a box of its own: who stands in line is small.
    InTurn::new(shake(socket, transport, tls, hub, counters, place)).await;
}

async fn shake(
    socket: TcpStream,
    transport: Transport,
    tls: Settings,
    hub: Arc<Hub>,
    counters: Arc<Counters>,
    mut place: Place,
) {
    quiet::works(hub.clock.now());
    let deadline = Instant::now() + hub.limits.handshake_time;
    let secured = secure(socket, &tls, &hub, deadline, place.handshake.voice());
    let tls = match place.handshake.while_seated(secured).await {
        Some(Some(tls)) => tls,
        Some(None) => return counters.handshakes_failed.add(),
        None => return counters.shed.add(),
    };
    // The registry is asked at every handshake, resumed or full.
    let identity = match identify(&hub, &tls, transport) {
        Ok(identity) => identity,
        Err(reason) => {
            counters.connects_refused.add();
            if hub.denials.take() {
                tracing::warn!("connection refused: {reason}");
            }
            return;
        }
    };
    let deadline = Instant::now() + hub.limits.handshake_time;
    match transport {
        Transport::Mqtt => serve(tls, hub, counters, identity, deadline, place).await,
        Transport::WebSocket => {
            let bytes = hub.bounds.packet_bytes_max();
            let time = hub.limits.packet_time;
            let upgrade = timeout_at(deadline, websocket::accept(tls, bytes, time));
            match place.handshake.while_seated(Box::pin(upgrade)).await {
                Some(Ok(Ok(socket))) => {
                    serve(socket, hub, counters, identity, deadline, place).await;
                }
                Some(_) => counters.handshakes_failed.add(),
                None => counters.shed.add(),
            }
        }
    }
}

async fn secure(
    socket: TcpStream,
    tls: &Settings,
    hub: &Hub,
    deadline: Instant,
    voice: Voice,
) -> Option<TlsStream<TcpStream>> {
    let peer = socket.peer_addr().ok()?;
    // Before the handshake: its last flight must not wait for a delayed acknowledgement.
    socket.set_nodelay(true).ok()?;
    let accept = async {
        let start = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
        voice.speaks();
        let config = Arc::clone(tls.of(&start.client_hello()));
        let bounded = |tls: &mut ServerConnection| tls.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        start.into_stream_with(config, bounded).await
    };
    match Box::pin(timeout_at(deadline, accept)).await {
        Ok(Ok(tls)) => Some(tls),
        Ok(Err(error)) => {
            match explain(&error) {
                Some(mend) if hub.denials.take() => {
                    tracing::warn!(%peer, "TLS handshake failed ({error}): {mend}");
                }
                _ => tracing::debug!(%peer, %error, "TLS handshake failed"),
            }
            None
        }
        Err(_) => None,
    }
}

/// Who the peer is, if it may be here at all.
fn identify(
    hub: &Hub,
    tls: &TlsStream<TcpStream>,
    transport: Transport,
) -> Result<Identity, String> {
    let (socket, connection) = tls.get_ref();
    let leaf = connection
        .peer_certificates()
        .and_then(|chain| chain.first())
        .ok_or("no client certificate")?;
    let facts = CertificateFacts::read(leaf).map_err(|error| error.to_string())?;
    let common_name = facts.subject_common_names.first();
    let common_name = common_name.map(|name| name.as_str().into());
    let id = CertificateId::of(leaf);
    let mut identity =
        Identity::find(&*hub.registry, &id, common_name).map_err(|error| error.to_string())?;
    identity.source_ip = socket.peer_addr().ok().map(|peer| peer.ip());
    identity.domain_name = connection.server_name().map(Into::into);
    identity.listener = Some(match transport {
        Transport::Mqtt => policy::Listener::Mqtt,
        Transport::WebSocket => policy::Listener::Wss,
    });
    identity.tls_version = connection
        .protocol_version()
        .and_then(|version| match version {
            rustls::ProtocolVersion::TLSv1_2 => Some(policy::TlsVersion::V1_2),
            rustls::ProtocolVersion::TLSv1_3 => Some(policy::TlsVersion::V1_3),
            _ => None,
        });
    let now = identity.standing.now();
    if now.status.is_none()
        && let Some(reserved) = hub.reserved.get()
    {
        reserved.newcomer(leaf);
    }
    identity::check(&now, Clock::wall(hub.clock.now()))
        .map_err(|error| format!("certificate {id}: {error}"))?;
    Ok(identity)
}

/// The session gets a task of its own, so that what the handshake needed is given back.
pub(crate) async fn serve<S>(
    io: S,
    hub: Arc<Hub>,
    counters: Arc<Counters>,
    identity: Identity,
    deadline: Instant,
    mut place: Place,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let opening = connection::connect(io, hub, counters, identity, deadline, &mut place.handshake);
    let Some(connection) = Box::pin(opening).await else {
        return;
    };
    drop(place.handshake);
    let counted = place.connection;
    tokio::spawn(async move {
        connection.run().await;
        drop(counted);
    });
}
