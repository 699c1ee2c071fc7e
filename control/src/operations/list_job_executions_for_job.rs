use fleet::ThingName;
use http::Method;
use ota::server::Execution;
use ota::{ExecutionStatus, JobId};
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListJobExecutionsForJob",
    method: Method::GET,
    path: "/jobs/{jobId}/things",
    least: Role::Viewer,
    query: &["status", "maxResults", "nextToken"],
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
    thing_arn: String,
    job_execution_summary: Summary,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    status: ExecutionStatus,
    queued_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<u64>,
    last_updated_at: u64,
    execution_number: u64,
    retry_attempt: u64,
}

impl Summary {
    pub(super) fn of(execution: &Execution) -> Self {
        Self {
            status: execution.status,
            queued_at: execution.queued_at,
            started_at: execution.started_at,
            last_updated_at: execution.last_updated_at,
            execution_number: execution.number,
            retry_attempt: execution.number.saturating_sub(1),
        }
    }
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: JobId = call.path("jobId")?;
    let status: Option<String> = call.query("status")?;
    let status = status.as_deref().map(read_status).transpose()?;
    let asked = call.page(&id.to_string())?;
    let page = rooms
        .ota
        .job_executions(&id, status, asked.after.as_deref(), asked.limit)?;
    let arns = call.arns(rooms);
    let mut execution_summaries = Vec::with_capacity(page.executions.len());
    for execution in page.executions {
        let thing: ThingName = execution
            .thing
            .parse()
            .map_err(|error| ApiError::internal(&error))?;
        execution_summaries.push(Item {
            thing_arn: arns.thing(&thing),
            job_execution_summary: Summary::of(&execution),
        });
    }
    Answer::json(&Output {
        execution_summaries,
        next_token: asked.token(page.next),
    })
}

pub(super) fn read_status(text: &str) -> Result<ExecutionStatus, ApiError> {
    let word = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
    ExecutionStatus::deserialize(word)
        .map_err(|error| ApiError::invalid(format!("status: {error}")))
}
