use std::num::{NonZeroU16, NonZeroU32};
use std::ops::RangeInclusive;

use crate::codec::{Connect, Limits, Qos, Version};
use crate::topic::{TOPIC_MAX_BYTES, TOPIC_MAX_LEVELS};

/// Keep alive AWS IoT serves, in seconds; 0 is the longest.
const AWS_KEEP_ALIVE_S: RangeInclusive<u16> = 30..=1200;

/// What the server grants every client; announced in CONNACK where MQTT 5 can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// PUBLISH packets of QoS 1 and 2 held unacknowledged from a client (Receive Maximum).
    pub receive_max_messages: NonZeroU16,
    /// PUBLISH packets of QoS 1 and 2 in flight to a client, less where its own Receive Maximum is less.
    pub in_flight_max_messages: NonZeroU16,
    /// Longest packet taken from a client, in bytes (Maximum Packet Size).
    pub packet_max_bytes: NonZeroU32,
    /// Longest keep alive in seconds; a MQTT 5 client that asks for more or for none is told this one (Server Keep
    /// Alive). 3.1.1 cannot be told, so there the client's own holds.
    pub keep_alive_max_s: Option<NonZeroU16>,
    /// Longest time in seconds a session outlives its connection; longer wishes are clipped and told so.
    pub session_expiry_max_s: u32,
    /// Subscriptions of one session.
    pub subscriptions_max: usize,
    /// Bytes of the filters of one session's subscriptions, all together.
    pub subscription_bytes_max: usize,
    /// Shared subscriptions among them.
    pub shared_subscriptions_max: usize,
    /// Highest topic alias a client may use (Topic Alias Maximum).
    pub topic_alias_max: u16,
    /// Highest topic alias used towards a client, less where its own Topic Alias Maximum is less.
    pub topic_alias_outgoing_max: u16,
    /// Bytes of a topic name or filter.
    pub topic_max_bytes: usize,
    /// Levels of a topic name or filter, `$share/NAME/` not counted.
    pub topic_levels_max: usize,
    /// Filters in one SUBSCRIBE or UNSUBSCRIBE.
    pub filters_max: usize,
    /// User properties in one packet.
    pub user_properties_max: usize,
    /// AWS IoT's deviations from the standard where its device SDKs may count on them: no QoS 2, no subscription
    /// identifiers, keep alive of 30 to 1,200 seconds.
    pub aws: bool,
}

impl Default for Settings {
    fn default() -> Self {
        const TWENTY: NonZeroU16 = NonZeroU16::new(20).unwrap();
        Self {
            receive_max_messages: TWENTY,
            in_flight_max_messages: TWENTY,
            packet_max_bytes: const { NonZeroU32::new(256 * 1024).unwrap() },
            keep_alive_max_s: None,
            session_expiry_max_s: 7 * 24 * 3600,
            subscriptions_max: 20_000,
            subscription_bytes_max: 1024 * 1024,
            shared_subscriptions_max: 50,
            topic_alias_max: 10,
            topic_alias_outgoing_max: 16,
            topic_max_bytes: TOPIC_MAX_BYTES,
            topic_levels_max: TOPIC_MAX_LEVELS,
            filters_max: 1_000,
            user_properties_max: 64,
            aws: false,
        }
    }
}

impl Settings {
    /// Highest QoS served.
    pub(super) const fn qos_max(&self) -> Qos {
        if self.aws {
            Qos::AtLeastOnce
        } else {
            Qos::ExactlyOnce
        }
    }

    /// The Server Keep Alive that this client must be told, if any.
    pub(super) fn server_keep_alive_s(&self, connect: &Connect) -> Option<u16> {
        if self.aws {
            // In 3.1.1 too, although it cannot be told there.
            let served = match connect.keep_alive_s {
                0 => *AWS_KEEP_ALIVE_S.end(),
                asked => asked.clamp(*AWS_KEEP_ALIVE_S.start(), *AWS_KEEP_ALIVE_S.end()),
            };
            return (served != connect.keep_alive_s).then_some(served);
        }
        let max = self.keep_alive_max_s?.get();
        let told = connect.version == Version::V5
            && (connect.keep_alive_s == 0 || connect.keep_alive_s > max);
        told.then_some(max)
    }

    /// The bounds on topics in words.
    pub(crate) fn topic_bounds(&self) -> String {
        format!(
            "a topic has at most {} bytes and {} levels here",
            self.topic_max_bytes, self.topic_levels_max
        )
    }

    /// Whether a topic name or filter is within the bounds.
    pub(crate) fn takes_topic(&self, text: &str) -> bool {
        text.len() <= self.topic_max_bytes
            // A text shorter than the bound has fewer levels than it.
            && (text.len() < self.topic_levels_max
                || text.split('/').count() <= self.topic_levels_max)
    }

    /// What the decoder holds a client to.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits {
            packet_max_bytes: self.packet_max_bytes.get(),
            user_properties_max: self.user_properties_max,
            filters_max: self.filters_max,
        }
    }
}
