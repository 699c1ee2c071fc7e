//! One principal's policies with its own values: what it may do, now.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::action::{Action, Kind};
use crate::arn::Resource;
use crate::document::{Effect, Policy, Statement};
use crate::name::PolicyName;
use crate::pattern::{Values, Variable, VariableSet};

/// Characters of the longest certificate value that stands for a variable, as in AWS.
pub const VARIABLE_MAX_CHARS: usize = 1024;

/// What an ARN must carry to speak of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm {
    /// The region; `None` takes any region for its own, as a live server does.
    pub region: Option<Box<str>>,
    /// The account id.
    pub account: Box<str>,
}

impl Realm {
    /// The realm of a running server: any region, this account.
    #[must_use]
    pub fn live(account: &str) -> Self {
        Self {
            region: None,
            account: account.into(),
        }
    }

    /// Region and account as strict as AWS.
    #[must_use]
    pub fn exact(region: &str, account: &str) -> Self {
        Self {
            region: Some(region.into()),
            account: account.into(),
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

/// The values of a connection's variables. An absent or empty value leaves the variable
/// unresolved: a resource that holds it matches nothing.
///
/// Values are text: a `*` or `?` in one is no wildcard. Two things are held back besides:
/// - A certificate value with `*`, `$`, `+`, `?` or `#` in it or of more than
///   [`VARIABLE_MAX_CHARS`] stays unresolved, as in AWS.
/// - In a live realm ([`Realm::region`] is `None`) a thing name or client id with `+` or `#` in
///   it opens no topic filter: as part of a filter it would be a wildcard to MQTT, so a client
///   that names itself `+` would read everybody's topics. A Deny still takes it literally.
///   An exact realm decides as AWS documents, which lets that client through.
///
/// A `/` in a client id is text like any other: `dt/${iot:ClientId}/*` for client `a/b` opens
/// `dt/a/b/…`, which also lies under `dt/a/`. Thing names cannot hold one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variables {
    /// `${iot:ClientId}`.
    pub client_id: Box<str>,
    /// `${iot:Connection.Thing.ThingName}`: the thing that the certificate is attached to,
    /// where this connection speaks as that thing.
    pub thing_name: Option<Box<str>>,
    /// `${iot:Certificate.Subject.CommonName}`: the first one of the subject.
    pub certificate_common_name: Option<Box<str>>,
}

impl Variables {
    pub(crate) fn value(&self, variable: Variable) -> Option<&str> {
        match variable {
            Variable::ClientId => Some(&self.client_id),
            Variable::ThingName => self.thing_name.as_deref(),
            Variable::CommonName => self.certificate_common_name.as_deref(),
        }
    }
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

/// All that one connection is granted. Cheap to clone but for the variables' values.
#[derive(Debug, Clone)]
pub struct Grant {
    pub(crate) realm: Arc<Realm>,
    pub(crate) policies: Arc<[NamedPolicy]>,
    pub(crate) variables: Variables,
    /// Variables that have a value fit to stand in a resource.
    resolved: VariableSet,
    /// Variables whose value would be a wildcard to MQTT and must open no filter.
    mqtt_wild: VariableSet,
}

impl Grant {
    /// Joins the policies of a connection with its values.
    #[must_use]
    pub fn new(realm: Arc<Realm>, policies: Arc<[NamedPolicy]>, variables: Variables) -> Self {
        let value = |variable| variables.value(variable).unwrap_or_default();
        let fit = |variable: &Variable| match variable {
            Variable::CommonName => fit_certificate_value(value(*variable)),
            Variable::ThingName | Variable::ClientId => !value(*variable).is_empty(),
        };
        let wild =
            |variable: &Variable| realm.region.is_none() && value(*variable).contains(['+', '#']);
        Self {
            resolved: Variable::ALL.into_iter().filter(fit).collect(),
            mqtt_wild: Variable::ALL.into_iter().filter(wild).collect(),
            realm,
            policies,
            variables,
        }
    }

    /// Decides on an action; `name` is the client id, topic or topic filter, without an ARN.
    ///
    /// Allocates nothing, takes no lock and does not recurse. Time is bounded by the sum over
    /// the statements' resources of `name × pattern` byte comparisons, where a pattern counts
    /// with its variables' values; resources whose stars stand around plain text (nearly all)
    /// cost `name + pattern`.
    pub fn decide(&self, action: Action, name: &str) -> Decision {
        self.decide_as(action, action.kind(), name)
    }

    /// Decides on an action and a resource of a kind that is not necessarily the action's own.
    pub(crate) fn decide_as(&self, action: Action, kind: Kind, name: &str) -> Decision {
        let mut decision = Decision::ImplicitDeny;
        for statement in self
            .policies
            .iter()
            .flat_map(|named| named.policy.statements())
        {
            let settled = decision.is_allow() && statement.effect == Effect::Allow;
            if settled || self.speaks(statement, action, kind, name).is_none() {
                continue;
            }
            match statement.effect {
                Effect::Allow => decision = Decision::Allow,
                Effect::Deny => return Decision::ExplicitDeny,
            }
        }
        decision
    }

    /// The resource by which a statement speaks of this, if it does.
    pub(crate) fn speaks<'s>(
        &self,
        statement: &'s Statement,
        action: Action,
        kind: Kind,
        name: &str,
    ) -> Option<&'s Resource> {
        if !statement.actions.contains(action) {
            return None;
        }
        let opens_filter = statement.effect == Effect::Allow && kind == Kind::TopicFilter;
        statement.resources.iter().find(|resource| {
            resource.variables.is_within(self.resolved)
                && !(opens_filter && resource.variables.meets(self.mqtt_wild))
                && resource.is_in(self.realm.region.as_deref(), &self.realm.account)
                && self.name_matches(resource, kind, name)
        })
    }

    /// Whether the resource's last field matches, its variables having values.
    pub(crate) fn name_matches(&self, resource: &Resource, kind: Kind, name: &str) -> bool {
        let values = Values {
            thing_name: self.variables.thing_name.as_deref().unwrap_or_default(),
            client_id: &self.variables.client_id,
            common_name: self
                .variables
                .certificate_common_name
                .as_deref()
                .unwrap_or_default(),
        };
        resource
            .patterns(kind)
            .any(|pattern| pattern.matches(name, &values))
    }

    /// Whether the variable stands for its value in this connection.
    pub(crate) fn resolves(&self, variable: Variable) -> bool {
        self.resolved.contains(variable)
    }
}

/// Whether a certificate's value may stand in a resource; AWS's rule.
fn fit_certificate_value(value: &str) -> bool {
    !value.is_empty()
        && !value.contains(['*', '$', '+', '?', '#'])
        && value.chars().nth(VARIABLE_MAX_CHARS).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(client_id: &str, thing: Option<&str>, common_name: Option<&str>) -> Variables {
        Variables {
            client_id: client_id.into(),
            thing_name: thing.map(Into::into),
            certificate_common_name: common_name.map(Into::into),
        }
    }

    fn grant_in(realm: Realm, statements: &str, variables: Variables) -> Grant {
        let text = format!("{{\"Version\":\"2012-10-17\",\"Statement\":[{statements}]}}");
        let policy = Arc::new(Policy::parse(&text).unwrap());
        let named = NamedPolicy {
            name: "p".parse().unwrap(),
            policy,
        };
        Grant::new(Arc::new(realm), Arc::from([named]), variables)
    }

    fn grant(statements: &str, variables: Variables) -> Grant {
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

    #[test]
    fn a_grant_is_small() {
        assert!(size_of::<Grant>() <= 96, "{}", size_of::<Grant>());
    }
}
