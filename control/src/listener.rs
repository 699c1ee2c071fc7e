//! Accepts connections, shakes hands, and speaks HTTP/1.1 on them, each within its bounds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use broker::tls::{Lobby, Sampler, Seat, explain};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};
use tower::ServiceExt;

use crate::pace::Paced;
use crate::peer::{Peer, PeerCertificate};

/// Handshakes under way at once on one listener.
const MAX_HANDSHAKES: usize = 512;
/// Longest a handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Longest the head of a request may take.
const HEAD_DEADLINE: Duration = Duration::from_secs(15);
/// Largest head of a request.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Pause after the system refused a connection (no descriptors left, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The bounds of one listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections of peers with a certificate open at once; more are dropped unanswered.
    pub(crate) max_connections: usize,
    /// Connections of peers without one. Whoever comes beyond them gets the place of the one that has been there longest:
    /// anybody can fill these.
    pub(crate) max_strangers: usize,
    /// Longest silence on a connection.
    pub(crate) idle: Duration,
}

/// One listening socket and what it serves.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    /// `None`: plain HTTP.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) router: Router,
    pub(crate) bounds: Bounds,
}

impl Listener {
    /// Serves until `stopping` turns true, then ends each connection after the answer it is at.
    pub(crate) async fn serve(self, mut stopping: watch::Receiver<bool>) {
        let slots = Arc::new(Semaphore::new(self.bounds.max_connections));
        let handshakes = Lobby::new(MAX_HANDSHAKES, "handshakes of HTTP");
        let strangers = Lobby::new(
            self.bounds.max_strangers,
            "HTTP connections without a certificate",
        );
        let lines = Arc::new(Sampler::new());
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stopped(&mut stopping) => break,
                Some(_) = connections.join_next() => continue,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let seat = match self.tls {
                Some(_) => handshakes.seat(address).await,
                None => strangers.seat(address).await,
            };
            // Answers are small: without this they wait for the client's delayed ACK.
            let _ = stream.set_nodelay(true);
            let connection = Connection {
                address,
                tls: self.tls.clone(),
                router: self.router.clone(),
                idle: self.bounds.idle,
                lines: lines.clone(),
                slots: slots.clone(),
                strangers: strangers.clone(),
                stopping: stopping.clone(),
            };
            connections.spawn(connection.run(stream, seat));
        }
        drop(self.socket);
        while connections.join_next().await.is_some() {}
    }
}

struct Connection {
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    idle: Duration,
    lines: Arc<Sampler>,
    slots: Arc<Semaphore>,
    strangers: Arc<Lobby>,
    stopping: watch::Receiver<bool>,
}

impl Connection {
    async fn run(self, stream: TcpStream, mut seat: Seat) {
        let address = self.address;
        let Some(tls) = &self.tls else {
            let peer = Peer {
                address,
                certificate: None,
            };
            seat.while_seated(self.speak(stream, peer)).await;
            return;
        };
        let voice = seat.voice();
        let accepting = tokio::time::timeout(HANDSHAKE_DEADLINE, async {
            let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            voice.speaks();
            start.into_stream(Arc::clone(tls.config())).await
        });
        let Some(accepted) = seat.while_seated(accepting).await else {
            return;
        };
        drop(seat);
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                match explain(&error) {
                    Some(mend) if self.lines.take() => {
                        tracing::warn!(peer = %address, "TLS handshake failed ({error}): {mend}");
                    }
                    _ => tracing::debug!(peer = %address, %error, "TLS handshake failed"),
                }
                return;
            }
            Err(_) => {
                tracing::debug!(peer = %address, "handshake took too long");
                return;
            }
        };
        let chain = stream.get_ref().1.peer_certificates();
        let certificate = match chain.and_then(<[_]>::first) {
            None => None,
            Some(der) => match PeerCertificate::read(der) {
                Some(certificate) => Some(certificate),
                // It was good enough for the handshake, so this is our fault: refuse.
                None => return,
            },
        };
        let known = certificate.is_some();
        let peer = Peer {
            address,
            certificate,
        };
        if known {
            let Ok(_slot) = self.slots.clone().try_acquire_owned() else {
                tracing::warn!(peer = %address, "a connection was dropped: all places for peers with a certificate are taken");
                return;
            };
            return self.speak(stream, peer).await;
        }
        let mut seat = self.strangers.seat(address).await;
        seat.while_seated(self.speak(stream, peer)).await;
    }

    async fn speak<S>(mut self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router;
        let service = hyper::service::service_fn(move |request: hyper::Request<_>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            router.clone().oneshot(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(Paced::new(stream, self.idle)), service);
        let mut connection = std::pin::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = stopped(&mut self.stopping) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(peer = %self.address, %error, "connection ended");
        }
    }
}

/// Returns when the server stops, or whoever could stop it is gone.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}
