use std::num::{NonZeroU16, NonZeroU32};

use bytes_utils::Str;

use super::property::{self, id, put_seconds, put_string};
use super::reader::Reader;
use super::writer::{self, put_u16};
use super::{Authentication, DecodeError, Limits, Qos, ReasonCode, UserProperties, Version};
use crate::topic::ClientId;

type Result<T> = std::result::Result<T, DecodeError>;

/// 3.1.1 §3.2.2.3, by return code.
const RETURN_CODES: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::UnsupportedProtocolVersion,
    ReasonCode::ClientIdentifierNotValid,
    ReasonCode::ServerUnavailable,
    ReasonCode::BadUserNameOrPassword,
    ReasonCode::NotAuthorized,
];

/// §3.2.2.2 [MQTT-3.2.2-8]
const REASONS: &[ReasonCode] = {
    use ReasonCode::*;
    &[
        Success,
        Unspecified,
        MalformedPacket,
        ProtocolError,
        ImplementationSpecific,
        UnsupportedProtocolVersion,
        ClientIdentifierNotValid,
        BadUserNameOrPassword,
        NotAuthorized,
        ServerUnavailable,
        ServerBusy,
        Banned,
        BadAuthenticationMethod,
        TopicNameInvalid,
        PacketTooLarge,
        QuotaExceeded,
        PayloadFormatInvalid,
        RetainNotSupported,
        QosNotSupported,
        UseAnotherServer,
        ServerMoved,
        ConnectionRateExceeded,
    ]
};

/// CONNACK (§3.2). Absent properties have the standard's defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnAck {
    /// Session Present; false unless the reason is success [MQTT-3.2.2-6].
    pub session_present: bool,
    /// Connect Reason Code.
    pub reason: ReasonCode,
    /// Session Expiry Interval in seconds, where it is not the client's.
    pub session_expiry_s: Option<u32>,
    /// Receive Maximum in messages.
    pub receive_max: NonZeroU16,
    /// Maximum QoS.
    pub qos_max: Qos,
    /// Retain Available.
    pub retain_available: bool,
    /// Maximum Packet Size in bytes.
    pub packet_max_bytes: Option<NonZeroU32>,
    /// Assigned Client Identifier.
    pub assigned_client_id: Option<ClientId>,
    /// Topic Alias Maximum.
    pub topic_alias_max: u16,
    /// Reason String.
    pub reason_string: Option<Str>,
    /// Wildcard Subscription Available.
    pub wildcard_available: bool,
    /// Subscription Identifiers Available.
    pub subscription_ids_available: bool,
    /// Shared Subscription Available.
    pub shared_available: bool,
    /// Server Keep Alive in seconds.
    pub server_keep_alive_s: Option<u16>,
    /// Response Information.
    pub response_information: Option<Str>,
    /// Server Reference.
    pub server_reference: Option<Str>,
    /// Authentication Method and Data.
    pub authentication: Option<Authentication>,
    /// User properties.
    pub user: UserProperties,
}

impl ConnAck {
    /// Whether a CONNACK may carry this reason.
    pub(crate) fn allows(reason: ReasonCode) -> bool {
        REASONS.contains(&reason)
    }

    /// Everything at the standard's default.
    #[must_use]
    pub fn new(reason: ReasonCode, session_present: bool) -> Self {
        Self {
            session_present,
            reason,
            session_expiry_s: None,
            receive_max: NonZeroU16::MAX,
            qos_max: Qos::ExactlyOnce,
            retain_available: true,
            packet_max_bytes: None,
            assigned_client_id: None,
            topic_alias_max: 0,
            reason_string: None,
            wildcard_available: true,
            subscription_ids_available: true,
            shared_available: true,
            server_keep_alive_s: None,
            response_information: None,
            server_reference: None,
            authentication: None,
            user: Vec::new(),
        }
    }

    pub(super) fn read(mut body: Reader, version: Version, limits: &Limits) -> Result<Self> {
        let flags = body.u8()?;
        if flags > 1 {
            // [MQTT-3.2.2-1]
            return Err(DecodeError::malformed("reserved CONNACK flags are set"));
        }
        let mut connack = Self::new(ReasonCode::Success, flags == 1);
        match version {
            Version::V311 => {
                connack.reason = RETURN_CODES
                    .get(usize::from(body.u8()?))
                    .copied()
                    .ok_or_else(|| DecodeError::protocol("CONNACK has no such return code"))?;
            }
            Version::V5 => {
                connack.reason = body.reason(REASONS)?;
                connack.read_properties(&mut body, limits)?;
            }
        }
        body.finish()?;
        if connack.session_present && connack.reason != ReasonCode::Success {
            // [MQTT-3.2.2-6]
            return Err(DecodeError::protocol(
                "CONNACK refuses and says that a session is present",
            ));
        }
        Ok(connack)
    }

    fn read_properties(&mut self, body: &mut Reader, limits: &Limits) -> Result<()> {
        let (mut method, mut data) = (None, None);
        property::read(body, limits, &mut self.user, |id, reader| {
            match id {
                id::SESSION_EXPIRY => self.session_expiry_s = Some(reader.u32()?),
                id::RECEIVE_MAXIMUM => {
                    self.receive_max = property::not_zero(NonZeroU16::new(reader.u16()?))?
                }
                id::MAXIMUM_QOS => {
                    let at_least_once = property::flag(reader)?;
                    self.qos_max = if at_least_once {
                        Qos::AtLeastOnce
                    } else {
                        Qos::AtMostOnce
                    };
                }
                id::RETAIN_AVAILABLE => self.retain_available = property::flag(reader)?,
                id::MAXIMUM_PACKET_SIZE => {
                    self.packet_max_bytes =
                        Some(property::not_zero(NonZeroU32::new(reader.u32()?))?);
                }
                id::ASSIGNED_CLIENT_ID => {
                    let id = reader.string()?.parse();
                    let id = id.map_err(|_| {
                        DecodeError::protocol("the assigned client identifier is invalid")
                    })?;
                    self.assigned_client_id = Some(id);
                }
                id::TOPIC_ALIAS_MAXIMUM => self.topic_alias_max = reader.u16()?,
                id::REASON_STRING => self.reason_string = Some(reader.string()?),
                id::WILDCARD_AVAILABLE => self.wildcard_available = property::flag(reader)?,
                id::SUBSCRIPTION_IDS_AVAILABLE => {
                    self.subscription_ids_available = property::flag(reader)?
                }
                id::SHARED_AVAILABLE => self.shared_available = property::flag(reader)?,
                id::SERVER_KEEP_ALIVE => self.server_keep_alive_s = Some(reader.u16()?),
                id::RESPONSE_INFORMATION => self.response_information = Some(reader.string()?),
                id::SERVER_REFERENCE => self.server_reference = Some(reader.string()?),
                id::AUTHENTICATION_METHOD => method = Some(reader.string()?),
                id::AUTHENTICATION_DATA => data = Some(reader.secret()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        self.authentication = Authentication::of(method, data)?;
        Ok(())
    }

    /// Appends the packet. In 3.1.1 nothing is written for a reason that it has no return code for.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let code = match version {
            Version::V5 => self.reason as u8,
            Version::V311 => match self.reason.return_code_v311() {
                Some(code) => code,
                None => return,
            },
        };
        writer::packet(out, 0x20, |out| {
            out.extend([u8::from(self.session_present), code]); // [MQTT-3.2.2-1]
            writer::properties(out, version, |out| self.put_properties(out));
        });
    }

    fn put_properties(&self, out: &mut Vec<u8>) {
        put_seconds(out, id::SESSION_EXPIRY, self.session_expiry_s);
        if self.receive_max != NonZeroU16::MAX {
            out.push(id::RECEIVE_MAXIMUM);
            put_u16(out, self.receive_max.get());
        }
        if self.qos_max != Qos::ExactlyOnce {
            out.extend([id::MAXIMUM_QOS, self.qos_max as u8]);
        }
        put_seconds(
            out,
            id::MAXIMUM_PACKET_SIZE,
            self.packet_max_bytes.map(NonZeroU32::get),
        );
        let assigned = self.assigned_client_id.as_ref().map(ClientId::as_str);
        put_string(out, id::ASSIGNED_CLIENT_ID, assigned);
        for (id, value) in [
            (
                id::TOPIC_ALIAS_MAXIMUM,
                Some(self.topic_alias_max).filter(|max| *max != 0),
            ),
            (id::SERVER_KEEP_ALIVE, self.server_keep_alive_s),
        ] {
            if let Some(value) = value {
                out.push(id);
                put_u16(out, value);
            }
        }
        for (id, available) in [
            (id::RETAIN_AVAILABLE, self.retain_available),
            (id::WILDCARD_AVAILABLE, self.wildcard_available),
            (
                id::SUBSCRIPTION_IDS_AVAILABLE,
                self.subscription_ids_available,
            ),
            (id::SHARED_AVAILABLE, self.shared_available),
        ] {
            if !available {
                out.extend([id, 0]);
            }
        }
        put_string(
            out,
            id::RESPONSE_INFORMATION,
            self.response_information.as_deref(),
        );
        put_string(out, id::SERVER_REFERENCE, self.server_reference.as_deref());
        Authentication::put(self.authentication.as_ref(), out);
        writer::reason_properties(out, self.reason_string.as_ref(), &self.user);
    }
}
