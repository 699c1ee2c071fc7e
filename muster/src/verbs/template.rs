//! `muster template …`.

use super::{client, output};
use crate::{
    cli::{Global, Template, TemplateCreate, TemplateHook, TemplateUpdate},
    client::{Client, encode},
};
use anyhow::{Context as _, bail};
use http::Method;
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::ExitCode,
};

/// Values of an allow list sent in one request; the server's own bound.
const VALUES_PER_REQUEST: usize = 1_000;
/// What AWS's API wants and nothing here is decided by.
const ROLE: &str = "arn:aws:iam::000000000000:role/unused";

pub(super) fn run(global: &Global, verb: Template) -> anyhow::Result<ExitCode> {
    match verb {
        Template::Create(create) => self::create(global, create)?,
        Template::List => {
            let list = "/provisioning-templates?maxResults=250";
            let templates = client(global)?.pages(list, "templates")?;
            let rows: Vec<Vec<String>> = templates.iter().map(row).collect();
            output::answer(global, &json!({ "templates": templates }), |_| {
                output::table(&["template", "state"], &rows)
            })?;
        }
        Template::Show { name } => {
            let template = client(global)?.call(Method::GET, &path(&name), None)?;
            output::answer(global, &template, described)?;
        }
        Template::Update(update) => self::update(global, update)?,
        Template::Allow { name, file } => allow(global, &name, &file, "add")?,
        Template::Disallow { name, file } => allow(global, &name, &file, "remove")?,
        Template::Delete { name, yes } => {
            output::confirm(
                yes,
                &format!("Delete template {name}? Its claims can do nothing any more."),
            )?;
            let client = client(global)?;
            drop_old_versions(&client, &name)?;
            let gone = client.call(Method::DELETE, &path(&name), None)?;
            output::answer(global, &gone, |_| format!("template {name} deleted"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(global: &Global, create: TemplateCreate) -> anyhow::Result<()> {
    let TemplateCreate {
        name,
        file,
        description,
        disabled,
        hook,
    } = create;
    let mut body = json!({
        "templateName": name,
        "templateBody": read(&file)?,
        "provisioningRoleArn": ROLE,
        // With a hook it is switched on once the hook is complete.
        "enabled": !disabled && hook.is_none(),
    });
    if let (Some(text), Some(fields)) = (description, body.as_object_mut()) {
        fields.insert("description".into(), text.into());
    }
    let client = client(global)?;
    let made = client.call(Method::POST, "/provisioning-templates", Some(&body))?;
    if !hook.is_none() {
        set_hook(&client, &name, &hook)?;
        if !disabled {
            client.call(
                Method::PATCH,
                &path(&name),
                Some(&json!({ "enabled": true })),
            )?;
        }
    }
    output::answer(global, &made, |_| {
        format!("template {name} made; next: muster claim create --template {name}")
    })
}

fn update(global: &Global, update: TemplateUpdate) -> anyhow::Result<()> {
    let TemplateUpdate {
        name,
        file,
        enable,
        disable,
        no_hook,
        hook,
    } = update;
    if file.is_none() && !enable && !disable && !no_hook && hook.is_none() {
        bail!("nothing to change: name a FILE, or --enable, --disable, --hook, --no-hook");
    }
    let client = client(global)?;
    if disable || no_hook {
        let mut change = json!({ "removePreProvisioningHook": no_hook });
        if let (true, Some(fields)) = (disable, change.as_object_mut()) {
            fields.insert("enabled".into(), false.into());
        }
        client.call(Method::PATCH, &path(&name), Some(&change))?;
    }
    if let Some(file) = file {
        let body = json!({ "templateBody": read(&file)? });
        client.call(Method::PUT, &own_path(&name), Some(&body))?;
    }
    if !hook.is_none() {
        set_hook(&client, &name, &hook)?;
    }
    if enable {
        client.call(
            Method::PATCH,
            &path(&name),
            Some(&json!({ "enabled": true })),
        )?;
    }
    let now = client.call(Method::GET, &path(&name), None)?;
    output::answer(global, &now, described)
}

fn set_hook(client: &Client, name: &str, hook: &TemplateHook) -> anyhow::Result<()> {
    if let Some(list) = &hook.allow_list {
        send_values(client, name, list, "add")?;
    }
    let target = match (&hook.hook, &hook.allow_parameter) {
        (Some(url), _) => url.clone(),
        (None, Some(parameter)) => format!("allow-list:{parameter}"),
        (None, None) => return Ok(()),
    };
    let mut body = json!({ "hook": target });
    if let (Some(file), Some(fields)) = (&hook.hook_root, body.as_object_mut()) {
        fields.insert("hookRootsPem".into(), read(file)?.into());
    }
    client.call(Method::PUT, &own_path(name), Some(&body))?;
    Ok(())
}

impl TemplateHook {
    fn is_none(&self) -> bool {
        self.hook.is_none() && self.allow_parameter.is_none()
    }
}

fn allow(global: &Global, name: &str, file: &Path, what: &str) -> anyhow::Result<()> {
    let count = send_values(&client(global)?, name, file, what)?;
    output::answer(global, &json!({ "values": count }), |_| match what {
        "add" => format!("{count} values stand on the allow list of {name}"),
        _ => format!("{count} values are off the allow list of {name}"),
    })
}

/// Sends a file's lines in parts; each part is on the list, or not, as a whole.
fn send_values(client: &Client, name: &str, file: &Path, what: &str) -> anyhow::Result<usize> {
    let open = std::fs::File::open(file).with_context(|| format!("read {}", file.display()))?;
    let path = format!("{}/allow-list", own_path(name));
    let (mut part, mut count) = (Vec::new(), 0);
    let send = |part: &mut Vec<String>| -> anyhow::Result<()> {
        if !part.is_empty() {
            client.call(Method::POST, &path, Some(&json!({ what: part })))?;
            part.clear();
        }
        Ok(())
    };
    for line in BufReader::new(open).lines() {
        let line = line.with_context(|| format!("read {}", file.display()))?;
        if line.trim().is_empty() {
            continue;
        }
        count += 1;
        part.push(line.trim().to_owned());
        if part.len() == VALUES_PER_REQUEST {
            send(&mut part)?;
        }
    }
    send(&mut part)?;
    Ok(count)
}

/// AWS wants every version but the default one gone before the template goes.
fn drop_old_versions(client: &Client, name: &str) -> anyhow::Result<()> {
    let versions = client.pages(
        &format!("{}/versions?maxResults=250", path(name)),
        "versions",
    )?;
    for version in versions {
        if version.get("isDefaultVersion") != Some(&Value::Bool(true))
            && let Some(number) = version.get("versionId").and_then(Value::as_u64)
        {
            let path = format!("{}/versions/{number}", path(name));
            client.call(Method::DELETE, &path, None)?;
        }
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

fn path(name: &str) -> String {
    format!("/provisioning-templates/{}", encode(name))
}

fn own_path(name: &str) -> String {
    format!("/muster/v1/templates/{}", encode(name))
}

fn state(template: &Value) -> &'static str {
    match template.get("enabled") {
        Some(Value::Bool(true)) => "enabled",
        _ => "disabled",
    }
}

fn row(template: &Value) -> Vec<String> {
    vec![
        output::field(template, "templateName").to_owned(),
        state(template).to_owned(),
    ]
}

fn described(template: &Value) -> String {
    let hook = template.get("preProvisioningHook");
    let mut lines = vec![format!(
        "template {} ({})",
        output::field(template, "templateName"),
        state(template)
    )];
    lines.extend(hook.map(|hook| format!("hook: {}", output::field(hook, "targetArn"))));
    lines.push(output::field(template, "templateBody").to_owned());
    lines.join("\n")
}
