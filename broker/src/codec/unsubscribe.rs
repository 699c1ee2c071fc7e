use super::{PacketId, UserProperties, Version};
use crate::topic::TopicFilter;

/// UNSUBSCRIBE (§3.10).
#[derive(Debug, Clone, PartialEq)]
pub struct Unsubscribe {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// At least one [MQTT-3.10.3-2].
    pub filters: Vec<TopicFilter>,
    /// User properties.
    pub user: UserProperties,
}

impl Unsubscribe {
    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        todo!()
    }
}
