use std::collections::HashMap;

use crate::codec::{PacketId, Qos, SubscriptionOptions, Will};
use crate::topic::TopicFilter;

/// The shell's name for one delivery to one session: what its queue keeps until the client acknowledges.
pub type Token = u64;

/// A message sent and not yet acknowledged.
#[derive(Debug, Clone, PartialEq)]
pub struct InFlight<M> {
    /// Under which it was sent and will be sent again.
    pub packet_id: PacketId,
    /// The shell's name for it.
    pub token: Token,
    /// QoS it was sent with.
    pub qos: Qos,
    /// RETAIN flag it was sent with.
    pub retain: bool,
    /// The message.
    pub message: M,
}

/// What survives a connection (§4.1.0).
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<M> {
    /// Subscriptions with their options.
    pub subscriptions: HashMap<TopicFilter, SubscriptionOptions>,
    /// Sent and unacknowledged, in the order of sending.
    pub in_flight: Vec<InFlight<M>>,
    /// Where the search for a free packet identifier goes on.
    pub next_packet_id: PacketId,
}

impl<M> Default for Stored<M> {
    fn default() -> Self {
        Self {
            subscriptions: HashMap::new(),
            in_flight: Vec::new(),
            next_packet_id: PacketId::MIN,
        }
    }
}

/// What a connection leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed<M> {
    /// The will that is to be published, after [`Will::delay_s`] (already cut to the session's expiry
    /// [MQTT-3.1.3-9]) unless the client is back before.
    pub will: Option<Will>,
    /// Seconds for which `stored` is to be kept: 0 not at all, `SESSION_NEVER_EXPIRES` for ever.
    pub expiry_s: u32,
    /// The state to resume with.
    pub stored: Stored<M>,
}
