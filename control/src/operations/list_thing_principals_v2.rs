use fleet::ThingName;
use http::Method;
use serde::Serialize;

use super::principal_type::{EXCLUSIVE, wants_exclusive};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListThingPrincipalsV2",
    method: Method::GET,
    path: "/things/{thingName}/principals-v2",
    least: Role::Viewer,
    query: &["maxResults", "nextToken", "thingPrincipalType"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_principal_objects: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    principal: String,
    thing_principal_type: &'static str,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing: ThingName = call.path("thingName")?;
    let asked = call.page(thing.as_str())?;
    rooms.fleet.thing(&thing)?;
    if !wants_exclusive(call)? {
        return Answer::json(&Output {
            thing_principal_objects: Vec::new(),
            next_token: None,
        });
    }
    let page = rooms
        .fleet
        .principals(&thing, asked.after.as_deref(), asked.limit)?;
    let arns = call.arns(rooms);
    let items = page.items.iter().map(|id| Item {
        principal: arns.certificate(id),
        thing_principal_type: EXCLUSIVE,
    });
    Answer::json(&Output {
        thing_principal_objects: items.collect(),
        next_token: asked.token(page.next),
    })
}
