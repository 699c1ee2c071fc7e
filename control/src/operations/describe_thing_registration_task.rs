use http::Method;
use serde::Serialize;

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DescribeThingRegistrationTask",
    method: Method::GET,
    path: "/thing-registration-tasks/{taskId}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    task_id: String,
    creation_date: EpochSeconds,
    last_modified_date: EpochSeconds,
    template_body: String,
    input_file_bucket: String,
    input_file_key: String,
    role_arn: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    success_count: u64,
    failure_count: u64,
    percentage_progress: u64,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let task = rooms.registration.task(&call.path::<String>("taskId")?)?;
    Answer::json(&Output {
        task_id: task.id,
        creation_date: EpochSeconds(task.created),
        last_modified_date: EpochSeconds(task.modified),
        template_body: task.template_body,
        input_file_bucket: task.bucket,
        input_file_key: task.key,
        role_arn: task.role_arn,
        status: task.status.as_str(),
        message: task.message,
        success_count: task.succeeded,
        failure_count: task.failed,
        // An empty file is done when it is begun.
        percentage_progress: (task.offset.saturating_mul(100))
            .checked_div(task.size)
            .unwrap_or(100)
            .min(100),
    })
}
