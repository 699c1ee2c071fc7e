//! `muster ca …`.

use super::{ca_list, ca_registered, ca_root, ceremony, client, output, passphrase};
use crate::cli::{Ca, Global, PassphraseSource, RotateIssuing, TakeRootOffline};
use ::ca::{CertificateId, Passphrase, SecretKey, sign_issuing_request};
use anyhow::{Context as _, bail};
use http::Method;
use serde_json::{Value, json};
use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::ExitCode,
    time::SystemTime,
};
use zeroize::Zeroizing;

pub(super) const AUTHORITY: &str = "/muster/v1/authority";

pub(super) fn run(global: &Global, verb: Ca) -> anyhow::Result<ExitCode> {
    match verb {
        Ca::Ceremony(flags) => ceremony::run(global, &flags)?,
        Ca::Show => show(global)?,
        Ca::TakeRootOffline(flags) => take_root_offline(global, &flags)?,
        Ca::RotateIssuing(flags) => rotate_issuing(global, &flags)?,
        Ca::RevokeIssuing(flags) => ca_list::revoke(global, &flags)?,
        Ca::RootList(flags) => ca_list::root_list(global, &flags)?,
        Ca::SignRootList(flags) => ca_list::sign(global, &flags)?,
        Ca::SucceedRoot(flags) => ca_root::succeed(global, &flags)?,
        Ca::CrossSign(flags) => ca_root::sign_across(global, &flags)?,
        Ca::RetireRoot(flags) => ca_root::retire(global, &flags)?,
        Ca::RegistrationCode => ca_registered::code(global)?,
        Ca::Register(flags) => ca_registered::register(global, &flags)?,
        Ca::ListRegistered => ca_registered::list(global)?,
        Ca::Activate(flags) => ca_registered::activate(global, &flags)?,
        Ca::Deactivate(flags) => ca_registered::deactivate(global, &flags)?,
        Ca::Unregister(flags) => ca_registered::unregister(global, &flags)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(global: &Global) -> anyhow::Result<()> {
    let authority = client(global)?.call(Method::GET, AUTHORITY, None)?;
    output::answer(global, &authority, |authority| {
        let row = |role: String, one: &Value| {
            let until = one.get("notAfter").and_then(Value::as_f64).unwrap_or(0.0);
            let until = jiff::Timestamp::from_second(until as i64);
            vec![
                role,
                output::field(one, "name").to_owned(),
                until.map(|at| at.to_string()).unwrap_or_default(),
            ]
        };
        let number = |one: &Value| one.get("number").and_then(Value::as_u64).unwrap_or(0);
        let mut rows = Vec::new();
        for root in output::items(authority, "roots") {
            let (state, key) = (output::field(root, "state"), output::field(root, "key"));
            let role = format!("root {} ({state}, key {key})", number(root));
            rows.push(row(role, root));
        }
        for one in output::items(authority, "issuing") {
            let current = one.get("current").and_then(Value::as_bool) == Some(true);
            let revoked = one.get("revoked").map(|it| output::field(it, "reason"));
            let state = match revoked {
                Some(reason) => format!("revoked, {reason}"),
                None if current => "signs".to_owned(),
                None => "trusted".to_owned(),
            };
            let above = one.get("root").and_then(Value::as_u64).unwrap_or(0);
            let role = format!("issuing {} ({state}, below root {above})", number(one));
            rows.push(row(role, one));
        }
        for root in output::items(authority, "roots") {
            if let Some(list) = root.get("list") {
                let until = list
                    .get("nextUpdate")
                    .and_then(Value::as_f64)
                    .unwrap_or(0.0);
                let until = jiff::Timestamp::from_second(until as i64);
                let revoked = output::items(list, "revoked").len();
                rows.push(vec![
                    format!("list {} of root {}", number(list), number(root)),
                    format!("{revoked} issuing certificates revoked"),
                    until.map(|at| at.to_string()).unwrap_or_default(),
                ]);
            }
        }
        let table = output::table(&["certificate", "name", "until"], &rows);
        match output::field(authority, "issuingKeyTrouble") {
            "" => table,
            trouble => format!("{table}\nthe key that signs cannot be used now: {trouble}"),
        }
    })
}

fn take_root_offline(global: &Global, flags: &TakeRootOffline) -> anyhow::Result<()> {
    let passphrase = passphrase::require(&flags.passphrase)?;
    let client = client(global)?;
    output::confirm(
        flags.yes,
        "The root's key leaves this server for good; without the file and its passphrase no issuing certificate can follow.",
    )?;
    let asked = json!({ "passphrase": passphrase.reveal(), "root": flags.root });
    let path = format!("{AUTHORITY}/root-key/export");
    let exported = client.call(Method::POST, &path, Some(&asked))?;
    let text = output::field(&exported, "encryptedPrivateKey");
    write_new(&flags.out, text.as_bytes())?;
    // Before it goes there: what lies on the disk here is the key, and the passphrase opens it.
    let kept = read_back(&flags.out, &passphrase)?;
    let kept = json!({ "sha256": CertificateId::of(&kept).to_string() });
    client.call(
        Method::POST,
        &format!("{AUTHORITY}/root-key/offline"),
        Some(&kept),
    )?;
    let done = json!({ "file": flags.out.display().to_string() });
    output::answer(global, &done, |_| {
        format!(
            "the root's key is in {} and no longer on the server",
            flags.out.display()
        )
    })
}

fn rotate_issuing(global: &Global, flags: &RotateIssuing) -> anyhow::Result<()> {
    let client = client(global)?;
    let request = || client.call(Method::POST, &format!("{AUTHORITY}/issuing/request"), None);
    let mut root_key = None;
    let body = if let Some(file) = &flags.root_key {
        let key = secret(file, &flags.passphrase)?;
        root_key = Some(SecretKey::from_pem(key.to_pem().as_bytes(), None)?);
        let asked = request()?;
        let (root, request) = (
            output::field(&asked, "rootPem"),
            output::field(&asked, "request"),
        );
        let permitted: Vec<String> = output::items(&asked, "permittedDns")
            .iter()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect();
        let list_url = asked.get("listUrl").and_then(Value::as_str);
        let now = SystemTime::now();
        let signed = sign_issuing_request(root, key, request, &permitted, list_url, now)
            .with_context(|| file.display().to_string())?;
        json!({ "certificatePem": signed })
    } else if let Some(file) = &flags.csr_out {
        let asked = request()?;
        write_new(file, output::field(&asked, "request").as_bytes())?;
        let done = json!({ "file": file.display().to_string() });
        return output::answer(global, &done, |_| {
            format!(
                "have {} signed as an issuing certificate (CA:TRUE, pathlen:0, keyCertSign, cRLSign), then: muster ca rotate-issuing --cert FILE",
                file.display()
            )
        });
    } else if let Some(file) = &flags.cert {
        let chain = read_text(file)?;
        match &flags.key {
            Some(key) => {
                let key = secret(key, &flags.passphrase)?;
                json!({ "certificatePem": chain, "privateKey": key.to_pem().as_str() })
            }
            None => json!({ "certificatePem": chain }),
        }
    } else {
        json!({})
    };
    let made = client.call(Method::POST, &format!("{AUTHORITY}/issuing"), Some(&body))?;
    if let Some(key) = root_key {
        ca_list::next_if_due(&client, key)?;
    }
    output::answer(global, &made, |made| {
        let number = made.get("number").and_then(Value::as_u64).unwrap_or(0);
        format!(
            "issuing certificate {number} ({}) signs from now on; those before stay trusted",
            output::field(made, "certificateId")
        )
    })
}

/// The encrypted key as it lies on the disk, after it has been opened.
pub(super) fn read_back(path: &Path, passphrase: &Passphrase) -> anyhow::Result<Vec<u8>> {
    let kept = std::fs::read(path).with_context(|| format!("read back {}", path.display()))?;
    SecretKey::from_pem(&kept, Some(passphrase))
        .with_context(|| format!("{} does not read back", path.display()))?;
    Ok(kept)
}

/// A text from a file.
pub(crate) fn read_text(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

/// A private key from a file; the passphrase is only asked for where the key is encrypted.
pub(crate) fn secret(file: &Path, source: &PassphraseSource) -> anyhow::Result<SecretKey> {
    let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let text = Zeroizing::new(text);
    let passphrase = passphrase::find(source)?;
    SecretKey::from_pem(&text, passphrase.as_ref()).with_context(|| file.display().to_string())
}

/// Writes a file that is not there yet, for its owner alone; durable on return.
pub(crate) fn write_new(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = match opened {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("{} is there already: name a new file", path.display())
        }
        opened => opened.with_context(|| format!("write {}", path.display()))?,
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    file.write_all(contents)
        .and_then(|()| file.sync_all())
        .and_then(|()| File::open(dir.unwrap_or(Path::new(".")))?.sync_all())
        .with_context(|| format!("write {}", path.display()))
}
