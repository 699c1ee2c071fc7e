use fleet::GroupName;
use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListThingGroups",
    method: Method::GET,
    path: "/thing-groups",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
    undone: &["parentGroup", "namePrefixFilter", "recursive"],
    run: Run::Plain(run),
};

/// A group's name and ARN, as AWS lists them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GroupNameAndArn {
    pub(super) group_name: GroupName,
    pub(super) group_arn: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_groups: Vec<GroupNameAndArn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let asked = call.page("")?;
    let page = rooms.fleet.groups(asked.after.as_deref(), asked.limit)?;
    let arns = call.arns(rooms);
    let thing_groups = page.items.into_iter().map(|group| GroupNameAndArn {
        group_arn: arns.group(&group.name),
        group_name: group.name,
    });
    Answer::json(&Output {
        thing_groups: thing_groups.collect(),
        next_token: asked.token(page.next),
    })
}
