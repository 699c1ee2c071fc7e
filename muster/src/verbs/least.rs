//! `muster policy simulate` and `muster policy suggest`: from what devices were seen to do.

use super::{client, output};
use crate::cli::{Global, Simulate, Suggest};
use http::Method;
use serde_json::{Value, json};

/// Said where `policy.record_decisions` is false.
const NOT_RECORDING: &str =
    "the server does not record decisions (record_decisions = false under [policy])";

pub(super) fn simulate(global: &Global, asked: &Simulate) -> anyhow::Result<()> {
    let mut body = super::policy::document(&asked.file)?;
    let how = json!({
        "policyName": asked.name, "group": asked.group,
        "device": asked.device, "alone": asked.alone, "days": asked.days,
    });
    if let (Some(body), Value::Object(how)) = (body.as_object_mut(), how) {
        body.extend(how);
    }
    let path = "/muster/v1/policies/simulate";
    let told = client(global)?.call(Method::POST, path, Some(&body));
    let told = super::policy::told_of(&asked.file, told)?;
    output::answer(global, &told, |told| {
        let number = |key| count(told, key);
        let mut lines = vec![format!(
            "{} of {} recorded decisions would change, on {} devices: {} denied, {} allowed",
            number("changed"),
            number("decisions"),
            number("devices"),
            number("nowDenied"),
            number("nowAllowed"),
        )];
        if told.get("recording").and_then(Value::as_bool) == Some(false) {
            lines.push(format!(
                "{NOT_RECORDING}: what was decided since then does not count here"
            ));
        }
        lines.extend(undecided(told));
        if number("leftOut") > 0 {
            lines.push(format!(
                "nothing is said of what was done {} times on more topics than are kept of a device",
                number("leftOut")
            ));
        }
        for example in listed(told, "examples") {
            lines.push(format!(
                "{} {} {} ({} times): {}",
                output::field(example, "thing"),
                output::field(example, "action"),
                output::field(example, "topic"),
                count(example, "count"),
                output::field(example, "text"),
            ));
        }
        lines.join("\n")
    })
}

/// What the server could not tell, because it is not recorded.
fn undecided(told: &Value) -> Vec<String> {
    let Some(undecided) = told.get("undecided") else {
        return Vec::new();
    };
    if count(undecided, "decisions") == 0 {
        return Vec::new();
    }
    let on = undecided.get("on").and_then(Value::as_object);
    let on = on
        .into_iter()
        .flatten()
        .map(|(key, number)| format!("{key} ({number})"));
    let mut lines = vec![format!(
        "{} more, on {} devices, would change or not by what is not recorded: {}",
        count(undecided, "decisions"),
        count(undecided, "devices"),
        on.collect::<Vec<_>>().join(", "),
    )];
    for example in listed(undecided, "examples") {
        let on = listed(example, "on").filter_map(Value::as_str);
        lines.push(format!(
            "{} {} {} ({} times): depends on {}",
            output::field(example, "thing"),
            output::field(example, "action"),
            output::field(example, "topic"),
            count(example, "count"),
            on.collect::<Vec<_>>().join(", "),
        ));
    }
    lines
}

fn count(of: &Value, key: &str) -> u64 {
    of.get(key).and_then(Value::as_u64).unwrap_or_default()
}

fn listed<'v>(of: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    of.get(key).and_then(Value::as_array).into_iter().flatten()
}

pub(super) fn suggest(global: &Global, asked: &Suggest) -> anyhow::Result<()> {
    let body = json!({ "group": asked.group, "device": asked.device, "days": asked.days });
    let told = client(global)?.call(Method::POST, "/muster/v1/policies/suggest", Some(&body))?;
    if !global.json {
        if told.get("recording").and_then(Value::as_bool) == Some(false) {
            output::warn(&format!(
                "{NOT_RECORDING}: the policy may lack what was done since then"
            ))?;
        }
        for removed in listed(&told, "removes") {
            let statement = count(removed, "statement");
            output::warn(&format!(
                "no longer by policy {} statement {statement}: {}",
                output::field(removed, "policy"),
                output::field(removed, "resource"),
            ))?;
        }
        if count(&told, "leftOut") > 0 {
            output::warn(&format!(
                "not known: what was done {} times on more topics than are kept of a device; the policy may lack it",
                count(&told, "leftOut")
            ))?;
        }
        for missing in listed(&told, "missing") {
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
