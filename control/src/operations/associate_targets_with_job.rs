use http::Method;
use ota::JobId;
use serde::Deserialize;

use super::create_job::{JobRef, check_targets};
use super::namespace;
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
    query: &["namespaceId"],
    undone: &[],
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
    namespace::check(rooms, call, &id)?;
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
