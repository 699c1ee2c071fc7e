//! `muster group …`.

use super::{client, output, policy::kept};
use crate::{
    cli::{Global, Group},
    client::{Client, encode},
};
use http::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

pub(super) fn run(global: &Global, verb: Group) -> anyhow::Result<ExitCode> {
    let client = client(global)?;
    match verb {
        Group::Create {
            name,
            parent,
            query,
        } => {
            let (path, body) = match (parent, query) {
                (Some(parent), _) => (path(&name), json!({ "parentGroupName": parent })),
                (_, Some(query)) => (dynamic(&name), json!({ "queryString": query })),
                _ => (path(&name), json!({})),
            };
            let made = client.call(Method::POST, &path, Some(&body))?;
            output::answer(global, &made, |_| format!("group {name} made"))?;
        }
        Group::List => {
            let groups = client.pages("/thing-groups?maxResults=250", "thingGroups")?;
            output::answer(global, &json!({ "groups": groups }), |_| {
                names(&groups, "groupName")
            })?;
        }
        Group::Show { name } => show(global, &client, &name)?,
        Group::Delete { name, yes } => {
            output::confirm(yes, &format!("Delete group {name}? Its members stay."))?;
            let known = client.call(Method::GET, &path(&name), None)?;
            let place = match known.get("queryString") {
                Some(_) => dynamic(&name),
                None => path(&name),
            };
            let gone = client.call(Method::DELETE, &place, None)?;
            output::answer(global, &gone, |_| format!("group {name} deleted"))?;
        }
        Group::Add {
            name,
            device,
            keep_proofs,
        } => {
            let body = json!({ "thingGroupName": name, "thingName": device });
            let body = kept(body, keep_proofs);
            let added = client.call(
                Method::PUT,
                "/thing-groups/addThingToThingGroup",
                Some(&body),
            )?;
            output::answer(global, &added, |_| format!("{device} is in group {name}"))?;
        }
        Group::Remove {
            name,
            device,
            keep_proofs,
        } => {
            let body = json!({ "thingGroupName": name, "thingName": device });
            let body = kept(body, keep_proofs);
            let removed = client.call(
                Method::PUT,
                "/thing-groups/removeThingFromThingGroup",
                Some(&body),
            )?;
            output::answer(global, &removed, |_| {
                format!("{device} is not in group {name}")
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A group whose query says who is in it.
fn dynamic(name: &str) -> String {
    format!("/dynamic-thing-groups/{}", encode(name))
}

fn show(global: &Global, client: &Client, name: &str) -> anyhow::Result<()> {
    let mut group = client.call(Method::GET, &path(name), None)?;
    let members = client.pages(&format!("{}/things?maxResults=250", path(name)), "things")?;
    let text = members
        .iter()
        .filter_map(Value::as_str)
        .collect::<Vec<_>>()
        .join("\n");
    if let Some(fields) = group.as_object_mut() {
        fields.insert("things".into(), Value::Array(members));
    }
    output::answer(global, &group, |_| {
        if text.is_empty() {
            format!("group {name} has no members")
        } else {
            text
        }
    })
}

fn path(name: &str) -> String {
    format!("/thing-groups/{}", encode(name))
}

fn names(items: &[Value], key: &str) -> String {
    items
        .iter()
        .map(|item| output::field(item, key))
        .collect::<Vec<_>>()
        .join("\n")
}
