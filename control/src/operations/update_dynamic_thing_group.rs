use fleet::{GroupChange, GroupName};
use http::Method;
use serde::{Deserialize, Serialize};

use super::attributes::{AttributePayload, GroupProperties};
use super::index;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "UpdateDynamicThingGroup",
    method: Method::PATCH,
    path: "/dynamic-thing-groups/{thingGroupName}",
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
    index_name: Option<String>,
    query_string: Option<String>,
    query_version: Option<String>,
}

#[derive(Serialize)]
struct Output {
    version: u64,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: GroupName = call.path("thingGroupName")?;
    let body: Body = call.body()?;
    index::check(body.index_name.as_deref(), body.query_version.as_deref())?;
    let properties = body.thing_group_properties;
    let (attributes, merge) = AttributePayload::of_an_update(properties.attribute_payload);
    let change = GroupChange {
        description: properties.thing_group_description,
        attributes,
        merge,
    };
    let query = body.query_string.as_deref();
    let version = rooms
        .fleet
        .update_dynamic_group(&name, query, &change, body.expected_version)?;
    Answer::json(&Output { version })
}
