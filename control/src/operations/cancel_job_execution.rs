use std::collections::BTreeMap;

use fleet::ThingName;
use http::Method;
use ota::JobId;
use serde::Deserialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CancelJobExecution",
    method: Method::PUT,
    path: "/things/{thingName}/jobs/{jobId}/cancel",
    least: Role::Operator,
    query: &["force"],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    expected_version: Option<u64>,
    status_details: Option<BTreeMap<String, String>>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing: ThingName = call.path("thingName")?;
    let id: JobId = call.path("jobId")?;
    let force = call.flag("force")?;
    let body: Body = call.body()?;
    let (version, details) = (body.expected_version, body.status_details);
    rooms
        .ota
        .cancel_execution(&id, thing.as_str(), force, version, details, call.now)?;
    Answer::nothing()
}
