//! `muster network …`.

use super::{client, output};
use crate::{
    cli::{Global, Network},
    client::encode,
};
use http::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

pub(super) fn run(global: &Global, verb: Network) -> anyhow::Result<ExitCode> {
    let client = client(global)?;
    let path = |name: &str| format!("/muster/v1/networks/{}", encode(name));
    match verb {
        Network::Set { name, ranges } => {
            let body = json!({ "ranges": ranges });
            let set = client.call(Method::PUT, &path(&name), Some(&body))?;
            output::answer(global, &set, |_| {
                format!(
                    "network {name} is {}; live sessions have been told",
                    ranges.join(", ")
                )
            })?;
        }
        Network::List => {
            let networks = client.pages("/muster/v1/networks?maxResults=250", "networks")?;
            let line = |network: &Value| {
                let ranges = network.get("ranges").and_then(Value::as_array);
                let ranges = ranges.into_iter().flatten().filter_map(Value::as_str);
                let ranges = ranges.collect::<Vec<_>>().join(" ");
                format!("{} {ranges}", output::field(network, "name"))
            };
            let text = networks.iter().map(line).collect::<Vec<_>>().join("\n");
            output::answer(global, &json!({ "networks": networks }), |_| text)?;
        }
        Network::Delete { name, yes } => {
            output::confirm(
                yes,
                &format!("Forget network {name}? Conditions that ask for it are no longer met."),
            )?;
            let gone = client.call(Method::DELETE, &path(&name), None)?;
            output::answer(global, &gone, |_| format!("network {name} forgotten"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
