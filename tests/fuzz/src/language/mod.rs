//! The policy language twice: the compiled engine, and by the letter of its documentation.

mod cases;
mod conditions;
mod documents;
mod facts;
mod letter;

use std::sync::Arc;

use policy::{Context, Decision, Grant, MessageFacts, NamedPolicy, Policy, Realm, vectors};

use cases::Bytes;

/// A question to both engines.
#[derive(Debug)]
pub(crate) struct Case {
    /// The documents of all policies that count.
    documents: Vec<String>,
    realm: Realm,
    context: Context,
    /// The context's networks, as they were written.
    networks: &'static [(&'static str, &'static [&'static str])],
    /// As in `Publish`.
    action: &'static str,
    /// Topic, filter, client or thing.
    name: String,
    message: MessageFacts,
}

/// What the letter does not know how to read: it says nothing then.
#[derive(Debug)]
pub(crate) struct Unread;

/// Whatever text comes, it is read whole or refused; and whatever is read, the compiled engine decides as the letter of
/// the documentation does.
///
/// The bytes: how they are meant, then a choice for each turn of a random case, a document, or a file of tests.
pub fn policy(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    match which {
        0 => _ = policy_case(rest),
        1 => document(rest),
        2 => {
            if let Ok(text) = std::str::from_utf8(rest) {
                _ = vectors::run(text, None).map(|report| report.to_string());
            }
        }
        _ => {}
    }
}

/// Makes a random case of the bytes' choices and holds the engines against each other. How many of its documents the
/// engine took, of how many.
pub fn policy_case(bytes: &[u8]) -> (usize, usize) {
    let case = cases::case(&mut Bytes::new(bytes));
    (agree(&case), case.documents.len())
}

fn document(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let policy = match Policy::parse(text) {
        Ok(policy) => policy,
        Err(error) => {
            let lines = text.split('\n').count();
            assert!(error.line >= 1 && error.line <= lines, "{error}");
            assert!(!error.to_string().contains(char::is_control), "{error}");
            return;
        }
    };
    assert_eq!(policy.text(), text);
    for finding in policy.lint() {
        assert!(!finding.to_string().is_empty());
    }
    for case in cases::questions(text) {
        agree(&case);
    }
}

/// Asks both. A document that the engine refuses falls away for both; how many are left.
fn agree(case: &Case) -> usize {
    let read = |document: &String| Some((document.clone(), Policy::parse(document).ok()?));
    let (documents, policies): (Vec<_>, Vec<_>) = case.documents.iter().filter_map(read).unzip();
    let named = policies.into_iter().map(|policy| NamedPolicy {
        name: "p".parse().unwrap(),
        policy: Arc::new(policy),
    });
    let (realm, action) = (Arc::new(case.realm.clone()), case.action.parse().unwrap());
    let grant = Grant::new(realm, named.collect(), case.context.clone());
    let decision = grant.decide_for(action, &case.name, &case.message);
    let explanation = grant.explain_for(action, &case.name, &case.message);
    assert_eq!(
        explanation.decision, decision,
        "explained otherwise: {case:#?}"
    );
    if let Ok(expected) = letter::decide(&documents, case) {
        assert_eq!(
            decision, expected,
            "the letter says otherwise (right): {case:#?}"
        );
    }
    if decision == Decision::ImplicitDeny
        && let Some(missing) = explanation.missing_grant
    {
        let text = format!("{{\"Version\":\"2012-10-17\",\"Statement\":[{missing}]}}");
        assert!(Policy::parse(&text).is_ok(), "{text}");
    }
    documents.len()
}
