//! Accepts connections, shakes hands, and speaks HTTP/1.1 on them, each within its bounds.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use broker::tls::{Admission, Lobby, Sampler, Seat, explain};
use broker::{Broker, Elsewhere};
use ca::{CertificateId, Profile};
use fleet::{CertificateStatus, Fleet, Standing};
use http::HeaderValue;
use http::header::CONNECTION;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};
use tower::ServiceExt;

use crate::control::ControlDescriptors;
use crate::operators::Operators;
use crate::pace::Paced;
use crate::peer::{Peer, PeerCertificate};
use crate::places::Places;

/// Longest a handshake may take, and the silence before it.
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
    /// Connections of devices with an active certificate open at once; more are dropped unanswered.
    pub(crate) max_connections: usize,
    /// Connections of operators open at once: nothing that devices or strangers do takes these, nor their descriptors.
    pub(crate) max_operators: usize,
    /// Of both, connections under one certificate, four times as many of an operator's; with one more its oldest is closed.
    pub(crate) max_of_one: usize,
    /// Connections of peers without one. Whoever comes beyond them gets the place of the one that has been there longest:
    /// anybody can fill these.
    pub(crate) max_strangers: usize,
    /// Handshakes under way at once.
    pub(crate) max_handshakes: usize,
    /// Of those two, connections at most for each seat: who has it, and who stands in line for one.
    pub(crate) per_seat: usize,
    /// Longest silence on a connection.
    pub(crate) idle: Duration,
}

/// File descriptors of a device's connection: it may have a file open beside it, which it downloads.
pub(crate) const OF_A_DEVICE: usize = 2;
/// [`Bounds::per_seat`] where descriptors are few: better a seat than a long line.
const SHORT_PER_SEAT: usize = 2;

impl Bounds {
    /// File descriptors that connections of strangers take at most: for each seat others may stand in line.
    pub(crate) const fn descriptors(&self) -> usize {
        (self.max_strangers + self.max_handshakes) * self.per_seat
    }

    /// The same with fewer places, where both listeners have not `descriptors` enough for them: so that what anybody opens
    /// here leaves the server what it needs to write what it knows.
    pub(crate) fn within(self, descriptors: &ControlDescriptors) -> Self {
        let of_known = Self {
            max_connections: self.max_connections.min(descriptors.devices / OF_A_DEVICE),
            max_operators: self.max_operators.min(descriptors.operators),
            ..self
        };
        let descriptors = descriptors.strangers;
        if descriptors >= crate::Control::descriptors_wanted().strangers {
            return of_known;
        }
        let part = |bound: usize, eighths: usize| match bound {
            0 => 0,
            _ => bound.min(descriptors * eighths / 8 / SHORT_PER_SEAT).max(1),
        };
        let (strangers, handshakes) = match self.max_handshakes {
            0 => (2, 0),
            _ => (4, 2),
        };
        Self {
            max_strangers: part(self.max_strangers, strangers),
            max_handshakes: part(self.max_handshakes, handshakes),
            per_seat: SHORT_PER_SEAT,
            ..of_known
        }
    }
}

/// One listening socket and what it serves.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    /// `None`: plain HTTP.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) router: Router,
    pub(crate) bounds: Bounds,
    /// Where it is asked who a certificate is; `None` where none is shown.
    pub(crate) registry: Option<Registry>,
    /// Whose connections' file descriptors those of devices are counted with; `None` for no bound.
    pub(crate) broker: Option<Broker>,
}

/// Who certificates are.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) fleet: Fleet,
    pub(crate) operators: Operators,
}

impl Listener {
    /// Serves until `stopping` turns true, then ends each connection after the answer it is at.
    pub(crate) async fn serve(self, mut stopping: watch::Receiver<bool>) {
        let Bounds {
            max_connections,
            max_operators,
            max_of_one,
            ..
        } = self.bounds;
        let devices = Places::new(max_connections, max_of_one);
        // Scripts of one operator open many at once.
        let operators = Places::new(max_operators, max_of_one.saturating_mul(4));
        let lobby = |seats: usize, doing| {
            let in_line = seats * self.bounds.per_seat.saturating_sub(1);
            Lobby::with_room(seats, in_line, doing)
        };
        let handshakes = lobby(self.bounds.max_handshakes, "handshakes of HTTP");
        let strangers = lobby(
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
            let places = match self.tls {
                Some(_) => &handshakes,
                None => &strangers,
            };
            let Some(admission) = places.admit(address) else {
                continue;
            };
            // Answers are small: without this they wait for the client's delayed ACK.
            let _ = stream.set_nodelay(true);
            let connection = Connection {
                address,
                tls: self.tls.clone(),
                router: self.router.clone(),
                idle: self.bounds.idle,
                lines: lines.clone(),
                registry: self.registry.clone(),
                broker: self.broker.clone(),
                devices: devices.clone(),
                operators: operators.clone(),
                strangers: strangers.clone(),
                stopping: stopping.clone(),
            };
            connections.spawn(connection.run(stream, admission));
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
    registry: Option<Registry>,
    broker: Option<Broker>,
    devices: Arc<Places>,
    operators: Arc<Places>,
    strangers: Arc<Lobby>,
    stopping: watch::Receiver<bool>,
}

impl Connection {
    async fn run(self, stream: TcpStream, admission: Admission) {
        let address = self.address;
        let deadline = || Instant::now() + HANDSHAKE_DEADLINE;
        let has_spoken = async { drop(stream.readable().await) };
        let Some(mut seat) = admission.seat(has_spoken, deadline()).await else {
            return;
        };
        let Some(tls) = &self.tls else {
            let peer = Peer::without_tls(address, None);
            return self.speak_as_a_stranger(stream, peer, seat).await;
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
        let peer = Peer::after(stream.get_ref().1, address, certificate);
        let known = peer.certificate.as_ref().map(|certificate| {
            let registry = self.registry.as_ref();
            let known = registry.and_then(|registry| registry.knows(certificate));
            (certificate.id, known)
        });
        if let Some((id, Some(known))) = known {
            let (places, held) = match known {
                // Those of operators are kept back for them.
                Known::Operator(_) => (&self.operators, Some(None)),
                Known::Device(_) => (&self.devices, self.hold(OF_A_DEVICE)),
            };
            let taken = held.and_then(|held| Some((held, places.take(id)?)));
            let Some((_held, (place, gave_way))) = taken else {
                if let Some(left_out) = self.lines.take_counting() {
                    tracing::warn!(peer = %address, certificate = %id, left_out,
                        "a connection was dropped: all places for peers with a certificate are taken");
                }
                return;
            };
            if gave_way && let Some(left_out) = self.lines.take_counting() {
                tracing::warn!(peer = %address, certificate = %id, left_out,
                    "a connection was closed: its certificate has as many as it may");
            }
            place
                .while_held(self.speak(stream, peer, Some(known)))
                .await;
            return;
        }
        let Some(admission) = self.strangers.admit(address) else {
            return;
        };
        let Some(seat) = admission.seat(ready(()), deadline()).await else {
            return;
        };
        self.speak_as_a_stranger(stream, peer, seat).await;
    }

    /// `None` where there are not as many.
    fn hold(&self, descriptors: usize) -> Option<Held> {
        match &self.broker {
            Some(broker) => broker.hold_elsewhere(descriptors).map(Some),
            None => Some(None),
        }
    }

    /// With a seat that others may get, until a request has proven whose the connection is.
    async fn speak_as_a_stranger<S>(self, stream: S, peer: Peer, mut seat: Seat)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (proof, operators) = (peer.proof.clone(), self.operators.clone());
        let mut speaking = std::pin::pin!(self.speak(stream, peer, None));
        let until_proven = async {
            tokio::select! {
                () = speaking.as_mut() => None,
                operator = proof.given() => Some(operator),
            }
        };
        let Some(Some(operator)) = seat.while_seated(until_proven).await else {
            return;
        };
        match operators.take_free(operator) {
            Some(place) => {
                drop(seat);
                place.while_held(speaking).await;
            }
            None => {
                seat.while_seated(speaking).await;
            }
        }
    }

    async fn speak<S>(mut self, stream: S, peer: Peer, known: Option<Known>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (router, asked) = (self.router, known.clone());
        let service = hyper::service::service_fn(move |request: hyper::Request<_>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            let (answering, asked) = (router.clone().oneshot(request), asked.clone());
            async move {
                let mut answered = answering.await;
                if asked.is_some_and(|known| !known.holds())
                    && let Ok(answer) = &mut answered
                {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(CONNECTION, close);
                }
                answered
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(Paced::new(stream, self.idle)), service);
        let mut connection = std::pin::pin!(connection);
        let ending = async {
            tokio::select! {
                () = stopped(&mut self.stopping) => {}
                () = lost(known) => {}
            }
        };
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = ending => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(peer = %self.address, %error, "connection ended");
        }
    }
}

/// File descriptors that are counted while it lives, where they are.
type Held = Option<Elsewhere>;

/// Who has a place of its own.
#[derive(Clone)]
enum Known {
    Operator(Box<(CertificateId, Operators)>),
    Device(Arc<Standing>),
}

impl Registry {
    /// Who a certificate is; `None` for whoever has no more to say here than a stranger.
    fn knows(&self, certificate: &PeerCertificate) -> Option<Known> {
        let known = if certificate.profile == Some(Profile::Operator) {
            Known::Operator(Box::new((certificate.id, self.operators.clone())))
        } else {
            // What cannot be read is not known.
            Known::Device(self.fleet.standing(&certificate.id).ok()?)
        };
        known.holds().then_some(known)
    }
}

impl Known {
    /// Whether it is still so. A certificate that has expired may be renewed under itself.
    fn holds(&self) -> bool {
        match self {
            Self::Operator(known) => known.1.by_certificate(&known.0).is_some(),
            Self::Device(standing) => standing.now().status == Some(CertificateStatus::Active),
        }
    }
}

/// Returns when a device's certificate is no longer active. An operator's is asked for with each request.
async fn lost(known: Option<Known>) {
    let Some(Known::Device(standing)) = known else {
        return std::future::pending().await;
    };
    let bell = Arc::new(Bell(Notify::new()));
    // Before the look: a change in between is heard.
    let _watch = standing.watch(Waker::from(bell.clone()));
    while standing.now().status == Some(CertificateStatus::Active) {
        bell.0.notified().await;
    }
}

struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Returns when the server stops, or whoever could stop it is gone.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Extension;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    /// A plain listener with one seat, and room for one operator. What is asked for below `/proven` is proven.
    async fn listener() -> (
        SocketAddr,
        mpsc::Receiver<()>,
        Arc<Notify>,
        watch::Sender<bool>,
    ) {
        let (asked, hears) = mpsc::channel(8);
        let answer = Arc::new(Notify::new());
        let answered = answer.clone();
        let slow = async move |Extension(peer): Extension<Peer>,
                               request: axum::extract::Request| {
            if request.uri().path() == "/proven" {
                peer.proof.give("a".repeat(64).parse().unwrap());
            }
            asked.send(()).await.unwrap();
            answered.notified().await;
            "done"
        };
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener {
            socket,
            tls: None,
            router: Router::new().fallback(slow),
            bounds: Bounds {
                max_connections: 0,
                max_operators: 1,
                max_of_one: 1,
                max_handshakes: 512,
                per_seat: SHORT_PER_SEAT,
                max_strangers: 1,
                idle: Duration::from_secs(60),
            },
            registry: None,
            broker: None,
        };
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(listener.serve(stopping));
        (address, hears, answer, stop)
    }

    async fn ask(address: SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn answer(mut stream: TcpStream) -> String {
        let mut text = String::new();
        // A reset says as much as an end.
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[test]
    fn bounds_are_smaller_where_descriptors_are_few_and_all_of_them_fit() {
        use crate::control::{HTTP_BOUNDS, HTTPS_BOUNDS};
        let wanted = crate::Control::descriptors_wanted();
        let whole = HTTPS_BOUNDS.within(&wanted);
        assert_eq!(whole.descriptors(), HTTPS_BOUNDS.descriptors());
        let of_known = |bounds: Bounds| (bounds.max_operators, bounds.max_connections);
        assert_eq!(of_known(whole), of_known(HTTPS_BOUNDS));
        for few in [128, 617, 2_000, 10_000, wanted.strangers - 1] {
            let (strangers, operators, devices) = (few, 48, 29);
            let descriptors = ControlDescriptors {
                strangers,
                operators,
                devices,
            };
            let [https, http] =
                [HTTPS_BOUNDS, HTTP_BOUNDS].map(|bounds| bounds.within(&descriptors));
            assert!(https.descriptors() + http.descriptors() <= few, "{few}");
            assert!(https.max_handshakes >= 16);
            assert_eq!(of_known(https), (48, 14));
            assert_eq!(of_known(http), (0, 0));
        }
        // However few: somebody can come.
        let strangers = 1;
        let least = HTTPS_BOUNDS.within(&ControlDescriptors {
            strangers,
            ..wanted
        });
        assert!(least.max_strangers == 1 && least.max_handshakes == 1);
    }

    #[tokio::test]
    async fn who_has_proven_who_it_is_makes_room_for_no_stranger() {
        let (address, mut hears, may_answer, _stop) = listener().await;
        let proven = ask(address, "/proven").await;
        hears.recv().await.unwrap();
        let mut strangers = Vec::new();
        for _ in 0..3 {
            strangers.push(ask(address, "/").await);
            hears.recv().await.unwrap();
        }
        may_answer.notify_waiters();
        let last = strangers.pop().unwrap();
        for pushed_out in strangers {
            assert_eq!(answer(pushed_out).await, "");
        }
        assert!(answer(last).await.ends_with("done"));
        assert!(answer(proven).await.ends_with("done"));
    }

    #[tokio::test]
    async fn beyond_the_places_of_operators_a_proven_one_keeps_its_seat() {
        let (address, mut hears, may_answer, _stop) = listener().await;
        let first = ask(address, "/proven").await;
        hears.recv().await.unwrap();
        let second = ask(address, "/proven").await;
        hears.recv().await.unwrap();
        may_answer.notify_waiters();
        assert!(answer(first).await.ends_with("done"));
        assert!(answer(second).await.ends_with("done"));
    }
}
