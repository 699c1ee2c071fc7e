//! A PUBLISH of the client: judged, retained, routed, acknowledged.

use std::task::Context;

use bytes::Bytes;
use policy::Action;
use store::{Behind, Lsn};
use tokio::io::{AsyncRead, AsyncWrite};

use super::routes::{Kind, Route};
use super::{Answer, Connection, End};
use crate::codec::{PacketId, Qos, ReasonCode, Version};
use crate::server::durable::Durable;
use crate::server::hub::RetainError;
use crate::server::message::{Message, Origin};
use crate::server::reserved::{Principal, Reply, Request};
use crate::server::router::Routing;
use crate::session::{Incoming, Publication};

/// Payloads up to this are copied out of the read buffer, so that one small message that waits
/// somewhere does not hold a whole buffer; longer ones share it.
const COPIED_PAYLOAD_BYTES: usize = 16 * 1024;

/// A PUBLISH stopped half-way because the journal is behind. The socket is not read meanwhile.
pub(super) struct Stalled {
    routing: Routing,
    retain: bool,
    packet_id: Option<PacketId>,
}

impl Stalled {
    /// The connection ends before the message has reached everybody.
    pub(super) fn abandon(self, durable: &Durable) {
        self.routing.abandon(durable);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn publish(&mut self, incoming: Incoming) -> Result<(), End> {
        self.counters.messages_in.add();
        let route = self.routes.find(
            &incoming.publication.topic,
            &self.hub,
            &self.judge,
            self.mailbox.number(),
        );
        if !route.may_publish {
            self.counters.denied_publish.add();
            return self.deny(Action::Publish, &route, incoming.packet_id);
        }
        if incoming.retain && !route.may_retain {
            self.counters.denied_retain.add();
            return self.deny(Action::RetainPublish, &route, incoming.packet_id);
        }
        match route.kind {
            Kind::Ordinary => {}
            Kind::Reserved if !incoming.retain => {
                self.ask(route, incoming);
                return Ok(());
            }
            Kind::Reserved => {
                let text = "a message to a reserved topic ($aws/…) cannot be retained";
                return self.refuse(ReasonCode::RetainNotSupported, text, incoming.packet_id);
            }
            Kind::Foreign => {
                let text = "topics that begin with $ are the server's; only $aws/… takes requests";
                return self.refuse(ReasonCode::TopicNameInvalid, text, incoming.packet_id);
            }
        }
        let message = Message::new(
            kept(incoming.publication, &route),
            incoming.qos,
            incoming.retain,
            Origin::Device(self.identity.certificate()),
        );
        let routing = Routing::new(message, route.receivers);
        self.route(Stalled {
            routing,
            retain: incoming.retain,
            packet_id: incoming.packet_id,
        })
    }

    /// Goes on with a PUBLISH that was stopped.
    pub(super) fn resume_stalled(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if let Some(stalled) = self.stalled.take() {
            self.route(stalled)?;
        }
        if self.stalled.is_some() {
            let journal = self.hub.durable.journal();
            let next = Lsn(journal.durable().0.saturating_add(1));
            if self.asked != Some(next) {
                self.asked = Some(next);
                journal.wake_when_durable(next, cx.waker());
            }
        }
        Ok(())
    }

    fn route(&mut self, mut stalled: Stalled) -> Result<(), End> {
        if stalled.retain {
            match self.hub.retain(stalled.routing.message()) {
                Ok(lsn) => {
                    stalled.retain = false;
                    if let Some(lsn) = lsn {
                        stalled.routing.wait_for(lsn);
                    }
                }
                Err(RetainError::Full(full)) => {
                    let packet_id = stalled.packet_id;
                    return self.refuse(ReasonCode::QuotaExceeded, &full.to_string(), packet_id);
                }
                Err(RetainError::Behind(_)) => {
                    self.hold(stalled);
                    return Ok(());
                }
            }
        }
        match stalled.routing.run(&self.hub.durable, &self.counters) {
            Ok(lsn) => {
                if let Some(packet_id) = stalled.packet_id {
                    self.answer_when(lsn, Answer::Publish(packet_id));
                }
            }
            Err(Behind::Full { .. } | Behind::TooLarge { .. }) => self.hold(stalled),
        }
        Ok(())
    }

    fn hold(&mut self, stalled: Stalled) {
        self.counters.publishers_held.add();
        self.stalled = Some(stalled);
    }

    /// A request to a reserved topic. Its PUBACK follows when it has been answered.
    fn ask(&mut self, route: Route, incoming: Incoming) {
        let number = self.next_request;
        self.next_request += 1;
        if let Some(packet_id) = incoming.packet_id {
            self.requests.push((number, packet_id));
        }
        let pending = incoming.packet_id.map(|_| number);
        let reply = Reply::new(self.mailbox.clone(), Qos::AtLeastOnce, pending);
        let Some(reserved) = self.hub.reserved.get() else {
            return;
        };
        let publication = kept(incoming.publication, &route);
        reserved.request(Request {
            topic: publication.topic,
            payload: publication.payload,
            principal: Principal {
                certificate: self.identity.certificate(),
                thing: self.identity.standing.now().thing.clone(),
            },
            client_id: self.key.client_id.clone(),
            reply,
        });
    }

    /// Requests the room above has answered.
    pub(super) fn release_requests(&mut self, answered: &mut Vec<u64>) {
        for number in answered.drain(..) {
            if let Some(at) = self.requests.iter().position(|(n, _)| *n == number) {
                let (_, packet_id) = self.requests.swap_remove(at);
                self.session
                    .published(packet_id, ReasonCode::Success, None, &mut self.out);
            }
        }
    }

    /// Policy says no. MQTT 5 can say so; in 3.1.1 the only word is to close.
    fn deny(
        &mut self,
        action: Action,
        route: &Route,
        packet_id: Option<PacketId>,
    ) -> Result<(), End> {
        // Explaining costs more than deciding: only where somebody will read it.
        let explanation = self.judge.grant().explain(action, route.topic.as_str());
        if self.hub.denials.take() {
            tracing::warn!(owner = %self.key.owner, client_id = self.key.client_id.as_str(),
                %action, topic = route.topic.as_str(), "denied: {}", explanation.reason());
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
            _ => Err(End::Denied(reason, text.to_owned())),
        }
    }
}

/// The publication as it is kept: under the route's name, its payload not tied to the read buffer.
fn kept(publication: Publication, route: &Route) -> Publication {
    let payload = if publication.payload.len() <= COPIED_PAYLOAD_BYTES {
        Bytes::copy_from_slice(&publication.payload)
    } else {
        publication.payload
    };
    Publication {
        topic: route.topic.clone(),
        payload,
        ..publication
    }
}
