use fleet::Tagged;
use fleet::{FleetError, ThingTypeName};
use http::Method;
use ota::server::{Tag, read_tags};
use serde::{Deserialize, Serialize};

use super::ids::new_id;
use super::thing_type::Properties;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreateThingType",
    method: Method::POST,
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
    #[serde(default)]
    tags: Vec<Tag>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_type_name: ThingTypeName,
    thing_type_arn: String,
    thing_type_id: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: ThingTypeName = call.path("thingTypeName")?;
    let body: Body = call.body()?;
    let properties = Properties::read(body.thing_type_properties);
    let arn = call.arns(rooms).thing_type(&name);
    let tags = read_tags(&body.tags)?;
    rooms
        .fleet
        .tag_new(&Tagged::ThingType(name.clone()), &tags)?;
    let made = rooms
        .fleet
        .create_thing_type(&name, properties.clone(), new_id()?, call.now);
    let made = match made {
        Ok(made) => made,
        // As with AWS: asking again for the very same type is no error.
        Err(error @ FleetError::AlreadyExists { .. }) => {
            let known = rooms.fleet.thing_type(&name)?;
            if known.properties != properties {
                return Err(ApiError::from(error).about(name.as_str(), arn));
            }
            known
        }
        Err(error) => return Err(error.into()),
    };
    Answer::json(&Output {
        thing_type_name: name,
        thing_type_arn: arn,
        thing_type_id: made.id,
    })
}
