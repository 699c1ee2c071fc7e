use super::property::{self, put_user};
use super::reader::Reader;
use super::subscribe::too_many;
use super::writer::{self, put_binary, put_u16};
use super::{DecodeError, Limits, PacketId, UserProperties, Version};
use crate::topic::TopicFilter;

/// UNSUBSCRIBE (§3.10).
#[derive(Debug, Clone, PartialEq)]
pub struct Unsubscribe {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// At least one [MQTT-3.10.3-2].
    pub filters: Vec<TopicFilter>,
    /// User properties.
    pub user: UserProperties,
}

type Result<T> = std::result::Result<T, DecodeError>;

impl Unsubscribe {
    pub(super) fn read(mut body: Reader, version: Version, limits: &Limits) -> Result<Self> {
        let mut unsubscribe = Self {
            packet_id: body.packet_id()?,
            filters: Vec::new(),
            user: UserProperties::new(),
        };
        if version == Version::V5 {
            property::read(&mut body, limits, &mut unsubscribe.user, |_, _| Ok(false))?;
        }
        if body.is_empty() {
            return Err(DecodeError::protocol("UNSUBSCRIBE has no topic filter")); // [MQTT-3.10.3-2] [MQTT311-3.10.3-2]
        }
        while !body.is_empty() {
            if unsubscribe.filters.len() >= limits.filters_max {
                return Err(too_many(limits));
            }
            // [MQTT-3.10.3-1] [MQTT311-3.10.3-1]
            unsubscribe.filters.push(body.topic_filter()?);
        }
        Ok(unsubscribe)
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        writer::packet(out, 0xa2, |out| {
            put_u16(out, self.packet_id.get());
            writer::properties(out, version, |out| put_user(out, &self.user));
            for filter in &self.filters {
                put_binary(out, filter.as_str().as_bytes());
            }
        });
    }
}
