use std::collections::BTreeMap;

use fleet::ThingName;
use http::Method;
use ota::{ExecutionStatus, JobId};
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DescribeJobExecution",
    method: Method::GET,
    path: "/things/{thingName}/jobs/{jobId}",
    least: Role::Viewer,
    query: &["executionNumber"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
struct Output {
    execution: Execution,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Execution {
    job_id: String,
    status: ExecutionStatus,
    force_canceled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_details: Option<StatusDetails>,
    thing_arn: String,
    queued_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<u64>,
    last_updated_at: u64,
    execution_number: u64,
    version_number: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusDetails {
    details_map: BTreeMap<String, String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing: ThingName = call.path("thingName")?;
    let id: JobId = call.path("jobId")?;
    let number: Option<u64> = call.query("executionNumber")?;
    let execution = rooms.ota.job_try(&id, thing.as_str(), number)?;
    Answer::json(&Output {
        execution: Execution {
            job_id: id.to_string(),
            status: execution.status,
            force_canceled: execution.force_canceled,
            status_details: execution
                .details
                .map(|details_map| StatusDetails { details_map }),
            thing_arn: call.arns(rooms).thing(&thing),
            queued_at: execution.queued_at,
            started_at: execution.started_at,
            last_updated_at: execution.last_updated_at,
            execution_number: execution.number,
            version_number: execution.version_number,
        },
    })
}
