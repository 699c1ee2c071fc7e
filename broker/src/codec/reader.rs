use bytes::{Buf, Bytes};
use bytes_utils::Str;

use super::{DecodeError, PacketId, Qos, ReasonCode, Secret};
use crate::topic::{TopicError, TopicFilter, TopicName};

type Result<T> = std::result::Result<T, DecodeError>;

/// The rest of one packet. Every read is checked against its end, and hands out slices of the read buffer.
pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(super) const fn new(rest: Bytes) -> Self {
        Self { rest }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub(super) fn into_rest(self) -> Bytes {
        self.rest
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<()> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::malformed(
                "bytes are left after the end of the packet",
            ))
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.rest.try_get_u8().map_err(|_| cut_short())
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.rest.try_get_u16().map_err(|_| cut_short())
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.rest.try_get_u32().map_err(|_| cut_short())
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<Bytes> {
        if len > self.rest.len() {
            return Err(cut_short());
        }
        Ok(self.rest.split_to(len))
    }

    /// Variable Byte Integer (§1.5.5).
    pub(super) fn varint(&mut self) -> Result<u32> {
        let (value, len) = varint(&self.rest)?.ok_or_else(cut_short)?;
        self.rest.advance(len);
        Ok(value)
    }

    /// [MQTT-2.2.1-3] [MQTT311-2.3.1-1]
    pub(super) fn packet_id(&mut self) -> Result<PacketId> {
        PacketId::new(self.u16()?)
            .ok_or_else(|| DecodeError::protocol("the packet identifier is 0: use 1 to 65535"))
    }

    /// Binary Data (§1.5.6).
    pub(super) fn binary(&mut self) -> Result<Bytes> {
        let len = self.u16()?;
        self.bytes(len.into())
    }

    pub(super) fn secret(&mut self) -> Result<Secret> {
        self.binary().map(Secret)
    }

    /// UTF-8 Encoded String, nothing of it skipped [MQTT-1.5.4-1, -2, -3] [MQTT311-1.5.3-1, -2, -3].
    pub(super) fn string(&mut self) -> Result<Str> {
        let text = Str::from_inner(self.binary()?)
            .map_err(|_| DecodeError::malformed("a string is not UTF-8"))?;
        if text.as_bytes().contains(&0) {
            return Err(DecodeError::malformed("a string holds U+0000"));
        }
        Ok(text)
    }

    /// A topic name that may not be empty.
    pub(super) fn topic_name(&mut self) -> Result<TopicName> {
        Self::topic_name_of(self.binary()?)
    }

    pub(super) fn topic_name_of(bytes: Bytes) -> Result<TopicName> {
        TopicName::from_bytes(bytes)
            .map_err(|error| topic(ReasonCode::TopicNameInvalid, "topic name", error))
    }

    pub(super) fn topic_filter(&mut self) -> Result<TopicFilter> {
        self.string()?
            .parse()
            .map_err(|error| topic(ReasonCode::TopicFilterInvalid, "topic filter", error))
    }

    pub(super) fn qos(bits: u8) -> Result<Qos> {
        Qos::from_bits(bits)
            .ok_or_else(|| DecodeError::malformed("QoS 3 does not exist: use 0, 1 or 2"))
    }

    /// A reason code that this packet may carry.
    pub(super) fn reason(&mut self, allowed: &[ReasonCode]) -> Result<ReasonCode> {
        ReasonCode::from_byte(self.u8()?)
            .filter(|reason| allowed.contains(reason))
            .ok_or_else(|| DecodeError::protocol("this packet has no such reason code"))
    }
}

fn cut_short() -> DecodeError {
    DecodeError::malformed("the packet ends inside a field")
}

fn topic(reason: ReasonCode, what: &str, error: TopicError) -> DecodeError {
    match error {
        TopicError::NotUtf8 | TopicError::Nul | TopicError::Unprintable(_) => {
            DecodeError::malformed(format!("the {what} is malformed: {error}"))
        }
        _ => DecodeError::new(reason, format!("the {what} is invalid: {error}")),
    }
}

/// A Variable Byte Integer at the front, with its length; `None` until it is whole. More bytes than needed are malformed
/// [MQTT-1.5.5-1].
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>> {
    let mut value = 0_u32;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            if *byte == 0 && at > 0 {
                return Err(DecodeError::malformed(
                    "a length is encoded in more bytes than it needs",
                ));
            }
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() < 4 {
        return Ok(None);
    }
    Err(DecodeError::malformed("a length has more than four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [MQTT-1.5.5-1]
    #[test]
    fn lengths_hold_at_their_bounds_and_no_longer_form_is_taken() {
        for (bytes, expected) in [
            (&[0x00][..], Some((0, 1))),
            (&[0x7f], Some((127, 1))),
            (&[0x80, 0x01], Some((128, 2))),
            (&[0xff, 0xff, 0xff, 0x7f], Some((268_435_455, 4))),
            (&[0x80], None),
            (&[0x80, 0x80, 0x80], None),
            (&[], None),
        ] {
            assert_eq!(varint(bytes).unwrap(), expected, "{bytes:x?}");
        }
        for bytes in [
            &[0x80, 0x00][..],
            &[0xff, 0x80, 0x00],
            &[0x80, 0x80, 0x80, 0x80],
            &[0xff; 5],
        ] {
            assert_eq!(
                varint(bytes).unwrap_err().reason,
                ReasonCode::MalformedPacket,
                "{bytes:x?}"
            );
        }
    }
}
