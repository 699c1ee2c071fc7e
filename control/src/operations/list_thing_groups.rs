use fleet::GroupName;
use http::Method;
use serde::Serialize;

use super::slice::page_of;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::page::MAX_PAGE_ITEMS;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListThingGroups",
    method: Method::GET,
    path: "/thing-groups",
    least: Role::Viewer,
    query: &[
        "maxResults",
        "nextToken",
        "parentGroup",
        "namePrefixFilter",
        "recursive",
    ],
    undone: &[],
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
    let parent: Option<GroupName> = call.query("parentGroup")?;
    let prefix: String = call.query("namePrefixFilter")?.unwrap_or_default();
    let recursive: bool = call.query("recursive")?.unwrap_or(true);
    // A token leads on in the list of the same question only.
    let asked = call.page(&format!("{parent:?} {prefix} {recursive}"))?;
    let (names, next) = match parent {
        None => {
            let after = asked.after.as_deref();
            let page = rooms
                .fleet
                .groups(&prefix, !recursive, after, asked.limit)?;
            let names = page.items.into_iter().map(|group| group.name);
            (names.collect(), page.next)
        }
        Some(parent) => {
            let mut below = match recursive {
                true => rooms.fleet.groups_below(&parent)?,
                // A group has no more groups directly below it than a page has items.
                false => {
                    let all = MAX_PAGE_ITEMS;
                    rooms.fleet.groups_directly_below(&parent, None, all)?.items
                }
            };
            below.retain(|name| name.as_str().starts_with(&prefix));
            page_of(below, &asked)
        }
    };
    let arns = call.arns(rooms);
    let thing_groups = names.into_iter().map(|name| GroupNameAndArn {
        group_arn: arns.group(&name),
        group_name: name,
    });
    Answer::json(&Output {
        thing_groups: thing_groups.collect(),
        next_token: asked.token(next),
    })
}
