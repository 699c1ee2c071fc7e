use bytes_utils::Str;

use super::{ReasonCode, UserProperties, Version};

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

    /// Appends the packet. In 3.1.1 it has no reason; a server writes it in MQTT 5 only.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        todo!()
    }
}
