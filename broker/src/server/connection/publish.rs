//! A PUBLISH of the client: judged, retained, routed, acknowledged.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use fleet::Excerpt;
use policy::{Action, MessageFacts};
use store::{Behind, Lsn};
use tokio::io::{AsyncRead, AsyncWrite};

use super::explanations::UNEXPLAINED;
use super::routes::{Kind, Route};
use super::{Answer, Connection, End, violation};
use crate::codec::{PacketId, Qos, ReasonCode, Version};
use crate::server::clock::Clock;
use crate::server::hub::Hub;
use crate::server::layout::held_key;
use crate::server::message::{Message, Origin, facts};
use crate::server::reserved::{Principal, Reply, Request, excess};
use crate::server::retained::{Claim, Full, RetainError, Volume};
use crate::server::router::{Routing, Unfinished};
use crate::server::stats::Counters;
use crate::server::work::EXPLANATION;
use crate::session::{Incoming, Publication, Published, Token};
use crate::topic::TopicName;

/// Something stopped half-way because the journal is behind, or because it is too much for one turn. The socket is not read meanwhile.
pub(super) enum Stalled {
    /// A message on its way to its receivers.
    Routing {
        routing: Routing,
        step: Step,
        answer: Option<Answer>,
    },
    /// A message of QoS 2 that is to be kept.
    Holding {
        packet_id: PacketId,
        message: Message,
        /// Of the PUBREC.
        reason: ReasonCode,
    },
    /// A message whose receivers are not all found.
    Publish(Incoming),
    /// As that, of QoS 2 at its PUBREL.
    Release(PacketId),
    /// A delivery of QoS 2 that the client has.
    Received { token: Token, packet_id: PacketId },
}

/// What is next of a message on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is to be retained, before anybody is looked for: who subscribes meanwhile has it from there, or is found.
    Retain,
    /// Its receivers are to be found again, for it has been retained since they were.
    Search,
    /// It goes to its receivers.
    Deliver,
}

impl Step {
    const fn first(retain: bool) -> Self {
        if retain { Self::Retain } else { Self::Deliver }
    }
}

impl Stalled {
    /// The connection ends before the message has reached everybody.
    pub(super) fn abandon(self, hub: &Hub, counters: &Counters) {
        if let Self::Routing { routing, .. } = self {
            routing.abandon(hub, counters);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn publish(&mut self, incoming: Incoming) -> Result<(), End> {
        // Before anything remembers its topic, and whatever the policy says.
        if let Some((reason, text)) = excess(&incoming.publication) {
            self.counters.messages_in.add();
            return self.refuse(reason, &text, incoming.packet_id);
        }
        let Some(route) = self.find(&incoming.publication.topic, true) else {
            return self.stall(Stalled::Publish(incoming));
        };
        self.counters.messages_in.add();
        let facts = facts(
            incoming.publication.payload.len(),
            incoming.qos,
            incoming.retain,
        );
        if route.kind == Kind::Foreign {
            violation::note(&self.hub, &self.identity, violation::SERVERS_TOPIC);
        }
        let refused = route.refused(&self.judge, &facts);
        let allowed = refused != Some(Action::Publish);
        self.routes.note(&route, &self.judge, allowed);
        if incoming.retain && self.routes.is_first_retained(route.topic.as_str()) {
            let (topic, allowed) = (route.topic.as_str(), refused.is_none());
            self.judge.note(Action::RetainPublish, topic, allowed);
        }
        if let Some(action) = refused {
            match action {
                Action::RetainPublish => self.counters.denied_retain.add(),
                _ => self.counters.denied_publish.add(),
            }
            return self.deny(action, &route.topic, &facts, incoming.packet_id);
        }
        match route.kind {
            Kind::Ordinary => {}
            Kind::Reserved if !incoming.retain => {
                if self.mailbox.owes_answers() {
                    self.counters.refused_requests.add();
                    let text = "too many answers wait for this client to acknowledge them";
                    return self.refuse(ReasonCode::QuotaExceeded, text, incoming.packet_id);
                }
                if incoming.qos != Qos::ExactlyOnce {
                    let answer = incoming
                        .packet_id
                        .map(|packet_id| Answer::Publish(packet_id, ReasonCode::Success));
                    let publication = Publication {
                        topic: route.topic,
                        // Not tied to the read buffer.
                        payload: Bytes::copy_from_slice(&incoming.publication.payload),
                        ..incoming.publication
                    };
                    self.request(publication, answer);
                    return Ok(());
                }
            }
            Kind::Reserved => {
                let text = "a message to a reserved topic ($aws/…) cannot be retained";
                return self.refuse(ReasonCode::RetainNotSupported, text, incoming.packet_id);
            }
            Kind::Foreign => {
                let text = "topics below $SYS, $share and $aws are the server's; only $aws/… takes requests";
                return self.refuse(ReasonCode::TopicNameInvalid, text, incoming.packet_id);
            }
        }
        let publication = Publication {
            topic: route.topic,
            ..incoming.publication
        };
        let message = Message::new(
            publication,
            incoming.qos,
            incoming.retain,
            Origin::Device(self.identity.certificate()),
        );
        match incoming.packet_id {
            Some(packet_id) if incoming.qos == Qos::ExactlyOnce => {
                if incoming.retain {
                    let bound = self.retained_bound(false);
                    let claim = Claim::Owner(&self.key.owner, bound);
                    if let Err(full) = self.hub.may_retain(&message, claim) {
                        return self.refuse_to_retain(&message, full, Some(packet_id));
                    }
                }
                self.keep(packet_id, message, route.receivers.accepted())
            }
            packet_id => {
                let reason = route.receivers.accepted();
                self.route(
                    Routing::new(message, route.receivers),
                    Step::first(incoming.retain),
                    packet_id.map(|packet_id| Answer::Publish(packet_id, reason)),
                )
            }
        }
    }

    /// Keeps a message of QoS 2 for its PUBREL; its PUBREC follows when it is safe.
    fn keep(
        &mut self,
        packet_id: PacketId,
        message: Message,
        reason: ReasonCode,
    ) -> Result<(), End> {
        let weight = message.weight_bytes();
        if self.held_bytes.saturating_add(weight) > self.hub.limits.session_held_bytes {
            let text = "too many bytes wait for their PUBREL";
            return self.refuse(ReasonCode::QuotaExceeded, text, Some(packet_id));
        }
        let mut safe = None;
        if self.mailbox.is_durable() {
            let number = self.mailbox.number();
            match self.hub.durable.put_held(number, packet_id, &message) {
                Ok(lsn) => safe = Some(lsn),
                Err(Behind::TooLarge { .. }) => {
                    let text = "the message is longer than what can be kept";
                    return self.refuse(ReasonCode::QuotaExceeded, text, Some(packet_id));
                }
                Err(Behind::Full { .. }) => {
                    self.hold(Stalled::Holding {
                        packet_id,
                        message,
                        reason,
                    });
                    return Ok(());
                }
            }
        }
        self.held_bytes += weight;
        self.held.push((packet_id, message));
        self.answer_when(safe, Answer::Publish(packet_id, reason));
        Ok(())
    }

    /// The client has released a message of QoS 2: it goes on as if it had been published now, under
    /// the policy of now.
    pub(super) fn release(&mut self, packet_id: PacketId) -> Result<(), End> {
        let answer = Answer::Complete(packet_id);
        let found = self.held.iter().find(|(held, _)| *held == packet_id);
        let Some(message) = found.map(|(_, message)| message.clone()) else {
            self.answer(answer);
            return Ok(());
        };
        // It was counted when it came.
        let Some(route) = self.find(message.publication().topic, false) else {
            return self.stall(Stalled::Release(packet_id));
        };
        let refused = route.refused(&self.judge, &message.facts());
        let allowed = refused != Some(Action::Publish);
        self.routes.note(&route, &self.judge, allowed);
        if let Some(action) = refused {
            match action {
                Action::RetainPublish => self.counters.denied_retain.add(),
                _ => self.counters.denied_publish.add(),
            }
            let gone = self.forget_held(packet_id);
            self.answer_when(gone, answer);
            return Ok(());
        }
        if route.kind == Kind::Reserved {
            let publication = message.to_publication();
            self.forget_held(packet_id);
            self.request(publication, Some(answer));
            return Ok(());
        }
        let step = Step::first(message.retain());
        let mut routing = Routing::new(message, route.receivers);
        if self.mailbox.is_durable() {
            routing = routing.settling(held_key(self.mailbox.number(), packet_id));
        }
        self.route(routing, step, Some(answer))
    }

    /// A held message is no longer this connection's to keep.
    fn release_held(&mut self, packet_id: PacketId) {
        if let Some(at) = self.held.iter().position(|(held, _)| *held == packet_id) {
            let (_, message) = self.held.swap_remove(at);
            self.held_bytes = self.held_bytes.saturating_sub(message.weight_bytes());
        }
    }

    /// A held message goes nowhere. Its PUBCOMP must wait until that is safe: a crash would bring it back, under an
    /// identifier that the client has for another by then.
    fn forget_held(&mut self, packet_id: PacketId) -> Option<Lsn> {
        self.release_held(packet_id);
        self.unkept(packet_id)
    }

    /// When the journal has no message under this identifier for good.
    fn unkept(&self, packet_id: PacketId) -> Option<Lsn> {
        let (durable, number) = (&self.hub.durable, self.mailbox.number());
        let is_kept = self.mailbox.is_durable();
        is_kept.then(|| durable.delete_held(number, packet_id))?
    }

    /// The policy has changed while a message was on its way: what it does not allow any more is not done.
    pub(super) fn judge_stalled(&mut self) -> Result<(), End> {
        let Some(Stalled::Routing { routing, step, .. }) = self.stalled.as_deref() else {
            return Ok(());
        };
        let (message, grant) = (routing.message(), self.judge.grant());
        let (topic, facts) = (message.publication().topic.clone(), message.facts());
        let wanted = [Action::Publish, Action::RetainPublish];
        // What is retained by now was retained in time.
        let wanted = wanted
            .into_iter()
            .take(1 + usize::from(*step == Step::Retain));
        let mut denied = wanted.filter(|action| {
            let decision = grant.decide_for(*action, topic.as_str(), &facts);
            !decision.is_allow()
        });
        let Some(action) = denied.next() else {
            return Ok(());
        };
        let Some(Stalled::Routing {
            routing, answer, ..
        }) = self.stalled.take().map(|stalled| *stalled)
        else {
            return Ok(());
        };
        routing.abandon(&self.hub, &self.counters);
        match action {
            Action::RetainPublish => self.counters.denied_retain.add(),
            _ => self.counters.denied_publish.add(),
        }
        match answer {
            Some(Answer::Publish(packet_id, _)) => {
                self.deny(action, &topic, &facts, Some(packet_id))
            }
            Some(Answer::Complete(packet_id)) => {
                let gone = self.forget_held(packet_id);
                self.answer_when(gone, Answer::Complete(packet_id));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Goes on with what was stopped.
    pub(super) fn resume_stalled(&mut self) -> Result<(), End> {
        self.behind = false;
        let Some(stalled) = self.stalled.take() else {
            return Ok(());
        };
        match *stalled {
            Stalled::Routing {
                routing,
                step,
                answer,
            } => self.route(routing, step, answer),
            Stalled::Holding {
                packet_id,
                message,
                reason,
            } => self.keep(packet_id, message, reason),
            Stalled::Publish(incoming) => self.publish(incoming),
            Stalled::Release(packet_id) => self.release(packet_id),
            Stalled::Received { token, packet_id } => {
                self.received(token, packet_id);
                Ok(())
            }
        }
    }

    /// Stops here; it goes on in the next turn.
    fn stall(&mut self, stalled: Stalled) -> Result<(), End> {
        self.stalled = Some(Box::new(stalled));
        Ok(())
    }

    /// The route of a topic; `None` where the work is spent before its receivers are found.
    fn find(&mut self, topic: &TopicName, counted: bool) -> Option<Route> {
        let at = (self.mailbox.number(), self.now);
        let (hub, judge) = (&self.hub, &self.judge);
        self.routes
            .find(topic, hub, judge, at, counted, &mut self.work)
    }

    fn route(
        &mut self,
        mut routing: Routing,
        mut step: Step,
        mut answer: Option<Answer>,
    ) -> Result<(), End> {
        if step == Step::Retain {
            // [MQTT-3.3.1-5, -8] [MQTT311-3.3.1-5, -7, -12]
            let accepted = matches!(answer, Some(Answer::Complete(_)));
            let bound = self.retained_bound(accepted);
            let claim = Claim::Owner(&self.key.owner, bound);
            match self.hub.retain(routing.message(), claim) {
                Ok(lsn) => {
                    step = Step::Search;
                    if let Some(lsn) = lsn {
                        routing.wait_for(lsn);
                    }
                }
                // It is delivered then, and not retained.
                Err(RetainError::Full(full)) if accepted => {
                    step = Step::Deliver;
                    self.note_not_retained(routing.message(), full);
                }
                Err(RetainError::Full(full)) => {
                    let packet_id = match answer {
                        Some(Answer::Publish(packet_id, _)) => Some(packet_id),
                        _ => None,
                    };
                    return self.refuse_to_retain(routing.message(), full, packet_id);
                }
                Err(RetainError::Behind(_)) => {
                    self.hold(Stalled::Routing {
                        routing,
                        step,
                        answer,
                    });
                    return Ok(());
                }
            }
        }
        if step == Step::Search {
            let Some(route) = self.find(routing.message().publication().topic, false) else {
                return self.stall(Stalled::Routing {
                    routing,
                    step,
                    answer,
                });
            };
            if let Some(Answer::Publish(_, reason)) = &mut answer {
                *reason = route.receivers.accepted();
            }
            routing.redirect(route.receivers);
            step = Step::Deliver;
        }
        match routing.run(&self.hub, &self.counters, &mut self.work) {
            Ok(lsn) => {
                if let Some(Answer::Complete(packet_id)) = answer {
                    self.release_held(packet_id);
                }
                if let Some(answer) = answer {
                    self.answer_when(lsn, answer);
                }
            }
            Err(unfinished) => {
                let stalled = Stalled::Routing {
                    routing,
                    step,
                    answer,
                };
                match unfinished {
                    Unfinished::Behind(_) => self.hold(stalled),
                    Unfinished::Share => self.stall(stalled)?,
                }
            }
        }
        Ok(())
    }

    /// How much may be retained of this client's thing. `accepted`: what it has been told is safe already.
    fn retained_bound(&self, accepted: bool) -> Volume {
        let (bounds, listener) = (&self.hub.bounds, self.identity.listener);
        let standing = self.identity.standing.now();
        if accepted {
            bounds.retained_of_accepted(listener, &standing, self.session.version())
        } else {
            bounds.retained(listener, &standing)
        }
    }

    /// A message that cannot be retained is not taken at all: who is told so knows that nobody has it.
    fn refuse_to_retain(
        &mut self,
        message: &Message,
        full: Full,
        packet_id: Option<PacketId>,
    ) -> Result<(), End> {
        self.note_not_retained(message, full);
        self.refuse(ReasonCode::QuotaExceeded, &full.to_string(), packet_id)
    }

    fn note_not_retained(&self, message: &Message, full: Full) {
        self.hub
            .note_not_retained(&self.counters, &self.key.owner, message, full);
    }

    pub(super) fn hold(&mut self, stalled: Stalled) {
        self.counters.publishers_held.add();
        self.behind = true;
        self.stalled = Some(Box::new(stalled));
    }

    /// A request to a reserved topic. Its acknowledgement follows when it has been answered.
    fn request(&mut self, publication: Publication, answer: Option<Answer>) {
        let number = self.hub.next_request.fetch_add(1, Ordering::Relaxed);
        self.requests.push((number, answer));
        let reply = Reply::new(self.mailbox.clone(), Qos::AtLeastOnce, number);
        let Some(reserved) = self.hub.reserved.get() else {
            return;
        };
        reserved.request(Request {
            topic: publication.topic,
            payload: publication.payload,
            principal: Principal {
                certificate: self.identity.certificate(),
                thing: self.identity.standing.now().thing.clone(),
            },
            client_id: self.key.client_id.clone(),
            source: self.identity.source_ip,
            reply,
        });
    }

    /// Requests the room above has answered.
    pub(super) fn release_requests(&mut self) {
        for number in self.mailbox.take_answered() {
            if let Some(at) = self.requests.iter().position(|(n, _)| *n == number)
                && let (_, Some(answer)) = self.requests.swap_remove(at)
            {
                let gone = match answer {
                    Answer::Complete(packet_id) => self.unkept(packet_id),
                    _ => None,
                };
                self.answer_when(gone, answer);
            }
        }
    }

    /// Policy says no. MQTT 5 can say so; in 3.1.1 the only word is to close [MQTT311-3.3.5-2].
    fn deny(
        &mut self,
        action: Action,
        topic: &TopicName,
        facts: &MessageFacts,
        packet_id: Option<PacketId>,
    ) -> Result<(), End> {
        // Explaining costs more than deciding: only where somebody will read it.
        let (grant, topic) = (self.judge.grant(), topic.as_str());
        let is_told = self.explanations.take(topic, self.now);
        let is_logged = self.hub.denials.take();
        if !is_told && !is_logged {
            return self.refuse(ReasonCode::NotAuthorized, UNEXPLAINED, packet_id);
        }
        self.work.spend(EXPLANATION);
        let explanation = grant.explain_for(action, topic, facts);
        if is_logged {
            let denial = self.identity.keep_denial(
                &*self.hub.registry,
                &self.key.client_id,
                &explanation,
                Clock::wall(self.now),
            );
            tracing::warn!(denial, owner = %self.key.owner, client_id = self.key.client_id.as_str(),
                %action, topic = ?Excerpt(topic), "denied: {}", explanation.reason());
        }
        self.refuse(ReasonCode::NotAuthorized, &explanation.reason(), packet_id)
    }

    fn refuse(
        &mut self,
        reason: ReasonCode,
        text: &str,
        packet_id: Option<PacketId>,
    ) -> Result<(), End> {
        match (self.session.version(), packet_id) {
            (Version::V5, Some(packet_id)) => {
                self.session
                    .published(packet_id, reason, Some(text), &mut self.out);
                Ok(())
            }
            // [MQTT311-4.8.0-2]
            _ => Err(End::Denied(reason, text.to_owned())),
        }
    }
}
