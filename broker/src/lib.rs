//! `broker` connects: MQTT 3.1.1 and 5.0 over mutual TLS.
//! `topic`, `codec` and `session` are pure (no tokio, no socket, no clock) and build without the feature `server`;
//! with it come the topic tree, the router, the connections and the listeners.
//! Below it: `fleet` says who a certificate is and what it may do, `store` keeps queued and retained messages.
//! Above it: `ota` and `control` publish through it and answer reserved topics through a trait it defines.

pub mod codec;
#[cfg(feature = "server")]
mod server;
pub mod session;
pub mod topic;

#[cfg(feature = "simulate")]
pub use server::simulate;
#[cfg(feature = "server")]
pub use server::{
    ApplicationMessage, Broker, BrokerError, BrokerParts, DisconnectReason, DurableError,
    Elsewhere, FullQueue, Lifecycle, LifecycleChange, Limits, Listeners, LostSubscription,
    OwnBounds, Post, PostError, Poster, Principal, RecoveryError, Registry, Reply, Request,
    ReservedTopics, RetainedMessage, RetainedSummary, SessionBounds, Stats,
};
#[cfg(feature = "server")]
pub use server::{bench, tls};
