//! What a decision costs: the ordinary device, a device with many statements, and the dearest
//! patterns over the longest name; and what it costs to read documents.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use policy::{
    Action, CertificateValues, Context, Field, Grant, Holder, NamedPolicy, Policy, Realm,
    ThingFacts, device_default_text,
};

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

/// Ten policies of twenty statements, five variables in each, of which the last statement speaks.
fn crowd() -> Result<Grant, Box<dyn std::error::Error>> {
    let policy = |number: usize| {
        let statement = |row: usize| {
            let place = number * 20 + row;
            format!(
                "{{\"Effect\":\"Allow\",\"Action\":\"iot:Publish\",\"Resource\":\"arn:aws:iot:*:{ACCOUNT}:topic/p{place}/\
                 ${{iot:ClientId}}/${{iot:Connection.Thing.ThingName}}/*/${{iot:Certificate.Subject.CommonName}}/\
                 ${{iot:CertificateId}}/${{iot:Connection.Thing.Attributes[site]}}\"}}"
            )
        };
        let statements = (0..20).map(statement).collect::<Vec<_>>().join(",");
        let text = format!("{{\"Version\":\"2012-10-17\",\"Statement\":[{statements}]}}");
        Ok(NamedPolicy {
            name: format!("p{number}").parse()?,
            policy: Arc::new(Policy::parse(&text)?),
        })
    };
    let policies: Result<Vec<_>, Box<dyn std::error::Error>> = (0..10).map(policy).collect();
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
    let context = Context {
        client_id: "lamp-1".into(),
        thing: Some(thing.into()),
        certificate: certificate.into(),
        ..Context::default()
    };
    let realm = Arc::new(Realm::live(ACCOUNT));
    Ok(Grant::new(realm, policies?.into(), context))
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
            "10 policies of 20 statements allow",
            crowd()?,
            "p199/lamp-1/lamp-1/t/cn-1/c1/north".into(),
        ),
        (
            "10 policies of 20 statements deny",
            crowd()?,
            "p199/lamp-1/lamp-1/t/cn-1/c1/south".into(),
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
