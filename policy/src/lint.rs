//! What a policy may say and its author seldom means.

use std::fmt;

use serde::Serialize;

use crate::action::{Action, Kind};
use crate::arn::Resource;
use crate::condition::Condition;
use crate::document::{Effect, Policy, Statement};
use crate::key::Key;
use crate::operator::Family;
use crate::own::Own;
use crate::pattern::Token;
use crate::shown::{WORD_MAX_CHARS, shown};

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
    /// A Deny that does not speak where its variable has no value.
    FailsOpen,
    /// A condition on what may not be known, or is never known of the statement's actions.
    UnknownKey,
    /// A condition on several values without `ForAllValues:` or `ForAnyValue:`.
    WithoutQuantifier,
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
        let mut findings = Vec::new();
        let (mut line, mut seen) = (1, 0);
        for (index, statement) in self.statements().iter().enumerate() {
            let between = self.text().get(seen..statement.offset).unwrap_or_default();
            line += between.bytes().filter(|b| *b == b'\n').count();
            seen = statement.offset;
            let mut find = |kind, text: String| {
                let sid = statement.sid.as_deref().map(str::to_owned);
                findings.push(Finding {
                    line,
                    statement: index + 1,
                    sid,
                    kind,
                    text,
                });
            };
            for resource in &statement.resources {
                self.lint_resource(statement, resource, &mut find);
            }
            if statement.actions.is_empty() || !can_match(statement) {
                let text = "no action of it acts on a resource that it names: it never matches; \
                            Subscribe wants topicfilter/…, Publish and Receive topic/…, Connect client/…";
                find(FindingKind::NeverMatches, text.to_owned());
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
                if let Some((kind, text)) = lint_own(statement, condition) {
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
                    "a condition of this Deny compares with a variable: where that has no value \
                     the Deny does not speak; set policy.unresolved_deny = \"closed\""
                        .to_owned(),
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
        let keys = resource
            .variables
            .iter()
            .filter_map(|number| self.variables().get(usize::from(*number)));
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
            for variable in keys.filter(|v| v.default.is_none() && v.key != Key::ClientId) {
                find(
                    FindingKind::FailsOpen,
                    format!(
                        "{text}: where {} has no value this Deny does not speak; \
                         set policy.unresolved_deny = \"closed\"",
                        variable.key
                    ),
                );
            }
            let subscribes = statement.actions.contains(Action::Subscribe);
            if subscribes && !statement.but && !self.denies_receive() {
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
            let attached = statement
                .conditions
                .iter()
                .any(|c| c.key == Key::IsAttached);
            for (kind, actions, what) in [
                (Kind::Client, &[Action::Connect][..], "any client id"),
                (
                    Kind::Topic,
                    &[Action::Publish, Action::Receive, Action::RetainPublish],
                    "any topic",
                ),
                (Kind::TopicFilter, &[Action::Subscribe], "any topic filter"),
                (
                    Kind::Thing,
                    &[Action::UpdateThingShadow, Action::UpdateJobExecution],
                    "any thing",
                ),
            ] {
                let speaks = actions
                    .iter()
                    .any(|action| statement.actions.contains(*action));
                let all = resource
                    .patterns(kind)
                    .any(|p| p.tokens(&[]).as_deref() == Some(&[Token::Star]));
                if speaks && all && !(kind == Kind::Client && attached) {
                    find(
                        FindingKind::OverlyPermissive,
                        format!(
                            "{text} allows {what}: one device then acts for all; name the device's own by \
                             ${{iot:Connection.Thing.ThingName}} (ALLOWS_BROAD_ACCESS_TO_IOT_DATA_PLANE_ACTIONS)"
                        ),
                    );
                }
            }
        }
        for variable in keys {
            let wild = match &variable.key {
                Key::ClientId => "whatever the client says, + # and / included",
                Key::Attribute(_) => "# and /",
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

    fn denies_receive(&self) -> bool {
        self.statements()
            .iter()
            .any(|s| s.effect == Effect::Deny && s.actions.contains(Action::Receive))
    }
}

/// What is seldom meant by a condition on one of Muster's own keys.
fn lint_own(statement: &Statement, condition: &Condition) -> Option<(FindingKind, String)> {
    let Key::Own(own) = &condition.key else {
        return None;
    };
    if own.is_of_message() {
        let known = |action: &Action| match own {
            Own::Qos => matches!(
                action,
                Action::Publish | Action::RetainPublish | Action::Receive | Action::Subscribe
            ),
            _ => matches!(
                action,
                Action::Publish | Action::RetainPublish | Action::Receive
            ),
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_default;

    fn kinds(statement: &str) -> Vec<FindingKind> {
        let text = format!("{{\"Version\":\"2012-10-17\",\n\"Statement\":[{statement}]}}");
        let findings = Policy::parse(&text.replace('~', "arn:aws:iot:*:1:"))
            .unwrap()
            .lint();
        assert!(findings.iter().all(|f| f.line == 2), "{findings:?}");
        findings.into_iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn device_default_is_clean() {
        assert_eq!(device_default("1").unwrap().lint(), []);
    }

    #[test]
    fn what_is_seldom_meant_is_found() {
        use FindingKind::*;
        for (statement, expected) in [
            (
                r#"{"Effect":"Allow","Action":"iot:Publish","Resource":"~topic/*"}"#,
                vec![OverlyPermissive],
            ),
            (
                r#"{"Effect":"Allow","Action":"iot:Publish","Resource":"~topic/a/*"}"#,
                vec![],
            ),
            (
                r#"{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}"#,
                vec![OverlyPermissive],
            ),
            (
                r#"{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}}"#,
                vec![],
            ),
            (
                r##"{"Effect":"Deny","Action":["iot:Subscribe","iot:Receive"],"Resource":["~topicfilter/a/#","~topic/a/b"]}"##,
                vec![MqttWildcardInDeny],
            ),
            (
                r#"{"Effect":"Deny","Action":"iot:Subscribe","Resource":"~topicfilter/a/*"}"#,
                vec![DenyOfSubscribeOnly],
            ),
            (
                r#"{"Effect":"Deny","Action":"iot:Publish","Resource":"~topic/${iot:Connection.Thing.Attributes[a]}"}"#,
                vec![FailsOpen],
            ),
            (
                r#"{"Effect":"Allow","Action":"iot:Subscribe","Resource":"~topicfilter/${iot:Connection.Thing.Attributes[a]}"}"#,
                vec![WildValue],
            ),
            (
                r#"{"Effect":"Allow","Action":"iot:Subscribe","Resource":"~topic/a"}"#,
                vec![NeverMatches],
            ),
            (
                r#"{"Effect":"Allow","Action":"iot:Connect","Resource":"~client/a","Condition":{"StringEquals":{"iot:ConnectAttributes":"LastWill"}}}"#,
                vec![WithoutQuantifier],
            ),
        ] {
            assert_eq!(kinds(statement), expected, "{statement}");
        }
    }
}
