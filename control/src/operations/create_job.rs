use http::Method;
use ota::JobId;
use ota::server::CreateJob;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::arn::Arns;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreateJob",
    method: Method::PUT,
    path: "/jobs/{jobId}",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

/// What making and cancelling a job answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobRef {
    pub(super) job_arn: String,
    pub(super) job_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
}

/// Targets are ARNs of this account's things and groups.
pub(super) fn check_targets(arns: Arns<'_>, targets: &[String]) -> Result<(), ApiError> {
    for target in targets {
        let ("thing" | "thinggroup", _) = arns.read(target)? else {
            return Err(ApiError::invalid(format!(
                "a job's target is a thing or a thing group, not \"{target}\""
            )));
        };
    }
    Ok(())
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: JobId = call.path("jobId")?;
    let body: CreateJob = call.body()?;
    let arns = call.arns(rooms);
    check_targets(arns, &body.targets)?;
    let arn = arns.job(&id);
    let job = match rooms.ota.create_job(&id, &body, call.now) {
        Ok(job) => job,
        Err(error @ ota::Error::AlreadyExists { .. }) => {
            return Err(ApiError::from(error).about(id.to_string(), arn));
        }
        Err(error) => return Err(error.into()),
    };
    Answer::json(&JobRef {
        job_arn: arn,
        job_id: id.to_string(),
        description: job.description,
    })
}
