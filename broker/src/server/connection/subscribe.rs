//! SUBSCRIBE and UNSUBSCRIBE: judged filter by filter, kept where the session outlives the
//! connection, and followed by what is retained.

use fleet::Excerpt;
use policy::Action;
use store::Behind;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Answer, Connection};
use crate::codec::{Qos, ReasonCode, RetainHandling, SubscriptionOptions};
use crate::server::clock::Clock;
use crate::server::layout::BodyRef;
use crate::server::message::{Message, subscription_facts};
use crate::server::reserved::LifecycleChange;
use crate::session::{SendOptions, SubscribeRequests, UnsubscribeRequests};
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
            let noted = decision.is_allow();
            self.judge.note(Action::Subscribe, filter.as_str(), noted);
            if !decision.is_allow() {
                request.verdict = ReasonCode::NotAuthorized;
                self.counters.denied_subscribe.add();
                if self.hub.denials.take() {
                    let explanation = grant.explain_for(Action::Subscribe, filter.as_str(), &facts);
                    let denial = self.identity.keep_denial(
                        &*self.hub.registry,
                        &self.key.client_id,
                        &explanation,
                        Clock::wall(self.now),
                    );
                    tracing::warn!(denial, owner = %self.key.owner, client_id = self.key.client_id.as_str(),
                        filter = ?Excerpt(filter.as_str()), "denied: {}", explanation.reason());
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
    /// the rest by the connection's backlog, which shares the messages with the index. There too waits
    /// what the journal has no room for yet.
    fn send_retained(&mut self, filter: &TopicFilter, options: &SubscriptionOptions) {
        // There are more than the bound where that was higher before the last start.
        let most = self.hub.limits.retained_messages;
        let most = most.max(self.hub.retained.volume().messages);
        for (message, send) in self.hub.retained_deliveries(filter, options, self.now) {
            if self.belongs_in_queue(&send) && self.queue_retained(&message, &send).is_ok() {
                continue;
            }
            // As many as there can be at all: more are copies, asked for again and again.
            if self.backlog.len() < most {
                self.backlog.push_back((message, send));
            } else {
                self.counters.dropped_queue_full.add();
            }
        }
    }

    /// Whether a retained message must not be sent past the session's queue: what is sent from there is sent again
    /// to a client that lost its connection, under the same packet identifier [MQTT-4.4.0-1], and never is another
    /// message under one that the client still holds.
    pub(super) fn belongs_in_queue(&self, options: &SendOptions) -> bool {
        options.qos > Qos::AtMostOnce && self.mailbox.is_durable()
    }

    /// Puts a retained message into the session's queue.
    pub(super) fn queue_retained(
        &self,
        message: &Message,
        options: &SendOptions,
    ) -> Result<(), Behind> {
        let (mailbox, counters) = (&self.mailbox, &self.counters);
        match mailbox.deliver(
            message,
            options.clone(),
            None,
            false,
            BodyRef::Inline,
            counters,
        ) {
            Ok(_) => Ok(()),
            Err(Behind::TooLarge { .. }) => {
                counters.dropped_too_large.add();
                Ok(())
            }
            Err(behind) => Err(behind),
        }
    }

    /// Whether the next retained message waits for room in the journal.
    pub(super) fn owes_retained(&self) -> bool {
        let next = self.backlog.front();
        self.staged.is_empty() && next.is_some_and(|(_, options)| self.belongs_in_queue(options))
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
