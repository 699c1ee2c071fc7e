//! Claims by hand, and by the million against every text that there is.

mod texts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::facts::Facts;
use super::*;
use crate::context::{CertificateValues, Context, ThingFacts};
use crate::grant::{Grant, NamedPolicy};
use crate::{
    Decision, Field, Holder, Policy, PolicyName, Realm, UnresolvedDeny, device_default_text,
};

const THING: &str = "${iot:Connection.Thing.ThingName}";
const CLIENT: &str = "${iot:ClientId}";

fn named(documents: &[String]) -> Arc<[NamedPolicy]> {
    let policy = |(index, text): (usize, &String)| NamedPolicy {
        name: format!("p{index}").parse().unwrap(),
        policy: Arc::new(Policy::parse(text).expect(text)),
    };
    documents.iter().enumerate().map(policy).collect()
}

fn document(statements: &[Value]) -> String {
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

fn statement(effect: &str, actions: &[&str], kind: &str, names: &[&str]) -> Value {
    let arn = |name: &&str| format!("arn:aws:iot:*:1:{kind}/{name}");
    let actions: Vec<String> = actions
        .iter()
        .map(|action| format!("iot:{action}"))
        .collect();
    json!({"Effect": effect, "Action": actions, "Resource": names.iter().map(arn).collect::<Vec<_>>()})
}

fn owned(namespace: &str) -> Invariant {
    let text = InvariantText {
        owned: Some(namespace.to_owned()),
        ..InvariantText::default()
    };
    text.read().unwrap()
}

fn topic(filter: &str, group: Option<&str>) -> Invariant {
    let text = InvariantText {
        topic: Some(filter.to_owned()),
        only_group: group.map(str::to_owned),
        ..InvariantText::default()
    };
    text.read().unwrap()
}

fn population(realm: Realm, things: &[(&str, &Arc<[NamedPolicy]>)]) -> Population {
    let mut population = Population::new(Arc::new(realm));
    for (name, policies) in things {
        population.add_name(&Arc::from(*name));
        let context = Context::of(name, Some(name), Some(name));
        population.add(policies, &context, &Arc::from([]));
    }
    population
}

fn broken(proof: Proof) -> CounterExample {
    match proof {
        Proof::Broken(example) => *example,
        other => panic!("{other:?}"),
    }
}

const ANY: Proof = Proof::Holds { for_any_name: true };
const TODAY: Proof = Proof::Holds {
    for_any_name: false,
};

#[test]
fn device_default_keeps_devices_apart() {
    let policies = named(&[device_default_text("1")]);
    let mut fleet = population(
        Realm::live("1"),
        &[("lamp-1", &policies), ("lamp-10", &policies)],
    );
    assert_eq!(fleet.classes(), 1);
    for namespace in ["dt/${thing}/#", "cmd/${thing}/#", "$aws/things/${thing}/#"] {
        assert_eq!(fleet.prove(&owned(namespace)), ANY, "{namespace}");
    }
    assert_eq!(fleet.prove(&topic("other/#", None)), ANY);
    let example = broken(fleet.prove(&topic("dt/#", None)));
    assert_eq!(
        (example.action, example.topic.as_str()),
        (Action::Publish, "dt/lamp-1/")
    );
    assert_eq!(example.statement.sid.as_deref(), Some("PublishOwnData"));
}

#[test]
fn a_name_that_begins_like_another_is_found_where_it_is() {
    let careless = document(&[statement(
        "Allow",
        &["Publish"],
        "topic",
        &[&format!("dt/{THING}*")],
    )]);
    let policies = named(&[careless]);
    let mut apart = population(
        Realm::live("1"),
        &[("lamp-1", &policies), ("lamp-2", &policies)],
    );
    assert_eq!(apart.prove(&owned("dt/${thing}/#")), TODAY);
    let mut alike = population(
        Realm::live("1"),
        &[("lamp-1", &policies), ("lamp-10", &policies)],
    );
    let example = broken(alike.prove(&owned("dt/${thing}/#")));
    assert_eq!(example.thing.as_deref(), Some("lamp-1"));
    assert_eq!(example.other.as_deref(), Some("lamp-10"));
    assert_eq!(example.topic, "dt/lamp-10");
}

#[test]
fn a_client_that_calls_itself_what_it_likes_is_found() {
    let own = format!("dt/{CLIENT}/*");
    let open = document(&[
        statement("Allow", &["Connect"], "client", &["*"]),
        statement("Allow", &["Publish"], "topic", &[&own]),
    ]);
    let pinned = document(&[
        statement("Allow", &["Connect"], "client", &[THING]),
        statement("Allow", &["Publish"], "topic", &[&own]),
    ]);
    for (text, safe) in [(open, false), (pinned, true)] {
        let policies = named(&[text]);
        let mut fleet = population(Realm::live("1"), &[("a", &policies), ("b", &policies)]);
        let proof = fleet.prove(&owned("dt/${thing}/#"));
        if safe {
            assert_eq!(proof, ANY);
        } else {
            let example = broken(proof);
            assert_eq!(Some(&example.client_id), example.other.as_ref());
        }
    }
}

#[test]
fn filters_shares_and_denies_are_followed() {
    let subscribe = |allow: &str, deny: &str| {
        let mut statements = vec![statement("Allow", &["Subscribe"], "topicfilter", &[allow])];
        if !deny.is_empty() {
            statements.push(statement("Deny", &["Subscribe"], "topicfilter", &[deny]));
        }
        let policies = named(&[document(&statements)]);
        population(Realm::live("1"), &[("a", &policies), ("b", &policies)])
            .prove(&owned("dt/${thing}/#"))
    };
    assert_eq!(broken(subscribe("+/+/x", "")).topic, "+/+/x");
    assert_eq!(broken(subscribe("#", "")).topic, "#");
    assert!(
        broken(subscribe("$share/*", ""))
            .topic
            .starts_with("$share/")
    );
    assert_eq!(subscribe("+/+/x", "dt/*"), ANY);
    assert_eq!(subscribe("*", "dt/*"), ANY);
    assert_eq!(subscribe("$share/g/*", "dt/*"), ANY);
    let own = format!("dt/{THING}/*");
    assert_eq!(subscribe(&own, ""), ANY);
    // A Deny of all but one's own.
    let but = json!({"Effect": "Deny", "Action": "iot:Publish", "NotResource": format!("arn:aws:iot:*:1:topic/{own}")});
    let wide = statement("Allow", &["Publish"], "topic", &["*"]);
    let policies = named(&[document(&[wide.clone(), but.clone()])]);
    let mut fleet = population(Realm::live("1"), &[("a", &policies), ("b", &policies)]);
    assert_eq!(fleet.prove(&owned("dt/${thing}/#")), ANY);
    // One with a condition may not speak.
    let mut perhaps = but;
    perhaps["Condition"] = json!({"NumericLessThan": {"muster:MessageSize": "9"}});
    let policies = named(&[document(&[wide, perhaps])]);
    let mut fleet = population(Realm::live("1"), &[("a", &policies), ("b", &policies)]);
    let example = broken(fleet.prove(&owned("dt/${thing}/#")));
    assert_eq!(example.spared_by.len(), 1);
}

/// What no connection and no message can be breaks no claim, and what all are meets a Deny.
#[test]
fn conditions_that_nothing_can_meet_break_nothing() {
    let prove = |effect: &str, action: &str, condition: Value| {
        let kind = match action {
            "Subscribe" => "topicfilter",
            _ => "topic",
        };
        let wide = statement("Allow", &[action], kind, &["dt/*"]);
        let mut other = statement(effect, &[action], kind, &["dt/*"]);
        other["Condition"] = condition;
        let statements = match effect {
            "Allow" => vec![other],
            _ => vec![wide, other],
        };
        let policies = named(&[document(&statements)]);
        let mut fleet = population(Realm::live("1"), &[("a", &policies), ("b", &policies)]);
        fleet.from_now_on(1_800_000_000);
        fleet.prove(&owned("dt/${thing}/#"))
    };
    let size = |operator: &str, size: &str| json!({operator: {"muster:MessageSize": size}});
    let listener = |word: &str| json!({"StringEquals": {"muster:Listener": word}});
    let time = |operator: &str, key: &str, time: &str| json!({operator: {key: time}});
    for (effect, action, condition, holds) in [
        ("Allow", "Publish", size("NumericLessThan", "0"), true),
        ("Allow", "Publish", size("NumericLessThan", "1"), false),
        ("Allow", "Subscribe", size("NumericLessThan", "1"), true),
        ("Deny", "Subscribe", size("NumericNotEquals", "1"), true),
        ("Deny", "Publish", size("NumericNotEquals", "1"), false),
        (
            "Allow",
            "Publish",
            json!({"NumericEquals": {"muster:QoS": "3"}}),
            true,
        ),
        (
            "Allow",
            "Subscribe",
            json!({"NumericEquals": {"muster:QoS": "2"}}),
            false,
        ),
        (
            "Deny",
            "Subscribe",
            json!({"NumericLessThan": {"muster:QoS": "3"}}),
            true,
        ),
        (
            "Allow",
            "Receive",
            json!({"Bool": {"muster:Retain": "true"}}),
            false,
        ),
        (
            "Allow",
            "Subscribe",
            json!({"Bool": {"muster:Retain": "true"}}),
            true,
        ),
        ("Allow", "Subscribe", listener("https"), true),
        ("Allow", "Publish", listener("https"), false),
        ("Allow", "Subscribe", listener("wss"), false),
        (
            "Deny",
            "Subscribe",
            json!({"StringNotEquals": {"muster:Listener": "https"}}),
            true,
        ),
        (
            "Allow",
            "Publish",
            json!({"NumericLessThan": {"muster:CertificateAge": "0"}}),
            true,
        ),
        (
            "Allow",
            "Publish",
            time("DateLessThan", "aws:CurrentTime", "2001-01-01"),
            true,
        ),
        (
            "Allow",
            "Publish",
            time("DateLessThan", "aws:CurrentTime", "2099-01-01"),
            false,
        ),
        (
            "Allow",
            "Publish",
            time("DateGreaterThan", "aws:CurrentTime", "2099-01-01"),
            false,
        ),
        (
            "Deny",
            "Publish",
            time("NumericGreaterThan", "aws:EpochTime", "1000"),
            true,
        ),
        (
            "Deny",
            "Publish",
            json!({"IpAddress": {"aws:SourceIp": ["0.0.0.0/0", "::/0"]}}),
            true,
        ),
        (
            "Deny",
            "Publish",
            json!({"IpAddress": {"aws:SourceIp": ["0.0.0.0/0"]}}),
            false,
        ),
    ] {
        let told = format!("{effect} {action} {condition}");
        let proof = prove(effect, action, condition);
        assert_eq!(proof.holds(), holds, "{told}: {proof:?}");
    }
}

/// What the registry knows settles a condition; the rest is taken against the claim, and told with its values.
#[test]
fn conditions_on_what_is_known_are_judged() {
    let when = |effect: &str, condition: Value| {
        let mut wide = statement(effect, &["Publish"], "topic", &["dt/*"]);
        wide["Condition"] = condition;
        wide
    };
    let prove_by = |facts: Facts, statements: &[Value]| {
        let policies = named(&[document(statements)]);
        let mut fleet = match facts {
            Facts::Lasting => Population::lasting(Arc::new(Realm::live("1"))),
            _ => Population::new(Arc::new(Realm::live("1"))),
        };
        for name in ["a", "b"] {
            fleet.add_name(&Arc::from(name));
            let mut context = Context::of(name, Some(name), Some(name));
            let attributes = [("zone".into(), "hall".into())].into();
            context.thing = Some(Arc::new(ThingFacts {
                name: name.into(),
                attributes,
                ..ThingFacts::default()
            }));
            fleet.add(&policies, &context, &Arc::from([]));
        }
        fleet.prove(&owned("dt/${thing}/#"))
    };
    let zone =
        |value: &str| json!({"StringEquals": {"iot:Connection.Thing.Attributes[zone]": value}});
    let typed = json!({"StringEquals": {"iot:Connection.Thing.ThingTypeName": "pump"}});
    let prove = |statements: &[Value]| prove_by(Facts::Known, statements);
    assert!(prove(&[when("Allow", zone("yard"))]).holds());
    // An attribute may be another one tomorrow; whose topics they are may not.
    assert!(!prove_by(Facts::Lasting, &[when("Allow", zone("yard"))]).holds());
    let alone = json!({"StringEquals": {"iot:Connection.Thing.ThingName": "nobody"}});
    assert!(prove_by(Facts::Lasting, &[when("Allow", alone)]).holds());
    assert!(prove(&[when("Allow", typed)]).holds());
    assert!(!prove(&[when("Allow", zone("hall"))]).holds());
    let all = statement("Allow", &["Publish"], "topic", &["dt/*"]);
    assert!(prove(&[all.clone(), when("Deny", zone("hall"))]).holds());
    assert!(!prove(&[all.clone(), when("Deny", zone("yard"))]).holds());
    let size = json!({
        "NumericLessThan": {"muster:MessageSize": "10"},
        "StringEquals": {"iot:Connection.Thing.Attributes[zone]": "hall"}
    });
    let example = broken(prove(&[when("Allow", size)]));
    assert_eq!(
        example.assumes,
        [r#"NumericLessThan muster:MessageSize "10""#]
    );
    let apart = json!({"Bool": {"muster:Quarantined": "false"}});
    let example = broken(prove(&[all, when("Deny", apart)]));
    let told = example.to_string();
    assert!(
        told.contains(r#"is not: Bool muster:Quarantined "false""#),
        "{told}"
    );
}

/// AWS's rule: the thing, and what its groups allow, count under the thing's name alone.
#[test]
fn an_attachment_that_is_not_exclusive_binds_the_client_id() {
    let attached = |mut statement: Value| {
        statement["Condition"] = json!({"Bool": {"iot:Connection.Thing.IsAttached": "true"}});
        statement
    };
    let own = format!("dt/{CLIENT}/*");
    let publish = statement("Allow", &["Publish"], "topic", &[&own]);
    let connect = |client: &str| statement("Allow", &["Connect"], "client", &[client]);
    let prove = |documents: &[String], of_groups: &[&str], exclusive: bool| {
        let policies = named(documents);
        let of_groups: Arc<[PolicyName]> = of_groups.iter().map(|n| n.parse().unwrap()).collect();
        let mut fleet = Population::new(Arc::new(Realm::live("1")));
        for name in ["a", "b", "c"] {
            fleet.add_name(&Arc::from(name));
            let (context, groups) = (Context::of(name, Some(name), Some(name)), Arc::from([]));
            match exclusive {
                true => fleet.add(&policies, &context, &groups),
                false => fleet.add_by_name(&policies, &of_groups, &context, &groups),
            }
        }
        fleet.prove(&owned("dt/${thing}/#"))
    };
    // The pattern that AWS recommends holds here as there, and does not where the thing always counts.
    let aws = [document(&[attached(connect(CLIENT)), publish.clone()])];
    assert_eq!(prove(&aws, &[], false), ANY);
    let example = broken(prove(&aws, &[], true));
    assert_eq!(Some(&example.client_id), example.other.as_ref());
    // Without the condition it is open in both.
    let open = [document(&[connect("*"), publish.clone()])];
    assert!(!prove(&open, &[], false).holds());
    // A group's grant is not there under another name; its Deny is.
    let split = [
        document(&[connect("*")]),
        document(std::slice::from_ref(&publish)),
    ];
    assert_eq!(prove(&split, &["p1"], false), ANY);
    assert!(!prove(&split, &[], false).holds());
    let wide = statement("Allow", &["Publish"], "topic", &["*"]);
    let deny = statement("Deny", &["Publish"], "topic", &["dt/*"]);
    let denied = [document(&[connect("*"), wide.clone()]), document(&[deny])];
    assert_eq!(prove(&denied, &["p1"], false), ANY);
    // A Deny of all but the thing's own denies all where no thing is.
    let but = json!({"Effect": "Deny", "Action": "iot:Publish", "NotResource": format!("arn:aws:iot:*:1:topic/dt/{THING}/*")});
    assert_eq!(
        prove(&[document(&[connect("*"), wide.clone(), but])], &[], false),
        ANY
    );
    // One that speaks of attached things alone is gone round under another name, if there may be one.
    let spared = attached(statement("Deny", &["Publish"], "topic", &["dt/*"]));
    let round = |client: &str| [document(&[connect(client), wide.clone(), spared.clone()])];
    let example = broken(prove(&round("*"), &[], false));
    assert_ne!(example.thing.as_deref(), Some(&*example.client_id));
    // Where it may not, over HTTPS, where nobody has a name.
    let example = broken(prove(&round(THING), &[], false));
    assert_eq!(
        (example.client_id.as_str(), example.action),
        ("", Action::Publish)
    );
    assert!(
        example
            .to_string()
            .contains(" over HTTPS may do iot:Publish"),
        "{example}"
    );
    let receive = statement("Allow", &["Receive"], "topic", &["*"]);
    let spared = attached(statement("Deny", &["Receive"], "topic", &["dt/*"]));
    let heard = [document(&[connect(THING), receive, spared])];
    assert_eq!(prove(&heard, &[], false), ANY, "nothing is received there");
    // Who may connect as one of them alone, or by characters that are wildcards elsewhere.
    let example = broken(prove(&round("a"), &[], false));
    assert_eq!(example.client_id, "a");
    assert_ne!(example.thing.as_deref(), Some("a"));
    for client in ["+?", "$x", "#"] {
        let example = broken(prove(&round(client), &[], false));
        assert!(example.client_id.starts_with(&client[..1]), "{example:?}");
    }
}

/// Over HTTPS there is no client id: a Deny that asks for it is silent there, and what is retained is read.
#[test]
fn who_has_no_client_id_is_another_kind() {
    let connect = statement("Allow", &["Connect"], "client", &[THING]);
    let prove = |statements: &[Value]| {
        let mut all = vec![connect.clone()];
        all.extend_from_slice(statements);
        let policies = named(&[document(&all)]);
        population(Realm::live("1"), &[("a", &policies), ("b", &policies)])
            .prove(&owned("dt/${thing}/#"))
    };
    let wide = |action: &str| statement("Allow", &[action], "topic", &["*"]);
    let but = json!({"Effect": "Deny", "Action": "iot:*", "NotResource": format!("arn:aws:iot:*:1:topic/dt/{THING}/*")});
    let by_client = json!({"Effect": "Deny", "Action": "iot:*", "NotResource": format!("arn:aws:iot:*:1:topic/dt/{CLIENT}/*")});
    for action in ["Publish", "GetRetainedMessage"] {
        let example = broken(prove(&[wide(action)]));
        assert_eq!(example.action.name(), action);
        assert_eq!(prove(&[wide(action), but.clone()]), ANY);
        // What it spares has no value there, so it denies all.
        assert_eq!(prove(&[wide(action), by_client.clone()]), ANY);
    }
    // Denied to each client but not to who has no name.
    let mut named_only = statement("Deny", &["Publish"], "topic", &["dt/*"]);
    named_only["Condition"] = json!({"StringLike": {"iot:ClientId": "*"}});
    assert!(!prove(&[wide("Publish"), named_only]).holds());
    let in_its_name = statement(
        "Deny",
        &["Publish"],
        "topic",
        &[&format!("*{CLIENT}*"), "dt/*"],
    );
    assert_eq!(prove(&[wide("Publish"), in_its_name]), ANY);
    let own = statement("Allow", &["Publish"], "topic", &[&format!("dt/{CLIENT}/*")]);
    assert_eq!(prove(&[own]), ANY);
}

#[test]
fn a_group_alone_reaches_what_is_its_own() {
    let policies = named(&[document(&[statement(
        "Allow",
        &["Publish"],
        "topic",
        &["ops/*"],
    )])]);
    let mut fleet = Population::new(Arc::new(Realm::live("1")));
    let ops: Arc<[Arc<str>]> = Arc::from([Arc::from("ops")]);
    fleet.add_name(&Arc::from("console"));
    fleet.add(
        &policies,
        &Context::of("console", Some("console"), None),
        &ops,
    );
    assert_eq!(fleet.prove(&topic("ops/#", Some("ops"))), ANY);
    fleet.add_name(&Arc::from("lamp"));
    fleet.add(
        &policies,
        &Context::of("lamp", Some("lamp"), None),
        &Arc::from([]),
    );
    let example = broken(fleet.prove(&topic("ops/#", Some("ops"))));
    assert_eq!(example.thing.as_deref(), Some("lamp"));
}

/// A million things, twenty policies.
#[test]
#[ignore = "a measurement: run it optimised"]
fn a_million_things_cost_what_their_policies_cost() {
    let policies: Vec<Arc<[NamedPolicy]>> = (0..20)
        .map(|n| {
            let extra = statement(
                "Allow",
                &["Publish"],
                "topic",
                &[&format!("kind{n}/{THING}/*")],
            );
            named(&[device_default_text("1"), document(&[extra])])
        })
        .collect();
    let begin = Instant::now();
    let mut fleet = Population::new(Arc::new(Realm::live("1")));
    let nobody: Arc<[Arc<str>]> = Arc::from([]);
    for n in 0..1_000_000_usize {
        let name: Arc<str> = format!("thing-{n:07}").into();
        fleet.add_name(&name);
        fleet.add(
            &policies[n % 20],
            &Context::of(&name, Some(&name), None),
            &nobody,
        );
    }
    let built = begin.elapsed();
    for namespace in ["dt/${thing}/#", "cmd/${thing}/#", "kind7/${thing}/#"] {
        assert_eq!(fleet.prove(&owned(namespace)), ANY);
    }
    let proven = begin.elapsed() - built;
    let loose = named(&[document(&[statement(
        "Allow",
        &["Publish"],
        "topic",
        &["dt/*"],
    )])]);
    fleet.add(
        &loose,
        &Context::of("thing-0500000", Some("thing-0500000"), None),
        &nobody,
    );
    let example = broken(fleet.prove(&owned("dt/${thing}/#")));
    let careless = document(&[statement(
        "Allow",
        &["Publish"],
        "topic",
        &[&format!("dt/{THING}*")],
    )]);
    let careless = named(&[careless]);
    for n in 0..1_000_000_usize {
        let name: Arc<str> = format!("thing-{n:07}").into();
        fleet.add(&careless, &Context::of(&name, Some(&name), None), &nobody);
    }
    let before = Instant::now();
    assert_eq!(fleet.prove(&owned("kind7/${thing}/#")), ANY);
    let today = broken(fleet.prove(&owned("dt/${thing}/#")));
    println!(
        "1,000,000 things, {} kinds: built in {built:?}, three claims proven in {proven:?}, \
         two claims with sorting in {:?}; {} reaches {}, {:?}",
        fleet.classes(),
        before.elapsed(),
        example.thing.unwrap(),
        example.topic,
        today.thing,
    );
    assert!(
        begin.elapsed() < Duration::from_secs(120),
        "{:?}",
        begin.elapsed()
    );
}
