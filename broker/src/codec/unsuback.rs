use bytes_utils::Str;

use super::reader::Reader;
use super::writer::{self, put_u16};
use super::{DecodeError, Limits, PacketId, ReasonCode, UserProperties, Version, property};

/// UNSUBACK (§3.11): one reason per filter of the UNSUBSCRIBE, in its order [MQTT-3.11.3-1]; none in 3.1.1.
#[derive(Debug, Clone, PartialEq)]
pub struct UnsubAck {
    /// That of the UNSUBSCRIBE [MQTT-2.2.1-6, 3.10.4-5] [MQTT311-2.3.1-7, 3.10.4-4].
    pub packet_id: PacketId,
    /// Empty in 3.1.1.
    pub reasons: Vec<ReasonCode>,
    /// Reason String.
    pub reason_string: Option<Str>,
    /// User properties.
    pub user: UserProperties,
}

/// §3.11.3 [MQTT-3.11.3-2]
const REASONS: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::NoSubscriptionExisted,
    ReasonCode::Unspecified,
    ReasonCode::ImplementationSpecific,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicFilterInvalid,
    ReasonCode::PacketIdentifierInUse,
];

impl UnsubAck {
    pub(super) fn read(
        mut body: Reader,
        version: Version,
        limits: &Limits,
    ) -> Result<Self, DecodeError> {
        let mut unsuback = Self {
            packet_id: body.packet_id()?,
            reasons: Vec::new(),
            reason_string: None,
            user: UserProperties::new(),
        };
        if version == Version::V5 {
            property::read_reason(
                &mut body,
                limits,
                &mut unsuback.reason_string,
                &mut unsuback.user,
            )?;
            if body.is_empty() {
                return Err(DecodeError::protocol("UNSUBACK has no reason code"));
            }
            while !body.is_empty() {
                unsuback.reasons.push(body.reason(REASONS)?);
            }
        }
        body.finish()?;
        Ok(unsuback)
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        writer::packet(out, 0xb0, |out| {
            put_u16(out, self.packet_id.get());
            if version == Version::V5 {
                writer::properties(out, version, |out| {
                    writer::reason_properties(out, self.reason_string.as_ref(), &self.user);
                });
                out.extend(self.reasons.iter().map(|reason| *reason as u8));
            }
        });
    }
}
