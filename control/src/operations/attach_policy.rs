use http::Method;
use serde::Deserialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "AttachPolicy",
    method: Method::PUT,
    path: "/target-policies/{policyName}",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    target: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name = call.path("policyName")?;
    let target = call.arns(rooms).read_target(&call.body::<Body>()?.target)?;
    rooms.fleet.attach_policy(&name, &target)?;
    Answer::nothing()
}
