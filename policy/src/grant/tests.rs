//! Decisions of grants, and what grants cost.

use super::*;
use crate::context::{
    CertificateValues, ConnectAttributes, Listener, Posture, TlsVersion, VARIABLE_MAX_CHARS,
};
use crate::key::{Field, Holder, Key};
use crate::networks::Networks;

fn variables(client_id: &str, thing: Option<&str>, common_name: Option<&str>) -> Context {
    Context::of(client_id, thing, common_name)
}

fn grant_in(realm: Realm, statements: &str, variables: Context) -> Grant {
    let text = format!("{{\"Version\":\"2012-10-17\",\"Statement\":[{statements}]}}");
    let policy = Arc::new(Policy::parse(&text).unwrap());
    let named = NamedPolicy {
        name: "p".parse().unwrap(),
        policy,
    };
    Grant::new(Arc::new(realm), Arc::from([named]), variables)
}

fn grant(statements: &str, variables: Context) -> Grant {
    grant_in(Realm::live("1"), statements, variables)
}

fn statement(effect: &str, action: &str, name: &str) -> String {
    format!(
        "{{\"Effect\":\"{effect}\",\"Action\":\"{action}\",\"Resource\":\"arn:aws:iot:local:1:{name}\"}}"
    )
}

#[test]
fn nothing_attached_allows_nothing() {
    let grant = Grant::new(
        Arc::new(Realm::live("1")),
        Arc::from([]),
        variables("a", Some("a"), None),
    );
    for action in Action::ALL {
        assert_eq!(grant.decide(action, "a"), Decision::ImplicitDeny);
    }
}

#[test]
fn a_deny_wins_wherever_it_stands() {
    let allow = statement("Allow", "iot:*", "*");
    let deny = statement("Deny", "iot:Publish", "topic/a/*");
    for statements in [format!("{allow},{deny}"), format!("{deny},{allow}")] {
        let grant = grant(&statements, variables("a", None, None));
        assert_eq!(grant.decide(Action::Publish, "a/b"), Decision::ExplicitDeny);
        assert_eq!(grant.decide(Action::Publish, "b"), Decision::Allow);
        assert_eq!(grant.decide(Action::Receive, "a/b"), Decision::Allow);
    }
}

#[test]
fn a_live_realm_takes_any_region_and_only_its_account() {
    let statements = statement("Allow", "iot:Publish", "topic/a");
    let decide = |realm| {
        grant_in(realm, &statements, variables("a", None, None)).decide(Action::Publish, "a")
    };
    assert_eq!(decide(Realm::live("1")), Decision::Allow);
    assert_eq!(decide(Realm::live("2")), Decision::ImplicitDeny);
    assert_eq!(decide(Realm::exact("local", "1")), Decision::Allow);
    assert_eq!(
        decide(Realm::exact("us-east-1", "1")),
        Decision::ImplicitDeny
    );
}

#[test]
fn the_kind_of_resource_belongs_to_the_action() {
    let grant = grant(
        &[
            statement("Allow", "*", "topic/a"),
            statement("Allow", "*", "topicfilter/b"),
            statement("Allow", "*", "client/c"),
        ]
        .join(","),
        variables("c", None, None),
    );
    for action in Action::ALL {
        let allowed = ["a", "b", "c"].map(|name| grant.decide(action, name).is_allow());
        let kind = action.kind();
        let expected = [Kind::Topic, Kind::TopicFilter, Kind::Client].map(|k| k == kind);
        assert_eq!(allowed, expected, "{action}");
    }
}

#[test]
fn an_unresolved_variable_matches_nothing() {
    let thing = statement("Allow", "*", "topic/*${iot:Connection.Thing.ThingName}*");
    for thing_name in [None, Some("")] {
        let grant = grant(&thing, variables("a", thing_name, Some("a")));
        for name in ["", "a", "${iot:Connection.Thing.ThingName}"] {
            assert_eq!(grant.decide(Action::Publish, name), Decision::ImplicitDeny);
        }
    }
    let subject = statement("Allow", "*", "topic/${iot:Certificate.Subject.CommonName}");
    let long = "é".repeat(VARIABLE_MAX_CHARS);
    for (value, expected) in [
        ("cn-1", Decision::Allow),
        ("a*", Decision::ImplicitDeny),
        ("a$", Decision::ImplicitDeny),
        ("a+", Decision::ImplicitDeny),
        ("a?", Decision::ImplicitDeny),
        ("a#", Decision::ImplicitDeny),
        (&long, Decision::Allow),
        (&format!("{long}é"), Decision::ImplicitDeny),
    ] {
        let grant = grant(&subject, variables("a", None, Some(value)));
        assert_eq!(grant.decide(Action::Publish, value), expected, "{value}");
    }
}

#[test]
fn a_client_id_cannot_become_a_wildcard() {
    let own = statement("Allow", "iot:*", "topicfilter/cmd/${iot:ClientId}/*");
    let deny = statement("Deny", "iot:*", "topicfilter/no/${iot:ClientId}");
    let all = statement("Allow", "iot:*", "topicfilter/no/*");
    let statements = [own, deny, all].join(",");
    for id in ["+", "#", "a+", "a/#", "+/+"] {
        let filter = format!("cmd/{id}/x");
        let live = grant(&statements, variables(id, None, None));
        assert_eq!(
            live.decide(Action::Subscribe, &filter),
            Decision::ImplicitDeny,
            "{id}"
        );
        assert_eq!(
            live.decide(Action::Subscribe, &format!("no/{id}")),
            Decision::ExplicitDeny
        );
        let exact = grant_in(
            Realm::exact("local", "1"),
            &statements,
            variables(id, None, None),
        );
        assert_eq!(
            exact.decide(Action::Subscribe, &filter),
            Decision::Allow,
            "{id}"
        );
    }
    for id in ["*", "?", "a*", "${iot:ClientId}"] {
        let live = grant(&statements, variables(id, None, None));
        assert_eq!(
            live.decide(Action::Subscribe, "cmd/lamp-1/x"),
            Decision::ImplicitDeny
        );
        assert_eq!(
            live.decide(Action::Subscribe, &format!("cmd/{id}/x")),
            Decision::Allow
        );
    }
}

#[test]
fn names_and_values_cannot_play_arn_fields() {
    let statements = format!(
        "{},{}",
        statement("Allow", "iot:*", "client/${iot:ClientId}"),
        "{\"Effect\":\"Allow\",\"Action\":\"*\",\"Resource\":\"arn:aws:iot:*:*:topic/${iot:Connection.Thing.ThingName}\"}"
    );
    let thing = "x:topic/y";
    let grant = grant(&statements, variables("1:client/a", Some(thing), None));
    assert_eq!(grant.decide(Action::Connect, "a"), Decision::ImplicitDeny);
    assert_eq!(grant.decide(Action::Connect, "1:client/a"), Decision::Allow);
    assert_eq!(grant.decide(Action::Publish, "y"), Decision::ImplicitDeny);
    assert_eq!(grant.decide(Action::Publish, thing), Decision::Allow);
    assert_eq!(
        grant.decide(Action::Publish, "x:topic/y\0"),
        Decision::ImplicitDeny
    );
}

#[test]
fn deciding_allocates_nothing() {
    let statements = [
        statement("Allow", "iot:*", "topic/*a?${iot:ClientId}*b*"),
        statement(
            "Deny",
            "iot:P*",
            "top*/${iot:Connection.Thing.ThingName}/?*?",
        ),
        statement("Allow", "*", "topic/*"),
    ];
    let grant = grant(&statements.join(","), variables("a", Some("a"), Some("c")));
    let name = "a".repeat(65_535);
    let counted = allocation_counter::measure(|| {
        assert_eq!(grant.decide(Action::Publish, &name), Decision::Allow);
        assert_eq!(
            grant.decide(Action::Publish, "a/bcd"),
            Decision::ExplicitDeny
        );
        assert_eq!(grant.decide(Action::Connect, "a"), Decision::ImplicitDeny);
    });
    assert_eq!(counted.count_total, 0);
}

/// What a principal costs beyond what many share (policies, things) and the session has anyhow
/// (its client id).
fn bytes_each(documents: &[String], context: impl Fn(usize) -> Context) -> (i64, Vec<Grant>) {
    const PRINCIPALS: usize = 1_000;
    let realm = Arc::new(Realm::live("1"));
    let policies = documents
        .iter()
        .enumerate()
        .map(|(number, text)| NamedPolicy {
            name: format!("p{number}").parse().unwrap(),
            policy: Arc::new(Policy::parse(text).unwrap()),
        });
    let policies: Arc<[NamedPolicy]> = policies.collect();
    let contexts: Vec<Context> = (0..PRINCIPALS).map(context).collect();
    let mut grants = Vec::new();
    let counted = allocation_counter::measure(|| {
        grants.reserve_exact(PRINCIPALS);
        for context in &contexts {
            let (realm, policies) = (Arc::clone(&realm), Arc::clone(&policies));
            grants.push(Grant::new(realm, policies, context.clone()));
        }
    });
    let bytes = counted.bytes_current / i64::try_from(PRINCIPALS).unwrap();
    (bytes, grants)
}

#[test]
fn a_principal_costs_few_bytes() {
    let default = crate::device_default_text("1");
    let own = "arn:aws:iot:*:1:topic/more/${iot:Connection.Thing.ThingName}/*";
    let when = |effect: &str, condition: &str| {
        format!(
            "{{\"Version\":\"2012-10-17\",\"Statement\":{{\"Effect\":\"{effect}\",\"Action\":\"iot:Publish\",\
             \"Resource\":\"{own}\",\"Condition\":{condition}}}}}"
        )
    };
    let near = r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#;
    let plant = r#"{"ForAnyValue:StringEquals":{"muster:SourceNetwork":"plant"}}"#;
    let healthy = r#"{"Bool":{"muster:Quarantined":"false"}}"#;
    let small = r#"{"NumericLessThan":{"muster:MessageSize":"10"}}"#;
    let context = |n: usize| Context {
        source_ip: Some([10, 0, 0, u8::try_from(n % 2).unwrap()].into()),
        ..variables(&format!("d-{n}"), Some("lamp"), None)
    };
    for (more, bound) in [
        (None, 120),
        (Some(when("Allow", near)), 200),
        (Some(when("Deny", near)), 200),
        (
            Some(when("Allow", &near.replace("10.0.0.0/8", "10.0.0.1"))),
            200,
        ),
        (Some(when("Allow", plant)), 200),
        (Some(when("Deny", healthy)), 200),
        (Some(when("Allow", small)), 200),
    ] {
        let documents: Vec<String> = std::iter::once(default.clone()).chain(more).collect();
        let (bytes, grants) = bytes_each(&documents, context);
        assert!(bytes < bound, "{bytes} bytes each: {documents:?}");
        let own = |grant: &Grant| grant.decide(Action::Publish, "dt/lamp/x").is_allow();
        assert!(grants.iter().all(own));
    }
}

/// What is known of a connection is kept only where a policy asks for it.
#[test]
fn what_no_policy_asks_for_is_not_kept() {
    let conditional = "{\"Effect\":\"Allow\",\"Action\":\"iot:Publish\",\"Resource\":\"*\",\
         \"Condition\":{\"IpAddress\":{\"aws:SourceIp\":\"10.0.0.0/8\"}}}";
    let context = Context {
        source_ip: Some([10, 1, 2, 3].into()),
        domain_name: Some("plant".into()),
        now: Some(1),
        ..variables("a", Some("a"), Some("cn"))
    };
    let plain = grant(&statement("Allow", "*", "*"), context.clone());
    assert_eq!(plain.context(), variables("a", Some("a"), None));
    let asking = grant(conditional, context.clone());
    let kept = Context {
        source_ip: context.source_ip,
        ..variables("a", Some("a"), None)
    };
    assert_eq!(asking.context(), kept);
    assert_eq!(asking.decide(Action::Publish, "t"), Decision::Allow);
}

/// Whatever a condition or a variable asks for is there for it: every key, in a document of its own.
#[test]
fn what_a_policy_asks_for_is_kept() {
    let context = Context {
        source_ip: Some([10, 1, 2, 3].into()),
        domain_name: Some("plant".into()),
        connect: ConnectAttributes {
            persistent: true,
            last_will: Some("arn:aws:iot::1:topic/w".into()),
        },
        now: Some(1_790_000_000),
        networks: Arc::new(Networks::read([("plant", &["10.0.0.0/8".to_owned()][..])]).unwrap()),
        listener: Some(Listener::Wss),
        tls_version: Some(TlsVersion::V1_3),
        posture: Arc::new(Posture {
            firmware_name: Some("f".into()),
            firmware_version: Some("1".into()),
            quarantined: Some(false),
            attested: Some(true),
            attested_until: Some(1_790_000_001),
            last_violation: Some(1_780_000_000),
        }),
        certificate: Arc::new(CertificateValues {
            id: Some("c1".into()),
            serial_number: Some("7".into()),
            fields: vec![(Holder::Subject, Field::CommonName, "cn".into())],
            not_before: Some(1_700_000_000),
            not_after: Some(1_800_000_000),
            key_kind: Some("P-256".into()),
            enrolled_by: Some("est".into()),
        }),
        ..variables("a", Some("a"), None)
    };
    for name in [
        "aws:SourceIp",
        "iot:DomainName",
        "iot:CertificateId",
        "iot:Certificate.SerialNumber",
        "iot:Certificate.AvailableKeys",
        "iot:Certificate.Subject.CommonName",
        "iot:Certificate.Subject.CommonName.List",
        "iot:ConnectAttributes",
        "iot:LastWillTopic",
        "aws:CurrentTime",
        "aws:EpochTime",
        "muster:SourceNetwork",
        "muster:Listener",
        "muster:TlsVersion",
        "muster:TimeOfDay",
        "muster:Weekday",
        "muster:CertificateAge",
        "muster:CertificateRemainingLife",
        "muster:CertificateKeyKind",
        "muster:EnrolmentWay",
        "muster:FirmwareName",
        "muster:FirmwareVersion",
        "muster:Quarantined",
        "muster:Attested",
        "muster:LastViolationAge",
    ] {
        let asking = format!(
            "{{\"Effect\":\"Allow\",\"Action\":\"*\",\"Resource\":\"*\",\"Condition\":{{\"Null\":{{\"{name}\":\"false\"}}}}}}"
        );
        let key = Key::named(name).unwrap();
        let known = context.values(&key);
        assert!(!known.is_empty(), "{name}");
        let kept = grant(&asking, context.clone()).context();
        assert_eq!(kept.values(&key), known, "{name}");
    }
}

/// Policies with the same variables share their values; those with others have their own.
#[test]
fn each_policy_has_the_values_of_its_own_variables() {
    let thing = "${iot:Connection.Thing.ThingName}";
    let policy = |topic: &str| format!("[{}]", statement("Allow", "iot:Publish", topic));
    let named = |topics: &[&str]| -> Arc<[NamedPolicy]> {
        let named = topics.iter().enumerate().map(|(number, topic)| {
            let text = policy(&format!("topic/{topic}"));
            let text = format!("{{\"Version\":\"2012-10-17\",\"Statement\":{text}}}");
            NamedPolicy {
                name: format!("p{number}").parse().unwrap(),
                policy: Arc::new(Policy::parse(&text).unwrap()),
            }
        });
        named.collect()
    };
    let client = "${iot:ClientId}";
    for topics in [
        [format!("a/{thing}"), "plain".into(), format!("b/{thing}")],
        [format!("a/{thing}"), format!("b/{thing}"), "plain".into()],
        [format!("a/{thing}"), "plain".into(), format!("b/{client}")],
        [format!("a/{client}"), format!("b/{thing}"), "plain".into()],
        [
            format!("a/{thing}"),
            format!("b/{client}/{thing}"),
            format!("c/{thing}/{client}"),
        ],
    ] {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let policies = named(&names);
        let grant = Grant::new(
            Arc::new(Realm::live("1")),
            policies,
            variables("me", Some("lamp"), None),
        );
        for topic in &names {
            let own = topic.replace(thing, "lamp").replace(client, "me");
            let other = topic.replace(thing, "me").replace(client, "lamp");
            assert_eq!(
                grant.decide(Action::Publish, &own),
                Decision::Allow,
                "{own}"
            );
            if other != own {
                let decision = grant.decide(Action::Publish, &other);
                assert_eq!(decision, Decision::ImplicitDeny, "{other}");
            }
        }
    }
}

/// Conditions are judged by statement, also where there are more than a word has room for.
#[test]
fn each_statement_has_its_own_conditions() {
    for count in [3, 31, 32, 33, 100] {
        let statements = (0..count).map(|number| {
            let condition = match number % 3 {
                0 => r#"{"StringEquals":{"iot:ClientId":"a"}}"#,
                1 => r#"{"StringEquals":{"iot:ClientId":"b"}}"#,
                _ => r#"{"NumericLessThan":{"muster:MessageSize":"10"}}"#,
            };
            format!(
                "{{\"Effect\":\"Allow\",\"Action\":\"*\",\"Resource\":\"arn:aws:iot:*:1:topic/{number}\",\
                 \"Condition\":{condition}}}"
            )
        });
        let statements = statements.collect::<Vec<_>>().join(",");
        let grant = grant(&statements, variables("a", None, None));
        let sized = |bytes| MessageFacts {
            size_bytes: Some(bytes),
            ..MessageFacts::default()
        };
        for number in 0..count {
            let decide = |bytes| {
                let name = number.to_string();
                let decision = grant.decide_for(Action::Publish, &name, &sized(bytes));
                decision.is_allow()
            };
            let expected = [[true, true], [false, false], [true, false]][number % 3];
            assert_eq!([decide(1), decide(10)], expected, "{number} of {count}");
        }
    }
}
