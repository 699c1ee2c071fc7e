use bytes_utils::Str;

use super::{PacketId, ReasonCode, UserProperties, Version};

/// UNSUBACK (§3.11): one reason per filter of the UNSUBSCRIBE, in its order; none in 3.1.1.
#[derive(Debug, Clone, PartialEq)]
pub struct UnsubAck {
    /// That of the UNSUBSCRIBE [MQTT-3.10.4-5].
    pub packet_id: PacketId,
    /// Empty in 3.1.1.
    pub reasons: Vec<ReasonCode>,
    /// Reason String.
    pub reason_string: Option<Str>,
    /// User properties.
    pub user: UserProperties,
}

impl UnsubAck {
    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        todo!()
    }
}
