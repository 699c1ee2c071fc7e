use http::Method;
use ota::JobId;
use ota::job::config::{AbortConfig, JobConfig, PresignedUrlConfig, RetryConfig, RolloutConfig};
use ota::server::TimeoutConfig;
use serde::Deserialize;

use super::namespace;
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
    query: &["namespaceId"],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    description: Option<String>,
    timeout_config: Option<TimeoutConfig>,
    abort_config: Option<AbortConfig>,
    job_executions_retry_config: Option<RetryConfig>,
    job_executions_rollout_config: Option<RolloutConfig>,
    presigned_url_config: Option<PresignedUrlConfig>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: JobId = call.path("jobId")?;
    namespace::check(rooms, call, &id)?;
    let body: Body = call.body()?;
    rooms.ota.update_job(
        &id,
        body.description,
        body.timeout_config.as_ref(),
        JobConfig {
            job_executions_rollout_config: body.job_executions_rollout_config,
            abort_config: body.abort_config,
            job_executions_retry_config: body.job_executions_retry_config,
            scheduling_config: None,
            presigned_url_config: body.presigned_url_config,
        },
        call.now,
    )?;
    Answer::nothing()
}
