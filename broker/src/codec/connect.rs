use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use bytes_utils::Str;

use super::{Authentication, MessageProperties, Qos, UserProperties, Version};
use crate::topic::{ClientId, TopicName};

/// Session Expiry Interval of a session that never expires (§3.1.2.11.2).
pub const SESSION_NEVER_EXPIRES: u32 = u32::MAX;

/// A password or authentication data; `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Bytes);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// CONNECT (§3.1). Both versions are told in the words of MQTT 5: Clean Session 0 of 3.1.1 is a session that is resumed
/// and never expires, Clean Session 1 one that starts clean and ends with the connection (MQTT 5 §3.1.2.11.2).
#[derive(Debug, Clone, PartialEq)]
pub struct Connect {
    /// What the client speaks.
    pub version: Version,
    /// Clean Start; Clean Session in 3.1.1.
    pub clean_start: bool,
    /// Keep Alive in seconds; 0 turns it off.
    pub keep_alive_s: u16,
    /// `None` where the client sent an empty one.
    pub client_id: Option<ClientId>,
    /// The will.
    pub will: Option<Will>,
    /// User name.
    pub user_name: Option<Str>,
    /// Password.
    pub password: Option<Secret>,
    /// Session Expiry Interval in seconds; [`SESSION_NEVER_EXPIRES`].
    pub session_expiry_s: u32,
    /// Receive Maximum in messages; 65,535 when absent, always in 3.1.1.
    pub receive_max: NonZeroU16,
    /// Maximum Packet Size in bytes; `None` is no limit.
    pub packet_max_bytes: Option<NonZeroU32>,
    /// Topic Alias Maximum.
    pub topic_alias_max: u16,
    /// Request Response Information.
    pub request_response_information: bool,
    /// Request Problem Information; true when absent.
    pub request_problem_information: bool,
    /// Authentication Method and Data.
    pub authentication: Option<Authentication>,
    /// User properties.
    pub user: UserProperties,
}

/// The will of a CONNECT.
#[derive(Debug, Clone, PartialEq)]
pub struct Will {
    /// Will Topic.
    pub topic: TopicName,
    /// Will Payload.
    pub payload: Bytes,
    /// Will QoS.
    pub qos: Qos,
    /// Will Retain.
    pub retain: bool,
    /// Will Delay Interval in seconds.
    pub delay_s: u32,
    /// Message Expiry Interval in seconds, counted from publication.
    pub expiry_s: Option<u32>,
    /// What is forwarded unchanged.
    pub properties: Option<Box<MessageProperties>>,
}

impl Connect {
    /// Appends the packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        todo!()
    }
}
