use bytes::Bytes;
use bytes_utils::Str;

use super::reader::Reader;
use super::writer::{put_binary, put_u32};
use super::{DecodeError, Limits, ReasonCode};
use crate::topic::TopicName;

/// Property identifiers (§2.2.2.2).
pub(super) mod id {
    pub(in super::super) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(in super::super) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(in super::super) const CONTENT_TYPE: u8 = 0x03;
    pub(in super::super) const RESPONSE_TOPIC: u8 = 0x08;
    pub(in super::super) const CORRELATION_DATA: u8 = 0x09;
    pub(in super::super) const SUBSCRIPTION_ID: u8 = 0x0B;
    pub(in super::super) const SESSION_EXPIRY: u8 = 0x11;
    pub(in super::super) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(in super::super) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(in super::super) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(in super::super) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(in super::super) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(in super::super) const WILL_DELAY: u8 = 0x18;
    pub(in super::super) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(in super::super) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(in super::super) const SERVER_REFERENCE: u8 = 0x1C;
    pub(in super::super) const REASON_STRING: u8 = 0x1F;
    pub(in super::super) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(in super::super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(in super::super) const TOPIC_ALIAS: u8 = 0x23;
    pub(in super::super) const MAXIMUM_QOS: u8 = 0x24;
    pub(in super::super) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(in super::super) const USER: u8 = 0x26;
    pub(in super::super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(in super::super) const WILDCARD_AVAILABLE: u8 = 0x28;
    pub(in super::super) const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
    pub(in super::super) const SHARED_AVAILABLE: u8 = 0x2A;
}

type Result<T> = std::result::Result<T, DecodeError>;

/// User properties in the order they were sent [MQTT-3.3.2-18].
pub type UserProperties = Vec<(Str, Str)>;

/// Payload Format Indicator (§3.3.2.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PayloadFormat {
    /// Unspecified bytes.
    Bytes = 0,
    /// UTF-8 text.
    Utf8 = 1,
}

/// What travels unchanged from publisher to receiver [MQTT-3.3.2-4, -15, -16, -17, -18, -20].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageProperties {
    /// Payload Format Indicator.
    pub payload_format: Option<PayloadFormat>,
    /// Content Type.
    pub content_type: Option<Str>,
    /// Response Topic; no wildcards [MQTT-3.3.2-14].
    pub response_topic: Option<TopicName>,
    /// Correlation Data.
    pub correlation_data: Option<Bytes>,
    /// User properties, any number, in order.
    pub user: UserProperties,
}

/// Reads properties up to their length. `each` takes one by its identifier and says whether this packet has it; user
/// properties go to `user`.
pub(super) fn read(
    reader: &mut Reader,
    limits: &Limits,
    user: &mut UserProperties,
    mut each: impl FnMut(u8, &mut Reader) -> Result<bool>,
) -> Result<()> {
    let len = reader.varint()?; // [MQTT-2.2.2-1]
    if len == 0 {
        return Ok(());
    }
    let mut reader = Reader::new(reader.bytes(len as usize)?);
    let mut seen = 0_u64;
    while !reader.is_empty() {
        let id = reader.u8()?;
        if id == id::USER {
            if user.len() >= limits.user_properties_max {
                return Err(DecodeError::new(
                    ReasonCode::QuotaExceeded,
                    format!(
                        "more than {} user properties: send fewer",
                        limits.user_properties_max
                    ),
                ));
            }
            // [MQTT-1.5.7-1]
            user.push((reader.string()?, reader.string()?));
            continue;
        }
        // §2.2.2.2: an identifier that is not this packet's makes it malformed.
        let bit = 1_u64.checked_shl(id.into()).ok_or_else(misplaced)?;
        // Only Subscription Identifiers may be repeated, and only in PUBLISH (§3.3.2.3.8).
        if seen & bit != 0 && id != id::SUBSCRIPTION_ID {
            return Err(DecodeError::protocol("a property is there twice"));
        }
        seen |= bit;
        if !each(id, &mut reader)? {
            return Err(misplaced());
        }
    }
    Ok(())
}

fn misplaced() -> DecodeError {
    DecodeError::malformed("a property does not belong to this packet")
}

/// Properties of a packet that has Reason String and user properties only.
pub(super) fn read_reason(
    reader: &mut Reader,
    limits: &Limits,
    reason_string: &mut Option<Str>,
    user: &mut UserProperties,
) -> Result<()> {
    read(reader, limits, user, |id, reader| match id {
        id::REASON_STRING => set(reason_string, reader.string()?),
        _ => Ok(false),
    })
}

/// Stores a property's value and says that it belongs here.
pub(super) fn set<T>(place: &mut Option<T>, value: T) -> Result<bool> {
    *place = Some(value);
    Ok(true)
}

/// A property that is 0 or 1.
pub(super) fn flag(reader: &mut Reader) -> Result<bool> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::protocol(
            "a property that is 0 or 1 has another value",
        )),
    }
}

/// Subscription Identifier (§3.8.2.1.2): 1 to 268,435,455.
pub(super) fn subscription_id(reader: &mut Reader) -> Result<u32> {
    match reader.varint()? {
        0 => Err(DecodeError::protocol(
            "the subscription identifier is 0: use 1 to 268435455",
        )),
        id => Ok(id),
    }
}

/// A property that may not be 0.
pub(super) fn not_zero<T>(value: Option<T>) -> Result<T> {
    value.ok_or_else(|| DecodeError::protocol("a property that must not be 0 is 0"))
}

pub(super) fn put_user(out: &mut Vec<u8>, user: &UserProperties) {
    for (name, value) in user {
        out.push(id::USER);
        put_binary(out, name.as_bytes());
        put_binary(out, value.as_bytes());
    }
}

pub(super) fn put_string(out: &mut Vec<u8>, id: u8, text: Option<&str>) {
    put_data(out, id, text.map(str::as_bytes));
}

pub(super) fn put_data(out: &mut Vec<u8>, id: u8, data: Option<&[u8]>) {
    if let Some(data) = data {
        out.push(id);
        put_binary(out, data);
    }
}

pub(super) fn put_seconds(out: &mut Vec<u8>, id: u8, seconds: Option<u32>) {
    if let Some(seconds) = seconds {
        out.push(id);
        put_u32(out, seconds);
    }
}

impl MessageProperties {
    /// Takes one of its own properties; false for any other.
    pub(super) fn take(&mut self, id: u8, reader: &mut Reader) -> Result<bool> {
        match id {
            id::PAYLOAD_FORMAT => {
                let format = if flag(reader)? {
                    PayloadFormat::Utf8
                } else {
                    PayloadFormat::Bytes
                };
                set(&mut self.payload_format, format)
            }
            // [MQTT-3.3.2-19]
            id::CONTENT_TYPE => set(&mut self.content_type, reader.string()?),
            // [MQTT-3.3.2-13, -14]
            id::RESPONSE_TOPIC => set(&mut self.response_topic, reader.topic_name()?),
            id::CORRELATION_DATA => set(&mut self.correlation_data, reader.binary()?),
            _ => Ok(false),
        }
    }

    /// `None` where nothing was said.
    pub(super) fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }

    /// Bytes that [`MessageProperties::put`] appends.
    pub(super) fn encoded_len(&self) -> usize {
        let cut = |len: usize| len.min(u16::MAX.into());
        let data = |len: Option<usize>| len.map_or(0, |len| 3 + cut(len));
        let user = self
            .user
            .iter()
            .map(|(name, value)| 5 + cut(name.len()) + cut(value.len()));
        self.payload_format.map_or(0, |_| 2)
            + data(self.content_type.as_ref().map(|text| text.len()))
            + data(
                self.response_topic
                    .as_ref()
                    .map(|topic| topic.as_str().len()),
            )
            + data(self.correlation_data.as_ref().map(Bytes::len))
            + user.sum::<usize>()
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        if let Some(format) = self.payload_format {
            out.extend([id::PAYLOAD_FORMAT, format as u8]);
        }
        put_string(out, id::CONTENT_TYPE, self.content_type.as_deref());
        put_string(
            out,
            id::RESPONSE_TOPIC,
            self.response_topic.as_ref().map(TopicName::as_str),
        );
        put_data(out, id::CORRELATION_DATA, self.correlation_data.as_deref());
        put_user(out, &self.user);
    }
}
