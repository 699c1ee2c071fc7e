//! `muster rollout …`.

use super::{client, output, rollout_file, rollout_watch};
use crate::{
    cli::{Global, Rollout},
    client::{Client, encode},
    printable::cell,
};
use http::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

pub(super) fn run(global: &Global, verb: Rollout) -> anyhow::Result<ExitCode> {
    let client = client(global)?;
    match verb {
        Rollout::Start(asked) => {
            let body = rollout_file::request(&asked)?;
            let answer = client.call(Method::POST, "/muster/v1/rollouts", Some(&body))?;
            if let Some(left_out) = rollout_file::left_out(&body) {
                output::warn(&left_out)?;
            }
            for warning in output::items(&answer, "warnings") {
                output::warn(warning.as_str().unwrap_or_default())?;
            }
            output::answer(global, &answer, |answer| {
                if asked.dry_run {
                    return forecast(answer);
                }
                let id = output::field(answer, "id");
                format!(
                    "rollout {id} of {} {} to group {} has started; follow it with `muster rollout watch {id}`",
                    output::field(&body, "name"),
                    output::field(&body, "version"),
                    output::field(&body, "group"),
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
        Rollout::Watch { id } => return rollout_watch::run(global, client, &id),
        Rollout::Export { id } => {
            let shown = client.call(Method::GET, &path(&id), None)?;
            output::line(&csv(&shown))?;
        }
        Rollout::Approve { id, wave } => approve(global, &client, &id, wave)?,
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
                "has stopped; devices that took it keep it, and those that it had taken from an older rollout before they began are told of that again",
            )?;
        }
        Rollout::Rollback { id, yes, forward } => {
            let (question, done) = if forward {
                let question = format!(
                    "Send the devices that went back from rollout {id} forward to its version again?"
                );
                (question, "goes out again")
            } else {
                let question = format!(
                    "Send every device that rollout {id} changed back to the version it had?"
                );
                (question, "is being undone")
            };
            output::confirm(yes, &question)?;
            let path = format!("{}/rollback", path(&id));
            let body = json!({ "forward": forward });
            let answer = client.call(Method::POST, &path, Some(&body))?;
            output::answer(global, &answer, |_| format!("rollout {id} {done}"))?;
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

/// Says which wave is meant, so that saying it twice approves no other.
fn approve(global: &Global, client: &Client, id: &str, wave: Option<String>) -> anyhow::Result<()> {
    let waits = |wave: &&Value| output::field(wave, "state") == "waiting";
    let meant = match wave {
        Some(wave) => Some(wave),
        None => {
            let shown = client.call(Method::GET, &outline(id), None)?;
            let next = output::items(&shown, "waves").iter().find(waits);
            next.map(|wave| output::field(wave, "name").to_owned())
        }
    };
    let path = format!("{}/approve", path(id));
    let answer = client.call(Method::POST, &path, Some(&json!({ "wave": meant })))?;
    let wave = meant.map_or_else(String::new, |wave| format!("wave {wave} of "));
    output::answer(global, &answer, |_| {
        format!("{wave}rollout {id} was approved by you")
    })
}

/// Who would get it and when.
fn forecast(forecast: &Value) -> String {
    let when = |value: &Value, key: &str| {
        let at = value.get(key).and_then(Value::as_i64);
        let at = at.and_then(|at| jiff::Timestamp::from_second(at).ok());
        at.map_or_else(|| "not in sight".to_owned(), |at| at.to_string())
    };
    let mut parts = vec!["nothing was started; at the earliest it would go so:".to_owned()];
    for wave in output::items(forecast, "waves") {
        let approval = wave.get("needs_approval").and_then(Value::as_bool) == Some(true);
        parts.push(format!(
            "wave {}: {} devices, from {} to {}{}",
            output::field(wave, "name"),
            count(wave, "total"),
            when(wave, "first_at"),
            when(wave, "last_at"),
            if approval { ", once approved" } else { "" }
        ));
        let rows: Vec<Vec<String>> = output::items(wave, "things")
            .iter()
            .map(|thing| vec![output::field(thing, "thing").to_owned(), when(thing, "at")])
            .collect();
        parts.push(output::table(&["device", "not before"], &rows));
    }
    parts.join("\n")
}

/// A cell that devices write is no formula, whatever a spreadsheet makes of its first character.
fn inert(column: &str, text: String) -> String {
    let theirs = matches!(
        column,
        "reported" | "reason" | "rollback_reason" | "details"
    );
    if theirs && text.starts_with(['=', '+', '-', '@']) {
        format!("'{text}")
    } else {
        text
    }
}

/// The executions as CSV (RFC 4180).
fn csv(rollout: &Value) -> String {
    const COLUMNS: [&str; 13] = [
        "thing",
        "wave",
        "status",
        "version",
        "reported",
        "attempt",
        "told_at",
        "began_at",
        "ended_at",
        "reason",
        "rollback",
        "rollback_reason",
        // What the device said beside the reason, as JSON.
        "details",
    ];
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let shown = |execution: &Value, key: &str| match execution.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => cell(text),
        Some(at) if key.ends_with("_at") => at
            .as_i64()
            .and_then(|at| jiff::Timestamp::from_second(at).ok())
            .map_or_else(String::new, |at| at.to_string()),
        Some(other) => other.to_string(),
    };
    let mut lines = vec![COLUMNS.join(",")];
    lines.extend(
        output::items(rollout, "executions")
            .iter()
            .map(|execution| {
                let cells = COLUMNS.map(|key| quoted(&inert(key, shown(execution, key))));
                cells.join(",")
            }),
    );
    lines.join("\r\n")
}

pub(super) fn count(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

pub(super) fn path(id: &str) -> String {
    format!("/muster/v1/rollouts/{}", encode(id))
}

/// Where it is shown without its devices.
pub(super) fn outline(id: &str) -> String {
    format!("{}?executions=false", path(id))
}

/// One line: the state, then each wave's counts.
pub(super) fn waves(rollout: &Value) -> String {
    let mut parts = vec![output::field(rollout, "state").to_owned()];
    parts.extend(withheld(rollout));
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

/// That nobody is told of it now, and why.
pub(super) fn withheld(rollout: &Value) -> Option<String> {
    let why = rollout.get("withheld")?.as_str()?;
    Some(format!("nobody is told of it now: {why}"))
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
            let mut row = ["thing", "wave", "status", "version", "reason"].map(|key| text(e, key));
            if let (Some(says), [.., version, _]) = (e.get("reported"), &mut row) {
                *version = format!("{version} (says {})", says.as_str().unwrap_or_default());
            }
            row.to_vec()
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
    fn csv_and_forecasts_say_what_is_there() {
        let rollout = json!({
            "executions": [
                {"thing": "a", "wave": "50%", "status": "SUCCEEDED", "version": "2.0", "reason": null, "told_at": 60},
                {"thing": "b", "wave": "50%", "status": "FAILED", "version": "1.0", "attempt": 2, "reason": "said \"no\", twice", "details": {"step": "trial"}},
            ],
        });
        assert_eq!(
            csv(&rollout),
            concat!(
                "thing,wave,status,version,reported,attempt,told_at,began_at,ended_at,reason,rollback,rollback_reason,details\r\n",
                r#""a","50%","SUCCEEDED","2.0","","","1970-01-01T00:01:00Z","","","","","","""#,
                "\r\n",
                r#""b","50%","FAILED","1.0","","2","","","","said ""no"", twice","","","{""step"":""trial""}""#
            )
        );
        let plan = json!({"waves": [{"name": "50%", "total": 1, "needs_approval": true, "first_at": 60, "last_at": null,
            "things": [{"thing": "a", "at": 60}]}]});
        let text = forecast(&plan);
        assert!(
            text.contains("from 1970-01-01T00:01:00Z to not in sight, once approved"),
            "{text}"
        );
    }

    #[test]
    fn what_a_device_writes_is_no_formula_in_a_spreadsheet() {
        for first in ['=', '+', '-', '@'] {
            let said = format!("{first}HYPERLINK(1)");
            let rollout = json!({"executions": [
                {"thing": "-a", "reason": said, "rollback_reason": said, "reported": said, "version": "1.0"},
            ]});
            let csv = csv(&rollout);
            assert_eq!(csv.matches(&format!("\"'{said}\"")).count(), 3, "{csv}");
            assert!(csv.contains("\r\n\"-a\","), "{csv}");
        }
    }
}
