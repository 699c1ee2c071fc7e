//! The one authorisation call on the one delivery path.
//!
//! Whatever a session receives (live, queued, retained, a will, sent again after a reconnect, an
//! answer to a reserved topic) passes [`Judge::admit`] at the moment it is sent, under the policy
//! of that moment.

use std::sync::Arc;
use std::time::SystemTime;

use fleet::Standing;
use hashbrown::DefaultHashBuilder;
use indexmap::IndexMap;
use policy::{Action, Grant};

use super::clock::Clock;
use super::hub::Hub;
use super::identity::keep_denial;
use super::message::Message;
use super::uses::{Telling, Uses};
use super::work::{DECISION, Work};
use crate::session::Time;
use crate::topic::ClientId;

/// Who is told of decisions that are made anew, and of how often they were gone by.
pub(crate) struct Witness {
    pub(crate) hub: Arc<Hub>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) client_id: ClientId,
}

impl Witness {
    /// Notes a decision.
    pub(crate) fn note(&self, action: Action, name: &str, allowed: bool) {
        let (registry, now) = (&self.hub.registry, seconds(self.hub.clock.now()));
        registry.note_decision(&self.standing, action, name, allowed, now);
    }

    fn note_uses(&self, action: Action, name: &str, allowed: bool, (times, last): (u32, Time)) {
        let (registry, uses) = (&self.hub.registry, (times.into(), seconds(last)));
        registry.note_uses(&self.standing, action, name, allowed, uses);
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

/// Since 1970.
fn seconds(time: Time) -> u64 {
    let since = Clock::wall(time).duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// A connection's grant with what it remembers of it.
pub(crate) struct Judge {
    grant: Grant,
    witness: Witness,
    /// What was decided of a topic's messages, the last time.
    received: IndexMap<Box<str>, (bool, Uses), DefaultHashBuilder>,
    telling: Telling,
    topics_max: usize,
}

impl Judge {
    /// Remembers the decisions of up to `topics_max` topics.
    pub(crate) fn new(grant: Grant, witness: Witness, topics_max: usize) -> Self {
        Self {
            grant,
            witness,
            received: IndexMap::default(),
            telling: Telling::default(),
            topics_max,
        }
    }

    /// Notes a decision that was made by its grant.
    pub(crate) fn note(&self, action: Action, name: &str, allowed: bool) {
        self.witness.note(action, name, allowed);
    }

    /// Notes that a decision was gone by.
    pub(crate) fn note_uses(&self, action: Action, name: &str, allowed: bool, uses: (u32, Time)) {
        self.witness.note_uses(action, name, allowed, uses);
    }

    /// Tells how often what it remembers was gone by.
    pub(crate) fn tell_uses(&mut self) {
        for (topic, (allowed, uses)) in &mut self.received {
            if let Some(uses) = uses.take() {
                self.witness
                    .note_uses(Action::Receive, topic, *allowed, uses);
            }
        }
    }

    /// What it decides by.
    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The principal's policies have changed: nothing remembered holds any more.
    pub(crate) fn replace(&mut self, grant: Grant) {
        self.tell_uses();
        self.grant = grant;
        self.received.clear();
    }

    /// Whether the session may receive the message now.
    pub(crate) fn admit(&mut self, message: &Message, now: Time, work: &mut Work) -> bool {
        if self.telling.is_due(now) {
            self.tell_uses();
        }
        let topic = message.topic();
        let of_message = self.grant.depends_on_message(Action::Receive);
        let known = self.received.get_mut(topic).map(|(allowed, uses)| {
            uses.count(now);
            *allowed
        });
        let allowed = match known {
            Some(allowed) if !of_message => return allowed,
            _ if of_message => {
                let facts = message.facts();
                self.grant.decide_for(Action::Receive, topic, &facts)
            }
            _ => self.grant.decide(Action::Receive, topic),
        };
        work.spend(DECISION);
        let allowed = allowed.is_allow();
        if !allowed {
            self.witness.withheld(&self.grant, message);
        }
        if known == Some(allowed) {
            return allowed;
        }
        if known.is_some() || self.received.len() >= self.topics_max {
            // What is counted until here was decided otherwise, or is not remembered any more.
            if let Some((_, uses)) = self.received.get_mut(topic) {
                uses.discount();
            }
            self.tell_uses();
        }
        self.witness.note(Action::Receive, topic, allowed);
        if known.is_none() && self.received.len() >= self.topics_max {
            self.received.clear();
        }
        self.received
            .insert(topic.into(), (allowed, Uses::default()));
        allowed
    }
}
