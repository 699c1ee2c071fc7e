//! `muster ca succeed-root`, `cross-sign` and `retire-root`: the root's own end.

use super::ca::{AUTHORITY, read_text, secret, write_new};
use super::{client, output};
use crate::cli::{CrossSign, Global, RetireRoot, SucceedRoot};
use crate::client::Client;
use ::ca::{SecretKey, cross_sign, sign_issuing_request, sign_root_list};
use anyhow::Context as _;
use http::Method;
use serde_json::{Map, Value, json};
use std::time::SystemTime;

pub(super) fn succeed(global: &Global, flags: &SucceedRoot) -> anyhow::Result<()> {
    let client = client(global)?;
    let old_key = match &flags.root_key {
        Some(file) => Some(secret(file, &flags.passphrase)?),
        None => None,
    };
    if let Some(out) = &flags.successor_out {
        let asked = request(&client)?;
        write_new(out, output::field(&asked, "successorPem").as_bytes())?;
        let done = json!({ "file": out.display().to_string() });
        return output::answer(global, &done, |_| {
            format!(
                "have {} signed with the present root's key (muster ca cross-sign does so without a server), then: muster ca succeed-root --cross FILE",
                out.display()
            )
        });
    }
    let mut body = Map::new();
    let mut put = |field: &str, text: String| body.insert(field.to_owned(), text.into());
    let successor = match &flags.cert {
        Some(file) => {
            let successor = read_text(file)?;
            put("successorPem", successor.clone());
            if let Some(key) = &flags.key {
                let signed = below(&client, &successor, secret(key, &flags.passphrase)?)?;
                let [issuing, back, list] = signed;
                put("listPem", list);
                put("issuingPem", issuing);
                put("backPem", back);
            }
            Some(successor)
        }
        None => None,
    };
    if let Some(file) = &flags.issuing {
        put("issuingPem", read_text(file)?);
    }
    if let Some(file) = &flags.issuing_key {
        let key = secret(file, &flags.passphrase)?;
        put("issuingKey", key.to_pem().as_str().to_owned());
    }
    if let Some(file) = &flags.cross {
        put("crossPem", read_text(file)?);
    } else if let Some(key) = old_key {
        let (root, successor) = match successor {
            Some(successor) => (present_root(&client)?, successor),
            None => {
                let asked = request(&client)?;
                let text = |field| output::field(&asked, field).to_owned();
                (text("rootPem"), text("successorPem"))
            }
        };
        let signed = cross_sign(&root, key, &successor, SystemTime::now())?;
        put("crossPem", signed);
    }
    let made = client.call(
        Method::POST,
        &format!("{AUTHORITY}/root"),
        Some(&Value::Object(body)),
    )?;
    output::answer(global, &made, |made| {
        let number = made.get("number").and_then(Value::as_u64).unwrap_or(0);
        format!(
            "root {number} ({}) and an issuing certificate below it sign from now on; the root before is trusted until its end, and devices learn of this one by EST cacerts (the agent does so by itself)",
            output::field(made, "certificateId")
        )
    })
}

fn request(client: &Client) -> anyhow::Result<Value> {
    client.call(Method::POST, &format!("{AUTHORITY}/root/request"), None)
}

fn present_root(client: &Client) -> anyhow::Result<String> {
    let shown = client.call(Method::GET, AUTHORITY, None)?;
    Ok(output::field(&shown, "rootPem").to_owned())
}

/// What a successor's key signs here, and does not go to the server for: the next issuing certificate, and the present
/// root; with its first revocation list.
fn below(client: &Client, successor: &str, key: SecretKey) -> anyhow::Result<[String; 3]> {
    let asked = client.call(Method::POST, &format!("{AUTHORITY}/issuing/request"), None)?;
    let permitted: Vec<String> = output::items(&asked, "permittedDns")
        .iter()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let now = SystemTime::now();
    let again = || SecretKey::from_pem(key.to_pem().as_bytes(), None);
    let list_url = asked.get("nextListUrl").and_then(Value::as_str);
    let list =
        sign_root_list(successor, again()?, None, None, now).context("the successor's list")?;
    let back_key = again()?;
    let request = output::field(&asked, "request");
    let issuing = sign_issuing_request(successor, key, request, &permitted, list_url, now)
        .context("the successor's key")?;
    let back = cross_sign(successor, back_key, output::field(&asked, "rootPem"), now)?;
    Ok([issuing, back, list])
}

pub(super) fn sign_across(global: &Global, flags: &CrossSign) -> anyhow::Result<()> {
    let key = secret(&flags.root_key, &flags.passphrase)?;
    let (root, successor) = (read_text(&flags.root)?, read_text(&flags.successor)?);
    let signed = cross_sign(&root, key, &successor, SystemTime::now())?;
    write_new(&flags.out, signed.as_bytes())?;
    let done = json!({ "file": flags.out.display().to_string() });
    output::answer(global, &done, |_| {
        format!(
            "{} is {} signed with the key of {}",
            flags.out.display(),
            flags.successor.display(),
            flags.root.display()
        )
    })
}

pub(super) fn retire(global: &Global, flags: &RetireRoot) -> anyhow::Result<()> {
    let client = client(global)?;
    output::confirm(
        flags.yes,
        "This root is trusted no more, for good, and its key leaves this server; what was issued below it counts no more.",
    )?;
    let body = json!({ "number": flags.number, "beforeItsEnd": flags.before_its_end });
    client.call(
        Method::POST,
        &format!("{AUTHORITY}/root/retire"),
        Some(&body),
    )?;
    output::answer(global, &json!({ "number": flags.number }), |_| {
        format!("root {} is retired", flags.number)
    })
}
