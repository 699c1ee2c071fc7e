//! The broker without threads, sockets, TLS and a clock of its own: for the simulator. Everything
//! from a connection's first packet on is the broker's own code; who a peer is and what time it is
//! come from the simulator.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ca::CertificateId;
use store::{Journal, Replay};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

pub use super::connection::Warm;

use super::broker::{HubParts, LostSubscription, open};
use super::clock::Clock;
use super::hub::Hub;
use super::identity::{self, Identity};
use super::listener::{self, Place};
use super::mailbox::Signal;
use super::registry::Registry;
use super::{BrokerError, Limits, Stats, janitor};
use crate::session::Time;
use crate::topic::{ClientId, TopicName};

/// A simulated peer has no address.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What a simulated broker is made of.
pub struct Parts {
    /// Who certificates are.
    pub registry: Arc<dyn Registry>,
    /// A journal the simulator commits.
    pub journal: Journal,
    /// What was alive in it.
    pub replay: Replay,
    /// The bounds to keep.
    pub limits: Limits,
    /// The wall clock's reading at the start. It goes on with the runtime's clock.
    pub now: Time,
}

/// A broker whose tasks all run in the runtime it was opened in. It crashes when that is dropped.
pub struct Broker {
    hub: Arc<Hub>,
}

impl Broker {
    /// Takes up what the last run left behind. Must be called in the runtime that is to drive it.
    ///
    /// # Errors
    /// [`BrokerError::Recovery`].
    pub fn open(parts: Parts) -> Result<Self, BrokerError> {
        let hub = Arc::new(open(HubParts {
            registry: parts.registry,
            journal: parts.journal,
            replay: parts.replay,
            limits: parts.limits,
            aws: false,
            lost_subscription: LostSubscription::Remove,
            clock: Clock::at(parts.now),
            cores: 1,
        })?);
        tokio::spawn(janitor::run(Arc::clone(&hub)));
        Ok(Self { hub })
    }

    /// Serves a peer that has proved that it holds this certificate; false where it is shed or
    /// turned away as the listener does after a handshake. As [`Broker::open`].
    pub fn accept<S>(&self, io: S, certificate: &CertificateId) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let hub = &self.hub;
        let Some(place) = Place::take(hub, NOWHERE) else {
            return false;
        };
        let Ok(identity) = Identity::find(&*hub.registry, certificate, None) else {
            return false;
        };
        let now = Clock::wall(hub.clock.now());
        if identity::check(&identity.standing.now(), now).is_err() {
            return false;
        }
        let Some(counters) = hub.counters.first().map(Arc::clone) else {
            return false;
        };
        let deadline = Instant::now() + hub.limits.handshake_time;
        let hub = Arc::clone(hub);
        tokio::spawn(listener::serve(
            io, hub, counters, identity, deadline, place,
        ));
        true
    }

    /// What a device's connection remembers of its decisions, for a benchmark; `None` where the
    /// registry cannot say who it is.
    pub fn warm(
        &self,
        certificate: &CertificateId,
        client_id: ClientId,
        published: TopicName,
        received: TopicName,
    ) -> Option<Warm> {
        let identity = Identity::find(&*self.hub.registry, certificate, None).ok()?;
        Some(Warm::new(
            &self.hub, &identity, client_id, published, received,
        ))
    }

    /// Begins to shut down as [`super::Broker::drain`] does; the simulator waits until
    /// [`Broker::connections`] is 0.
    pub fn drain(&self) {
        self.hub.draining.store(true, Ordering::Release);
        self.hub.sessions.signal_all(Signal::DRAIN);
    }

    /// Connections open now, those that have not sent their CONNECT left out, wills on their way, and whether sessions that
    /// have ended are being cleared away.
    #[must_use]
    pub fn connections(&self) -> usize {
        let open = self.hub.connections.load(Ordering::Acquire);
        let clearing = usize::from(!self.hub.remains.is_empty());
        open.saturating_sub(self.hub.shaking()) + self.hub.wills.count() + clearing
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::sum(self.hub.counters.iter().map(|counters| &**counters))
    }

    /// The wall clock as the broker reads it.
    #[must_use]
    pub fn now(&self) -> Time {
        self.hub.clock.now()
    }
}
