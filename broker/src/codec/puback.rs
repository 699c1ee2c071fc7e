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

#[cfg(test)]
mod tests {
    use super::super::tests::{decode_all, error_of};
    use super::super::{Packet, PacketId};
    use super::*;

    #[test]
    fn the_short_forms_are_read_and_written() {
        let id = PacketId::new(0x0102).unwrap();
        let success = Packet::PubAck(PubAck(Acknowledgement::new(id, ReasonCode::Success)));
        let other = Packet::PubAck(PubAck(Acknowledgement::new(id, ReasonCode::NotAuthorized)));
        for version in [Version::V311, Version::V5] {
            assert_eq!(decode_all(&[0x40, 2, 1, 2], version), Ok(success.clone()));
        }
        assert_eq!(
            decode_all(&[0x40, 3, 1, 2, 0], Version::V5),
            Ok(success.clone())
        );
        assert_eq!(decode_all(&[0x40, 4, 1, 2, 0, 0], Version::V5), Ok(success));
        assert_eq!(
            decode_all(&[0x40, 3, 1, 2, 0x87], Version::V5),
            Ok(other.clone())
        );
        let mut out = Vec::new();
        other.encode(Version::V5, &mut out);
        assert_eq!(out, [0x40, 3, 1, 2, 0x87]);
        out.clear();
        other.encode(Version::V311, &mut out);
        assert_eq!(out, [0x40, 2, 1, 2]);
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        use ReasonCode::{MalformedPacket, ProtocolError};
        for version in [Version::V311, Version::V5] {
            assert_eq!(error_of(&[0x40, 2, 0, 0], version), ProtocolError); // [MQTT-2.2.1-3]
            assert_eq!(error_of(&[0x40, 1, 1], version), MalformedPacket);
            assert_eq!(error_of(&[0x42, 2, 0, 1], version), MalformedPacket); // [MQTT-2.1.3-1]
        }
        assert_eq!(
            error_of(&[0x40, 3, 0, 1, 0], Version::V311),
            MalformedPacket
        );
        assert_eq!(error_of(&[0x40, 3, 0, 1, 0x92], Version::V5), ProtocolError); // [MQTT-3.4.2-1]
        assert_eq!(
            error_of(&[0x40, 5, 0, 1, 0, 0, 0], Version::V5),
            MalformedPacket
        );
        // A property that is not of this packet: Topic Alias.
        assert_eq!(
            error_of(&[0x40, 7, 0, 1, 0, 3, 0x23, 0, 1], Version::V5),
            MalformedPacket
        );
        // Reason String twice.
        let twice = [0x40, 10, 0, 1, 0, 6, 0x1f, 0, 0, 0x1f, 0, 0];
        assert_eq!(error_of(&twice, Version::V5), ProtocolError);
    }
}
