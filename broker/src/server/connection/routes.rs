//! What a connection remembers of the topics it publishes to.

use hashbrown::DefaultHashBuilder;
use indexmap::IndexMap;
use policy::{Action, MessageFacts};

use crate::server::delivery::Judge;
use crate::server::hub::Hub;
use crate::server::router::{Receivers, Search};
use crate::server::tree::Stamp;
use crate::server::uses::{Telling, Uses};
use crate::server::work::{DECISION, Work};
use crate::session::Time;
use crate::topic::TopicName;

/// What may be done with a topic and who receives it.
#[derive(Clone)]
pub(super) struct Route {
    /// The name, independent of any read buffer.
    pub(super) topic: TopicName,
    pub(super) kind: Kind,
    may_publish: bool,
    may_retain: bool,
    /// Whether those hold for one message only.
    of_message: bool,
    /// Whether a message of it was to be retained.
    retained: bool,
    /// What was noted of publishing to it, the last time.
    noted: Option<bool>,
    /// How often it was found since that was told.
    uses: Uses,
    pub(super) receivers: Receivers,
}

impl Route {
    fn tell_uses(&mut self, judge: &Judge) {
        if let (Some(allowed), Some(uses)) = (self.noted, self.uses.take()) {
            judge.note_uses(Action::Publish, self.topic.as_str(), allowed, uses);
        }
    }

    /// What the policy refuses of a message, if anything.
    pub(super) fn refused(&self, judge: &Judge, message: &MessageFacts) -> Option<Action> {
        let retain = message.retain == Some(true);
        let (may_publish, may_retain) = if self.of_message {
            let may = |action| {
                let decision = judge
                    .grant()
                    .decide_for(action, self.topic.as_str(), message);
                decision.is_allow()
            };
            (may(Action::Publish), !retain || may(Action::RetainPublish))
        } else {
            (self.may_publish, self.may_retain)
        };
        match (may_publish, may_retain) {
            (false, _) => Some(Action::Publish),
            (true, false) if retain => Some(Action::RetainPublish),
            _ => None,
        }
    }
}

/// What kind of topic it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Other sessions receive it.
    Ordinary,
    /// `$aws/…`: a request to the server.
    Reserved,
    /// `$SYS/…` and the like: the server's own, nothing a device may publish to.
    Foreign,
}

impl Kind {
    pub(crate) fn of(topic: &str) -> Self {
        match topic.strip_prefix('$') {
            Some(rest) if rest.starts_with("aws/") => Self::Reserved,
            Some(rest) if matches!(rest.split('/').next(), Some("aws" | "SYS" | "share")) => {
                Self::Foreign
            }
            // MQTT 5 §4.7.2 leaves the other `$` topics to the server, and so to the policy.
            _ => Self::Ordinary,
        }
    }
}

/// Routes of hot topics. Receivers are true as long as the tree says so; decisions are dropped
/// whole when the principal's standing changes.
pub(super) struct Routes {
    // Of a map with one entry that is looked at, and no table: most devices publish to few topics.
    known: IndexMap<TopicName, (Stamp, Route), DefaultHashBuilder>,
    telling: Telling,
    topics_max: usize,
    /// For a topic's receivers, where it was too much for one turn.
    searching: Option<Box<(Box<str>, Search)>>,
}

impl Routes {
    pub(super) fn new(topics_max: usize) -> Self {
        Self {
            known: IndexMap::default(),
            telling: Telling::default(),
            topics_max,
            searching: None,
        }
    }

    /// The route of a topic that session `own` publishes to at `now`, a message more where it is to be `counted`; `None`
    /// where the work is spent before its receivers are found: to be asked for again with a new share.
    pub(super) fn find(
        &mut self,
        topic: &TopicName,
        hub: &Hub,
        judge: &Judge,
        (own, now): (u64, Time),
        counted: bool,
        work: &mut Work,
    ) -> Option<Route> {
        if self.telling.is_due(now) {
            self.tell_uses(judge);
        }
        let name = topic.as_str();
        let stale = match self.known.get_mut(name) {
            Some((stamp, route)) if hub.tree.is_current(stamp) => {
                if counted {
                    route.uses.count(now);
                }
                return Some(route.clone());
            }
            Some(_) => true,
            None => false,
        };
        let (stamp, receivers) = self.receivers(name, hub, own, work)?;
        if stale && let Some((known, route)) = self.known.get_mut(name) {
            if counted {
                route.uses.count(now);
            }
            *known = stamp;
            if route.kind == Kind::Ordinary {
                route.receivers = receivers;
            }
            return Some(route.clone());
        }
        work.spend(2 * DECISION);
        let kind = Kind::of(name);
        let grant = judge.grant();
        let may_publish = grant.decide(Action::Publish, name).is_allow();
        let of_message = [Action::Publish, Action::RetainPublish]
            .into_iter()
            .any(|action| grant.depends_on_message(action));
        let route = Route {
            topic: topic.detached(),
            kind,
            may_publish,
            may_retain: grant.decide(Action::RetainPublish, name).is_allow(),
            retained: false,
            noted: None,
            uses: Uses::default(),
            of_message,
            receivers: match kind {
                Kind::Ordinary => receivers,
                // What a device says to the server no other session hears.
                Kind::Reserved | Kind::Foreign => Receivers::default(),
            },
        };
        if self.known.len() >= self.topics_max {
            self.clear(judge);
        }
        self.known
            .insert(route.topic.clone(), (stamp, route.clone()));
        Some(route)
    }

    /// What the policy refuses of a message to a topic that is known, if anything; `None` where the topic is not.
    /// The decision alone, without the way to its receivers.
    #[cfg(feature = "simulate")]
    pub(super) fn decided(
        &self,
        topic: &TopicName,
        judge: &Judge,
        message: &MessageFacts,
    ) -> Option<Option<Action>> {
        let (_, route) = self.known.get(topic.as_str())?;
        Some(route.refused(judge, message))
    }

    /// Who receives a topic; `None` where the work is spent before that is known.
    fn receivers(
        &mut self,
        name: &str,
        hub: &Hub,
        own: u64,
        work: &mut Work,
    ) -> Option<(Stamp, Receivers)> {
        let begun = self.searching.take();
        let begun = begun.filter(|begun| *begun.0 == *name);
        let mut search = begun.map_or_else(|| Search::new(Some(own)), |begun| begun.1);
        if search.go_on(&hub.tree, name, work) {
            return Some(search.finish());
        }
        self.searching = Some(Box::new((name.into(), search)));
        None
    }

    /// Notes that a message is to be retained; whether it is the first of its topic.
    pub(super) fn is_first_retained(&mut self, topic: &str) -> bool {
        let known = self.known.get_mut(topic);
        known.is_some_and(|(_, route)| !std::mem::replace(&mut route.retained, true))
    }

    /// Notes what was decided of a message of a route, where its topic's last came out otherwise.
    pub(super) fn note(&mut self, route: &Route, judge: &Judge, allowed: bool) {
        if route.noted == Some(allowed) {
            return;
        }
        let topic = route.topic.as_str();
        if let Some((_, route)) = self.known.get_mut(topic) {
            route.uses.discount();
            route.tell_uses(judge);
            route.noted = Some(allowed);
        }
        judge.note(Action::Publish, topic, allowed);
    }

    /// Tells how often what is remembered was gone by.
    pub(super) fn tell_uses(&mut self, judge: &Judge) {
        for (_, route) in self.known.values_mut() {
            route.tell_uses(judge);
        }
    }

    /// The principal's policies have changed: nothing remembered holds any more.
    pub(super) fn clear(&mut self, judge: &Judge) {
        self.tell_uses(judge);
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_is_reserved_and_the_servers_own_is_foreign() {
        for ordinary in ["dt/a", "$dt/a", "$SYSTEM/a", "$awsx/a"] {
            assert_eq!(Kind::of(ordinary), Kind::Ordinary, "{ordinary}");
        }
        assert_eq!(Kind::of("$aws/things/a/jobs/get"), Kind::Reserved);
        for foreign in ["$aws", "$SYS", "$SYS/broker", "$share/g/a"] {
            assert_eq!(Kind::of(foreign), Kind::Foreign, "{foreign}");
        }
    }
}
