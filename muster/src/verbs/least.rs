//! `muster policy simulate` and `muster policy suggest`: from what devices were seen to do.

use super::{client, output};
use crate::cli::{Global, Simulate, Suggest};
use anyhow::Context as _;
use http::Method;
use serde_json::{Value, json};

pub(super) fn simulate(global: &Global, asked: &Simulate) -> anyhow::Result<()> {
    let name = asked.file.display();
    let text = std::fs::read_to_string(&asked.file)
        .with_context(|| format!("read policy document {name}"))?;
    policy::Policy::parse(&text).with_context(|| format!("policy document {name}"))?;
    let body = json!({
        "policyDocument": text, "policyName": asked.name, "group": asked.group,
        "device": asked.device, "alone": asked.alone, "days": asked.days,
    });
    let told = client(global)?.call(Method::POST, "/muster/v1/policies/simulate", Some(&body))?;
    output::answer(global, &told, |told| {
        let number = |key| told.get(key).and_then(Value::as_u64).unwrap_or_default();
        let mut lines = vec![format!(
            "{} of {} recorded decisions would change, on {} devices: {} denied, {} allowed",
            number("changed"),
            number("decisions"),
            number("devices"),
            number("nowDenied"),
            number("nowAllowed"),
        )];
        let examples = told.get("examples").and_then(Value::as_array);
        for example in examples.into_iter().flatten() {
            let count = example
                .get("count")
                .and_then(Value::as_u64)
                .unwrap_or_default();
            lines.push(format!(
                "{} {} {} ({count} times): {}",
                output::field(example, "thing"),
                output::field(example, "action"),
                output::field(example, "topic"),
                output::field(example, "text"),
            ));
        }
        lines.join("\n")
    })
}

pub(super) fn suggest(global: &Global, asked: &Suggest) -> anyhow::Result<()> {
    let body = json!({ "group": asked.group, "device": asked.device, "days": asked.days });
    let told = client(global)?.call(Method::POST, "/muster/v1/policies/suggest", Some(&body))?;
    if !global.json {
        for removed in told
            .get("removes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let statement = removed
                .get("statement")
                .and_then(Value::as_u64)
                .unwrap_or_default();
            output::warn(&format!(
                "no longer by policy {} statement {statement}: {}",
                output::field(removed, "policy"),
                output::field(removed, "resource"),
            ))?;
        }
        for missing in told
            .get("missing")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            output::warn(&format!(
                "not covered: {} {} {}",
                output::field(missing, "thing"),
                output::field(missing, "action"),
                output::field(missing, "topic"),
            ))?;
        }
    }
    output::answer(global, &told, |told| {
        output::field(told, "policyDocument").to_owned()
    })
}
