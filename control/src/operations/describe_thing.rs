use std::collections::BTreeMap;

use fleet::{ThingName, ThingTypeName};
use http::Method;
use serde::Serialize;

use super::ids::thing_id;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DescribeThing",
    method: Method::GET,
    path: "/things/{thingName}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output<'a> {
    default_client_id: &'a ThingName,
    thing_name: &'a ThingName,
    thing_id: String,
    thing_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    thing_type_name: Option<&'a ThingTypeName>,
    attributes: &'a BTreeMap<String, String>,
    version: u64,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing = rooms.fleet.thing(&call.path("thingName")?)?;
    Answer::json(&Output {
        default_client_id: &thing.name,
        thing_name: &thing.name,
        thing_id: thing_id(&thing),
        thing_arn: call.arns(rooms).thing(&thing.name),
        thing_type_name: thing.type_name.as_ref(),
        attributes: &thing.attributes,
        version: thing.version,
    })
}
