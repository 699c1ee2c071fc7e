use fleet::{ThingName, Violation};
use http::Method;
use serde::{Deserialize, Serialize};

use super::{moment, words};
use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Notes that a device did what no sound device does, as an operator's monitor saw it: policies ask for it by
/// `muster:LastViolationAge`.
pub(super) const OPERATION: Operation = Operation {
    name: "NoteViolation",
    method: Method::PUT,
    path: "/muster/v1/devices/{thingName}/violation",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    reason: String,
    /// When it was; now where it is left out.
    at: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_name: ThingName,
    /// The last that is known: a later one than this request's, where there is one.
    last_violation: EpochSeconds,
    reason: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing_name: ThingName = call.path("thingName")?;
    let body: Body = call.body()?;
    words::check("reason", &body.reason)?;
    let at = match &body.at {
        None => call.now,
        Some(text) => moment::read("at", text)?,
    };
    if at > call.now {
        return Err(ApiError::invalid(format!(
            "at: {:?} is still to come by this server's clock",
            body.at.unwrap_or_default()
        )));
    }
    let violation = Violation {
        at,
        reason: body.reason,
        seen: false,
    };
    let last = rooms.fleet.set_violation(&thing_name, &violation)?;
    Answer::json(&Output {
        thing_name,
        last_violation: EpochSeconds(last.at),
        reason: last.reason,
    })
}
