//! `muster device revoke|deactivate|activate`: one device's certificates, or those of a group, an authority or a query,
//! batch by batch. A run that was cut short is gone on with by saying the same again.

use super::{client, output};
use crate::{
    cli::{Global, Whose},
    client::{Client, encode},
};
use http::Method;
use serde_json::{Value, json};

/// What is to become of them.
pub(super) enum Measure {
    /// With a reason, as RFC 5280 names it.
    Revoke(Option<String>),
    Deactivate,
    Activate,
}

impl Measure {
    fn word(&self) -> &'static str {
        match self {
            Measure::Revoke(_) => "REVOKE",
            Measure::Deactivate => "DEACTIVATE",
            Measure::Activate => "ACTIVATE",
        }
    }

    fn done(&self) -> &'static str {
        match self {
            Measure::Revoke(_) => "revoked",
            Measure::Deactivate => "inactive now",
            Measure::Activate => "active again",
        }
    }
}

pub(super) fn run(global: &Global, whose: &Whose, measure: &Measure) -> anyhow::Result<()> {
    let client = client(global)?;
    // One device is one step, and its name an error where it is not known.
    if let (Some(name), Measure::Revoke(reason), false) = (&whose.name, measure, whose.dry_run) {
        return revoke(global, &client, name, reason.as_deref(), whose.yes);
    }
    let mut body = selection(whose);
    let mut set = |key: &str, value: Value| {
        if let Some(fields) = body.as_object_mut() {
            fields.insert(key.to_owned(), value);
        }
    };
    set("measure", measure.word().into());
    if let Measure::Revoke(Some(reason)) = measure {
        set("reason", reason.as_str().into());
    }
    if !whose.dry_run && !matches!(measure, Measure::Activate) {
        let would = batches(&client, body.clone(), true)?;
        let count = would.changed.len();
        output::confirm(
            whose.yes || count == 0,
            &format!(
                "{} {count} certificates? Their sessions end at once.",
                capital(measure)
            ),
        )?;
    }
    let done = batches(&client, body, whose.dry_run)?;
    let count = done.changed.len();
    let answer =
        json!({ "changed": done.changed, "untouched": done.untouched, "dryRun": whose.dry_run });
    output::answer(global, &answer, |_| {
        let would = if whose.dry_run { "would be " } else { "" };
        let untouched = done.untouched;
        format!(
            "{count} certificates {would}{}, {untouched} left as they are",
            measure.done()
        )
    })
}

fn capital(measure: &Measure) -> &'static str {
    match measure {
        Measure::Revoke(_) => "Revoke",
        Measure::Deactivate => "Deactivate",
        Measure::Activate => "Activate",
    }
}

fn revoke(
    global: &Global,
    client: &Client,
    name: &str,
    reason: Option<&str>,
    yes: bool,
) -> anyhow::Result<()> {
    output::confirm(
        yes,
        &format!("Revoke the certificates of {name}? Its sessions end at once, for good."),
    )?;
    let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    let path = format!("/muster/v1/devices/{}/revoke", encode(name));
    let done = client.call(Method::POST, &path, Some(&body))?;
    output::answer(global, &done, |_| {
        format!("device {name} revoked; its live sessions have been ended")
    })
}

/// Whose certificates, in the API's words.
fn selection(whose: &Whose) -> Value {
    if let Some(name) = &whose.name {
        return json!({ "thingName": name });
    }
    match (&whose.group, &whose.ca, &whose.query) {
        (Some(group), _, _) => json!({ "groupName": group }),
        (_, Some(ca), _) => json!({ "caCertificateId": ca }),
        (_, _, Some(query)) => json!({ "queryString": query }),
        _ => json!({ "certificateIds": whose.certificates }),
    }
}

#[derive(Default)]
struct Done {
    changed: Vec<Value>,
    untouched: u64,
}

fn batches(client: &Client, mut body: Value, dry_run: bool) -> anyhow::Result<Done> {
    let mut done = Done::default();
    loop {
        if let Some(fields) = body.as_object_mut() {
            fields.insert("dryRun".to_owned(), dry_run.into());
        }
        let answer = client.call(Method::POST, "/muster/v1/certificate-changes", Some(&body))?;
        done.changed
            .extend_from_slice(output::items(&answer, "changed"));
        done.untouched += answer
            .get("untouched")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        let Some(token) = answer.get("nextToken").filter(|token| !token.is_null()) else {
            return Ok(done);
        };
        if let Some(fields) = body.as_object_mut() {
            fields.insert("nextToken".to_owned(), token.clone());
        }
    }
}
