//! What a device may do where nobody said otherwise.

use serde::Serialize;

use crate::action::Action;
use crate::document::{Effect, Policy};
use crate::error::PolicyError;

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

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DocumentText {
    version: &'static str,
    statement: Vec<GrantText>,
}

impl GrantText {
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
    let document = DocumentText {
        version: "2012-10-17",
        statement: vec![
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
        ],
    };
    // Strings and lists of strings: serialising them has no way to fail.
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

/// The compiled [`device_default_text`].
///
/// # Errors
/// When `account` is no account id.
pub fn device_default(account: &str) -> Result<Policy, PolicyError> {
    Policy::parse(&device_default_text(account))
}
