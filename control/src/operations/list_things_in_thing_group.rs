use fleet::{GroupName, ThingName};
use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListThingsInThingGroup",
    method: Method::GET,
    path: "/thing-groups/{thingGroupName}/things",
    least: Role::Viewer,
    query: &["maxResults", "nextToken", "recursive"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    things: Vec<ThingName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let group: GroupName = call.path("thingGroupName")?;
    let recursive = call.flag("recursive")?;
    let asked = call.page(&format!("{group} {recursive}"))?;
    let (after, limit) = (asked.after.as_deref(), asked.limit);
    let page = match recursive {
        true => rooms.fleet.members_below(&group, after, limit)?,
        false => rooms.fleet.members(&group, after, limit)?,
    };
    Answer::json(&Output {
        things: page.items,
        next_token: asked.token(page.next),
    })
}
