use http::Method;
use ota::JobId;
use serde::Deserialize;

use super::create_job::{JobRef, check_targets};
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "AssociateTargetsWithJob",
    method: Method::POST,
    path: "/jobs/{jobId}/targets",
    least: Role::Operator,
    query: &[],
    undone: &["namespaceId"],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    targets: Vec<String>,
    comment: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: JobId = call.path("jobId")?;
    let body: Body = call.body()?;
    let arns = call.arns(rooms);
    check_targets(arns, &body.targets)?;
    let job = rooms
        .ota
        .associate_targets(&id, &body.targets, body.comment, call.now)?;
    Answer::json(&JobRef {
        job_arn: arns.job(&id),
        job_id: id.to_string(),
        description: job.description,
    })
}
