//! SUBSCRIBE and UNSUBSCRIBE: judged filter by filter, kept where the session outlives the
//! connection, and followed by what is retained.

use fleet::Excerpt;
use policy::Action;
use store::Behind;
use tokio::io::{AsyncRead, AsyncWrite};

use super::explanations::UNEXPLAINED;
use super::{Answer, Connection};
use crate::codec::{Qos, ReasonCode, RetainHandling, SubscriptionOptions};
use crate::server::clock::Clock;
use crate::server::layout::BodyRef;
use crate::server::mailbox::NotPut;
use crate::server::message::{Message, subscription_facts};
use crate::server::reserved::LifecycleChange;
use crate::server::retained::{GLANCE, SEEK};
use crate::server::work::{COPY, EXPLANATION, SUBSCRIPTION};
use crate::session::{SendOptions, SubscribeRequests, UnsubscribeRequests};
use crate::topic::TopicFilter;

/// Portions of what is retained that are looked for when a subscription is answered; the others follow as the client takes
/// them.
const PORTIONS_AT_ONCE: usize = 4;

/// What is told of a subscription that cannot be kept.
const NEARLY_FULL: &str =
    "the server's disk is nearly full: it keeps no more subscriptions until there is room";
const BEHIND: &str = "the server's disk is behind: subscribe again in a moment";

/// Where more than that waits for the client, nothing is queued ahead.
const QUEUED_AHEAD_MESSAGES: usize = 256;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn subscribe(&mut self, mut requests: SubscribeRequests) {
        let mut safe = None;
        let mut with_retained = Vec::new();
        let mut refused = None;
        for request in &mut requests.requests {
            if request.verdict.is_error() {
                continue;
            }
            self.work.spend(SUBSCRIPTION);
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
                    self.work.spend(EXPLANATION);
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
            // [MQTT-3.3.1-9, -10, -11, 3.8.4-4] [MQTT311-3.3.1-6, 3.8.4-3]. A shared subscription gets
            // no retained messages (§4.8.2).
            let wanted = match request.options.retain_handling {
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => !request.existed,
                RetainHandling::DoNotSend => false,
            } && filter.shared().is_none()
                && !(self.hub.aws && filter.has_wildcard());
            let mut noted = false;
            if self.mailbox.is_durable() {
                let number = self.mailbox.number();
                if wanted {
                    self.work.spend(GLANCE);
                    noted = self.hub.retained.may_match(filter, self.now);
                }
                // Still owed since it was asked for before; who wants none now is owed none after a restart.
                if request.options.retain_handling != RetainHandling::DoNotSend {
                    noted |= self.owed.as_ref().is_some_and(|owed| owed.is_noted(filter));
                }
                match self
                    .hub
                    .durable
                    .put_subscription(number, filter, &request.options, noted)
                {
                    Ok(lsn) => safe = safe.max(Some(lsn)),
                    Err(_) if self.hub.durable.journal().is_nearly_full() => {
                        request.verdict = ReasonCode::QuotaExceeded;
                        refused = Some(NEARLY_FULL);
                        continue;
                    }
                    Err(_) => {
                        request.verdict = ReasonCode::ImplementationSpecific;
                        refused = refused.or(Some(BEHIND));
                        continue;
                    }
                }
            }
            self.hub.subscribe(&self.mailbox, filter, request.options);
            if wanted {
                with_retained.push((filter.clone(), request.options, noted));
            }
        }
        self.answer_when(safe, Answer::Subscribe(requests, with_retained, refused));
    }

    pub(super) fn answer_subscribe(
        &mut self,
        requests: SubscribeRequests,
        with_retained: Vec<(TopicFilter, SubscriptionOptions, bool)>,
        refused: Option<&'static str>,
    ) {
        let denied = requests
            .requests
            .iter()
            .find(|request| request.verdict == ReasonCode::NotAuthorized);
        let reason = denied.map(|request| {
            let filter = request.filter.as_str();
            if !self.explanations.take(filter, self.now) {
                return UNEXPLAINED.to_owned();
            }
            self.work.spend(EXPLANATION);
            let facts = subscription_facts(&request.options);
            let explanation = self
                .judge
                .grant()
                .explain_for(Action::Subscribe, filter, &facts);
            explanation.reason()
        });
        let reason = reason.or(refused.map(str::to_owned));
        let granted = requests.requests.iter().filter(|r| !r.verdict.is_error());
        let granted: Vec<TopicFilter> = granted.map(|request| request.filter.clone()).collect();
        if !granted.is_empty() {
            self.tell(LifecycleChange::Subscribed(granted));
        }
        self.session
            .subscribed(requests, reason.as_deref(), &mut self.out);
        if with_retained.is_empty() {
            return;
        }
        let until = self.hub.retained.newest();
        let owed = self.owed.get_or_insert_default();
        for (filter, options, noted) in with_retained {
            owed.add(filter, options, until, noted);
        }
        // Of a session that is kept the first of them wait in its queue from now on.
        for _ in 0..PORTIONS_AT_ONCE {
            let waits = self.owed.as_ref().is_none_or(|owed| owed.next().is_some());
            if waits || self.work.is_spent() || self.mailbox.waiting() > QUEUED_AHEAD_MESSAGES {
                break;
            }
            self.look_for_retained();
        }
    }

    /// Finds the next portion of what is retained under new subscriptions. It goes the way of every delivery: QoS 1 and 2
    /// of a durable session by its queue, the rest past it. There too waits what the journal has no room for yet.
    pub(super) fn look_for_retained(&mut self) {
        self.note_settled();
        let Some(owed) = &mut self.owed else { return };
        let Some((messages, options)) = owed.portion(&self.hub, self.now, &mut self.work) else {
            self.owed = None;
            return;
        };
        for message in messages {
            let send = SendOptions::retained(message.qos(), &options);
            self.work.spend(COPY + SEEK);
            let full = self.owed.as_ref().is_some_and(|owed| owed.next().is_some());
            if !full && self.belongs_in_queue(&send) && self.queue_retained(&message, &send).is_ok()
            {
                continue;
            }
            if let Some(owed) = &mut self.owed {
                owed.keep(message, send);
            }
        }
    }

    /// Writes down that nothing is owed any more of a subscription. Where the journal does not take that, or is just taking
    /// that subscription anew, it stays as it is: after a restart the client is told once more.
    fn note_settled(&mut self) {
        let Some(filter) = self.owed.as_mut().and_then(|owed| owed.settled()) else {
            return;
        };
        if !self.is_subscribing()
            && let Some(options) = self.session.subscription(&filter)
        {
            let number = self.mailbox.number();
            let _ = self
                .hub
                .durable
                .put_subscription(number, &filter, &options, false);
        }
    }

    /// Whether a retained message must not be sent past the session's queue: what is sent from there is sent again
    /// to a client that lost its connection, under the same packet identifier [MQTT-4.4.0-1], and never is another
    /// message under one that the client still holds.
    pub(super) fn belongs_in_queue(&self, options: &SendOptions) -> bool {
        options.qos > Qos::AtMostOnce && self.mailbox.is_durable()
    }

    /// Puts a retained message into the session's queue, unless another has come under its topic since it was found: that
    /// one is on its way, or there already.
    pub(super) fn queue_retained(
        &self,
        message: &Message,
        options: &SendOptions,
    ) -> Result<(), Behind> {
        let (mailbox, counters) = (&self.mailbox, &self.counters);
        let put = self.hub.retained.while_kept(message, || {
            let options = options.clone();
            mailbox.deliver(message, options, None, false, BodyRef::Inline, counters)
        });
        match put {
            Some(Err(NotPut::Behind(Behind::TooLarge { .. }))) => {
                counters.dropped_too_large.add();
                Ok(())
            }
            Some(Err(NotPut::Behind(behind))) => Err(behind),
            None | Some(Ok(_) | Err(NotPut::Ended)) => Ok(()),
        }
    }

    /// Whether the next retained message waits for room in the journal.
    pub(super) fn owes_retained(&self) -> bool {
        let next = self.owed.as_ref().and_then(|owed| owed.next());
        self.staged.is_empty() && next.is_some_and(|(_, options)| self.belongs_in_queue(options))
    }

    pub(super) fn unsubscribe(&mut self, requests: UnsubscribeRequests) {
        let mut safe = None;
        for filter in requests.filters() {
            self.work.spend(SUBSCRIPTION);
            if let Some(owed) = &mut self.owed {
                owed.forget(filter);
            }
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
