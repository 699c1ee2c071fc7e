//! `muster policy prove` and `muster policy invariant …`.

use super::{client, output};
use crate::{
    cli::{Global, Invariant, PolicyClaim},
    client::encode,
    shell::quote,
};
use http::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Exit 1 where a claim is not proven.
pub(super) fn run(global: &Global, claim: &PolicyClaim) -> anyhow::Result<ExitCode> {
    let mut claims: Vec<Value> = Vec::new();
    for owned in &claim.owned {
        claims.push(json!({ "owned": owned, "actions": claim.actions }));
    }
    for topic in &claim.topics {
        claims.push(json!({
            "topic": topic, "onlyGroup": claim.only_group, "actions": claim.actions
        }));
    }
    let body = json!({ "claims": claims });
    let told = client(global)?.call(Method::POST, "/muster/v1/policies/prove", Some(&body))?;
    let holds = told.get("holds").and_then(Value::as_bool) == Some(true);
    output::answer(global, &told, |told| {
        let results = told.get("results").and_then(Value::as_array);
        let lines = results.into_iter().flatten().map(line);
        lines.collect::<Vec<_>>().join("\n")
    })?;
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn line(result: &Value) -> String {
    let text = output::field(result, "text");
    let thing = result.get("thing").and_then(Value::as_str);
    let action = result.get("action").and_then(Value::as_str);
    let (Some(thing), Some(action)) = (thing, action) else {
        return text.to_owned();
    };
    let action = action.trim_start_matches("iot:").to_lowercase();
    let client = output::field(result, "clientId");
    let client = if client == thing {
        String::new()
    } else {
        format!(" --client-id {}", quote(client))
    };
    let topic = output::field(result, "topic");
    let given = result.get("given").and_then(Value::as_array);
    let given: String = given.into_iter().flatten().map(option).collect();
    format!(
        "{text}\n  see: muster policy explain --device {thing}{client} --action {action} --topic {}{given}",
        quote(topic)
    )
}

/// How `explain` is told what a connection or a message is.
fn option(given: &Value) -> String {
    let value = output::field(given, "value");
    let flag = match output::field(given, "key") {
        "muster:MessageSize" => "size",
        "muster:QoS" => "qos",
        "muster:Listener" => "listener",
        "muster:TlsVersion" => "tls-version",
        "muster:Quarantined" => "quarantined",
        "muster:Attested" => "attested",
        "muster:FirmwareName" => "firmware",
        "muster:FirmwareVersion" => "firmware-version",
        "muster:LastViolationAge" => "violation-age",
        "aws:SourceIp" => "source-ip",
        "iot:DomainName" => "domain-name",
        "aws:CurrentTime" => "at",
        // Without a value: they are flags.
        "muster:Retain" if value == "true" => return " --retain".to_owned(),
        "iot:ConnectAttributes" if value == "PersistentConnect" => {
            return " --persistent".to_owned();
        }
        "iot:ConnectAttributes" if value == "LastWill" => return " --will-topic will".to_owned(),
        _ => return String::new(),
    };
    format!(" --{flag} {}", quote(value))
}

pub(super) fn invariant(global: &Global, verb: Invariant) -> anyhow::Result<()> {
    let client = client(global)?;
    let path = |name: &str| format!("/muster/v1/invariants/{}", encode(name));
    match verb {
        Invariant::Set {
            name,
            owned,
            topic,
            only_group,
            actions,
        } => {
            let claim = json!({
                "owned": owned, "topic": topic, "onlyGroup": only_group, "actions": actions
            });
            let set = client.call(Method::PUT, &path(&name), Some(&claim))?;
            output::answer(global, &set, |_| {
                format!("invariant {name} declared; `muster policy prove` says whether it holds")
            })
        }
        Invariant::List => {
            let told = client.call(Method::GET, "/muster/v1/invariants", None)?;
            output::answer(global, &told, |told| {
                let all = told.get("invariants").and_then(Value::as_array);
                let line = |one: &Value| {
                    let claim = one.get("claim").cloned().unwrap_or_default();
                    let claim = serde_json::from_value::<policy::InvariantText>(claim);
                    let claim = claim.map(|claim| claim.to_string()).unwrap_or_default();
                    format!("{}: {claim}", output::field(one, "name"))
                };
                let lines = all.into_iter().flatten().map(line);
                lines.collect::<Vec<_>>().join("\n")
            })
        }
        Invariant::Delete { name } => {
            let gone = client.call(Method::DELETE, &path(&name), None)?;
            output::answer(global, &gone, |_| format!("invariant {name} forgotten"))
        }
    }
}
