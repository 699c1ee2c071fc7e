use fleet::ThingName;
use http::Method;
use serde::Serialize;

use super::list_thing_groups::GroupNameAndArn;
use super::slice::page_of;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListThingGroupsForThing",
    method: Method::GET,
    path: "/things/{thingName}/thing-groups",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_groups: Vec<GroupNameAndArn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: ThingName = call.path("thingName")?;
    let asked = call.page(name.as_str())?;
    rooms.fleet.thing(&name)?;
    let (groups, next) = page_of(rooms.fleet.groups_of(&name)?, &asked);
    let arns = call.arns(rooms);
    let thing_groups = groups.into_iter().map(|group| GroupNameAndArn {
        group_arn: arns.group(&group),
        group_name: group,
    });
    Answer::json(&Output {
        thing_groups: thing_groups.collect(),
        next_token: asked.token(next),
    })
}
