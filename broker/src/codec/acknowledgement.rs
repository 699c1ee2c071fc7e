use bytes_utils::Str;

use super::reader::Reader;
use super::writer::{self, put_u16};
use super::{DecodeError, Limits, PacketId, ReasonCode, UserProperties, Version, property};

/// What PUBACK, PUBREC, PUBREL and PUBCOMP carry; they differ in their type and reason codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The message that is meant [MQTT-2.2.1-5] [MQTT311-2.3.1-6].
    pub packet_id: PacketId,
    /// Reason code; always success in 3.1.1.
    pub reason: ReasonCode,
    /// Reason String.
    pub reason_string: Option<Str>,
    /// User properties.
    pub user: UserProperties,
}

impl Acknowledgement {
    /// With a reason and nothing else.
    #[must_use]
    pub const fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self {
            packet_id,
            reason,
            reason_string: None,
            user: UserProperties::new(),
        }
    }

    pub(super) fn read(
        mut body: Reader,
        version: Version,
        limits: &Limits,
        reasons: &[ReasonCode],
    ) -> Result<Self, DecodeError> {
        let mut acknowledgement = Self::new(body.packet_id()?, ReasonCode::Success);
        // §3.4.2.1: both the reason and the property length may be left out in MQTT 5; 3.1.1 has neither.
        if version == Version::V5 && !body.is_empty() {
            acknowledgement.reason = body.reason(reasons)?;
            if !body.is_empty() {
                let Self {
                    reason_string,
                    user,
                    ..
                } = &mut acknowledgement;
                property::read_reason(&mut body, limits, reason_string, user)?;
            }
        }
        body.finish()?;
        Ok(acknowledgement)
    }

    pub(super) fn encode(&self, first: u8, version: Version, out: &mut Vec<u8>) {
        let properties = self.reason_string.is_some() || !self.user.is_empty();
        let [high, low] = self.packet_id.get().to_be_bytes();
        if version == Version::V311 || (self.reason == ReasonCode::Success && !properties) {
            out.extend([first, 2, high, low]);
        } else if !properties {
            out.extend([first, 3, high, low, self.reason as u8]);
        } else {
            writer::packet(out, first, |out| {
                put_u16(out, self.packet_id.get());
                out.push(self.reason as u8);
                writer::properties(out, version, |out| {
                    writer::reason_properties(out, self.reason_string.as_ref(), &self.user);
                });
            });
        }
    }
}
