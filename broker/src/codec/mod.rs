//! MQTT 3.1.1 and 5.0 on the wire: bytes to packets and back, nothing else.
//!
//! Decoding is strict: what either standard forbids is an error that carries the reason code to answer with.
//! Everything MQTT 5 has is decoded, also what [`crate::session`] refuses. Payloads, topics and strings share the read
//! buffer. Clause ids are those of MQTT 5 unless said otherwise.

mod acknowledgement;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod error;
mod packet;
mod property;
mod puback;
mod pubcomp;
mod publish;
mod pubrec;
mod pubrel;
mod reader;
mod reason;
mod suback;
mod subscribe;
mod unsuback;
mod unsubscribe;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

pub use acknowledgement::Acknowledgement;
pub use auth::{Auth, Authentication};
pub use bytes_utils::Str;
pub use connack::ConnAck;
pub use connect::{Connect, SESSION_NEVER_EXPIRES, Secret, Will};
pub use disconnect::Disconnect;
pub use error::DecodeError;
pub use packet::{Limits, Packet, decode, decode_first};
pub use property::{MessageProperties, PayloadFormat, UserProperties};
pub use puback::PubAck;
pub use pubcomp::PubComp;
pub use publish::{Delivery, Publish, PublishRef};
pub use pubrec::PubRec;
pub use pubrel::PubRel;
pub use reason::ReasonCode;
pub use suback::SubAck;
pub use subscribe::{RetainHandling, Subscribe, SubscriptionOptions};
pub use unsuback::UnsubAck;
pub use unsubscribe::Unsubscribe;

/// Longest remaining length of a packet, in bytes (§2.1.4).
pub const REMAINING_MAX_BYTES: usize = 268_435_455;

/// A packet identifier: never zero [MQTT-2.2.1-3] [MQTT311-2.3.1-1].
pub type PacketId = std::num::NonZeroU16;

/// The protocol version a client states in its CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// Quality of service; ordered, so that `min` does what delivery asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// QoS 0.
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl Qos {
    /// From the two bits of the wire; `None` for the reserved value 3.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}
