use fleet::Tagged;
use fleet::{FleetError, Group, GroupChange, GroupName};
use http::Method;
use ota::server::{Tag, read_tags};
use serde::{Deserialize, Serialize};

use super::attributes::{AttributePayload, GroupProperties};
use super::ids::new_id;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreateThingGroup",
    method: Method::POST,
    path: "/thing-groups/{thingGroupName}",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    parent_group_name: Option<GroupName>,
    thing_group_properties: Option<GroupProperties>,
    #[serde(default)]
    tags: Vec<Tag>,
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
    let change = GroupChange {
        attributes: Some(AttributePayload::of_a_new_one(
            properties.attribute_payload,
        )?),
        description: properties.thing_group_description,
        merge: false,
    };
    let parent = body.parent_group_name;
    let arn = call.arns(rooms).group(&name);
    let tags = read_tags(&body.tags)?;
    rooms.fleet.tag_new(&Tagged::Group(name.clone()), &tags)?;
    let made = rooms
        .fleet
        .create_group(&name, parent.as_ref(), &change, new_id()?, call.now);
    let group = match made {
        Ok(group) => group,
        // As with AWS: asking again for the very same group is no error.
        Err(error @ FleetError::AlreadyExists { .. }) => {
            same_group(rooms, &name, parent.as_ref(), &change)?
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

fn same_group(
    rooms: &Rooms,
    name: &GroupName,
    parent: Option<&GroupName>,
    change: &GroupChange,
) -> Result<Option<Group>, ApiError> {
    let known = rooms.fleet.group(name)?;
    let same = Some(&known.attributes) == change.attributes.as_ref()
        && known.description == change.description
        && known.parent.as_ref() == parent;
    Ok(same.then_some(known))
}
