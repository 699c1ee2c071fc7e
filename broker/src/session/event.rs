use std::borrow::Cow;

use super::{Publication, SubscribeRequests, Token, UnsubscribeRequests};
use crate::codec::{DecodeError, PacketId, Qos, ReasonCode};

/// What a packet asks of the shell.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// Nothing.
    None,
    /// Authorise it. QoS 0 and 1: route it; QoS 2: keep it for `Release`. Answer QoS 1 and 2 with `published`.
    Publish(Incoming),
    /// The client has released a message of QoS 2: route it, answer with `completed`.
    Release(PacketId),
    /// Authorise each; answer with `subscribed` before the next packet is handled, then send retained messages.
    Subscribe(SubscribeRequests),
    /// Answer with `unsubscribed` before the next packet is handled.
    Unsubscribe(UnsubscribeRequests),
    /// The client has a message of QoS 2: keep the token, not the message; answer with `release`.
    Received {
        /// The shell's name for it.
        token: Token,
        /// To answer with.
        packet_id: PacketId,
    },
    /// The client has the message: forget it. There is room to send again.
    Acknowledged {
        /// The shell's name for it.
        token: Token,
        /// Under which it was sent.
        packet_id: PacketId,
        /// What the client said of it; an error is an acknowledgement too (§4.3.2).
        reason: ReasonCode,
    },
    /// The client is done: close the connection.
    Disconnect,
}

/// A PUBLISH of the client.
#[derive(Debug, PartialEq)]
pub struct Incoming {
    /// The message; `expires_at` is set from its arrival.
    pub publication: Publication,
    /// RETAIN flag.
    pub retain: bool,
    /// Its QoS.
    pub qos: Qos,
    /// To answer with, from QoS 1 on.
    pub packet_id: Option<PacketId>,
    /// Sent before, says the client.
    pub dup: bool,
}

/// Why the server ends a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} (reason 0x{:02X})", *.reason as u8)]
pub struct Disconnect {
    /// For the DISCONNECT.
    pub reason: ReasonCode,
    /// One sentence, for the DISCONNECT and the log.
    pub text: Cow<'static, str>,
}

impl Disconnect {
    pub(super) fn new(reason: ReasonCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            text: text.into(),
        }
    }
}

impl From<DecodeError> for Disconnect {
    fn from(error: DecodeError) -> Self {
        Self::new(error.reason, error.text)
    }
}
