use std::collections::BTreeMap;

use fleet::{FleetError, Thing, ThingName, ThingTypeName};
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
    undone: &["billingGroupName"],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    attribute_payload: Option<AttributePayload>,
    thing_type_name: Option<ThingTypeName>,
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
    let kind = body.thing_type_name;
    let arn = call.arns(rooms).thing(&name);
    let thing = match rooms
        .fleet
        .create_thing(&name, attributes.clone(), kind.clone(), call.now)
    {
        Ok(thing) => thing,
        // As with AWS: asking again for the very same thing is no error.
        Err(error @ FleetError::AlreadyExists { .. }) => {
            same_thing(rooms, &name, &attributes, kind.as_ref())?
                .ok_or_else(|| ApiError::from(error).about(name.as_str(), arn.as_str()))?
        }
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
    kind: Option<&ThingTypeName>,
) -> Result<Option<Thing>, ApiError> {
    let known = rooms.fleet.thing(name)?;
    let same = known.attributes == *attributes && known.type_name.as_ref() == kind;
    Ok(same.then_some(known))
}
