use bytes_utils::Str;

use super::property::{self, id, put_seconds, put_string};
use super::reader::Reader;
use super::{DecodeError, Limits, ReasonCode, UserProperties, Version, writer};

/// §3.14.2.1 [MQTT-3.14.2-1]
const REASONS: &[ReasonCode] = {
    use ReasonCode::*;
    &[
        Success,
        DisconnectWithWill,
        Unspecified,
        MalformedPacket,
        ProtocolError,
        ImplementationSpecific,
        NotAuthorized,
        ServerBusy,
        ServerShuttingDown,
        KeepAliveTimeout,
        SessionTakenOver,
        TopicFilterInvalid,
        TopicNameInvalid,
        ReceiveMaximumExceeded,
        TopicAliasInvalid,
        PacketTooLarge,
        MessageRateTooHigh,
        QuotaExceeded,
        AdministrativeAction,
        PayloadFormatInvalid,
        RetainNotSupported,
        QosNotSupported,
        UseAnotherServer,
        ServerMoved,
        SharedSubscriptionsNotSupported,
        ConnectionRateExceeded,
        MaximumConnectTime,
        SubscriptionIdentifiersNotSupported,
        WildcardSubscriptionsNotSupported,
    ]
};

/// DISCONNECT (§3.14).
#[derive(Debug, Clone, PartialEq)]
pub struct Disconnect {
    /// Reason code; always success in 3.1.1.
    pub reason: ReasonCode,
    /// Session Expiry Interval in seconds; only from client to server [MQTT-3.14.2-2].
    pub session_expiry_s: Option<u32>,
    /// Reason String.
    pub reason_string: Option<Str>,
    /// Server Reference.
    pub server_reference: Option<Str>,
    /// User properties.
    pub user: UserProperties,
}

impl Disconnect {
    /// Whether a DISCONNECT may carry this reason.
    pub(crate) fn allows(reason: ReasonCode) -> bool {
        REASONS.contains(&reason)
    }

    /// With a reason and nothing else.
    #[must_use]
    pub const fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            session_expiry_s: None,
            reason_string: None,
            server_reference: None,
            user: Vec::new(),
        }
    }

    pub(super) fn read(
        mut body: Reader,
        version: Version,
        limits: &Limits,
    ) -> Result<Self, DecodeError> {
        let mut disconnect = Self::new(ReasonCode::Success);
        // §3.14.2.1: the reason, and after it the properties, may be left out in MQTT 5; 3.1.1 has neither.
        if version == Version::V5 && !body.is_empty() {
            disconnect.reason = body.reason(REASONS)?;
            if !body.is_empty() {
                let Self {
                    session_expiry_s,
                    reason_string,
                    server_reference,
                    user,
                    ..
                } = &mut disconnect;
                property::read(&mut body, limits, user, |id, reader| match id {
                    id::SESSION_EXPIRY => property::set(session_expiry_s, reader.u32()?),
                    id::REASON_STRING => property::set(reason_string, reader.string()?),
                    id::SERVER_REFERENCE => property::set(server_reference, reader.string()?),
                    _ => Ok(false),
                })?;
            }
        }
        body.finish()?;
        Ok(disconnect)
    }

    /// Appends the packet. In 3.1.1 it has no reason; a server writes it in MQTT 5 only.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        if version == Version::V311 {
            out.extend([0xe0, 0]);
            return;
        }
        writer::packet(out, 0xe0, |out| {
            out.push(self.reason as u8);
            writer::properties(out, version, |out| {
                put_seconds(out, id::SESSION_EXPIRY, self.session_expiry_s);
                put_string(out, id::SERVER_REFERENCE, self.server_reference.as_deref());
                writer::reason_properties(out, self.reason_string.as_ref(), &self.user);
            });
        });
    }
}
