use bytes_utils::Str;

use super::reader::Reader;
use super::writer::{self, put_u16};
use super::{DecodeError, Limits, PacketId, ReasonCode, UserProperties, Version, property};

/// SUBACK (§3.9): one reason per filter of the SUBSCRIBE, in its order [MQTT-3.8.4-6, 3.9.3-1]
/// [MQTT311-3.8.4-5, 3.9.3-1].
#[derive(Debug, Clone, PartialEq)]
pub struct SubAck {
    /// That of the SUBSCRIBE [MQTT-2.2.1-6, 3.8.4-2] [MQTT311-2.3.1-7, 3.8.4-2].
    pub packet_id: PacketId,
    /// Granted QoS or failure; every failure is 0x80 in 3.1.1.
    pub reasons: Vec<ReasonCode>,
    /// Reason String.
    pub reason_string: Option<Str>,
    /// User properties.
    pub user: UserProperties,
}

/// §3.9.3 [MQTT-3.9.3-2]
const REASONS: &[ReasonCode] = {
    use ReasonCode::*;
    &[
        Success,
        GrantedQos1,
        GrantedQos2,
        Unspecified,
        ImplementationSpecific,
        NotAuthorized,
        TopicFilterInvalid,
        PacketIdentifierInUse,
        QuotaExceeded,
        SharedSubscriptionsNotSupported,
        SubscriptionIdentifiersNotSupported,
        WildcardSubscriptionsNotSupported,
    ]
};

/// [MQTT311-3.9.3-2]
const REASONS_V311: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::GrantedQos1,
    ReasonCode::GrantedQos2,
    ReasonCode::Unspecified,
];

impl SubAck {
    /// Whether a SUBACK may carry this reason.
    pub(crate) fn allows(reason: ReasonCode) -> bool {
        REASONS.contains(&reason)
    }

    pub(super) fn read(
        mut body: Reader,
        version: Version,
        limits: &Limits,
    ) -> Result<Self, DecodeError> {
        let mut suback = Self {
            packet_id: body.packet_id()?,
            reasons: Vec::new(),
            reason_string: None,
            user: UserProperties::new(),
        };
        let reasons = match version {
            Version::V311 => REASONS_V311,
            Version::V5 => {
                property::read_reason(
                    &mut body,
                    limits,
                    &mut suback.reason_string,
                    &mut suback.user,
                )?;
                REASONS
            }
        };
        if body.is_empty() {
            return Err(DecodeError::protocol("SUBACK has no reason code"));
        }
        while !body.is_empty() {
            suback.reasons.push(body.reason(reasons)?);
        }
        Ok(suback)
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        writer::packet(out, 0x90, |out| {
            put_u16(out, self.packet_id.get());
            writer::properties(out, version, |out| {
                writer::reason_properties(out, self.reason_string.as_ref(), &self.user);
            });
            out.extend(self.reasons.iter().map(|reason| match version {
                // 3.1.1 has one word for failure.
                Version::V311 if reason.is_error() => ReasonCode::Unspecified as u8,
                _ => *reason as u8,
            }));
        });
    }
}
