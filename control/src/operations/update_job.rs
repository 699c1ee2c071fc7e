use http::Method;
use ota::JobId;
use ota::server::TimeoutConfig;
use serde::Deserialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "UpdateJob",
    method: Method::PATCH,
    path: "/jobs/{jobId}",
    least: Role::Operator,
    query: &[],
    undone: &[
        "abortConfig",
        "jobExecutionsRetryConfig",
        "jobExecutionsRolloutConfig",
        "namespaceId",
        "presignedUrlConfig",
    ],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    description: Option<String>,
    timeout_config: Option<TimeoutConfig>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: JobId = call.path("jobId")?;
    let body: Body = call.body()?;
    rooms.ota.update_job(
        &id,
        body.description,
        body.timeout_config.as_ref(),
        call.now,
    )?;
    Answer::nothing()
}
