use super::outgoing::packet_id_of;
use super::{SendOptions, Subscriptions};
use crate::codec::{PacketId, Will};

/// The shell's name for one delivery to one session: what its queue keeps until the client acknowledges.
pub type Token = u64;

/// A message sent and not yet acknowledged.
#[derive(Debug, Clone, PartialEq)]
pub struct InFlight<M> {
    /// Under which it was sent and will be sent again.
    pub packet_id: PacketId,
    /// The shell's name for it.
    pub token: Token,
    /// How far it has come.
    pub progress: Progress<M>,
}

impl<M> InFlight<M> {
    /// The delivery with a token, under the packet identifier that belongs to it; `None` for token 0.
    #[must_use]
    pub fn numbered(token: Token, progress: Progress<M>) -> Option<Self> {
        Some(Self {
            packet_id: packet_id_of(token)?,
            token,
            progress,
        })
    }
}

/// How far a delivery has come.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress<M> {
    /// PUBLISH was sent; PUBACK or PUBREC is awaited.
    Sent {
        /// How it was sent.
        options: SendOptions,
        /// The message.
        message: M,
    },
    /// QoS 2: PUBREC has come; PUBCOMP is awaited.
    Received {
        /// PUBREL was sent on this connection.
        released: bool,
    },
}

/// What survives a connection (§4.1.0).
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<M> {
    /// Subscriptions with their options.
    pub subscriptions: Subscriptions,
    /// Sent and unacknowledged, in the order of sending.
    pub in_flight: Vec<InFlight<M>>,
    /// Where the search for a free packet identifier goes on, for what has no token.
    pub next_packet_id: PacketId,
    /// Messages of QoS 2 of the client that were answered with PUBREC and wait for their PUBREL.
    pub held: Vec<PacketId>,
}

impl<M> Default for Stored<M> {
    fn default() -> Self {
        Self {
            subscriptions: Subscriptions::default(),
            in_flight: Vec::new(),
            next_packet_id: PacketId::MIN,
            held: Vec::new(),
        }
    }
}

/// What a connection leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed<M> {
    /// The will that is to be published, after [`Will::delay_s`] (already cut to the session's expiry
    /// [MQTT-3.1.2-8]) unless the client is back before.
    pub will: Option<Will>,
    /// Seconds for which `stored` is to be kept: 0 not at all, `SESSION_NEVER_EXPIRES` for ever.
    pub expiry_s: u32,
    /// The state to resume with.
    pub stored: Stored<M>,
}
