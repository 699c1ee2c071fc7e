//! `muster rollout …`.

use super::{client, output};
use crate::{
    cli::{Global, Rollout},
    client::{Client, encode},
};
use anyhow::Context as _;
use http::Method;
use serde_json::{Value, json};
use std::{process::ExitCode, time::Duration};

/// How often `watch` asks the server.
const WATCH_EVERY: Duration = Duration::from_secs(1);

pub(super) fn run(global: &Global, verb: Rollout) -> anyhow::Result<ExitCode> {
    let client = client(global)?;
    match verb {
        Rollout::Start {
            name,
            version,
            group,
            waves,
            abort_failed,
            abort_min,
            timeout,
            start,
        } => {
            let mut body = json!({ "name": name, "version": version, "group": group });
            let mut set = |key: &str, value: Option<Value>| {
                if let (Some(value), Some(fields)) = (value, body.as_object_mut()) {
                    fields.insert(key.to_owned(), value);
                }
            };
            set("waves", (!waves.is_empty()).then(|| json!(waves)));
            set("abortFailed", abort_failed.map(Value::from));
            set("abortMin", abort_min.map(Value::from));
            set(
                "timeoutMinutes",
                timeout
                    .as_deref()
                    .map(minutes)
                    .transpose()?
                    .map(Value::from),
            );
            set(
                "startAt",
                start.as_deref().map(moment).transpose()?.map(Value::from),
            );
            let started = client.call(Method::POST, "/muster/v1/rollouts", Some(&body))?;
            output::answer(global, &started, |started| {
                let id = output::field(started, "id");
                format!(
                    "rollout {id} of {name} {version} to group {group} has started; follow it with `muster rollout watch {id}`"
                )
            })?;
        }
        Rollout::List => {
            let rollouts = client.pages("/muster/v1/rollouts?maxResults=250", "rollouts")?;
            let rows: Vec<Vec<String>> = rollouts
                .iter()
                .map(|r| {
                    ["id", "name", "version", "group", "state"]
                        .map(|key| output::field(r, key).to_owned())
                        .to_vec()
                })
                .collect();
            output::answer(global, &json!({ "rollouts": rollouts }), |_| {
                output::table(&["id", "firmware", "version", "group", "state"], &rows)
            })?;
        }
        Rollout::Show { id } => {
            let shown = client.call(Method::GET, &path(&id), None)?;
            output::answer(global, &shown, described)?;
        }
        Rollout::Watch { id } => watch(global, &client, &id)?,
        Rollout::Pause { id } => act(global, &client, &id, "pause", "paused")?,
        Rollout::Resume { id } => act(global, &client, &id, "resume", "goes on")?,
        Rollout::Abort { id, yes } => {
            output::confirm(
                yes,
                &format!(
                    "Stop rollout {id}? Devices that took it keep it; `muster rollout rollback` sends them back."
                ),
            )?;
            act(
                global,
                &client,
                &id,
                "abort",
                "has stopped; devices that took it keep it",
            )?;
        }
        Rollout::Rollback { id, yes } => {
            output::confirm(
                yes,
                &format!("Send every device that rollout {id} changed back to the version it had?"),
            )?;
            act(global, &client, &id, "rollback", "is being undone")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn act(global: &Global, client: &Client, id: &str, what: &str, done: &str) -> anyhow::Result<()> {
    let answer = client.call(
        Method::POST,
        &format!("{}/{what}", path(id)),
        Some(&json!({})),
    )?;
    output::answer(global, &answer, |_| format!("rollout {id} {done}"))
}

fn watch(global: &Global, client: &Client, id: &str) -> anyhow::Result<()> {
    let mut last = String::new();
    loop {
        let shown = client.call(Method::GET, &path(id), None)?;
        let text = if global.json {
            shown.to_string()
        } else {
            waves(&shown)
        };
        if text != last {
            output::line(&text)?;
            last = text;
        }
        if matches!(
            output::field(&shown, "state"),
            "succeeded" | "rolled-back" | "aborted"
        ) {
            return Ok(());
        }
        std::thread::sleep(WATCH_EVERY);
    }
}

fn minutes(text: &str) -> anyhow::Result<i64> {
    let duration: jiff::SignedDuration = text
        .parse()
        .with_context(|| format!("--timeout {text:?}: write it as 90m or 2h"))?;
    Ok(duration.as_mins())
}

fn moment(text: &str) -> anyhow::Result<i64> {
    let moment: jiff::Timestamp = text
        .parse()
        .with_context(|| format!("--start {text:?}: write it as 2027-01-31T12:00:00Z"))?;
    Ok(moment.as_second())
}

fn path(id: &str) -> String {
    format!("/muster/v1/rollouts/{}", encode(id))
}

/// One line: the state, then each wave's counts.
fn waves(rollout: &Value) -> String {
    let count = |wave: &Value, key: &str| wave.get(key).and_then(Value::as_u64).unwrap_or(0);
    let mut parts = vec![output::field(rollout, "state").to_owned()];
    parts.extend(output::items(rollout, "waves").iter().map(|wave| {
        format!(
            "{}: {} of {} done, {} failed, {} under way",
            output::field(wave, "name"),
            count(wave, "succeeded"),
            count(wave, "total"),
            count(wave, "failed"),
            count(wave, "in_progress")
        )
    }));
    parts.join(" | ")
}

fn described(rollout: &Value) -> String {
    let text = |value: &Value, key: &str| match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let rows: Vec<Vec<String>> = output::items(rollout, "executions")
        .iter()
        .map(|e| {
            ["thing", "wave", "status", "version", "reason"]
                .map(|key| text(e, key))
                .to_vec()
        })
        .collect();
    format!(
        "{}\n{}",
        waves(rollout),
        output::table(&["device", "wave", "status", "version", "reason"], &rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_or_refused_by_name() {
        assert_eq!(minutes("2h").unwrap(), 120);
        assert_eq!(moment("1970-01-01T00:01:00Z").unwrap(), 60);
        assert!(
            minutes("soon")
                .unwrap_err()
                .to_string()
                .contains("--timeout")
        );
        assert!(moment("noon").unwrap_err().to_string().contains("--start"));
    }
}
