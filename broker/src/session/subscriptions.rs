use crate::codec::{PacketId, ReasonCode, SubscriptionOptions};
use crate::topic::TopicFilter;

/// The filters of a SUBSCRIBE, each with the verdict so far: what the session cannot serve is already refused.
#[derive(Debug, PartialEq)]
pub struct SubscribeRequests {
    pub(super) packet_id: PacketId,
    /// In the order of the packet. Put a refusal into `verdict` where the client may not; never grant what is refused.
    pub requests: Vec<SubscribeRequest>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscribeRequest {
    /// What is asked for.
    pub filter: TopicFilter,
    /// With the QoS as it would be granted.
    pub options: SubscriptionOptions,
    /// Granted QoS, or why not.
    pub verdict: ReasonCode,
    /// Whether the session had the subscription before; retain handling asks for it.
    pub existed: bool,
}

/// The filters of an UNSUBSCRIBE.
#[derive(Debug, PartialEq)]
pub struct UnsubscribeRequests {
    pub(super) packet_id: PacketId,
    pub(super) requests: Vec<(TopicFilter, ReasonCode)>,
}

impl UnsubscribeRequests {
    /// The filters that are subscriptions of the session until `unsubscribed`.
    pub fn filters(&self) -> impl Iterator<Item = &TopicFilter> {
        self.requests
            .iter()
            .filter(|(_, reason)| *reason == ReasonCode::Success)
            .map(|(filter, _)| filter)
    }
}
