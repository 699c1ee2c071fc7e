use fleet::{GroupChange, GroupName};
use http::Method;
use serde::{Deserialize, Serialize};

use super::attributes::{AttributePayload, GroupProperties};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "UpdateThingGroup",
    method: Method::PATCH,
    path: "/thing-groups/{thingGroupName}",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    thing_group_properties: GroupProperties,
    expected_version: Option<u64>,
}

#[derive(Serialize)]
struct Output {
    version: u64,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: GroupName = call.path("thingGroupName")?;
    let body: Body = call.body()?;
    let properties = body.thing_group_properties;
    let (attributes, merge) = AttributePayload::of_an_update(properties.attribute_payload);
    let change = GroupChange {
        description: properties.thing_group_description,
        attributes,
        merge,
    };
    let version = rooms
        .fleet
        .update_group(&name, &change, body.expected_version)?;
    Answer::json(&Output { version })
}
