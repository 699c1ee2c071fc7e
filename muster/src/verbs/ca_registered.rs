//! `muster ca register` and what follows: other organisations' authorities, whose certificates may be devices' here.

use super::ca::read_text;
use super::{client, output};
use crate::cli::{Global, RegisterAuthority, RegisteredAuthority};
use crate::client::{Client, encode};
use http::Method;
use serde_json::{Map, Value, json};

const CERTIFICATES: &str = "/cacertificates?pageSize=250";

pub(super) fn code(global: &Global) -> anyhow::Result<()> {
    let told = client(global)?.call(Method::GET, "/registrationcode", None)?;
    output::answer(global, &told, |told| {
        output::field(told, "registrationCode").to_owned()
    })
}

pub(super) fn register(global: &Global, flags: &RegisterAuthority) -> anyhow::Result<()> {
    let mut body = Map::new();
    let mut put = |field: &str, value: Value| body.insert(field.to_owned(), value);
    put("caCertificate", read_text(&flags.certificate)?.into());
    match &flags.verification {
        Some(file) => {
            put("verificationCertificate", read_text(file)?.into());
        }
        None => {
            put("certificateMode", "SNI_ONLY".into());
        }
    }
    if let Some(template) = &flags.template {
        put("registrationConfig", json!({ "templateName": template }));
    }
    let (active, automatic) = (!flags.inactive, flags.auto || flags.template.is_some());
    let path = format!("/cacertificate?setAsActive={active}&allowAutoRegistration={automatic}");
    let made = client(global)?.call(Method::POST, &path, Some(&Value::Object(body)))?;
    output::answer(global, &made, |made| {
        let state = if active { "ACTIVE" } else { "INACTIVE" };
        format!(
            "authority {} is registered and {state}",
            output::field(made, "certificateId")
        )
    })
}

pub(super) fn list(global: &Global) -> anyhow::Result<()> {
    let client = client(global)?;
    let (mut all, mut marker) = (Vec::new(), None::<String>);
    loop {
        let path = match &marker {
            None => CERTIFICATES.to_owned(),
            Some(marker) => format!("{CERTIFICATES}&marker={}", encode(marker)),
        };
        let page = client.call(Method::GET, &path, None)?;
        for one in output::items(&page, "certificates") {
            all.push(described(&client, output::field(one, "certificateId"))?);
        }
        marker = page
            .get("nextMarker")
            .and_then(Value::as_str)
            .map(str::to_owned);
        if marker.is_none() {
            break;
        }
    }
    output::answer(global, &json!({ "authorities": all }), |told| {
        let rows: Vec<_> = output::items(told, "authorities")
            .iter()
            .map(|one| {
                let end = one.pointer("/validity/notAfter").and_then(Value::as_f64);
                let end = jiff::Timestamp::from_second(end.unwrap_or(0.0) as i64);
                vec![
                    output::field(one, "certificateId").to_owned(),
                    output::field(one, "status").to_owned(),
                    output::field(one, "autoRegistrationStatus").to_owned(),
                    end.map(|at| at.to_string()).unwrap_or_default(),
                ]
            })
            .collect();
        output::table(
            &["authority", "status", "registers by itself", "until"],
            &rows,
        )
    })
}

fn described(client: &Client, id: &str) -> anyhow::Result<Value> {
    let found = client.call(Method::GET, &path(id), None)?;
    Ok(found
        .get("certificateDescription")
        .cloned()
        .unwrap_or_default())
}

fn path(id: &str) -> String {
    format!("/cacertificate/{}", encode(id))
}

pub(super) fn activate(global: &Global, flags: &RegisteredAuthority) -> anyhow::Result<()> {
    set(global, flags, "ACTIVE", "is ACTIVE: its certificates count")
}

pub(super) fn deactivate(global: &Global, flags: &RegisteredAuthority) -> anyhow::Result<()> {
    output::confirm(
        flags.yes,
        "The sessions of all its devices end at once, and none of them connects until it is activated again.",
    )?;
    set(
        global,
        flags,
        "INACTIVE",
        "is INACTIVE: its devices are out",
    )
}

fn set(
    global: &Global,
    flags: &RegisteredAuthority,
    status: &str,
    done: &str,
) -> anyhow::Result<()> {
    let path = format!("{}?newStatus={status}", path(&flags.id));
    client(global)?.call(Method::PUT, &path, Some(&json!({})))?;
    output::answer(
        global,
        &json!({ "certificateId": flags.id, "status": status }),
        |_| format!("authority {} {done}", flags.id),
    )
}

pub(super) fn unregister(global: &Global, flags: &RegisteredAuthority) -> anyhow::Result<()> {
    output::confirm(
        flags.yes,
        "It is forgotten; to come back it has to be registered anew.",
    )?;
    client(global)?.call(Method::DELETE, &path(&flags.id), None)?;
    output::answer(global, &json!({ "certificateId": flags.id }), |_| {
        format!("authority {} is forgotten", flags.id)
    })
}
