//! The registry's word while the connection lives: one atomic load per turn, the rest only when
//! something about the principal has changed.

use policy::{Action, Grant, MessageFacts};
use tokio::io::{AsyncRead, AsyncWrite};

use super::withdrawn::{PORTION_MESSAGES, Sieve};
use super::{Answer, Connection, End, Waiting};
use crate::codec::ReasonCode;
use crate::server::broker::LostSubscription;
use crate::server::clock::{Clock, time_of};
use crate::server::identity;
use crate::server::mailbox::Signal;
use crate::server::message::subscription_facts;
use crate::server::reserved::LifecycleChange;
use crate::server::work::{DECISION, PACKET};
use crate::topic::TopicFilter;

/// Work of a portion of what waits.
const SIEVE: usize = PORTION_MESSAGES * PACKET;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Ends the connection of a certificate that is no longer good, and applies changed policies:
    /// to the connection, to each subscription, to everything remembered.
    pub(super) fn check_standing(&mut self) -> Result<(), End> {
        // Read before the standing itself: a change in between is seen the next time.
        let generation = match &self.watch {
            Some(watch) => watch.generation(),
            None => self.identity.standing.generation(),
        };
        if generation == self.generation {
            return Ok(());
        }
        if let Some(reason) = self.lost.take() {
            return Err(End::Denied(ReasonCode::NotAuthorized, reason));
        }
        self.generation = generation;
        let standing = self.identity.standing.now();
        identity::check(&standing, Clock::wall(self.now)).map_err(End::Revoked)?;
        if self.identity.session_key(&standing, &self.key.client_id) != self.key {
            return Err(End::Moved);
        }
        let grant = self.identity.grant(
            &*self.hub.registry,
            &standing,
            &self.key.client_id,
            Clock::wall(self.now),
        );
        self.not_after = time_of(identity::good_until(&standing, &grant));
        let client_id = self.key.client_id.as_str();
        if !grant.decide(Action::Connect, client_id).is_allow() {
            self.counters.denied_connect.add();
            let reason = grant.explain(Action::Connect, client_id).reason();
            return Err(End::Denied(ReasonCode::NotAuthorized, reason));
        }
        self.work
            .spend(self.session.subscriptions().len() * DECISION);
        let lost: Vec<(TopicFilter, MessageFacts)> = self
            .session
            .subscriptions()
            .map(|(filter, options)| (filter, subscription_facts(options)))
            .filter(|(filter, facts)| {
                let decision = grant.decide_for(Action::Subscribe, filter.as_str(), facts);
                !decision.is_allow()
            })
            .map(|(filter, facts)| (filter.clone(), facts))
            .collect();
        for (filter, _) in &lost {
            self.lose(filter);
        }
        self.sift_out(lost.iter().map(|(filter, _)| filter.clone()).collect());
        if let Some((filter, facts)) = lost.first()
            && self.hub.lost_subscription == LostSubscription::Disconnect
        {
            let explanation = grant.explain_for(Action::Subscribe, filter.as_str(), facts);
            return Err(End::Denied(ReasonCode::NotAuthorized, explanation.reason()));
        }
        self.judge_waiting(&grant);
        self.routes.clear(&self.judge);
        self.judge.replace(grant);
        self.judge_stalled()
    }

    /// A SUBSCRIBE whose answer waits for the disk is judged again: the session has its subscriptions from the answer on.
    fn judge_waiting(&mut self, grant: &Grant) {
        let mut refused = Vec::new();
        for Waiting { answer, .. } in &mut self.waiting {
            let Answer::Subscribe(requests, with_retained, _) = answer else {
                continue;
            };
            let granted = requests.requests.iter_mut();
            for request in granted.filter(|request| !request.verdict.is_error()) {
                self.work.spend(DECISION);
                let facts = subscription_facts(&request.options);
                let filter = &request.filter;
                let decision = grant.decide_for(Action::Subscribe, filter.as_str(), &facts);
                if !decision.is_allow() {
                    request.verdict = ReasonCode::NotAuthorized;
                    with_retained.retain(|(wanted, ..)| wanted != filter);
                    refused.push(filter.clone());
                }
            }
        }
        for _ in &refused {
            self.counters.denied_subscribe.add();
        }
        self.hub
            .unsubscribe_all(self.mailbox.number(), refused.iter());
    }

    /// The certificate's time has come: look at the standing again although nothing changed in it.
    pub(super) fn look_again(&mut self) {
        self.generation = self.generation.wrapping_sub(1);
    }

    /// Tells of subscriptions of a session that has come back, which were taken from it because the policy no longer grants
    /// them; it ends by that as a session does that loses them while it is connected.
    pub(super) fn has_lost(&mut self, lost: Vec<(TopicFilter, MessageFacts)>) {
        let Some((filter, facts)) = lost.first() else {
            return;
        };
        if self.hub.lost_subscription == LostSubscription::Disconnect {
            let grant = self.judge.grant();
            let explanation = grant.explain_for(Action::Subscribe, filter.as_str(), facts);
            self.lost = Some(explanation.reason());
            self.look_again();
        }
        for _ in &lost {
            self.counters.denied_subscribe.add();
        }
        let filters = lost.into_iter().map(|(filter, _)| filter);
        self.tell(LifecycleChange::Unsubscribed(filters.collect()));
    }

    /// What waits of lost subscriptions is not sent: all is looked through before more of it is.
    fn sift_out(&mut self, lost: Vec<TopicFilter>) {
        if lost.is_empty() {
            return;
        }
        let mut queue = std::mem::take(&mut self.staged);
        self.mailbox.take(&mut queue, usize::MAX);
        let left = self.session.subscriptions().map(|(filter, _)| filter);
        match &mut self.sieve {
            Some(sieve) => sieve.again(&self.hub, &lost, left, queue),
            None if queue.is_empty() => return,
            sieve => {
                *sieve = Some(Box::new(Sieve::new(&self.hub, &lost, left, queue)));
            }
        }
        self.mailbox.signal(Signal::WITHDRAWN);
    }

    /// Goes on with that. Whether it is over.
    pub(super) fn sift(&mut self) -> bool {
        let Some(sieve) = &mut self.sieve else {
            return true;
        };
        self.work.spend(SIEVE);
        if !sieve.portion(&self.hub, &self.mailbox, &self.counters) {
            return false;
        }
        if let Some(sieve) = self.sieve.take() {
            self.mailbox.give_back(sieve.into_kept());
        }
        self.mailbox.clear(Signal::WITHDRAWN);
        true
    }

    fn lose(&mut self, filter: &TopicFilter) {
        self.counters.denied_subscribe.add();
        self.session.remove_subscription(filter);
        if let Some(owed) = &mut self.owed {
            owed.forget(filter);
        }
        self.hub
            .unsubscribe_all(self.mailbox.number(), std::iter::once(filter));
        self.tell(LifecycleChange::Unsubscribed(vec![filter.clone()]));
        tracing::info!(owner = %self.key.owner, client_id = self.key.client_id.as_str(),
            filter = filter.as_str(), "subscription removed: the policy no longer grants it");
    }
}
