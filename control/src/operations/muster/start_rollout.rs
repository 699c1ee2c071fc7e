use http::Method;
use ota::server::StartRollout;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "StartRollout",
    method: Method::POST,
    path: "/muster/v1/rollouts",
    least: Role::ReleaseEngineer,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: StartRollout = call.body()?;
    if body.dry_run {
        return Answer::json(&rooms.ota.forecast_rollout(&body, call.now)?);
    }
    let by = call.caller.operator.name.to_string();
    Answer::json(&rooms.ota.start_rollout(&body, &by, call.now)?)
}
