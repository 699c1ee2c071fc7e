//! `muster ca revoke-issuing`, `root-list` and `sign-root-list`: which issuing certificates a root has withdrawn.

use super::ca::{AUTHORITY, read_text, secret, write_new};
use super::{client, output};
use crate::cli::{Global, RevokeIssuing, RootListFlags, SignRootList};
use crate::client::Client;
use ::ca::{PublicKey, SecretKey, certificate_der, sign_root_list};
use anyhow::{Context as _, bail};
use http::Method;
use serde_json::{Value, json};
use std::time::SystemTime;

fn number(value: &Value) -> u64 {
    value.get("number").and_then(Value::as_u64).unwrap_or(0)
}

pub(super) fn revoke(global: &Global, flags: &RevokeIssuing) -> anyhow::Result<()> {
    let client = client(global)?;
    output::confirm(
        flags.yes,
        "This issuing certificate is withdrawn for good; whoever looks at the root's list believes nothing that it signed.",
    )?;
    let made = match &flags.root_key {
        None => {
            let asked = json!({ "number": flags.number, "reason": flags.reason });
            let path = format!("{AUTHORITY}/issuing/revoke");
            client.call(Method::POST, &path, Some(&asked))?
        }
        Some(file) => {
            let key = secret(file, &flags.passphrase)?;
            let shown = client.call(Method::GET, AUTHORITY, None)?;
            let issuing = output::items(&shown, "issuing");
            let Some(issuing) = issuing
                .iter()
                .find(|one| number(one) == u64::from(flags.number))
            else {
                bail!(
                    "there is no issuing certificate {}: muster ca show lists them",
                    flags.number
                );
            };
            if issuing.get("current").and_then(Value::as_bool) == Some(true) {
                bail!(
                    "issuing certificate {} signs: muster ca rotate-issuing makes the next one first",
                    flags.number
                );
            }
            let revoked = (output::field(issuing, "pem"), flags.reason);
            next(&client, &shown, key, Some(revoked)).with_context(|| file.display().to_string())?
        }
    };
    answer(global, &made)
}

pub(super) fn root_list(global: &Global, flags: &RootListFlags) -> anyhow::Result<()> {
    let client = client(global)?;
    if let Some(file) = &flags.list {
        let list = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        let pem = ::ca::crl_pem(&list).with_context(|| file.display().to_string())?;
        return answer(global, &take(&client, &pem)?);
    }
    let shown = client.call(Method::GET, AUTHORITY, None)?;
    if let Some(file) = &flags.root_key {
        let key = secret(file, &flags.passphrase)?;
        let made = next(&client, &shown, key, None).with_context(|| file.display().to_string())?;
        return answer(global, &made);
    }
    let lists: Vec<&Value> = output::items(&shown, "roots")
        .iter()
        .filter_map(|root| root.get("list"))
        .collect();
    output::answer(global, &json!({ "lists": lists }), |_| {
        let texts = lists.iter().map(|list| output::field(list, "pem"));
        texts.collect::<String>().trim_end().to_owned()
    })
}

/// Signs the next list of the root whose key this is, and hands it in.
pub(super) fn next(
    client: &Client,
    shown: &Value,
    key: SecretKey,
    revoke: Option<(&str, ::ca::RevocationReason)>,
) -> anyhow::Result<Value> {
    let own = |root: &&Value| {
        certificate_der(output::field(root, "pem"))
            .and_then(|der| PublicKey::of_certificate(&der).ok())
            .is_some_and(|public| public == *key.public())
    };
    let Some(root) = output::items(shown, "roots").iter().find(own) else {
        bail!("it is the key of no root of this server");
    };
    let former = root.get("list").map(|list| output::field(list, "pem"));
    let signed = sign_root_list(
        output::field(root, "pem"),
        key,
        former.map(str::as_bytes),
        revoke,
        SystemTime::now(),
    )?;
    take(client, &signed)
}

/// The same where that is due, after the key was used for something else.
pub(super) fn next_if_due(client: &Client, key: SecretKey) -> anyhow::Result<()> {
    let shown = client.call(Method::GET, AUTHORITY, None)?;
    let newest = output::items(&shown, "roots").last();
    let list = newest.and_then(|root| root.get("list"));
    let stands = list
        .and_then(|list| list.get("due"))
        .and_then(Value::as_bool)
        == Some(false);
    if !stands {
        next(client, &shown, key, None).context("the root's revocation list")?;
    }
    Ok(())
}

fn take(client: &Client, pem: &str) -> anyhow::Result<Value> {
    let body = json!({ "listPem": pem });
    client.call(Method::POST, &format!("{AUTHORITY}/root-list"), Some(&body))
}

fn answer(global: &Global, made: &Value) -> anyhow::Result<()> {
    output::answer(global, made, |made| {
        let until = made
            .get("nextUpdate")
            .and_then(Value::as_f64)
            .unwrap_or(0.0);
        let until = jiff::Timestamp::from_second(until as i64);
        format!(
            "list {} of root {} revokes {} issuing certificates and stands until {}: {}",
            number(made),
            made.get("root").and_then(Value::as_u64).unwrap_or(0),
            output::items(made, "revoked").len(),
            until.map(|at| at.to_string()).unwrap_or_default(),
            output::field(made, "url")
        )
    })
}

pub(super) fn sign(global: &Global, flags: &SignRootList) -> anyhow::Result<()> {
    let root = read_text(&flags.root)?;
    let key = secret(&flags.root_key, &flags.passphrase)?;
    let former = match &flags.former {
        Some(file) => {
            Some(std::fs::read(file).with_context(|| format!("read {}", file.display()))?)
        }
        None => None,
    };
    let revoked = flags.revoke.as_deref().map(read_text).transpose()?;
    let revoked = revoked.as_deref().map(|pem| (pem, flags.reason));
    let signed = sign_root_list(&root, key, former.as_deref(), revoked, SystemTime::now())?;
    write_new(&flags.out, signed.as_bytes())?;
    let done = json!({ "file": flags.out.display().to_string() });
    output::answer(global, &done, |_| {
        format!(
            "{} is the next list: muster ca root-list --list FILE hands it to the server",
            flags.out.display()
        )
    })
}
