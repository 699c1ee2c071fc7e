//! What explanations say.

use std::sync::Arc;

use super::*;
use crate::{Context, Policy, Realm, device_default};

fn grant(policies: &[(&str, Policy)], client_id: &str, thing: Option<&str>) -> Grant {
    let named = policies.iter().map(|(name, policy)| NamedPolicy {
        name: name.parse().unwrap(),
        policy: Arc::new(Policy::parse(policy.text()).unwrap()),
    });
    Grant::new(
        Arc::new(Realm::live("000000000000")),
        named.collect(),
        Context::of(client_id, thing, None),
    )
}

fn lamp(client_id: &str) -> Grant {
    let policy = device_default("000000000000").unwrap();
    grant(&[("device-default", policy)], client_id, Some("lamp-1"))
}

#[test]
fn an_implicit_deny_names_the_missing_grant() {
    let explanation = lamp("lamp-1").explain(Action::Publish, "dt/lamp-2/x");
    assert_eq!(
        explanation.to_string(),
        "implicit deny: no statement allows iot:Publish on topic/dt/lamp-2/x (policies: \
         device-default); missing grant: {\"Effect\":\"Allow\",\"Action\":\"iot:Publish\",\
         \"Resource\":\"arn:aws:iot:*:000000000000:topic/dt/lamp-2/x\"}"
    );
    assert_eq!(
        explanation.reason(),
        "missing grant: iot:Publish on topic/dt/lamp-2/x"
    );
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["decision"], "ImplicitDeny");
    assert_eq!(json["missingGrant"]["Action"], "iot:Publish");
    assert_eq!(json["variables"][0]["value"], "lamp-1");
    assert_eq!(json["variables"][1]["name"], "iot:ClientId");
    assert_eq!(json["variables"][1]["resolved"], true);
    assert_eq!(json["summary"], explanation.to_string());
}

#[test]
fn an_allow_names_its_statement() {
    let explanation = lamp("lamp-1").explain(Action::Publish, "dt/lamp-1/x");
    assert_eq!(explanation.missing_grant, None);
    assert_eq!(
        explanation.statements[0].sid.as_deref(),
        Some("PublishOwnData")
    );
    assert!(
        explanation
            .to_string()
            .starts_with("allow: statement 2 \"PublishOwnData\" of policy device-default ("),
        "{explanation}"
    );
}

#[test]
fn every_deny_in_the_way_is_named() {
    let deny = |name: &str| {
        let text = format!(
            "{{\"Version\":\"2012-10-17\",\"Statement\":[{{\"Effect\":\"Deny\",\
             \"Action\":\"*\",\"Resource\":\"arn:aws:iot:*:*:topic/{name}\"}}]}}"
        );
        Policy::parse(&text).unwrap()
    };
    let policies = [
        ("one", deny("a*")),
        ("two", deny("*")),
        ("other", deny("b")),
    ];
    let explanation = grant(&policies, "c", None).explain(Action::Publish, "a");
    assert_eq!(explanation.decision, Decision::ExplicitDeny);
    let named = explanation
        .statements
        .iter()
        .map(|s| s.policy.as_str())
        .collect::<Vec<_>>();
    assert_eq!(named, ["one", "two"]);
    assert!(
        explanation.missing_grant.is_some(),
        "without the denies it is not allowed yet"
    );
    assert_eq!(
        explanation.reason(),
        "statement 1 of policy one denies iot:Publish on topic/a"
    );
}

#[test]
fn common_mistakes_get_their_mend() {
    let text = lamp("mosq-1")
        .explain(Action::Connect, "mosq-1")
        .to_string();
    assert!(
        text.contains("thing's name as client id: \"lamp-1\""),
        "{text}"
    );

    let foreign = device_default("123456789012").unwrap();
    let text = grant(&[("p", foreign)], "lamp-1", Some("lamp-1"))
        .explain(Action::Publish, "dt/lamp-1/x")
        .to_string();
    assert!(
        text.contains("its ARN is not of this server (account 000000000000"),
        "{text}"
    );

    let default = device_default("000000000000").unwrap();
    let text = grant(&[("p", default)], "lamp-1", None)
        .explain(Action::Connect, "lamp-1")
        .to_string();
    assert!(
        text.contains("${iot:Connection.Thing.ThingName} has no value here"),
        "{text}"
    );

    let text = grant(&[], "a", None)
        .explain(Action::Connect, "a")
        .to_string();
    assert!(text.contains("(no policy is attached)"), "{text}");
}

#[test]
fn hostile_names_stay_on_one_short_line() {
    let lamp = lamp("lamp-1");
    for name in ["a\nFORGED LINE\u{202e}\0".to_owned(), "é".repeat(32_767)] {
        let explanation = lamp.explain(Action::Subscribe, &name);
        let text = explanation.to_string();
        assert!(!text.contains(misleads), "{text}");
        assert!(text.len() < 2_000, "{}", text.len());
        assert!(explanation.reason().len() <= REASON_MAX_BYTES);
        assert!(!explanation.reason().contains(misleads));
    }
}

#[test]
fn a_grant_whose_condition_alone_is_unmet_is_no_missing_one() {
    let text = |resource: &str| {
        let text = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:*:*:topic/{resource}","Condition":{{"NumericLessThan":{{"muster:MessageSize":"5"}}}}}}]}}"#
        );
        Policy::parse(&text).unwrap()
    };
    let large = MessageFacts {
        size_bytes: Some(9),
        ..MessageFacts::default()
    };
    let why = |resource: &str| {
        let grant = grant(&[("small", text(resource))], "lamp-1", Some("lamp-1"));
        grant.explain_for(Action::Publish, "a/b", &large).reason()
    };
    let unmet = "unmet condition of statement 1 of policy small: iot:Publish on topic/a/b";
    assert_eq!(why("a/*"), unmet);
    // Where it is not the condition alone, a grant is missing.
    let missing = "missing grant: iot:Publish on topic/a/b";
    assert_eq!(why("c/*"), missing);
    assert_eq!(why("a/${iot:Connection.Thing.Attributes[x]}"), missing);
}

#[test]
fn what_needs_two_grants_names_both_and_all_that_stands_in_the_way() {
    let retained = MessageFacts {
        retain: Some(true),
        ..MessageFacts::default()
    };
    let both = |grant: &Grant| {
        let more = [(Action::RetainPublish, "w/x", retained)];
        grant.explain_each((Action::Publish, "w/x", retained), more)
    };
    let explanation = both(&lamp("lamp-1"));
    let missing = serde_json::to_value(&explanation.missing_grant).unwrap();
    let document = format!(r#"{{"Version": "2012-10-17", "Statement": [{missing}]}}"#);
    let granted = grant(&[("p", Policy::parse(&document).unwrap())], "d", Some("d"));
    let now = both(&granted);
    assert!(now.decision.is_allow(), "{now}");
    assert_eq!(now.action, Action::Publish);
    let text = explanation.to_string();
    let also = "; nor does a statement allow iot:RetainPublish on topic/w/x";
    assert!(text.ends_with(also), "{text}");

    // A Deny outweighs: it is told first, and what is missing besides.
    let deny = r#"{"Version": "2012-10-17", "Statement": [
        {"Effect": "Deny", "Action": "iot:RetainPublish", "Resource": "arn:aws:iot:*:000000000000:topic/w/*"}]}"#;
    let explanation = both(&grant(
        &[("p", Policy::parse(deny).unwrap())],
        "d",
        Some("d"),
    ));
    assert_eq!(explanation.decision, Decision::ExplicitDeny);
    let missing = serde_json::to_value(&explanation.missing_grant).unwrap();
    let actions = serde_json::json!(["iot:RetainPublish", "iot:Publish"]);
    assert_eq!(missing["Action"], actions);
}

#[test]
fn the_sentence_names_every_deny() {
    let deny = r#"{"Effect": "Deny", "Action": "iot:Publish", "Resource": "arn:aws:iot:*:000000000000:topic/w/*"}"#;
    let statements = [deny; 9].join(",");
    let document = format!(r#"{{"Version": "2012-10-17", "Statement": [{statements}]}}"#);
    let policy = Policy::parse(&document).unwrap();
    let text = grant(&[("p", policy)], "d", Some("d"))
        .explain(Action::Publish, "w/x")
        .to_string();
    for number in 1..=9 {
        assert!(
            text.contains(&format!("statement {number} of policy p")),
            "{text}"
        );
    }
}
