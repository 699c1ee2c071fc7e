use bytes_utils::Str;

use super::{PacketId, ReasonCode, UserProperties, Version};

/// What PUBACK, PUBREC, PUBREL and PUBCOMP carry; they differ in their type and reason codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The message that is meant.
    pub packet_id: PacketId,
    /// Reason code; always success in 3.1.1.
    pub reason: ReasonCode,
    /// Reason String.
    pub reason_string: Option<Str>,
    /// User properties.
    pub user: UserProperties,
}

/// PUBACK (§3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PubAck(pub Acknowledgement);
/// PUBREC (§3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PubRec(pub Acknowledgement);
/// PUBREL (§3.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PubRel(pub Acknowledgement);
/// PUBCOMP (§3.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PubComp(pub Acknowledgement);

impl PubAck {
    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        todo!()
    }
}
