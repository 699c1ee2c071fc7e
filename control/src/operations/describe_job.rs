use std::collections::BTreeMap;

use http::Method;
use ota::JobId;
use ota::job::config::JobConfig;
use ota::server::{Job, JobCounts};
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::arn::Arns;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DescribeJob",
    method: Method::GET,
    path: "/jobs/{jobId}",
    least: Role::Viewer,
    query: &["beforeSubstitution"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    #[serde(skip_serializing_if = "Option::is_none")]
    document_source: Option<String>,
    job: Description,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    job_arn: String,
    job_id: String,
    target_selection: &'static str,
    status: &'static str,
    force_canceled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    targets: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    created_at: u64,
    last_updated_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<u64>,
    job_process_details: ProcessDetails,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_config: Option<TimeoutConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_template_arn: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    document_parameters: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    destination_package_versions: Vec<String>,
    #[serde(flatten)]
    config: JobConfig,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TimeoutConfig {
    in_progress_timeout_in_minutes: u32,
}

impl TimeoutConfig {
    pub(super) const fn of(minutes: u32) -> Self {
        Self {
            in_progress_timeout_in_minutes: minutes,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessDetails {
    number_of_canceled_things: u64,
    number_of_succeeded_things: u64,
    number_of_failed_things: u64,
    number_of_rejected_things: u64,
    number_of_queued_things: u64,
    number_of_in_progress_things: u64,
    number_of_removed_things: u64,
    number_of_timed_out_things: u64,
}

impl From<JobCounts> for ProcessDetails {
    fn from(counts: JobCounts) -> Self {
        Self {
            number_of_canceled_things: counts.canceled,
            number_of_succeeded_things: counts.succeeded,
            number_of_failed_things: counts.failed,
            number_of_rejected_things: counts.rejected,
            number_of_queued_things: counts.queued,
            number_of_in_progress_things: counts.in_progress,
            number_of_removed_things: counts.removed,
            number_of_timed_out_things: counts.timed_out,
        }
    }
}

fn describe(job: Job, counts: JobCounts, arns: Arns<'_>) -> Description {
    Description {
        job_arn: arns.job(&job.id),
        job_id: job.id.to_string(),
        target_selection: if job.continuous {
            "CONTINUOUS"
        } else {
            "SNAPSHOT"
        },
        status: job.status.as_str(),
        force_canceled: job.force_canceled,
        reason_code: job.reason_code,
        comment: job.comment,
        targets: job.targets,
        description: job.description,
        created_at: job.created_at,
        last_updated_at: job.last_updated_at,
        completed_at: job.completed_at,
        job_process_details: counts.into(),
        timeout_config: job.timeout_minutes.map(TimeoutConfig::of),
        job_template_arn: job.template,
        document_parameters: job.parameters,
        namespace_id: job.namespace,
        destination_package_versions: job.packages,
        config: job.config,
    }
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: JobId = call.path("jobId")?;
    // About the document, which this answer does not carry; it is read so that nonsense is refused.
    call.flag("beforeSubstitution")?;
    let job = rooms.ota.job(&id)?;
    let counts = rooms.ota.job_counts(&id)?;
    Answer::json(&Output {
        document_source: job.document_source.clone(),
        job: describe(job, counts, call.arns(rooms)),
    })
}
