//! Muster's own keys in whole decisions.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    Action, CertificateValues, Context, Decision, FindingKind, Grant, Listener, MessageFacts,
    NamedPolicy, Networks, Policy, Posture, Realm, TlsVersion,
};

fn document(effect: &str, condition: &Value) -> String {
    let statement = |effect: &str, condition: &Value| {
        json!({"Effect": effect, "Action": ["iot:Publish", "iot:Receive", "iot:Subscribe"],
            "Resource": "*", "Condition": condition})
    };
    let mut statements = vec![statement(effect, condition)];
    if effect == "Deny" {
        statements.push(statement("Allow", &json!({})));
    }
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

fn grant(effect: &str, condition: &Value, context: Context) -> Grant {
    let policy = Policy::parse(&document(effect, condition)).unwrap();
    let named = NamedPolicy {
        name: "p".parse().unwrap(),
        policy: Arc::new(policy),
    };
    Grant::new(Arc::new(Realm::live("1")), Arc::from([named]), context)
}

fn at(moment: &str) -> i64 {
    moment.parse::<jiff::Timestamp>().unwrap().as_second()
}

fn known() -> Context {
    let plant = ["10.1.0.0/16".to_owned()];
    Context {
        source_ip: Some("10.1.2.3".parse().unwrap()),
        networks: Networks::read([("plant", &plant[..])]).unwrap().into(),
        listener: Some(Listener::Wss),
        tls_version: Some(TlsVersion::V1_3),
        // A Wednesday; 13:30 in Berlin.
        now: Some(at("2026-11-25T12:30:00Z")),
        certificate: Arc::new(CertificateValues {
            not_before: Some(at("2026-11-25T11:30:00Z")),
            not_after: Some(at("2026-11-26T12:30:00Z")),
            key_kind: Some("P-256".into()),
            enrolled_by: Some("claim".into()),
            ..CertificateValues::default()
        }),
        posture: Arc::new(Posture {
            firmware_name: Some("lamp".into()),
            firmware_version: Some("2.1.0".into()),
            quarantined: Some(false),
            attested: Some(true),
            attested_until: Some(at("2026-11-25T13:00:00Z")),
            last_violation: Some(at("2026-11-25T12:29:00Z")),
        }),
        ..Context::of("a", Some("a"), None)
    }
}

/// Conditions that are met by what is known, and would not be if it were the other way round.
fn conditions() -> Vec<(Value, Value)> {
    let day = 24 * 3600;
    [
        (
            "ForAnyValue:StringEquals",
            "muster:SourceNetwork",
            "plant".into(),
            "office".into(),
        ),
        (
            "StringEquals",
            "muster:Listener",
            "wss".into(),
            "mqtt".into(),
        ),
        (
            "StringEquals",
            "muster:TlsVersion",
            "1.3".into(),
            "1.2".into(),
        ),
        (
            "NumericGreaterThanEquals",
            "muster:TlsVersion",
            "1.3".into(),
            "1.4".into(),
        ),
        (
            "DateGreaterThanEquals",
            "muster:TimeOfDay",
            "12:30".into(),
            "12:30:01".into(),
        ),
        (
            "DateLessThan",
            "muster:TimeOfDay[Europe/Berlin]",
            "13:31".into(),
            "13:30".into(),
        ),
        (
            "StringEquals",
            "muster:Weekday[Asia/Tokyo]",
            json!(["Wednesday", "Friday"]),
            "Thursday".into(),
        ),
        (
            "NumericLessThanEquals",
            "muster:CertificateAge",
            "3600".into(),
            "3599".into(),
        ),
        (
            "NumericEquals",
            "muster:CertificateRemainingLife",
            day.to_string().into(),
            "0".into(),
        ),
        (
            "StringLike",
            "muster:CertificateKeyKind",
            "P-*".into(),
            "RSA-*".into(),
        ),
        (
            "StringEquals",
            "muster:EnrolmentWay",
            "claim".into(),
            "est".into(),
        ),
        (
            "StringEquals",
            "muster:FirmwareName",
            "lamp".into(),
            "bell".into(),
        ),
        (
            "StringLike",
            "muster:FirmwareVersion",
            "2.*".into(),
            "1.*".into(),
        ),
        ("Bool", "muster:Quarantined", "false".into(), "true".into()),
        ("Bool", "muster:Attested", "true".into(), "false".into()),
        (
            "NumericGreaterThan",
            "muster:LastViolationAge",
            "59".into(),
            "60".into(),
        ),
    ]
    .into_iter()
    .map(|(operator, key, right, wrong): (_, _, Value, Value)| {
        (
            json!({operator: {key: right}}),
            json!({operator: {key: wrong}}),
        )
    })
    .collect()
}

#[test]
fn what_is_known_is_compared() {
    let decide = |effect, condition: &Value, context| {
        grant(effect, condition, context).decide(Action::Publish, "t")
    };
    for (right, wrong) in conditions() {
        assert_eq!(decide("Allow", &right, known()), Decision::Allow, "{right}");
        assert_eq!(
            decide("Allow", &wrong, known()),
            Decision::ImplicitDeny,
            "{wrong}"
        );
        assert_eq!(
            decide("Deny", &right, known()),
            Decision::ExplicitDeny,
            "{right}"
        );
        assert_eq!(decide("Deny", &wrong, known()), Decision::Allow, "{wrong}");
    }
}

/// Whatever the operator makes of absence elsewhere: negation, IfExists, ForAllValues.
#[test]
fn what_is_not_known_meets_no_condition_of_an_allow() {
    let mut all: Vec<(String, String)> = Vec::new();
    for (right, _) in conditions() {
        let (operator, of) = right.as_object().unwrap().iter().next().unwrap();
        let key = of.as_object().unwrap().keys().next().unwrap();
        all.push((operator.clone(), key.clone()));
    }
    for (operator, key) in all {
        let base = operator.rsplit(':').next().unwrap();
        let (value, negated) = match base {
            "Bool" => ("true", None),
            "StringEquals" | "StringLike" => ("*", Some("StringNotLike")),
            numeric if numeric.starts_with("Numeric") => ("1", Some("NumericNotEquals")),
            _ => ("10:00", Some("DateNotEquals")),
        };
        let base = if value == "*" { "StringLike" } else { base };
        for base in [Some(base), negated].into_iter().flatten() {
            for before in ["", "ForAllValues:", "ForAnyValue:"] {
                for behind in ["", "IfExists"] {
                    let condition = json!({format!("{before}{base}{behind}"): {&key: value}});
                    let grant = grant("Allow", &condition, Context::of("a", Some("a"), None));
                    let decision = grant.decide(Action::Publish, "t");
                    assert_eq!(decision, Decision::ImplicitDeny, "{condition}");
                }
            }
        }
        let absent = json!({"Null": {&key: "true"}});
        let grant = grant("Allow", &absent, Context::of("a", Some("a"), None));
        assert_eq!(
            grant.decide(Action::Publish, "t"),
            Decision::Allow,
            "{absent}"
        );
    }
    // An address that lies in no network is known to lie in none.
    let elsewhere = Context {
        source_ip: Some("192.0.2.1".parse().unwrap()),
        ..known()
    };
    let condition = json!({"ForAllValues:StringNotEquals": {"muster:SourceNetwork": "plant"}});
    let grant = grant("Allow", &condition, elsewhere);
    assert_eq!(grant.decide(Action::Publish, "t"), Decision::Allow);
}

/// As a value, too, what is not known grants nothing; in a Deny it is as AWS has it.
#[test]
fn what_is_not_known_is_no_value_to_differ_from() {
    let context = |version: Option<&str>| Context {
        posture: Arc::new(Posture {
            firmware_version: version.map(Into::into),
            ..Posture::default()
        }),
        ..Context::of("a", Some("a"), None)
    };
    for operator in [
        "StringNotEquals",
        "StringNotLike",
        "ForAllValues:StringNotEquals",
    ] {
        let condition = json!({operator: {"iot:ClientId": "${muster:FirmwareVersion}"}});
        let decide = |effect, version| {
            let grant = grant(effect, &condition, context(version));
            grant.decide(Action::Publish, "t")
        };
        assert_eq!(decide("Allow", None), Decision::ImplicitDeny, "{operator}");
        assert_eq!(decide("Allow", Some("2.0")), Decision::Allow, "{operator}");
        assert_eq!(decide("Deny", None), Decision::ExplicitDeny, "{operator}");
    }
}

#[test]
fn a_message_is_judged_by_itself() {
    let message = |size, qos, retain| MessageFacts {
        size_bytes: Some(size),
        qos: Some(qos),
        retain: Some(retain),
    };
    let condition = json!({
        "NumericLessThanEquals": {"muster:MessageSize": "100", "muster:QoS": "1"},
        "Bool": {"muster:Retain": "false"},
    });
    let grant = grant("Allow", &condition, known());
    assert!(grant.depends_on_message(Action::Publish));
    assert!(!grant.depends_on_message(Action::Connect));
    for (facts, expected) in [
        (message(100, 1, false), true),
        (message(101, 1, false), false),
        (message(100, 2, false), false),
        (message(100, 1, true), false),
        (MessageFacts::default(), false),
    ] {
        let decision = grant.decide_for(Action::Publish, "t", &facts);
        assert_eq!(decision.is_allow(), expected, "{facts:?}");
        let explanation = grant.explain_for(Action::Publish, "t", &facts);
        assert_eq!(explanation.decision, decision);
    }
    let why = grant.explain_for(Action::Publish, "t", &message(101, 0, false));
    assert!(
        why.to_string()
            .contains("muster:MessageSize is not met, the key being \"101\""),
        "{why}"
    );
}

/// A grant is good until the second it names, and not a second longer.
#[test]
fn a_grant_ends_when_the_clock_turns() {
    for (condition, now, turn) in [
        (
            json!({"DateLessThan": {"muster:TimeOfDay[Europe/Berlin]": "18:00"}}),
            "2026-11-25T12:30:00Z",
            "2026-11-25T17:00:00Z",
        ),
        (
            json!({"StringEquals": {"muster:Weekday[Europe/Berlin]": "Wednesday"}}),
            "2026-11-25T12:30:00Z",
            "2026-11-25T23:00:00Z",
        ),
        (
            json!({"NumericLessThan": {"muster:CertificateAge": "7200"}}),
            "2026-11-25T12:30:00Z",
            "2026-11-25T13:30:00Z",
        ),
        (
            json!({"NumericGreaterThan": {"muster:CertificateRemainingLife": "3600"}}),
            "2026-11-25T12:30:00Z",
            "2026-11-26T11:30:00Z",
        ),
        (
            json!({"Bool": {"muster:Attested": "true"}}),
            "2026-11-25T12:30:00Z",
            "2026-11-25T13:00:00Z",
        ),
        (
            json!({"NumericLessThan": {"muster:LastViolationAge": "600"}}),
            "2026-11-25T12:30:00Z",
            "2026-11-25T12:39:00Z",
        ),
    ] {
        let mut now = at(now);
        let decide = |now| {
            let context = Context {
                now: Some(now),
                ..known()
            };
            let grant = grant("Allow", &condition, context);
            (grant.decide(Action::Publish, "t"), grant.turns_at())
        };
        // Follow the announcements; the first at which the decision changes is the turn.
        let before = decide(now).0;
        assert_eq!(before, Decision::Allow, "{condition}");
        loop {
            now = decide(now).1.unwrap();
            assert!(now <= at(turn), "{condition} turned unannounced");
            assert_eq!(decide(now - 1).0, before, "{condition}");
            if decide(now).0 != before {
                break;
            }
        }
        assert_eq!(now, at(turn), "{condition}");
    }
}

#[test]
fn slips_are_named() {
    for (condition, word) in [
        (
            json!({"Bool": {"muster:Quarantine": "true"}}),
            "did you mean \"muster:Quarantined\"?",
        ),
        (
            json!({"DateLessThan": {"muster:TimeOfDay[Europe/Berln]": "08:00"}}),
            "did you mean \"muster:TimeOfDay[",
        ),
        (
            json!({"StringEquals": {"muster:MessageSize": "1"}}),
            "compared by a Numeric operator",
        ),
        (
            json!({"DateLessThan": {"muster:TimeOfDay": "8:00"}}),
            "a time of day like 08:30",
        ),
        (
            json!({"StringEquals": {"muster:Weekday": "monday"}}),
            "a day such as Monday",
        ),
        (
            json!({"StringEquals": {"muster:Listener": "MQTT"}}),
            "mqtt, wss or https",
        ),
        (
            json!({"NumericEquals": {"muster:CertificateKeyKind": "1"}}),
            "a String operator",
        ),
    ] {
        let error = Policy::parse(&document("Allow", &condition))
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{condition}: {error}");
        assert!(error.contains("statement 1"), "{error}");
    }
}

#[test]
fn lint_knows_what_may_be_unknown() {
    let kinds = |effect, condition: Value| {
        let policy = Policy::parse(&document(effect, &condition)).unwrap();
        policy
            .lint()
            .into_iter()
            .map(|finding| finding.kind)
            .collect::<Vec<_>>()
    };
    let size = json!({"NumericLessThan": {"muster:MessageSize": "1"}});
    assert!(kinds("Allow", size).contains(&FindingKind::UnknownKey));
    let open = json!({"Bool": {"muster:Attested": "false"}});
    assert!(kinds("Deny", open).contains(&FindingKind::FailsOpen));
    let closed = json!({"BoolIfExists": {"muster:Attested": "false"}});
    assert!(!kinds("Deny", closed.clone()).contains(&FindingKind::FailsOpen));
    assert!(kinds("Allow", closed).contains(&FindingKind::UnknownKey));
}
