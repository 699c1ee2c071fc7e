use fleet::{ThingChange, ThingName, ThingTypeName};
use http::Method;
use serde::Deserialize;

use super::attributes::AttributePayload;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "UpdateThing",
    method: Method::PATCH,
    path: "/things/{thingName}",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    thing_type_name: Option<ThingTypeName>,
    attribute_payload: Option<AttributePayload>,
    expected_version: Option<u64>,
    #[serde(default)]
    remove_thing_type: bool,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: ThingName = call.path("thingName")?;
    let body: Body = call.body()?;
    let type_name = match (body.thing_type_name, body.remove_thing_type) {
        (Some(_), true) => {
            return Err(ApiError::invalid(
                "thingTypeName and removeThingType exclude each other",
            ));
        }
        (None, true) => Some(None),
        (Some(name), false) => Some(Some(name)),
        (None, false) => None,
    };
    let (attributes, merge) = AttributePayload::of_an_update(body.attribute_payload);
    let change = ThingChange {
        attributes,
        merge,
        type_name,
    };
    rooms
        .fleet
        .update_thing(&name, &change, body.expected_version)?;
    Answer::empty_object()
}
