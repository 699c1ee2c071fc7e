use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ShowRollout",
    method: Method::GET,
    path: "/muster/v1/rollouts/{id}",
    least: Role::Viewer,
    query: &["executions"],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id = call.path("id")?;
    let executions: Option<bool> = call.query("executions")?;
    Answer::json(&if executions == Some(false) {
        rooms.ota.rollout_outline(&id)?
    } else {
        rooms.ota.rollout(&id)?
    })
}
