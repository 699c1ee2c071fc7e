use fleet::ThingTypeName;
use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeleteThingType",
    method: Method::DELETE,
    path: "/thing-types/{thingTypeName}",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: ThingTypeName = call.path("thingTypeName")?;
    rooms.fleet.delete_thing_type(&name)?;
    Answer::empty_object()
}
