use crate::codec::{PacketId, Qos, SubscriptionOptions};

/// How one publication goes to one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendOptions {
    /// The smaller of the publication's and the subscription's.
    pub qos: Qos,
    /// RETAIN flag.
    pub retain: bool,
}

impl SendOptions {
    /// A publication as it happens: the smaller QoS [MQTT-3.8.4-8]; RETAIN only if the subscription wants it as
    /// published [MQTT-3.3.1-12, -13]. `None` where it is the receiver's own and No Local is set [MQTT-3.8.3-3].
    pub fn live(
        published: Qos,
        retain: bool,
        own: bool,
        subscription: &SubscriptionOptions,
    ) -> Option<Self> {
        (!(own && subscription.no_local)).then(|| Self {
            qos: published.min(subscription.qos),
            retain: retain && subscription.retain_as_published,
        })
    }

    /// A retained message for a new subscription: always with RETAIN [MQTT-3.3.1-8].
    pub fn retained(published: Qos, subscription: &SubscriptionOptions) -> Self {
        Self {
            qos: published.min(subscription.qos),
            retain: true,
        }
    }
}

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is in the output; from QoS 1 on, in flight under this packet identifier.
    Written(Option<PacketId>),
    /// It is not, and never will be: count it and forget it.
    Dropped(DropReason),
}

/// Why a message is not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// Longer than the client's Maximum Packet Size [MQTT-3.1.2-24, -25].
    TooLarge,
    /// Its expiry has passed [MQTT-3.3.2-5].
    Expired,
    /// The shell refused it.
    Refused,
    /// [`super::Session::may_send`] was false.
    NoRoom,
}
