//! A second engine for the tests, written as plainly as the language is defined, and the
//! properties that hold the real one against it.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::action::{Action, Kind};
use crate::context::Context;
use crate::document::Policy;
use crate::error::Problem;
use crate::grant::{Decision, Grant, NamedPolicy, Realm};
use crate::{device_default_text, vectors};

#[derive(Debug, Clone)]
struct Plain {
    allow: bool,
    actions: Vec<&'static str>,
    resources: Vec<String>,
}

impl Plain {
    fn json(&self) -> Value {
        let effect = if self.allow { "Allow" } else { "Deny" };
        json!({ "Effect": effect, "Action": self.actions, "Resource": self.resources })
    }
}

/// Recursive, exponential, obvious. `None` in a pattern is a star, `Some(None)` any one.
fn glob(pattern: &[Option<Option<char>>], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((None, rest)) => (0..=text.len()).any(|n| glob(rest, &text[n..])),
        Some((Some(one), rest)) => {
            !text.is_empty() && one.is_none_or(|c| c == text[0]) && glob(rest, &text[1..])
        }
    }
}

fn field(pattern: &str, text: &str) -> bool {
    let pattern = pattern.chars().map(|c| match c {
        '*' => None,
        '?' => Some(None),
        c => Some(Some(c)),
    });
    glob(
        &pattern.collect::<Vec<_>>(),
        &text.chars().collect::<Vec<_>>(),
    )
}

fn value<'v>(name: &str, variables: &'v Context, live_filter: bool) -> Option<&'v str> {
    let (value, forbidden): (&str, &[char]) = match name {
        "iot:ClientId" => (&variables.client_id, &['+', '#']),
        "iot:Connection.Thing.ThingName" => (&variables.thing.as_deref()?.name, &['+', '#']),
        _ => {
            let value = &variables.certificate.fields.first()?.2;
            if value.contains(['*', '$', '+', '?', '#']) {
                return None;
            }
            (value, &[])
        }
    };
    (!(value.is_empty() || live_filter && value.contains(forbidden))).then_some(value)
}

fn last_field(mut pattern: &str, text: &str, variables: &Context, live_filter: bool) -> bool {
    let mut expanded = Vec::new();
    while let Some(c) = pattern.chars().next() {
        pattern = &pattern[c.len_utf8()..];
        match c {
            '*' => expanded.push(None),
            '?' => expanded.push(Some(None)),
            '$' if pattern.starts_with('{') => {
                let (name, rest) = pattern[1..].split_once('}').unwrap();
                pattern = rest;
                match value(name, variables, live_filter) {
                    Some(value) => expanded.extend(value.chars().map(|c| Some(Some(c)))),
                    None => return false,
                }
            }
            c => expanded.push(Some(Some(c))),
        }
    }
    glob(&expanded, &text.chars().collect::<Vec<_>>())
}

fn decide(
    statements: &[Plain],
    realm: &Realm,
    variables: &Context,
    action: Action,
    name: &str,
) -> Decision {
    let speaks = |statement: &&Plain| {
        let live_filter =
            realm.region.is_none() && statement.allow && action.kind() == Kind::TopicFilter;
        statement
            .actions
            .iter()
            .any(|pattern| field(&pattern.to_lowercase(), &action.to_string().to_lowercase()))
            && statement.resources.iter().any(|resource| {
                let fields = resource.splitn(6, ':').collect::<Vec<_>>();
                resource == "*"
                    || (action.kind() != Kind::Everything
                        && realm
                            .region
                            .as_deref()
                            .is_none_or(|region| field(fields[3], region))
                        && field(fields[4], &realm.account)
                        && last_field(
                            fields[5],
                            &format!("{}{name}", action.kind().prefix()),
                            variables,
                            live_filter,
                        ))
            })
    };
    let mut speaking = statements
        .iter()
        .filter(speaks)
        .map(|s| s.allow)
        .collect::<Vec<_>>();
    speaking.sort_unstable();
    match speaking.first() {
        None => Decision::ImplicitDeny,
        Some(true) => Decision::Allow,
        Some(false) => Decision::ExplicitDeny,
    }
}

fn text(pieces: &'static [&'static str], max: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(select(pieces), 0..=max).prop_map(|pieces| pieces.concat())
}

fn resource() -> impl Strategy<Value = String> {
    let kind = select(vec![
        "topic/",
        "topic/",
        "topic/",
        "topicfilter/",
        "topicfilter/",
        "client/",
        "top*",
        "*",
        "?opic/",
        "t*/",
        "*/",
        "topic*",
        "*i*/",
        "c*t?",
    ]);
    let name = text(
        &[
            "a",
            "a",
            "b",
            "/",
            "*",
            "*",
            "?",
            "é",
            "+",
            "#",
            ":",
            "$",
            "${iot:ClientId}",
            "${iot:ClientId}",
            "${iot:Connection.Thing.ThingName}",
            "${iot:Certificate.Subject.CommonName}",
        ],
        7,
    );
    let region = select(vec!["*", "local", "us-east-1", "us-*-?"]);
    let account = select(vec!["1", "*", "1?", "2"]);
    let arn = (region, account, kind, name).prop_map(|(region, account, kind, name)| {
        format!("arn:aws:iot:{region}:{account}:{kind}{name}")
    });
    prop_oneof![9 => arn, 1 => Just("*".to_owned())]
}

fn statement() -> impl Strategy<Value = Plain> {
    let action = select(vec![
        "iot:Publish",
        "iot:Subscribe",
        "IOT:receive",
        "iot:Connect",
        "*",
        "iot:Pub*",
        "iot:*e",
    ]);
    (
        prop::bool::weighted(0.75),
        prop::collection::vec(action, 1..3),
        prop::collection::vec(resource(), 1..3),
    )
        .prop_map(|(allow, actions, resources)| Plain {
            allow,
            actions,
            resources,
        })
}

fn variables() -> impl Strategy<Value = Context> {
    const VALUES: [&str; 12] = [
        "", "a", "b", "aa", "ab", "a/b", "*", "?", "+", "#", "é", "$",
    ];
    let value = || select(&VALUES[..]);
    (
        value(),
        prop::option::of(value()),
        prop::option::of(value()),
    )
        .prop_map(|(client_id, thing_name, common_name)| {
            Context::of(client_id, thing_name, common_name)
        })
}

fn realm() -> impl Strategy<Value = Realm> {
    select(vec![
        // Of coverage the plain engine knows nothing; `coverage` has its own properties.
        Realm {
            textual_subscriptions: true,
            ..Realm::live("1")
        },
        Realm::exact("local", "1"),
        Realm::exact("us-east-1", "12"),
    ])
}

fn name() -> impl Strategy<Value = String> {
    text(
        &[
            "a",
            "a",
            "b",
            "/",
            "é",
            "+",
            "#",
            "*",
            "?",
            ":",
            "$",
            "${iot:ClientId}",
        ],
        8,
    )
}

fn grant(documents: &[String], realm: Realm, variables: Context) -> Grant {
    let named = documents
        .iter()
        .enumerate()
        .map(|(index, document)| NamedPolicy {
            name: format!("p{index}").parse().unwrap(),
            policy: Arc::new(Policy::parse(document).unwrap()),
        });
    Grant::new(Arc::new(realm), named.collect(), variables)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn decides_as_the_plain_engine_does(
        statements in prop::collection::vec(statement(), 1..4),
        realm in realm(),
        variables in variables(),
        action in select(&Action::ALL[..]),
        name in name(),
    ) {
        // Each statement a policy of its own: those refused fall away on both sides.
        let documents = statements.into_iter().filter_map(|statement| {
            let document = json!({"Version": "2012-10-17", "Statement": statement.json()}).to_string();
            match Policy::parse(&document) {
                Ok(_) => Some((statement, document)),
                Err(error) => {
                    let known = matches!(
                        error.problem,
                        Problem::VariableInKind | Problem::UnknownKind { .. }
                    );
                    assert!(known, "{error}");
                    None
                }
            }
        });
        let (statements, documents): (Vec<_>, Vec<_>) = documents.unzip();
        let expected = decide(&statements, &realm, &variables, action, &name);
        let grant = grant(&documents, realm, variables);
        prop_assert_eq!(grant.decide(action, &name), expected);
        let explanation = grant.explain(action, &name);
        prop_assert_eq!(explanation.decision, expected);
        prop_assert!(explanation.reason().len() <= crate::REASON_MAX_BYTES);
        prop_assert!(!explanation.to_string().contains(char::is_control));
    }

    #[test]
    fn the_missing_grant_grants_and_grants_no_more(
        realm in realm(),
        variables in variables(),
        action in select(&Action::ALL[..]).prop_filter("acts on names", |action| {
            action.kind() != Kind::Everything
        }),
        name in "\\PC{0,40}|[ab*?${}\\\\\"/\u{202e}\u{0}\n]{0,12}",
    ) {
        let missing = grant(&[], realm.clone(), variables.clone())
            .explain(action, &name).missing_grant.unwrap();
        let document = format!("{{\"Version\":\"2012-10-17\",\"Statement\":[{missing}]}}");
        let grant = grant(&[document], realm, variables);
        prop_assert_eq!(grant.decide(action, &name), Decision::Allow);
        for other in Action::ALL {
            if other.kind() != Kind::Everything && other != action {
                prop_assert_eq!(grant.decide(other, &name), Decision::ImplicitDeny);
            }
        }
        for other in [format!("{name}x"), format!("x{name}"), format!("{name}/#")] {
            prop_assert_eq!(grant.decide(action, &other), Decision::ImplicitDeny);
        }
    }

    #[test]
    fn a_damaged_document_is_understood_whole_or_refused(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3usize, "[\\x00-\\x7f]|é"), 1..4),
    ) {
        let mut chars = device_default_text("1").chars().map(String::from).collect::<Vec<_>>();
        for (index, length, with) in edits {
            let start = index.index(chars.len());
            let end = (start + length).min(chars.len());
            chars.splice(start..end, [with]);
        }
        let text = chars.concat();
        if Policy::parse(&text).is_ok() {
            let document: Value = serde_json::from_str(&text).unwrap();
            for key in document.as_object().unwrap().keys() {
                prop_assert!(["Version", "Id", "Statement"].contains(&key.as_str()));
            }
            for statement in document["Statement"].as_array().unwrap() {
                for key in statement.as_object().unwrap().keys() {
                    prop_assert!(["Sid", "Effect", "Action", "Resource"].contains(&key.as_str()));
                }
            }
        }
    }

    #[test]
    fn anything_may_be_read(text in "\\PC*", json in "[\\[\\]{}\",:tfn0-9 SVeE*$]{0,60}") {
        for text in [text, json] {
            prop_assert!(Policy::parse(&text).is_err());
            prop_assert!(vectors::run(&text, None).is_err());
        }
    }
}
