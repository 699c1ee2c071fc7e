//! Changes by hand, and against every way that the unrecorded can have been.

use std::sync::Arc;

use super::*;
use crate::context::Context;
use crate::grant::NamedPolicy;
use crate::realm::Realm;
use crate::{Policy, PolicyName};

const IN_PLANT: &str = r#","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#;
const SMALL: &str = r#","Condition":{"NumericLessThan":{"muster:MessageSize":"100"}}"#;
const RETAINED: &str = r#","Condition":{"Bool":{"muster:Retain":"true"}}"#;
const ONCE: &str = r#","Condition":{"NumericEquals":{"muster:QoS":"1"}}"#;
const ELSEWHERE: &str = r#","Condition":{"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#;

fn statement(effect: &str, action: &str, resource: &str, condition: &str) -> String {
    format!(r#"{{"Effect":"{effect}","Action":"iot:{action}","Resource":"{resource}"{condition}}}"#)
}

fn on(resource: &str) -> String {
    format!("arn:aws:iot:*:1:{resource}")
}

fn policies(statements: &[&str]) -> Arc<[NamedPolicy]> {
    let text = format!(
        r#"{{"Version":"2012-10-17","Statement":[{}]}}"#,
        statements.join(",")
    );
    let name: PolicyName = "p".parse().unwrap();
    let policy = Arc::new(Policy::parse(&text).unwrap());
    Arc::from([NamedPolicy { name, policy }])
}

fn grant(policies: &Arc<[NamedPolicy]>, context: Context) -> Grant {
    Grant::new(Arc::new(Realm::live("1")), Arc::clone(policies), context)
}

fn lamp() -> Context {
    Context::of("lamp", Some("lamp"), None)
}

fn compared(before: &[&str], after: &[&str]) -> Comparison {
    let grant = |statements| grant(&policies(statements), lamp());
    Comparison::new(grant(before), grant(after))
}

fn depends(on: &[&str]) -> Change {
    let on = on.iter().map(ToString::to_string).collect();
    Change::Depends { on }
}

const DENIED: Change = Change::Certain {
    before: Decision::Allow,
    after: Decision::ImplicitDeny,
};

#[test]
fn what_is_not_recorded_is_not_taken_for_unmet() {
    let all = statement("Allow", "*", "*", "");
    for (condition, key) in [
        (SMALL, "muster:MessageSize"),
        (ONCE, "muster:QoS"),
        (RETAINED, "muster:Retain"),
        (IN_PLANT, "aws:SourceIp"),
        (
            r#","Condition":{"DateLessThan":{"muster:TimeOfDay":"12:00"}}"#,
            "muster:TimeOfDay",
        ),
        (
            r#","Condition":{"StringEquals":{"iot:DomainName":"plant"}}"#,
            "iot:DomainName",
        ),
    ] {
        let narrow = statement("Allow", "Publish", &on("topic/dt/*"), condition);
        let compared = compared(&[&all], &[&narrow]);
        let change = compared.of(Action::Publish, "dt/1");
        assert_eq!(change, depends(&[key]), "{condition}");
        assert_eq!(compared.of(Action::Publish, "elsewhere"), DENIED);
        assert_eq!(compared.of(Action::Connect, "lamp"), DENIED);
        // A Deny that may speak settles nothing, and denies for certain what nobody allows.
        let deny = statement("Deny", "Publish", "*", condition);
        let compared = self::compared(&[&all], &[&all, &deny]);
        assert_eq!(compared.of(Action::Publish, "dt/1"), depends(&[key]));
        assert_eq!(compared.of(Action::Connect, "lamp"), Change::None);
    }
}

#[test]
fn the_same_condition_comes_out_alike_in_both() {
    let (small, plant) = (
        statement("Allow", "Publish", &on("topic/*"), SMALL),
        statement("Allow", "Publish", &on("topic/*"), IN_PLANT),
    );
    let more = statement("Allow", "Subscribe", "*", "");
    let compared = compared(&[&small], &[&more, &small]);
    assert_eq!(compared.of(Action::Publish, "a"), Change::None);
    let compared = self::compared(&[&small, &plant], &[&plant, &small]);
    assert_eq!(compared.of(Action::Publish, "a"), Change::None);
    // Only where it is not from the plant does it matter how large it is.
    let compared = self::compared(&[&small, &plant], &[&plant]);
    let both = ["aws:SourceIp", "muster:MessageSize"];
    assert_eq!(compared.of(Action::Publish, "a"), depends(&both));
}

#[test]
fn what_the_action_says_is_known() {
    let all = statement("Allow", "*", "*", "");
    let retained = statement("Allow", "*", "*", RETAINED);
    let compared = compared(&[&all], &[&retained]);
    assert_eq!(compared.of(Action::RetainPublish, "a"), Change::None);
    assert_eq!(
        compared.of(Action::Publish, "a"),
        depends(&["muster:Retain"])
    );
    // A subscription has none, so no Allow on it is ever met.
    assert_eq!(compared.of(Action::Subscribe, "a"), DENIED);
    let once = statement("Allow", "*", "*", ONCE);
    let compared = self::compared(&[&all], &[&once]);
    assert_eq!(
        compared.of(Action::Subscribe, "a/#"),
        depends(&["muster:QoS"])
    );
}

#[test]
fn an_unrecorded_variable_may_stand_for_anything() {
    let all = statement("Allow", "*", "*", "");
    let own = on("topic/from/${aws:SourceIp, 'nowhere'}/*");
    let own = statement("Allow", "Publish", &own, "");
    let compared = compared(&[&all], &[&own]);
    let ip = depends(&["aws:SourceIp"]);
    assert_eq!(compared.of(Action::Publish, "from/10.0.0.1/x"), ip);
    assert_eq!(compared.of(Action::Publish, "from/nowhere/x"), ip);
    assert_eq!(compared.of(Action::Publish, "to/10.0.0.1/x"), DENIED);
}

#[test]
fn another_client_id_may_make_the_difference() {
    let none = Change::None;
    assert_eq!(none.clone().or(Change::None), Change::None);
    assert_eq!(DENIED.or(DENIED), DENIED);
    assert_eq!(none.or(DENIED), depends(&["iot:ClientId"]));
    let (size, ip) = (depends(&["muster:MessageSize"]), depends(&["aws:SourceIp"]));
    assert_eq!(size.clone().or(size.clone()), size);
    let all = ["aws:SourceIp", "iot:ClientId", "muster:MessageSize"];
    assert_eq!(size.or(ip), depends(&all));
}

#[test]
fn of_too_many_unknowns_nothing_is_certain() {
    let all = statement("Allow", "*", "*", "");
    let limits = (0..=UNKNOWNS_MAX).map(|n| {
        let condition =
            format!(r#","Condition":{{"NumericEquals":{{"muster:MessageSize":"{n}"}}}}"#);
        statement("Allow", "Publish", "*", &condition)
    });
    let limits: Vec<String> = limits.collect();
    let mut after: Vec<&str> = limits.iter().map(String::as_str).collect();
    after.push(&all);
    let compared = compared(&[&all], &after);
    let change = compared.of(Action::Publish, "a");
    assert_eq!(change, depends(&["muster:MessageSize"]));
    assert_eq!(compared.of(Action::Receive, "a"), Change::None);
}

/// What is told for certain holds for every message from every address, of every pair of small
/// policies.
#[test]
fn certain_is_what_comes_out_so_in_every_way() {
    let mut pool = vec![statement("Allow", "*", "*", "")];
    for (effect, condition) in [
        ("Allow", SMALL),
        ("Allow", IN_PLANT),
        ("Allow", RETAINED),
        ("Deny", SMALL),
        ("Deny", ELSEWHERE),
        ("Deny", ONCE),
        ("Deny", RETAINED),
    ] {
        pool.push(statement(effect, "*", &on("topic*/a"), condition));
    }
    pool.push(statement("Allow", "*", &on("topic/${aws:SourceIp}"), ""));
    pool.push(format!(
        r#"{{"Effect":"Deny","Action":"*","NotResource":"{}"}}"#,
        on("topic/${aws:SourceIp}")
    ));
    let places = 0..pool.len();
    let pairs = places
        .clone()
        .flat_map(|one| places.clone().map(move |other| (one, other)));
    let sets: Vec<_> = pairs
        .filter(|(one, other)| one <= other)
        .map(|(one, other)| policies(&[&pool[one], &pool[other]]))
        .collect();
    let from = ["10.0.0.1", "192.0.2.1"];
    let contexts = from.map(|address| Context {
        source_ip: Some(address.parse().unwrap()),
        ..lamp()
    });
    let mut messages = Vec::new();
    for size_bytes in [Some(10), Some(1000)] {
        for qos in [Some(0), Some(1)] {
            messages.extend([Some(true), Some(false)].map(|retain| MessageFacts {
                size_bytes,
                qos,
                retain,
            }));
        }
    }
    let mut seen = [0; 3];
    for before in &sets {
        for after in &sets {
            let compared = Comparison::new(grant(before, lamp()), grant(after, lamp()));
            let real = contexts
                .clone()
                .map(|context| [before, after].map(|of| grant(of, context.clone())));
            for name in ["a", "10.0.0.1"] {
                let change = compared.of(Action::Publish, name);
                let expected = match &change {
                    Change::None => None,
                    Change::Certain { before, after } => {
                        Some((before.is_allow(), after.is_allow()))
                    }
                    Change::Depends { on } => {
                        assert!(!on.is_empty());
                        seen[2] += 1;
                        continue;
                    }
                };
                seen[usize::from(expected.is_some())] += 1;
                for [before, after] in &real {
                    for message in &messages {
                        let decided = |grant: &Grant| {
                            let decision = grant.decide_for(Action::Publish, name, message);
                            decision.is_allow()
                        };
                        let found = (decided(before), decided(after));
                        let found = (found.0 != found.1).then_some(found);
                        assert_eq!(
                            found,
                            expected,
                            "{name} {message:?} {:?} {:?}",
                            before.policies.first().map(|p| p.policy.text()),
                            after.policies.first().map(|p| p.policy.text()),
                        );
                    }
                }
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
}
