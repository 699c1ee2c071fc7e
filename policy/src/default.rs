//! What a device may do where nobody said otherwise.

use serde::Serialize;

use crate::action::Action;
use crate::document::{Effect, Policy};
use crate::error::{PolicyError, Problem};
use crate::shown::{WORD_MAX_CHARS, shown};

/// Name of the policy that a device gets when none is named.
pub const DEVICE_DEFAULT: &str = "device-default";

/// The reserved topics of a thing that a device uses itself.
const RESERVED: [&str; 4] = ["jobs", "streams", "shadow", "defender"];

/// A statement to be written into a document; serialises as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GrantText {
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<&'static str>,
    effect: Effect,
    action: OneOrMany<Action>,
    resource: OneOrMany<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn all(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DocumentText {
    version: &'static str,
    statement: Vec<GrantText>,
}

impl DocumentText {
    /// The document of these statements.
    pub(crate) fn of(statement: Vec<GrantText>) -> String {
        let version = "2012-10-17";
        // Strings and lists of strings: serialising them has no way to fail.
        serde_json::to_string_pretty(&Self { version, statement }).unwrap_or_default()
    }
}

impl GrantText {
    pub(crate) fn allow_all(actions: Vec<Action>, resources: Vec<String>) -> Self {
        Self {
            sid: None,
            effect: Effect::Allow,
            action: OneOrMany::Many(actions),
            resource: OneOrMany::Many(resources),
        }
    }

    /// One that grants what each of these does. An action acts on its own kind of resource only, so it opens no more
    /// than they, where those that share a kind share the resource.
    pub(crate) fn joined<'g>(grants: impl Iterator<Item = &'g Self>) -> Option<Self> {
        let (mut actions, mut resources) = (Vec::new(), Vec::new());
        for grant in grants {
            for action in grant.action.all() {
                if !actions.contains(action) {
                    actions.push(*action);
                }
            }
            for resource in grant.resource.all() {
                if !resources.contains(resource) {
                    resources.push(resource.clone());
                }
            }
        }
        match (actions.as_slice(), resources.as_slice()) {
            ([], _) | (_, []) => None,
            ([action], [resource]) => Some(Self::allow(*action, resource.clone())),
            (_, [resource]) => Some(Self {
                resource: OneOrMany::One(resource.clone()),
                ..Self::allow_all(actions, Vec::new())
            }),
            _ => Some(Self::allow_all(actions, resources)),
        }
    }

    pub(crate) fn allow(action: Action, resource: String) -> Self {
        Self {
            sid: None,
            effect: Effect::Allow,
            action: OneOrMany::One(action),
            resource: OneOrMany::One(resource),
        }
    }
}

/// The document of `device-default` for an account, ready to be stored: a device connects only
/// under its thing's name, publishes and retains under `dt/<thing>/`, hears `cmd/<thing>/`, and
/// uses its thing's own reserved topics. Everything hangs on the thing, nothing on what the
/// client says of itself.
///
/// `account` must be the realm's account id: it is written into the ARNs as it is, and
/// [`device_default`] refuses one with anything but digits in it.
#[must_use]
pub fn device_default_text(account: &str) -> String {
    const THING: &str = "${iot:Connection.Thing.ThingName}";
    let arn = |name: String| format!("arn:aws:iot:*:{account}:{name}");
    let own = |kind: &str, tree: &str| arn(format!("{kind}/{tree}/{THING}/*"));
    let reserved = |kind: &str| {
        let trees = RESERVED
            .iter()
            .map(|feature| arn(format!("{kind}/$aws/things/{THING}/{feature}/*")));
        OneOrMany::Many(trees.collect())
    };
    let allow = |sid, action, resource| GrantText {
        sid: Some(sid),
        effect: Effect::Allow,
        action,
        resource,
    };
    DocumentText::of(vec![
        allow(
            "ConnectAsOwnThing",
            OneOrMany::One(Action::Connect),
            OneOrMany::One(arn(format!("client/{THING}"))),
        ),
        allow(
            "PublishOwnData",
            OneOrMany::Many(vec![Action::Publish, Action::RetainPublish]),
            OneOrMany::One(own("topic", "dt")),
        ),
        allow(
            "SubscribeOwnCommands",
            OneOrMany::One(Action::Subscribe),
            OneOrMany::One(own("topicfilter", "cmd")),
        ),
        allow(
            "ReceiveOwnCommands",
            OneOrMany::One(Action::Receive),
            OneOrMany::One(own("topic", "cmd")),
        ),
        allow(
            "UseOwnReservedTopics",
            OneOrMany::Many(vec![Action::Publish, Action::Receive]),
            reserved("topic"),
        ),
        allow(
            "SubscribeOwnReservedTopics",
            OneOrMany::One(Action::Subscribe),
            reserved("topicfilter"),
        ),
    ])
}

/// The compiled [`device_default_text`].
///
/// # Errors
/// When `account` is no account id.
pub fn device_default(account: &str) -> Result<Policy, PolicyError> {
    // Said here because a wildcard or a `:` would be understood in an ARN, as something else.
    if account.is_empty() || !account.bytes().all(|b| b.is_ascii_digit()) {
        let found = shown(account, WORD_MAX_CHARS);
        let problem = Problem::ArnField {
            field: "account",
            found,
            expected: "its digits",
        };
        return Err(PolicyError {
            line: 1,
            column: 1,
            problem,
            statement: None,
        });
    }
    Policy::parse(&device_default_text(account))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Context, Grant, NamedPolicy, Realm};

    fn device(client_id: &str, thing: Option<&str>) -> Grant {
        let policy = Arc::new(device_default("123456789012").unwrap());
        let named = NamedPolicy {
            name: DEVICE_DEFAULT.parse().unwrap(),
            policy,
        };
        Grant::new(
            Arc::new(Realm::live("123456789012")),
            Arc::from([named]),
            Context::of(client_id, thing, thing),
        )
    }

    /// Whether connect, publish, subscribe, receive and retain are allowed on one name.
    fn rights(grant: &Grant, name: &str) -> String {
        let letter = |action: &Action| match action {
            Action::Connect => 'c',
            Action::Publish => 'p',
            Action::Subscribe => 's',
            Action::Receive => 'r',
            Action::RetainPublish => 't',
            _ => '?',
        };
        Action::ALL
            .iter()
            .filter(|a| grant.decide(**a, name).is_allow())
            .map(letter)
            .collect()
    }

    #[test]
    fn a_device_has_its_own_and_nothing_else() {
        let lamp = device("lamp-1", Some("lamp-1"));
        for (name, expected) in [
            ("lamp-1", "c"),
            ("lamp-2", ""),
            ("lamp-1/x", ""),
            ("dt/lamp-1/light", "pt"),
            ("dt/lamp-1/", "pt"),
            ("dt/lamp-1", ""),
            ("dt/lamp-10/light", ""),
            ("dt/lamp-2/light", ""),
            ("dt/+/light", ""),
            ("dt/#", ""),
            ("cmd/lamp-1/on", "sr"),
            ("cmd/lamp-1/+/x", "sr"),
            ("cmd/lamp-1/#", "sr"),
            ("cmd/lamp-1", ""),
            ("cmd/+/on", ""),
            ("cmd/#", ""),
            ("#", ""),
            ("+/lamp-1/#", ""),
            ("$share/g/cmd/lamp-1/#", ""),
            ("$aws/things/lamp-1/jobs/notify-next", "psr"),
            ("$aws/things/lamp-1/jobs/$next/get", "psr"),
            ("$aws/things/lamp-1/jobs/start-next/+", "psr"),
            ("$aws/things/lamp-1/streams/s/data/json", "psr"),
            ("$aws/things/lamp-1/shadow/name/s/update", "psr"),
            ("$aws/things/lamp-1/defender/metrics/json", "psr"),
            ("$aws/things/lamp-1/other", ""),
            ("$aws/things/lamp-1/#", ""),
            ("$aws/things/lamp-1/+/notify", ""),
            ("$aws/things/lamp-2/jobs/notify", ""),
            ("$aws/things/+/jobs/notify", ""),
            ("$aws/#", ""),
            ("$aws/events/presence/connected/lamp-1", ""),
            ("$aws/certificates/create/json", ""),
        ] {
            assert_eq!(rights(&lamp, name), expected, "{name}");
        }
    }

    #[test]
    fn what_a_client_calls_itself_gives_it_nothing() {
        for id in [
            "",
            "+",
            "#",
            "*",
            "lamp-2",
            "a/lamp-1",
            "lamp-1\0",
            "x:topic/lamp-2",
        ] {
            let lamp = device(id, Some("lamp-1"));
            assert_eq!(rights(&lamp, id), "", "{id:?}");
            assert_eq!(rights(&lamp, &format!("cmd/{id}/on")), "", "{id:?}");
        }
        let nobody = device("lamp-1", None);
        for name in [
            "lamp-1",
            "dt/lamp-1/x",
            "dt//x",
            "cmd//x",
            "$aws/things//jobs/get",
        ] {
            assert_eq!(rights(&nobody, name), "", "{name}");
        }
    }

    #[test]
    fn a_thing_named_like_a_wildcard_is_only_itself() {
        for thing in ["*", "?", "+", "#", "${iot:ClientId}", "x:topic/*"] {
            let odd = device("lamp-2", Some(thing));
            for name in [
                "lamp-2",
                "dt/lamp-2/x",
                "cmd/lamp-2/x",
                "cmd/+/x",
                "cmd/#",
                "#",
            ] {
                assert_eq!(
                    odd.decide(Action::Subscribe, name),
                    crate::Decision::ImplicitDeny
                );
            }
            for name in ["lamp-2", "dt/lamp-2/x", "cmd/lamp-2/x"] {
                assert_eq!(rights(&odd, name), "", "{thing} {name}");
            }
        }
    }

    #[test]
    fn an_account_cannot_smuggle_a_statement_in() {
        assert!(device_default("1\",\"Effect\":\"Allow").is_err());
        assert!(device_default("").is_err());
        assert!(device_default("*:topic/*").is_err());
        assert!(device_default("*").is_err());
        assert!(device_default("1").is_ok());
    }
}
