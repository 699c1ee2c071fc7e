//! What holds of any document, any connection and any question. That decisions are right,
//! `tests/fuzz` holds against a second, naive engine.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use crate::action::{Action, Kind};
use crate::context::Context;
use crate::decision::Decision;
use crate::document::Policy;
use crate::grant::{Grant, NamedPolicy};
use crate::realm::Realm;
use crate::{device_default_text, vectors};

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
        Realm {
            textual_subscriptions: true,
            ..Realm::live("1")
        },
        Realm::exact("local", "1"),
        Realm::exact("us-east-1", "12"),
    ])
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
