use fleet::Tagged;
use fleet::query::QUERY_VERSION;
use fleet::{FleetError, GroupChange, GroupName};
use http::Method;
use ota::server::{Tag, read_tags};
use serde::{Deserialize, Serialize};

use super::attributes::{AttributePayload, GroupProperties};
use super::ids::new_id;
use super::index;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreateDynamicThingGroup",
    method: Method::POST,
    path: "/dynamic-thing-groups/{thingGroupName}",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    thing_group_properties: Option<GroupProperties>,
    index_name: Option<String>,
    query_string: String,
    query_version: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_group_name: GroupName,
    thing_group_arn: String,
    thing_group_id: String,
    index_name: &'static str,
    query_string: String,
    query_version: &'static str,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: GroupName = call.path("thingGroupName")?;
    let body: Body = call.body()?;
    index::check(body.index_name.as_deref(), body.query_version.as_deref())?;
    let properties = body.thing_group_properties.unwrap_or_default();
    let change = GroupChange {
        attributes: Some(AttributePayload::of_a_new_one(
            properties.attribute_payload,
        )?),
        description: properties.thing_group_description,
        merge: false,
    };
    let arn = call.arns(rooms).group(&name);
    let tags = read_tags(&body.tags)?;
    rooms.fleet.tag_new(&Tagged::Group(name.clone()), &tags)?;
    let query = &body.query_string;
    match rooms
        .fleet
        .create_dynamic_group(&name, query, &change, new_id()?, call.now)
    {
        Ok(group) => Answer::json(&Output {
            thing_group_name: name,
            thing_group_arn: arn,
            thing_group_id: group.id,
            index_name: index::THINGS,
            query_string: body.query_string,
            query_version: QUERY_VERSION,
        }),
        Err(error @ FleetError::AlreadyExists { .. }) => {
            Err(ApiError::from(error).about(name.as_str(), arn))
        }
        Err(error) => Err(error.into()),
    }
}
