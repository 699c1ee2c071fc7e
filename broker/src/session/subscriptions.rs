use std::collections::HashSet;

use super::{Disconnect, Event, Published, Session};
use crate::codec::{
    PacketId, ReasonCode, SubAck, Subscribe, SubscriptionOptions, UnsubAck, Unsubscribe,
    UserProperties, Version,
};
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

impl<M: Published + Clone> Session<M> {
    pub(super) fn subscribe(&self, subscribe: Subscribe) -> Result<Event, Disconnect> {
        if self.settings.aws && subscribe.subscription_id.is_some() {
            // §3.2.2.3.12: announced as not available.
            return Err(Disconnect::new(
                ReasonCode::SubscriptionIdentifiersNotSupported,
                "subscription identifiers are not served here: subscribe without one",
            ));
        }
        self.check_answer_fits(subscribe.filters.len())?;
        // As if each filter came in a packet of its own [MQTT-3.8.4-5] [MQTT311-3.8.4-4]: the same one a second time finds
        // the subscription of the first.
        let mut new: HashSet<TopicFilter> = HashSet::new();
        let mut bytes = self.subscriptions.filter_bytes();
        let mut shared = self.subscriptions.shared();
        let requests = subscribe.filters.into_iter().map(|(filter, mut options)| {
            options.id = subscribe.subscription_id;
            // Never refused for its QoS [MQTT-3.2.2-10, 3.8.4-8].
            options.qos = options.qos.min(self.settings.qos_max());
            let existed = self.subscriptions.contains(&filter) || new.contains(&filter);
            let is_shared = filter.shared().is_some();
            let verdict = if !self.settings.takes_topic(filter.pattern()) {
                ReasonCode::TopicFilterInvalid
            } else if !existed
                && (self.subscriptions.len() + new.len() >= self.settings.subscriptions_max
                    || bytes + filter.as_str().len() > self.settings.subscription_bytes_max
                    || is_shared && shared >= self.settings.shared_subscriptions_max)
            {
                ReasonCode::QuotaExceeded
            } else {
                if !existed {
                    bytes += filter.as_str().len();
                    shared += usize::from(is_shared);
                    new.insert(filter.clone());
                }
                ReasonCode::granted(options.qos)
            };
            SubscribeRequest {
                filter,
                options,
                verdict,
                existed,
            }
        });
        Ok(Event::Subscribe(SubscribeRequests {
            requests: requests.collect(),
            packet_id: subscribe.packet_id,
        }))
    }

    pub(super) fn unsubscribe(&self, unsubscribe: Unsubscribe) -> Result<Event, Disconnect> {
        self.check_answer_fits(unsubscribe.filters.len())?;
        // As if each filter came in a packet of its own [MQTT-3.10.4-6] [MQTT311-3.10.4-6].
        let mut gone: HashSet<TopicFilter> = HashSet::new();
        let requests = unsubscribe.filters.into_iter().map(|filter| {
            let there = self.subscriptions.contains(&filter) && gone.insert(filter.clone());
            let reason = if there {
                ReasonCode::Success
            } else {
                ReasonCode::NoSubscriptionExisted
            };
            (filter, reason)
        });
        Ok(Event::Unsubscribe(UnsubscribeRequests {
            requests: requests.collect(),
            packet_id: unsubscribe.packet_id,
        }))
    }

    /// SUBACK and UNSUBACK have one byte per filter and must not be longer than the client takes [MQTT-3.1.2-24].
    fn check_answer_fits(&self, filters: usize) -> Result<(), Disconnect> {
        // First byte, four of length, packet identifier, empty properties.
        const HEAD_MAX_BYTES: usize = 1 + 4 + 2 + 1;
        if HEAD_MAX_BYTES + filters > self.packet_max_bytes {
            return Err(Disconnect::new(
                ReasonCode::PacketTooLarge,
                "the answer would be longer than the client's Maximum Packet Size: send fewer filters",
            ));
        }
        Ok(())
    }

    /// Answers an [`Event::Subscribe`]: what is still granted in it is now a subscription of the session
    /// [MQTT-3.8.4-1, -3, -7] [MQTT311-3.8.4-1, -3, -5]. One reason string speaks for all refusals.
    pub fn subscribed(
        &mut self,
        requests: SubscribeRequests,
        reason_string: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        let SubscribeRequests {
            packet_id,
            requests,
        } = requests;
        let mut suback = SubAck {
            packet_id,
            reasons: Vec::with_capacity(requests.len()),
            reason_string: self.reason_string(reason_string),
            user: UserProperties::new(),
        };
        for request in requests {
            let verdict = if SubAck::allows(request.verdict) {
                request.verdict
            } else {
                ReasonCode::Unspecified
            };
            suback.reasons.push(verdict);
            if !verdict.is_error() {
                self.subscriptions.insert(request.filter, request.options);
            }
        }
        if self.ended {
            return;
        }
        self.write_within(out, |out, with_string| {
            if !with_string {
                suback.reason_string = None;
            }
            suback.encode(self.version, out);
        });
    }

    /// Answers an [`Event::Unsubscribe`]: what is in it is no longer a subscription of the session [MQTT-3.10.4-1]
    /// [MQTT311-3.10.4-1]; what is in flight stays so.
    pub fn unsubscribed(&mut self, requests: UnsubscribeRequests, out: &mut Vec<u8>) {
        let UnsubscribeRequests {
            packet_id,
            requests,
        } = requests;
        let mut unsuback = UnsubAck {
            packet_id,
            reasons: Vec::with_capacity(requests.len()),
            reason_string: None,
            user: UserProperties::new(),
        };
        for (filter, reason) in requests {
            self.subscriptions.remove(&filter);
            if self.version == Version::V5 {
                unsuback.reasons.push(reason);
            }
        }
        if !self.ended {
            unsuback.encode(self.version, out); // [MQTT-3.10.4-4, -5] [MQTT311-3.10.4-4, -5]
        }
    }

    /// The subscriptions, in no order.
    pub fn subscriptions(
        &self,
    ) -> impl ExactSizeIterator<Item = (&TopicFilter, &SubscriptionOptions)> {
        self.subscriptions.iter()
    }

    /// The options of the subscription with this very filter.
    #[must_use]
    pub fn subscription(&self, filter: &TopicFilter) -> Option<SubscriptionOptions> {
        self.subscriptions.get(filter)
    }

    /// Takes a subscription away whose grant is lost. Whether there was one.
    pub fn remove_subscription(&mut self, filter: &TopicFilter) -> bool {
        self.subscriptions.remove(filter)
    }
}
