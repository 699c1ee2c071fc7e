//! Everything with sockets: see the crate's documentation.

mod bounds;
mod broker;
mod client_verifier;
mod clock;
mod connection;
mod delivery;
mod durable;
mod endings;
mod exits;
mod farewells;
mod groups;
mod hub;
mod identity;
mod janitor;
mod layout;
mod limits;
mod listener;
mod lobby;
mod mailbox;
mod message;
mod pace;
mod parked;
mod passing;
mod places;
mod quiet;
mod record;
mod recovery;
mod refusal;
mod registry;
mod remains;
mod reserved;
mod retained;
mod router;
mod sessions;
#[cfg(feature = "simulate")]
pub mod simulate;
mod stats;
pub mod tls;
mod tree;
mod turns;
mod unconnected;
mod uses;
mod websocket;
mod wills;
mod work;

pub use bounds::{OwnBounds, SessionBounds};
pub use broker::{
    ApplicationMessage, Broker, BrokerError, BrokerParts, Elsewhere, Listeners, LostSubscription,
};
pub use layout::DurableError;
pub use limits::Limits;
pub use recovery::RecoveryError;
pub use registry::Registry;
pub use reserved::{
    DisconnectReason, Lifecycle, LifecycleChange, Principal, Reply, Request, ReservedTopics,
};
pub use stats::{FullQueue, Stats};
pub use unconnected::{Post, PostError, Poster, RetainedMessage, RetainedSummary};

/// Inner parts for benchmarks and fuzzing; no part of the interface.
#[doc(hidden)]
pub mod bench {
    use tokio::io::{AsyncRead, AsyncWrite};

    /// The topic tree with numbers for subscribers.
    #[derive(Default)]
    pub struct TopicTree(super::tree::TopicTree<()>);

    impl TopicTree {
        /// An empty tree.
        #[must_use]
        pub fn new() -> Self {
            Self::default()
        }

        /// Adds a subscription.
        pub fn insert(&self, filter: &str, owner: u64) {
            self.0.insert(filter, owner, ());
        }

        /// How many subscriptions match.
        #[must_use]
        pub fn count(&self, topic: &str) -> usize {
            let mut count = 0;
            self.0.matches(topic, &mut |_| count += 1);
            count
        }
    }

    /// MQTT's bytes out of a stream of WebSocket frames, after the upgrade; `None` where that is refused.
    pub async fn websocket<S: AsyncRead + AsyncWrite + Unpin>(
        stream: S,
        packet_bytes: usize,
    ) -> Option<impl AsyncRead + AsyncWrite + Unpin> {
        let time = super::limits::Limits::default().packet_time;
        super::websocket::accept(stream, packet_bytes, time)
            .await
            .ok()
    }
}
