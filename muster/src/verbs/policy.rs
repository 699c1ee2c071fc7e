//! `muster policy …`.

use super::{client, output};
use crate::{
    cli::{Explain, Global, Policy, PolicyTarget},
    client::{Client, Refused, encode},
    config::policy_limits,
};
use anyhow::{Context as _, bail};
use http::Method;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

pub(super) fn run(global: &Global, verb: Policy) -> anyhow::Result<ExitCode> {
    match verb {
        Policy::Test {
            file,
            unresolved_deny,
        } => return test(global, &file, unresolved_deny.as_deref()),
        Policy::Lint {
            registered: true, ..
        } => return lint_registered(global),
        Policy::Lint {
            files,
            account,
            config,
            ..
        } => return lint(global, &files, account.as_deref(), config.as_deref()),
        Policy::Simulate(asked) => super::least::simulate(global, &asked)?,
        Policy::Suggest(asked) => super::least::suggest(global, &asked)?,
        Policy::Prove(claim) => return super::prove::run(global, &claim),
        Policy::Invariant(verb) => super::prove::invariant(global, verb)?,
        Policy::Create {
            name,
            file,
            keep_proofs,
        } => {
            let body = kept(document(&file)?, keep_proofs);
            let made = client(global)?.call(Method::POST, &path(&name), Some(&body));
            let made = told_of(&file, made)?;
            warn_of(&file, &body, &made)?;
            output::answer(global, &made, |_| format!("policy {name} made"))?;
        }
        Policy::Update {
            name,
            file,
            keep_proofs,
        } => {
            let body = kept(document(&file)?, keep_proofs);
            let changed = client(global)?.call(
                Method::PUT,
                &format!("/muster/v1{}", path(&name)),
                Some(&body),
            );
            let changed = told_of(&file, changed)?;
            warn_of(&file, &body, &changed)?;
            output::answer(global, &changed, |_| {
                format!("policy {name} changed; live sessions have been told")
            })?;
        }
        Policy::List => {
            let policies = client(global)?.pages("/policies?pageSize=250", "policies")?;
            let text = policies
                .iter()
                .map(|p| output::field(p, "policyName"))
                .collect::<Vec<_>>()
                .join("\n");
            output::answer(global, &json!({ "policies": policies }), |_| text)?;
        }
        Policy::Show { name } => {
            let policy = client(global)?.call(Method::GET, &path(&name), None)?;
            output::answer(global, &policy, |p| {
                output::field(p, "policyDocument").trim_end().to_owned()
            })?;
        }
        Policy::Delete { name, yes } => {
            output::confirm(yes, &format!("Delete policy {name}?"))?;
            let gone = client(global)?.call(Method::DELETE, &path(&name), None)?;
            output::answer(global, &gone, |_| format!("policy {name} deleted"))?;
        }
        Policy::Attach(target) => {
            each_target(global, &target, Method::PUT)?;
            report(global, &target, "attached to")?;
        }
        Policy::Detach(target) => {
            each_target(global, &target, Method::POST)?;
            report(global, &target, "detached from")?;
        }
        Policy::Explain(asked) => explain(global, *asked)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Why something is allowed or denied: now, as it would be, or as it was in the log.
fn explain(global: &Global, asked: Explain) -> anyhow::Result<()> {
    let client = client(global)?;
    let told = match (asked.denial, asked.device, asked.action) {
        (Some(id), ..) => {
            let path = format!("/muster/v1/denials/{}", encode(&id));
            client.call(Method::GET, &path, None)?
        }
        (None, Some(device), Some(action)) => {
            let mut body = json!({
                "thingName": device, "action": action, "clientId": asked.client_id, "at": asked.at,
                "certificate": asked.certificate,
                "sourceIp": asked.source_ip, "messageSize": asked.size, "qos": asked.qos,
                "retain": asked.retain.then_some(true), "listener": asked.listener,
                "tlsVersion": asked.tls_version, "domainName": asked.domain_name,
                "persistent": asked.persistent, "willTopic": asked.will_topic,
                "posture": {
                    "quarantined": asked.quarantined, "attested": asked.attested,
                    "firmwareName": asked.firmware, "firmwareVersion": asked.firmware_version,
                    "violationAge": asked.violation_age,
                },
            });
            if let (Some(topic), Some(fields)) = (asked.topic, body.as_object_mut()) {
                // Connecting is judged by the client id; the flag is the same.
                let connect = matches!(action.parse(), Ok(policy::Action::Connect));
                let field = if connect { "clientId" } else { "topic" };
                fields.insert(field.into(), topic.into());
            }
            client.call(Method::POST, "/muster/v1/policies/explain", Some(&body))?
        }
        _ => bail!("name --device and --action, or --denial"),
    };
    output::answer(global, &told, |told| output::field(told, "text").to_owned())
}

/// Warns of what is allowed by the language and seldom meant.
fn lint(
    global: &Global,
    files: &[PathBuf],
    account: Option<&str>,
    config: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let limits = config.map(policy_limits).transpose()?.unwrap_or_default();
    let (mut found, mut lines) = (Vec::new(), Vec::new());
    for file in files {
        let name = file.display();
        let text = document_text(file)?;
        let policy = limits
            .parse(&text)
            .with_context(|| format!("policy document {name}"))?;
        for finding in policy.lint_for(account) {
            lines.push(format!("{name}: {finding}"));
            found.push(json!({ "file": file, "finding": finding }));
        }
    }
    linted(global, &found, lines)
}

/// The same of what a server has.
fn lint_registered(global: &Global) -> anyhow::Result<ExitCode> {
    let client = client(global)?;
    let (mut found, mut lines) = (Vec::new(), Vec::new());
    for listed in client.pages("/policies?pageSize=250", "policies")? {
        let name = output::field(&listed, "policyName");
        let shown = client.call(Method::GET, &path(name), None)?;
        let text = output::field(&shown, "policyDocument");
        let policy = policy::Policy::parse_within(text, &policy::Limits::NONE)
            .with_context(|| format!("policy {name}"))?;
        for finding in policy.lint_for(account_of(&shown)) {
            lines.push(format!("policy {name}: {finding}"));
            found.push(json!({ "policy": name, "finding": finding }));
        }
    }
    linted(global, &found, lines)
}

fn linted(global: &Global, found: &[Value], mut lines: Vec<String>) -> anyhow::Result<ExitCode> {
    if lines.is_empty() {
        lines.push("nothing found".to_owned());
    }
    output::answer(global, &json!({ "findings": found }), |_| lines.join("\n"))?;
    Ok(if found.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The server's account, as a policy's ARN has it: `arn:aws:iot:REGION:ACCOUNT:policy/NAME`.
fn account_of(policy: &Value) -> Option<&str> {
    output::field(policy, "policyArn").split(':').nth(4)
}

fn test(global: &Global, file: &Path, unresolved_deny: Option<&str>) -> anyhow::Result<ExitCode> {
    let unresolved_deny = match unresolved_deny {
        None => None,
        Some("open") => Some(policy::UnresolvedDeny::Open),
        Some("closed") => Some(policy::UnresolvedDeny::Closed),
        Some(other) => bail!("--unresolved-deny {other}: open or closed"),
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let report = policy::vectors::run(&text, unresolved_deny)
        .with_context(|| format!("policy test file {}", file.display()))?;
    let (passed, total) = (report.passed, report.total);
    output::answer(
        global,
        &json!({ "passed": passed, "total": total, "report": report.to_string() }),
        |_| report.to_string().trim_end().to_owned(),
    )?;
    Ok(if passed == total {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What stands in a policy document.
pub(super) fn document_text(file: &Path) -> anyhow::Result<String> {
    let name = file.display();
    let bytes = std::fs::read(file).with_context(|| format!("read policy document {name}"))?;
    policy::Policy::text_of(bytes).with_context(|| format!("policy document {name}"))
}

/// Warns of what a document that was taken says and its author seldom means.
fn warn_of(file: &Path, body: &Value, made: &Value) -> anyhow::Result<()> {
    let text = output::field(body, "policyDocument");
    let policy = policy::Policy::parse_within(text, &policy::Limits::NONE)?;
    for finding in policy.lint_for(account_of(made)) {
        output::warn(&format!("{}: {finding}", file.display()))?;
    }
    Ok(())
}

/// Bytes of the longest body of a request that a server reads.
const BODY_MAX_BYTES: usize = 1024 * 1024;

/// What stands in a document that a server may take. It is the server that judges it; see [`told_of`].
pub(super) fn document(file: &Path) -> anyhow::Result<Value> {
    let text = document_text(file)?;
    let body = json!({ "policyDocument": text });
    let bytes = serde_json::to_vec(&body).context("request body")?.len();
    if bytes > BODY_MAX_BYTES {
        // No server reads so much, so none could say where it is too long: the bound is that of one with no other set.
        let name = file.display();
        policy::Policy::parse(&text).with_context(|| format!("policy document {name}"))?;
        bail!(
            "policy document {name}: {bytes} bytes as a request, of which a server reads at most {BODY_MAX_BYTES}"
        );
    }
    Ok(body)
}

/// Names the file in what a server says of the document in it.
pub(super) fn told_of(file: &Path, answer: anyhow::Result<Value>) -> anyhow::Result<Value> {
    answer.map_err(|error| {
        let refused = error.downcast_ref::<Refused>();
        if refused.is_some_and(|refused| refused.kind == "MalformedPolicyException") {
            return error.context(format!("policy document {}", file.display()));
        }
        error
    })
}

/// The body of a change that is refused where it breaks a declared invariant.
pub(super) fn kept(mut body: Value, keep_proofs: bool) -> Value {
    if let Some(fields) = body.as_object_mut().filter(|_| keep_proofs) {
        fields.insert("keepProofs".into(), true.into());
    }
    body
}

fn path(name: &str) -> String {
    format!("/policies/{}", encode(name))
}

/// A group is one target; a device is each of its certificates.
fn each_target(global: &Global, target: &PolicyTarget, method: Method) -> anyhow::Result<()> {
    let client = client(global)?;
    for arn in arns(&client, target)? {
        let path = format!("/target-policies/{}", encode(&target.name));
        let body = kept(json!({ "target": arn }), target.keep_proofs);
        client.call(method.clone(), &path, Some(&body))?;
    }
    Ok(())
}

fn arns(client: &Client, target: &PolicyTarget) -> anyhow::Result<Vec<String>> {
    if let Some(group) = &target.group {
        let found = client.call(
            Method::GET,
            &format!("/thing-groups/{}", encode(group)),
            None,
        )?;
        return Ok(vec![output::field(&found, "thingGroupArn").to_owned()]);
    }
    let device = target
        .device
        .as_deref()
        .context("name --device or --group")?;
    let found = client.pages(
        &format!("/things/{}/principals?maxResults=250", encode(device)),
        "principals",
    )?;
    let arns: Vec<String> = found
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    if arns.is_empty() {
        bail!(
            "device {device} has no certificate to attach a policy to: give it one with `muster device replace {device}`"
        );
    }
    Ok(arns)
}

fn report(global: &Global, target: &PolicyTarget, what: &str) -> anyhow::Result<()> {
    let (kind, name) = match (&target.group, &target.device) {
        (Some(group), _) => ("group", group),
        (None, Some(device)) => ("device", device),
        (None, None) => bail!("name --device or --group"),
    };
    let text = format!("policy {} {what} {kind} {name}", target.name);
    output::answer(
        global,
        &json!({ "policyName": target.name, kind: name }),
        |_| text,
    )
}
