//! What runs where: which device runs which version, and how many do at a moment.

use std::time::UNIX_EPOCH;

use http::Method;
use ota::server::{Census, MAX_MOMENTS, Running, RunningFilter};
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

const DAY_SECONDS: u64 = 86_400;

pub(super) const LIST: Operation = Operation {
    name: "ListRunning",
    method: Method::GET,
    path: "/muster/v1/fleet/devices",
    least: Role::Viewer,
    query: &[
        "thing",
        "name",
        "version",
        "group",
        "hardware",
        "drift",
        "maxResults",
        "nextToken",
    ],
    undone: &[],
    run: Run::Plain(list),
};

/// At `at`, or now; with `days` also at each full day before that, so many.
pub(super) const COUNT: Operation = Operation {
    name: "CountRunning",
    method: Method::GET,
    path: "/muster/v1/fleet/versions",
    least: Role::Viewer,
    query: &["name", "group", "hardware", "at", "days"],
    undone: &[],
    run: Run::Plain(count),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    devices: Vec<Running>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn list(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let asked = call.page("")?;
    let filter = RunningFilter {
        thing: call.query("thing")?,
        name: call.query("name")?,
        version: call.query("version")?,
        group: call.query("group")?,
        hardware: call.query("hardware")?,
        drift: call.flag("drift")?,
    };
    let (devices, next) = rooms
        .ota
        .running(&filter, asked.after.as_deref(), asked.limit)?;
    Answer::json(&Listed {
        devices,
        next_token: asked.token(next),
    })
}

#[derive(Serialize)]
struct Counted {
    moments: Vec<Census>,
}

fn count(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let filter = RunningFilter {
        name: call.query("name")?,
        group: call.query("group")?,
        hardware: call.query("hardware")?,
        ..RunningFilter::default()
    };
    let now = call.now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at: u64 = call.query("at")?.unwrap_or(now.as_secs());
    let days: u64 = call.query("days")?.unwrap_or(0);
    if days >= MAX_MOMENTS as u64 {
        let most = MAX_MOMENTS - 1;
        return Err(ApiError::invalid(format!("days: at most {most}")));
    }
    let moments: Vec<u64> = (0..=days)
        .rev()
        .map(|day| at.saturating_sub(day * DAY_SECONDS))
        .collect();
    Answer::json(&Counted {
        moments: rooms.ota.census(&filter, &moments)?,
    })
}
