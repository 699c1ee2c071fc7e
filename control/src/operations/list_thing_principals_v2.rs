use fleet::ThingName;
use http::Method;
use serde::Serialize;

use super::principal_type;

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
    let wanted = principal_type::asked(call)?;
    let page = rooms
        .fleet
        .principals(&thing, asked.after.as_deref(), asked.limit)?;
    let arns = call.arns(rooms);
    let mut items = Vec::with_capacity(page.items.len());
    for id in &page.items {
        // Detached since it was listed.
        let Some(bound) = rooms.fleet.binding_of(id)? else {
            continue;
        };
        if wanted.is_none_or(|wanted| wanted == bound.attachment) {
            items.push(Item {
                principal: arns.certificate(id),
                thing_principal_type: principal_type::named(bound.attachment),
            });
        }
    }
    Answer::json(&Output {
        thing_principal_objects: items,
        next_token: asked.token(page.next),
    })
}
