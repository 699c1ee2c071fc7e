use fleet::ThingName;
use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListThingPrincipals",
    method: Method::GET,
    path: "/things/{thingName}/principals",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    principals: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing: ThingName = call.path("thingName")?;
    let asked = call.page(thing.as_str())?;
    rooms.fleet.thing(&thing)?;
    let page = rooms
        .fleet
        .principals(&thing, asked.after.as_deref(), asked.limit)?;
    let arns = call.arns(rooms);
    Answer::json(&Output {
        principals: page.items.iter().map(|id| arns.certificate(id)).collect(),
        next_token: asked.token(page.next),
    })
}
