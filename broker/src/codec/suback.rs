use bytes_utils::Str;

use super::{PacketId, ReasonCode, UserProperties, Version};

/// SUBACK (§3.9): one reason per filter of the SUBSCRIBE, in its order [MQTT-3.9.3-1].
#[derive(Debug, Clone, PartialEq)]
pub struct SubAck {
    /// That of the SUBSCRIBE [MQTT-3.8.4-2].
    pub packet_id: PacketId,
    /// Granted QoS or failure; every failure is 0x80 in 3.1.1.
    pub reasons: Vec<ReasonCode>,
    /// Reason String.
    pub reason_string: Option<Str>,
    /// User properties.
    pub user: UserProperties,
}

impl SubAck {
    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        todo!()
    }
}
