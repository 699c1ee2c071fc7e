//! The room as it runs: two listeners on one thread of their own.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use broker::Broker;
use broker::tls::{LOBBY_PER_SEAT, Sampler};
use ca::Authority;
use fleet::provisioning::RegistrationDesk;
use fleet::{AttestationTerms, Fleet, RevocationFaces};
use ota::server::Ota;
use rustls::ServerConfig;
use shadow::Shadows;
use tokio::runtime;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_rustls::TlsAcceptor;

use crate::listener::{Bounds, Listener, OF_A_DEVICE, Registry};
use crate::rooms::Rooms;
use crate::{ControlError, Endpoints, Operators, dispatch, est, firmware, plain, upload};

/// Connections of the HTTPS listener: operators, and devices that fetch firmware.
pub(crate) const HTTPS_BOUNDS: Bounds = Bounds {
    max_connections: 8192,
    max_operators: 256,
    max_of_one: 32,
    max_strangers: 2048,
    max_handshakes: 512,
    per_seat: LOBBY_PER_SEAT,
    idle: Duration::from_secs(60),
};
/// Connections of the plain listener, which answers at once or not at all.
pub(crate) const HTTP_BOUNDS: Bounds = Bounds {
    max_connections: 0,
    max_operators: 0,
    max_of_one: 0,
    max_strangers: 1024,
    max_handshakes: 0,
    per_seat: LOBBY_PER_SEAT,
    idle: Duration::from_secs(10),
};
/// Threads for what blocks: the registry, the disk, the signing of lists.
const MAX_BLOCKING_THREADS: usize = 32;

/// What the HTTPS face is made of.
pub struct ControlParts {
    /// The registry.
    pub fleet: Fleet,
    /// Where files of devices become things.
    pub registration: RegistrationDesk,
    /// Firmware, jobs and rollouts.
    pub ota: Ota,
    /// Device shadows.
    pub shadows: Shadows,
    /// Asked for its counters.
    pub broker: Broker,
    /// Revocation lists and OCSP.
    pub revocation: RevocationFaces,
    /// The certificate authority.
    pub authority: Arc<Authority>,
    /// Who may use the API.
    pub operators: Operators,
    /// How long after its end a device's certificate may still be renewed under itself.
    pub expired_grace: Duration,
    /// How long an attestation of a device counts.
    pub attestation: AttestationTerms,
    /// What clients are told of where to go.
    pub endpoints: Endpoints,
    /// The account of every ARN: twelve digits.
    pub account: String,
    /// The region of ARNs in answers to requests that name none.
    pub region: String,
    /// Where HTTPS is accepted; bound already.
    pub https: TcpListener,
    /// Where plain HTTP is accepted; bound already.
    pub http: TcpListener,
    /// TLS of the HTTPS listener; a client certificate is asked for, not required.
    pub tls: Arc<ServerConfig>,
    /// What connections may hold at once. With fewer than [`Control::descriptors_wanted`] there are fewer places.
    pub descriptors: ControlDescriptors,
}

/// File descriptors that connections of both listeners hold at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlDescriptors {
    /// Strangers, with those that stand in line.
    pub strangers: usize,
    /// Operators: nobody else takes theirs.
    pub operators: usize,
    /// Devices, with the files that they download: of those that they share with the broker's
    /// ([`Broker::hold_elsewhere`]).
    pub devices: usize,
}

/// The running HTTPS face. Dropping it stops it without waiting.
pub struct Control {
    stopping: watch::Sender<bool>,
    done: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Control {
    /// File descriptors that connections hold with all the places there are.
    #[must_use]
    pub const fn descriptors_wanted() -> ControlDescriptors {
        ControlDescriptors {
            strangers: HTTPS_BOUNDS.descriptors() + HTTP_BOUNDS.descriptors(),
            operators: HTTPS_BOUNDS.max_operators,
            devices: HTTPS_BOUNDS.max_connections * OF_A_DEVICE,
        }
    }

    /// Starts both listeners on a thread of their own; both accept when this returns.
    ///
    /// # Errors
    /// [`ControlError::System`] when a socket, the runtime or the thread cannot be had.
    pub fn serve(parts: ControlParts) -> Result<Self, ControlError> {
        let failed = |what| move |source| ControlError::System { what, source };
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .thread_name("control-work")
            .build()
            .map_err(failed("start the runtime of the HTTPS face"))?;
        let (stopping, stop) = watch::channel(false);
        let (finished, done) = oneshot::channel();
        let listeners = {
            let _context = runtime.enter();
            listeners(parts).map_err(failed("take over a listening socket"))?
        };
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                runtime.block_on(async {
                    let [https, http] = listeners;
                    tokio::join!(https.serve(stop.clone()), http.serve(stop));
                });
                // Whoever waits may have given up by now.
                let _ = finished.send(());
                runtime.shutdown_background();
            })
            .map_err(failed("start the thread of the HTTPS face"))?;
        Ok(Self {
            stopping,
            done,
            thread,
        })
    }

    /// Stops accepting, lets the answers under way finish for at most `deadline`, and returns
    /// whether all did. Blocks.
    pub fn drain(self, deadline: Duration) -> bool {
        let _ = self.stopping.send(true);
        let waiting = runtime::Builder::new_current_thread().enable_time().build();
        let Ok(waiting) = waiting else {
            return false;
        };
        let done = waiting.block_on(async { tokio::time::timeout(deadline, self.done).await });
        done.is_ok() && self.thread.join().is_ok()
    }
}

fn listeners(parts: ControlParts) -> std::io::Result<[Listener; 2]> {
    let socket = |listener: TcpListener| {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    let plain = plain::router(&parts.revocation, &parts.authority);
    let broker = parts.broker.clone();
    let registry = Registry {
        fleet: parts.fleet.clone(),
        operators: parts.operators.clone(),
    };
    let rooms = Arc::new(Rooms {
        fleet: parts.fleet,
        registration: parts.registration,
        ota: parts.ota,
        shadows: parts.shadows,
        broker: parts.broker,
        revocation: parts.revocation,
        authority: parts.authority,
        operators: parts.operators,
        expired_grace: parts.expired_grace,
        attestation: parts.attestation,
        endpoints: parts.endpoints,
        account: parts.account,
        region: parts.region,
        started: SystemTime::now(),
        refusals: Arc::new(Sampler::new()),
        quotas: Arc::default(),
        uploads: Arc::new(Semaphore::new(upload::MAX_UPLOADS)),
    });
    Ok([
        Listener {
            socket: socket(parts.https)?,
            tls: Some(TlsAcceptor::from(parts.tls)),
            router: dispatch::router(&rooms)
                .merge(firmware::router(&rooms))
                .merge(est::router(&rooms)),
            bounds: HTTPS_BOUNDS.within(&parts.descriptors),
            registry: Some(registry),
            broker: Some(broker),
        },
        Listener {
            socket: socket(parts.http)?,
            tls: None,
            router: plain,
            bounds: HTTP_BOUNDS.within(&parts.descriptors),
            registry: None,
            broker: None,
        },
    ])
}
