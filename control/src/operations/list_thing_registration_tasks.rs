use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListThingRegistrationTasks",
    method: Method::GET,
    path: "/thing-registration-tasks",
    least: Role::Viewer,
    query: &["nextToken", "maxResults", "status"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    task_ids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let status: Option<String> = call.query("status")?;
    let asked = call.page(status.as_deref().unwrap_or_default())?;
    let page = rooms
        .registration
        .tasks(asked.after.as_deref(), asked.limit)?;
    let wanted = page.items.into_iter().filter(|task| {
        let wanted = status.as_deref();
        wanted.is_none_or(|wanted| wanted == task.status.as_str())
    });
    Answer::json(&Output {
        task_ids: wanted.map(|task| task.id).collect(),
        next_token: asked.token(page.next),
    })
}
