use std::num::NonZeroU16;

use bytes::Bytes;

use super::property::{self, id, put_seconds};
use super::reader::Reader;
use super::writer::{put_binary, put_u16, put_varint, varint_len};
use super::{
    DecodeError, Limits, MessageProperties, PacketId, Qos, ReasonCode, UserProperties, Version,
};
use crate::topic::TopicName;

/// QoS with what belongs to it: a packet identifier from QoS 1 on [MQTT-2.2.1-2] [MQTT311-2.3.1-5], and DUP only there
/// [MQTT-3.3.1-2, 4.3.1-1] [MQTT311-3.3.1-2, 4.3.1-1].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce {
        /// Packet identifier.
        packet_id: PacketId,
        /// Sent before.
        dup: bool,
    },
    /// QoS 2.
    ExactlyOnce {
        /// Packet identifier.
        packet_id: PacketId,
        /// Sent before.
        dup: bool,
    },
}

impl Delivery {
    /// The QoS of the flags.
    #[must_use]
    pub const fn qos(self) -> Qos {
        match self {
            Self::AtMostOnce => Qos::AtMostOnce,
            Self::AtLeastOnce { .. } => Qos::AtLeastOnce,
            Self::ExactlyOnce { .. } => Qos::ExactlyOnce,
        }
    }

    /// The packet identifier, from QoS 1 on.
    #[must_use]
    pub const fn packet_id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce { packet_id, .. } | Self::ExactlyOnce { packet_id, .. } => {
                Some(packet_id)
            }
        }
    }
}

/// PUBLISH (§3.3).
#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    /// QoS, packet identifier and DUP.
    pub delivery: Delivery,
    /// RETAIN.
    pub retain: bool,
    /// The topic; `None` only with a topic alias (MQTT 5).
    pub topic: Option<TopicName>,
    /// Topic Alias.
    pub topic_alias: Option<NonZeroU16>,
    /// Message Expiry Interval in seconds.
    pub expiry_s: Option<u32>,
    /// Subscription Identifiers, 1 to 268,435,455 each; only from server to client.
    pub subscription_ids: Vec<u32>,
    /// What is forwarded unchanged; `None` when there is nothing, always in 3.1.1.
    pub properties: Option<Box<MessageProperties>>,
    /// Application message.
    pub payload: Bytes,
}

type Result<T> = std::result::Result<T, DecodeError>;

impl Publish {
    /// The first byte's flags were checked with the fixed header.
    pub(super) fn read(
        first: u8,
        mut body: Reader,
        version: Version,
        limits: &Limits,
    ) -> Result<Self> {
        // [MQTT-3.3.2-1] [MQTT311-3.3.2-1]
        let topic = body.binary()?;
        let dup = first & 0b1000 != 0;
        let delivery = match Reader::qos((first >> 1) & 0b11)? {
            Qos::AtMostOnce => Delivery::AtMostOnce,
            Qos::AtLeastOnce => Delivery::AtLeastOnce {
                packet_id: body.packet_id()?,
                dup,
            },
            Qos::ExactlyOnce => Delivery::ExactlyOnce {
                packet_id: body.packet_id()?,
                dup,
            },
        };
        let mut publish = Self {
            delivery,
            retain: first & 1 != 0,
            topic: None,
            topic_alias: None,
            expiry_s: None,
            subscription_ids: Vec::new(),
            properties: None,
            payload: Bytes::new(),
        };
        if version == Version::V5 {
            publish.read_properties(&mut body, limits)?;
        }
        if !topic.is_empty() {
            publish.topic = Some(Reader::topic_name_of(topic)?);
        } else if version == Version::V311 {
            return Err(DecodeError::malformed("the topic is empty")); // [MQTT-4.7.3-1] [MQTT311-4.7.3-1]
        } else if publish.topic_alias.is_none() {
            // §3.3.2.1
            return Err(DecodeError::protocol(
                "the topic is empty and there is no topic alias",
            ));
        }
        publish.payload = body.into_rest();
        Ok(publish)
    }

    fn read_properties(&mut self, body: &mut Reader, limits: &Limits) -> Result<()> {
        let mut message = MessageProperties::default();
        let mut user = UserProperties::new();
        property::read(body, limits, &mut user, |id, reader| match id {
            id::MESSAGE_EXPIRY => property::set(&mut self.expiry_s, reader.u32()?),
            id::TOPIC_ALIAS => match NonZeroU16::new(reader.u16()?) {
                Some(alias) => property::set(&mut self.topic_alias, alias),
                // [MQTT-3.3.2-8]
                None => Err(DecodeError::new(
                    ReasonCode::TopicAliasInvalid,
                    "the topic alias is 0",
                )),
            },
            id::SUBSCRIPTION_ID => {
                if self.subscription_ids.len() >= limits.filters_max {
                    return Err(DecodeError::new(
                        ReasonCode::QuotaExceeded,
                        "too many subscription identifiers",
                    ));
                }
                self.subscription_ids
                    .push(property::subscription_id(reader)?);
                Ok(true)
            }
            _ => message.take(id, reader),
        })?;
        message.user = user;
        self.properties = message.boxed();
        Ok(())
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        PublishRef {
            delivery: self.delivery,
            retain: self.retain,
            topic: self.topic.as_ref().map_or("", TopicName::as_str),
            topic_alias: self.topic_alias,
            expiry_s: self.expiry_s,
            subscription_ids: &self.subscription_ids,
            properties: self.properties.as_deref(),
            payload: &self.payload,
        }
        .encode(version, out);
    }
}

/// A PUBLISH made of borrowed parts: one publication is encoded for many receivers without being cloned.
#[derive(Debug, Clone, Copy)]
pub struct PublishRef<'a> {
    /// QoS, packet identifier and DUP.
    pub delivery: Delivery,
    /// RETAIN.
    pub retain: bool,
    /// The topic; empty only with a topic alias.
    pub topic: &'a str,
    /// Topic Alias.
    pub topic_alias: Option<NonZeroU16>,
    /// Message Expiry Interval in seconds.
    pub expiry_s: Option<u32>,
    /// Subscription Identifiers.
    pub subscription_ids: &'a [u32],
    /// What is forwarded unchanged.
    pub properties: Option<&'a MessageProperties>,
    /// Application message.
    pub payload: &'a [u8],
}

impl PublishRef<'_> {
    /// Bytes of the whole packet; above 268,435,460 it cannot be encoded.
    #[must_use]
    pub fn encoded_len(&self, version: Version) -> usize {
        let remaining = self.remaining_len(version);
        1 + varint_len(remaining) + remaining
    }

    fn remaining_len(&self, version: Version) -> usize {
        let properties = match version {
            Version::V311 => 0,
            Version::V5 => {
                let len = self.properties_len();
                varint_len(len) + len
            }
        };
        let packet_id = self.delivery.packet_id().map_or(0, |_| 2);
        2 + self.topic.len() + packet_id + properties + self.payload.len()
    }

    fn properties_len(&self) -> usize {
        let ids = self
            .subscription_ids
            .iter()
            .map(|id| 1 + varint_len(*id as usize));
        self.topic_alias.map_or(0, |_| 3)
            + self.expiry_s.map_or(0, |_| 5)
            + ids.sum::<usize>()
            + self.properties.map_or(0, MessageProperties::encoded_len)
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let remaining = self.remaining_len(version);
        out.reserve(5 + remaining);
        let dup = match self.delivery {
            Delivery::AtMostOnce => false,
            Delivery::AtLeastOnce { dup, .. } | Delivery::ExactlyOnce { dup, .. } => dup,
        };
        out.push(
            0x30 | u8::from(dup) << 3 | (self.delivery.qos() as u8) << 1 | u8::from(self.retain),
        );
        put_varint(out, remaining);
        put_binary(out, self.topic.as_bytes());
        if let Some(packet_id) = self.delivery.packet_id() {
            put_u16(out, packet_id.get());
        }
        if version == Version::V5 {
            put_varint(out, self.properties_len());
            self.put_properties(out);
        }
        out.extend_from_slice(self.payload);
    }

    fn put_properties(&self, out: &mut Vec<u8>) {
        if let Some(alias) = self.topic_alias {
            out.push(id::TOPIC_ALIAS);
            put_u16(out, alias.get());
        }
        put_seconds(out, id::MESSAGE_EXPIRY, self.expiry_s);
        for id in self.subscription_ids {
            out.push(id::SUBSCRIPTION_ID);
            put_varint(out, *id as usize);
        }
        if let Some(properties) = self.properties {
            properties.put(out);
        }
    }
}
