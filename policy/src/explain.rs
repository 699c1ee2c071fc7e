//! Why a decision is what it is, and what would change it.

mod each;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

use crate::action::{Action, Kind};
use crate::arn::Resource;
use crate::condition::Condition;
use crate::context::{Context, MessageFacts};
use crate::decision::Decision;
use crate::default::GrantText;
use crate::document::{Effect, Statement};
use crate::grant::{Bound, Grant, NamedPolicy};
use crate::key::Key;
use crate::name::PolicyName;
use crate::operator::Family;
use crate::shown::{NAME_MAX_CHARS, WORD_MAX_CHARS, misleads, shown};
use crate::tokens::Variable;

/// Bytes of the longest [`Explanation::reason`]; it travels in an MQTT reason string.
pub const REASON_MAX_BYTES: usize = 199;

/// Allows that the one-sentence summary names; the rest is counted. Of Denies each is named: each stands in the way.
const SUMMARY_MAX_ALLOWS: usize = 3;
/// Values of variables that it names.
const SUMMARY_MAX_VALUES: usize = 5;

/// A decision with its grounds. `Display` is one sentence on one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The decision, the same that [`Grant::decide`] gives.
    pub decision: Decision,
    /// What was asked.
    pub action: Action,
    /// On what, as the last field of an ARN: `topic/dt/lamp-1/light`.
    pub resource: String,
    /// The policies that were asked.
    pub policies: Vec<PolicyName>,
    /// Every statement that spoke; where one is a Deny, each Deny stands in the way.
    pub statements: Vec<StatementRef>,
    /// Statements of the action that did not count, with the reason.
    pub passed_over: Vec<StatementRef>,
    /// What the variables stand for in this connection.
    pub variables: Vec<VariableValue>,
    /// Keys that statements of the action ask for and that have no value here: with them it might
    /// come out otherwise.
    pub missing_context: Vec<String>,
    /// The smallest statement that would allow it, where no Allow speaks.
    pub missing_grant: Option<GrantText>,
    /// The sentence that `Display` writes.
    pub summary: String,
}

/// A statement named to a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatementRef {
    /// The policy it stands in.
    pub policy: PolicyName,
    /// The version of the policy, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Its place in the policy's list, counted from 1.
    pub statement: usize,
    /// Its `Sid`.
    pub sid: Option<String>,
    /// What it does.
    pub effect: Effect,
    /// Its resource that matched, or would have.
    pub resource: String,
    /// What the variables in that resource and in its conditions stand for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<VariableValue>,
    /// Why the statement did not count, when it did not.
    pub reason: Option<String>,
    /// Whether nothing but a condition of it was in the way.
    #[serde(skip)]
    pub by_condition: bool,
}

/// What a variable stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VariableValue {
    /// The name, as in `iot:ClientId`.
    pub name: String,
    /// The value, or the values, also where it is not fit to be substituted.
    pub value: Option<String>,
    /// Whether resources with this variable can match.
    pub resolved: bool,
}

impl Grant {
    /// Explains what [`Grant::decide`] says of the same action and name. Allocates; meant for
    /// denials and for people.
    #[must_use]
    pub fn explain(&self, action: Action, name: &str) -> Explanation {
        self.explain_for(action, name, &MessageFacts::default())
    }

    /// Explains what [`Grant::decide_for`] says.
    #[must_use]
    pub fn explain_for(&self, action: Action, name: &str, message: &MessageFacts) -> Explanation {
        self.explain_as(action, action.kind(), name, message)
    }

    pub(crate) fn explain_as(
        &self,
        action: Action,
        kind: Kind,
        name: &str,
        message: &MessageFacts,
    ) -> Explanation {
        let decision = self.decide_as(action, kind, name, message);
        let (mut statements, mut passed_over) = (Vec::new(), Vec::new());
        let mut at: Option<(&NamedPolicy, usize)> = None;
        for (named, bound) in self.statements() {
            let index = match at {
                Some((last, index)) if std::ptr::eq(last, named) => index + 1,
                _ => 0,
            };
            at = Some((named, index));
            if let Some(resource) = self.speaks(bound, action, kind, name, message) {
                let values = self.values_in(bound, resource, message);
                let statement = bound.statement;
                let told = StatementRef::new(named, index, statement, resource);
                statements.push(told.with(values));
            } else if let Some((resource, reason)) =
                self.why_silent(bound, action, kind, name, message)
            {
                let values = self.values_in(bound, resource, message);
                let statement = bound.statement;
                let told = StatementRef::new(named, index, statement, resource).with(values);
                let named = self.name_matches(bound, resource, kind, name) != statement.but;
                let by_condition = named
                    && !self.is_met(bound, message)
                    && resource.is_resolved(bound.values)
                    && self.why_unmet(statement, message).is_some();
                passed_over.push(StatementRef {
                    reason: Some(reason),
                    by_condition,
                    ..told
                });
            }
        }
        let allowed = statements.iter().any(|s| s.effect == Effect::Allow);
        let mut explanation = Explanation {
            decision,
            action,
            resource: format!("{}{name}", kind.prefix()),
            policies: self
                .policies
                .iter()
                .map(|named| named.name.clone())
                .collect(),
            statements,
            passed_over,
            variables: self.variable_values(message),
            missing_context: self.missing_context(action, kind, name, message),
            missing_grant: (!allowed).then(|| {
                if kind == Kind::Everything {
                    return GrantText::allow(action, "*".to_owned());
                }
                let region = self.realm.region.as_deref().unwrap_or("*");
                let name = as_pattern(name);
                let account = &self.realm.account;
                let prefix = kind.prefix();
                GrantText::allow(
                    action,
                    format!("arn:aws:iot:{region}:{account}:{prefix}{name}"),
                )
            }),
            summary: String::new(),
        };
        explanation.summary = self.summary(&explanation, name);
        explanation
    }

    /// Why a statement of this action does not speak, where a person might think it does.
    fn why_silent<'s>(
        &self,
        bound: Bound<'s>,
        action: Action,
        kind: Kind,
        name: &str,
        message: &MessageFacts,
    ) -> Option<(&'s Resource, String)> {
        let statement = bound.statement;
        if !statement.actions.contains(action) {
            return None;
        }
        if !self.is_met(bound, message) {
            let near = |resource: &&Resource| {
                let lacking = !resource.is_resolved(bound.values);
                lacking || self.name_matches(bound, resource, kind, name) != statement.but
            };
            let resource = statement.resources.iter().find(near)?;
            let assumed = || {
                match statement.effect {
                Effect::Deny => "its conditions are taken not to be met".to_owned(),
                Effect::Allow => "it is of a group of a thing that counts only where the client id is the thing's name: \
                                  the certificate is attached to it without being exclusive"
                    .to_owned(),
            }
            };
            let reason = self.why_unmet(statement, message);
            return Some((resource, reason.unwrap_or_else(assumed)));
        }
        if statement.but {
            return None;
        }
        statement.resources.iter().find_map(|resource| {
            resource.patterns(kind).next()?;
            let variables = self.variables_of(bound, resource);
            if let Some(variable) = variables.into_iter().find(|v| v.value(&self.context()).is_none())
            {
                let values = self.context().values(&variable.key);
                let why = if values.iter().all(|value| value.is_empty()) {
                    "has no value here"
                } else {
                    "has a value that is never substituted"
                };
                return Some((resource, format!("${{{}}} {why}", variable.key)));
            }
            if !self.name_matches(bound, resource, kind, name) {
                return None;
            }
            let reason = if !resource.is_in(self.realm.region.as_deref(), &self.realm.account) {
                let region = self.realm.region.as_deref().unwrap_or("any");
                format!(
                    "its ARN is not of this server (account {}, region {region})",
                    self.realm.account
                )
            } else if resource.holds_mqtt_wild(bound.values) {
                "the value of a variable in it holds + or #, which would be a wildcard in the filter"
                    .to_owned()
            } else {
                "a ? in it stands for one character, and the filter's wildcard for many".to_owned()
            };
            Some((resource, reason))
        })
    }

    /// The first condition that is not met, with what is there instead.
    fn why_unmet(&self, statement: &Statement, message: &MessageFacts) -> Option<String> {
        let condition = self.unmet(statement, message)?;
        let values = self.context().values_for(&condition.key, message);
        let values = values.iter().map(|value| format!("{value:?}"));
        let values = values.collect::<Vec<_>>().join(", ");
        let values = if values.is_empty() {
            "absent".to_owned()
        } else {
            shown(&values, NAME_MAX_CHARS)
        };
        Some(format!(
            "its condition {condition} is not met, the key being {values}"
        ))
    }

    fn variables_of<'g>(&'g self, bound: Bound<'g>, resource: &Resource) -> Vec<&'g Variable> {
        let table = bound.variables;
        let numbers = resource.variables.iter();
        numbers
            .filter_map(|number| table.get(usize::from(*number)))
            .collect()
    }

    /// What the variables in a statement stand for.
    fn values_in(
        &self,
        bound: Bound<'_>,
        resource: &Resource,
        message: &MessageFacts,
    ) -> Vec<VariableValue> {
        let held = self.variables_of(bound, resource);
        let conditions = bound.statement.conditions.iter();
        let asked = conditions.flat_map(Condition::variables);
        let mut keys: Vec<&Key> = Vec::new();
        for key in held.iter().map(|variable| &variable.key).chain(asked) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        if keys.is_empty() {
            return Vec::new();
        }
        let context = self.context();
        let values = keys.into_iter();
        values
            .map(|key| VariableValue::of(key, &context, message))
            .collect()
    }

    /// The client id, the thing's name and every other key that the policies speak of.
    fn variable_values(&self, message: &MessageFacts) -> Vec<VariableValue> {
        let mut keys = vec![&Key::ThingName, &Key::ClientId];
        for named in self.policies.iter() {
            let held = named.policy.variables().iter().map(|v| &v.key);
            let statements = named.policy.statements().iter();
            let asked = statements.flat_map(|statement| &statement.conditions);
            let asked = asked.flat_map(|c| std::iter::once(&c.key).chain(c.variables()));
            for key in held.chain(asked) {
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        let context = self.context();
        let keys = keys.into_iter();
        keys.map(|key| VariableValue::of(key, &context, message))
            .collect()
    }

    fn missing_context(
        &self,
        action: Action,
        kind: Kind,
        name: &str,
        message: &MessageFacts,
    ) -> Vec<String> {
        let mut missing: Vec<String> = Vec::new();
        for (_, bound) in self.statements() {
            let statement = bound.statement;
            let near = |resource: &Resource| {
                !resource.is_resolved(bound.values)
                    || self.name_matches(bound, resource, kind, name) != statement.but
            };
            if !statement.actions.contains(action) || !statement.resources.iter().any(near) {
                continue;
            }
            let resources = statement.resources.iter();
            let held = resources.flat_map(|resource| self.variables_of(bound, resource));
            let held = held.filter(|variable| variable.value(&self.context()).is_none());
            let conditions = statement.conditions.iter();
            let conditions =
                conditions.filter(|condition| condition.operator.family != Family::Null);
            let asked = conditions.flat_map(|c| std::iter::once(&c.key).chain(c.variables()));
            let absent = asked.filter(|key| {
                let values = self.context().values_for(key, message);
                values.is_empty() && !matches!(key, Key::Foreign(_))
            });
            for key in held.map(|variable| &variable.key).chain(absent) {
                let key = key.to_string();
                if !missing.contains(&key) {
                    missing.push(key);
                }
            }
        }
        missing
    }

    fn summary(&self, explanation: &Explanation, name: &str) -> String {
        let Explanation {
            decision,
            action,
            resource,
            policies,
            missing_grant,
            ..
        } = explanation;
        let resource = shown(resource, NAME_MAX_CHARS);
        let names = if policies.is_empty() {
            "no policy is attached".to_owned()
        } else {
            let names = policies.iter().map(PolicyName::as_str).collect::<Vec<_>>();
            format!("policies: {}", names.join(", "))
        };
        let mut text = match decision {
            Decision::Allow => format!(
                "{decision}: {} allows {action} on {resource}",
                listed(&explanation.statements, Effect::Allow)
            ),
            Decision::ExplicitDeny => format!(
                "{decision}: {} denies {action} on {resource}; no Allow outweighs a Deny",
                listed(&explanation.statements, Effect::Deny)
            ),
            Decision::ImplicitDeny => {
                format!("{decision}: no statement allows {action} on {resource} ({names})")
            }
        };
        let mut told: Vec<&VariableValue> = Vec::new();
        for value in explanation.statements.iter().flat_map(|s| &s.variables) {
            if !told.contains(&value) {
                told.push(value);
            }
        }
        for (place, value) in told.iter().take(SUMMARY_MAX_VALUES).enumerate() {
            let name = shown(&value.name, WORD_MAX_CHARS);
            let stands = match &value.value {
                Some(value) => format!("{:?}", shown(value, NAME_MAX_CHARS)),
                None => "not known".to_owned(),
            };
            let before = if place == 0 { "; with" } else { " and" };
            text.push_str(&format!("{before} {name} {stands}"));
        }
        if *decision != Decision::Allow
            && let Some(silent) = explanation
                .passed_over
                .iter()
                .find(|s| s.effect == Effect::Allow)
            && let Some(reason) = &silent.reason
        {
            text.push_str(&format!("; {silent} does not count: {reason}"));
        }
        if let Some(thing) = self.context().thing.as_ref().map(|thing| &*thing.name)
            && *action == Action::Connect
            && thing != name
            && *decision == Decision::ImplicitDeny
            && self.decide(Action::Connect, thing).is_allow()
        {
            let thing = shown(thing, NAME_MAX_CHARS);
            text.push_str(&format!(
                "; connect with the thing's name as client id: {thing:?}"
            ));
        }
        if let Some(grant) = missing_grant {
            if name.chars().nth(NAME_MAX_CHARS).is_none() {
                text.push_str(&format!("; missing grant: {grant}"));
            } else {
                text.push_str("; the missing grant is too long for a sentence");
            }
        }
        text
    }
}

impl VariableValue {
    fn of(key: &Key, context: &Context, message: &MessageFacts) -> Self {
        let values = context.values_for(key, message);
        Self {
            name: key.to_string(),
            value: (!values.is_empty()).then(|| values.join(", ")),
            resolved: context.substitute(key).is_some(),
        }
    }
}

impl StatementRef {
    fn with(self, variables: Vec<VariableValue>) -> Self {
        Self { variables, ..self }
    }

    fn new(named: &NamedPolicy, index: usize, statement: &Statement, resource: &Resource) -> Self {
        Self {
            policy: named.name.clone(),
            version: named.policy.number(),
            statement: index + 1,
            sid: statement.sid.as_deref().map(str::to_owned),
            effect: statement.effect,
            resource: if statement.but {
                format!("all but {}", resource.text)
            } else {
                resource.text.to_string()
            },
            variables: Vec::new(),
            reason: None,
            by_condition: false,
        }
    }
}

impl fmt::Display for StatementRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "statement {}", self.statement)?;
        if let Some(sid) = &self.sid {
            write!(f, " \"{}\"", shown(sid, WORD_MAX_CHARS))?;
        }
        let resource = shown(&self.resource, NAME_MAX_CHARS);
        write!(f, " of policy {}", self.policy)?;
        if let Some(version) = self.version {
            write!(f, " version {version}")?;
        }
        write!(f, " ({resource})")
    }
}

fn listed(statements: &[StatementRef], effect: Effect) -> String {
    let mut speaking = statements.iter().filter(|s| s.effect == effect);
    let named_max = match effect {
        Effect::Allow => SUMMARY_MAX_ALLOWS,
        Effect::Deny => usize::MAX,
    };
    let mut names = speaking
        .by_ref()
        .take(named_max)
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    let more = speaking.count();
    if more > 0 {
        names.push(format!("{more} more"));
    }
    names.join(" and ")
}

/// The pattern that matches `name` and nothing else.
pub(crate) fn as_pattern(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '*' | '?' | '$' => pattern.extend(["${", c.encode_utf8(&mut [0; 4]), "}"]),
            c => pattern.push(c),
        }
    }
    pattern
}

impl Explanation {
    /// The whole of it, to be kept.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        // Texts, numbers and lists: there is no way to fail.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// What a device is told in an MQTT reason string: one line of at most
    /// [`REASON_MAX_BYTES`] bytes.
    #[must_use]
    pub fn reason(&self) -> String {
        let Self {
            action, resource, ..
        } = self;
        let resource = shown(resource, NAME_MAX_CHARS);
        let mut text = match self.statements.iter().find(|s| s.effect == Effect::Deny) {
            _ if self.decision.is_allow() => format!("allowed: {action} on {resource}"),
            Some(deny) => {
                let index = deny.statement;
                format!(
                    "statement {index} of policy {} denies {action} on {resource}",
                    deny.policy
                )
            }
            None => match self
                .passed_over
                .iter()
                .find(|s| s.effect == Effect::Allow && s.by_condition)
            {
                // A grant is there; another one would not be the mend.
                Some(allow) => {
                    let (index, policy) = (allow.statement, &allow.policy);
                    format!(
                        "unmet condition of statement {index} of policy {policy}: {action} on {resource}"
                    )
                }
                None => format!("missing grant: {action} on {resource}"),
            },
        };
        if text.len() > REASON_MAX_BYTES {
            text.truncate(text.floor_char_boundary(REASON_MAX_BYTES - '…'.len_utf8()));
            text.push('…');
        }
        text
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)
    }
}

impl fmt::Display for GrantText {
    /// The statement as JSON on one line, with nothing in it that misleads a reader's eye.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;

        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        for c in json.chars() {
            if misleads(c) {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(f, "\\u{unit:04x}")?;
                }
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}
