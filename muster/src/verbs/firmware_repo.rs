//! `muster firmware repo`: the signed metadata of the server's firmware repository.

use super::{client, output};
use crate::{cli::Global, client::encode};
use anyhow::Context as _;
use http::Method;
use serde_json::Value;

const REPOSITORY: &str = "/muster/v1/firmware/repository";

pub(super) fn run(global: &Global, role: Option<&str>) -> anyhow::Result<()> {
    let client = client(global)?;
    let shown = client.call(Method::GET, REPOSITORY, None)?;
    let Some(role) = role else {
        return output::answer(global, &shown, text);
    };
    // A root is asked for by its version.
    let file = match role {
        "root" => format!("{}.root.json", number(find(&shown, "root"), "version")),
        role => format!("{role}.json"),
    };
    let path = format!("{REPOSITORY}/{}", encode(&file));
    output::json(&client.call(Method::GET, &path, None)?)
}

fn find<'a>(shown: &'a Value, role: &str) -> &'a Value {
    output::items(shown, "roles")
        .iter()
        .find(|known| output::field(known, "role") == role)
        .unwrap_or(&Value::Null)
}

fn number(value: &Value, key: &str) -> String {
    value.get(key).map(ToString::to_string).unwrap_or_default()
}

fn text(shown: &Value) -> String {
    let delegations = output::items(shown, "delegations");
    let all = output::items(shown, "roles").iter().chain(delegations);
    let mut parts = Vec::new();
    let rows: Vec<Vec<String>> = all.clone().map(row).collect();
    if !rows.is_empty() {
        let heads = [
            "role",
            "version",
            "expires",
            "signatures",
            "keys",
            "may sign",
        ];
        parts.push(output::table(&heads, &rows));
    }
    let mut keys: Vec<Vec<String>> = Vec::new();
    for role in all {
        for key in output::items(role, "keys") {
            let held = match key.get("online").and_then(Value::as_bool) {
                Some(true) => "this server",
                _ => "offline",
            };
            let signed = match key.get("signed").and_then(Value::as_bool) {
                Some(true) => "yes",
                _ => "no",
            };
            keys.push(vec![
                output::field(role, "role").to_owned(),
                output::field(key, "keyId").to_owned(),
                held.to_owned(),
                signed.to_owned(),
            ]);
        }
    }
    if !keys.is_empty() {
        parts.push(output::table(&["role", "key id", "held", "signed"], &keys));
    }
    let targets: Vec<Vec<String>> = output::items(shown, "targets")
        .iter()
        .map(|target| {
            vec![
                output::field(target, "path").to_owned(),
                output::field(target, "role").to_owned(),
                number(target, "length"),
                output::field(target, "sha256").to_owned(),
            ]
        })
        .collect();
    if !targets.is_empty() {
        parts.push(output::table(
            &["image", "role", "bytes", "sha256"],
            &targets,
        ));
    }
    if let Some(why) = shown.get("notServed").and_then(Value::as_str) {
        parts.push(format!("no TUF client can use it yet: {why}"));
    }
    parts.join("\n\n")
}

fn row(role: &Value) -> Vec<String> {
    let keys = output::items(role, "keys");
    let signed = keys
        .iter()
        .filter(|key| key.get("signed").and_then(Value::as_bool) == Some(true))
        .count();
    let paths: Vec<&str> = output::items(role, "paths")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    vec![
        output::field(role, "role").to_owned(),
        number(role, "version"),
        expiry(role).unwrap_or_default(),
        format!("{signed} of {} needed", number(role, "threshold")),
        keys.len().to_string(),
        paths.join(", "),
    ]
}

fn expiry(role: &Value) -> anyhow::Result<String> {
    let seconds = role
        .get("expires")
        .and_then(Value::as_i64)
        .context("no document yet")?;
    let at = jiff::Timestamp::from_second(seconds)?;
    let expired = role.get("expired").and_then(Value::as_bool) == Some(true);
    Ok(format!("{at}{}", if expired { " (expired)" } else { "" }))
}
