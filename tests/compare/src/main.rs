//! The policy engine beside cedar-policy 4 on an equal task, as JSON: `tests/run.sh --measure -- compare` prints it as ratios.
//!
//! The task: may this device publish to this topic? It may below its own part of one place, then of 200 places in ten
//! policies of twenty statements, of which the last one speaks or none. Each rule says the same in both languages: this
//! action, and a pattern over the topic with the device's name in it. Cedar has no variable in a pattern, so its policies
//! name the device. Both judge one request again and again; Cedar's is made beforehand, as is its policy set.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request};
use policy::{Action, Grant, NamedPolicy, Policy, Realm};
use serde_json::{Map, json};

type Fallible<T> = Result<T, Box<dyn Error>>;

const ACCOUNT: &str = "000000000000";
const ROUNDS: usize = 7;

/// The places of each policy.
type Places = Vec<Vec<String>>;

fn main() -> Fallible<()> {
    let one: Places = vec![vec!["dt".to_owned()]];
    let of_policy = |policy: usize| {
        (0..20)
            .map(|row| format!("p{}", policy * 20 + row))
            .collect()
    };
    let many: Places = (0..10).map(of_policy).collect();
    let mut said = Map::new();
    for (what, places, topic, allowed) in [
        ("one rule, allowed", &one, "dt/lamp-1/light", true),
        ("one rule, refused", &one, "dt/lamp-2/light", false),
        (
            "200 rules, allowed by the last",
            &many,
            "p199/lamp-1/light",
            true,
        ),
        ("200 rules, refused", &many, "p199/lamp-2/light", false),
    ] {
        let grant = grant(places)?;
        let (set, request) = cedar(places, topic)?;
        let (authorizer, entities) = (Authorizer::new(), Entities::empty());
        let muster = || {
            black_box(&grant)
                .decide(Action::Publish, black_box(topic))
                .is_allow()
        };
        let cedar = || {
            let answer = authorizer.is_authorized(black_box(&request), &set, &entities);
            answer.decision() == Decision::Allow
        };
        if (muster(), cedar()) != (allowed, allowed) {
            return Err(format!("{what}: {} and {}", muster(), cedar()).into());
        }
        // Interleaved, so that both have the same machine.
        let mut times = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            times.0.push(nanoseconds(1_000_000, muster));
            times.1.push(nanoseconds(2_000, cedar));
        }
        said.insert(
            what.to_owned(),
            json!({ "muster_ns": median(times.0), "cedar_ns": median(times.1) }),
        );
    }
    println!("{}", serde_json::Value::from(said));
    Ok(())
}

/// What one call takes.
fn nanoseconds(calls: u32, call: impl Fn() -> bool) -> f64 {
    let began = Instant::now();
    for _ in 0..calls {
        black_box(call());
    }
    began.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get(ROUNDS / 2).copied()
}

fn grant(policies: &Places) -> Fallible<Grant> {
    let named = policies.iter().enumerate().map(|(number, places)| {
        let statements = places.iter().map(|place| {
            let own = "${iot:Connection.Thing.ThingName}";
            format!(
                r#"{{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:*:{ACCOUNT}:topic/{place}/{own}/*"}}"#
            )
        });
        let statements = statements.collect::<Vec<_>>().join(",");
        let text = format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#);
        Ok(NamedPolicy {
            name: format!("p{number}").parse()?,
            policy: Arc::new(Policy::parse(&text)?),
        })
    });
    let named = named.collect::<Fallible<Vec<_>>>()?;
    let context = policy::Context::of("lamp-1", Some("lamp-1"), None);
    Ok(Grant::new(
        Arc::new(Realm::live(ACCOUNT)),
        named.into(),
        context,
    ))
}

fn cedar(policies: &Places, topic: &str) -> Fallible<(PolicySet, Request)> {
    let rules = policies.iter().flatten().map(|place| {
        format!(
            r#"permit(principal == Device::"lamp-1", action == Action::"Publish", resource) when {{ context.topic like "{place}/lamp-1/*" }};"#
        )
    });
    let set: PolicySet = rules.collect::<Vec<_>>().join("\n").parse()?;
    let uid = |text: &str| -> Fallible<EntityUid> { Ok(text.parse()?) };
    let context = Context::from_json_value(json!({ "topic": topic }), None)?;
    let (device, publish, broker) = (
        uid(r#"Device::"lamp-1""#)?,
        uid(r#"Action::"Publish""#)?,
        uid(r#"Broker::"here""#)?,
    );
    Ok((set, Request::new(device, publish, broker, context, None)?))
}
