//! Decisions of grants, and what grants cost.

use super::*;
use crate::context::VARIABLE_MAX_CHARS;

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

/// What many share (policies, things) is there once.
#[test]
fn a_principal_costs_few_bytes() {
    const PRINCIPALS: usize = 1_000;
    let realm = Arc::new(Realm::live("1"));
    let policies: Arc<[NamedPolicy]> = Arc::from([NamedPolicy {
        name: "device-default".parse().unwrap(),
        policy: Arc::new(crate::device_default("1").unwrap()),
    }]);
    let contexts = (0..PRINCIPALS).map(|n| variables(&format!("d-{n}"), Some("lamp"), None));
    let contexts: Vec<Context> = contexts.collect();
    let mut grants = Vec::new();
    let counted = allocation_counter::measure(|| {
        grants.reserve_exact(PRINCIPALS);
        for context in &contexts {
            let (realm, policies) = (Arc::clone(&realm), Arc::clone(&policies));
            grants.push(Grant::new(realm, policies, context.clone()));
        }
    });
    let bytes = counted.bytes_current / i64::try_from(PRINCIPALS).unwrap();
    assert!(bytes < 128, "{bytes} bytes each");
    assert!(
        grants
            .iter()
            .all(|grant| grant.decide(Action::Publish, "dt/lamp/x").is_allow())
    );
}

/// What is known of a connection is kept only where a policy asks for it, and then whole.
#[test]
fn a_policy_that_asks_for_more_costs_more() {
    let conditional = "{\"Effect\":\"Allow\",\"Action\":\"iot:Publish\",\"Resource\":\"*\",\
         \"Condition\":{\"IpAddress\":{\"aws:SourceIp\":\"10.0.0.0/8\"}}}";
    let context = Context {
        source_ip: Some([10, 1, 2, 3].into()),
        ..variables("a", Some("a"), Some("cn"))
    };
    let plain = grant(&statement("Allow", "*", "*"), context.clone());
    assert_eq!(plain.context().source_ip, None);
    assert_eq!(&*plain.context().client_id, "a");
    let asking = grant(conditional, context.clone());
    assert_eq!(*asking.context(), context);
    assert_eq!(asking.decide(Action::Publish, "t"), Decision::Allow);
}
