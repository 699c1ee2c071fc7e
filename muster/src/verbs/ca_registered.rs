//! `muster ca register` and what follows: other organisations' authorities, whose certificates may be devices' here.

use super::ca::read_text;
use super::{client, output};
use crate::cli::{DeactivateAuthority, Global, RegisterAuthority, RegisteredAuthority};
use crate::client::{Client, encode};
use ::ca::{ForeignAuthority, key_id};
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
    let all = registered(&client(global)?)?;
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

fn registered(client: &Client) -> anyhow::Result<Vec<Value>> {
    let (mut all, mut marker) = (Vec::new(), None::<String>);
    loop {
        let path = match &marker {
            None => CERTIFICATES.to_owned(),
            Some(marker) => format!("{CERTIFICATES}&marker={}", encode(marker)),
        };
        let page = client.call(Method::GET, &path, None)?;
        for one in output::items(&page, "certificates") {
            all.push(described(client, output::field(one, "certificateId"))?);
        }
        marker = page
            .get("nextMarker")
            .and_then(Value::as_str)
            .map(str::to_owned);
        if marker.is_none() {
            return Ok(all);
        }
    }
}

/// The ids of the other ACTIVE ones over the same name and key.
fn beside(client: &Client, id: &str) -> anyhow::Result<Vec<String>> {
    let whose = |one: &Value| -> anyhow::Result<(String, String)> {
        let pem = output::field(one, "certificatePem");
        let name = ForeignAuthority::parse(pem)?.subject_digest;
        Ok((name, key_id(pem)?))
    };
    let this = whose(&described(client, id)?)?;
    let mut others = Vec::new();
    for one in registered(client)? {
        let other = output::field(&one, "certificateId");
        if other != id && output::field(&one, "status") == "ACTIVE" && whose(&one)? == this {
            others.push(other.to_owned());
        }
    }
    Ok(others)
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
    let path = format!("{}?newStatus=ACTIVE", path(&flags.id));
    client(global)?.call(Method::PUT, &path, Some(&json!({})))?;
    output::answer(
        global,
        &json!({ "certificateId": flags.id, "status": "ACTIVE" }),
        |_| format!("authority {} is ACTIVE: its certificates count", flags.id),
    )
}

pub(super) fn deactivate(global: &Global, flags: &DeactivateAuthority) -> anyhow::Result<()> {
    let (client, id) = (client(global)?, &flags.authority.id);
    let others = beside(&client, id)?;
    let stays = !others.is_empty() && !flags.every;
    output::confirm(
        flags.authority.yes,
        &match stays {
            true => format!(
                "Its devices stay, for {} has its name and key and is ACTIVE: say --every to have them out.",
                others.join(", ")
            ),
            false => "The sessions of all its devices end at once, and none of them connects until it is activated again."
                .to_owned(),
        },
    )?;
    // The named one last: said again after a cut, it finds what is left.
    let also = others.iter().filter(|_| flags.every);
    for id in also.chain([id]) {
        let path = format!("{}?newStatus=INACTIVE", path(id));
        client.call(Method::PUT, &path, Some(&json!({})))?;
    }
    let (vouching, also) = if stays {
        (others, vec![])
    } else {
        (vec![], others)
    };
    let told = json!({
        "certificateId": id, "status": "INACTIVE", "deactivatedBeside": also, "vouching": vouching,
    });
    output::answer(global, &told, |_| match vouching.is_empty() {
        true => std::iter::once(id)
            .chain(&also)
            .map(|id| format!("authority {id} is INACTIVE: its devices are out"))
            .collect::<Vec<_>>()
            .join("\n"),
        false => format!(
            "authority {id} is INACTIVE; its devices stay, for {} has its name and key and is ACTIVE (--every has them out)",
            vouching.join(", ")
        ),
    })
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
