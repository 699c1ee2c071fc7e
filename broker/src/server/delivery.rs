//! The one authorisation call on the one delivery path.
//!
//! Whatever a session receives (live, queued, retained, a will, sent again after a reconnect, an
//! answer to a reserved topic) passes [`Judge::admit`] at the moment it is sent, under the policy
//! of that moment.

use std::sync::Arc;
use std::time::SystemTime;

use fleet::Standing;
use hashbrown::HashMap;
use policy::{Action, Grant};

use super::clock::Clock;
use super::hub::Hub;
use super::identity::keep_denial;
use super::message::Message;
use crate::topic::ClientId;

/// Who is told of decisions that are made anew.
pub(crate) struct Witness {
    pub(crate) hub: Arc<Hub>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) client_id: ClientId,
}

impl Witness {
    /// Notes a decision.
    pub(crate) fn note(&self, action: Action, name: &str, allowed: bool) {
        let now = Clock::wall(self.hub.clock.now());
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = since.map_or(0, |since| since.as_secs());
        let registry = &self.hub.registry;
        registry.note_decision(&self.standing, action, name, allowed, now);
    }

    /// Tells why a message is withheld, as often as the log bears it.
    fn withheld(&self, grant: &Grant, message: &Message) {
        if !self.hub.denials.take() {
            return;
        }
        let topic = message.topic();
        let explanation = grant.explain_for(Action::Receive, topic, &message.facts());
        let now = Clock::wall(self.hub.clock.now());
        let registry = &*self.hub.registry;
        let denial = keep_denial(registry, &self.standing, &self.client_id, &explanation, now);
        tracing::warn!(
            denial,
            client_id = self.client_id.as_str(),
            topic,
            "delivery denied: {}",
            explanation.reason()
        );
    }
}

/// A connection's grant with what it remembers of it.
pub(crate) struct Judge {
    grant: Grant,
    witness: Witness,
    /// What was decided of a topic's messages, the last time.
    received: HashMap<Box<str>, bool>,
    topics_max: usize,
}

impl Judge {
    /// Remembers the decisions of up to `topics_max` topics.
    pub(crate) fn new(grant: Grant, witness: Witness, topics_max: usize) -> Self {
        Self {
            grant,
            witness,
            received: HashMap::new(),
            topics_max,
        }
    }

    /// Notes a decision that was made by its grant.
    pub(crate) fn note(&self, action: Action, name: &str, allowed: bool) {
        self.witness.note(action, name, allowed);
    }

    /// What it decides by.
    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The principal's policies have changed: nothing remembered holds any more.
    pub(crate) fn replace(&mut self, grant: Grant) {
        self.grant = grant;
        self.received.clear();
    }

    /// Whether the session may receive the message now.
    pub(crate) fn admit(&mut self, message: &Message) -> bool {
        let topic = message.topic();
        let of_message = self.grant.depends_on_message(Action::Receive);
        let known = self.received.get(topic).copied();
        let allowed = match known {
            Some(allowed) if !of_message => return allowed,
            _ if of_message => {
                let facts = message.facts();
                self.grant.decide_for(Action::Receive, topic, &facts)
            }
            _ => self.grant.decide(Action::Receive, topic),
        };
        let allowed = allowed.is_allow();
        if !allowed {
            self.witness.withheld(&self.grant, message);
        }
        if known == Some(allowed) {
            return allowed;
        }
        self.witness.note(Action::Receive, topic, allowed);
        if known.is_none() && self.received.len() >= self.topics_max {
            self.received.clear();
        }
        self.received.insert(topic.into(), allowed);
        allowed
    }
}
