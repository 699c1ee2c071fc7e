use fleet::ThingTypeName;
use http::Method;
use serde::Deserialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeprecateThingType",
    method: Method::POST,
    path: "/thing-types/{thingTypeName}/deprecate",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    #[serde(default)]
    undo_deprecate: bool,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: ThingTypeName = call.path("thingTypeName")?;
    let body: Body = call.body()?;
    rooms
        .fleet
        .deprecate_thing_type(&name, body.undo_deprecate, call.now)?;
    Answer::empty_object()
}
