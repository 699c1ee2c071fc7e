use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeleteThingGroup",
    method: Method::DELETE,
    path: "/thing-groups/{thingGroupName}",
    least: Role::Operator,
    query: &["expectedVersion"],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name = call.path("thingGroupName")?;
    let expected = call.query("expectedVersion")?;
    rooms.fleet.delete_group(&name, expected)?;
    Answer::empty_object()
}
