//! What the engine is held to, as JSON: `cargo run --release -p muster-policy --example figures` (`tests/run.sh --measure -- policy` judges)
//!
//! Decisions of an ordinary and of a crowded principal, allocations, the compiling of documents that are all different, the
//! refusal of monstrous ones, the memory of connected principals by a counting allocator, and the proof of claims over a
//! million things. The names of principals are the registry's and the session's, which have them anyhow.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use policy::{
    Action, CertificateValues, Context, Field, Grant, Holder, InvariantText, NamedPolicy, Policy,
    Population, Proof, Realm, ThingFacts, device_default_text,
};
use serde_json::{Map, Value, json};

const ACCOUNT: &str = "000000000000";
const PRINCIPALS: usize = 1_000_000;
const THINGS: usize = 1_000_000;
const KINDS: usize = 20;
const COMPILED: usize = 20_000;
const DECISIONS: usize = 1_000_000;
const ROUNDS: usize = 7;

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> Fallible<()> {
    let said = json!({
        "decisions": decisions()?,
        "compiled_per_s": compiled_per_s()?,
        "refusals_ms": refusals_ms()?,
        "principals": principals()?,
        "prove": prove()?,
    });
    println!("{said}");
    Ok(())
}

fn named(documents: &[String]) -> Fallible<Arc<[NamedPolicy]>> {
    let named = documents.iter().enumerate().map(|(number, text)| {
        Ok(NamedPolicy {
            name: format!("p{number}").parse()?,
            policy: Arc::new(Policy::parse(text)?),
        })
    });
    Ok(named.collect::<Fallible<Vec<_>>>()?.into())
}

fn document(statements: &[String]) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{}]}}"#,
        statements.join(",")
    )
}

fn publish(topic: &str) -> String {
    format!(
        r#"{{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:*:{ACCOUNT}:topic/{topic}"}}"#
    )
}

/// Ten policies of twenty statements with five variables each.
fn crowd() -> Vec<String> {
    const VARIABLES: &str = "${iot:ClientId}/${iot:Connection.Thing.ThingName}/*/${iot:Certificate.Subject.CommonName}/${iot:CertificateId}/${iot:Connection.Thing.Attributes[site]}";
    let policy = |policy: usize| {
        let rows = (0..20).map(|row| publish(&format!("p{}/{VARIABLES}", policy * 20 + row)));
        document(&rows.collect::<Vec<_>>())
    };
    (0..10).map(policy).collect()
}

fn lamp() -> Context {
    let thing = ThingFacts {
        name: "lamp-1".into(),
        attributes: [("site".into(), "north".into())].into(),
        ..ThingFacts::default()
    };
    let certificate = CertificateValues {
        id: Some("c1".into()),
        fields: vec![(Holder::Subject, Field::CommonName, "cn-1".into())],
        ..CertificateValues::default()
    };
    Context {
        client_id: "lamp-1".into(),
        thing: Some(thing.into()),
        certificate: certificate.into(),
        ..Context::default()
    }
}

fn decisions() -> Fallible<Value> {
    let mut said = Map::new();
    let (plain, crowd) = (vec![device_default_text(ACCOUNT)], crowd());
    for (what, documents, topic, allowed) in [
        ("device-default, allowed", &plain, "dt/lamp-1/light", true),
        ("device-default, refused", &plain, "dt/lamp-2/light", false),
        (
            "10 policies of 20 statements, allowed by the last",
            &crowd,
            "p199/lamp-1/lamp-1/t/cn-1/c1/north",
            true,
        ),
        (
            "10 policies of 20 statements, refused",
            &crowd,
            "p199/lamp-1/lamp-1/t/cn-1/c1/south",
            false,
        ),
    ] {
        let grant = Grant::new(Arc::new(Realm::live(ACCOUNT)), named(documents)?, lamp());
        let decide = || black_box(&grant).decide(Action::Publish, black_box(topic));
        if decide().is_allow() != allowed {
            return Err(format!("{what}: {:?}", decide()).into());
        }
        let mut times = Vec::new();
        let counted = allocation_counter::measure(|| {
            let _ = black_box(decide());
        });
        for _ in 0..ROUNDS {
            let began = Instant::now();
            for _ in 0..DECISIONS {
                let _ = black_box(decide());
            }
            times.push(began.elapsed().as_nanos() as f64 / DECISIONS as f64);
        }
        times.sort_by(f64::total_cmp);
        let median = times.get(ROUNDS / 2);
        said.insert(
            what.to_owned(),
            json!({ "ns": median, "allocations": counted.count_total }),
        );
    }
    Ok(said.into())
}

fn compiled_per_s() -> Fallible<f64> {
    let ordinary = device_default_text(ACCOUNT);
    let texts: Vec<String> = (0..COMPILED)
        .map(|number| ordinary.replace("topic/dt/", &format!("topic/kind-{number}/")))
        .collect();
    let began = Instant::now();
    let policies = texts.iter().map(|text| Policy::parse(text));
    let policies = policies.collect::<Result<Vec<_>, _>>()?;
    let rate = policies.len() as f64 / began.elapsed().as_secs_f64();
    Ok(rate)
}

/// The slowest refusal of each, and that it has a place.
fn refusals_ms() -> Fallible<Value> {
    let statement = publish("a");
    let text = document(std::slice::from_ref(&statement));
    let (open, close) = ("[".repeat(10_000), "]".repeat(10_000));
    let monsters = [
        ("1 MB", text.replace("topic/a", &"a".repeat(1 << 20))),
        (
            "100,000 statements",
            document(&vec![statement.clone(); 100_000]),
        ),
        ("depth 10,000", document(&[format!("{open}{close}")])),
        (
            "duplicate key",
            text.replace(r#""Effect""#, r#""Effect":"Deny","Effect""#),
        ),
        ("wrong type", text.replace(r#""2012-10-17""#, "20121017")),
        ("byte order mark", format!("\u{feff}{text}")),
        ("unknown element", text.replace("Effect", "Effekt")),
    ];
    let mut said = Map::new();
    for (what, text) in monsters {
        let mut slowest: f64 = 0.0;
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let refused = Policy::parse(&text);
            slowest = slowest.max(began.elapsed().as_secs_f64() * 1e3);
            if let Ok(policy) = refused {
                return Err(format!("{what}: taken, {} bytes", policy.text().len()).into());
            }
        }
        said.insert(what.to_owned(), json!(slowest));
    }
    Ok(said.into())
}

fn principals() -> Fallible<Value> {
    let default = device_default_text(ACCOUNT);
    // Asks for what only the connection knows, so that all of it is kept.
    let asking = |condition: &str| {
        let condition = format!(r#""Condition":{{{condition}}},"Resource""#);
        let statement = publish("dt/${iot:Connection.Thing.ThingName}/*");
        let statement = statement.replace(r#""Resource""#, &condition);
        [default.clone(), document(&[statement])]
    };
    let address = asking(r#""IpAddress":{"aws:SourceIp":"10.0.0.0/8"}"#);
    let network = asking(r#""ForAnyValue:StringEquals":{"muster:SourceNetwork":"plant"}"#);
    Ok(json!({
        "device-default": bytes_each(std::slice::from_ref(&default))?,
        "device-default and a condition on the address": bytes_each(&address)?,
        "device-default and a condition on a network": bytes_each(&network)?,
    }))
}

fn bytes_each(documents: &[String]) -> Fallible<f64> {
    let (realm, policies) = (Arc::new(Realm::live(ACCOUNT)), named(documents)?);
    let contexts: Vec<Context> = (0..PRINCIPALS)
        .map(|number| {
            let name: Arc<str> = format!("device-{number:07}").into();
            Context {
                client_id: Arc::clone(&name),
                thing: Some(Arc::new(ThingFacts {
                    name,
                    ..ThingFacts::default()
                })),
                source_ip: Some([10, 0, 0, 1].into()),
                now: Some(1_790_000_000),
                ..Context::default()
            }
        })
        .collect();
    let mut grants = Vec::new();
    let counted = allocation_counter::measure(|| {
        grants.reserve_exact(PRINCIPALS);
        for context in &contexts {
            let (realm, policies) = (Arc::clone(&realm), Arc::clone(&policies));
            grants.push(Grant::new(realm, policies, context.clone()));
        }
    });
    let allowed = |(number, grant): (usize, &Grant)| {
        let topic = format!("dt/device-{number:07}/light");
        grant.decide(Action::Publish, &topic).is_allow()
    };
    if !grants.iter().enumerate().all(allowed) {
        return Err("a device may not use its own topic".into());
    }
    Ok(counted.bytes_current as f64 / PRINCIPALS as f64)
}

fn prove() -> Fallible<Value> {
    let policies: Vec<Arc<[NamedPolicy]>> = (0..KINDS)
        .map(|kind| {
            let own = publish(&format!("kind{kind}/${{iot:Connection.Thing.ThingName}}/*"));
            named(&[device_default_text(ACCOUNT), document(&[own])])
        })
        .collect::<Fallible<_>>()?;
    let began = Instant::now();
    let mut population = Population::new(Arc::new(Realm::live(ACCOUNT)));
    let nobody: Arc<[Arc<str>]> = Arc::from([]);
    for (number, policies) in (0..THINGS).zip(policies.iter().cycle()) {
        let name: Arc<str> = format!("thing-{number:07}").into();
        population.add_name(&name);
        population.add(policies, &Context::of(&name, Some(&name), None), &nobody);
    }
    let built = began.elapsed().as_secs_f64();
    let mut claims = Map::new();
    for namespace in ["dt/${thing}/#", "cmd/${thing}/#", "kind7/${thing}/#"] {
        let began = Instant::now();
        let claim = InvariantText {
            owned: Some(namespace.to_owned()),
            ..InvariantText::default()
        };
        let proof = population.prove(&claim.read()?);
        if !matches!(proof, Proof::Holds { for_any_name: true }) {
            return Err(format!("{namespace} is not proven").into());
        }
        claims.insert(namespace.to_owned(), json!(began.elapsed().as_secs_f64()));
    }
    let whole = began.elapsed().as_secs_f64();
    Ok(json!({ "built_s": built, "claims_s": claims, "whole_s": whole }))
}
