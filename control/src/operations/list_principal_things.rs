use fleet::ThingName;
use http::Method;
use serde::Serialize;

use super::slice::page_of;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListPrincipalThings",
    method: Method::GET,
    path: "/principals/things",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
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
    let principal = call.header("x-amzn-principal")?;
    let id = call.arns(rooms).read_certificate(principal)?;
    let asked = call.page(principal)?;
    rooms.fleet.certificate(&id)?;
    let (things, next) = page_of(rooms.fleet.thing_of(&id)?.into_iter().collect(), &asked);
    Answer::json(&Output {
        things,
        next_token: asked.token(next),
    })
}
