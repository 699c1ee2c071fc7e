use super::reader::Reader;
use super::{Acknowledgement, DecodeError, Limits, ReasonCode, Version};

/// PUBREC (§3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PubRec(pub Acknowledgement);

/// §3.5.2.1 [MQTT-3.5.2-1]
const REASONS: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::NoMatchingSubscribers,
    ReasonCode::Unspecified,
    ReasonCode::ImplementationSpecific,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicNameInvalid,
    ReasonCode::PacketIdentifierInUse,
    ReasonCode::QuotaExceeded,
    ReasonCode::PayloadFormatInvalid,
];

impl PubRec {
    pub(super) fn read(
        body: Reader,
        version: Version,
        limits: &Limits,
    ) -> Result<Self, DecodeError> {
        Acknowledgement::read(body, version, limits, REASONS).map(Self)
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        self.0.encode(0x50, version, out);
    }
}
