use fleet::ThingTypeName;
use http::Method;
use serde::Deserialize;

use super::thing_type::Properties;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "UpdateThingType",
    method: Method::PATCH,
    path: "/thing-types/{thingTypeName}",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    thing_type_properties: Option<Properties>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: ThingTypeName = call.path("thingTypeName")?;
    let body: Body = call.body()?;
    let properties = Properties::read(body.thing_type_properties);
    rooms.fleet.update_thing_type(&name, properties)?;
    Answer::empty_object()
}
