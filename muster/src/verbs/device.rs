//! `muster device …`.

use super::{
    client, device_bulk,
    device_certificates::{self, Measure},
    device_files::DeviceFiles,
    device_health, output,
};
use crate::{
    cli::{Device, DeviceCreate, DeviceImport, Global},
    client::encode,
};
use anyhow::Context as _;
use data_encoding::BASE64;
use http::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

pub(super) fn run(global: &Global, verb: Device) -> anyhow::Result<ExitCode> {
    match verb {
        Device::Create(create) => match create.from.clone() {
            Some(file) => return device_bulk::run(global, &create, &file),
            None => self::create(global, create)?,
        },
        Device::Import(wanted) => import(global, &wanted)?,
        Device::List => list(global)?,
        Device::Show { name } => {
            let device = client(global)?.call(Method::GET, &path(&name), None)?;
            output::answer(global, &device, described)?;
        }
        Device::Search { query } => search(global, &query)?,
        Device::Revoke { whose, reason } => {
            device_certificates::run(global, &whose, &Measure::Revoke(reason))?;
        }
        Device::Deactivate { whose } => {
            device_certificates::run(global, &whose, &Measure::Deactivate)?;
        }
        Device::Activate { whose } => {
            device_certificates::run(global, &whose, &Measure::Activate)?;
        }
        Device::EnrolPassword {
            name,
            policy,
            group,
            attributes,
            valid,
            withdraw,
        } => {
            if withdraw {
                withdraw_password(global, &name)?;
                return Ok(ExitCode::SUCCESS);
            }
            let attributes: BTreeMap<String, String> = attributes.into_iter().collect();
            let body = json!({
                "policyName": policy, "groupName": group, "attributes": attributes,
                "validSeconds": valid.as_secs(),
            });
            let path = format!("{}/enrolment-password", path(&name));
            let made = client(global)?.call(Method::POST, &path, Some(&body))?;
            output::answer(global, &made, |_| enrolling(&made))?;
        }
        Device::Replace {
            name,
            csr,
            out,
            yes,
        } => replace(global, &name, csr, out, yes)?,
        Device::Quarantine { name, reason, lift } => {
            device_health::quarantine(global, &name, reason.as_deref(), lift)?;
        }
        Device::Attest(wanted) => device_health::attest(global, &wanted)?,
        Device::Violation { name, reason, at } => {
            device_health::violation(global, &name, &reason, at.as_deref())?;
        }
        Device::Delete { name, yes } => {
            output::confirm(
                yes,
                &format!("Revoke the certificates of {name} and forget it?"),
            )?;
            let gone = client(global)?.call(Method::DELETE, &path(&name), None)?;
            output::answer(global, &gone, |_| {
                format!("device {name} deleted; its certificates are revoked")
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn withdraw_password(global: &Global, name: &str) -> anyhow::Result<()> {
    let path = format!("{}/enrolment-password", path(name));
    client(global)?.call(Method::DELETE, &path, None)?;
    output::answer(global, &json!({ "thingName": name }), |_| {
        format!("the enrolment password of {name} is good for nothing any more")
    })
}

/// The password alone on its line, so that a script can take the last one, and how it is used.
fn enrolling(made: &Value) -> String {
    let field = |key| output::field(made, key);
    format!(
        "device {name} enrols itself once with this password, in a file:\n\n  \
         muster-agent enrol --identity DIR --server {host} --https-port {port} --thing {name} --password-file FILE --root root.crt\n\n\
         or by EST at https://{host}:{port}/.well-known/est/simpleenroll:\n\n  \
         openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -subj /CN={name} -outform DER | openssl base64 | \
         curl --cacert root.crt -u {name}:PASSWORD -H 'Content-Type: application/pkcs10' --data-binary @- https://{host}:{port}/.well-known/est/simpleenroll | \
         openssl base64 -d -A | openssl pkcs7 -inform DER -print_certs -out {name}.crt\n\n{password}",
        name = field("thingName"),
        host = field("httpsHost"),
        port = made
            .get("httpsPort")
            .and_then(Value::as_u64)
            .unwrap_or_default(),
        password = field("password"),
    )
}

fn import(global: &Global, wanted: &DeviceImport) -> anyhow::Result<()> {
    let file = &wanted.certificate;
    let pem = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let attributes: BTreeMap<&String, &String> = wanted
        .attributes
        .iter()
        .map(|(key, value)| (key, value))
        .collect();
    let body = json!({
        "thingName": wanted.name, "certificatePem": pem, "policyName": wanted.policy,
        "groupName": wanted.group, "attributes": attributes,
    });
    let made = client(global)?.call(Method::POST, "/muster/v1/device-imports", Some(&body))?;
    output::answer(global, &made, |made| {
        format!(
            "device {} connects with the certificate it has: {}",
            wanted.name,
            output::field(made, "certificateId")
        )
    })
}

fn create(global: &Global, create: DeviceCreate) -> anyhow::Result<()> {
    let name = create
        .name
        .context("name the device, or many of them with --from")?;
    // Here, where it is known what the word was given for: the server sees a field of a request nobody wrote.
    let _: fleet::ThingName = name
        .parse()
        .map_err(|why| anyhow::anyhow!("NAME {name:?}: {why}"))?;
    let mut body = json!({ "thingName": name, "policyName": create.policy });
    let mut set = |key: &str, value: Value| {
        if let Some(fields) = body.as_object_mut() {
            fields.insert(key.to_owned(), value);
        }
    };
    if let Some(group) = create.group {
        set("groupName", group.into());
    }
    if !create.attributes.is_empty() {
        let attributes: BTreeMap<String, String> = create.attributes.into_iter().collect();
        set("attributes", json!(attributes));
    }
    let with_csr = create.csr.is_some();
    if let Some(csr) = create.csr {
        set("certificateSigningRequest", read_csr(&csr)?.into());
    }
    let client = client(global)?;
    let files = DeviceFiles::prepare(create.out, &name, with_csr)?;
    let answer = client
        .call(Method::POST, "/muster/v1/devices", Some(&body))
        .inspect_err(|_| files.withdraw())?;
    written(global, &files, &answer)
}

fn replace(
    global: &Global,
    name: &str,
    csr: Option<PathBuf>,
    out: Option<PathBuf>,
    yes: bool,
) -> anyhow::Result<()> {
    let mut body = json!({});
    let with_csr = csr.is_some();
    if let (Some(csr), Some(fields)) = (csr, body.as_object_mut()) {
        fields.insert("certificateSigningRequest".into(), read_csr(&csr)?.into());
    }
    output::confirm(
        yes,
        &format!("Revoke the certificate of {name} and give it a new one?"),
    )?;
    let client = client(global)?;
    let files = DeviceFiles::prepare(out, name, with_csr)?;
    let answer = client
        .call(
            Method::POST,
            &format!("{}/replace", path(name)),
            Some(&body),
        )
        .inspect_err(|_| files.withdraw())?;
    written(global, &files, &answer)
}

fn written(global: &Global, files: &DeviceFiles, answer: &Value) -> anyhow::Result<()> {
    files.write(answer)?;
    let mut shown = answer.clone();
    if let Some(fields) = shown.as_object_mut() {
        // It is in its file; a terminal's or pipeline's history is no place for it.
        fields.remove("privateKey");
        fields.insert("try".into(), files.try_line(answer).into());
    }
    output::answer(global, &shown, |_| files.report(answer))
}

fn search(global: &Global, query: &str) -> anyhow::Result<()> {
    let client = client(global)?;
    let mut found: Vec<Value> = Vec::new();
    let mut token = Value::Null;
    loop {
        let mut body = json!({ "queryString": query });
        if let (Some(fields), Some(token)) = (body.as_object_mut(), token.as_str()) {
            fields.insert("nextToken".to_owned(), token.into());
        }
        let page = client.call(Method::POST, "/indices/search", Some(&body))?;
        found.extend_from_slice(output::items(&page, "things"));
        token = page.get("nextToken").cloned().unwrap_or_default();
        if token.is_null() {
            break;
        }
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|thing| {
            let connected = thing.pointer("/connectivity/connected") == Some(&Value::Bool(true));
            let groups = output::items(thing, "thingGroupNames").iter();
            vec![
                output::field(thing, "thingName").to_owned(),
                if connected { "connected" } else { "" }.to_owned(),
                groups
                    .filter_map(Value::as_str)
                    .collect::<Vec<_>>()
                    .join(" "),
            ]
        })
        .collect();
    output::answer(global, &json!({ "things": found }), |_| {
        output::table(&["device", "connected", "groups"], &rows)
    })
}

fn list(global: &Global) -> anyhow::Result<()> {
    let devices = client(global)?.pages("/muster/v1/devices?maxResults=250", "devices")?;
    let rows: Vec<Vec<String>> = devices
        .iter()
        .map(|device| {
            let statuses = output::items(device, "certificates")
                .iter()
                .map(device_state);
            vec![
                output::field(device, "thingName").to_owned(),
                statuses.collect::<Vec<_>>().join(" "),
            ]
        })
        .collect();
    output::answer(global, &json!({ "devices": devices }), |_| {
        output::table(&["device", "certificates"], &rows)
    })
}

fn described(device: &Value) -> String {
    let mut lines = vec![format!("device {}", output::field(device, "thingName"))];
    let joined = |key: &str| {
        output::items(device, key)
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    };
    lines.push(format!("groups: {}", joined("groups")));
    if let Some(attributes) = device.get("attributes").and_then(Value::as_object) {
        lines.extend(
            attributes
                .iter()
                .map(|(key, value)| format!("{key} = {}", value.as_str().unwrap_or(""))),
        );
    }
    lines.extend(
        device
            .get("posture")
            .map_or_else(Vec::new, device_health::lines),
    );
    for certificate in output::items(device, "certificates") {
        let policies: Vec<_> = output::items(certificate, "policies")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        lines.push(format!(
            "certificate {} {} policies: {}",
            output::field(certificate, "certificateId"),
            device_state(certificate),
            policies.join(", ")
        ));
    }
    lines.join("\n")
}

/// Its status, and what keeps it out all the same.
fn device_state(certificate: &Value) -> String {
    let status = output::field(certificate, "status");
    match certificate.get("withoutAuthority").and_then(Value::as_bool) {
        Some(true) => {
            format!("{status} (its authority is INACTIVE, ended or forgotten: it is out)")
        }
        _ => status.to_owned(),
    }
}

fn read_csr(file: &Path) -> anyhow::Result<String> {
    let octets = std::fs::read(file)
        .with_context(|| format!("read certificate signing request {}", file.display()))?;
    Ok(match String::from_utf8(octets) {
        Ok(text) => text,
        // DER, which the server is sent as PEM.
        Err(not_text) => {
            let mut body = BASE64.encode(not_text.as_bytes());
            let mut at = 64;
            while at < body.len() {
                body.insert(at, '\n');
                at += 65;
            }
            format!(
                "-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n"
            )
        }
    })
}

fn path(name: &str) -> String {
    format!("/muster/v1/devices/{}", encode(name))
}
