use fleet::GroupName;
use http::Method;
use ota::server::Job;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Jobs looked at in one go.
const LOOK_AT_ONCE: usize = 250;

pub(super) const OPERATION: Operation = Operation {
    name: "ListJobs",
    method: Method::GET,
    path: "/jobs",
    least: Role::Viewer,
    query: &[
        "status",
        "targetSelection",
        "thingGroupName",
        "namespaceId",
        "maxResults",
        "nextToken",
    ],
    undone: &["thingGroupId"],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    jobs: Vec<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    job_arn: String,
    job_id: String,
    target_selection: &'static str,
    status: &'static str,
    created_at: u64,
    last_updated_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<u64>,
}

/// Whether a group is among a job's targets, by its ARN or by its name alone.
fn has_target(job: &Job, group: &str) -> bool {
    let named = |target: &String| target.rsplit(':').next() == Some(group);
    job.targets.iter().any(named)
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let status: Option<String> = call.query("status")?;
    let selection: Option<String> = call.query("targetSelection")?;
    let group: Option<GroupName> = call.query("thingGroupName")?;
    let namespace: Option<String> = call.query("namespaceId")?;
    let of_group = group.map(|group| format!("thinggroup/{group}"));
    let asked = call.page("")?;
    let arns = call.arns(rooms);
    let mut after = asked.after.clone();
    let mut jobs: Vec<Summary> = Vec::new();
    let mut more = false;
    'pages: loop {
        let page = rooms.ota.jobs(after.as_deref(), LOOK_AT_ONCE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.id.to_string());
        for job in page {
            let target_selection = if job.continuous {
                "CONTINUOUS"
            } else {
                "SNAPSHOT"
            };
            if status
                .as_deref()
                .is_some_and(|status| status != job.status.as_str())
                || selection
                    .as_deref()
                    .is_some_and(|asked| asked != target_selection)
                || (namespace.is_some() && namespace != job.namespace)
                || of_group
                    .as_deref()
                    .is_some_and(|group| !has_target(&job, group))
            {
                continue;
            }
            if jobs.len() >= asked.limit {
                more = true;
                break 'pages;
            }
            jobs.push(Summary {
                job_arn: arns.job(&job.id),
                job_id: job.id.to_string(),
                target_selection,
                status: job.status.as_str(),
                created_at: job.created_at,
                last_updated_at: job.last_updated_at,
                completed_at: job.completed_at,
            });
        }
    }
    let last = jobs.last().map(|job| job.job_id.clone());
    Answer::json(&Output {
        next_token: asked.token(last.filter(|_| more)),
        jobs,
    })
}
