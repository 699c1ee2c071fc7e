use super::reader::Reader;
use super::{Acknowledgement, DecodeError, Limits, ReasonCode, Version};

/// PUBREL (§3.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PubRel(pub Acknowledgement);

/// §3.6.2.1 [MQTT-3.6.2-1]
const REASONS: &[ReasonCode] = &[ReasonCode::Success, ReasonCode::PacketIdentifierNotFound];

impl PubRel {
    pub(super) fn read(
        body: Reader,
        version: Version,
        limits: &Limits,
    ) -> Result<Self, DecodeError> {
        Acknowledgement::read(body, version, limits, REASONS).map(Self)
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        self.0.encode(0x62, version, out);
    }
}
