use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeleteOperator",
    method: Method::DELETE,
    path: "/muster/v1/operators/{name}",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    rooms.operators.remove(&call.path("name")?)?;
    rooms.operators.revoke_left(&rooms.fleet, call.now)?;
    Answer::empty_object()
}
