use http::Method;
use ota::JobId;
use serde::Deserialize;

use super::create_job::JobRef;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CancelJob",
    method: Method::PUT,
    path: "/jobs/{jobId}/cancel",
    least: Role::Operator,
    query: &["force"],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    reason_code: Option<String>,
    comment: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: JobId = call.path("jobId")?;
    let force = call.flag("force")?;
    let body: Body = call.body()?;
    let job = rooms
        .ota
        .cancel_job(&id, force, body.reason_code, body.comment, call.now)?;
    Answer::json(&JobRef {
        job_arn: call.arns(rooms).job(&id),
        job_id: id.to_string(),
        description: job.description,
    })
}
