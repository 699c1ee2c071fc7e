use fleet::ThingName;
use http::Method;
use serde::Serialize;

use super::principal_type;
use super::slice::page_of;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListPrincipalThingsV2",
    method: Method::GET,
    path: "/principals/things-v2",
    least: Role::Viewer,
    query: &["maxResults", "nextToken", "thingPrincipalType"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    principal_thing_objects: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    thing_name: ThingName,
    thing_principal_type: &'static str,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let principal = call.header("x-amzn-principal")?;
    let id = call.arns(rooms).read_certificate(principal)?;
    let asked = call.page(principal)?;
    rooms.fleet.certificate(&id)?;
    let wanted = principal_type::asked(call)?;
    let bound = rooms.fleet.binding_of(&id)?;
    let bound = bound.filter(|bound| wanted.is_none_or(|wanted| wanted == bound.attachment));
    let attachment = bound.as_ref().map(|bound| bound.attachment);
    let (things, next) = page_of(bound.map(|bound| bound.thing).into_iter().collect(), &asked);
    let items = things.into_iter().zip(attachment);
    let items = items.map(|(thing_name, attachment)| Item {
        thing_name,
        thing_principal_type: principal_type::named(attachment),
    });
    Answer::json(&Output {
        principal_thing_objects: items.collect(),
        next_token: asked.token(next),
    })
}
