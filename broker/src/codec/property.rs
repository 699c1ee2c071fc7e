use bytes::Bytes;
use bytes_utils::Str;

use crate::topic::TopicName;

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

/// What travels unchanged from publisher to receiver [MQTT-3.3.2-4, -15, -16, -17, -20].
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
    /// User Property, any number, in order.
    pub user: UserProperties,
}
