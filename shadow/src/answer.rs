//! What is said of a shadow: accepted, rejected, its difference, and the document before and after.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::document::{Document, Section, metadata_of};
use crate::request::{Change, Rejection, Update};

type Tree = Map<String, Value>;

/// Two trees, each where there is something in it.
#[derive(Serialize, Default)]
struct Trees<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    desired: Option<&'a Tree>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reported: Option<&'a Tree>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<&'a Tree>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a, S, M> {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<S>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<M>,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_token: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Both<'a, D> {
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<D>,
    current: D,
    timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_token: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rejected<'a> {
    code: u16,
    message: String,
    timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_token: Option<&'a str>,
}

/// A document with its version.
#[derive(Debug, Clone, Copy)]
pub struct Versioned<'d> {
    /// What it says.
    pub document: &'d Document,
    /// Which one it is.
    pub version: u64,
}

/// Trees of JSON values always serialise.
fn text(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn some(tree: &Tree) -> Option<&Tree> {
    Some(tree).filter(|tree| !tree.is_empty())
}

fn trees<'d>(document: &'d Document, of: fn(&Section) -> &Tree) -> Trees<'d> {
    Trees {
        desired: some(of(&document.desired)),
        reported: some(of(&document.reported)),
        delta: None,
    }
}

fn state(section: &Section) -> &Tree {
    &section.state
}

fn metadata(section: &Section) -> &Tree {
    &section.metadata
}

/// The answer to `get`.
#[must_use]
pub fn got(shadow: Versioned<'_>, at: u64, token: Option<&str>) -> Vec<u8> {
    let document = shadow.document;
    let delta = document.delta();
    text(&Told {
        state: Some(Trees {
            delta: some(&delta.state),
            ..trees(document, state)
        }),
        metadata: Some(trees(document, metadata)),
        version: shadow.version,
        timestamp: Some(at),
        client_token: token,
    })
}

/// The answer to `update`: what was said, and when that is.
#[must_use]
pub fn updated(update: &Update, version: u64, at: u64, token: Option<&str>) -> Vec<u8> {
    let said = |change: &Change| match change {
        Change::None => None,
        Change::Clear => Some(Value::Null),
        Change::Merge(patch) => Some(Value::Object(patch.clone())),
    };
    let stamped = |change: &Change| match change {
        Change::Merge(patch) => Some(Value::Object(metadata_of(patch, at))),
        Change::None | Change::Clear => None,
    };
    let tree = |of: &dyn Fn(&Change) -> Option<Value>| {
        let sections = [("desired", &update.desired), ("reported", &update.reported)];
        let said = sections.into_iter();
        let said = said.filter_map(|(name, change)| Some((name.to_owned(), of(change)?)));
        Value::Object(said.collect())
    };
    let (state, metadata) = if update.clear {
        (Value::Null, serde_json::json!({ "timestamp": at }))
    } else {
        (tree(&said), tree(&stamped))
    };
    text(&Told {
        state: Some(state),
        metadata: Some(metadata),
        version,
        timestamp: Some(at),
        client_token: token,
    })
}

/// The answer to `delete`.
#[must_use]
pub fn deleted(version: u64, at: u64, token: Option<&str>) -> Vec<u8> {
    text(&Told::<(), ()> {
        state: None,
        metadata: None,
        version,
        timestamp: Some(at),
        client_token: token,
    })
}

/// What is told on `update/delta`; `None` where there is no difference.
#[must_use]
pub fn delta(shadow: Versioned<'_>, at: u64, token: Option<&str>) -> Option<Vec<u8>> {
    let delta = shadow.document.delta();
    (!delta.state.is_empty()).then(|| {
        text(&Told {
            state: Some(&delta.state),
            metadata: Some(&delta.metadata),
            version: shadow.version,
            timestamp: Some(at),
            client_token: token,
        })
    })
}

/// What is told on `update/documents`.
#[must_use]
pub fn documents(
    previous: Option<Versioned<'_>>,
    current: Versioned<'_>,
    at: u64,
    token: Option<&str>,
) -> Vec<u8> {
    let told = |shadow: Versioned<'_>| {
        let value = |trees: Trees<'_>| serde_json::to_value(trees).unwrap_or_default();
        Told {
            state: Some(value(trees(shadow.document, state))),
            metadata: Some(value(trees(shadow.document, metadata))),
            version: shadow.version,
            timestamp: None,
            client_token: None,
        }
    };
    text(&Both {
        previous: previous.map(told),
        current: told(current),
        timestamp: at,
        client_token: token,
    })
}

/// What is told on `…/rejected`.
#[must_use]
pub fn rejected(rejection: &Rejection, at: u64, token: Option<&str>) -> Vec<u8> {
    text(&Rejected {
        code: rejection.code(),
        message: rejection.to_string(),
        timestamp: at,
        client_token: token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn change(value: Value) -> Update {
        let (_, update) = crate::request::read_update(value.to_string().as_bytes());
        update.unwrap()
    }

    fn read(text: &[u8]) -> Value {
        serde_json::from_slice(text).unwrap()
    }

    #[test]
    fn answers_are_shaped_as_awss() {
        let first = change(
            json!({"state": {"desired": {"led": "on"}, "reported": {"led": "off", "t": [1, 2]}}}),
        );
        let before = Document::default().after(&first, 10);
        let at = |t: u64| json!({ "timestamp": t });
        let shadow = |document, version| Versioned { document, version };
        assert_eq!(
            read(&got(shadow(&before, 1), 11, Some("t"))),
            json!({
                "state": {"desired": {"led": "on"}, "reported": {"led": "off", "t": [1, 2]}, "delta": {"led": "on"}},
                "metadata": {"desired": {"led": at(10)}, "reported": {"led": at(10), "t": [at(10), at(10)]}},
                "version": 1, "timestamp": 11, "clientToken": "t"
            })
        );
        let second =
            change(json!({"state": {"reported": {"led": "on", "t": null}, "desired": null}}));
        let after = before.after(&second, 20);
        assert_eq!(
            read(&updated(&second, 2, 20, None)),
            json!({
                "state": {"desired": null, "reported": {"led": "on", "t": null}},
                "metadata": {"reported": {"led": at(20)}}, "version": 2, "timestamp": 20
            })
        );
        assert_eq!(
            read(&delta(shadow(&before, 1), 10, None).unwrap()),
            json!({"state": {"led": "on"}, "metadata": {"led": at(10)}, "version": 1, "timestamp": 10})
        );
        assert_eq!(delta(shadow(&after, 2), 20, None), None);
        let told = read(&documents(
            Some(shadow(&before, 1)),
            shadow(&after, 2),
            20,
            Some("x"),
        ));
        assert_eq!(told["previous"]["state"]["reported"]["t"], json!([1, 2]));
        assert_eq!(
            told["current"],
            json!({
                "state": {"reported": {"led": "on"}}, "metadata": {"reported": {"led": at(20)}}, "version": 2
            })
        );
        assert_eq!(
            (&told["timestamp"], &told["clientToken"]),
            (&json!(20), &json!("x"))
        );
        let cleared = change(json!({"state": null}));
        assert_eq!(
            read(&updated(&cleared, 3, 30, None)),
            json!({"state": null, "metadata": {"timestamp": 30}, "version": 3, "timestamp": 30})
        );
        assert_eq!(
            read(&deleted(3, 31, None)),
            json!({"version": 3, "timestamp": 31})
        );
        assert_eq!(
            read(&rejected(&Rejection::Conflict, 5, Some("t"))),
            json!({"code": 409, "message": "Version conflict", "timestamp": 5, "clientToken": "t"})
        );
    }
}
