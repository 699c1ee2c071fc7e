//! Everything with sockets: see the crate's documentation.

mod broker;
mod clock;
mod connection;
mod delivery;
mod durable;
mod hub;
mod identity;
mod janitor;
mod limits;
mod listener;
mod mailbox;
mod message;
mod parked;
mod record;
mod recovery;
mod reserved;
mod retained;
mod router;
mod sampler;
mod sessions;
mod stats;
pub mod tls;
mod tree;
mod websocket;

pub use broker::{ApplicationMessage, Broker, BrokerError, BrokerParts, Listeners};
pub use durable::DurableError;
pub use limits::Limits;
pub use recovery::RecoveryError;
pub use reserved::{Principal, Reply, Request, ReservedTopics};
pub use stats::Stats;
