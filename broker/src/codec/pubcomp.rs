use super::reader::Reader;
use super::{Acknowledgement, DecodeError, Limits, ReasonCode, Version};

/// PUBCOMP (§3.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PubComp(pub Acknowledgement);

/// §3.7.2.1 [MQTT-3.7.2-1]
const REASONS: &[ReasonCode] = &[ReasonCode::Success, ReasonCode::PacketIdentifierNotFound];

impl PubComp {
    pub(super) fn read(
        body: Reader,
        version: Version,
        limits: &Limits,
    ) -> Result<Self, DecodeError> {
        Acknowledgement::read(body, version, limits, REASONS).map(Self)
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        self.0.encode(0x70, version, out);
    }
}
