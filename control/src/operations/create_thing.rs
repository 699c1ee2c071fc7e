use std::collections::BTreeMap;

use fleet::{FleetError, Thing, ThingName};
use http::Method;
use serde::{Deserialize, Serialize};

use super::attributes::AttributePayload;
use super::ids::thing_id;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreateThing",
    method: Method::POST,
    path: "/things/{thingName}",
    least: Role::Operator,
    query: &[],
    undone: &["thingTypeName", "billingGroupName"],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    attribute_payload: Option<AttributePayload>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_name: ThingName,
    thing_arn: String,
    thing_id: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: ThingName = call.path("thingName")?;
    let body: Body = call.body()?;
    let attributes = AttributePayload::of_a_new_one(body.attribute_payload)?;
    let arn = call.arns(rooms).thing(&name);
    let thing = match rooms
        .fleet
        .create_thing(&name, attributes.clone(), call.now)
    {
        Ok(thing) => thing,
        // As with AWS: asking again for the very same thing is no error.
        Err(error @ FleetError::AlreadyExists { .. }) => same_thing(rooms, &name, &attributes)?
            .ok_or_else(|| ApiError::from(error).about(name.as_str(), arn.as_str()))?,
        Err(error) => return Err(error.into()),
    };
    Answer::json(&Output {
        thing_id: thing_id(&thing),
        thing_name: name,
        thing_arn: arn,
    })
}

fn same_thing(
    rooms: &Rooms,
    name: &ThingName,
    attributes: &BTreeMap<String, String>,
) -> Result<Option<Thing>, ApiError> {
    let known = rooms.fleet.thing(name)?;
    Ok((known.attributes == *attributes).then_some(known))
}
