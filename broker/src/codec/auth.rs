use bytes_utils::Str;

use super::{ReasonCode, Secret, UserProperties};

/// Authentication Method with its data (§4.12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// Authentication Method.
    pub method: Str,
    /// Authentication Data.
    pub data: Option<Secret>,
}

/// AUTH (§3.15), MQTT 5 only.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    /// Success, continue or re-authenticate.
    pub reason: ReasonCode,
    /// Method and data; may be left out only with success.
    pub authentication: Option<Authentication>,
    /// Reason String.
    pub reason_string: Option<Str>,
    /// User properties.
    pub user: UserProperties,
}

impl Auth {
    /// Appends the packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        todo!()
    }
}
