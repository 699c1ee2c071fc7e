use fleet::ThingName;
use http::Method;
use ota::server::WhichExecutions;
use serde::Serialize;

use super::list_job_executions_for_job::{Summary, read_status};
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListJobExecutionsForThing",
    method: Method::GET,
    path: "/things/{thingName}/jobs",
    least: Role::Viewer,
    query: &["status", "jobId", "namespaceId", "maxResults", "nextToken"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    execution_summaries: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    job_id: String,
    job_execution_summary: Summary,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing: ThingName = call.path("thingName")?;
    rooms.fleet.thing(&thing)?;
    let status: Option<String> = call.query("status")?;
    let status = status.as_deref().map(read_status).transpose()?;
    let asked = call.page(thing.as_str())?;
    let which = WhichExecutions {
        status,
        job: call.query("jobId")?,
        namespace: call.query("namespaceId")?,
    };
    let after = asked.after.as_deref();
    let wanted = |execution: &ota::server::Execution| which.has(execution);
    let page = rooms
        .ota
        .thing_executions(thing.as_str(), &wanted, after, asked.limit)?;
    let item = |execution: &ota::server::Execution| Item {
        job_id: execution.job.to_string(),
        job_execution_summary: Summary::of(execution),
    };
    Answer::json(&Output {
        execution_summaries: page.executions.iter().map(item).collect(),
        next_token: asked.token(page.next),
    })
}
