//! One principal's policies with its own values: what it may do, now.

#[cfg(test)]
mod tests;
mod whose;

use std::sync::Arc;

use crate::action::{Action, ActionSet, Kind};
use crate::arn::Resource;
use crate::asked::Asked;
use crate::condition::Condition;
use crate::context::{Context, MessageFacts};
use crate::coverage;
use crate::decision::Decision;
use crate::document::{Effect, Policy, Statement};
use crate::name::PolicyName;
use crate::pattern::{self, Values};
use crate::prove::facts::Settled;
use crate::realm::{Realm, UnresolvedDeny};
use crate::tokens::Variable;

use self::whose::{Bindings, NOTHING, Whose};

/// A policy under its name.
#[derive(Debug, Clone)]
pub struct NamedPolicy {
    /// The name, for explanations.
    pub name: PolicyName,
    /// The compiled document, shared by all who hold it.
    pub policy: Arc<Policy>,
}

/// All that one connection is granted. Cheap to clone, and small: there is one for each connected
/// principal.
#[derive(Debug, Clone)]
pub struct Grant {
    pub(crate) realm: Arc<Realm>,
    pub(crate) policies: Arc<[NamedPolicy]>,
    whose: Arc<Whose>,
    /// The actions of which a statement asks what the message is.
    of_message: ActionSet,
    /// Whether all policies that have variables have the same, so that their values are kept once.
    alike: bool,
    /// Whether a value would be a wildcard to MQTT.
    mqtt_wild: bool,
    /// Whether any Deny could speak; without one the first Allow decides.
    denies: bool,
}

/// Whether a statement's conditions are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Met {
    Yes,
    No,
    /// Those that do not ask of the message are.
    Ask,
}

/// A statement with what belongs to it in one connection.
#[derive(Clone, Copy)]
pub(crate) struct Bound<'g> {
    pub(crate) statement: &'g Statement,
    pub(crate) values: Values<'g>,
    /// What the values are of.
    pub(crate) variables: &'g [Variable],
    /// Whether its conditions are met.
    met: Met,
    number: usize,
}

impl Bound<'_> {
    /// The same statement where the variables have other values.
    pub(crate) fn with<'v>(self, values: Values<'v>) -> Bound<'v>
    where
        Self: 'v,
    {
        Bound { values, ..self }
    }
}

/// The statements of a grant in their order.
pub(crate) struct Statements<'g> {
    policies: std::slice::Iter<'g, NamedPolicy>,
    /// The policy at hand with its statements that are left and its values.
    current: Option<(&'g NamedPolicy, std::slice::Iter<'g, Statement>, Values<'g>)>,
    /// Of the policies behind it.
    values: Values<'g>,
    grant: &'g Grant,
    /// Of the next statement.
    number: usize,
}

impl<'g> Iterator for Statements<'g> {
    type Item = (&'g NamedPolicy, Bound<'g>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((named, statements, values)) = &mut self.current
                && let Some(statement) = statements.next()
            {
                let number = self.number;
                self.number += 1;
                let bound = Bound {
                    statement,
                    values,
                    variables: named.policy.variables(),
                    met: self.grant.whose.met(number),
                    number,
                };
                return Some((named, bound));
            }
            let named = self.policies.next()?;
            let count = named.policy.variables().len();
            let (own, rest) = self.values.split_at_checked(count)?;
            if !self.grant.alike {
                self.values = rest;
            }
            self.current = Some((named, named.policy.statements().iter(), own));
        }
    }
}

impl Grant {
    /// Joins the policies of a connection with what is known of it. Conditions are judged here,
    /// once; those on time until [`Grant::turns_at`].
    #[must_use]
    pub fn new(realm: Arc<Realm>, policies: Arc<[NamedPolicy]>, context: Context) -> Self {
        let closed = realm.unresolved_deny == UnresolvedDeny::Closed;
        let any_region = realm.region.is_none();
        let nothing = MessageFacts::default();
        let met = |statement: &Statement| {
            let fails_closed = closed && statement.effect == Effect::Deny;
            let (of_message, fixed): (Vec<_>, Vec<_>) = statement
                .conditions
                .iter()
                .partition(|condition| condition.key.is_of_message());
            let fixed = fixed.into_iter().all(|condition| {
                condition.holds(statement.effect, &context, &nothing, any_region)
                    || fails_closed && condition.is_unresolved(&context)
            });
            match (fixed, of_message.is_empty()) {
                (false, _) => Met::No,
                (true, true) => Met::Yes,
                (true, false) => Met::Ask,
            }
        };
        let statements = policies.iter().flat_map(|named| {
            let only_denies = context.only_denies(&named.name);
            let statements = named.policy.statements().iter();
            statements.map(move |statement| (only_denies, statement))
        });
        let met = statements
            .map(|(only_denies, statement)| match statement.effect {
                Effect::Allow if only_denies => Met::No,
                _ => met(statement),
            })
            .collect();
        Self::where_met(realm, policies, &context, met)
    }

    /// The same with every condition that the registry does not settle taken against a claim:
    /// those of an Allow hold, those of a Deny do not.
    pub(crate) fn assuming(
        realm: Arc<Realm>,
        policies: Arc<[NamedPolicy]>,
        context: Context,
        settled: &[Settled],
    ) -> Self {
        let statements = policies.iter().flat_map(|named| named.policy.statements());
        let met = statements
            .zip(settled)
            .map(|(statement, settled)| match (statement.effect, settled) {
                (_, Settled::Met) | (Effect::Allow, Settled::Open) => Met::Yes,
                (_, Settled::Unmet) | (Effect::Deny, Settled::Open) => Met::No,
            })
            .collect();
        Self::where_met(realm, policies, &context, met)
    }

    /// `met` says of every statement whether its conditions are.
    fn where_met(
        realm: Arc<Realm>,
        policies: Arc<[NamedPolicy]>,
        context: &Context,
        met: Vec<Met>,
    ) -> Self {
        let each = policies.iter().map(|named| named.policy.variables());
        let mut with_some = each.filter(|variables| !variables.is_empty());
        let first = with_some.next().unwrap_or_default();
        let alike = with_some.all(|variables| variables == first);
        let bindings = if alike {
            Bindings::of(first.iter().map(|variable| variable.value(context)))
        } else {
            let variables = policies.iter().flat_map(|named| named.policy.variables());
            Bindings::of(variables.map(|variable| variable.value(context)))
        };
        let values = bindings.all();
        let wild = |value: &Arc<str>| value.contains(['+', '#']);
        let mqtt_wild = realm.region.is_none() && values.iter().flatten().any(wild);
        let statements = || policies.iter().flat_map(|named| named.policy.statements());
        let asking = statements().zip(&met);
        let asking = asking.filter(|(_, met)| **met == Met::Ask);
        let of_message = asking.fold(ActionSet::default(), |set, (statement, _)| {
            set.union(statement.actions)
        });
        let mut opened = Vec::new();
        if realm.unresolved_deny == UnresolvedDeny::Closed && values.iter().any(Option::is_none) {
            let (mut number, mut left) = (0, values);
            for named in policies.iter() {
                let count = named.policy.variables().len();
                let Some((own, rest)) = left.split_at_checked(count) else {
                    break;
                };
                if !alike {
                    left = rest;
                }
                for statement in named.policy.statements() {
                    // What a Deny names and what an Allow spares.
                    if (statement.effect == Effect::Deny) != statement.but {
                        let resources = statement.resources.iter();
                        let lacking = resources.filter(|r| !r.is_resolved(own));
                        opened.extend(lacking.map(|r| (number, r.opened(own))));
                    }
                    number += 1;
                }
            }
        }
        let asked = policies.iter().map(|named| named.policy.asked());
        let asked = asked.fold(Asked::default(), Asked::union);
        Self {
            of_message,
            alike,
            denies: statements().any(|statement| statement.effect == Effect::Deny),
            mqtt_wild,
            whose: Arc::new(Whose::new(bindings, context, asked, met, opened)),
            realm,
            policies,
        }
    }

    /// The second since 1970 from which on the grant must be made anew, because a condition on
    /// time may come out otherwise.
    #[must_use]
    pub fn turns_at(&self) -> Option<i64> {
        let statements = self.policies.iter().flat_map(|p| p.policy.statements());
        let conditions = statements.flat_map(|statement| &statement.conditions);
        let context = self.context();
        let turns = conditions.filter_map(|condition| condition.turns(&context));
        turns.min()
    }

    /// Whether a decision on the action holds for one message only, because a statement asks of
    /// its size, quality of service or retain flag.
    #[must_use]
    pub fn depends_on_message(&self, action: Action) -> bool {
        self.of_message.contains(action)
    }

    /// What is known of the connection, as far as its policies can ask for it.
    pub(crate) fn context(&self) -> Context {
        self.whose.context()
    }

    /// Decides on an action; `name` is the client id, topic or topic filter, without an ARN.
    ///
    /// On a live server a subscription needs an Allow of its whole filter, and no Deny may reach
    /// into it (see the `coverage` module); unless [`Realm::textual_subscriptions`].
    ///
    /// Takes no lock and does not recurse; allocates nothing but for the coverage of a filter with
    /// wildcards. Time is bounded by the sum over the statements' resources of `name × pattern`
    /// byte comparisons, where a pattern counts with its variables' values; resources whose stars
    /// stand around plain text (nearly all) cost `name + pattern`.
    pub fn decide(&self, action: Action, name: &str) -> Decision {
        self.decide_for(action, name, &MessageFacts::default())
    }

    /// Decides as [`Grant::decide`], on this very message or subscription.
    pub fn decide_for(&self, action: Action, name: &str, message: &MessageFacts) -> Decision {
        self.decide_as(action, action.kind(), name, message)
    }

    /// Decides on an action and a resource of a kind that is not necessarily the action's own.
    pub(crate) fn decide_as(
        &self,
        action: Action,
        kind: Kind,
        name: &str,
        message: &MessageFacts,
    ) -> Decision {
        // A filter with wildcards may meet what begins otherwise.
        let wild = kind == Kind::TopicFilter
            && !self.realm.textual_subscriptions
            && coverage::is_wild(name);
        let beginning = (!wild).then(|| pattern::beginning(name));
        let mut decision = Decision::ImplicitDeny;
        let (mut values, mut first) = (self.whose.values(), 0);
        for named in self.policies.iter() {
            let policy = &*named.policy;
            let variables = policy.variables();
            let Some((own, rest)) = values.split_at_checked(variables.len()) else {
                break;
            };
            if !self.alike {
                values = rest;
            }
            for (place, gate) in policy.gates().iter().enumerate() {
                if !gate.lets_pass(action, beginning) {
                    continue;
                }
                let number = first + place;
                let Some(statement) = policy.statements().get(place) else {
                    continue;
                };
                let bound = Bound {
                    statement,
                    values: own,
                    variables,
                    met: self.whose.met(number),
                    number,
                };
                let settled = decision.is_allow() && statement.effect == Effect::Allow;
                if settled || self.speaks(bound, action, kind, name, message).is_none() {
                    continue;
                }
                match statement.effect {
                    Effect::Allow if !self.denies => return Decision::Allow,
                    Effect::Allow => decision = Decision::Allow,
                    Effect::Deny => return Decision::ExplicitDeny,
                }
            }
            first += policy.gates().len();
        }
        decision
    }

    /// Every statement, with its policy.
    pub(crate) fn statements(&self) -> Statements<'_> {
        Statements {
            policies: self.policies.iter(),
            current: None,
            values: self.whose.values(),
            grant: self,
            number: 0,
        }
    }

    /// The resource by which a statement speaks of this, if it does; of one that names what it
    /// does not speak of, the first.
    #[inline]
    pub(crate) fn speaks<'s>(
        &self,
        bound: Bound<'s>,
        action: Action,
        kind: Kind,
        name: &str,
        message: &MessageFacts,
    ) -> Option<&'s Resource> {
        let statement = bound.statement;
        if !statement.actions.contains(action) || !self.is_met(bound, message) {
            return None;
        }
        if !statement.but {
            let named = |resource: &&Resource| self.reaches(bound, resource, kind, name);
            return statement.resources.iter().find(named).or_else(|| {
                let opened = self.opened_of(bound);
                let found = opened.clone().any(|r| self.reaches(bound, r, kind, name));
                found.then(|| statement.resources.first()).flatten()
            });
        }
        let mut spared = statement.resources.iter().chain(self.opened_of(bound));
        let is_spared = spared.any(|resource| self.reaches(bound, resource, kind, name));
        if is_spared {
            None
        } else {
            statement.resources.first()
        }
    }

    /// Whether the statement's conditions are met, for this message where they ask of it.
    #[inline]
    pub(crate) fn is_met(&self, bound: Bound<'_>, message: &MessageFacts) -> bool {
        match bound.met {
            Met::No => false,
            Met::Yes => true,
            Met::Ask => self.is_met_by(bound.statement, message),
        }
    }

    /// Whether a message meets what a statement asks of it.
    fn is_met_by(&self, statement: &Statement, message: &MessageFacts) -> bool {
        let asked = || {
            statement
                .conditions
                .iter()
                .filter(|c| c.key.is_of_message())
        };
        let effect = statement.effect;
        if asked().all(|condition| condition.variables().next().is_none()) {
            return asked().all(|c| self.condition_holds(effect, c, &NOTHING, message));
        }
        let context = self.context();
        asked().all(|condition| self.condition_holds(effect, condition, &context, message))
    }

    /// The first condition that is not met.
    pub(crate) fn unmet<'s>(
        &self,
        statement: &'s Statement,
        message: &MessageFacts,
    ) -> Option<&'s Condition> {
        let context = self.context();
        let mut conditions = statement.conditions.iter();
        conditions.find(|c| !self.condition_holds(statement.effect, c, &context, message))
    }

    /// Whether a condition of a statement of this effect is met.
    pub(crate) fn condition_holds(
        &self,
        effect: Effect,
        condition: &Condition,
        context: &Context,
        message: &MessageFacts,
    ) -> bool {
        let fails_closed =
            self.realm.unresolved_deny == UnresolvedDeny::Closed && effect == Effect::Deny;
        condition.holds(effect, context, message, self.realm.region.is_none())
            || fails_closed && condition.is_unresolved(context)
    }

    /// Whether a resource of the statement reaches all that it might where a variable has no value.
    pub(crate) fn opens_unresolved(&self, statement: &Statement) -> bool {
        // What a Deny names and what an Allow spares.
        self.realm.unresolved_deny == UnresolvedDeny::Closed
            && (statement.effect == Effect::Deny) != statement.but
    }

    #[inline]
    fn opened_of<'g>(&'g self, bound: Bound<'_>) -> impl Iterator<Item = &'g Resource> + Clone {
        let opened = self.whose.opened().iter();
        opened
            .filter(move |(number, _)| *number == bound.number)
            .map(|(_, resource)| resource)
    }

    /// Whether the resource's ARN is the realm's and its name matches. What is granted must be
    /// covered whole; what is denied or spared needs only to be touched.
    #[inline]
    pub(crate) fn reaches(
        &self,
        bound: Bound<'_>,
        resource: &Resource,
        kind: Kind,
        name: &str,
    ) -> bool {
        let is_here = || resource.is_in(self.realm.region.as_deref(), &self.realm.account);
        if kind == Kind::TopicFilter {
            let grants = (bound.statement.effect == Effect::Allow) != bound.statement.but;
            if grants && self.mqtt_wild && resource.holds_mqtt_wild(bound.values) {
                return false;
            }
            if !self.realm.textual_subscriptions && coverage::is_wild(name) {
                let mut patterns = resource.patterns(kind);
                return is_here()
                    && if grants {
                        patterns.any(|p| coverage::covers(p, bound.values, name))
                    } else {
                        patterns.any(|p| coverage::touches(p, bound.values, name))
                    };
            }
        }
        // Names differ more often than realms.
        self.name_matches(bound, resource, kind, name) && is_here()
    }

    /// Whether the resource's last field matches, its variables having values.
    #[inline]
    pub(crate) fn name_matches(
        &self,
        bound: Bound<'_>,
        resource: &Resource,
        kind: Kind,
        name: &str,
    ) -> bool {
        let mut patterns = resource.patterns(kind);
        patterns.any(|pattern| pattern.matches(name, bound.values))
    }
}
