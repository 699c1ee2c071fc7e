use std::borrow::Cow;

use super::{ReasonCode, Version};

/// Why bytes are no packet, with the reason code that MQTT 5 has for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} (reason 0x{:02X})", *.reason as u8)]
pub struct DecodeError {
    /// What to answer: [`ReasonCode::MalformedPacket`], [`ReasonCode::ProtocolError`], [`ReasonCode::PacketTooLarge`] …
    pub reason: ReasonCode,
    /// One sentence; never contains bytes of the peer.
    pub text: Cow<'static, str>,
    /// The version in which a refusal is understood. Set by [`super::decode_first`] where the CONNECT got far enough to
    /// say it; `None` there means: close without an answer.
    pub version: Option<Version>,
}

impl DecodeError {
    pub(super) fn new(reason: ReasonCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            text: text.into(),
            version: None,
        }
    }

    /// Bytes that cannot be parsed (§1.2, Malformed Packet).
    pub(super) fn malformed(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ReasonCode::MalformedPacket, text)
    }

    /// Bytes that parse and say what they may not (§1.2, Protocol Error).
    pub(super) fn protocol(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ReasonCode::ProtocolError, text)
    }

    pub(super) fn answered_in(mut self, version: Version) -> Self {
        self.version = Some(version);
        self
    }
}
