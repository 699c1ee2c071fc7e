use fleet::provisioning::NewTask;
use http::Method;
use serde::{Deserialize, Serialize};

use super::ids::new_id;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "StartThingRegistrationTask",
    method: Method::POST,
    path: "/thing-registration-tasks",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    template_body: String,
    input_file_bucket: String,
    input_file_key: String,
    #[serde(default)]
    role_arn: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    task_id: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let new = NewTask {
        template_body: &body.template_body,
        bucket: &body.input_file_bucket,
        key: &body.input_file_key,
        role_arn: &body.role_arn,
    };
    let task = rooms.registration.start(new_id()?, &new, call.now)?;
    Answer::json(&Output { task_id: task.id })
}
