use std::num::NonZeroU16;

use bytes::Bytes;

use super::{MessageProperties, PacketId, Qos, Version};
use crate::topic::TopicName;

/// QoS with what belongs to it: a packet identifier from QoS 1 on [MQTT-2.2.1-2], and DUP only there [MQTT-3.3.1-2].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce {
        /// Packet identifier.
        packet_id: PacketId,
        /// Sent before.
        dup: bool,
    },
    /// QoS 2.
    ExactlyOnce {
        /// Packet identifier.
        packet_id: PacketId,
        /// Sent before.
        dup: bool,
    },
}

impl Delivery {
    /// The QoS of the flags.
    #[must_use]
    pub const fn qos(self) -> Qos {
        match self {
            Self::AtMostOnce => Qos::AtMostOnce,
            Self::AtLeastOnce { .. } => Qos::AtLeastOnce,
            Self::ExactlyOnce { .. } => Qos::ExactlyOnce,
        }
    }

    /// The packet identifier, from QoS 1 on.
    #[must_use]
    pub const fn packet_id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce { packet_id, .. } | Self::ExactlyOnce { packet_id, .. } => {
                Some(packet_id)
            }
        }
    }
}

/// PUBLISH (§3.3).
#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    /// QoS, packet identifier and DUP.
    pub delivery: Delivery,
    /// RETAIN.
    pub retain: bool,
    /// The topic; `None` only with a topic alias (MQTT 5).
    pub topic: Option<TopicName>,
    /// Topic Alias.
    pub topic_alias: Option<NonZeroU16>,
    /// Message Expiry Interval in seconds.
    pub expiry_s: Option<u32>,
    /// Subscription Identifiers, 1 to 268,435,455 each; only from server to client.
    pub subscription_ids: Vec<u32>,
    /// What is forwarded unchanged; `None` when there is nothing, always in 3.1.1.
    pub properties: Option<Box<MessageProperties>>,
    /// Application message.
    pub payload: Bytes,
}

impl Publish {
    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        todo!()
    }
}
