use std::collections::BTreeMap;

use fleet::GroupName;
use fleet::query::QUERY_VERSION;
use http::Method;
use serde::Serialize;

use super::index;
use super::list_thing_groups::GroupNameAndArn;
use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DescribeThingGroup",
    method: Method::GET,
    path: "/thing-groups/{thingGroupName}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_group_arn: String,
    thing_group_id: String,
    version: u64,
    thing_group_properties: Properties,
    thing_group_metadata: Metadata,
    thing_group_name: GroupName,
    #[serde(flatten)]
    dynamic: Option<Dynamic>,
}

/// What a dynamic group has beside.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dynamic {
    index_name: &'static str,
    query_string: String,
    query_version: &'static str,
    status: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    #[serde(skip_serializing_if = "Option::is_none")]
    thing_group_description: Option<String>,
    attribute_payload: Attributes,
}

#[derive(Serialize)]
struct Attributes {
    attributes: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_group_name: Option<GroupName>,
    root_to_parent_thing_groups: Vec<GroupNameAndArn>,
    creation_date: EpochSeconds,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let group = rooms.fleet.group(&call.path("thingGroupName")?)?;
    let arns = call.arns(rooms);
    let above = rooms.fleet.groups_above(&group.name)?.into_iter();
    let above = above.map(|group| GroupNameAndArn {
        group_arn: arns.group(&group),
        group_name: group,
    });
    Answer::json(&Output {
        thing_group_arn: arns.group(&group.name),
        thing_group_id: group.id,
        version: group.version,
        thing_group_properties: Properties {
            thing_group_description: group.description,
            attribute_payload: Attributes {
                attributes: group.attributes,
            },
        },
        thing_group_metadata: Metadata {
            root_to_parent_thing_groups: above.collect(),
            parent_group_name: group.parent,
            creation_date: EpochSeconds(group.created),
        },
        dynamic: group.query.map(|query_string| Dynamic {
            index_name: index::THINGS,
            query_string,
            query_version: QUERY_VERSION,
            status: match group.building {
                true => "BUILDING",
                false => "ACTIVE",
            },
        }),
        thing_group_name: group.name,
    })
}
