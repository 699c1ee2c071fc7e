//! The one authorisation call on the one delivery path.
//!
//! Whatever a session receives (live, queued, retained, a will, sent again after a reconnect, an
//! answer to a reserved topic) passes [`Judge::admit`] at the moment it is sent, under the policy
//! of that moment.

use hashbrown::HashMap;
use policy::{Action, Grant};

use super::message::Message;

/// A connection's grant with what it remembers of it.
pub(crate) struct Judge {
    grant: Grant,
    received: HashMap<Box<str>, bool>,
    topics_max: usize,
}

impl Judge {
    /// Remembers the decisions of up to `topics_max` topics.
    pub(crate) fn new(grant: Grant, topics_max: usize) -> Self {
        Self {
            grant,
            received: HashMap::new(),
            topics_max,
        }
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
        if self.grant.depends_on_message(Action::Receive) {
            let decision = self
                .grant
                .decide_for(Action::Receive, topic, &message.facts());
            return decision.is_allow();
        }
        if let Some(allowed) = self.received.get(topic) {
            return *allowed;
        }
        let allowed = self.grant.decide(Action::Receive, topic).is_allow();
        if self.received.len() >= self.topics_max {
            self.received.clear();
        }
        self.received.insert(topic.into(), allowed);
        allowed
    }
}
