//! One principal's policies with its own values: what it may do, now.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::action::{Action, ActionSet, Kind};
use crate::arn::Resource;
use crate::condition::Condition;
use crate::context::{Context, MessageFacts};
use crate::coverage;
use crate::document::{Effect, Policy, Statement};
use crate::name::PolicyName;
use crate::pattern::{self, Values};
use crate::tokens::Variable;

/// What an ARN must carry to speak of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm {
    /// The region; `None` takes any region for its own, as a live server does.
    pub region: Option<Box<str>>,
    /// The account id.
    pub account: Box<str>,
    /// What a Deny does whose variable has no value.
    pub unresolved_deny: UnresolvedDeny,
    /// Whether a subscription is judged by the text of its filter alone, as AWS does, and a Deny
    /// inside it is left to [`Action::Receive`].
    pub textual_subscriptions: bool,
}

/// What a Deny does whose variable has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnresolvedDeny {
    /// It matches nothing, as in AWS: the Deny fails open.
    #[default]
    Open,
    /// It denies as if the variable could stand for anything. A `NotResource` of an Allow then
    /// spares as much.
    Closed,
}

impl Realm {
    /// The realm of a running server: any region, this account.
    #[must_use]
    pub fn live(account: &str) -> Self {
        Self {
            region: None,
            account: account.into(),
            unresolved_deny: UnresolvedDeny::Open,
            textual_subscriptions: false,
        }
    }

    /// Region and account as strict as AWS.
    #[must_use]
    pub fn exact(region: &str, account: &str) -> Self {
        Self {
            region: Some(region.into()),
            account: account.into(),
            unresolved_deny: UnresolvedDeny::Open,
            textual_subscriptions: true,
        }
    }
}

/// A policy under its name.
#[derive(Debug, Clone)]
pub struct NamedPolicy {
    /// The name, for explanations.
    pub name: PolicyName,
    /// The compiled document, shared by all who hold it.
    pub policy: Arc<Policy>,
}

/// Outcome of a decision. Only [`Decision::Allow`] allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[must_use]
pub enum Decision {
    /// A statement allows and none denies.
    Allow,
    /// A statement denies.
    ExplicitDeny,
    /// No statement speaks of it.
    ImplicitDeny,
}

impl Decision {
    /// Whether the decision is [`Decision::Allow`].
    #[must_use]
    pub fn is_allow(self) -> bool {
        self == Decision::Allow
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Decision::Allow => "allow",
            Decision::ExplicitDeny => "explicit deny",
            Decision::ImplicitDeny => "implicit deny",
        })
    }
}

/// All that one connection is granted. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Grant {
    pub(crate) realm: Arc<Realm>,
    pub(crate) policies: Arc<[NamedPolicy]>,
    /// The values of each policy's variables, one policy behind the other.
    values: Arc<[Option<Arc<str>>]>,
    /// Of each statement, one policy behind the other, whether its conditions are met; nothing where
    /// all are, as they mostly are.
    met: Arc<[Met]>,
    /// The actions of which a statement asks what the message is.
    of_message: ActionSet,
    seldom: Arc<Seldom>,
    /// Whether a value would be a wildcard to MQTT.
    mqtt_wild: bool,
    has_opened: bool,
    /// Whether any Deny could speak; without one the first Allow decides.
    denies: bool,
}

/// Whether a statement's conditions are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Met {
    No,
    Yes,
    /// Those that do not ask of the message are.
    Ask,
}

/// What an ordinary decision does not look at.
#[derive(Debug)]
struct Seldom {
    context: Context,
    /// By statement, the resources that stand in for those with an unresolved variable.
    opened: Box<[(usize, Resource)]>,
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
                    met: self.grant.met(number),
                    number,
                };
                return Some((named, bound));
            }
            let named = self.policies.next()?;
            let count = named.policy.variables().len();
            let (own, rest) = self.values.split_at_checked(count)?;
            self.values = rest;
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
        let variables = policies.iter().flat_map(|named| named.policy.variables());
        let values: Arc<[_]> = variables.map(|v| v.value(&context)).collect();
        let wild = |value: &Arc<str>| value.contains(['+', '#']);
        let mqtt_wild = any_region && values.iter().flatten().any(wild);
        let statements = || policies.iter().flat_map(|named| named.policy.statements());
        let nothing = MessageFacts::default();
        let met = statements().map(|statement| {
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
        });
        let met: Vec<Met> = met.collect();
        let asking = statements().zip(&met);
        let asking = asking.filter(|(_, met)| **met == Met::Ask);
        let of_message = asking.fold(ActionSet::default(), |set, (statement, _)| {
            set.union(statement.actions)
        });
        let all_met = met.iter().all(|met| *met == Met::Yes);
        let met = if all_met { Arc::default() } else { met.into() };
        let mut opened = Vec::new();
        if closed && values.iter().any(Option::is_none) {
            let (mut number, mut first) = (0, 0);
            for named in policies.iter() {
                let count = named.policy.variables().len();
                let values = values.get(first..first + count).unwrap_or_default();
                for statement in named.policy.statements() {
                    // What a Deny names and what an Allow spares.
                    if (statement.effect == Effect::Deny) != statement.but {
                        let resources = statement.resources.iter();
                        let lacking = resources.filter(|r| !r.is_resolved(values));
                        opened.extend(lacking.map(|r| (number, r.opened(values))));
                    }
                    number += 1;
                }
                first += count;
            }
        }
        Self {
            met,
            of_message,
            values,
            denies: statements().any(|statement| statement.effect == Effect::Deny),
            has_opened: !opened.is_empty(),
            seldom: Arc::new(Seldom {
                context,
                opened: opened.into(),
            }),
            mqtt_wild,
            realm,
            policies,
        }
    }

    /// The same with every condition taken against a claim: those of an Allow hold, those of a
    /// Deny do not.
    pub(crate) fn assuming(
        realm: Arc<Realm>,
        policies: Arc<[NamedPolicy]>,
        context: Context,
    ) -> Self {
        let mut grant = Self::new(realm, policies, context);
        let statements = grant
            .policies
            .iter()
            .flat_map(|named| named.policy.statements());
        grant.met = statements
            .map(|statement| match statement.effect {
                Effect::Deny if !statement.conditions.is_empty() => Met::No,
                _ => Met::Yes,
            })
            .collect();
        grant
    }

    /// The second since 1970 from which on the grant must be made anew, because a condition on
    /// time may come out otherwise.
    #[must_use]
    pub fn turns_at(&self) -> Option<i64> {
        let statements = self.policies.iter().flat_map(|p| p.policy.statements());
        let conditions = statements.flat_map(|statement| &statement.conditions);
        let turns = conditions.filter_map(|condition| condition.turns(self.context()));
        turns.min()
    }

    /// Whether a decision on the action holds for one message only, because a statement asks of
    /// its size, quality of service or retain flag.
    #[must_use]
    pub fn depends_on_message(&self, action: Action) -> bool {
        self.of_message.contains(action)
    }

    pub(crate) fn context(&self) -> &Context {
        &self.seldom.context
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
        let (mut values, mut first): (Values<'_>, usize) = (&self.values, 0);
        for named in self.policies.iter() {
            let policy = &*named.policy;
            let variables = policy.variables();
            let Some((own, rest)) = values.split_at_checked(variables.len()) else {
                break;
            };
            values = rest;
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
                    met: self.met(number),
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

    #[inline]
    fn met(&self, number: usize) -> Met {
        if self.met.is_empty() {
            return Met::Yes;
        }
        self.met.get(number).copied().unwrap_or(Met::No)
    }

    /// Every statement, with its policy.
    pub(crate) fn statements(&self) -> Statements<'_> {
        Statements {
            policies: self.policies.iter(),
            current: None,
            values: &self.values,
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
            Met::Ask => self.unmet(bound.statement, message).is_none(),
        }
    }

    /// The first condition that is not met.
    pub(crate) fn unmet<'s>(
        &self,
        statement: &'s Statement,
        message: &MessageFacts,
    ) -> Option<&'s Condition> {
        let fails_closed = self.realm.unresolved_deny == UnresolvedDeny::Closed
            && statement.effect == Effect::Deny;
        let any_region = self.realm.region.is_none();
        let met = |condition: &Condition| {
            condition.holds(statement.effect, self.context(), message, any_region)
                || fails_closed && condition.is_unresolved(self.context())
        };
        statement
            .conditions
            .iter()
            .find(|condition| !met(condition))
    }

    #[inline]
    fn opened_of<'g>(&'g self, bound: Bound<'_>) -> impl Iterator<Item = &'g Resource> + Clone {
        let opened = if self.has_opened {
            &*self.seldom.opened
        } else {
            &[]
        };
        let opened = opened.iter();
        opened
            .filter(move |(number, _)| *number == bound.number)
            .map(|(_, resource)| resource)
    }

    /// Whether the resource's ARN is the realm's and its name matches. What is granted must be
    /// covered whole; what is denied or spared needs only to be touched.
    #[inline]
    fn reaches(&self, bound: Bound<'_>, resource: &Resource, kind: Kind, name: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::VARIABLE_MAX_CHARS;

    fn variables(client_id: &str, thing: Option<&str>, common_name: Option<&str>) -> Context {
        Context::of(client_id, thing, common_name)
    }

    fn grant_in(realm: Realm, statements: &str, variables: Context) -> Grant {
        let text = format!("{{\"Version\":\"2012-10-17\",\"Statement\":[{statements}]}}");
        let policy = Arc::new(Policy::parse(&text).unwrap());
        let named = NamedPolicy {
            name: "p".parse().unwrap(),
            policy,
        };
        Grant::new(Arc::new(realm), Arc::from([named]), variables)
    }

    fn grant(statements: &str, variables: Context) -> Grant {
        grant_in(Realm::live("1"), statements, variables)
    }

    fn statement(effect: &str, action: &str, name: &str) -> String {
        format!(
            "{{\"Effect\":\"{effect}\",\"Action\":\"{action}\",\"Resource\":\"arn:aws:iot:local:1:{name}\"}}"
        )
    }

    #[test]
    fn nothing_attached_allows_nothing() {
        let grant = Grant::new(
            Arc::new(Realm::live("1")),
            Arc::from([]),
            variables("a", Some("a"), None),
        );
        for action in Action::ALL {
            assert_eq!(grant.decide(action, "a"), Decision::ImplicitDeny);
        }
    }

    #[test]
    fn a_deny_wins_wherever_it_stands() {
        let allow = statement("Allow", "iot:*", "*");
        let deny = statement("Deny", "iot:Publish", "topic/a/*");
        for statements in [format!("{allow},{deny}"), format!("{deny},{allow}")] {
            let grant = grant(&statements, variables("a", None, None));
            assert_eq!(grant.decide(Action::Publish, "a/b"), Decision::ExplicitDeny);
            assert_eq!(grant.decide(Action::Publish, "b"), Decision::Allow);
            assert_eq!(grant.decide(Action::Receive, "a/b"), Decision::Allow);
        }
    }

    #[test]
    fn a_live_realm_takes_any_region_and_only_its_account() {
        let statements = statement("Allow", "iot:Publish", "topic/a");
        let decide = |realm| {
            grant_in(realm, &statements, variables("a", None, None)).decide(Action::Publish, "a")
        };
        assert_eq!(decide(Realm::live("1")), Decision::Allow);
        assert_eq!(decide(Realm::live("2")), Decision::ImplicitDeny);
        assert_eq!(decide(Realm::exact("local", "1")), Decision::Allow);
        assert_eq!(
            decide(Realm::exact("us-east-1", "1")),
            Decision::ImplicitDeny
        );
    }

    #[test]
    fn the_kind_of_resource_belongs_to_the_action() {
        let grant = grant(
            &[
                statement("Allow", "*", "topic/a"),
                statement("Allow", "*", "topicfilter/b"),
                statement("Allow", "*", "client/c"),
            ]
            .join(","),
            variables("c", None, None),
        );
        for action in Action::ALL {
            let allowed = ["a", "b", "c"].map(|name| grant.decide(action, name).is_allow());
            let kind = action.kind();
            let expected = [Kind::Topic, Kind::TopicFilter, Kind::Client].map(|k| k == kind);
            assert_eq!(allowed, expected, "{action}");
        }
    }

    #[test]
    fn an_unresolved_variable_matches_nothing() {
        let thing = statement("Allow", "*", "topic/*${iot:Connection.Thing.ThingName}*");
        for thing_name in [None, Some("")] {
            let grant = grant(&thing, variables("a", thing_name, Some("a")));
            for name in ["", "a", "${iot:Connection.Thing.ThingName}"] {
                assert_eq!(grant.decide(Action::Publish, name), Decision::ImplicitDeny);
            }
        }
        let subject = statement("Allow", "*", "topic/${iot:Certificate.Subject.CommonName}");
        let long = "é".repeat(VARIABLE_MAX_CHARS);
        for (value, expected) in [
            ("cn-1", Decision::Allow),
            ("a*", Decision::ImplicitDeny),
            ("a$", Decision::ImplicitDeny),
            ("a+", Decision::ImplicitDeny),
            ("a?", Decision::ImplicitDeny),
            ("a#", Decision::ImplicitDeny),
            (&long, Decision::Allow),
            (&format!("{long}é"), Decision::ImplicitDeny),
        ] {
            let grant = grant(&subject, variables("a", None, Some(value)));
            assert_eq!(grant.decide(Action::Publish, value), expected, "{value}");
        }
    }

    #[test]
    fn a_client_id_cannot_become_a_wildcard() {
        let own = statement("Allow", "iot:*", "topicfilter/cmd/${iot:ClientId}/*");
        let deny = statement("Deny", "iot:*", "topicfilter/no/${iot:ClientId}");
        let all = statement("Allow", "iot:*", "topicfilter/no/*");
        let statements = [own, deny, all].join(",");
        for id in ["+", "#", "a+", "a/#", "+/+"] {
            let filter = format!("cmd/{id}/x");
            let live = grant(&statements, variables(id, None, None));
            assert_eq!(
                live.decide(Action::Subscribe, &filter),
                Decision::ImplicitDeny,
                "{id}"
            );
            assert_eq!(
                live.decide(Action::Subscribe, &format!("no/{id}")),
                Decision::ExplicitDeny
            );
            let exact = grant_in(
                Realm::exact("local", "1"),
                &statements,
                variables(id, None, None),
            );
            assert_eq!(
                exact.decide(Action::Subscribe, &filter),
                Decision::Allow,
                "{id}"
            );
        }
        for id in ["*", "?", "a*", "${iot:ClientId}"] {
            let live = grant(&statements, variables(id, None, None));
            assert_eq!(
                live.decide(Action::Subscribe, "cmd/lamp-1/x"),
                Decision::ImplicitDeny
            );
            assert_eq!(
                live.decide(Action::Subscribe, &format!("cmd/{id}/x")),
                Decision::Allow
            );
        }
    }

    #[test]
    fn names_and_values_cannot_play_arn_fields() {
        let statements = format!(
            "{},{}",
            statement("Allow", "iot:*", "client/${iot:ClientId}"),
            "{\"Effect\":\"Allow\",\"Action\":\"*\",\"Resource\":\"arn:aws:iot:*:*:topic/${iot:Connection.Thing.ThingName}\"}"
        );
        let thing = "x:topic/y";
        let grant = grant(&statements, variables("1:client/a", Some(thing), None));
        assert_eq!(grant.decide(Action::Connect, "a"), Decision::ImplicitDeny);
        assert_eq!(grant.decide(Action::Connect, "1:client/a"), Decision::Allow);
        assert_eq!(grant.decide(Action::Publish, "y"), Decision::ImplicitDeny);
        assert_eq!(grant.decide(Action::Publish, thing), Decision::Allow);
        assert_eq!(
            grant.decide(Action::Publish, "x:topic/y\0"),
            Decision::ImplicitDeny
        );
    }

    #[test]
    fn deciding_allocates_nothing() {
        let statements = [
            statement("Allow", "iot:*", "topic/*a?${iot:ClientId}*b*"),
            statement(
                "Deny",
                "iot:P*",
                "top*/${iot:Connection.Thing.ThingName}/?*?",
            ),
            statement("Allow", "*", "topic/*"),
        ];
        let grant = grant(&statements.join(","), variables("a", Some("a"), Some("c")));
        let name = "a".repeat(65_535);
        let counted = allocation_counter::measure(|| {
            assert_eq!(grant.decide(Action::Publish, &name), Decision::Allow);
            assert_eq!(
                grant.decide(Action::Publish, "a/bcd"),
                Decision::ExplicitDeny
            );
            assert_eq!(grant.decide(Action::Connect, "a"), Decision::ImplicitDeny);
        });
        assert_eq!(counted.count_total, 0);
    }

    /// What many share (policies, things, certificates) is there once; a grant lies in its session.
    #[test]
    fn a_principal_costs_few_bytes() {
        const PRINCIPALS: usize = 1_000;
        assert!(size_of::<Grant>() <= 96, "{}", size_of::<Grant>());
        let realm = Arc::new(Realm::live("1"));
        let policies: Arc<[NamedPolicy]> = Arc::from([NamedPolicy {
            name: "device-default".parse().unwrap(),
            policy: Arc::new(crate::device_default("1").unwrap()),
        }]);
        let contexts = (0..PRINCIPALS).map(|n| variables(&format!("d-{n}"), Some("lamp"), None));
        let contexts: Vec<Context> = contexts.collect();
        let mut grants = Vec::with_capacity(PRINCIPALS);
        let counted = allocation_counter::measure(|| {
            for context in &contexts {
                let (realm, policies) = (Arc::clone(&realm), Arc::clone(&policies));
                grants.push(Grant::new(realm, policies, context.clone()));
            }
        });
        let bytes = counted.bytes_current / i64::try_from(PRINCIPALS).unwrap();
        assert!(bytes < 200, "{bytes} bytes each");
        assert!(
            grants
                .iter()
                .all(|grant| grant.decide(Action::Publish, "dt/lamp/x").is_allow())
        );
    }
}
