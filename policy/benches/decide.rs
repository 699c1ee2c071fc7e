//! What a decision costs: the ordinary device, a device with many statements, and the dearest
//! patterns over the longest name.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use policy::{Action, Context, Grant, NamedPolicy, Policy, Realm, device_default_text};

const ACCOUNT: &str = "000000000000";
const NAME_MAX_BYTES: usize = 65_535;

fn grant(document: &str, client_id: &str) -> Result<Grant, Box<dyn std::error::Error>> {
    let named = NamedPolicy {
        name: "bench".parse()?,
        policy: Arc::new(Policy::parse(document)?),
    };
    Ok(Grant::new(
        Arc::new(Realm::live(ACCOUNT)),
        Arc::from([named]),
        Context::of(client_id, Some("lamp-1"), None),
    ))
}

fn allow(resources: &[String]) -> String {
    let resources = resources
        .iter()
        .map(|name| format!("\"arn:aws:iot:*:{ACCOUNT}:topic/{name}\""))
        .collect::<Vec<_>>()
        .join(",");
    format!(
        "{{\"Version\":\"2012-10-17\",\"Statement\":{{\"Effect\":\"Allow\",\"Action\":\"iot:*\",\"Resource\":[{resources}]}}}}"
    )
}

/// A label, who asks, and for which topic.
type Case = (&'static str, Grant, String);

fn cases() -> Result<Vec<Case>, Box<dyn std::error::Error>> {
    let default = device_default_text(ACCOUNT);
    let many = (0..500)
        .map(|n| format!("site-{n}/*/${{iot:ClientId}}/#"))
        .collect::<Vec<_>>();
    let long = "a".repeat(NAME_MAX_BYTES);
    let value = "a".repeat(NAME_MAX_BYTES / 2);
    Ok(vec![
        (
            "device-default allow",
            grant(&default, "lamp-1")?,
            "dt/lamp-1/light".into(),
        ),
        (
            "device-default deny",
            grant(&default, "lamp-1")?,
            "dt/lamp-2/light".into(),
        ),
        (
            "500 resources deny",
            grant(&allow(&many), "lamp-1")?,
            "site-x/a/lamp-1/t".into(),
        ),
        (
            "stars over 64 KiB",
            grant(&allow(&["*a".repeat(1_000) + "*b*"]), "c")?,
            long.clone(),
        ),
        (
            "long value over 64 KiB",
            grant(&allow(&["*${iot:ClientId}?b*".into()]), &value)?,
            long,
        ),
    ])
}

fn decide(criterion: &mut Criterion) {
    #[expect(
        clippy::expect_used,
        reason = "the documents above are of the language"
    )]
    let cases = cases().expect("the documents are understood");
    for (label, grant, name) in cases {
        criterion.bench_function(label, |bencher| {
            bencher.iter(|| black_box(&grant).decide(Action::Publish, black_box(&name)));
        });
    }
}

fn parse(criterion: &mut Criterion) {
    let text = device_default_text(ACCOUNT);
    criterion.bench_function("parse device-default", |bencher| {
        bencher.iter(|| Policy::parse(&text))
    });
}

fn explain(criterion: &mut Criterion) {
    #[expect(clippy::expect_used, reason = "device-default is of the language")]
    let grant = grant(&device_default_text(ACCOUNT), "lamp-1").expect("device-default");
    criterion.bench_function("explain device-default deny", |bencher| {
        bencher.iter(|| grant.explain(Action::Publish, black_box("dt/lamp-2/light")));
    });
}

criterion_group!(benches, decide, parse, explain);
criterion_main!(benches);
