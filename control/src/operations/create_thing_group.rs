use std::collections::BTreeMap;

use fleet::{FleetError, Group, GroupName};
use http::Method;
use serde::{Deserialize, Serialize};

use super::attributes::AttributePayload;
use super::ids::new_id;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Longest description of a group, as AWS bounds it.
const MAX_DESCRIPTION_CHARS: usize = 2028;

pub(super) const OPERATION: Operation = Operation {
    name: "CreateThingGroup",
    method: Method::POST,
    path: "/thing-groups/{thingGroupName}",
    least: Role::Operator,
    query: &[],
    undone: &["parentGroupName", "tags"],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    thing_group_properties: Option<Properties>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Properties {
    thing_group_description: Option<String>,
    attribute_payload: Option<AttributePayload>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_group_name: GroupName,
    thing_group_arn: String,
    thing_group_id: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: GroupName = call.path("thingGroupName")?;
    let body: Body = call.body()?;
    let properties = body.thing_group_properties.unwrap_or_default();
    let attributes = AttributePayload::of_a_new_one(properties.attribute_payload)?;
    let description = properties.thing_group_description;
    if let Some(text) = &description {
        check_description(text)?;
    }
    let arn = call.arns(rooms).group(&name);
    let made = rooms.fleet.create_group(
        &name,
        description.clone(),
        attributes.clone(),
        new_id()?,
        call.now,
    );
    let group = match made {
        Ok(group) => group,
        // As with AWS: asking again for the very same group is no error.
        Err(error @ FleetError::AlreadyExists { .. }) => {
            same_group(rooms, &name, description.as_deref(), &attributes)?
                .ok_or_else(|| ApiError::from(error).about(name.as_str(), arn.as_str()))?
        }
        Err(error) => return Err(error.into()),
    };
    Answer::json(&Output {
        thing_group_name: name,
        thing_group_arn: arn,
        thing_group_id: group.id,
    })
}

fn check_description(text: &str) -> Result<(), ApiError> {
    if text.chars().count() > MAX_DESCRIPTION_CHARS || text.chars().any(char::is_control) {
        return Err(ApiError::invalid(format!(
            "thingGroupDescription has at most {MAX_DESCRIPTION_CHARS} characters and no control character"
        )));
    }
    Ok(())
}

fn same_group(
    rooms: &Rooms,
    name: &GroupName,
    description: Option<&str>,
    attributes: &BTreeMap<String, String>,
) -> Result<Option<Group>, ApiError> {
    let known = rooms.fleet.group(name)?;
    let same = known.attributes == *attributes && known.description.as_deref() == description;
    Ok(same.then_some(known))
}
