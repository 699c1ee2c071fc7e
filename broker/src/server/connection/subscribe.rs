//! SUBSCRIBE and UNSUBSCRIBE: judged filter by filter, kept where the session outlives the
//! connection, and followed by what is retained.

use policy::Action;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Answer, Connection};
use crate::codec::{Qos, ReasonCode, RetainHandling, SubscriptionOptions};
use crate::server::layout::BodyRef;
use crate::server::message::subscription_facts;
use crate::server::reserved::LifecycleChange;
use crate::session::{SubscribeRequests, UnsubscribeRequests};
use crate::topic::TopicFilter;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn subscribe(&mut self, mut requests: SubscribeRequests) {
        let mut safe = None;
        let mut with_retained = Vec::new();
        for request in &mut requests.requests {
            if request.verdict.is_error() {
                continue;
            }
            let filter = &request.filter;
            let grant = self.judge.grant();
            let facts = subscription_facts(&request.options);
            let decision = grant.decide_for(Action::Subscribe, filter.as_str(), &facts);
            if !decision.is_allow() {
                request.verdict = ReasonCode::NotAuthorized;
                self.counters.denied_subscribe.add();
                if self.hub.denials.take() {
                    let explanation = grant.explain_for(Action::Subscribe, filter.as_str(), &facts);
                    tracing::warn!(owner = %self.key.owner, client_id = self.key.client_id.as_str(),
                        filter = filter.as_str(), "denied: {}", explanation.reason());
                }
                continue;
            }
            if self.mailbox.is_durable() {
                let number = self.mailbox.number();
                match self
                    .hub
                    .durable
                    .put_subscription(number, filter, &request.options)
                {
                    Ok(lsn) => safe = safe.max(Some(lsn)),
                    Err(_) => {
                        request.verdict = ReasonCode::ImplementationSpecific;
                        continue;
                    }
                }
            }
            self.hub.subscribe(&self.mailbox, filter, request.options);
            // [MQTT-3.3.1-9, -10, -11, 3.8.4-4] [MQTT311-3.3.1-6, 3.8.4-3]. A shared subscription gets
            // no retained messages (§4.8.2).
            let wanted = match request.options.retain_handling {
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => !request.existed,
                RetainHandling::DoNotSend => false,
            } && filter.shared().is_none()
                && !(self.hub.aws && filter.has_wildcard());
            if wanted {
                with_retained.push((filter.clone(), request.options));
            }
        }
        self.answer_when(safe, Answer::Subscribe(requests, with_retained));
    }

    pub(super) fn answer_subscribe(
        &mut self,
        requests: SubscribeRequests,
        with_retained: Vec<(TopicFilter, SubscriptionOptions)>,
    ) {
        let reason = requests
            .requests
            .iter()
            .find(|request| request.verdict == ReasonCode::NotAuthorized)
            .map(|request| {
                let filter = request.filter.as_str();
                let grant = self.judge.grant();
                let facts = subscription_facts(&request.options);
                grant
                    .explain_for(Action::Subscribe, filter, &facts)
                    .reason()
            });
        let granted = requests.requests.iter().filter(|r| !r.verdict.is_error());
        let granted: Vec<TopicFilter> = granted.map(|request| request.filter.clone()).collect();
        if !granted.is_empty() {
            self.tell(LifecycleChange::Subscribed(granted));
        }
        self.session
            .subscribed(requests, reason.as_deref(), &mut self.out);
        for (filter, options) in with_retained {
            self.send_retained(&filter, &options);
        }
    }

    /// What is retained goes the way of every delivery: QoS 1 and 2 of a durable session by its queue,
    /// the rest by the connection's backlog, which shares the messages with the index.
    fn send_retained(&mut self, filter: &TopicFilter, options: &SubscriptionOptions) {
        for (message, send) in self.hub.retained_deliveries(filter, options, self.now) {
            let queued = send.qos > Qos::AtMostOnce
                && self.mailbox.is_durable()
                && self
                    .mailbox
                    .deliver(
                        &message,
                        send.clone(),
                        None,
                        false,
                        BodyRef::Inline,
                        &self.counters,
                    )
                    .is_ok();
            if queued {
                continue;
            }
            // As many as there can be at all: more are copies, asked for again and again.
            if self.backlog.len() < self.hub.limits.retained_messages {
                self.backlog.push_back((message, send));
            } else {
                self.counters.dropped_queue_full.add();
            }
        }
    }

    pub(super) fn unsubscribe(&mut self, requests: UnsubscribeRequests) {
        let mut safe = None;
        for filter in requests.filters() {
            // What is sent already is not called back [MQTT-3.10.4-2, -3] [MQTT311-3.10.4-2, -3].
            self.hub.unsubscribe(self.mailbox.number(), filter);
            if self.mailbox.is_durable() {
                let number = self.mailbox.number();
                safe = safe.max(self.hub.durable.delete_subscription(number, filter));
            }
        }
        self.answer_when(safe, Answer::Unsubscribe(requests));
    }
}
