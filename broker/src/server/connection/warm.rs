//! What a connection remembers of its decisions, without the connection: for a benchmark of the
//! decision as a message meets it.

use std::sync::Arc;

use bytes::Bytes;
use policy::MessageFacts;

use super::routes::Routes;
use crate::codec::Qos;
use crate::server::clock::Clock;
use crate::server::delivery::{Judge, Witness};
use crate::server::hub::Hub;
use crate::server::identity::Identity;
use crate::server::message::{Message, Origin, facts};
use crate::server::work::Work;
use crate::session::{Publication, Time};
use crate::topic::{ClientId, TopicName};

/// One device's memory, a topic it publishes to, and a message that it is to receive.
pub struct Warm {
    hub: Arc<Hub>,
    judge: Judge,
    routes: Routes,
    topic: TopicName,
    facts: MessageFacts,
    message: Message,
    now: Time,
}

impl Warm {
    pub(crate) fn new(
        hub: &Arc<Hub>,
        identity: &Identity,
        client_id: ClientId,
        topic: TopicName,
        received: TopicName,
    ) -> Self {
        let standing = identity.standing.now();
        let now = Clock::wall(hub.clock.now());
        let grant = identity.grant(&*hub.registry, &standing, &client_id, now);
        let witness = Witness {
            hub: Arc::clone(hub),
            standing: Arc::clone(&identity.standing),
            client_id,
        };
        let publication = Publication::new(received, Bytes::from_static(b"on"));
        let origin = Origin::Device(identity.certificate());
        Self {
            judge: Judge::new(grant, witness, hub.limits.route_cache_topics),
            routes: Routes::new(hub.limits.route_cache_topics),
            now: hub.clock.now(),
            hub: Arc::clone(hub),
            topic,
            facts: facts(2, Qos::AtMostOnce, false),
            message: Message::new(publication, Qos::AtMostOnce, false, origin),
        }
    }

    /// Whether the next message may be published, and to whom it goes: what `publish` asks first.
    #[must_use]
    pub fn may_publish(&mut self) -> bool {
        let mut work = Work::unbounded();
        let found = self.routes.find(
            &self.topic,
            &self.hub,
            &self.judge,
            (0, self.now),
            true,
            &mut work,
        );
        let Some(route) = found else { return false };
        let refused = route.refused(&self.judge, &self.facts);
        self.routes.note(&route, &self.judge, refused.is_none());
        refused.is_none()
    }

    /// Whether the next message may be published: the decision alone, on a topic that [`Self::may_publish`] was asked of.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        let decided = self.routes.decided(&self.topic, &self.judge, &self.facts);
        decided == Some(None)
    }

    /// Whether the message may be received: what is asked before each delivery.
    #[must_use]
    pub fn may_receive(&mut self) -> bool {
        let work = &mut Work::unbounded();
        self.judge.admit(&self.message, self.now, work)
    }
}
