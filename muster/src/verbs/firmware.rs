//! `muster firmware …`: the server's repository. What signs stands in [`super::firmware_offline`].

use super::{
    client, firmware_offline as offline, firmware_repo as repository,
    firmware_targets as offline_targets, firmware_token as token, output,
};
use crate::{
    cli::{Firmware, Global},
    client::{Client, encode},
};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    process::ExitCode,
};

/// A package larger than this goes in parts of this size, so that a connection that breaks costs one of them.
const PART_BYTES: u64 = 8 * 1024 * 1024;

pub(super) fn run(global: &Global, verb: Firmware) -> anyhow::Result<ExitCode> {
    match verb {
        Firmware::Keygen {
            out,
            token,
            module,
            pin_file,
        } => {
            let held = token
                .zip(module)
                .map(|(label, module)| token::Place::new(label, module, pin_file));
            offline::keygen(global, &out, held.as_ref())?;
        }
        Firmware::Root(root) => offline::root(global, &root)?,
        Firmware::Sign(sign) => offline::sign(global, &sign)?,
        Firmware::Cosign { document, keys } => offline::cosign(global, &document, &keys)?,
        Firmware::Delegate(flags) => offline_targets::delegate(global, &flags)?,
        Firmware::Index(flags) => offline_targets::index(global, &flags)?,
        Firmware::Trust { root, role } => {
            let bytes = read(&root)?;
            let path = role.map_or_else(
                || "/muster/v1/firmware/trust".to_owned(),
                |role| format!("/muster/v1/firmware/trust/{}", encode(&role)),
            );
            let told = client(global)?.send(Method::PUT, &path, bytes)?;
            output::answer(global, &told, |told| {
                let version = told
                    .get("version")
                    .map(ToString::to_string)
                    .unwrap_or_default();
                match output::field(told, "role") {
                    "root" => format!("the server trusts firmware root version {version}"),
                    role => format!(
                        "the server trusts version {version} of the targets document of role {role}"
                    ),
                }
            })?;
        }
        Firmware::Add { package } => {
            let added = upload(&client(global)?, &package)?;
            output::answer(global, &added, |added| {
                format!(
                    "firmware {} {} is ready to roll out",
                    output::field(added, "name"),
                    output::field(added, "version")
                )
            })?;
        }
        Firmware::Repo { role } => repository::run(global, role.as_deref())?,
        Firmware::List => {
            let found = client(global)?.pages("/muster/v1/firmware/packages", "packages")?;
            let rows: Vec<Vec<String>> = found
                .iter()
                .map(|f| {
                    let hardware: Vec<_> = output::items(f, "hardware")
                        .iter()
                        .filter_map(|h| h.as_str())
                        .collect();
                    let number =
                        |key: &str| f.get(key).map(ToString::to_string).unwrap_or_default();
                    vec![
                        output::field(f, "name").to_owned(),
                        output::field(f, "version").to_owned(),
                        number("size"),
                        number("counter"),
                        hardware.join(","),
                    ]
                })
                .collect();
            output::answer(global, &json!({ "packages": found }), |_| {
                output::table(
                    &["firmware", "version", "bytes", "counter", "hardware"],
                    &rows,
                )
            })?;
        }
        Firmware::Show { name, version } => {
            let client = client(global)?;
            let shown = match version {
                Some(version) => {
                    let path = format!(
                        "/muster/v1/firmware/packages/{}/{}",
                        encode(&name),
                        encode(&version)
                    );
                    client.call(Method::GET, &path, None)?
                }
                None => {
                    let all = client.pages("/muster/v1/firmware/packages", "packages")?;
                    let versions: Vec<_> = all
                        .into_iter()
                        .filter(|f| output::field(f, "name") == name)
                        .collect();
                    if versions.is_empty() {
                        bail!(
                            "the server has no firmware {name:?}; `muster firmware list` says what it has"
                        );
                    }
                    json!({ "name": name, "versions": versions })
                }
            };
            output::json(&shown)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends a package in parts, and goes on where an earlier try stopped.
fn upload(client: &Client, package: &Path) -> anyhow::Result<Value> {
    let reading = || format!("read {}", package.display());
    let mut file = File::open(package).with_context(reading)?;
    let size = file.metadata().with_context(reading)?.len();
    if size <= PART_BYTES {
        let bytes = read(package)?;
        return client.send(Method::POST, "/muster/v1/firmware/packages", bytes);
    }
    let mut hasher = ota::Hasher::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer).with_context(reading)? {
            0 => break,
            count => hasher.update(buffer.get(..count).unwrap_or_default()),
        }
    }
    let hash = hasher.finish();
    let path = format!("/muster/v1/firmware/uploads/{hash}");
    let received = |answer: &Value| {
        let bytes = answer.get("received").and_then(Value::as_u64);
        bytes.context("the server did not say how much it has")
    };
    let mut at = received(&client.call(Method::GET, &path, None)?)?;
    while at < size {
        let mut part = Vec::new();
        file.seek(SeekFrom::Start(at)).with_context(reading)?;
        (&mut file)
            .take(PART_BYTES)
            .read_to_end(&mut part)
            .with_context(reading)?;
        if part.is_empty() {
            bail!("{} has become shorter meanwhile", package.display());
        }
        let sent = client.send(Method::PUT, &format!("{path}?offset={at}"), part.into());
        at = received(&sent.with_context(|| {
            format!("the upload stopped at byte {at} of {size}; say it again to go on from there")
        })?)?;
    }
    client.call(Method::POST, &path, None)
}

fn read(file: &Path) -> anyhow::Result<Bytes> {
    Ok(std::fs::read(file)
        .with_context(|| format!("read {}", file.display()))?
        .into())
}
