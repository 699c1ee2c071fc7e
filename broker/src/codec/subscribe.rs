use super::{PacketId, Qos, UserProperties, Version};
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

impl Subscribe {
    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        todo!()
    }
}
