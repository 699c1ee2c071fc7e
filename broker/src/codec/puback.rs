use super::reader::Reader;
use super::{Acknowledgement, DecodeError, Limits, ReasonCode, Version};

/// PUBACK (§3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PubAck(pub Acknowledgement);

/// §3.4.2.1 [MQTT-3.4.2-1]
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

impl PubAck {
    /// Whether a PUBACK may carry this reason.
    pub(crate) fn allows(reason: ReasonCode) -> bool {
        REASONS.contains(&reason)
    }

    pub(super) fn read(
        body: Reader,
        version: Version,
        limits: &Limits,
    ) -> Result<Self, DecodeError> {
        Acknowledgement::read(body, version, limits, REASONS).map(Self)
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        self.0.encode(0x40, version, out);
    }
}
