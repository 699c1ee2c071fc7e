//! What many connected principals cost in memory: `cargo run --release -p muster-policy --example principals -- [COUNT]`
//!
//! Holds the grants of COUNT principals (default 1,000,000), each with a client id and a thing of its own, and prints the
//! bytes that they hold by a counting allocator. The names are the registry's and the session's, which have them anyhow.

use std::error::Error;
use std::sync::Arc;

use policy::{Action, Context, Grant, NamedPolicy, Policy, Realm, ThingFacts, device_default_text};

const ACCOUNT: &str = "000000000000";

fn main() -> Result<(), Box<dyn Error>> {
    let count = std::env::args().nth(1);
    let count: usize = count.map_or(Ok(1_000_000), |text| text.parse())?;
    // Asks for what only the connection knows, so that all of it is kept.
    let asking = format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"iot:*","Resource":"arn:aws:iot:*:{ACCOUNT}:topic/dt/${{iot:Connection.Thing.ThingName}}/*","Condition":{{"IpAddress":{{"aws:SourceIp":"10.0.0.0/8"}}}}}}]}}"#
    );
    let default = device_default_text(ACCOUNT);
    measure("device-default", count, &[&default])?;
    measure(
        "device-default and a condition on the address",
        count,
        &[&default, &asking],
    )?;
    Ok(())
}

fn measure(what: &str, count: usize, documents: &[&str]) -> Result<(), Box<dyn Error>> {
    let realm = Arc::new(Realm::live(ACCOUNT));
    let named = documents.iter().enumerate().map(|(number, text)| {
        Ok(NamedPolicy {
            name: format!("p{number}").parse()?,
            policy: Arc::new(Policy::parse(text)?),
        })
    });
    let policies: Arc<[NamedPolicy]> = named.collect::<Result<Vec<_>, Box<dyn Error>>>()?.into();
    let contexts: Vec<Context> = (0..count)
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
        grants.reserve_exact(count);
        for context in &contexts {
            let grant = Grant::new(Arc::clone(&realm), Arc::clone(&policies), context.clone());
            grants.push(grant);
        }
    });
    let allowed = |(number, grant): (usize, &Grant)| {
        let topic = format!("dt/device-{number:07}/light");
        grant.decide(Action::Publish, &topic).is_allow()
    };
    let held = grants
        .iter()
        .enumerate()
        .filter(|one| allowed(*one))
        .count();
    let bytes = counted.bytes_current;
    println!(
        "{what}: {held} principals hold {:.1} MB, {:.1} bytes each, the {} of the grant itself in it",
        bytes as f64 / 1e6,
        bytes as f64 / count as f64,
        size_of::<Grant>()
    );
    Ok(())
}
