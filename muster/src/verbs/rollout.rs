//! `muster rollout …`.

use super::{client, output, rollout_file};
use crate::{
    cli::{Global, Rollout},
    client::{Client, encode},
    printable::{cell, lines},
};
use anyhow::bail;
use http::Method;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    io::IsTerminal as _,
    process::ExitCode,
    time::{Duration, Instant},
};

/// How often `watch` asks the server.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Over how long `watch` takes the mean of the rate.
const RATE_OVER: Duration = Duration::from_secs(60);

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
        Rollout::Watch { id } => watch(global, &client, &id)?,
        Rollout::Export { id } => {
            let shown = client.call(Method::GET, &path(&id), None)?;
            output::line(&csv(&shown))?;
        }
        Rollout::Approve { id } => {
            act(global, &client, &id, "approve", "was approved by you")?;
        }
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

/// Draws in place on a terminal; elsewhere a line for each change. An error unless the rollout succeeds.
fn watch(global: &Global, client: &Client, id: &str) -> anyhow::Result<()> {
    let in_place = !global.json && std::io::stdout().is_terminal();
    let mut last = String::new();
    let mut pace = Pace::default();
    loop {
        let shown = client.call(Method::GET, &path(id), None)?;
        let pace = pace.note(Instant::now(), &shown);
        let text = if global.json {
            shown.to_string()
        } else if in_place {
            lines(&format!("{}\n  {pace}", drawn(&shown)))
        } else {
            told(&shown)
        };
        if text != last {
            if !global.json && !in_place {
                // The pace alone is no news.
                output::line(&cell(&format!("{text} | {pace}")))?;
            } else if in_place && !last.is_empty() {
                // Up to where the last picture began, and clear from there.
                output::line(&format!("\x1b[{}F\x1b[J{text}", last.lines().count()))?;
            } else {
                output::line(&text)?;
            }
            last = text;
        }
        match output::field(&shown, "state") {
            "succeeded" => return Ok(()),
            state @ ("aborted" | "rolled-back") => {
                let why = shown.get("reason").and_then(Value::as_str);
                let what = state.replace("rolled-back", "undone");
                bail!("the rollout was {what}: {}", why.unwrap_or("by hand"))
            }
            _ => {}
        }
        std::thread::sleep(WATCH_EVERY);
    }
}

/// How many devices came to an end lately, as far as this watch has seen.
#[derive(Default)]
struct Pace {
    seen: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// Takes in what is seen now; the rate and the time left at that rate, in words.
    fn note(&mut self, now: Instant, rollout: &Value) -> String {
        let waves = output::items(rollout, "waves");
        let all = |key: &str| waves.iter().map(|wave| count(wave, key)).sum::<u64>();
        let finished = all("succeeded") + all("failed");
        let left = all("total").saturating_sub(finished);
        // The newest of those that are old enough is where the mean begins.
        while (self.seen.get(1)).is_some_and(|(at, _)| now.duration_since(*at) >= RATE_OVER) {
            self.seen.pop_front();
        }
        self.seen.push_back((now, finished));
        let Some((since, before)) = self.seen.front().copied() else {
            return String::new();
        };
        let over = now.duration_since(since).as_secs().max(1);
        let done = finished.saturating_sub(before);
        let rate = done * 60 / over;
        match (left, done) {
            (0, _) => format!("{rate} devices a minute; none is left"),
            (left, 0) => format!("{left} devices left; none has finished in the last {over} s"),
            (left, done) => format!(
                "{rate} devices a minute; {left} left, {} at this rate (windows, soaks and approvals not counted)",
                for_people(left.saturating_mul(over) / done)
            ),
        }
    }
}

/// Seconds, as people say them.
fn for_people(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A wave per line with a bar, then why devices failed.
fn drawn(rollout: &Value) -> String {
    const BAR: usize = 30;
    let mut lines = vec![format!(
        "{} {} {}: {}{}",
        output::field(rollout, "id"),
        output::field(rollout, "name"),
        output::field(rollout, "version"),
        output::field(rollout, "state"),
        match output::field(rollout, "reason") {
            "" => String::new(),
            why => format!(" ({why})"),
        }
    )];
    for wave in output::items(rollout, "waves") {
        let part = |key: &str| match count(wave, "total") {
            0 => 0,
            total => {
                usize::try_from(count(wave, key)).unwrap_or(0) * BAR
                    / usize::try_from(total).unwrap_or(1).max(1)
            }
        };
        let (good, bad, busy) = (part("succeeded"), part("failed"), part("in_progress"));
        lines.push(format!(
            "  {:>12} [{}{}{}{}] {} of {}, {} failed, {} at it, {} queued: {}",
            output::field(wave, "name"),
            "#".repeat(good),
            "x".repeat(bad),
            "-".repeat(busy),
            " ".repeat(BAR.saturating_sub(good + bad + busy)),
            count(wave, "succeeded"),
            count(wave, "total"),
            count(wave, "failed"),
            count(wave, "in_progress"),
            count(wave, "queued"),
            output::field(wave, "state"),
        ));
    }
    lines.extend(back(rollout).map(|back| format!("  {back}")));
    lines.extend(failures(rollout).iter().map(|why| format!("  {why}")));
    lines.join("\n")
}

/// How the way back stands, where there is one.
fn back(rollout: &Value) -> Option<String> {
    let back = rollout.get("rollback")?;
    Some(format!(
        "way back: {} of {} done, {} failed, {} under way",
        count(back, "succeeded"),
        count(back, "total"),
        count(back, "failed"),
        count(back, "in_progress")
    ))
}

/// Why devices failed, and how many.
fn failures(rollout: &Value) -> Vec<String> {
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for execution in output::items(rollout, "executions") {
        let status = output::field(execution, "status");
        if matches!(status, "FAILED" | "TIMED_OUT" | "REJECTED") {
            let why = match output::field(execution, "reason") {
                "" => status,
                why => why,
            };
            *reasons.entry(why).or_default() += 1;
        }
    }
    let said = reasons.iter();
    said.map(|(why, times)| format!("{times} failed: {why}"))
        .collect()
}

/// One line of all that [`drawn`] says.
fn told(rollout: &Value) -> String {
    let mut parts = vec![waves(rollout)];
    parts.extend(back(rollout));
    parts.extend(failures(rollout));
    match output::field(rollout, "reason") {
        "" => {}
        why => parts.push(format!("reason: {why}")),
    }
    parts.join(" | ")
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
                let cells = COLUMNS.map(|key| quoted(&shown(execution, key)));
                cells.join(",")
            }),
    );
    lines.join("\r\n")
}

fn count(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn path(id: &str) -> String {
    format!("/muster/v1/rollouts/{}", encode(id))
}

/// One line: the state, then each wave's counts.
fn waves(rollout: &Value) -> String {
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
    fn pictures_tables_and_csv_say_what_is_there() {
        let rollout = json!({
            "id": "r-1", "name": "lamp", "version": "2.0", "state": "running", "reason": null,
            "waves": [{"name": "50%", "state": "running", "total": 2, "succeeded": 1, "failed": 1, "in_progress": 0, "queued": 0}],
            "executions": [
                {"thing": "a", "wave": "50%", "status": "SUCCEEDED", "version": "2.0", "reason": null, "told_at": 60},
                {"thing": "b", "wave": "50%", "status": "FAILED", "version": "1.0", "attempt": 2, "reason": "said \"no\", twice", "details": {"step": "trial"}},
            ],
        });
        let picture = drawn(&rollout);
        assert!(
            picture.contains(&format!("[{}{}]", "#".repeat(15), "x".repeat(15))),
            "{picture}"
        );
        assert!(
            picture.contains("1 failed: said \"no\", twice"),
            "{picture}"
        );
        assert_eq!(
            told(&rollout),
            "running | 50%: 1 of 2 done, 1 failed, 0 under way | 1 failed: said \"no\", twice"
        );
        let mut undone = rollout.clone();
        undone["reason"] = "1 of 2 failed".into();
        undone["rollback"] = json!({"total": 1, "succeeded": 0, "failed": 1, "in_progress": 0});
        let line = told(&undone);
        assert!(
            line.contains("way back: 0 of 1 done, 1 failed")
                && line.ends_with("reason: 1 of 2 failed")
        );
        assert!(drawn(&undone).contains("way back: 0 of 1 done, 1 failed"));
        assert_eq!(
            csv(&rollout),
            concat!(
                "thing,wave,status,version,reported,attempt,told_at,began_at,ended_at,reason,rollback,rollback_reason,details\r\n",
                r#""a","50%","SUCCEEDED","2.0","","","1970-01-01T00:01:00Z","","","","","","""#,
                "\r\n",
                r#""b","50%","FAILED","1.0","","2","","","","said ""no"", twice","","","{""step"":""trial""}""#
            )
        );
        let seen = |succeeded: u64| json!({"waves": [{"total": 100, "succeeded": succeeded, "failed": 1}]});
        let (mut pace, start) = (Pace::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(
            pace.note(start, &seen(9)),
            "90 devices left; none has finished in the last 1 s"
        );
        let said = pace.note(at(30), &seen(19));
        assert!(
            said.starts_with("20 devices a minute; 80 left, 4 min at this rate"),
            "{said}"
        );
        // What is older than a minute no longer counts.
        pace.note(at(60), &seen(19));
        let said = pace.note(at(95), &seen(29));
        assert!(said.starts_with("9 devices a minute; 70 left"), "{said}");
        assert!(pace.note(at(96), &seen(99)).ends_with("none is left"));
        let plan = json!({"waves": [{"name": "50%", "total": 1, "needs_approval": true, "first_at": 60, "last_at": null,
            "things": [{"thing": "a", "at": 60}]}]});
        let text = forecast(&plan);
        assert!(
            text.contains("from 1970-01-01T00:01:00Z to not in sight, once approved"),
            "{text}"
        );
    }
}
