use super::property::{self, id, put_user};
use super::reader::Reader;
use super::writer::{self, put_binary, put_u16, put_varint};
use super::{DecodeError, Limits, PacketId, Qos, ReasonCode, UserProperties, Version};
use crate::topic::TopicFilter;

/// Retain Handling (§3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// Send retained messages at every SUBSCRIBE; the only way of 3.1.1.
    Send = 0,
    /// Send them only where the subscription is new.
    SendIfNew = 1,
    /// Do not send them.
    DoNotSend = 2,
}

/// Subscription options (§3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// Highest QoS of deliveries.
    pub qos: Qos,
    /// Do not deliver what the same client published [MQTT-3.8.3-3].
    pub no_local: bool,
    /// Deliver with the RETAIN flag of the publisher [MQTT-3.3.1-12, -13].
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
    /// Subscription Identifier of the SUBSCRIBE it came with; not part of the options byte.
    pub id: Option<u32>,
}

/// SUBSCRIBE (§3.8).
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// At least one [MQTT-3.8.3-2].
    pub filters: Vec<(TopicFilter, SubscriptionOptions)>,
    /// Subscription Identifier, 1 to 268,435,455.
    pub subscription_id: Option<u32>,
    /// User properties.
    pub user: UserProperties,
}

type Result<T> = std::result::Result<T, DecodeError>;

impl SubscriptionOptions {
    /// What 3.1.1 can say: a QoS.
    #[must_use]
    pub const fn new(qos: Qos) -> Self {
        Self {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
            id: None,
        }
    }

    fn read(byte: u8, version: Version, filter: &TopicFilter) -> Result<Self> {
        let reserved = match version {
            Version::V311 => 0xfc, // [MQTT311-3.8.3-4]
            Version::V5 => 0xc0,   // [MQTT-3.8.3-5]
        };
        if byte & reserved != 0 {
            return Err(DecodeError::malformed(
                "reserved bits of the subscription options are set",
            ));
        }
        let options = Self {
            // [MQTT311-3.8.3-4]
            qos: Reader::qos(byte & 0b11)?,
            no_local: byte & 0b100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling: match byte >> 4 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                // §3.8.3.1
                _ => {
                    return Err(DecodeError::protocol(
                        "retain handling 3 does not exist: use 0, 1 or 2",
                    ));
                }
            },
            id: None,
        };
        if options.no_local && filter.shared().is_some() {
            // [MQTT-3.8.3-4]
            return Err(DecodeError::protocol(
                "No Local is set on a shared subscription",
            ));
        }
        Ok(options)
    }

    const fn byte(self, version: Version) -> u8 {
        let qos = self.qos as u8;
        match version {
            Version::V311 => qos,
            Version::V5 => {
                qos | (self.no_local as u8) << 2
                    | (self.retain_as_published as u8) << 3
                    | (self.retain_handling as u8) << 4
            }
        }
    }
}

impl Subscribe {
    pub(super) fn read(mut body: Reader, version: Version, limits: &Limits) -> Result<Self> {
        let mut subscribe = Self {
            packet_id: body.packet_id()?,
            filters: Vec::new(),
            subscription_id: None,
            user: UserProperties::new(),
        };
        if version == Version::V5 {
            let subscription_id = &mut subscribe.subscription_id;
            property::read(
                &mut body,
                limits,
                &mut subscribe.user,
                |id, reader| match id {
                    id::SUBSCRIPTION_ID if subscription_id.is_some() => {
                        Err(DecodeError::protocol("a property is there twice")) // §3.8.2.1.2
                    }
                    id::SUBSCRIPTION_ID => {
                        property::set(subscription_id, property::subscription_id(reader)?)
                    }
                    _ => Ok(false),
                },
            )?;
        }
        if body.is_empty() {
            return Err(DecodeError::protocol("SUBSCRIBE has no topic filter")); // [MQTT-3.8.3-2] [MQTT311-3.8.3-3]
        }
        while !body.is_empty() {
            if subscribe.filters.len() >= limits.filters_max {
                return Err(too_many(limits));
            }
            // [MQTT-3.8.3-1] [MQTT311-3.8.3-1]
            let filter = body.topic_filter()?;
            let options = SubscriptionOptions::read(body.u8()?, version, &filter)?;
            subscribe.filters.push((filter, options));
        }
        Ok(subscribe)
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        writer::packet(out, 0x82, |out| {
            put_u16(out, self.packet_id.get());
            writer::properties(out, version, |out| {
                if let Some(id) = self.subscription_id {
                    out.push(id::SUBSCRIPTION_ID);
                    put_varint(out, id as usize);
                }
                put_user(out, &self.user);
            });
            for (filter, options) in &self.filters {
                put_binary(out, filter.as_str().as_bytes());
                out.push(options.byte(version));
            }
        });
    }
}

/// For SUBSCRIBE and UNSUBSCRIBE.
pub(super) fn too_many(limits: &Limits) -> DecodeError {
    let text = format!(
        "more than {} topic filters in one packet: send several",
        limits.filters_max
    );
    DecodeError::new(ReasonCode::QuotaExceeded, text)
}
