use std::num::{NonZeroU16, NonZeroU32};

use bytes_utils::Str;

use super::{Authentication, Qos, ReasonCode, UserProperties, Version};
use crate::topic::ClientId;

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

    /// Appends the packet. In 3.1.1 nothing is written for a reason that it has no return code for.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        todo!()
    }
}
