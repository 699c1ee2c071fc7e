use fleet::ThingName;
use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeleteThing",
    method: Method::DELETE,
    path: "/things/{thingName}",
    least: Role::Operator,
    query: &["expectedVersion"],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: ThingName = call.path("thingName")?;
    rooms
        .fleet
        .delete_thing(&name, call.query("expectedVersion")?)?;
    rooms.ota.forget_thing(name.as_str(), call.now)?;
    rooms.shadows.forget_thing(name.as_str())?;
    Answer::empty_object()
}
