//! What a policy may say and its author seldom means.

mod broad;
mod escaped;
mod silent;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

use crate::action::{Action, Kind};
use crate::arn::Resource;
use crate::condition::Condition;
use crate::document::{Effect, Policy, Statement};
use crate::key::Key;
use crate::operator::Family;
use crate::own::Own;
use crate::pattern::{Pattern, Token};
use crate::shown::{WORD_MAX_CHARS, shown};
use crate::tokens::Variable;

/// The mend of what has no value.
const CLOSED: &str = "set policy.unresolved_deny = \"closed\"";

/// Something in a policy that its author should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The line on which the statement begins.
    pub line: usize,
    /// The statement's number, from 1.
    pub statement: usize,
    /// Its `Sid`.
    pub sid: Option<String>,
    /// What kind of finding.
    pub kind: FindingKind,
    /// The sentence for people, with the mend.
    pub text: String,
    /// Whether a server with [`UnresolvedDeny::Closed`](crate::UnresolvedDeny::Closed) is none the worse for it.
    #[serde(skip)]
    pub closed_mends: bool,
}

/// The kinds of findings; those of AWS Device Defender have its reason codes in their text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// More is allowed than one device needs.
    OverlyPermissive,
    /// `+` or `#` in a Deny, where they are plain characters.
    MqttWildcardInDeny,
    /// A Deny of Subscribe that a wider filter goes round, where Receive is not denied.
    DenyOfSubscribeOnly,
    /// A variable's value may hold `#`, `+` or `/`.
    WildValue,
    /// The statement matches nothing.
    NeverMatches,
    /// What is to be kept out comes in where a variable or a key has no value.
    FailsOpen,
    /// A condition on what may not be known, or is never known of the statement's actions.
    UnknownKey,
    /// A condition on several values without `ForAllValues:` or `ForAnyValue:`.
    WithoutQuantifier,
    /// An action that this server never asks for.
    NotServed,
    /// The ARN is of another account than the server's, so that the resource matches nothing there.
    OtherAccount,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, statement {}", self.line, self.statement)?;
        if let Some(sid) = &self.sid {
            write!(f, " {:?}", shown(sid, WORD_MAX_CHARS))?;
        }
        write!(f, ": {}", self.text)
    }
}

impl Policy {
    /// Looks for what the language allows and an author seldom means.
    #[must_use]
    pub fn lint(&self) -> Vec<Finding> {
        self.lint_for(None)
    }

    /// The same for a server of this account.
    #[must_use]
    pub fn lint_for(&self, account: Option<&str>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let (mut line, mut seen) = (1, 0);
        for (index, statement) in self.statements().iter().enumerate() {
            let between = self.text().get(seen..statement.offset).unwrap_or_default();
            line += between.bytes().filter(|b| *b == b'\n').count();
            seen = statement.offset;
            let mut find = |kind, text: String| {
                let sid = statement.sid.as_deref().map(str::to_owned);
                let closed_mends = kind == FindingKind::FailsOpen && text.ends_with(CLOSED);
                findings.push(Finding {
                    line,
                    statement: index + 1,
                    sid,
                    kind,
                    text,
                    closed_mends,
                });
            };
            for resource in &statement.resources {
                if let Some(account) = account
                    && !resource.is_in(None, account)
                {
                    let text = shown(&resource.text, 2 * WORD_MAX_CHARS);
                    let then = match (statement.effect, statement.but) {
                        (Effect::Allow, false) => "allows nothing",
                        (Effect::Deny, false) => "denies nothing",
                        (_, true) => "spares nothing",
                    };
                    find(
                        FindingKind::OtherAccount,
                        format!(
                            "{text} {then} here: this server's account is {account}; write that, or *"
                        ),
                    );
                }
                self.lint_resource(statement, resource, &mut find);
            }
            let unserved =
                |action: &Action| statement.named.contains(*action) && !action.is_served();
            for action in Action::ALL.into_iter().filter(unserved) {
                let text = format!(
                    "{action} is not served here: nobody ever asks for it, so this statement {} nothing by it",
                    match statement.effect {
                        Effect::Allow => "allows",
                        Effect::Deny => "denies",
                    }
                );
                find(FindingKind::NotServed, text);
            }
            if statement.effect == Effect::Allow && broad::by_exception(statement) {
                let text = "it allows everything but what it names: one device then acts for all; name what \
                            the device needs (ALLOWS_BROAD_ACCESS_TO_IOT_DATA_PLANE_ACTIONS)";
                find(FindingKind::OverlyPermissive, text.to_owned());
            }
            if statement.actions.is_empty() || !can_match(statement) {
                let text = "no action of it acts on a resource that it names: it never matches; \
                            Subscribe wants topicfilter/…, Publish and Receive topic/…, Connect client/…";
                find(FindingKind::NeverMatches, text.to_owned());
            }
            if let Some(why) = silent::conditions(statement) {
                find(FindingKind::NeverMatches, format!("it never speaks: {why}"));
            }
            for condition in &statement.conditions {
                if condition.key.is_list() && condition.operator.wants_quantifier() {
                    let text = format!(
                        "{condition}: the key has several values; say ForAllValues: or ForAnyValue:"
                    );
                    find(FindingKind::WithoutQuantifier, text);
                }
            }
            for condition in &statement.conditions {
                let found = lint_own(statement, condition);
                let found = found.or_else(|| lint_absent(statement, condition));
                if let Some((kind, text)) = found.or_else(|| escaped::by_name(statement, condition))
                {
                    find(kind, text);
                }
            }
            if statement.effect == Effect::Deny
                && statement
                    .conditions
                    .iter()
                    .any(|c| c.variables().next().is_some())
            {
                find(
                    FindingKind::FailsOpen,
                    format!(
                        "a condition of this Deny compares with a variable: where that has no value \
                         the Deny does not speak; {CLOSED}"
                    ),
                );
            }
        }
        findings
    }

    fn lint_resource(
        &self,
        statement: &Statement,
        resource: &Resource,
        find: &mut impl FnMut(FindingKind, String),
    ) {
        let text = shown(&resource.text, 2 * WORD_MAX_CHARS);
        let variables: Vec<&Variable> = resource
            .variables
            .iter()
            .filter_map(|number| self.variables().get(usize::from(*number)))
            .collect();
        if !statement.but
            && can_match(statement)
            && let Some(why) = silent::resource(statement, resource, &variables)
        {
            find(
                FindingKind::NeverMatches,
                format!("{text} never matches: {why}"),
            );
        }
        self.lint_unresolved(statement, &text, &variables, find);
        if statement.effect == Effect::Deny {
            if resource.text.contains(['+', '#']) {
                find(
                    FindingKind::MqttWildcardInDeny,
                    format!(
                        "{text}: + and # are plain characters in a policy, so this Deny stops that \
                         very filter and nothing in it; write * (POLICY_CONTAINS_MQTT_WILDCARDS_IN_DENY_STATEMENT)"
                    ),
                );
            }
            let subscribes = statement.actions.contains(Action::Subscribe);
            let mut filters = resource.patterns(Kind::TopicFilter);
            let plain = !statement.but && !resource.text.contains(['+', '#']);
            if subscribes && plain && filters.any(|filter| !self.denies_receive(filter)) {
                find(
                    FindingKind::DenyOfSubscribeOnly,
                    format!(
                        "{text}: in AWS a wider filter goes round this Deny; deny iot:Receive on the \
                         topics too (TOPIC_FILTERS_INTENDED_TO_DENY_ALLOWED_USING_WILDCARDS)"
                    ),
                );
            }
            return;
        }
        if !statement.but {
            let patterns = |kind| resource.patterns(kind).collect();
            for what in broad::by_resource(statement, patterns, self.variables()) {
                find(
                    FindingKind::OverlyPermissive,
                    format!(
                        "{text} allows {what}: one device then acts for all; name the device's own by \
                         ${{iot:Connection.Thing.ThingName}} (ALLOWS_BROAD_ACCESS_TO_IOT_DATA_PLANE_ACTIONS)"
                    ),
                );
            }
        }
        for variable in variables {
            let wild = match &variable.key {
                Key::ClientId => "whatever the client says, + # and / included",
                Key::Attribute(_) => "# and /",
                Key::Own(Own::FirmwareName | Own::FirmwareVersion) => "+ # and /",
                // + and # are never substituted, as in AWS.
                Key::Certificate(..) => "/",
                _ => continue,
            };
            let filter = resource.patterns(Kind::TopicFilter).next().is_some();
            let topic = resource.patterns(Kind::Topic).next().is_some();
            if filter || topic {
                find(
                    FindingKind::WildValue,
                    format!(
                        "{text}: the value of {} may hold {wild}; the thing's name cannot",
                        variable.key
                    ),
                );
            }
        }
    }

    /// What comes of a variable that has no value.
    fn lint_unresolved(
        &self,
        statement: &Statement,
        text: &str,
        variables: &[&Variable],
        find: &mut impl FnMut(FindingKind, String),
    ) {
        let mut actions = Action::ALL.into_iter();
        let over_https = actions.any(|one| statement.actions.contains(one) && one.is_over_https());
        let may_lack = |variable: &&&Variable| match variable.key {
            Key::IsAttached => false,
            Key::ClientId => variable.default.is_none() && over_https,
            _ => variable.default.is_none(),
        };
        let then = match (statement.effect, statement.but) {
            (Effect::Deny, false) => "this Deny does not speak",
            (Effect::Allow, true) => "nothing is spared, and this Allow allows it all",
            // It opens nothing, or denies more than it names.
            (Effect::Allow, false) | (Effect::Deny, true) => return,
        };
        for variable in variables.iter().filter(may_lack) {
            find(
                FindingKind::FailsOpen,
                format!(
                    "{text}: where {} has no value{} {then}; {CLOSED}",
                    variable.key,
                    match variable.key {
                        Key::ClientId => ", as over HTTPS,",
                        _ => "",
                    }
                ),
            );
        }
    }

    /// Whether receiving what a filter catches is denied, whoever asks.
    fn denies_receive(&self, filter: &Pattern) -> bool {
        let filter = filter.raw();
        let denies = self.statements().iter().filter(|statement| {
            statement.effect == Effect::Deny
                && statement.actions.contains(Action::Receive)
                && statement.conditions.is_empty()
                && !statement.but
        });
        let mut topics = denies.flat_map(|deny| &deny.resources);
        topics.any(|resource| {
            resource.patterns(Kind::Topic).any(|topic| {
                let topic = topic.raw();
                match topic.split_last() {
                    Some((Token::Star, begin)) => filter.starts_with(begin),
                    _ => topic == filter,
                }
            })
        })
    }
}

/// Whether a key of AWS's may have no value on a live connection of a device.
fn may_be_absent(key: &Key) -> bool {
    matches!(
        key,
        Key::Attribute(_)
            | Key::ThingTypeName
            | Key::DomainName
            | Key::Certificate(..)
            | Key::LastWillTopic
    )
}

/// A Deny that is silent where what it asks for has no value.
fn lint_absent(statement: &Statement, condition: &Condition) -> Option<(FindingKind, String)> {
    let operator = condition.operator;
    let mut actions = Action::ALL.into_iter();
    let absent = match condition.key {
        // Over HTTPS nobody has one.
        Key::ClientId => actions.any(|one| statement.actions.contains(one) && one.is_over_https()),
        _ => may_be_absent(&condition.key),
    };
    let open = statement.effect == Effect::Deny
        && absent
        && !operator.negated
        && !operator.if_exists
        && operator.quantifier.is_none()
        && operator.family != Family::Null;
    open.then(|| {
        (
            FindingKind::FailsOpen,
            format!(
                "{condition}: where the key has no value this Deny does not speak; add IfExists to deny then, too"
            ),
        )
    })
}

/// What is seldom meant by a condition on one of Muster's own keys.
fn lint_own(statement: &Statement, condition: &Condition) -> Option<(FindingKind, String)> {
    let Key::Own(own) = &condition.key else {
        return None;
    };
    if own.is_of_message() {
        let known = |action: &Action| own.is_known_of(*action);
        let asked = |action: &Action| statement.actions.contains(*action);
        let mut lacking = Action::ALL.iter().filter(|a| asked(a) && !known(a));
        return lacking.next().map(|action| {
            let allows = if statement.effect == Effect::Allow {
                "then this Allow does not speak of it"
            } else {
                "name only actions on messages"
            };
            (
                FindingKind::UnknownKey,
                format!("{condition}: {action} is no message, so the key has no value: {allows}"),
            )
        });
    }
    let always = matches!(
        own,
        Own::Listener | Own::TlsVersion | Own::SourceNetwork | Own::TimeOfDay(_) | Own::Weekday(_)
    ) || matches!(
        own,
        Own::CertificateAge | Own::CertificateRemainingLife | Own::CertificateKeyKind
    );
    if condition.operator.family == Family::Null {
        return None;
    }
    if statement.effect == Effect::Allow && condition.operator.if_exists {
        return Some((
            FindingKind::UnknownKey,
            format!(
                "{condition}: what is not known never meets a condition of an Allow, so IfExists \
                 changes nothing; allow it in a statement of its own with \"Null\": \"true\""
            ),
        ));
    }
    let open = statement.effect == Effect::Deny && !always && !condition.operator.if_exists;
    (open && !condition.operator.negated).then(|| {
        (
            FindingKind::FailsOpen,
            format!(
                "{condition}: where it is not known this Deny does not speak; add IfExists to deny then, too"
            ),
        )
    })
}

/// Whether an action of the statement acts on a kind of resource that it names.
fn can_match(statement: &Statement) -> bool {
    statement.but
        || Action::ALL
            .into_iter()
            .filter(|action| statement.actions.contains(*action))
            .any(|action| {
                let names = |r: &Resource| r.patterns(action.kind()).next().is_some();
                statement.resources.iter().any(names)
            })
}
